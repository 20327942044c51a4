"""The sections of the program itself."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.config.compile.server import is_loopback
from sidecar.config.source import Loaded
from sidecar.config.values import address

Load = Callable[[str], Loaded]
Mistakes = Callable[[str], list[str]]


@pytest.mark.parametrize(
    "text", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/a"]
)
def test_only_this_host_reaches_loopback(text: str) -> None:
    assert is_loopback(address(text))


@pytest.mark.parametrize("text", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "localhost.evil:1"])
def test_others_reach_the_rest(text: str) -> None:
    assert not is_loopback(address(text))


def test_an_admin_listener_off_loopback_needs_a_token(load: Load, small: str) -> None:
    loaded = load(small + "admin: {listen: '0.0.0.0:9090', token: {env: ADMIN_TOKEN}}")
    assert loaded.policy.admin is not None
    assert loaded.warnings == ()


def test_public_metrics_on_loopback_are_nobodys_business(load: Load, small: str) -> None:
    assert load(small + "admin: {metrics_public: true}").warnings == ()


@pytest.mark.parametrize("token", ["\\n", "a", "123456789012345", "123456789012345\\n"])
def test_a_short_admin_token_is_refused(mistakes: Mistakes, small: str, token: str) -> None:
    assert mistakes(f'{small}admin: {{token: {{value: "{token}"}}}}') == [
        "3:16: admin.token: the token is shorter than 16 bytes; use at least 16 random characters"
    ]


def test_an_admin_token_that_cannot_be_read_is_refused(mistakes: Mistakes, small: str) -> None:
    (mistake,) = mistakes(small + "admin: {token: {env: NOT_SET}}")
    assert "variable NOT_SET is not set" in mistake


def test_require_tls_behind_a_trusted_proxy(load: Load, small: str) -> None:
    assert load(small + "server: {require_tls: true, trusted_proxies: [10.0.0.0/8]}").policy


def test_require_tls_without_any_tls_refuses_everybody(mistakes: Mistakes, small: str) -> None:
    (mistake,) = mistakes(small + "server: {require_tls: true}")
    assert mistake.startswith("3:23: server.require_tls: refuses every connection: ")


def test_a_certificate_that_is_none_is_refused(
    mistakes: Mistakes, small: str, material: Path
) -> None:
    names = f"certificate: {material}/jwks.json, key: {material}/tls.key"
    (mistake,) = mistakes(small + f"server: {{tls: {{{names}}}}}")
    assert "server.tls.certificate: the certificate and its key cannot be used together" in mistake


def test_a_client_authority_that_is_none_is_refused(
    mistakes: Mistakes, small: str, material: Path
) -> None:
    names = f"certificate: {material}/tls.crt, key: {material}/tls.key, client_ca: {material}"
    (mistake,) = mistakes(small + f"server: {{tls: {{{names}/jwks.json}}}}")
    assert "server.tls.client_ca: the file has no certificate" in mistake


def test_the_audit_file_is_beside_the_policy(load: Load, small: str) -> None:
    assert load(small + "logging: {audit: {file: /a.log}}").policy.logging.audit.file == "/a.log"


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0"])
def test_to_trust_everyone_is_warned_of(load: Load, small: str, network: str) -> None:
    (warning,) = load(f'{small}server: {{trusted_proxies: ["{network}"]}}').warnings
    assert warning.path == "server.trusted_proxies[0]"
