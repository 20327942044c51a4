"""The order of decisions: the only place that has it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from sidecar.errors import TemplateError
from sidecar.model import Denial, Handshake, Identity, Peer, Permit, Reason
from sidecar.policy.claims import Scope
from sidecar.policy.compiled import Policy, Upstream
from sidecar.policy.credentials import (
    Credential,
    MessageSource,
    SourceKind,
    extract,
    why_missing,
)
from sidecar.policy.headers import build_head
from sidecar.policy.identity import carrying, claim_headers, signed_header
from sidecar.policy.keys import SigningKey
from sidecar.policy.origins import Origin, OriginRule
from sidecar.policy.providers import Provider
from sidecar.policy.routes import Route, check_path, find_route, upstream_path
from sidecar.policy.scope import headers_that_rules_read, readable_headers, scope_of
from sidecar.policy.session import Expiry

__all__ = [
    "Preflight",
    "Refusal",
    "Standing",
    "authorize",
    "preflight",
    "rejudge",
    "standing",
]


_NOBODY: Final = Denial(Reason.TOKEN_MISSING, "nobody was verified")


class Preflight(NamedTuple):
    """A handshake that may go on to have its token verified.

    Where it `awaits_message`, it brought no token: its socket is accepted, nothing is dialled, and
    `with_token` goes on with what the first message brings. The client is then told the first of
    its subprotocols, and so that one alone is left for the upstream to select.
    """

    handshake: Handshake
    peer: Peer
    route: Route
    captures: Mapping[str, str]
    credential: Credential
    awaits_message: MessageSource | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A denial, and the route it was made on (None: before a route was found)."""

    denial: Denial
    route: Route | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What is kept of an admitted handshake so that its connection can be judged again.

    `handshake` is without key and query, with the headers alone that the route's rules read, and
    with the subprotocols that the upstream was offered. `target` is the upstream's path.
    """

    handshake: Handshake
    peer: Peer
    upstream: Upstream
    target: str


def preflight(policy: Policy, handshake: Handshake, peer: Peer) -> Preflight | Refusal:
    """Everything that can be decided without a key.

    In this order: the path's form (bad_handshake), the route (no_route), TLS (tls_required), the
    Origin (origin_denied; origin_missing), the credential (bad_handshake, token_conflict), a token
    from a cookie without an Origin (origin_missing), no token (token_missing, unless the route lets
    anonymous clients in or takes a token from the first message), a token over max_token_size
    (token_invalid).
    """
    if wrong := check_path(handshake.path):
        return Refusal(Denial(Reason.BAD_HANDSHAKE, wrong), None)
    match = find_route(policy.routes, handshake.host, handshake.path)
    if match is None:
        return Refusal(Denial(Reason.NO_ROUTE), None)
    route = match.route
    if denial := _check_transport(policy, route, handshake, peer):
        return Refusal(denial, route)
    credential = extract(handshake, route.authenticate.sources)
    if isinstance(credential, Denial):
        return Refusal(credential, route)
    if denial := _check_credential(policy, route, handshake, credential):
        return Refusal(denial, route)
    awaited = route.authenticate.message if credential.token is None else None
    if awaited is not None:
        credential = credential._replace(subprotocols=credential.subprotocols[:1])
    return Preflight(handshake, peer, route, match.captures, credential, awaited)


def _check_transport(
    policy: Policy, route: Route, handshake: Handshake, peer: Peer
) -> Denial | None:
    if policy.server.require_tls and not peer.secure:
        return Denial(Reason.TLS_REQUIRED)
    return _check_origin(route, handshake, secure=peer.secure)


def _check_origin(route: Route, handshake: Handshake, *, secure: bool) -> Denial | None:
    if handshake.origin is None:
        allowed = route.origins.missing_allowed
        return None if allowed else Denial(Reason.ORIGIN_MISSING, "no Origin field")
    if not route.origins.permits(handshake.origin, handshake.host, secure=secure):
        detail = _why_denied(route.origins, handshake.origin, handshake.host, secure=secure)
        return Denial(Reason.ORIGIN_DENIED, detail)
    return None


def _why_denied(rule: OriginRule, text: str, host: str, *, secure: bool) -> str:
    """For the log: the Origin as it was understood. What is none may hold anything."""
    origin = Origin.parse(text)
    if origin is None:  # RFC 6454 section 6.1: null is a file's, or a sandboxed frame's
        return f"the Origin is {'null' if text == 'null' else 'malformed'}"
    if rule.allow is not None:
        return f"the Origin {origin} is not on the route's list"
    scheme = "https" if secure else "http(s)"
    return f"the Origin {origin} is not the server's own, {scheme}://{host}"


def _check_credential(
    policy: Policy, route: Route, handshake: Handshake, credential: Credential
) -> Denial | None:
    # A browser adds cookies by itself, so only the Origin tells who asked (RFC 6455 10.2).
    if credential.source is SourceKind.COOKIE and handshake.origin is None:
        return Denial(Reason.ORIGIN_MISSING, "a token from a cookie, and no Origin field")
    if credential.token is None:
        if route.authenticate.anonymous or route.authenticate.message is not None:
            return None
        return Denial(Reason.TOKEN_MISSING, why_missing(handshake, route.authenticate.sources))
    if len(credential.token) > policy.tokens.max_token_size:
        return Denial(Reason.TOKEN_INVALID, "the token is over max_token_size")
    return None


def authorize(
    policy: Policy,
    admitted: Preflight,
    identity: Identity | None,
    *,
    request_id: str,
    now: float,
    signing_key: Callable[[str], SigningKey],
) -> Permit | Refusal:
    """Everything that can be decided with the identity: that there is one where the route needs one
    (token_missing), the rules, then the identity headers, then the upstream's path and head.

    A claim that cannot be a header value is claims_denied, a path or field that cannot be sent
    bad_handshake. `signing_key` gives a provider's key for `identity.sign`; what it raises passes
    through.
    """
    route = admitted.route
    if identity is None and not route.authenticate.anonymous:
        return Refusal(_NOBODY, route)
    shadowed = _check_rules(route, _scope(admitted, identity)) if route.authorize else ()
    if isinstance(shadowed, Denial):
        return Refusal(shadowed, route)
    try:
        injected = _identity_headers(admitted, identity, request_id, now, signing_key)
    except ValueError as error:
        return Refusal(Denial(Reason.CLAIMS_DENIED, str(error)), route)
    try:
        head = _head(policy, admitted, injected, request_id)
    except (TemplateError, ValueError) as error:
        return Refusal(Denial(Reason.BAD_HANDSHAKE, str(error)), route)
    return Permit(
        route=route.name,
        upstream=route.upstream,
        head=head,
        key=admitted.handshake.key,
        offered=admitted.credential.subprotocols,
        echo=admitted.credential.echo,
        identity=identity,
        shadowed=shadowed,
    )


def standing(policy: Policy, admitted: Preflight) -> Standing:
    """What to keep of a handshake that was authorised under this policy."""
    route, credential = admitted.route, admitted.credential
    handshake = admitted.handshake._replace(
        query="",
        headers=headers_that_rules_read(
            route.authorize, credential.headers, route.authenticate.sources
        ),
        key="",
        subprotocols=credential.subprotocols,
    )
    upstream = policy.upstreams[route.upstream]
    return Standing(handshake, admitted.peer, upstream, _upstream_path(policy, admitted))


def rejudge(
    policy: Policy,
    kept: Standing,
    identity: Identity | None,
    *,
    recheck: Callable[[Identity, Provider], Denial | None],
) -> Route | Refusal:
    """Judge a live connection under a policy that it was not admitted by: the route whose rules
    hold for it from now on, or why it must end.

    In this order: the route, which must lead to the same path at the same upstream with the same
    subprotocols (no_route), TLS (tls_required), the Origin (origin_denied; origin_missing), that
    there is an identity where the route needs one (token_missing), its provider (token_invalid),
    what `recheck` says of its claims under this provider, the rules (claims_denied).

    An identity that is over is not judged where the route's `session.expiry` is ignore. Keys and
    algorithms are not judged again, nor is what the upstream was told. A header that no rule read
    when the client came is not there for a rule that reads it now.
    """
    again = _follow(policy, kept)
    if isinstance(again, Denial):
        return Refusal(again, None)
    route = again.route
    denial = (
        _check_transport(policy, route, kept.handshake, kept.peer)
        or _check_identity(policy, route, identity, recheck)
        or _first_failure(_check_rules(route, _scope(again, identity)))
    )
    return Refusal(denial, route) if denial else route


def _follow(policy: Policy, kept: Standing) -> Preflight | Denial:
    """The way that the handshake would go now, if it is the one that it went."""
    handshake = kept.handshake
    match = find_route(policy.routes, handshake.host, handshake.path)
    if match is None:
        return Denial(Reason.NO_ROUTE, "no route is left for it")
    sources = match.route.authenticate.sources
    marked = [one for one in sources if one.kind is SourceKind.SUBPROTOCOL]
    credential = extract(handshake, marked)
    if isinstance(credential, Denial) or credential.subprotocols != handshake.subprotocols:
        return Denial(Reason.NO_ROUTE, "a subprotocol of it is a token now")
    again = Preflight(handshake, kept.peer, match.route, match.captures, credential)
    upstream = policy.upstreams[match.route.upstream]
    try:
        target = _upstream_path(policy, again)
    except (TemplateError, ValueError) as error:
        return Denial(Reason.NO_ROUTE, str(error))
    before = (kept.upstream.address, kept.upstream.secure, kept.target)
    if before != (upstream.address, upstream.secure, target):
        return Denial(Reason.NO_ROUTE, "its route leads elsewhere now")
    return again


def _check_identity(
    policy: Policy,
    route: Route,
    identity: Identity | None,
    recheck: Callable[[Identity, Provider], Denial | None],
) -> Denial | None:
    if identity is None:
        return None if route.authenticate.anonymous else _NOBODY
    allowed = route.authenticate.providers
    provider = next((one for one in policy.tokens.providers if one.name == identity.provider), None)
    if provider is None or (allowed is not None and provider.name not in allowed):
        return Denial(Reason.TOKEN_INVALID, f"the route does not take {identity.provider}'s tokens")
    denial = recheck(identity, provider)
    over = denial is not None and denial.reason is Reason.TOKEN_EXPIRED
    return None if over and route.session.expiry is Expiry.IGNORE else denial


def _first_failure(outcome: Denial | tuple[str, ...]) -> Denial | None:
    return outcome if isinstance(outcome, Denial) else None


def _check_rules(route: Route, scope: Scope) -> Denial | tuple[str, ...]:
    """The first enforced rule that fails as a denial, else the labels of shadow rules that fail."""
    shadowed: list[str] = []
    for rule in route.authorize:
        if rule.holds(scope):
            continue
        if not rule.shadow:
            detail = f"rule {rule.label} does not hold: {rule.why_not(scope)}"
            return Denial(Reason.CLAIMS_DENIED, detail, rule.reason)
        shadowed.append(rule.label)
    return tuple(shadowed)


def _scope(admitted: Preflight, identity: Identity | None) -> Scope:
    headers = readable_headers(admitted.credential.headers, admitted.route.authenticate.sources)
    return scope_of(admitted.handshake, admitted.peer, admitted.captures, headers, identity)


def _identity_headers(
    admitted: Preflight,
    identity: Identity | None,
    request_id: str,
    now: float,
    signing_key: Callable[[str], SigningKey],
) -> Mapping[str, str]:
    if identity is None:
        return {}
    route, token = admitted.route, admitted.credential.token
    headers = dict(claim_headers(route.identity.headers, identity))
    if route.identity.forward_token and token:
        headers |= carrying(route.identity.forward_token.header, token)
    if route.identity.sign:
        headers |= signed_header(
            route.identity.sign,
            identity,
            route=route.name,
            upstream=route.upstream,
            request_id=request_id,
            now=now,
            signing_key=signing_key,
        )
    return headers


def _head(
    policy: Policy, admitted: Preflight, injected: Mapping[str, str], request_id: str
) -> bytes:
    handshake, credential, route = admitted.handshake, admitted.credential, admitted.route
    return build_head(
        target=_target(policy, admitted),
        host=handshake.host,
        key=handshake.key,
        origin=handshake.origin,
        subprotocols=credential.subprotocols,
        client_headers=credential.headers,
        forward=route.forward_headers,
        own=_own_headers(admitted.peer, request_id),
        identity=injected,
        identity_names=route.identity.names,
    )


def _own_headers(peer: Peer, request_id: str) -> Mapping[str, str]:
    # A client behind a Unix socket has no address that an upstream could use.
    address = {} if peer.address == "unix" else {"X-Forwarded-For": peer.address}
    scheme = "https" if peer.secure else "http"
    return {**address, "X-Forwarded-Proto": scheme, "X-Request-Id": request_id}


def _target(policy: Policy, admitted: Preflight) -> str:
    path, query = _upstream_path(policy, admitted), admitted.credential.query
    return f"{path}?{query}" if query else path


def _upstream_path(policy: Policy, admitted: Preflight) -> str:
    path = upstream_path(admitted.route, admitted.captures, admitted.handshake.path)
    return f"{policy.upstreams[admitted.route.upstream].prefix}{path}"
