"""Durations, sizes, rates, addresses and the other small texts."""

from collections.abc import Callable
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import values
from sidecar.config.values import BadValueError, RateValue
from sidecar.policy.compiled import Address

PARSERS: list[Callable[[object], object]] = [
    values.address,
    values.byte_rate,
    values.choice("a", "b", later=("c",)),
    values.close_code,
    values.count_rate,
    values.duration,
    values.header_name,
    values.identifier,
    values.network,
    values.own_reason,
    values.pointer,
    values.positive(values.duration),
    values.size,
    values.text,
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANYTHING = SCALARS | st.lists(SCALARS) | st.dictionaries(st.text(), SCALARS)
LIKELY = st.text(alphabet="0123456789.:/[]-_dhmsKMGiB secondmirut", max_size=20)


@given(ANYTHING | LIKELY)
def test_a_parser_refuses_in_one_way_only(value: object) -> None:
    for parse in PARSERS:
        try:
            parse(value)
        except BadValueError as error:
            assert error.wrong  # noqa: PT017
            assert error.remedy  # noqa: PT017
            assert str(error).isprintable()  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("250ms", 0.25),
        ("7d", 604800.0),
        ("1m500ms", 60.5),
        ("1.5s", 1.5),
        ("0s", 0.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert values.duration(text) == seconds


@given(*(st.integers(0, 999) for _ in range(5)))
def test_durations_add_up(days: int, hours: int, minutes: int, seconds: int, ms: int) -> None:
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds + ms / 1000
    text = f"{days}d{hours}h{minutes}m{seconds}s{ms}ms"
    assert values.duration(text) == pytest.approx(total)


@pytest.mark.parametrize(
    "value",
    [
        *(
            30,
            0.5,
            None,
            "",
            "30",
            "s",
            "30 s",
            "-5s",
            "1s1m",
            "1m1m",
            "1e3s",
            "1y",
            "٣s",
            " 5s",
            "5S",
        ),
        *("5s\n", "1234567890s", True, ["5s"]),
    ],
)
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(BadValueError, match=r"is not a duration; write a number with its unit"):
        values.duration(value)


def test_a_duration_that_must_be_positive() -> None:
    assert values.positive(values.duration)("1ms") == 0.001
    with pytest.raises(BadValueError, match=r"'0s' is zero"):
        values.positive(values.duration)("0s")


@given(st.integers(1, 10**12 - 1), st.sampled_from(["B", "KB", "MB", "GB", "TB"]))
def test_decimal_sizes(count: int, unit: str) -> None:
    assert values.size(f"{count}{unit}") == count * 1000 ** ["B", "KB", "MB", "GB", "TB"].index(
        unit
    )


@given(st.integers(1, 10**12 - 1), st.sampled_from(["KiB", "MiB", "GiB", "TiB"]))
def test_binary_sizes(count: int, unit: str) -> None:
    assert values.size(f"{count}{unit}") == count << 10 * (1 + "KMGT".index(unit[0]))


@pytest.mark.parametrize("value", [512, "512", "1.5MiB", "1kb", "1 KB", "-1B", "1iB", "", None])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(BadValueError, match=r"is not a size; write a whole number"):
        values.size(value)


def test_no_size_is_zero() -> None:
    with pytest.raises(BadValueError, match=r"'0B' is zero"):
        values.size("0B")


@given(st.integers(1, 10**12 - 1), st.sampled_from([("second", 1), ("minute", 60), ("hour", 3600)]))
def test_rates(count: int, period: tuple[str, int]) -> None:
    assert values.count_rate(f"{count}/{period[0]}") == RateValue(count, period[1])
    assert values.byte_rate(f"{count}KiB/{period[0]}") == RateValue(count * 1024, period[1])


@pytest.mark.parametrize(
    "value",
    [100, "100", "100/s", "0/second", "/second", "1KiB/second", "1/second/second", "1.5/hour"],
)
def test_what_is_no_rate(value: object) -> None:
    with pytest.raises(BadValueError, match=r"is not a rate; write 100/second"):
        values.count_rate(value)


@pytest.mark.parametrize("value", ["100/second", "0B/second", "1KiB", "1KiB/day", None])
def test_what_is_no_rate_of_bytes(value: object) -> None:
    with pytest.raises(BadValueError, match=r"is not a rate; write 1MiB/second"):
        values.byte_rate(value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:8080", Address("0.0.0.0", 8080)),
        ("localhost:0", Address("localhost", 0)),
        ("Chat.Example:65535", Address("chat.example", 65535)),
        ("[::1]:80", Address("::1", 80)),
        ("[2001:DB8::1]:80", Address("2001:db8::1", 80)),
        ("unix:/run/a b.sock", Address(unix="/run/a b.sock")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert values.address(text) == address


@given(st.ip_addresses(v=6) | st.ip_addresses(v=4), st.integers(0, 65535))
def test_addresses_survive_a_round_trip(ip: object, port: int) -> None:
    address = Address(str(ip), port)
    if "%" not in str(ip):
        assert values.address(str(address)) == address


@pytest.mark.parametrize(
    "value",
    [
        *(
            8080,
            "8080",
            ":8080",
            "host",
            "host:",
            "host:65536",
            "::1:80",
            "[::1]",
            "[127.0.0.1]:80",
        ),
        *("[1:2]:80", "a/b:80", "http://a:80", "unix:relative", "unix:/a\0b", "-a:80", "a b:80"),
    ],
)
def test_what_is_no_address(value: object) -> None:
    with pytest.raises(BadValueError, match=r"is not an address; write host:port"):
        values.address(value)


def test_the_path_of_a_unix_socket_survives_a_round_trip() -> None:
    assert str(values.address("unix:/run/a.sock")) == "unix:/run/a.sock"


@pytest.mark.parametrize("text", ["10.0.0.0/8", "127.0.0.1", "fd00::/8", "::1"])
def test_networks(text: str) -> None:
    assert values.network(text) == ip_network(text)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:a00:1", "10.0.0.1/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
    ],
)
def test_ipv4_addresses_mapped_to_ipv6_are_to_be_written_as_ipv4(text: str, right: str) -> None:
    with pytest.raises(BadValueError, match=rf"would never match: .*; write {right}$"):
        values.network(text)


def test_a_network_with_host_bits_is_corrected() -> None:
    with pytest.raises(BadValueError, match=r"write 10\.0\.0\.0/8"):
        values.network("10.1.2.3/8")


@pytest.mark.parametrize("value", ["everyone", "10.0.0.0/33", 10, "", None])
def test_what_is_no_network(value: object) -> None:
    with pytest.raises(BadValueError, match=r"is not a network"):
        values.network(value)


def test_text() -> None:
    assert values.text("x") == "x"
    with pytest.raises(BadValueError, match=r"is empty"):
        values.text("")
    with pytest.raises(BadValueError, match=r"^is not text; put quotes around it"):
        values.text(5)
    with pytest.raises(BadValueError, match=r"is a mapping where text belongs; put quotes"):
        values.text({"path.room": None})


@pytest.mark.parametrize("name", ["X-User-Id", "x_user", "a.b", "!#$"])
def test_header_names(name: str) -> None:
    assert values.header_name(name) == name


@pytest.mark.parametrize("name", ["X User", "X:", "Ä", "X\r\nY", "a" * 257, "X\0"])
def test_what_is_no_header_name(name: str) -> None:
    with pytest.raises(BadValueError, match=r"is not a header name"):
        values.header_name(name)


@pytest.mark.parametrize("name", ["_x", "a b", "a/b", "ä", "x" * 65, "a\n"])
def test_what_is_no_identifier(name: str) -> None:
    with pytest.raises(BadValueError, match=r"is not a usable name"):
        values.identifier(name)


@pytest.mark.parametrize("name", ["Not", "1a", "a-b", "a" * 65, "a\n"])
def test_what_is_no_reason(name: str) -> None:
    with pytest.raises(BadValueError, match=r"is not a usable reason"):
        values.own_reason(name)


@pytest.mark.parametrize("source", ["/type", "/data/token", "/a~1b/0", "/"])
def test_pointers(source: str) -> None:
    assert values.pointer(source).source == source


@pytest.mark.parametrize("value", ["type", "data.token", "", "/~", "/a~2", None, 1, ["/a"], {}])
def test_what_is_no_pointer(value: object) -> None:
    with pytest.raises(BadValueError):
        values.pointer(value)


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 1013, 1014, 3000, 4000, 4999])
def test_close_codes_that_may_be_sent(code: int) -> None:
    assert values.close_code(code) == code


