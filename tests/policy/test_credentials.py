import base64
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model import Denial, Handshake, Reason
from sidecar.policy.credentials import Credential, Source, SourceKind, extract, why_missing

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"
OTHER = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJiIn0.c2ln"
K8S = "base64url.bearer.authorization.k8s.io."

HEADER = Source(SourceKind.HEADER, "Authorization")
CUSTOM = Source(SourceKind.HEADER, "X-Token")
COOKIE = Source(SourceKind.COOKIE, "session")
QUERY = Source(SourceKind.QUERY, "token")
SUBPROTOCOL = Source(SourceKind.SUBPROTOCOL, "bearer")
ALL = (HEADER, COOKIE, QUERY, SUBPROTOCOL)


def handshake(
    *headers: tuple[str, str], query: str = "", subprotocols: Sequence[str] = ()
) -> Handshake:
    if subprotocols:
        headers = (*headers, ("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    return Handshake(
        path="/ws",
        query=query,
        host="example.com",
        headers=headers,
        key="dGhlIHNhbXBsZSBub25jZQ==",
        origin=None,
        subprotocols=tuple(subprotocols),
    )


def found(request: Handshake, *sources: Source) -> Credential:
    credential = extract(request, sources)
    assert isinstance(credential, Credential)
    return credential


def denied(request: Handshake, *sources: Source) -> Reason:
    denial = extract(request, sources)
    assert isinstance(denial, Denial)
    assert TOKEN not in denial.detail
    assert denial.rule is None
    return denial.reason


def encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def test_a_handshake_without_a_token_is_unchanged() -> None:
    request = handshake(("Cookie", "a=1"), query="a=1&&b", subprotocols=["chat"])
    credential = found(request, *ALL)
    assert credential == Credential(None, None, "a=1&&b", request.headers, ("chat",), None)


def test_sources_that_are_not_named_are_not_looked_at() -> None:
    request = handshake(
        ("Authorization", f"Bearer {TOKEN}"),
        ("Cookie", f"session={TOKEN}; session={OTHER}"),
        query=f"token={TOKEN}",
        subprotocols=["bearer", TOKEN],
    )
    credential = found(request)
    assert credential.token is None
    assert credential.query == request.query
    assert credential.headers == request.headers
    assert credential.subprotocols == request.subprotocols


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  ", "Bearer\t"])
def test_a_bearer_token_is_found_in_the_header_and_cut(name: str, scheme: str) -> None:
    credential = found(handshake(("A", "1"), (name, scheme + TOKEN), ("B", "2")), HEADER)
    assert (credential.token, credential.source) == (TOKEN, SourceKind.HEADER)
    assert credential.headers == (("A", "1"), ("B", "2"))


@pytest.mark.parametrize("value", ["Basic dTpw", "", "BearerX a", f"Bearer={TOKEN}", TOKEN])
def test_another_scheme_is_left_alone(value: str) -> None:
    credential = found(handshake(("Authorization", value)), HEADER)
    assert credential.token is None
    assert credential.headers == (("Authorization", value),)


@pytest.mark.parametrize("value", ["Bearer", "bearer", "Bearer "])
def test_a_scheme_without_a_token_is_cut(value: str) -> None:
    credential = found(handshake(("Authorization", value)), HEADER)
    assert (credential.token, credential.source, credential.headers) == (None, None, ())


@pytest.mark.parametrize("value", [TOKEN, f"Bearer {TOKEN}", f"bearer {TOKEN}"])
def test_a_custom_header_may_hold_the_token_alone(value: str) -> None:
    credential = found(handshake(("x-token", value), ("Authorization", "Basic dTpw")), CUSTOM)
    assert credential.token == TOKEN
    assert credential.headers == (("Authorization", "Basic dTpw"),)


def test_an_empty_custom_header_is_no_token() -> None:
    credential = found(handshake(("X-Token", "")), CUSTOM)
    assert (credential.token, credential.headers) == (None, ())


@pytest.mark.parametrize("garbage", ["a b", "a\x00b", "caf\xe9", "a,b", "=", "{}"])
def test_a_token_of_any_text_is_handed_on_to_be_refused(garbage: str) -> None:
    assert found(handshake(("Authorization", f"Bearer {garbage}")), HEADER).token == garbage
    assert found(handshake(("X-Token", garbage)), CUSTOM).token == garbage


@pytest.mark.parametrize(
    ("cookies", "left"),
    [
        (f"session={TOKEN}", None),
        (f'session="{TOKEN}"', None),
        (f"session = {TOKEN} ", None),
        (f"session={TOKEN};", None),
        (f"; session={TOKEN};;", None),
        (f"session={TOKEN}; a=1", "a=1"),
        (f"a=1; session={TOKEN}", "a=1"),
        (f"a=1; session={TOKEN}; b=2", "a=1; b=2"),
        (f"a=1;session={TOKEN};b", "a=1;b"),
        (f'a="x y"; =; session={TOKEN}; {{}}; session', 'a="x y"; =; {}; session'),
        (f"Session=1; xsession=2; session={TOKEN}", "Session=1; xsession=2"),
    ],
)
def test_the_token_cookie_is_found_and_cut(cookies: str, left: str | None) -> None:
    credential = found(handshake(("Cookie", cookies), ("A", "1")), COOKIE)
    assert (credential.token, credential.source) == (TOKEN, SourceKind.COOKIE)
    kept = (("Cookie", left),) if left else ()
    assert credential.headers == (*kept, ("A", "1"))


@pytest.mark.parametrize("cookies", ["a=1; b=2;", 'a;;b="x', "session", "sessions=1", "=session"])
def test_other_cookies_are_unchanged(cookies: str) -> None:
    credential = found(handshake(("cookie", cookies)), COOKIE)
    assert credential.token is None
    assert credential.headers == (("cookie", cookies),)


@pytest.mark.parametrize("value", ["", '""', " "])
def test_an_empty_cookie_is_no_token_and_cut(value: str) -> None:
    credential = found(handshake(("Cookie", f"session={value}")), COOKIE)
    assert (credential.token, credential.headers) == (None, ())


def test_a_lone_quote_belongs_to_the_value() -> None:
    assert found(handshake(("Cookie", 'session="')), COOKIE).token == '"'


@pytest.mark.parametrize(
    "fields",
    [
        [f"session={TOKEN}; session={OTHER}"],
        [f"session={TOKEN}; session={TOKEN}"],
        [f"session={TOKEN}; session="],
        [f"session={TOKEN}", f"session={OTHER}"],
        [f"session={TOKEN}", "a=1; session=x"],
        [f'a="; session={OTHER}"; session={TOKEN}'],
    ],
)  # fmt: skip
def test_a_repeated_token_cookie_is_refused(fields: list[str]) -> None:
    request = handshake(*(("Cookie", field) for field in fields))
    assert denied(request, COOKIE) is Reason.BAD_HANDSHAKE


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (f"token={TOKEN}", ""),
        (f"token={TOKEN}&a=1", "a=1"),
        (f"a=1&token={TOKEN}&b=%41+c", "a=1&b=%41+c"),
        (f"%74oken={TOKEN}", ""),
        (f"t%6Fken={TOKEN}&x", "x"),
        (f"token={TOKEN}&token={TOKEN}", ""),
        (f"&&token={TOKEN}&&", "&&&"),
        (f"token=&token={TOKEN}&token", ""),
        (f"Token=1&token={TOKEN}&token2=2&%zz=%", "Token=1&token2=2&%zz=%"),
    ],
)
def test_the_token_parameter_is_found_and_cut(query: str, left: str) -> None:
    credential = found(handshake(query=query), QUERY)
    assert (credential.token, credential.source) == (TOKEN, SourceKind.QUERY)
    assert credential.query == left


