"""Identity headers: names that nothing else has, and keys that sign."""

from collections.abc import Callable

import pytest

from sidecar.config.source import Loaded

Load = Callable[[str], Loaded]
Mistakes = Callable[[str], list[str]]


def policy(small: str, keys: str) -> str:
    return f"{small}routes:\n- {keys}\n"


@pytest.mark.parametrize("name", ["x-user-id", "X_User_Id", "X.User.Id", "x_USER-id"])
def test_a_header_has_one_spelling(mistakes: Mistakes, small: str, name: str) -> None:
    (mistake,) = mistakes(
        policy(small, f"identity: {{headers: {{X-User-Id: user, {name}: user}}}}")
    )
    assert f"{name} is X-User-Id again: servers read case, _ . and - alike" in mistake


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "Connection", "Upgrade", "Content-Length", "Transfer_Encoding", "Origin"),
        *("Sec-WebSocket-Key", "sec.websocket.anything", "X-Forwarded-For", "X_Request_Id"),
    ],
)
def test_the_handshakes_own_headers_are_no_identity(
    mistakes: Mistakes, small: str, name: str
) -> None:
    (mistake,) = mistakes(policy(small, f"identity: {{headers: {{{name}: user}}}}"))
    assert f"{name} belongs to the handshake or the sidecar" in mistake


@pytest.mark.parametrize("name", ["X-User-Id", "x_user.id", "Connection", "x-forwarded-proto"])
def test_a_client_does_not_send_what_the_sidecar_sets(
    mistakes: Mistakes, small: str, name: str
) -> None:
    keys = f"{{identity: {{headers: {{X-User-Id: user}}}}, forward_headers: [{name}]}}"
    (mistake,) = mistakes(policy(small, keys))
    assert mistake.startswith("4:62: routes[0].forward_headers[0]: ")


def test_the_signed_and_the_forwarded_token_have_their_own_headers(
    mistakes: Mistakes, small: str
) -> None:
    keys = "identity: {forward_token: {header: X-Token}, sign: {provider: app, header: x_token}}"
    (mistake,) = mistakes(policy(small, keys))
    assert "routes[0].identity.sign.header: x_token is X-Token again" in mistake


def test_a_forwarded_token_is_warned_of(load: Load, small: str) -> None:
    loaded = load(policy(small, "identity: {forward_token: true}"))
    assert [warning.path for warning in loaded.warnings] == ["routes[0].identity.forward_token"]
    token = loaded.policy.routes[0].identity.forward_token
    assert token is not None
    assert token.header == "Authorization"


@pytest.mark.parametrize("value", ["false", "null"])
def test_no_token_is_forwarded_by_default(load: Load, small: str, value: str) -> None:
    loaded = load(policy(small, f"identity: {{forward_token: {value}}}"))
    assert loaded.policy.routes[0].identity.forward_token is None


def test_a_shared_secret_signs(load: Load, small: str) -> None:
    sign = load(policy(small, "identity: {sign: {provider: app}}")).policy.routes[0].identity.sign
    assert sign is not None
    assert (sign.provider, sign.ttl, sign.header) == ("app", 60.0, "X-Identity")


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("{user: true, claim: a}", "does not say one value"),
        ("{}", "does not say one value"),
        ("{claims: all}", "all claims are no text"),
        ('{user: true, join: ","}', "`join` is for a list as text"),
        ('{claim: a, join: ",", encode: base64url-json}', "`join` is for a list as text"),
        (f'{{claim: a, join: "{"," * 17}"}}', "is too long; use at most 16 characters"),
        ("{claim: a, join: 1}", "is not text"),
        ("{claim: a, zzz: 1}", "is not a known key"),
        ("claims.", "is not a value for a header"),
        ("{claim: /~}", '"~" stands alone in a pointer'),
    ],
)
def test_what_is_no_value_of_a_header(
    mistakes: Mistakes, small: str, value: str, wrong: str
) -> None:
    (mistake,) = mistakes(policy(small, f"identity: {{headers: {{X-A: {value}}}}}"))
    assert "routes[0].identity.headers.X-A" in mistake
    assert wrong in mistake


def test_a_forwarded_header_is_meant_to_the_letter(load: Load, small: str) -> None:
    loaded = load(policy(small, "forward_headers: [X_Custom, Accept-Language]"))
    assert loaded.policy.routes[0].forward_headers == {"x_custom", "accept-language"}


@pytest.mark.parametrize("name", ["Forwarded", "X-Real-IP", "X-Forwarded-Host", "X_Original.Url"])
def test_a_proxys_word_from_the_client_is_warned_of(load: Load, small: str, name: str) -> None:
    (warning,) = load(policy(small, f"forward_headers: [{name}]")).warnings
    assert warning.path == "routes[0].forward_headers[0]"
