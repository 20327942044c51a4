"""What has a price: each variant of the sidecar has one thing that another one has not."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from benchmarks.credentials import BEARER
from benchmarks.peers import COMPILED, FOLDER, SIDECAR, Peer

__all__ = ["LOADS", "VARIANTS", "Variant", "merged"]

LOADS: Final = ("messages", "chats", "paced", "handshakes", "idle")

_MESSAGES: Final = ("messages",)
_CHATS: Final = ("messages", "chats")
_HANDSHAKES: Final = ("handshakes",)
_IDLE: Final = ("idle",)
_FORWARDED: Final = ("paced", "handshakes", "idle")


@dataclass(frozen=True)
class Variant:
    """The sidecar with one thing more than the variant `over`, under some of LOADS.

    `adds` is YAML, merged into the other's policy; a list takes the place of the other's list.
    `token` is the algorithm of what clients bring. With `forwarded` a forwarder stands before it,
    one that speaks TLS where it is "tls". The rest is as in `Peer`.
    """

    name: str
    title: str
    over: str | None
    loads: tuple[str, ...]
    adds: str = ""
    token: str | None = None
    forwarded: str | None = None
    compiled: bool = True
    carrier: str = BEARER
    headers: tuple[str, ...] = ()
    preface: str = ""
    refused: int | None = None
    silent: bool = False

    def policy(self) -> str:
        """The whole policy as YAML, with `@NAME@` still in it."""
        return yaml.safe_dump(self._policy(), sort_keys=False)

    def _policy(self) -> dict[str, Any]:
        adds: dict[str, Any] = yaml.safe_load(self.adds) or {}
        if self.over is None:
            least: dict[str, Any] = yaml.safe_load((FOLDER / "least.yaml").read_text())
            return merged(least, adds)
        return merged(_BY_NAME[self.over]._policy(), adds)

    def peer(self, values: Mapping[str, str], port: int | None) -> Peer:
        """How it is started; `values` and `port` as in `Peer`."""
        return Peer(
            self.name,
            self.title,
            SIDECAR,
            (self.token or "plain",),
            "policy.yaml",
            values,
            shared_port=True,
            package=COMPILED if self.compiled else None,
            text=self.policy(),
            port=port,
            carrier=self.carrier,
            headers=self.headers,
            preface=self.preface,
            refused=self.refused,
            silent=self.silent,
        )


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged at every depth; of anything else that of `above` counts."""
    both = dict(below)
    for key, value in above.items():
        under = both.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            both[key] = merged(under, value)
        else:
            both[key] = value
    return both


_SIZES: Final = "message_size: 1MiB, frame_size: 1MiB"
_RATE: Final = "messages: {rate: 10000000/second, on_exceed: close}"
_BYTES: Final = "bytes: {rate: 100GB/second, on_exceed: delay}"
_CONTROL: Final = "control_frames: 10/second"


def _limits(*limits: str) -> str:
    return f"defaults: {{limits: {{{', '.join(limits)}}}}}"


def _of_messages() -> Iterator[Variant]:
    everywhere = (*_CHATS, *_HANDSHAKES, "idle")
    yield Variant("least", "the least there can be", None, everywhere)
    yield Variant(
        "again", "nothing: the same once more, to show what is noise", "least", everywhere
    )
    yield Variant("sizes", "`message_size` and `frame_size`", "least", _MESSAGES, _limits(_SIZES))
    yield Variant("rate", "`messages` rate, `close`", "least", _MESSAGES, _limits(_RATE))
    yield Variant("bytes", "`bytes` rate, `delay`", "least", _MESSAGES, _limits(_BYTES))
    yield Variant("control", "`control_frames` rate", "least", _MESSAGES, _limits(_CONTROL))
    every = _limits(_SIZES, _RATE, _BYTES, _CONTROL)
    yield Variant("limits", "all these limits", "least", everywhere, every)
    unix = 'upstreams: {echo: {url: "unix:@FOLDER@/echo.sock"}}'
    yield Variant("unix", "a Unix socket to the upstream, not TCP", "least", everywhere, unix)
    yield Variant("python", "the scanner not compiled", "least", everywhere, compiled=False)
    yield Variant("python-limits", "the scanner not compiled", "limits", _MESSAGES, compiled=False)


def _session(rules: str) -> str:
    return f"defaults: {{session: {{{rules}}}}}"


def _of_sessions() -> Iterator[Variant]:
    refresh = "refresh: {when: {/type: refresh}, token: /token}"
    yield Variant("refresh", "a `refresh` rule", "least", _CHATS, _session(refresh))
    yield Variant(
        *("python-refresh", "the scanner not compiled", "refresh", _CHATS), compiled=False
    )
    lives = "idle_timeout: 10m, max_lifetime: 12h"
    yield _more("lives", "`idle_timeout` and `max_lifetime`", _session(lives), loads=_IDLE)
    # More often than anyone would, so that it is seen in the time that is measured.
    beats = f"{lives}, heartbeat: {{interval: 5s}}"
    yield _more("heartbeat", "these, and a `heartbeat` each 5 s", _session(beats), loads=_IDLE)


def _of_tls() -> Iterator[Variant]:
    behind = 'server: {listen: ["127.0.0.1:@PORT_BACK@"]}'
    yield Variant(
        *("forwarded", "a forwarder before it", "least", _FORWARDED, behind), forwarded="clear"
    )
    tls = 'server: {tls: {certificate: "@FOLDER@/server.pem", key: "@FOLDER@/server.key"}}'
    yield Variant("tls", "TLS towards the client", "forwarded", _FORWARDED, tls, forwarded="tls")