@pytest.mark.parametrize(
    "code", [0, 999, 1002, 1004, 1005, 1006, 1007, 1009, 1015, 2999, 5000, "4000", True, None, 4e3]
)
def test_close_codes_that_may_not_be_sent(code: object) -> None:
    with pytest.raises(BadValueError, match=r"is not a close code that may be sent here"):
        values.close_code(code)


def test_choices() -> None:
    parse = values.choice("deny", later=("open",))
    assert parse("deny") == "deny"
    with pytest.raises(BadValueError, match=r"'open' is not supported yet; use deny"):
        parse("open")
    with pytest.raises(BadValueError, match=r"false is not one of its values; use deny"):
        parse(False)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x", "'x'"),
        ("a\nb", r"'a\nb'"),
        ("x" * 61, f"'{'x' * 57}...'"),
        (True, "true"),
        (False, "false"),
        (None, "null"),
        (7, "7"),
        ([1], "a list"),
        ({}, "a mapping"),
    ],
)
def test_values_are_shown_short_and_printable(value: object, shown: str) -> None:
    assert values.show(value) == shown


def test_near_names_are_suggested() -> None:
    assert values.did_you_mean("lisen", ["listen", "tls"]) == "listen"
    assert values.did_you_mean("trusted-Proxies", ["trusted_proxies"]) == "trusted_proxies"
    assert values.did_you_mean("zzz", ["listen", "tls"]) is None
