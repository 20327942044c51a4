"""What pydantic found, in plain words and at the right place."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, get_args

from sidecar.config.nodes import Loc, Node, doubtful, locate
from sidecar.config.schema import PolicyFile
from sidecar.config.schema.base import Model
from sidecar.config.values import BadValueError, did_you_mean, show
from sidecar.errors import Problem

__all__ = ["MAX_PROBLEMS", "bounded", "meant_key", "schema_problems", "sorted_problems"]

MAX_PROBLEMS: Final = 100
"""Nobody reads on beyond so many, and a hostile file could make a million."""

_Detail = Mapping[str, Any]

_MAY_FOLLOW: Final = frozenset({"missing", "too_short", "value_error"})
"""The types of error that a value can have because of what it lacks."""


def schema_problems(details: Iterable[Any], root: Node) -> list[Problem]:
    """The mistakes of a validation, each with the place of its key or value, without those that
    may only be there because of a gap.
    """
    return [_problem(detail, root) for detail in details if not _may_follow(detail, root)]


def _may_follow(detail: Any, root: Node) -> bool:
    kind, loc = detail["type"], detail["loc"]
    return kind in _MAY_FOLLOW and loc[-1:] != ("[key]",) and doubtful(root, loc)


def meant_key(detail: Any) -> str | None:
    """The known key that an unknown one is near to, where the detail is of an unknown key."""
    if detail["type"] != "extra_forbidden":
        return None
    name, model = str(detail["loc"][-1]), _model_at(detail["loc"][:-1])
    return None if name in model.later else did_you_mean(name, _fields(model))


def bounded(problems: Sequence[Problem]) -> list[Problem]:
    """At most `MAX_PROBLEMS` of them, and a word that there are more."""
    if len(problems) <= MAX_PROBLEMS:
        return list(problems)
    first = problems[0]
    more = Problem(first.file, 0, 0, "", "has more mistakes than these", "correct these first")
    return [*problems[:MAX_PROBLEMS], more]


def sorted_problems(problems: Iterable[Problem]) -> list[Problem]:
    """In the order of the files, each mistake once (`defaults` come back in every route)."""
    unique = {(p.file, p.line, p.column, p.wrong): p for p in reversed(list(problems))}
    return sorted(unique.values(), key=lambda p: (p.file, p.line, p.column))


def _problem(detail: Any, root: Node) -> Problem:
    loc: Loc = detail["loc"]
    if loc and loc[-1] == "[key]":
        place = locate(root, loc[:-1], key=True)
    else:
        place = locate(root, loc, key=detail["type"] == "extra_forbidden")
    wrong, remedy = _words(detail)
    return Problem(place.file, place.line, place.column, place.path, wrong, remedy)


def _words(detail: Any) -> tuple[str, str]:
    if detail["type"] == "extra_forbidden":
        return _unknown_key(detail)
    error = detail.get("ctx", {}).get("error")
    if isinstance(error, BadValueError):
        return error.wrong, error.remedy
    return _PHRASES[detail["type"]](detail)


def _unknown_key(detail: Any) -> tuple[str, str]:
    loc: Loc = detail["loc"]
    name, model = str(loc[-1]), _model_at(loc[:-1])
    if name in model.later:
        return "is not supported yet", "remove it"
    near = meant_key(detail)
    if near is not None:
        return "is not a known key", f"did you mean {near}?"
    known = ", ".join(_fields(model))
    return "is not a known key", f"remove it; known here are {known}"


def _fields(model: type[Model]) -> dict[str, Any]:
    """The model's fields by the names that they have in the policy."""
    fields = model.model_fields
    return {field.alias or name: field.annotation for name, field in fields.items()}


def _model_at(loc: Loc) -> type[Model]:
    """The model whose keys stand at `loc`."""
    kind: Any = PolicyFile
    for step in loc:
        if isinstance(kind, type) and issubclass(kind, Model):
            kind = _essence(_fields(kind)[str(step)])
        else:
            kind = _essence(get_args(kind)[-1])
    return kind  # type: ignore[no-any-return]


def _essence(annotation: Any) -> Any:
    """The annotation without `| None`."""
    arguments = get_args(annotation)
    if type(None) in arguments:
        return _essence(arguments[0])
    return annotation


def _not_boolean(detail: _Detail) -> tuple[str, str]:
    return (
        f"{show(detail['input'])} is neither true nor false",
        "write true or false, without quotes",
    )


def _not_integer(detail: _Detail) -> tuple[str, str]:
    return (
        f"{show(detail['input'])} is not a whole number",
        "write decimal digits, without quotes, leading zeros or separators",
    )


def _not_number(detail: _Detail) -> tuple[str, str]:
    return f"{show(detail['input'])} is not a number", "write a number such as 0.5, without quotes"


def _no_text(_: _Detail) -> tuple[str, str]:
    return "is not text", "put quotes around it if it is meant as text"


def _no_mapping(detail: _Detail) -> tuple[str, str]:
    if detail["input"] is None:
        return "has no value", "give it keys, or remove it"
    return "is not a mapping", "give it keys with values"


def _no_list(detail: _Detail) -> tuple[str, str]:
    return "is not a list", "write [one, two], or one item a line after a hyphen"


def _missing(_: _Detail) -> tuple[str, str]:
    return "is missing", "add it"


def _empty(_: _Detail) -> tuple[str, str]:
    return "is empty", "give it at least one entry"


def _too_long(detail: _Detail) -> tuple[str, str]:
    return "is too long", f"use at most {detail['ctx']['max_length']} characters"


def _too_small(detail: _Detail) -> tuple[str, str]:
    return f"{show(detail['input'])} is too small", f"give at least {detail['ctx']['ge']:g}"


def _too_large(detail: _Detail) -> tuple[str, str]:
    return f"{show(detail['input'])} is too large", f"give at most {detail['ctx']['le']}"


_PHRASES: Final[Mapping[str, Callable[[_Detail], tuple[str, str]]]] = {
    "bool_type": _not_boolean,
    "int_type": _not_integer,
    "float_type": _not_number,
    "string_type": _no_text,
    "model_type": _no_mapping,
    "dict_type": _no_mapping,
    "list_type": _no_list,
    "missing": _missing,
    "too_short": _empty,
    "string_too_long": _too_long,
    "greater_than_equal": _too_small,
    "less_than_equal": _too_large,
}
"""By pydantic's error type. A test walks the schema's constraints and keeps this complete."""
