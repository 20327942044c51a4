"""The order of decisions, with the real rules of every family."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey

from sidecar.model import Denial, Handshake, Identity, Peer, Permit, Reason
from sidecar.policy.awaiting import with_token
from sidecar.policy.claims import CelRule, ClaimRule
from sidecar.policy.compiled import Address, Logging, Policy, Server, TokenRules, Upstream
from sidecar.policy.credentials import Authenticate, MessageSource, Source, SourceKind
from sidecar.policy.decide import (
    Preflight,
    Refusal,
    Standing,
    authorize,
    preflight,
    rejudge,
    standing,
)
from sidecar.policy.headers import (
    Encoding,
    ForwardToken,
    IdentityHeader,
    IdentityRules,
    Sign,
)
from sidecar.policy.keys import SigningKey
from sidecar.policy.limits import Limits
from sidecar.policy.matching import MessagePattern
from sidecar.policy.origins import OriginPattern, OriginRule
from sidecar.policy.pointers import ClaimPath
from sidecar.policy.providers import Provider
from sidecar.policy.refuse import Refuse
from sidecar.policy.routes import PathPattern, Route
from sidecar.policy.session import Expiry, Session
from sidecar.policy.templates import Template

NOW = 1_000_000.5
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
SECRET = b"0123456789abcdef0123456789abcdef-and-more"
APP = "https://app.example.com"
PEER = Peer("192.0.2.7", secure=True)

ROUTE = Route(
    name="chat-route",
    path=PathPattern.parse("/ws/{room}"),
    host=None,
    upstream="chat",
    upstream_path=None,
    origins=OriginRule(allow=(OriginPattern.parse(APP),)),
    authenticate=Authenticate(
        providers=None,
        sources=(
            Source(SourceKind.HEADER, "Authorization"),
            Source(SourceKind.COOKIE, "session"),
            Source(SourceKind.QUERY, "token"),
            Source(SourceKind.SUBPROTOCOL, "bearer"),
        ),
    ),
    authorize=(),
    identity=IdentityRules(headers=(IdentityHeader("X-User-Id", user=True),)),
    forward_headers=frozenset(),
    limits=Limits(),
    refuse=Refuse(),
)

ANA = Identity("ana", {"sub": "ana", "roles": ["member"]}, "app", NOW + 600, "t1")


def policy(route: Route = ROUTE, *, require_tls: bool = False, prefix: str = "") -> Policy:
    address = Address("127.0.0.1", 9000)
    return Policy(
        server=Server(listen=(Address("0.0.0.0", 8080),), require_tls=require_tls),
        admin=None,
        upstreams={"chat": Upstream("chat", address, prefix=prefix)},
        tokens=TokenRules(leeway=30, max_token_size=64, providers=()),
        routes=(route,),
        logging=Logging(),
    )


def handshake(
    path: str = "/ws/blue",
    query: str = "",
    *,
    origin: str | None = APP,
    headers: Sequence[tuple[str, str]] = (("Authorization", "Bearer t.o.k"),),
    subprotocols: tuple[str, ...] = (),
    host: str = "chat.example.com",
) -> Handshake:
    return Handshake(path, query, host, tuple(headers), KEY, origin, subprotocols)


def signing_key(provider: str) -> SigningKey:
    assert provider == "internal"
    return SigningKey(None, "HS256", SECRET)


def refused(outcome: object) -> Refusal:
    assert isinstance(outcome, Refusal)
    return outcome


def admitted(shake: Handshake, route: Route = ROUTE, peer: Peer = PEER) -> Preflight:
    outcome = preflight(policy(route), shake, peer)
    assert isinstance(outcome, Preflight)
    return outcome


def decide(
    shake: Handshake | None = None,
    route: Route = ROUTE,
    identity: Identity | None = ANA,
    *,
    peer: Peer = PEER,
    prefix: str = "",
) -> Permit | Refusal:
    return authorize(
        policy(route, prefix=prefix),
        admitted(shake or handshake(), route, peer),
        identity,
        request_id="r1",
        now=NOW,
        signing_key=signing_key,
    )


def permitted(*args: Any, **kwargs: Any) -> Permit:
    outcome = decide(*args, **kwargs)
    assert isinstance(outcome, Permit)
    return outcome


class Head:
    """What a real HTTP parser reads in a permit's head."""

    def __init__(self, data: bytes) -> None:
        self.target = ""
        self.fields: list[tuple[str, str]] = []
        parser = httptools.HttpRequestParser(self)
        with pytest.raises(httptools.HttpParserUpgrade) as upgrade:
            parser.feed_data(data)
        assert upgrade.value.args[0] == len(data)

    def on_url(self, url: bytes) -> None:
        self.target += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.decode(), value.decode("latin-1")))

    def __getitem__(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field.lower() == name.lower()]


