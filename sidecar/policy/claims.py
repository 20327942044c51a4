"""Authorize rules: what the claims must say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic_core import SchemaError, SchemaValidator, core_schema

from sidecar.errors import TemplateError
from sidecar.policy.expressions import Expression
from sidecar.policy.pointers import MISSING, ClaimPath
from sidecar.policy.strict_json import same
from sidecar.policy.templates import Template

__all__ = ["CelRule", "ClaimRule", "Operand", "Rule", "Scope"]


@dataclass(frozen=True, slots=True)
class Scope:
    """What rules can read.

    `claims` are the verified claims ({} for an anonymous client), `user` the user's name ("" for
    an anonymous one), `path` the route's captures, `request` has path, host, origin ("" where
    absent), address, secure, headers (lower-case names to the joined values, without Cookie,
    Authorization and other credentials), `session` has provider, token_id, anonymous and
    expires_at.
    """

    user: str
    claims: Mapping[str, Any]
    path: Mapping[str, str]
    request: Mapping[str, Any]
    session: Mapping[str, Any]


Operand = Template | str | int | float | bool | None | Sequence[Any] | Mapping[str, Any]
"""A value to compare with: text with templates filled in, or the JSON value as it is."""


class Rule(Protocol):
    """One rule of `authorize`. `reason` is the rule's own public reason, or None;
    `shadow` rules are recorded, not enforced; `label` names the rule in logs.
    """

    @property
    def reason(self) -> str | None:
        """The public reason of a denial by this rule."""

    @property
    def shadow(self) -> bool:
        """Whether a failure is only recorded."""

    @property
    def label(self) -> str:
        """The rule's name in logs."""

    @property
    def references(self) -> tuple[tuple[str, ...], ...]:
        """What the rule reads beside the claim, each as a name of the scope and what follows."""

    def holds(self, scope: Scope) -> bool:
        """Whether the rule is met. Whatever cannot be evaluated does not hold; never raises."""

    def why_not(self, scope: Scope) -> str:
        """Why it is not met, for the log, without any value of the scope."""


@dataclass(frozen=True, slots=True)
class ClaimRule:
    """One claim and the conditions on it; all that are set must hold.

    `equals`: the same JSON type and value (true is not 1, 1 is 1.0). `in_`: equal to one of them.
    `contains`: the claim is a list with such an element, or a space-separated text (as OAuth's
    scope, RFC 8693 4.2) with such a word. `matches`: the whole text matches the pattern, in linear
    time. `exists`: present and not null (or absent or null, for False).

    Raises ValueError, with what is wrong and what would be right, for a pattern that is none and
    for a rule without a condition.
    """

    label: str
    claim: ClaimPath
    equals: tuple[Operand] | None = None
    in_: tuple[Operand, ...] | None = None
    contains: tuple[Operand] | None = None
    matches: str | None = None
    exists: bool | None = None
    reason: str | None = None
    shadow: bool = False
    _pattern: SchemaValidator | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        conditions = (self.equals, self.in_, self.contains, self.matches, self.exists)
        if all(condition is None for condition in conditions):
            raise ValueError("no condition; give one of equals, in, contains, matches, exists")
        if self.matches is not None:
            object.__setattr__(self, "_pattern", _compile(self.matches))

    @property
    def references(self) -> tuple[tuple[str, ...], ...]:
        """What the templates in its conditions read."""
        operands = (*(self.equals or ()), *(self.in_ or ()), *(self.contains or ()))
        templates = (one for one in operands if isinstance(one, Template))
        return tuple(reference for one in templates for reference in one.references)

    def holds(self, scope: Scope) -> bool:
        """Whether every condition holds for the claim in this scope."""
        value = self.claim.find(scope.claims)
        if self.exists is not None and self.exists != _present(value):
            return False
        if self._pattern is not None and not self._pattern.isinstance_python(value):
            return False
        try:
            return self._compares(value, scope)
        except (TemplateError, ValueError):
            # ValueError: an integer of thousands of digits has no text in Python.
            return False

    def why_not(self, scope: Scope) -> str:
        """Whether the claim is missing or does not fit."""
        missing = not _present(self.claim.find(scope.claims))
        return "the claim is missing" if missing else "the claim does not fit"

    def _compares(self, value: Any, scope: Scope) -> bool:
        if self.equals is not None and not same(value, _fill(self.equals[0], scope)):
            return False
        if self.in_ is not None and not any(same(value, _fill(one, scope)) for one in self.in_):
            return False
        return self.contains is None or _contains(value, _fill(self.contains[0], scope))


class CelRule:
    """A CEL expression over claims, user, request, path and session that must give true."""

    __slots__ = ("_expression", "label", "reason", "shadow")

    def __init__(
        self, expression: str, *, label: str, reason: str | None = None, shadow: bool = False
    ) -> None:
        """Compile once. Raises ValueError for a syntax error or an unknown variable or function."""
        self._expression = Expression(expression)
        self.label = label
        self.reason = reason
        self.shadow = shadow

    @property
    def references(self) -> tuple[tuple[str, ...], ...]:
        """What the expression reads: see `Expression.references`."""
        return self._expression.references

    def holds(self, scope: Scope) -> bool:
        """Whether the expression is exactly true; an error in it does not hold."""
        return self._expression.is_true(_names(scope))

    def why_not(self, scope: Scope) -> str:
        """Whether the expression is false or cannot be evaluated."""
        if self._expression.evaluate(_names(scope)) is False:
            return "it is false"
        return "it gives no boolean: what it reads is missing, or of another type"


def _names(scope: Scope) -> dict[str, Any]:
    return {
        "claims": scope.claims,
        "user": scope.user,
        "path": scope.path,
        "request": scope.request,
        "session": scope.session,
    }


def _fill(operand: Operand, scope: Scope) -> Any:
    return operand.render(_names(scope)) if isinstance(operand, Template) else operand


def _present(value: Any) -> bool:
    return value is not MISSING and value is not None


def _contains(value: Any, wanted: Any) -> bool:
    if isinstance(value, list):
        return any(same(element, wanted) for element in value)
    # An empty text is no word, though two spaces in a row would make one.
    return isinstance(value, str) and wanted != "" and wanted in value.split(" ")


def _compile(pattern: str) -> SchemaValidator:
    """The pattern for the whole of a text, in Rust's regex engine: linear time, no look-around.

    pydantic's validator keeps it compiled; CEL's `matches` would compile it for each handshake,
    which takes milliseconds for a pattern such as ``\\w{1,64}``. The pattern is compiled alone too,
    so that an unbalanced one cannot close the group that is put around it.
    """
    try:
        pattern.encode()
        for text in (pattern, rf"\A(?:{pattern})\z"):
            schema = core_schema.str_schema(pattern=text, regex_engine="rust-regex", strict=True)
            whole = SchemaValidator(schema)
    except (SchemaError, UnicodeEncodeError) as error:
        wrong = str(error).strip().rpartition("rror: ")[2]
        raise ValueError(
            f"not a pattern ({wrong}); use RE2 syntax, without look-around and back-references"
        ) from None
    return whole
