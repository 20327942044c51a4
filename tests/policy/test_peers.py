from ipaddress import ip_address, ip_network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sidecar.model import Peer
from sidecar.policy.peers import Network, counted_as, resolve_peer

TRUSTED: tuple[Network, ...] = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
PROXY = "10.0.0.1"
CLIENT = "203.0.113.7"


def client(*fields: tuple[str, str], address: str = PROXY) -> str:
    return resolve_peer(address, False, fields, TRUSTED).address


def secure(*fields: tuple[str, str], address: str = PROXY, tls: bool = False) -> bool:
    return resolve_peer(address, tls, fields, TRUSTED).secure


def test_by_default_the_socket_tells_who_the_client_is() -> None:
    headers = [("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-Proto", "https")]
    assert resolve_peer(CLIENT, False, headers, ()) == Peer(CLIENT, False)


def test_an_untrusted_peer_cannot_evade_a_limit_by_rotating_the_header() -> None:
    seen = {client(("X-Forwarded-For", f"198.51.100.{n}"), address=CLIENT) for n in range(50)}
    assert seen == {CLIENT}


def test_behind_a_trusted_proxy_rotating_what_stands_left_changes_nothing() -> None:
    seen = {client(("X-Forwarded-For", f"198.51.100.{n}, {CLIENT}")) for n in range(50)}
    assert seen == {CLIENT}


def test_a_trusted_proxy_without_headers_is_the_client() -> None:
    assert client() == PROXY


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (CLIENT, CLIENT),
        (f"{CLIENT}, 10.0.0.2, 10.9.9.9", CLIENT),
        (f"1.1.1.1, {CLIENT}, 10.0.0.2", CLIENT),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        (f"{CLIENT}:50123", CLIENT),
        (f" {CLIENT} ,, ", CLIENT),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        (f"::ffff:{CLIENT}", CLIENT),
        (f"[::ffff:{CLIENT}]:80", CLIENT),
        (f"{CLIENT}, ::ffff:10.0.0.2", CLIENT),
        (f"{CLIENT}, fd00::5", CLIENT),
    ],
)
def test_x_forwarded_for_is_walked_from_the_right(value: str, address: str) -> None:
    assert client(("X-Forwarded-For", value)) == address


@pytest.mark.parametrize(
    "hop",
    ["unknown", "_hidden", "localhost", "10.0.0.256", "010.0.0.9", "1.2.3.4:", "[::1", "1.2.3.4:x",
     "10.0.0.9 10.0.0.8", "\xb9.2.3.4", "1.2.3.4/32"],
)  # fmt: skip
def test_a_hop_that_is_no_address_ends_the_walk_at_the_last_good_one(hop: str) -> None:
    assert client(("X-Forwarded-For", f"{CLIENT}, {hop}, 10.0.0.2")) == "10.0.0.2"
    assert client(("X-Forwarded-For", f"{CLIENT}, {hop}")) == PROXY


def test_several_fields_are_one_list_in_order() -> None:
    fields = [("X-Forwarded-For", "1.1.1.1"), ("x-forwarded-for", f"{CLIENT}, 10.0.0.2")]
    assert client(*fields) == CLIENT
    assert client(*reversed(fields)) == "1.1.1.1"


def test_a_mapped_socket_address_is_an_ipv4_address() -> None:
    assert client(address=f"::ffff:{CLIENT}") == CLIENT
    assert client(("X-Forwarded-For", CLIENT), address=f"::ffff:{PROXY}") == CLIENT


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (f"for={CLIENT}", CLIENT),
        (f"FOR={CLIENT};Proto=https;by=10.0.0.1", CLIENT),
        (f'for="{CLIENT}:4711"', CLIENT),
        ('for="[2001:db8::1]:4711"', "2001:db8::1"),
        ('for="[2001:db8::1]:_port"', "2001:db8::1"),
        (r'for="203.0\.113.7"', CLIENT),
        (f"for=1.1.1.1, for={CLIENT}, for=10.0.0.2", CLIENT),
        (f"for={CLIENT} ; proto=https;", CLIENT),
    ],
)
def test_forwarded_is_walked_from_the_right(value: str, address: str) -> None:
    assert client(("Forwarded", value)) == address


@pytest.mark.parametrize(
    "element",
    ["for=unknown", "for=_hidden", "proto=https", "for", "for=", f"for={CLIENT};for=1.1.1.1",
     f"for = {CLIENT}", f'for="{CLIENT}', f'for={CLIENT}"', f"for={CLIENT};host=a@b"],
)  # fmt: skip
def test_a_forwarded_element_without_an_address_ends_the_walk(element: str) -> None:
    assert client(("Forwarded", f"for=1.1.1.1, {element}, for=10.0.0.2")) == "10.0.0.2"


def test_an_open_quote_from_the_client_does_not_swallow_what_the_proxy_adds() -> None:
    assert client(("Forwarded", f'for="10.0.0.9, for={CLIENT}')) == CLIENT


def test_a_quoted_comma_cannot_forge_a_hop() -> None:
    forged = f'for={CLIENT};host="a, for=1.1.1.1";proto=https'
    assert client(("Forwarded", forged)) == PROXY
    assert not secure(("Forwarded", f'for={CLIENT};host="a, proto=https"'))


@pytest.mark.parametrize(
    ("value", "expected"),
    [("https", True), ("HTTPS", True), ("wss", True), ("http, https", True), ("http", False),
     ("https, http", False), ("httpsx", False)],
)  # fmt: skip
def test_the_last_protocol_of_a_trusted_proxy_counts(value: str, expected: bool) -> None:
    assert secure(("X-Forwarded-Proto", value)) is expected
    assert secure(("X-Forwarded-Proto", value), tls=True) is expected


