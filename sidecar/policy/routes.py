"""Routes: which handshakes a rule set is for.

The raw path is checked first (`check_path`), so that what is matched is what the upstream will
understand; then patterns are compared segment by segment on the percent-decoded text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import quote, unquote, unquote_to_bytes

from sidecar.policy.claims import Rule
from sidecar.policy.credentials import Authenticate
from sidecar.policy.headers import IdentityRules
from sidecar.policy.limits import Limits
from sidecar.policy.origins import DEFAULT_PORTS, OriginRule, is_address, parse_authority
from sidecar.policy.refuse import Refuse
from sidecar.policy.session import DEFAULT_SESSION, Session
from sidecar.policy.templates import Template

__all__ = [
    "HostPattern",
    "Match",
    "PathPattern",
    "Route",
    "check_path",
    "find_route",
    "split_path",
    "upstream_path",
]

_CAPTURE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\.\.\.)?\}")
_NOT_VISIBLE_ASCII = re.compile(r"[^!-~]")
# Segments of letters, digits and a few more, none of which can be a dot segment: nothing to check.
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
# Delimiters that servers act on after decoding as well as before: "/" and "\\" divide segments,
# ";" starts parameters, "?" the query, "#" the fragment, and "%" a second round of decoding
# (%252e%252e). Encoded or not, each can mean something else to the upstream.
_DELIMITERS = frozenset(b"/\\;?#%")
_UNRESERVED = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"  # RFC 3986 section 2.3
)
_PCHAR: Final = "!$&'()*+,=:@"
"""What a path segment holds unencoded besides unreserved characters (RFC 3986 section 3.3), without
";", which `check_path` refuses because some servers cut the path there.
"""


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A parsed path pattern: literals, ``{name}`` for one segment, ``{rest...}`` for the rest.

    `segments` holds (literal text, None) or ("", capture name) for each segment; `rest` is the
    name of the capture of the remainder, "" where the pattern has none.
    """

    source: str
    segments: tuple[tuple[str, str | None], ...]
    rest: str = ""

    @classmethod
    def parse(cls, source: str) -> "PathPattern":
        """Parse a pattern. Raises ValueError with what is wrong and what would be right."""
        steps = [_parse_segment(step) for step in source.removeprefix("/").split("/")]
        if any(is_rest for _, _, is_rest in steps[:-1]):
            raise ValueError("{rest...} is not the last segment; nothing may follow it")
        names = [name for _, name, _ in steps if name is not None]
        if len(set(names)) < len(names):
            raise ValueError("two captures have the same name; name each one differently")
        # any text that is not special may stand where a capture is
        path = _CAPTURE.sub("x", source)
        if wrong := check_path(path):
            raise ValueError(f"{wrong}; write the path as clients send it, such as /ws/{{room}}")
        segments = tuple((literal, name) for literal, name, is_rest in steps if not is_rest)
        return cls(source, segments, names[-1] if steps[-1][2] else "")

    @property
    def captures(self) -> tuple[str, ...]:
        """The capture names in order, the rest's last."""
        names = tuple(name for _, name in self.segments if name is not None)
        return (*names, self.rest) if self.rest else names

    def match(self, path: str) -> Mapping[str, str] | None:
        """The captures of a raw path that `check_path` passed, percent-decoded; None: no match.

        A ``{name}`` never matches an empty segment, ``{rest...}`` matches any remainder, also "":
        ``/ws/{rest...}`` matches ``/ws/`` but not ``/ws``.
        """
        return self.match_segments(split_path(path))

    def match_segments(self, parts: Sequence[str]) -> Mapping[str, str] | None:
        """The same for a path that `split_path` has split."""
        count = len(self.segments)
        if len(parts) <= count if self.rest else len(parts) != count:
            return None
        captures: dict[str, str] = {}
        for (literal, name), part in zip(self.segments, parts[:count], strict=True):
            if name is not None and part:
                captures[name] = part
            elif name is not None or part != literal:
                return None
        if self.rest:
            captures[self.rest] = "/".join(parts[count:])
        return captures


def _parse_segment(text: str) -> tuple[str, str | None, bool]:
    """The decoded literal, the capture's name, and whether it captures the rest."""
    if capture := _CAPTURE.fullmatch(text):
        return "", capture[1], capture[2] is not None
    if "{" in text or "}" in text:
        raise ValueError(
            "a brace stands in a segment that is no capture; "
            "write {name} or {rest...} as a whole segment, with a name of letters, digits and _"
        )
    return unquote(text), None, False


