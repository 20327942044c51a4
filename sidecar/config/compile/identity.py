"""The section `identity` of a route and its `forward_headers`, compiled."""

from collections.abc import Iterator, Mapping

from sidecar.config.compile.jwt import can_sign
from sidecar.config.compile.report import Report
from sidecar.config.nodes import Loc
from sidecar.config.schema import routes as schema
from sidecar.config.schema.jwt import Provider
from sidecar.config.values import did_you_mean
from sidecar.policy.headers import (
    OWN_HEADERS,
    Encoding,
    ForwardToken,
    IdentityHeader,
    IdentityRules,
    Sign,
    fold_name,
    never_forwarded,
)

_BELIEVED = frozenset(
    {"forwarded", "x-real-ip", "x-client-ip", "true-client-ip", "x-original-url", "x-rewrite-url"}
)
"""Folded names of headers that servers believe because proxies write them."""

__all__ = ["compile_forward_headers", "compile_identity"]


def compile_identity(
    loc: Loc, model: schema.Identity, providers: Mapping[str, Provider], report: Report
) -> IdentityRules:
    """What the upstream is told. `providers` are those that could sign."""
    _check_names(loc, model, report)
    headers = [_header(loc, name, value, report) for name, value in model.headers.items()]
    if model.forward_token is not None:
        report.warn(
            (*loc, "forward_token"),
            "the upstream, and whatever it logs, gets the client's token",
            "prefer identity.headers or identity.sign",
        )
    if model.sign is not None:
        _check_signer((*loc, "sign", "provider"), model.sign.provider, providers, report)
    return IdentityRules(
        headers=tuple(header for header in headers if header is not None),
        forward_token=ForwardToken(model.forward_token.header) if model.forward_token else None,
        sign=Sign(model.sign.provider, model.sign.ttl, model.sign.header) if model.sign else None,
    )


def compile_forward_headers(
    loc: Loc, names: list[str], injected: frozenset[str], report: Report
) -> frozenset[str]:
    """The names of client headers to pass on, in lower case: with `X_Custom` a header X-Custom is
    not meant. `injected` are the identity's, folded.
    """
    for index, name in enumerate(names):
        folded = fold_name(name)
        if folded in injected:
            report.error(
                (*loc, index), f"{name} is an identity header", "remove it: the sidecar sets it"
            )
        elif folded in OWN_HEADERS or never_forwarded(name):
            report.error((*loc, index), f"{name} is the sidecar's to set or to drop", "remove it")
        elif folded in _BELIEVED or folded.startswith("x-forwarded-"):
            report.warn(
                (*loc, index),
                f"{name} is what the client says, and servers take it for a proxy's word",
                "remove it, or make sure that a proxy in front sets it",
            )
    return frozenset(name.lower() for name in names)


def _header(
    loc: Loc, name: str, value: schema.HeaderValue, report: Report
) -> IdentityHeader | None:
    claim = None
    if value.claim is not None:
        claim = report.claim((*loc, "headers", name), value.claim)
        if claim is None:
            return None
    return IdentityHeader(name, value.user, claim, value.join, Encoding(value.encode))


def _injected(loc: Loc, model: schema.Identity) -> Iterator[tuple[Loc, str, bool]]:
    """Every name that is injected, its place, and whether it stands there as a key."""
    for name in model.headers:
        yield (*loc, "headers", name), name, True
    if model.forward_token is not None:
        yield (*loc, "forward_token", "header"), model.forward_token.header, False
    if model.sign is not None:
        yield (*loc, "sign", "header"), model.sign.header, False


def _check_names(loc: Loc, model: schema.Identity, report: Report) -> None:
    seen: dict[str, str] = {}
    for here, name, key in _injected(loc, model):
        folded = fold_name(name)
        if folded in OWN_HEADERS or never_forwarded(name):
            report.error(
                here,
                f"{name} belongs to the handshake or the sidecar",
                "choose a name such as X-User-Id",
                key=key,
            )
        elif folded in seen:
            report.error(
                here,
                f"{name} is {seen[folded]} again: servers read case, _ . and - alike",
                "give each header one name",
                key=key,
            )
        seen.setdefault(folded, name)


def _check_signer(loc: Loc, name: str, providers: Mapping[str, Provider], report: Report) -> None:
    provider = providers.get(name)
    if not report.defines(("jwt", "providers", name)):
        near = did_you_mean(name, providers)
        remedy = f"did you mean {near}?" if near else "name one of jwt.providers"
        report.error(loc, f"there is no provider {name}", remedy)
    elif provider is not None and not can_sign(provider):
        report.error(
            loc,
            f"{name} has no key to sign with",
            "give it secrets or a private_key",
            given=[("jwt", "providers", name)],
        )
