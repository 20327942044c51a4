"""The opening handshake (RFC 6455 section 4): a client's request and an upstream's answer.

Both are checked from what an HTTP parser read, and more strictly than such parsers do: what two
parties could read differently is refused.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from ipaddress import AddressValueError, IPv6Address

from sidecar.errors import HandshakeError
from sidecar.model import Handshake
from sidecar.wire.extensions import TOKEN, has_token, parse_subprotocols

__all__ = ["accept_key", "check_response", "parse_request", "switching_protocols"]

_Headers = Sequence[tuple[bytes, bytes]]
_Fields = dict[str, list[str]]

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # section 1.3

# What a field's value may hold (RFC 9110 section 5.5): no control characters but the tab.
_FIELD_OCTETS = bytes({0x09, *range(0x20, 0x7F), *range(0x80, 0x100)})
# Names of headers with commas between them, each a token (RFC 9110 section 5.6.2).
_NAMES = re.compile(rf"{TOKEN}(?:,{TOKEN})*")
# Origin-form (RFC 9112 section 3.2.1) of visible ASCII without a fragment.
_TARGET = re.compile(r"/[!-\"$-~]*")
# 16 bytes leave 2 bits to the last digit; the 4 bits of padding below them are 0.
_KEY = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")
_LABEL = r"[0-9a-z_-]{1,63}"
_HOST = re.compile(
    rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?P<v6>[0-9a-f:.]+)\])(?::(?P<port>[1-9][0-9]{{0,4}}))?"
)


def parse_request(
    method: str,
    target: str,
    version: str,
    headers: _Headers,
) -> Handshake:
    """Check a request for upgrade and give it as a Handshake (RFC 6455 section 4.2.1).

    `target` is the request target, `version` the HTTP version ("1.1") and `headers` the fields as
    they came. A single ``Content-Length: 0`` is no body; any other Content-Length and any
    Transfer-Encoding are refused. Whether the path is fit to be matched is
    for `policy.routes.check_path`. Raises HandshakeError, with `unsupported_version` when another
    version of the protocol is asked for; its detail repeats nothing of the request.
    """
    # item 1
    if method != "GET":
        raise HandshakeError("method is not GET")
    if version != "1.1":
        raise HandshakeError("version is not HTTP/1.1")
    if not _TARGET.fullmatch(target):
        raise HandshakeError("request target is not an absolute path of visible ASCII")
    texts = _decode(headers)
    fields = _by_name(texts)
    _check_no_body(fields)
    host = _host(_single(fields, "Host"))  # item 2
    # Items 3 and 4. A choice of protocols (RFC 9110 section 7.8) is refused: HTTP parsers differ in
    # what they take for an upgrade then, and so in where the request ends.
    if _single(fields, "Upgrade").lower() != "websocket":
        raise HandshakeError("Upgrade is not websocket")
    # Firefox sends "keep-alive, Upgrade".
    if not has_token(_values(fields, "Connection"), "upgrade"):
        raise HandshakeError("Connection does not name Upgrade")
    # item 6, before the key: another version may have another key or none
    if _single(fields, "Sec-WebSocket-Version") != "13":
        raise HandshakeError("Sec-WebSocket-Version is not 13", unsupported_version=True)
    key = _single(fields, "Sec-WebSocket-Key")  # item 5
    if not _KEY.fullmatch(key):
        raise HandshakeError("Sec-WebSocket-Key is not 16 bytes in base64")
    _optional(fields, "Authorization")
    path, _, query = target.partition("?")
    return Handshake(
        path=path,
        query=query,
        host=host,
        headers=texts,
        key=key,
        origin=_optional(fields, "Origin"),  # item 7
        subprotocols=parse_subprotocols(_values(fields, "Sec-WebSocket-Protocol")),  # item 8
    )


def accept_key(key: str) -> str:
    """The Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 section 4.2.2, item 5.4)."""
    digest = hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def switching_protocols(
    accept: str, subprotocol: str | None, *, request_id: str | None = None
) -> bytes:
    """The answer that accepts a handshake (RFC 6455 section 4.2.2, item 5).

    `accept` is the `accept_key` of the request. `request_id` is told as X-Request-Id where it is
    given.
    """
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept}",
    ]
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    if request_id is not None:
        lines.append(f"X-Request-Id: {request_id}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def check_response(
    status: int, headers: _Headers, *, accept: str, offered: Sequence[str]
) -> str | None:
    """Check an upstream's answer (RFC 6455 section 4.1, "Once the client's opening handshake").

    `accept` is the `accept_key` of the request, `offered` what it offered. Returns the subprotocol
    the upstream chose, None for none. Raises HandshakeError where it did not upgrade, or not to
    what was asked for.
    """
    if status != 101:
        raise HandshakeError(f"answered {status}")
    fields = _by_name(_decode(headers))
    # RFC 9110 section 8.6 and RFC 9112 section 6.1: neither is allowed in a 1xx; what follows
    # would be a body to one reader and frames to another
    for name in ("Content-Length", "Transfer-Encoding"):
        if _values(fields, name):
            raise HandshakeError(f"{name} in a 101")
    if _single(fields, "Upgrade").lower() != "websocket":
        raise HandshakeError("Upgrade is not websocket")
    if not has_token(_values(fields, "Connection"), "upgrade"):
        raise HandshakeError("Connection does not name Upgrade")
    if _single(fields, "Sec-WebSocket-Accept") != accept:
        raise HandshakeError("Sec-WebSocket-Accept does not fit the key")
    if _values(fields, "Sec-WebSocket-Extensions"):
        raise HandshakeError("an extension that was not offered")
    chosen = _optional(fields, "Sec-WebSocket-Protocol")
    if chosen is not None and chosen not in offered:
        raise HandshakeError("a subprotocol that was not offered")
    return chosen


def _decode(headers: _Headers) -> tuple[tuple[str, str], ...]:
    """Names and values as Latin-1 text, checked (RFC 9110 sections 5.1 and 5.5)."""
    texts = [
        (name.decode("latin-1"), value.decode("latin-1").strip(" \t")) for name, value in headers
    ]
    # All at once, for it is much faster. A comma within a name would make two names of it.
    names = ",".join([name for name, _ in texts])
    if texts and (names.count(",") >= len(texts) or not _NAMES.fullmatch(names)):
        raise HandshakeError("a header's name is not a token")
    if b"".join([value for _, value in headers]).translate(None, _FIELD_OCTETS):
        raise HandshakeError("a control character in a header")
    return tuple(texts)


def _by_name(texts: Sequence[tuple[str, str]]) -> _Fields:
    fields: _Fields = {}
    for name, value in texts:
        fields.setdefault(name.lower(), []).append(value)
    return fields


def _values(fields: _Fields, name: str) -> Sequence[str]:
    return fields.get(name.lower(), ())


def _single(fields: _Fields, name: str) -> str:
    value = _optional(fields, name)
    if value is None:
        raise HandshakeError(f"{name} is missing")
    return value


def _optional(fields: _Fields, name: str) -> str | None:
    values = fields.get(name.lower())
    if values is None:
        return None
    if len(values) > 1:
        raise HandshakeError(f"more than one {name}")
    return values[0]


def _check_no_body(fields: _Fields) -> None:
    if _values(fields, "Transfer-Encoding"):
        raise HandshakeError("a body")
    if _optional(fields, "Content-Length") not in (None, "0"):
        raise HandshakeError("a body")


def _host(value: str) -> str:
    """The Host field in lower case: a name or an IPv6 address in brackets, and maybe a port.

    A trailing dot and empty labels are refused: they are the same host to DNS, another to a
    route's pattern.
    """
    host = value.lower()
    match = _HOST.fullmatch(host)
    if match is None or int(match["port"] or 0) > 65535:
        raise HandshakeError("Host is not host[:port]")
    if match["v6"] is not None:
        try:
            IPv6Address(match["v6"])
        except AddressValueError:
            raise HandshakeError("Host is not host[:port]") from None
    return host
