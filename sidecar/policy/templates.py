"""Templates such as ``{user}``, ``{claims.email}``, ``{path.room}``; ``{{`` is a brace."""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.errors import TemplateError

__all__ = ["Template"]

_MARKUP = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: literal texts and dotted references in turn.

    `parts` alternates: even indexes are literal text, odd indexes a reference as a tuple of
    names, such as ("claims", "email").
    """

    source: str
    parts: tuple[str | tuple[str, ...], ...]

    @classmethod
    def parse(cls, source: str, roots: Collection[str]) -> "Template":
        """Parse `source`; the first name of each reference must be one of `roots`.

        Raises TemplateError with what is wrong and what would be right.
        """
        parts: list[str | tuple[str, ...]] = []
        literal, end = "", 0
        for markup in _MARKUP.finditer(source):
            literal += source[end : markup.start()]
            end = markup.end()
            if markup[0] in ("{{", "}}"):
                literal += markup[0][0]
            else:
                parts += literal, _reference(markup, roots)
                literal = ""
        return cls(source, (*parts, literal + source[end:]))

    @property
    def references(self) -> tuple[tuple[str, ...], ...]:
        """Every reference in the template, in order."""
        return tuple(part for part in self.parts if isinstance(part, tuple))

    def render(self, scope: Mapping[str, Any]) -> str:
        """Fill in the template from `scope` (names to text, numbers, booleans or mappings).

        A boolean is "true" or "false"; an integral number has no point. Raises TemplateError where
        a reference leads nowhere or to something that is not text, number or boolean.
        """
        return "".join(
            part if isinstance(part, str) else _text(part, _look_up(part, scope))
            for part in self.parts
        )


def _reference(markup: re.Match[str], roots: Collection[str]) -> tuple[str, ...]:
    if markup[0] == "{":
        raise TemplateError('"{" is not closed; write {name} for a reference, {{ for a brace')
    if markup[0] == "}":
        raise TemplateError('"}" closes nothing; write }} for a brace')
    names = tuple(markup[1].split("."))
    if not all(map(_NAME.fullmatch, names)):
        raise TemplateError(
            f"{markup[0]} is not a reference; write names joined by dots, such as {{claims.email}}"
        )
    if names[0] not in roots:
        known = ", ".join(sorted(roots)) or "none"
        raise TemplateError(
            f"{markup[0]} names something unknown here; a reference starts with one of: {known}"
        )
    return names


def _look_up(reference: tuple[str, ...], scope: Mapping[str, Any]) -> Any:
    value: Any = scope
    for name in reference:
        if not isinstance(value, Mapping) or name not in value:
            raise TemplateError(
                f"{{{'.'.join(reference)}}} leads nowhere; it must name a value that is there"
            )
        value = value[name]
    return value


def _text(reference: tuple[str, ...], value: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return str(int(value) if value.is_integer() else value)
    raise TemplateError(
        f"{{{'.'.join(reference)}}} has no text; it must be a text, a number or a boolean"
    )