@dataclass(frozen=True, slots=True)
class HostPattern:
    """``chat.example.com`` exactly, or ``*.example.com`` for one label or more before it.

    The port of the Host field does not count unless the pattern names one. A Host field without
    a port fits a pattern that names a default port (80 or 443).
    """

    source: str

    @classmethod
    def parse(cls, source: str) -> "HostPattern":
        """Parse a pattern. Raises ValueError with what is wrong and what would be right."""
        if not source.isascii():
            raise ValueError("the host is not ASCII; write it in Punycode (xn--...)")
        authority = parse_authority(source.removeprefix("*."))
        if authority is None:
            raise ValueError(
                "this is not a host; write a name such as chat.example.com, *.example.com "
                "or chat.example.com:8443, without a scheme or path"
            )
        if source.startswith("*.") and is_address(authority[0]):
            raise ValueError('"*." stands before an address; an address has no subdomains')
        return cls(source.lower())

    def matches(self, host: str) -> bool:
        """Whether the Host field (lower case, with or without a port) fits."""
        name = self.source.removeprefix("*.")
        wanted, actual = parse_authority(name), parse_authority(host)
        if wanted is None or actual is None:
            return False
        port_fits = wanted[1] in (None, actual[1]) or (
            actual[1] is None and wanted[1] in DEFAULT_PORTS.values()
        )
        if self.source.startswith("*."):
            return port_fits and actual[0].endswith(f".{wanted[0]}")
        return port_fits and actual[0] == wanted[0]


@dataclass(frozen=True, slots=True)
class Route:
    """One rule set of the policy, compiled."""

    name: str
    path: PathPattern
    host: HostPattern | None
    upstream: str
    upstream_path: Template | None
    origins: OriginRule
    authenticate: Authenticate
    authorize: tuple[Rule, ...]
    identity: IdentityRules
    forward_headers: frozenset[str]
    limits: Limits
    refuse: Refuse
    session: Session = DEFAULT_SESSION


class Match(NamedTuple):
    """A route and what its pattern captured."""

    route: Route
    captures: Mapping[str, str]


def check_path(path: str) -> str | None:
    """Why this raw path is refused, or None.

    Refused: not starting with one "/", an empty or dot segment (white space around it ignored),
    ``%2f %5c %00 %2e %3b %3f %23 %25`` and every other encoded unreserved or control character,
    ``\\``, ``;``, ``#``, "?", a bad percent escape, escapes that are not UTF-8, anything that is
    not a visible ASCII character. (A single trailing slash is allowed.)

    What passes has one decoding, which keeps the segments: upstreams that decode once, twice or
    not at all, or that normalise (RFC 3986 section 6.2.2), understand the path that was matched.
    Encoded spaces, other reserved characters (``%40``) and non-ASCII text pass.
    """
    if _PLAIN_PATH.fullmatch(path):
        return None
    if not path.startswith("/"):
        return "the path does not start with a slash"
    if _NOT_VISIBLE_ASCII.search(path):
        return "the path has a character that is not visible ASCII"
    if any(delimiter in path for delimiter in "\\;?#"):
        return "the path has a backslash, semicolon, question mark or number sign"
    for escape in _ESCAPE.finditer(path):
        if wrong := _check_escape(escape[1]):
            return wrong
    *before, last = path[1:].split("/")
    for segment in (*before, last) if last else before:
        if wrong := _check_segment(segment):
            return wrong
    return None


def _check_escape(digits: str | None) -> str | None:
    if digits is None:
        return "the path has a bad percent escape"
    octet = int(digits, 16)
    if octet in _UNRESERVED:
        return "the path has an encoded character that needs no encoding"
    if octet in _DELIMITERS:
        return "the path has an encoded delimiter"
    return None


def _check_segment(segment: str) -> str | None:
    try:
        text = unquote_to_bytes(segment).decode()  # strict: no overlong forms, no surrogates
    except UnicodeDecodeError:
        return "the path has escapes that are not UTF-8"
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in text):
        return "the path has an encoded control character"
    # some servers trim white space, so that "..%20" is a dot segment to them
    if text.strip() in ("", ".", ".."):
        return "the path has an empty or dot segment"
    return None


def split_path(path: str) -> Sequence[str]:
    """The decoded segments of a raw path that `check_path` passed."""
    parts = path.removeprefix("/").split("/")
    return [unquote(part) for part in parts] if "%" in path else parts


def find_route(routes: Sequence[Route], host: str, path: str) -> Match | None:
    """The first route whose host and path fit."""
    parts = split_path(path)
    for route in routes:
        if route.host is None or route.host.matches(host):
            captures = route.path.match_segments(parts)
            if captures is not None:
                return Match(route, captures)
    return None


def upstream_path(route: Route, captures: Mapping[str, str], path: str) -> str:
    """The path for the route's upstream, without its prefix, of a request for `path`.

    Captures were decoded for matching and are encoded again, so that none can add a segment or a
    query. Raises TemplateError or ValueError where the result is no good path.
    """
    if route.upstream_path is None:
        return path
    encoded = {
        name: quote(text, safe=_PCHAR + "/" if name == route.path.rest else _PCHAR)
        for name, text in captures.items()
    }
    filled = route.upstream_path.render({"path": encoded, **encoded})
    if wrong := check_path(filled):
        raise ValueError(f"upstream_path: {wrong}")
    return filled