def _token(algorithm: str, source: str) -> Variant:
    provider = f"{algorithm.lower()}: {{algorithms: [{algorithm}], {source}}}"
    authenticate = f"{{anonymous: false, providers: [{algorithm.lower()}], sources: [header]}}"
    adds = f"jwt: {{providers: {{{provider}}}}}\ndefaults: {{authenticate: {authenticate}}}"
    title = f"a token, {algorithm}"
    loads = (*_HANDSHAKES, "idle") if algorithm == "HS256" else _HANDSHAKES
    return Variant(algorithm, title, "least", loads, adds, token=algorithm)


def _of_tokens() -> Iterator[Variant]:
    yield _token("HS256", "secrets: [{env: BENCH_SECRET}]")
    for algorithm in ("RS256", "ES256", "EdDSA"):
        yield _token(algorithm, f'jwks_file: "@FOLDER@/{algorithm}.jwks"')
    cookie = "defaults: {authenticate: {sources: [{cookie: session}]}}"
    yield _more("cookie", "the token in a cookie, not a header", cookie, carrier="Cookie: session=")


def _more(
    name: str, title: str, adds: str, loads: tuple[str, ...] = _HANDSHAKES, **client: Any
) -> Variant:
    """A variant over that with HS256 tokens."""
    return Variant(name, title, "HS256", loads, adds, token="HS256", **client)  # noqa: S106


_EIGHT_HEADERS: Final = """
X-User-Id: user
X-User-Sub: claims.sub
X-User-Email: claims.email
X-User-Roles: {claim: roles, join: ","}
X-User-Rooms: {claim: rooms, join: ","}
X-Token-Id: claims.jti
X-Token-Expiry: claims.exp
X-Auth-Claims: {claims: all, encode: base64url-json}
"""


def _of_rules() -> Iterator[Variant]:
    for name, rule in {
        "equals": "{claim: email, equals: alice@example.com}",
        "contains": '{claim: rooms, contains: "{path.room}"}',
        "matches": '{claim: email, matches: "[a-z]+@example[.]com"}',
        "cel": """{cel: "'member' in claims.roles"}""",
    }.items():
        yield _more(name, f"a rule: `{rule[1:-1]}`", f"defaults: {{authorize: [{rule}]}}")


def _of_identity() -> Iterator[Variant]:
    one = "defaults: {identity: {headers: {X-User-Id: user}}}"
    yield _more("identity-1", "one identity header", one)
    eight = yaml.safe_dump({"defaults": {"identity": {"headers": yaml.safe_load(_EIGHT_HEADERS)}}})
    yield _more("identity-8", "eight identity headers, one with all claims", eight)
    sign = "defaults: {identity: {sign: {provider: hs256}}}"
    yield _more("sign-HS256", "`identity.sign` with HS256", sign)
    key = (
        'jwt: {providers: {own: {algorithms: [RS256], private_key: {file: "@FOLDER@/RS256.key"}}}}'
    )
    sign = f"{key}\ndefaults: {{identity: {{sign: {{provider: own}}}}}}"
    yield _more("sign-RS256", "`identity.sign` with RS256", sign)


def _of_audit() -> Iterator[Variant]:
    file = 'logging: {audit: {sample_allowed: 1.0, file: "@FOLDER@/audit.log"}}'
    yield _more("audit-file", "audit to a file", file)
    stream = "logging: {level: info, audit: {sample_allowed: 1.0}}"
    yield _more("audit-stream", "audit to the log stream", stream, silent=True)


def _of_peers() -> Iterator[Variant]:
    trusted = "server: {trusted_proxies: [127.0.0.0/8]}"
    header = "X-Forwarded-For: 203.0.113.7"
    yield Variant(
        *("forwarded-for", "`trusted_proxies` and X-Forwarded-For", "least", _HANDSHAKES, trusted),
        headers=(header,),
    )
    protocol = "server: {trusted_proxies: [127.0.0.0/8], proxy_protocol: true}"
    line = "PROXY TCP4 203.0.113.7 127.0.0.1 56324 8080"
    yield Variant(
        *("proxy-protocol", "the PROXY protocol", "least", _HANDSHAKES, protocol), preface=line
    )


def _of_routes() -> Iterator[Variant]:
    for count in (100, 1000):
        routes = [
            {"name": f"other-{number}", "match": {"path": f"/other-{number}/{{room}}"}}
            for number in range(count)
        ]
        adds = yaml.safe_dump({"routes": [*routes, {"name": "all", "match": {"path": "/{room}"}}]})
        yield Variant(
            f"routes-{count}", f"{count} routes before the one", "least", _HANDSHAKES, adds
        )


def _of_refusals() -> Iterator[Variant]:
    yield _more("refuse-http", "a forged token: refused with a 401, not dialled", "", refused=401)
    close = "defaults: {refuse: {with: close}}"
    yield _more("refuse-close", "a forged token: refused with a close frame", close, refused=101)


VARIANTS: Final = (
    *_of_messages(),
    *_of_tls(),
    *_of_tokens(),
    *_of_sessions(),
    *_of_rules(),
    *_of_identity(),
    *_of_audit(),
    *_of_peers(),
    *_of_routes(),
    *_of_refusals(),
)

_BY_NAME: Final = {variant.name: variant for variant in VARIANTS}
