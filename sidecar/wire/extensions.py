"""Lists of tokens in header fields, and with them the negotiation of subprotocols.

Extensions are not negotiated: an offer is not passed on and an upstream's answer must have none.
"""

import re
from collections.abc import Sequence

from sidecar.errors import HandshakeError

__all__ = ["TOKEN", "has_token", "is_token", "parse_subprotocols"]

TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # no password
"""The pattern of a token (RFC 9110 section 5.6.2)."""

_TOKEN = re.compile(TOKEN)


def is_token(text: str) -> bool:
    """Whether the text is a token (RFC 9110 section 5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def has_token(values: Sequence[str], token: str) -> bool:
    """Whether a list field, given as its values in order, has this lower-case token in any case.

    Empty elements are skipped, as a recipient must (RFC 9110 section 5.6.1.2).
    """
    return any(element.lower() == token for element in _elements(values))


def parse_subprotocols(values: Sequence[str]) -> tuple[str, ...]:
    """The subprotocols offered in Sec-WebSocket-Protocol, given as its values in order.

    Raises HandshakeError where RFC 6455 section 4.1, item 10, is not kept: the elements are
    non-empty tokens, all different. Case counts.
    """
    offered = tuple(_elements(values))
    if not all(map(is_token, offered)):
        raise HandshakeError("Sec-WebSocket-Protocol is not a list of tokens")
    if len(set(offered)) < len(offered):
        raise HandshakeError("Sec-WebSocket-Protocol names a subprotocol twice")
    return offered


def _elements(values: Sequence[str]) -> list[str]:
    return [element.strip(" \t") for value in values for element in value.split(",")]