# Before a key is needed


def test_a_good_handshake_may_have_its_token_verified() -> None:
    shake = handshake()
    outcome = admitted(shake)
    assert (outcome.handshake, outcome.peer, outcome.route) == (shake, PEER, ROUTE)
    assert outcome.captures == {"room": "blue"}
    assert outcome.credential.token == "t.o.k"


# Each row is wrong in its own way and in every way below it.
ORDER: Sequence[tuple[Reason, Mapping[str, Any]]] = (
    (Reason.BAD_HANDSHAKE, {"path": "/ws/%2e%2e/x"}),
    (Reason.NO_ROUTE, {"path": "/other"}),
    (Reason.TLS_REQUIRED, {}),
    (Reason.ORIGIN_DENIED, {"origin": "https://app.example.com.evil"}),
    (
        Reason.TOKEN_CONFLICT,
        {"headers": (("Authorization", "Bearer " + "x" * 65), ("Cookie", "session=other"))},
    ),
    (Reason.TOKEN_MISSING, {"headers": ()}),
)


@pytest.mark.parametrize("row", range(len(ORDER)), ids=[reason for reason, _ in ORDER])
def test_of_two_wrongs_the_earlier_is_told(row: int) -> None:
    wrong: dict[str, Any] = {}
    for _, parts in reversed(ORDER[row:]):
        wrong |= parts
    secure = ORDER[row][0] not in {Reason.BAD_HANDSHAKE, Reason.NO_ROUTE, Reason.TLS_REQUIRED}
    outcome = preflight(policy(require_tls=True), handshake(**wrong), Peer("192.0.2.7", secure))
    denial = refused(outcome)
    assert denial.denial.reason is ORDER[row][0]
    assert denial.route == (None if row < 2 else ROUTE)


@pytest.mark.parametrize(
    "path", ["/public/../ws/a", "//ws/a", "/ws/a;x", "/ws/a%00", "/ws/a%2fb", "ws", "/ws/%zz"]
)
def test_a_path_that_could_be_read_otherwise_is_refused(path: str) -> None:
    outcome = refused(preflight(policy(), handshake(path), PEER))
    assert outcome.denial.reason is Reason.BAD_HANDSHAKE
    assert outcome.denial.detail


def test_an_unencrypted_client_is_refused_where_tls_is_required() -> None:
    plain = Peer("192.0.2.7", secure=False)
    outcome = refused(preflight(policy(require_tls=True), handshake(), plain))
    assert outcome.denial.reason is Reason.TLS_REQUIRED
    assert isinstance(preflight(policy(require_tls=True), handshake(), PEER), Preflight)
    assert isinstance(preflight(policy(), handshake(), plain), Preflight)


@pytest.mark.parametrize(
    ("origin", "detail"),
    [
        ("null", "the Origin is null"),
        (f"{APP}/page?token=t.o.k", "the Origin is malformed"),
        ("https://me:pw@app.example.com", "the Origin is malformed"),
        ("\x80" * 9000, "the Origin is malformed"),
        (
            "https://evilApp.example.com:443",
            "the Origin https://evilapp.example.com is not on the route's list",
        ),
        (
            "http://app.example.com:8080",
            "the Origin http://app.example.com:8080 is not on the route's list",
        ),
    ],
)
def test_a_look_alike_origin_is_refused_and_named(origin: str, detail: str) -> None:
    outcome = refused(preflight(policy(), handshake(origin=origin), PEER))
    assert outcome.denial == Denial(Reason.ORIGIN_DENIED, detail)


@pytest.mark.parametrize(("secure", "scheme"), [(True, "https"), (False, "http(s)")])
def test_an_origin_of_another_host_is_named_with_the_requested_one(
    secure: bool, scheme: str
) -> None:
    own = replace(ROUTE, origins=OriginRule())
    shake = handshake(origin="http://other.example", host="chat.example.com:8080")
    outcome = refused(preflight(policy(own), shake, Peer("192.0.2.7", secure)))
    assert outcome.denial == Denial(
        Reason.ORIGIN_DENIED,
        f"the Origin http://other.example is not the server's own, {scheme}://chat.example.com:8080",
    )


def test_a_missing_origin_is_refused_before_the_token_is_looked_for() -> None:
    outcome = refused(preflight(policy(), handshake(origin=None, headers=()), PEER))
    assert outcome.denial.reason is Reason.ORIGIN_MISSING


PROGRAMS = replace(ROUTE, origins=replace(ROUTE.origins, missing_allowed=True))
COOKIE = (("Cookie", "session=t.o.k"),)


