"""Upstreams: their URLs, and who else reaches them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.config.source import Loaded
from sidecar.policy.compiled import Address

Load = Callable[[str], Loaded]
Mistakes = Callable[[str], list[str]]

JWT = "jwt: {providers: {app: {algorithms: [HS256], secrets: [{env: JWT_SECRET}]}}}\n"


def policy(url: str, more: str = "") -> str:
    return f'upstreams: {{chat: {{url: "{url}"{more}}}}}\n{JWT}'


@pytest.mark.parametrize(
    ("url", "address", "secure", "prefix"),
    [
        ("ws://127.0.0.1", Address("127.0.0.1", 80), False, ""),
        ("wss://localhost", Address("localhost", 443), True, ""),
        ("ws://[::1]:9000/", Address("::1", 9000), False, ""),
        ("ws://127.0.0.1:9000/a/b/", Address("127.0.0.1", 9000), False, "/a/b"),
        ("unix:/run/ws.sock", Address(unix="/run/ws.sock"), False, ""),
    ],
)
def test_urls(load: Load, url: str, address: Address, secure: bool, prefix: str) -> None:
    upstream = load(policy(url)).policy.upstreams["chat"]
    assert (upstream.address, upstream.secure, upstream.prefix) == (address, secure, prefix)
    assert not upstream.remote


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1", "127.0.0.1:9000", "ws://", "ws://user@127.0.0.1", "ws://127.0.0.1:0"),
        *("ws://127.0.0.1/?a=b", "ws://127.0.0.1/#a", "ws://127.0.0.1:x", "unix:a", "unix:/a\\0"),
        *("ws://127.0.0.1/../a", "ws://127.0.0.1/a//", "ws://127.0.0.1/%2e%2e", "WS://127.0.0.1"),
    ],
)
def test_what_is_no_url_of_an_upstream(mistakes: Mistakes, url: str) -> None:
    (mistake,) = mistakes(policy(url))
    assert mistake.startswith("1:25: upstreams.chat.url: ")


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "chat.internal", "[fd00::1]", "0.0.0.0", "127.0.0.1.x"]
)
def test_an_upstream_that_others_reach_must_be_asked_for(mistakes: Mistakes, host: str) -> None:
    (mistake,) = mistakes(policy(f"ws://{host}:9000"))
    assert "is not loopback: who reaches it goes round the sidecar" in mistake


def test_a_remote_upstream_in_clear_is_warned_of(load: Load) -> None:
    (warning,) = load(policy("ws://10.0.0.1", ", allow_remote: true")).warnings
    assert "go to 10.0.0.1:80 in clear" in warning.wrong


@pytest.mark.parametrize("tls", ["", ", tls: {server_name: chat}"])
def test_a_remote_upstream_without_a_client_certificate_is_warned_of(load: Load, tls: str) -> None:
    (warning,) = load(policy("wss://10.0.0.1", f", allow_remote: true{tls}")).warnings
    assert warning.wrong == "10.0.0.1:443 believes whoever connects"


def test_a_remote_upstream_with_a_client_certificate_is_fine(load: Load, material: Path) -> None:
    tls = f"tls: {{certificate: {material}/tls.crt, key: {material}/tls.key}}"
    loaded = load(policy("wss://10.0.0.1", f", allow_remote: true, {tls}"))
    assert loaded.warnings == ()
    assert loaded.policy.upstreams["chat"].remote


def test_tls_for_an_upstream_without_it_is_refused(mistakes: Mistakes) -> None:
    assert mistakes(policy("ws://127.0.0.1", ", tls: {server_name: x}")) == [
        "1:48: upstreams.chat.tls: has no effect without TLS; "
        "write the url with wss://, or remove tls"
    ]


def test_half_a_client_certificate_is_refused(mistakes: Mistakes, material: Path) -> None:
    (mistake,) = mistakes(policy("wss://127.0.0.1", f", tls: {{key: {material}/tls.key}}"))
    assert "has only one of certificate and key; give both, or neither" in mistake


def test_an_authority_that_is_none_is_refused(mistakes: Mistakes, material: Path) -> None:
    (mistake,) = mistakes(policy("wss://127.0.0.1", f", tls: {{ca: {material}/tls.key}}"))
    assert "upstreams.chat.tls.ca: the file has no certificate" in mistake


def test_a_health_path_may_have_a_query(load: Load) -> None:
    upstream = load(policy("ws://127.0.0.1", ", health: {path: /h?a=b}")).policy.upstreams["chat"]
    assert upstream.health is not None
    assert (upstream.health.path, upstream.health.interval) == ("/h?a=b", 10.0)
