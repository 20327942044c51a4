"""The section `authorize` of a route, compiled: rules and the templates in them."""

from collections.abc import Collection
from typing import Any, Final

from sidecar.config.compile.report import Report
from sidecar.config.nodes import Loc
from sidecar.config.schema import rules as schema
from sidecar.config.values import did_you_mean
from sidecar.policy.claims import CelRule, ClaimRule, Operand, Rule
from sidecar.policy.templates import Template

__all__ = ["compile_rule"]

_ROOTS: Final = ("claims", "path", "request", "session", "user")
_FIELDS: Final = {
    "request": frozenset({"path", "host", "origin", "address", "secure", "headers"}),
    "session": frozenset({"provider", "token_id", "anonymous", "expires_at"}),
}


def compile_rule(
    loc: Loc, model: schema.Rule, captures: Collection[str] | None, report: Report
) -> Rule | None:
    """One rule; None, with an error written down, where it is none. `captures` are None where the
    route's path is not known.
    """
    if model.cel is not None:
        return _compile_cel((*loc, "cel"), model.cel, model, captures, report)
    claim = report.claim((*loc, "claim"), str(model.claim))
    operands = _operands(loc, model, captures, report)
    if claim is None or operands is None:
        return None
    return report.attempt(
        (*loc, "matches") if model.matches is not None else loc,
        lambda: ClaimRule(
            label=f"claim: {model.claim}",
            claim=claim,
            **operands,
            matches=model.matches,
            exists=model.exists,
            reason=model.reason,
            shadow=model.shadow,
        ),
    )


def _operands(
    loc: Loc, model: schema.Rule, captures: Collection[str] | None, report: Report
) -> dict[str, Any] | None:
    """The values to compare with, by the names of ClaimRule's fields."""
    before = len(report.errors)
    operands: dict[str, Any] = {}
    for name in model.conditions & {"equals", "contains"}:
        operands[name] = (_operand((*loc, name), getattr(model, name), captures, report),)
    if model.in_ is not None:
        operands["in_"] = tuple(
            _operand((*loc, "in", index), value, captures, report)
            for index, value in enumerate(model.in_)
        )
    return operands if len(report.errors) == before else None


def _operand(loc: Loc, value: Any, captures: Collection[str] | None, report: Report) -> Operand:
    if not isinstance(value, str):
        return value  # type: ignore[no-any-return]
    template = report.attempt(loc, lambda: Template.parse(value, _ROOTS))
    if template is None:
        return None
    for reference in template.references:
        _check_reference(loc, reference, captures, report, "{{{}}}")
    return template if template.references else template.render({})


def _compile_cel(
    loc: Loc,
    expression: str,
    model: schema.Rule,
    captures: Collection[str] | None,
    report: Report,
) -> Rule | None:
    rule = report.attempt(
        loc,
        lambda: CelRule(
            expression, label=f"cel: {expression}", reason=model.reason, shadow=model.shadow
        ),
    )
    for reference in rule.references if rule else ():
        if len(reference) > 1:
            _check_reference(loc, reference, captures, report, "{}")
    return rule


def _check_reference(
    loc: Loc,
    reference: tuple[str, ...],
    captures: Collection[str] | None,
    report: Report,
    form: str,
) -> None:
    """A reference that leads nowhere would be a rule that never holds. `form` is how one is
    written: "{}" in an expression, "{{{}}}" in a template.
    """
    written = form.format(".".join(reference))
    root, *names = reference
    if root == "user":
        if names:
            report.error(loc, f"{written} goes beyond a text", f"write {form.format('user')}")
    elif not names:
        report.error(loc, f"{written} is not one value", f"name a part: {{{root}.NAME}}")
    elif root != "claims":
        known = captures if root == "path" else _FIELDS[root]
        if known is not None and names[0] not in known:
            _say_unknown(loc, reference, known, report, form)
        elif len(names) > 1 and names[0] != "headers":
            right = form.format(f"{root}.{names[0]}")
            report.error(loc, f"{written} goes beyond a text", f"write {right}")


def _say_unknown(
    loc: Loc, reference: tuple[str, ...], known: Collection[str], report: Report, form: str
) -> None:
    root, name = reference[:2]
    near = did_you_mean(name, known)
    whole = [form.format(f"{root}.{one}") for one in sorted(known)]
    remedy = (
        f"did you mean {form.format(f'{root}.{near}')}?"
        if near
        else f"known: {', '.join(whole) or 'none'}"
    )
    what = {
        "path": "the path has no such capture",
        "request": f"request has no {name}",
        "session": f"session has no {name}, and lookups are not supported yet",
    }
    report.error(loc, f"{form.format('.'.join(reference))}: {what[root]}", remedy)