def test_a_program_needs_no_origin_where_the_route_says_so() -> None:
    assert admitted(handshake(origin=None), PROGRAMS).credential.token == "t.o.k"


@pytest.mark.parametrize("cookie", ["session=t.o.k", "session=" + "x" * 65])
def test_a_token_from_a_cookie_always_needs_an_origin(cookie: str) -> None:
    shake = handshake(origin=None, headers=[("Cookie", cookie)])
    outcome = refused(preflight(policy(PROGRAMS), shake, PEER))
    assert outcome.denial.reason is Reason.ORIGIN_MISSING
    assert admitted(handshake(headers=COOKIE), PROGRAMS).credential.token == "t.o.k"


def test_a_repeated_token_cookie_is_a_bad_handshake() -> None:
    shake = handshake(headers=[("Cookie", "session=a; session=b")])
    assert refused(preflight(policy(), shake, PEER)).denial.reason is Reason.BAD_HANDSHAKE


OPEN = replace(ROUTE, authenticate=replace(ROUTE.authenticate, anonymous=True))


def test_no_token_is_fine_for_anonymous_clients_alone() -> None:
    outcome = refused(preflight(policy(), handshake(headers=()), PEER))
    assert outcome.denial == Denial(
        Reason.TOKEN_MISSING,
        "no token in header Authorization, cookie session, query token, subprotocol bearer",
    )
    assert admitted(handshake(headers=()), OPEN).credential.token is None


@pytest.mark.parametrize("route", [ROUTE, OPEN])
def test_a_giant_token_is_refused_undecoded(route: Route) -> None:
    fits = handshake(headers=[("Authorization", "Bearer " + "x" * 64)])
    assert len(admitted(fits, route).credential.token or "") == 64
    giant = handshake(headers=[("Authorization", "Bearer " + "x" * 65)])
    outcome = refused(preflight(policy(route), giant, PEER))
    assert outcome.denial.reason is Reason.TOKEN_INVALID
    assert "xxx" not in outcome.denial.detail


# A token in the first message

FIRST = MessageSource(MessagePattern((), ClaimPath.parse("/token"), 64))
ASKING = replace(ROUTE, authenticate=replace(ROUTE.authenticate, message=FIRST))


def test_without_a_token_the_first_message_is_awaited() -> None:
    outcome = admitted(handshake(headers=()), ASKING)
    assert outcome.awaits_message is FIRST
    assert outcome.credential.token is None


def test_a_token_in_the_handshake_is_not_awaited() -> None:
    assert admitted(handshake(), ASKING).awaits_message is None
    assert admitted(handshake(headers=()), OPEN).awaits_message is None
    giant = handshake(headers=[("Authorization", "Bearer " + "x" * 65)])
    outcome = refused(preflight(policy(ASKING), giant, PEER))
    assert outcome.denial.reason is Reason.TOKEN_INVALID


@pytest.mark.parametrize("origin", [None, "https://evil.example", "null"])
def test_whose_origin_is_denied_is_not_asked_for_a_token(origin: str | None) -> None:
    outcome = refused(preflight(policy(ASKING), handshake(headers=(), origin=origin), PEER))
    assert outcome.denial.reason in {Reason.ORIGIN_DENIED, Reason.ORIGIN_MISSING}


def test_who_has_brought_no_token_yet_gets_no_permit() -> None:
    outcome = refused(decide(handshake(headers=()), ASKING, None))
    assert outcome == Refusal(Denial(Reason.TOKEN_MISSING, "nobody was verified"), ASKING)


def test_who_is_waited_for_has_one_subprotocol() -> None:
    shake = handshake(headers=(), subprotocols=("chat.v2", "chat.v1"))
    outcome = admitted(shake, ASKING)
    assert outcome.credential.subprotocols == ("chat.v2",)
    assert outcome.credential.selectable == "chat.v2"
    assert admitted(shake, OPEN).credential.subprotocols == ("chat.v2", "chat.v1")


@pytest.mark.parametrize(("offered", "told"), [(("bearer",), "bearer"), ((), None)])
def test_the_marker_is_told_where_there_is_no_other_subprotocol(
    offered: tuple[str, ...], told: str | None
) -> None:
    outcome = admitted(handshake(headers=(), subprotocols=offered), ASKING)
    assert outcome.credential.selectable == told


