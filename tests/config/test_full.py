"""A policy that uses every supported key, down to the compiled values."""

import shutil
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.config.schema import PolicyFile
from sidecar.config.schema.base import Model
from sidecar.config.source import Loaded, load_policy
from sidecar.policy.claims import ClaimRule
from sidecar.policy.compiled import (
    Address,
    Admin,
    Audit,
    Drain,
    Health,
    Logging,
    Policy,
    Server,
    ServerTls,
    Upstream,
    UpstreamTls,
)
from sidecar.policy.credentials import (
    Authenticate,
    MaxWaiting,
    MessageSource,
    Source,
    SourceKind,
)
from sidecar.policy.headers import Encoding, ForwardToken, IdentityHeader, IdentityRules, Sign
from sidecar.policy.limits import Exceed, Limits, Rate
from sidecar.policy.matching import MessagePattern
from sidecar.policy.pointers import ClaimPath
from sidecar.policy.providers import (
    Discovery,
    JwksFile,
    JwksUrl,
    Provider,
    PublicKey,
    SecretRef,
    Secrets,
)
from sidecar.policy.refuse import Refuse, RefuseWith
from sidecar.policy.replies import Reply
from sidecar.policy.routes import HostPattern, PathPattern, Route
from sidecar.policy.session import Expiry, Heartbeat, Refresh, Session, Warn

FULL = Path(__file__).parent / "golden" / "full.yaml"