@pytest.mark.parametrize("query", ["token", "token=", "token=&token"])
def test_an_empty_parameter_is_no_token_and_cut(query: str) -> None:
    credential = found(handshake(query=query), QUERY)
    assert (credential.token, credential.source, credential.query) == (None, None, "")


def test_the_name_of_a_parameter_may_have_encoded_spaces() -> None:
    source = Source(SourceKind.QUERY, "my token")
    assert found(handshake(query=f"my+token={TOKEN}"), source).query == ""
    assert found(handshake(query=f"my%20token={TOKEN}"), source).token == TOKEN


@pytest.mark.parametrize(("raw", "token"), [("a%2Eb", "a.b"), ("a+b/c==", "a+b/c=="), ("%ff", "�")])
def test_the_value_of_a_parameter_is_percent_decoded(raw: str, token: str) -> None:
    assert found(handshake(query=f"token={raw}"), QUERY).token == token


@pytest.mark.parametrize(
    ("offered", "left", "echo"),
    [
        (["bearer", TOKEN], (), "bearer"),
        (["chat", "bearer", TOKEN, "v2"], ("chat", "v2"), "bearer"),
        ([f"bearer.{TOKEN}"], (), None),
        (["chat", f"bearer.{TOKEN}"], ("chat",), None),
        ([K8S + encode(TOKEN), "v4.channel.k8s.io"], ("v4.channel.k8s.io",), None),
        ([f"bearer.{TOKEN}", "bearer", TOKEN], (), "bearer"),
    ],
)
def test_the_token_is_found_among_the_subprotocols_and_cut(
    offered: list[str], left: tuple[str, ...], echo: str | None
) -> None:
    credential = found(handshake(subprotocols=offered), SUBPROTOCOL)
    assert (credential.token, credential.source) == (TOKEN, SourceKind.SUBPROTOCOL)
    assert (credential.subprotocols, credential.echo) == (left, echo)