def test_the_first_message_takes_the_handshake_further() -> None:
    rules = replace(ROUTE.identity, forward_token=ForwardToken("X-Token"))
    route = replace(ASKING, identity=rules, forward_headers=frozenset({"referer", "user-agent"}))
    client = [("Referer", "https://app.example.com/?t=t.o.k"), ("User-Agent", "UA")]
    waiting = admitted(handshake(headers=client), route)
    ready = with_token(waiting, "t.o.k")
    assert ready.awaits_message is None
    assert (ready.credential.token, ready.credential.source) == ("t.o.k", SourceKind.MESSAGE)
    permit = authorize(policy(route), ready, ANA, request_id="r1", now=NOW, signing_key=signing_key)
    assert isinstance(permit, Permit)
    head = Head(permit.head)
    assert (head["X-Token"], head["X-User-Id"]) == (["t.o.k"], ["ana"])
    assert (head["Referer"], head["User-Agent"]) == ([], ["UA"])


# Rules


def member(**more: Any) -> ClaimRule:
    return ClaimRule("member", ClaimPath.parse("roles"), contains=("member",), **more)


def admin(**more: Any) -> ClaimRule:
    return ClaimRule("admin", ClaimPath.parse("roles"), contains=("admin",), **more)


def with_rules(*rules: ClaimRule | CelRule, route: Route = ROUTE) -> Route:
    return replace(route, authorize=rules)


def test_rules_that_hold_let_the_client_in() -> None:
    room = CelRule("path.room == 'blue' && user == 'ana'", label="room")
    assert permitted(None, with_rules(member(), room)).shadowed == ()


def test_the_first_failing_rule_gives_the_reason() -> None:
    rules = with_rules(member(), admin(reason="not_an_admin"), admin(reason="later"))
    outcome = refused(decide(None, rules))
    detail = "rule admin does not hold: the claim does not fit"
    assert outcome == Refusal(Denial(Reason.CLAIMS_DENIED, detail, "not_an_admin"), rules)


def test_a_rule_without_a_reason_is_claims_denied() -> None:
    denial = refused(decide(None, with_rules(admin()))).denial
    assert (denial.reason, denial.rule) == (Reason.CLAIMS_DENIED, None)


def test_shadow_rules_are_recorded_and_not_enforced() -> None:
    broken = CelRule("1/0 == 1", label="z", shadow=True)
    rules = with_rules(admin(shadow=True), member(shadow=True), broken)
    assert permitted(None, rules).shadowed == ("admin", "z")


def test_an_anonymous_client_meets_the_rules_with_nothing() -> None:
    shake = handshake(headers=())
    assert refused(decide(shake, with_rules(member(), route=OPEN), None)).denial.reason is (
        Reason.CLAIMS_DENIED
    )
    nobody = CelRule(
        "session.anonymous && user == '' && size(claims) == 0 && session.provider == null"
        " && session.token_id == null && session.expires_at == null",
        label="nobody",
    )
    assert permitted(shake, with_rules(nobody, route=OPEN), None).identity is None


def test_rules_read_the_request_and_the_session() -> None:
    rule = CelRule(
        "request.path == '/ws/blue' && request.host == 'chat.example.com'"
        f" && request.origin == '{APP}' && request.address == '192.0.2.7' && request.secure"
        " && !session.anonymous && session.provider == 'app' && session.token_id == 't1'"
        " && session.expires_at == 1000600.5",
        label="all",
    )
    permitted(None, with_rules(rule))
    absent = CelRule("request.origin == ''", label="absent")
    permitted(handshake(origin=None), with_rules(absent, route=PROGRAMS))


def test_rules_read_headers_without_credentials() -> None:
    sources = (*ROUTE.authenticate.sources, Source(SourceKind.HEADER, "X-Token"))
    route = replace(ROUTE, authenticate=Authenticate(None, sources))
    client = [
        ("Authorization", "Bearer t.o.k"),
        ("Cookie", "a=b"),
        ("Proxy-Authorization", "Basic x"),
        ("Proxy_Authorization", "Basic x"),
        ("Sec-WebSocket-Key", KEY),
        ("X-Token", "t.o.k"),
        ("x_token", "t.o.k"),
        ("X-Name", "a"),
        ("User-Agent", "UA"),
        ("x-name", "b"),
    ]
    rule = CelRule("request.headers == {'x-name': 'a, b', 'user-agent': 'UA'}", label="headers")
    permitted(handshake(headers=client), with_rules(rule, route=route))


# The upstream's head


def test_a_permit_says_what_was_decided() -> None:
    shake = handshake(subprotocols=("bearer", "t.o.k", "chat"), headers=())
    permit = permitted(shake)
    assert (permit.route, permit.upstream, permit.key) == ("chat-route", "chat", KEY)
    assert (permit.offered, permit.identity) == (("chat",), ANA)
    assert permit.echo == admitted(shake).credential.echo
    assert Head(permit.head)["Sec-WebSocket-Protocol"] == ["chat"]


