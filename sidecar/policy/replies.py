"""Messages of the sidecar's own: a JSON value whose texts are templates.

A text that is exactly one reference becomes the value itself, with its type: "{claims.exp}" gives a
number. In a longer text a value stands as text: "in {expires_in} s". What is not there is null, and
nothing at all in a longer text; so is what has no text there (null, a list or a mapping).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.errors import TemplateError
from sidecar.model import Identity
from sidecar.policy.templates import Template

__all__ = ["MAX_REPLY", "Facts", "Reply", "template"]

MAX_REPLY: Final = 16 * 1024
"""Bytes of one message: a bound for what claims can make of it."""

_NAMES: Final = ("claims", "expires_in", "now", "now_ms", "reason", "user", "uuid")
_Scope = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a reply can tell.

    `now` is in seconds since the epoch, `reason` the public name of what went wrong, `uuid` an
    identifier for this message alone.
    """

    identity: Identity | None
    now: float
    uuid: str
    reason: str | None = None

    def scope(self) -> _Scope:
        """The facts by their names in templates. `expires_in` and `now` are whole seconds,
        rounded down, `now_ms` whole milliseconds; an overdue `expires_in` is 0.
        """
        identity = self.identity
        expires_at = identity.expires_at if identity else None
        left = None if expires_at is None else max(0, math.floor(expires_at - self.now))
        return {
            "user": identity.user if identity else None,
            "claims": identity.claims if identity else {},
            "reason": self.reason,
            "expires_in": left,
            "now": math.floor(self.now),
            "now_ms": math.floor(self.now * 1000),
            "uuid": self.uuid,
        }


def template(source: str) -> Template:
    """A text of a reply. Raises TemplateError with what is wrong and what would be right."""
    parsed = Template.parse(source, _NAMES)
    for reference in parsed.references:
        root, *names = reference
        written = f"{{{'.'.join(reference)}}}"
        if root == "claims" and not names:
            raise TemplateError(f"{written} is not one value; name a part: {{claims.NAME}}")
        if root != "claims" and names:
            raise TemplateError(f"{written} goes beyond one value; write {{{root}}}")
    return parsed


@dataclass(frozen=True, slots=True)
class Reply:
    """A message to be filled in; `source` is its JSON value with templates.

    Raises TemplateError for a text that is no template and ValueError for a message that is too
    large or no JSON, with what is wrong and what would be right.
    """

    source: Any
    _tree: Any = field(init=False, repr=False, compare=False)
    _bare: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tree", _parse(self.source))
        try:
            bare = _encode(_fill(self._tree, {}))
        except UnicodeEncodeError:
            raise ValueError("has a lone surrogate; remove it") from None
        if len(bare) > MAX_REPLY:
            raise ValueError(f"is over {MAX_REPLY // 1024} KiB; shorten it")
        object.__setattr__(self, "_bare", bare)

    def render(self, facts: Facts) -> bytes:
        """The payload of one text message, of at most `MAX_REPLY` bytes. Never raises: where the
        values make it too large, or are none that JSON can hold, it goes out without any value.
        """
        try:
            filled = _encode(_fill(self._tree, facts.scope()))
        except ValueError:
            return self._bare
        return filled if len(filled) <= MAX_REPLY else self._bare


def _parse(value: Any) -> Any:
    """The value with a template for each text that has references, and plain text for the rest."""
    if isinstance(value, dict):
        return {name: _parse(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_parse(one) for one in value]
    if not isinstance(value, str):
        return value
    parsed = template(value)
    return parsed if parsed.references else parsed.render({})


def _fill(node: Any, scope: _Scope) -> Any:
    if isinstance(node, dict):
        return {name: _fill(one, scope) for name, one in node.items()}
    if isinstance(node, list):
        return [_fill(one, scope) for one in node]
    if not isinstance(node, Template):
        return node
    before, reference, *after = node.parts
    if before == "" and after == [""]:
        return _value(reference, scope)
    return "".join(one if isinstance(one, str) else _words(one, scope) for one in node.parts)


def _value(reference: Any, scope: _Scope) -> Any:
    value: Any = scope
    for name in reference:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _words(reference: tuple[str, ...], scope: _Scope) -> str:
    try:
        return Template("", ("", reference, "")).render(scope)
    except TemplateError:
        return ""


def _encode(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()