def test_a_marker_with_nothing_behind_it_is_no_token_and_cut() -> None:
    credential = found(handshake(subprotocols=["chat", "bearer"]), SUBPROTOCOL)
    assert (credential.token, credential.subprotocols) == (None, ("chat",))
    assert credential.echo == "bearer"


@pytest.mark.parametrize("offered", ["bearer.", K8S])
def test_an_empty_subprotocol_token_is_no_token_and_cut(offered: str) -> None:
    credential = found(handshake(subprotocols=[offered, "chat"]), SUBPROTOCOL)
    assert (credential.token, credential.subprotocols) == (None, ("chat",))


@pytest.mark.parametrize(
    ("encoded", "token"), [("a", "a"), ("abc!", "abc!"), ("YQ==", "YQ=="), ("_w", "�")]
)
def test_what_is_not_base64url_is_handed_on_to_be_refused(encoded: str, token: str) -> None:
    assert found(handshake(subprotocols=[K8S + encoded]), SUBPROTOCOL).token == token


def test_another_marker_has_its_own_forms() -> None:
    source = Source(SourceKind.SUBPROTOCOL, "jwt")
    credential = found(handshake(subprotocols=["bearer", "jwt", TOKEN]), source)
    assert (credential.token, credential.subprotocols, credential.echo) == (
        TOKEN,
        ("bearer",),
        "jwt",
    )


def test_the_first_marker_found_is_the_one_to_echo() -> None:
    markers = (SUBPROTOCOL, Source(SourceKind.SUBPROTOCOL, "jwt"))
    assert found(handshake(subprotocols=["bearer", TOKEN]), *markers).echo == "bearer"
    assert found(handshake(subprotocols=["jwt", TOKEN]), *markers).echo == "jwt"


def test_the_subprotocol_header_loses_the_token_too() -> None:
    request = handshake(subprotocols=["chat", "bearer", TOKEN])
    assert found(request, SUBPROTOCOL).headers == (("Sec-WebSocket-Protocol", "chat"),)
    split = Handshake(
        path="/",
        query="",
        host="example.com",
        headers=(("sec-websocket-protocol", "bearer"), ("Sec-WebSocket-Protocol", f"{TOKEN},chat")),
        key="",
        origin=None,
        subprotocols=("bearer", TOKEN, "chat"),
    )
    assert found(split, SUBPROTOCOL).headers == (("Sec-WebSocket-Protocol", "chat"),)


def test_the_same_token_in_every_place_is_one_token_of_the_first_source() -> None:
    request = handshake(
        ("Authorization", f"Bearer {TOKEN}"),
        ("Cookie", f"session={TOKEN}"),
        query=f"token={TOKEN}",
        subprotocols=["bearer", TOKEN],
    )
    assert found(request, *ALL) == Credential(TOKEN, SourceKind.HEADER, "", (), (), "bearer")
    assert found(request, *reversed(ALL)).source is SourceKind.SUBPROTOCOL


@pytest.mark.parametrize(
    "request_",
    [
        handshake(("Authorization", f"Bearer {TOKEN}"), query=f"token={OTHER}"),
        handshake(("Authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {OTHER}")),
        handshake(("Cookie", f"session={TOKEN}"), subprotocols=["bearer", OTHER]),
        handshake(query=f"token={TOKEN}&token={OTHER}"),
        handshake(query=f"token={TOKEN}&%74oken={OTHER}"),
        handshake(subprotocols=["bearer", TOKEN, f"bearer.{OTHER}"]),
        handshake(subprotocols=[f"bearer.{TOKEN}", K8S + encode(OTHER)]),
    ],
)
def test_two_different_tokens_are_a_conflict(request_: Handshake) -> None:
    assert denied(request_, *ALL) is Reason.TOKEN_CONFLICT