def test_the_head_holds_what_is_allowed_and_nothing_else() -> None:
    client = [
        ("Authorization", "Bearer t.o.k"),
        ("Cookie", "session=t.o.k; theme=dark"),
        ("User-Agent", "UA"),
        ("X-Other", "x"),
        ("Connection", "Upgrade, X-User-Id"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
    ]
    route = replace(ROUTE, forward_headers=frozenset({"user-agent", "cookie", "authorization"}))
    head = Head(permitted(handshake(query="a=1&token=t.o.k", headers=client), route).head)
    assert head.target == "/ws/blue?a=1"
    assert head.fields == [
        ("Host", "chat.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
        ("Origin", APP),
        ("Cookie", "theme=dark"),
        ("User-Agent", "UA"),
        ("X-Forwarded-For", "192.0.2.7"),
        ("X-Forwarded-Proto", "https"),
        ("X-Request-Id", "r1"),
        ("X-User-Id", "ana"),
    ]


def test_a_client_on_a_unix_socket_has_no_address() -> None:
    head = Head(permitted(peer=Peer("unix", secure=False)).head)
    assert head["X-Forwarded-For"] == []
    assert head["X-Forwarded-Proto"] == ["http"]


SPOOFS = ("X_User_Id", "X.User.Id", "x-USER-id", "X-User-Id", "X-User-Id")


@pytest.mark.parametrize("identity", [ANA, None], ids=["verified", "anonymous"])
def test_a_spoofed_identity_never_passes(identity: Identity | None) -> None:
    token = () if identity is None else (("Authorization", "Bearer t.o.k"),)
    shake = handshake(headers=[*token, *((name, "admin") for name in SPOOFS)])
    route = replace(OPEN, forward_headers=frozenset(name.lower() for name in SPOOFS))
    head = permitted(shake, route, identity).head
    assert b"admin" not in head
    assert Head(head)["X-User-Id"] == (["ana"] if identity else [])


@pytest.mark.parametrize("user", ["a\r\nX-Admin: 1", "admin\ud800", "", "x" * 1025])
def test_a_user_that_cannot_be_a_header_is_claims_denied(user: str) -> None:
    denial = refused(decide(identity=replace(ANA, user=user))).denial
    assert denial.reason is Reason.CLAIMS_DENIED
    assert denial.detail.startswith("the claim for X-User-Id is refused: ")
    assert "dmin" not in denial.detail


def test_a_user_beyond_ascii_is_percent_encoded() -> None:
    head = Head(permitted(identity=replace(ANA, user="日本")).head)
    assert head["X-User-Id"] == ["%E6%97%A5%E6%9C%AC"]


@pytest.mark.parametrize(
    ("header", "value"), [("Authorization", "Bearer t.o.k"), ("X-Token", "t.o.k")]
)
def test_the_token_is_handed_on_where_the_route_says_so(header: str, value: str) -> None:
    assert b"t.o.k" not in permitted().head
    rules = replace(ROUTE.identity, forward_token=ForwardToken(header))
    route = replace(OPEN, identity=rules, forward_headers=frozenset({header.lower()}))
    spoofed = [] if header == "Authorization" else [(header, "spoof")]
    shake = handshake(query="token=t.o.k", headers=spoofed)
    assert Head(permitted(shake, route).head)[header] == [value]
    assert Head(permitted(handshake(headers=()), route, None).head)[header] == []


def test_a_signed_identity_is_sent() -> None:
    route = replace(OPEN, identity=IdentityRules(sign=Sign("internal", 60, "X-Identity")))
    (token,) = Head(permitted(None, route).head)["X-Identity"]
    claims = jwt.decode(token, OctKey.import_key(SECRET), algorithms=["HS256"]).claims
    assert (claims["sub"], claims["aud"], claims["route"]) == ("ana", "chat", "chat-route")
    assert (claims["jti"], claims["iat"], claims["exp"]) == ("r1", 1_000_000, 1_000_060)
    assert Head(permitted(handshake(headers=()), route, None).head)["X-Identity"] == []


def test_no_key_is_asked_for_before_the_rules_hold() -> None:
    route = replace(ROUTE, identity=IdentityRules(sign=Sign("other", 60, "X-Identity")))
    assert isinstance(decide(None, with_rules(admin(), route=route)), Refusal)
    with pytest.raises(AssertionError):
        decide(None, route)


# The upstream's path


def with_path(pattern: str, upstream_path: str) -> Route:
    path = PathPattern.parse(pattern)
    template = Template.parse(upstream_path, (*path.captures, "path"))
    return replace(ROUTE, path=path, upstream_path=template)


@pytest.mark.parametrize(
    ("pattern", "template", "path", "target"),
    [
        ("/ws/{room}", "/rooms/{room}", "/ws/blue", "/rooms/blue"),
        ("/ws/{room}", "/{path.room}/x", "/ws/blue", "/blue/x"),
        ("/ws/{room}", "/r/{room}", "/ws/a%20b%E6%97%A5", "/r/a%20b%E6%97%A5"),
        ("/ws/{room}", "/r/{room}", "/ws/a%40b:c%5Bd", "/r/a@b:c%5Bd"),
        ("/ws/{rest...}", "/api/{rest}", "/ws/a/b%20c/d", "/api/a/b%20c/d"),
        ("/ws/{rest...}", "/api/{rest}", "/ws/", "/api/"),
        ("/{path}/{rest...}", "/{path}/{rest}", "/a/b", "/a/b"),
    ],
)
def test_the_upstreams_path_is_filled_in(
    pattern: str, template: str, path: str, target: str
) -> None:
    permit = permitted(handshake(path), with_path(pattern, template), prefix="/prefix")
    assert Head(permit.head).target == f"/prefix{target}"


def test_the_path_goes_on_as_it_came() -> None:
    permit = permitted(handshake("/ws/a%20b", "x=%2f&y"), prefix="/prefix")
    assert Head(permit.head).target == "/prefix/ws/a%20b?x=%2f&y"


@pytest.mark.parametrize("template", ["/a/{path}", "{room}", "/a/../{room}", "//{room}"])
def test_an_upstream_path_that_is_none_is_a_bad_handshake(template: str) -> None:
    outcome = refused(decide(None, with_path("/ws/{room}", template)))
    assert outcome.denial.reason is Reason.BAD_HANDSHAKE
    assert outcome.denial.detail


def test_a_host_that_cannot_be_sent_is_a_bad_handshake() -> None:
    outcome = refused(decide(handshake(host="a\r\nx-user-id: root")))
    assert outcome.denial.reason is Reason.BAD_HANDSHAKE
    assert "root" not in outcome.denial.detail


# Judged again

APP_PROVIDER = Provider("app", ("HS256",), None)


def with_provider(before: Policy, *names: str) -> Policy:
    providers = tuple(replace(APP_PROVIDER, name=name) for name in names)
    return replace(before, tokens=replace(before.tokens, providers=providers))


def stands(shake: Handshake | None = None, route: Route = ROUTE, **more: Any) -> Standing:
    return standing(policy(route, **more), admitted(shake or handshake(), route))


def still_good(identity: Identity, provider: Provider) -> None:
    assert identity.provider == provider.name


def again(
    route: Route | None = None,
    *,
    kept: Standing | None = None,
    identity: Identity | None = ANA,
    after: Policy | None = None,
    recheck: Callable[[Identity, Provider], Denial | None] = still_good,
) -> Route | Refusal:
    now = after or with_provider(policy(route or ROUTE), "other", "app")
    return rejudge(now, kept or stands(), identity, recheck=recheck)


def test_under_the_same_policy_a_connection_goes_on() -> None:
    assert again() == ROUTE
    rooms = with_path("/ws/{room}", "/rooms/{room}")
    kept = stands(handshake("/ws/a%20b"), rooms, prefix="/base")
    assert kept.target == "/base/rooms/a%20b"
    assert again(kept=kept, after=with_provider(policy(rooms, prefix="/base"), "app")) == rooms


def test_what_is_kept_of_a_handshake_has_no_secret_and_little_else() -> None:
    shake = handshake(
        query="token=t.o.k&a=1",
        headers=[("Cookie", "session=t.o.k; a=b"), ("User-Agent", "UA"), ("X-Plan", "pro")],
        subprotocols=("bearer", "t.o.k", "chat"),
    )
    rule = CelRule("request.headers['x-plan'] == 'pro'", label="plan")
    kept = stands(shake, with_rules(rule)).handshake
    assert "t.o.k" not in repr(kept)
    assert kept == Handshake(
        path="/ws/blue",
        query="",
        host="chat.example.com",
        headers=(("x-plan", "pro"),),
        key="",
        origin=APP,
        subprotocols=("chat",),
    )
    assert stands(shake).handshake.headers == ()


@pytest.mark.parametrize(
    "rule",
    [
        CelRule("size(request.headers) == 2 && request.headers[claims.h] == 'UA'", label="a"),
        CelRule("[request].exists(r, r.headers['user-agent'] == 'UA')", label="b"),
        ClaimRule(
            "c",
            ClaimPath.parse("h"),
            equals=(Template.parse("{request.headers.user-agent}-{user}", ("request", "user")),),
        ),
    ],
    ids=["by a claim", "as a whole", "in a template"],
)
def test_a_rule_reads_the_same_headers_again(rule: ClaimRule | CelRule) -> None:
    shake = handshake(
        headers=[("Authorization", "Bearer t.o.k"), ("User-Agent", "UA"), ("Accept", "*")]
    )
    template = isinstance(rule, ClaimRule)
    ana = replace(ANA, claims={"h": "UA-ana" if template else "user-agent"})
    route = with_rules(rule)
    assert isinstance(decide(shake, route, ana), Permit)
    assert again(route, kept=stands(shake, route), identity=ana) == route
    assert len(stands(shake, route).handshake.headers) == (1 if template else 2)


def test_a_header_that_no_rule_read_is_not_there_later() -> None:
    shake = handshake(headers=[("Authorization", "Bearer t.o.k"), ("X-Plan", "pro")])
    rule = with_rules(CelRule("request.headers['x-plan'] == 'pro'", label="plan"))
    outcome = refused(again(rule, kept=stands(shake)))
    assert outcome.denial.reason is Reason.CLAIMS_DENIED


def test_the_new_route_holds_from_now_on() -> None:
    renamed = replace(ROUTE, name="renamed", limits=Limits(client_message=1))
    first = replace(ROUTE, name="never", path=PathPattern.parse("/other"))
    after = replace(with_provider(policy(), "app"), routes=(first, renamed, ROUTE))
    assert again(after=after) is renamed


@pytest.mark.parametrize(
    ("route", "detail"),
    [
        (replace(ROUTE, path=PathPattern.parse("/other")), "no route is left for it"),
        (with_path("/ws/{room}", "/rooms/{room}"), "its route leads elsewhere now"),
        (with_path("/ws/{room}", "{room}"), "upstream_path: the path does not start with a slash"),
        (with_path("/ws/{room}", "/{path}"), "{path} has no text; "),
    ],
)
def test_a_connection_whose_route_is_gone_ends(route: Route, detail: str) -> None:
    outcome = refused(again(route))
    assert (outcome.denial.reason, outcome.route) == (Reason.NO_ROUTE, None)
    assert outcome.denial.detail.startswith(detail)


@pytest.mark.parametrize(
    "change",
    [{"address": Address("127.0.0.1", 9001)}, {"secure": True}, {"prefix": "/v2"}],
    ids=["address", "TLS", "prefix"],
)
def test_a_connection_to_an_upstream_that_moved_ends(change: dict[str, Any]) -> None:
    before = with_provider(policy(), "app")
    after = replace(before, upstreams={"chat": replace(before.upstreams["chat"], **change)})
    assert refused(again(after=after)).denial.detail == "its route leads elsewhere now"


def test_an_upstream_by_another_name_is_the_same() -> None:
    before = with_provider(policy(), "app")
    upstream = replace(before.upstreams["chat"], name="talk", connect_timeout=1.0)
    route = replace(ROUTE, upstream="talk")
    assert again(after=replace(before, upstreams={"talk": upstream}, routes=(route,))) == route


@pytest.mark.parametrize(
    ("offered", "marker", "goes_on"),
    [
        (("chat", "mail"), "bearer", True),
        (("chat", "mail"), "chat", False),
        (("chat", "mail", "chat", "call"), "chat", False),
    ],
)
def test_subprotocols_that_are_tokens_now_end_a_connection(
    offered: tuple[str, ...], marker: str, goes_on: bool
) -> None:
    kept = stands(handshake(subprotocols=offered))
    sources = (
        Source(SourceKind.HEADER, "Authorization"),
        Source(SourceKind.SUBPROTOCOL, marker),
    )
    route = replace(ROUTE, authenticate=Authenticate(None, sources))
    outcome = again(route, kept=kept)
    if goes_on:
        assert outcome == route
    else:
        assert refused(outcome).denial == Denial(
            Reason.NO_ROUTE, "a subprotocol of it is a token now"
        )


def test_tls_and_origin_are_judged_again() -> None:
    plain = replace(stands(), peer=Peer("192.0.2.7", secure=False))
    after = with_provider(policy(require_tls=True), "app")
    assert refused(again(kept=plain, after=after)).denial.reason is Reason.TLS_REQUIRED
    other = replace(ROUTE, origins=OriginRule(allow=(OriginPattern.parse("https://b.example"),)))
    outcome = refused(again(other))
    assert (outcome.denial.reason, outcome.route) == (Reason.ORIGIN_DENIED, other)
    program = stands(handshake(origin=None), PROGRAMS)
    assert again(PROGRAMS, kept=program) == PROGRAMS
    assert refused(again(kept=program)).denial.reason is Reason.ORIGIN_MISSING


def test_an_anonymous_client_stays_where_it_may_be() -> None:
    kept = stands(handshake(headers=()), OPEN)
    assert again(OPEN, kept=kept, identity=None) == OPEN
    assert refused(again(kept=kept, identity=None)).denial.reason is Reason.TOKEN_MISSING
    assert again(OPEN) == OPEN


@pytest.mark.parametrize(
    ("names", "allowed"), [(("other",), None), (("app", "other"), ("other",)), ((), None)]
)
def test_a_provider_that_is_gone_takes_its_users_along(
    names: tuple[str, ...], allowed: tuple[str, ...] | None
) -> None:
    route = replace(ROUTE, authenticate=replace(ROUTE.authenticate, providers=allowed))
    outcome = refused(again(after=with_provider(policy(route), *names)))
    assert outcome.denial == Denial(Reason.TOKEN_INVALID, "the route does not take app's tokens")


def test_claims_are_judged_by_what_the_provider_says_now() -> None:
    wrong = Denial(Reason.TOKEN_INVALID, "app: aud does not name this audience")
    assert refused(again(recheck=lambda *_: wrong)) == Refusal(wrong, ROUTE)
    ignoring = replace(ROUTE, session=Session(expiry=Expiry.IGNORE))
    assert refused(again(ignoring, recheck=lambda *_: wrong)).denial == wrong


def test_a_token_that_is_over_ends_a_connection_unless_the_route_ignores_it() -> None:
    over = Denial(Reason.TOKEN_EXPIRED, "app: exp is over")
    assert refused(again(recheck=lambda *_: over)) == Refusal(over, ROUTE)
    ignoring = replace(ROUTE, session=Session(expiry=Expiry.IGNORE))
    assert again(ignoring, recheck=lambda *_: over) == ignoring


def test_the_rules_are_judged_again() -> None:
    room = CelRule("path.room == 'blue' && session.token_id == 't1'", label="room")
    for rule in (member(), room, admin(shadow=True)):
        assert isinstance(again(with_rules(rule)), Route)
    route = with_rules(admin(reason="not_an_admin"))
    outcome = refused(again(route))
    assert (outcome.denial.reason, outcome.denial.rule) == (Reason.CLAIMS_DENIED, "not_an_admin")
    assert outcome.route == route


# Whatever comes in

any_text = st.text(st.characters(exclude_categories=()), max_size=12)
claim_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
latin = st.text(st.characters(codec="latin-1"), max_size=12)
spelled = st.sampled_from([*SPOOFS, "X-Roles", "X_All", "User-Agent", "Host", "Upgrade", "Cookie"])


@given(
    user=any_text | st.text("ab\r\n", min_size=1),
    roles=claim_values | st.lists(st.text("ab,", min_size=1, max_size=3)),
    room=st.text("ab /%?;.日\r\n", min_size=1, max_size=6),
    headers=st.lists(st.tuples(spelled, latin), max_size=6),
)
def test_no_input_adds_a_field_or_changes_the_path_of_the_head(
    user: str, roles: object, room: str, headers: list[tuple[str, str]]
) -> None:
    identity = IdentityRules(
        headers=(
            IdentityHeader("X-User-Id", user=True),
            IdentityHeader("X-Roles", claim=ClaimPath.parse("roles"), join=","),
            IdentityHeader("X-All", encode=Encoding.BASE64URL_JSON),
        )
    )
    route = replace(
        with_path("/ws/{room}", "/r/{room}/end"),
        identity=identity,
        forward_headers=frozenset({"user-agent", "x-user-id", "x_user_id"}),
    )
    shake = handshake(headers=headers_with_token(headers))
    ready = admitted(shake, route)._replace(captures={"room": room})
    outcome = authorize(
        policy(route),
        ready,
        Identity(user, {"roles": roles}, "app", None, None),
        request_id="r1",
        now=NOW,
        signing_key=signing_key,
    )
    if isinstance(outcome, Refusal):
        assert outcome.denial.reason in {Reason.CLAIMS_DENIED, Reason.BAD_HANDSHAKE}
        return
    head = Head(outcome.head)
    assert head.target.startswith("/r/")
    assert head.target.endswith("/end")
    assert head.target.count("/") == 3
    sent = {name.lower() for name, _ in head.fields}
    assert sent - {"user-agent", "x-roles"} == {
        *("host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version"),
        *("origin", "x-forwarded-for", "x-forwarded-proto", "x-request-id"),
        *("x-user-id", "x-all"),
    }
    assert all(len(head[name]) == 1 for name in sent - {"user-agent"})


def headers_with_token(headers: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    safe = [(name, value) for name, value in headers if name != "Cookie"]
    return [("Authorization", "Bearer t.o.k"), *safe]
