"""What rules can read of a handshake and of who made it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sidecar.model import Handshake, Identity, Peer
from sidecar.policy.claims import Rule, Scope
from sidecar.policy.credentials import Source, SourceKind
from sidecar.policy.headers import fold_name

__all__ = ["headers_that_rules_read", "readable_headers", "scope_of"]

_HIDDEN: Final = frozenset({"cookie", "authorization", "proxy-authorization"})
"""Folded names of the headers that rules cannot read, because they carry credentials."""

_Fields = Sequence[tuple[str, str]]


def scope_of(
    handshake: Handshake,
    peer: Peer,
    captures: Mapping[str, str],
    headers: Mapping[str, str],
    identity: Identity | None,
) -> Scope:
    """The scope of a route's rules. `headers` are the readable ones."""
    return Scope(
        user=identity.user if identity else "",
        claims=identity.claims if identity else {},
        path=captures,
        request={
            "path": handshake.path,
            "host": handshake.host,
            "origin": handshake.origin or "",
            "address": peer.address,
            "secure": peer.secure,
            "headers": headers,
        },
        session={
            "provider": identity.provider if identity else None,
            "token_id": identity.token_id if identity else None,
            "anonymous": identity is None,
            "expires_at": identity.expires_at if identity else None,
        },
    )


def readable_headers(fields: _Fields, sources: Iterable[Source]) -> Mapping[str, str]:
    """The client's headers by lower-case name, repeated ones joined (RFC 9110 section 5.3)."""
    hidden = _HIDDEN | {fold_name(one.name) for one in sources if one.kind is SourceKind.HEADER}
    joined: dict[str, str] = {}
    for name, value in fields:
        lower, folded = name.lower(), fold_name(name)
        if folded not in hidden and not folded.startswith("sec-websocket-"):
            joined[lower] = f"{joined[lower]}, {value}" if lower in joined else value
    return joined


def headers_that_rules_read(
    rules: Iterable[Rule], fields: _Fields, sources: Iterable[Source]
) -> tuple[tuple[str, str], ...]:
    """Those of the readable headers that one of the rules may ask for."""
    asked = {names[1:3] for rule in rules for names in rule.references if names[0] == "request"}
    if not any(names[:1] in ((), ("headers",)) for names in asked):
        return ()  # which most do, and to read them all takes longer than the rest
    headers = readable_headers(fields, sources)
    if asked & {(), ("headers",)}:  # it is not known for which
        return tuple(headers.items())
    return tuple((name, text) for name, text in headers.items() if ("headers", name) in asked)