@pytest.fixture
def loaded(material: Path, environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Loaded:
    monkeypatch.chdir(material)
    shutil.copy(FULL, "full.yaml")
    return load_policy([Path("full.yaml")], environ)


@pytest.fixture
def policy(loaded: Loaded) -> Policy:
    return loaded.policy


@pytest.fixture
def chat(policy: Policy) -> Route:
    return policy.routes[0]


def provider(policy: Policy, name: str) -> Provider:
    return next(provider for provider in policy.tokens.providers if provider.name == name)


def used_fields(value: Any, used: dict[type[Model], set[str]]) -> None:
    if isinstance(value, Model):
        used.setdefault(type(value), set()).update(value.model_fields_set)
        for name in value.model_fields_set:
            used_fields(getattr(value, name), used)
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            used_fields(inner, used)


def models(kind: type[Model]) -> set[type[Model]]:
    found: set[type[Model]] = set()
    for subclass in kind.__subclasses__():
        found |= {subclass} | models(subclass)
    return {model for model in found if model.model_fields}


def test_the_full_policy_uses_every_key_of_the_schema() -> None:
    document = yaml.safe_load(FULL.read_text().replace("${MAX_CONNECTIONS:-500}", "500"))
    document["routes"][0]["compression"] = "off"  # false in YAML 1.1
    used: dict[type[Model], set[str]] = {}
    used_fields(PolicyFile.model_validate(document), used)
    missing = {model: set(model.model_fields) - used.get(model, set()) for model in models(Model)}
    assert {model.__name__: names for model, names in missing.items() if names} == {}


def test_the_server(policy: Policy) -> None:
    assert policy.server == Server(
        listen=(
            Address("127.0.0.1", 8443),
            Address("::1", 8443),
            Address(unix="/run/ws.sock"),
        ),
        workers=None,
        tls=ServerTls("tls.crt", "tls.key", "tls.crt"),
        trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
        proxy_protocol=True,
        require_tls=True,
        handshake_timeout=5.0,
        max_connections=500,
        drain=Drain(90.0, 1001, 45.0),
    )


def test_the_admin_listener_and_the_logs(policy: Policy) -> None:
    assert policy.admin == Admin(
        Address("0.0.0.0", 9091), SecretRef("env", "ADMIN_TOKEN"), metrics_public=True
    )
    assert policy.logging == Logging("console", "debug", False, Audit("audit.log", 0.25))


def test_the_upstreams(policy: Policy) -> None:
    assert policy.upstreams == {
        "chat": Upstream(
            name="chat",
            address=Address("chat.internal", 9443),
            secure=True,
            remote=True,
            prefix="/base",
            connect_timeout=0.25,
            tls=UpstreamTls("tls.crt", "tls.crt", "tls.key", "localhost"),
            health=Health("/healthz", 30.0),
        ),
        "local": Upstream("local", Address(unix="/run/chat.sock")),
    }


def test_the_rules_for_tokens(policy: Policy) -> None:
    assert (policy.tokens.leeway, policy.tokens.max_token_size) == (5.0, 16384)
    assert provider(policy, "app") == Provider(
        name="app",
        algorithms=("HS256",),
        keys=Secrets(
            (
                SecretRef("env", "JWT_SECRET"),
                SecretRef("file", "secret"),
                SecretRef("value", "short"),
            )
        ),
        issuer="app",
        audience=("chat",),
        require=("sub",),
        max_age=86400.0,
        user=ClaimPath("/user/id", ("user", "id")),
        token_types=frozenset({"jwt"}),
        allow_weak_secret=True,
    )


def test_each_source_of_public_keys(policy: Policy) -> None:
    corp = provider(policy, "corp")
    assert corp.keys == Discovery("http://login.example.com", 300.0, allow_http=True)
    assert corp.issuer == "http://login.example.com"
    assert corp.audience == ("chat", "mail")
    assert corp.require == ("exp", "sub")
    url = "https://partner.example.com/jwks.json?v=1"
    assert provider(policy, "partner").keys == JwksUrl(url, 600.0)
    assert provider(policy, "file").keys == JwksFile("jwks.json")
    assert provider(policy, "key").keys == PublicKey(SecretRef("file", "public.pem"))
    internal = provider(policy, "internal")
    assert (internal.keys, internal.private_key) == (None, SecretRef("file", "tls.key"))


def test_what_a_route_matches(chat: Route) -> None:
    assert chat.name == "chat"
    assert chat.path == PathPattern.parse("/ws/{room}")
    assert chat.host == HostPattern.parse("*.example.com")
    assert chat.upstream == "chat"
    assert chat.upstream_path is not None
    assert chat.upstream_path.render({"room": "blue"}) == "/chat/blue"


def test_how_a_client_comes_in(chat: Route) -> None:
    assert chat.origins.allow is not None
    assert [pattern.source for pattern in chat.origins.allow] == [
        "https://app.example.com",
        "https://*.example.org",
        "*",
    ]
    assert chat.origins.missing_allowed
    assert chat.authenticate == Authenticate(
        providers=("app", "corp"),
        sources=(
            Source(SourceKind.HEADER, "Authorization"),
            Source(SourceKind.HEADER, "X-Token"),
            Source(SourceKind.COOKIE, "session"),
            Source(SourceKind.QUERY, "token"),
            Source(SourceKind.SUBPROTOCOL, "bearer"),
        ),
        anonymous=True,
    )


def test_the_rules_on_claims(chat: Route) -> None:
    verified, member, plan, role = chat.authorize
    assert isinstance(verified, ClaimRule)
    assert verified.equals == (True,)
    assert isinstance(member, ClaimRule)
    assert member.contains is not None
    assert member.claim == ClaimPath("/rooms", ("rooms",))
    assert member.reason == "not_a_member"
    assert isinstance(plan, ClaimRule)
    assert plan.in_ == ("pro", 7, None)
    assert (plan.matches, plan.exists, plan.shadow) == ("[a-z]+", True, True)
    assert role.label == "cel: 'member' in claims.roles"


def test_what_the_upstream_is_told(chat: Route) -> None:
    assert chat.identity == IdentityRules(
        headers=(
            IdentityHeader("X-User-Id", user=True),
            IdentityHeader("X-User-Name", user=True),
            IdentityHeader("X-User-Email", claim=ClaimPath("email", ("email",))),
            IdentityHeader("X-User-Roles", claim=ClaimPath("roles", ("roles",)), join=","),
            IdentityHeader("X-Auth-Claims", encode=Encoding.BASE64URL_JSON),
        ),
        forward_token=ForwardToken("X-Token"),
        sign=Sign("internal", 30.0, "X-Signed"),
    )
    assert chat.forward_headers == {"accept-language", "cookie"}


def test_limits_and_refusals(chat: Route) -> None:
    assert chat.limits == Limits(
        client_message=100_000,
        upstream_message=2 * 1024**2,
        frame=32 * 1024,
        messages=Rate(100, 60, 20, Exceed.DROP),
        bytes=Rate(1024**2, 1, 4 * 1024**2, Exceed.DELAY),
        control_frames=Rate(5, 1, 8),
    )
    codes = {"token_missing": 4001, "not_a_member": 4002}
    assert chat.refuse == Refuse(RefuseWith.CLOSE, 2.0, codes)


def test_what_holds_while_the_connection_lives(policy: Policy, chat: Route) -> None:
    when = ((ClaimPath("/type", ("type",)), "refresh"), (ClaimPath("/v", ("v",)), 2))
    assert chat.session == Session(
        expiry=Expiry.CLOSE,
        warn=Warn(120.0, Reply({"type": "expiring", "in": "{expires_in}"})),
        refresh=Refresh(
            MessagePattern(when, ClaimPath("/data/token", ("data", "token")), 16384),
            Reply({"type": "refreshed", "exp": "{claims.exp}"}),
            Reply({"type": "no", "reason": "{reason}"}),
        ),
        idle_timeout=90.0,
        heartbeat=Heartbeat(20.0, 5.0),
        max_lifetime=43200.0,
        revocable=False,
    )
    assert policy.routes[1].session == Session(Expiry.IGNORE, heartbeat=Heartbeat(4.0, 4.0))


def test_the_first_message_is_the_last_source(policy: Policy) -> None:
    pattern = MessagePattern(
        ((ClaimPath("/type", ("type",)), "auth"),), ClaimPath("/token", ("token",)), 16384
    )
    reply, failure = {"type": "welcome", "user": "{user}"}, {"type": "error", "reason": "{reason}"}
    assert policy.routes[1].authenticate == Authenticate(
        providers=None,
        sources=(Source(SourceKind.HEADER, "Authorization"),),
        message=MessageSource(pattern, 5.0, Reply(reply), Reply(failure), MaxWaiting(20, 400)),
    )


def test_a_route_without_a_name_gets_a_number_and_the_defaults(policy: Policy) -> None:
    route = policy.routes[1]
    assert (route.name, route.upstream) == ("route-2", "local")
    assert route.forward_headers == {"user-agent"}
    assert route.limits == Limits(
        client_message=1024,
        upstream_message=1024,
        frame=64 * 1024,
        messages=Rate(5, 1, 5),
        bytes=None,
        control_frames=None,
    )


def test_the_unwise_keys_are_warned_of(loaded: Loaded) -> None:
    assert [problem.path for problem in loaded.warnings] == [
        "admin.metrics_public",
        "jwt.providers.app.secrets[2]",
        "jwt.providers.app.secrets[2]",
        "jwt.providers.corp.discovery",
        "routes[0].origins.allow[2]",
        "routes[0].origins.missing",
        "routes[0].authenticate.anonymous",
        "routes[0].identity.forward_token",
    ]