def test_an_empty_credential_beside_a_token_is_no_conflict() -> None:
    request = handshake(("Authorization", "Bearer"), ("Cookie", "session="), query=f"token={TOKEN}")
    assert found(request, *ALL).token == TOKEN


def test_a_missing_token_names_the_places_that_were_looked_at() -> None:
    request = handshake(("X-Other", "1"), ("Cookie", "theme=dark"), query="a=1")
    assert why_missing(request, ALL) == (
        "no token in header Authorization, cookie session, query token, subprotocol bearer"
    )
    assert why_missing(request, [CUSTOM]) == "no token in header X-Token"


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("Basic dTpw", "Authorization has another scheme than Bearer"),
        (f"Token {TOKEN}", "Authorization has another scheme than Bearer"),
        (f"Bearer={TOKEN} x", "Authorization has another scheme than Bearer"),
        (TOKEN, 'Authorization does not begin with "Bearer "'),
        (f"Bearer={TOKEN}", 'Authorization does not begin with "Bearer "'),
        ("", 'Authorization does not begin with "Bearer "'),
        ("Bearer", "Authorization has Bearer without a token"),
        ("bearer  ", "Authorization has Bearer without a token"),
    ],
)
def test_an_authorization_without_a_bearer_token_is_told_and_not_repeated(
    value: str, hint: str
) -> None:
    request = handshake(("authorization", value))
    assert found(request, HEADER).token is None
    assert why_missing(request, [HEADER, COOKIE]) == (
        f"no token in header Authorization, cookie session; {hint}"
    )
    assert why_missing(request, [COOKIE]) == "no token in cookie session"


TOKENS = st.text(
    alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1
).map("eyJ".__add__)
# text without capitals: it cannot hold a token, so every token found in the end is a leak
CALM = st.text(alphabet="abcdefghijklmnopqrsuvwxyz0123456789-", min_size=1, max_size=6)
PARAMETERS = st.lists(st.one_of(CALM, st.tuples(CALM, CALM).map("=".join)))


@given(
    TOKENS,
    st.lists(st.tuples(CALM.map("X-".__add__), CALM)),
    st.lists(st.tuples(CALM, CALM).map("=".join)),
    PARAMETERS,
    PARAMETERS,
    st.lists(CALM.map("v.".__add__), unique=True),
    st.sets(st.sampled_from(["header", "cookie", "query", "marker", "dotted", "base64url"])),
)
def test_the_token_is_cut_and_everything_else_is_unchanged(
    token: str,
    fields: list[tuple[str, str]],
    cookies: list[str],
    before: list[str],
    after: list[str],
    real: list[str],
    places: set[str],
) -> None:
    offers = {"marker": ["bearer", token], "dotted": [f"bearer.{token}"]}
    offers["base64url"] = [K8S + encode(token)]
    offered = [name for place in sorted(places & offers.keys()) for name in offers[place]]
    authorization = [("Authorization", f"Bearer {token}")] if "header" in places else []
    cookie = [*cookies, f"session={token}"] if "cookie" in places else cookies
    own = [f"token={token}"] if "query" in places else []
    request = handshake(
        *fields,
        *authorization,
        *([("Cookie", "; ".join(cookie))] if cookie else []),
        query="&".join([*before, *own, *after]),
        subprotocols=[*real, *offered],
    )
    credential = found(request, *ALL)
    assert credential.token == (token if places else None)
    assert credential.query == "&".join([*before, *after])
    assert credential.subprotocols == tuple(real)
    assert credential.headers == (
        *fields,
        *([("Cookie", "; ".join(cookies))] if cookies else []),
        *([("Sec-WebSocket-Protocol", ", ".join(real))] if real else []),
    )
    assert token not in repr((credential.query, credential.headers, credential.subprotocols))


@given(st.text(), st.text(), st.text(), st.lists(st.text()))
def test_any_text_gives_a_credential_or_a_denial(
    authorization: str, cookie: str, query: str, offered: list[str]
) -> None:
    fields = (("Authorization", authorization), ("Cookie", cookie), ("X-Token", authorization))
    outcome = extract(handshake(*fields, query=query, subprotocols=offered), (*ALL, CUSTOM))
    assert isinstance(outcome, Credential | Denial)