def test_a_protocol_from_anyone_else_does_not_count() -> None:
    assert not secure(("X-Forwarded-Proto", "https"), address=CLIENT)
    assert secure(("X-Forwarded-Proto", "http"), address=CLIENT, tls=True)


@pytest.mark.parametrize("tls", [True, False])
def test_without_a_protocol_the_socket_tells(tls: bool) -> None:
    assert secure(("X-Forwarded-For", CLIENT), tls=tls) is tls
    assert secure(("Forwarded", f"proto=https, for={CLIENT}"), tls=tls) is tls


def test_forwarded_gives_the_protocol_too() -> None:
    assert secure(("Forwarded", f"for={CLIENT};proto=http, for=10.0.0.2;proto=https"))


@pytest.mark.parametrize(
    "field", [("X-Forwarded-For", CLIENT), ("X-Forwarded-Proto", "http")], ids=str
)
def test_forwarded_does_not_count_beside_x_forwarded(field: tuple[str, str]) -> None:
    forwarded = ("Forwarded", "for=1.1.1.1;proto=https")
    assert client(forwarded, field) in {CLIENT, PROXY}
    assert not secure(forwarded, field)


@pytest.mark.parametrize("network", ["127.0.0.0/8", "::1/128"])
def test_a_unix_socket_is_trusted_with_the_loopback_address(network: str) -> None:
    trusted = (ip_network(network),)
    headers = [("X-Forwarded-For", CLIENT), ("X-Forwarded-Proto", "https")]
    assert resolve_peer("unix", False, headers, trusted) == Peer(CLIENT, True)
    assert resolve_peer("unix", False, (), trusted) == Peer("unix", False)


def test_a_unix_socket_is_not_trusted_otherwise() -> None:
    assert client(("X-Forwarded-For", CLIENT), address="unix") == "unix"


ADDRESSES = st.ip_addresses().map(str)
NOISE = st.text(alphabet=st.characters(max_codepoint=255))
PIECES = st.lists(
    st.one_of(
        ADDRESSES,
        NOISE,
        ADDRESSES.map(lambda text: f'for="[{text}]:80"'),
        st.sampled_from(['for="', "for=10.0.0.2", ";", "proto=https", "10.0.0.5:1", '"', "\\"]),
    )
)
FIELDS = st.lists(
    st.tuples(
        st.sampled_from(["X-Forwarded-For", "Forwarded", "X-Forwarded-Proto", "Other"]),
        PIECES.map(",".join),
    )
)


def test_no_more_than_32_hops_are_looked_at() -> None:
    hops = ",".join([CLIENT, *["10.0.0.9"] * 31])
    assert client(("X-Forwarded-For", hops)) == CLIENT
    assert client(("X-Forwarded-For", hops + ",10.0.0.9")) == "10.0.0.9"
    assert client(("X-Forwarded-For", ",".join(["10.0.0.9"] * 20_000))) == "10.0.0.9"


@given(FIELDS)
def test_whatever_the_headers_say_the_client_is_an_address(fields: list[tuple[str, str]]) -> None:
    peer = resolve_peer(PROXY, False, fields, TRUSTED)
    assert str(ip_address(peer.address)) == peer.address


@given(ADDRESSES, FIELDS)
def test_an_untrusted_peer_is_itself_whatever_it_says(
    address: str, fields: list[tuple[str, str]]
) -> None:
    assert resolve_peer(address, True, fields, ()) == resolve_peer(address, True, (), ())


@given(PIECES)
def test_what_stands_left_of_the_proxys_own_entry_never_counts(pieces: list[str]) -> None:
    assert client(("X-Forwarded-For", ",".join([*pieces, CLIENT]))) == CLIENT
    assert client(("Forwarded", ",".join([*pieces, f"for={CLIENT}"]))) == CLIENT


FIELDS = st.lists(
    st.tuples(
        st.sampled_from(["X-Forwarded-For", "X-Forwarded-Proto", "Forwarded"]),
        st.sampled_from(["1.1.1.1", "https", "for=1.1.1.1;proto=https", ""]),
    ),
    max_size=3,
)
SOCKETS = st.one_of(
    st.sampled_from(["unix", "::ffff:192.0.2.1", "fe80::1%eth0"]),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
)


@given(SOCKETS, st.booleans(), FIELDS)
def test_nobody_trusted_is_the_same_as_nobody_near_trusted(
    address: str, tls: bool, fields: list[tuple[str, str]]
) -> None:
    nowhere = (ip_network("255.255.255.255/32"),)
    assume(address != "255.255.255.255")
    found = resolve_peer(address, tls, fields, ())
    assert found == resolve_peer(address, tls, fields, nowhere)
    assert found.secure == tls


@pytest.mark.parametrize("last", ["1", "ffff:ffff:ffff:ffff", "dead:beef:0:1"])
def test_all_addresses_of_a_v6_network_of_64_bits_count_as_one(last: str) -> None:
    separator = "" if last.count(":") == 3 else ":"
    assert counted_as(f"2001:db8:1:2:{separator}{last}") == "2001:db8:1:2::/64"


def test_addresses_of_other_networks_count_for_themselves() -> None:
    addresses = ("2001:db8:1:2::1", "2001:db8:1:3::1", "203.0.113.7", "203.0.113.8")
    assert len({counted_as(address) for address in addresses}) == 4


def test_nobody_can_be_told_apart_behind_a_unix_socket() -> None:
    assert counted_as("unix") is None
