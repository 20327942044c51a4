"""CEL expressions (Common Expression Language): checked when loaded, bounded when evaluated."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import cel

__all__ = ["FUNCTIONS", "VARIABLES", "Expression"]

VARIABLES: Final = frozenset({"claims", "user", "path", "request", "session"})
"""What an expression can read."""

_TYPES: Final = frozenset(
    {"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"}
)

FUNCTIONS: Final = frozenset(
    {"bytes", "contains", "double", "duration", "dyn", "endsWith", "getDate", "getDayOfMonth"}
    | {"getDayOfWeek", "getDayOfYear", "getFullYear", "getHours", "getMilliseconds", "getMinutes"}
    | {"getMonth", "getSeconds", "int", "matches", "size", "startsWith", "string", "timestamp"}
    | {"type", "uint"}
)
"""What an expression can call besides operators and macros."""

_MACROS: Final = frozenset({"all", "exists", "exists_one", "existsOne", "filter", "map"})

_MAX_STEPS: Final = 10_000_000
"""Evaluation has no time limit of its own, and a macro inside a macro over the same long list takes
quadratic time. This many steps take less than half a second; one macro over the claims of a token
of 8 KiB always fits.
"""

_MAX_DEPTH: Final = 64
"""The evaluator recurses over nested values on the native stack."""

_INT64: Final = range(-(2**63), 2**63)

_TOKEN: Final = re.compile(
    r"""
      //[^\n]* | \d\w*                                                      # dropped below
    | (?P<token>
        (?:[rR][bB]?|[bB][rR]) (?: \"{3}(?s:.*?)\"{3} | '{3}(?s:.*?)'{3} | "[^"\n]*" | '[^'\n]*' )
      | [bB]? (?: \"{3}(?s:(?:\\.|[^\\])*?)\"{3} | '{3}(?s:(?:\\.|[^\\])*?)'{3}
                | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )
      | [A-Za-z_]\w* | [^\s] )
    """,
    re.VERBOSE,
)

_PLAIN_TEXT: Final = re.compile(r"""'[^'\\]*'|"[^"\\]*\"""")
"""A text that stands for itself, without escapes."""


class Expression:
    """A compiled expression over `VARIABLES`.

    `references` are the variables that it reads, each with the names that surely follow: both
    ``path.room`` and ``path['room']`` are ("path", "room").
    """

    __slots__ = ("_nesting", "_program", "references")

    def __init__(self, source: str) -> None:
        """Compile. Raises ValueError, with what is wrong and what would be right, for bad syntax,
        an unknown variable or function, and a `matches` inside a macro.
        """
        try:
            self._program = cel.compile(source)
        except ValueError as error:
            raise ValueError(f"not a CEL expression ({_first_line(error)}); correct it") from None
        _check_functions(self._program.functions())
        uses = list(_uses(source))
        self._nesting = _check_names(uses, frozenset(self._program.variables()))
        self.references = tuple(
            dict.fromkeys(
                one.names
                for one in uses
                if one.names[0] in VARIABLES and one.names[0] not in one.scope
            )
        )

    def is_true(self, names: Mapping[str, Any]) -> bool:
        """Whether the value is exactly true. Never raises; what cannot be evaluated is not true."""
        return self.evaluate(names) is True

    def evaluate(self, names: Mapping[str, Any]) -> Any:
        """The value; None where there is none. Never raises.

        There is none for errors, for values that CEL cannot hold (an integer beyond 64 bits, a
        lone surrogate) and for evaluations that could take too long.
        """
        try:
            if _weigh(names) ** (self._nesting + 1) > _MAX_STEPS:
                return None
            return self._program.execute(dict(names))
        except Exception:
            return None
        except BaseException as error:
            # A panic of the Rust code is no Exception; its class cannot be imported.
            if type(error).__name__ == "PanicException":
                return None
            raise


def _first_line(error: ValueError) -> str:
    text = str(error)
    return (text.partition("ERROR: ")[2] or text).partition("\n")[0]


def _check_functions(functions: list[str]) -> None:
    # Operators come as names like "_==_" and "@in", which are no identifiers.
    for name in functions:
        if name.isidentifier() and name not in FUNCTIONS:
            raise ValueError(f"unknown function {name}; known are {', '.join(sorted(FUNCTIONS))}")


class _Use(NamedTuple):
    """A variable with the names that follow it, or a call of `matches`, and the names that macros
    around it bind.
    """

    names: tuple[str, ...]
    scope: tuple[str, ...]


def _check_names(uses: Sequence[_Use], variables: frozenset[str]) -> int:
    """Refuse unknown names; the depth of macros in macros.

    The compiler reports the names that macros bind (the x of ``exists(x, ...)``) with the
    variables and does not tell which is which, so each other name must be seen bound where it
    is used.
    """
    strange = variables - VARIABLES - _TYPES
    bound: set[str] = set()
    nesting = 0
    for (name, *_), scope in uses:
        nesting = max(nesting, len(scope))
        if name == "matches" and scope:
            raise ValueError(
                "matches inside a macro compiles its pattern for every element; "
                "use startsWith, endsWith or contains there, or a claim rule"
            )
        if name in strange and name not in scope:
            raise _unknown(name)
        bound.add(name)
    for name in sorted(strange - bound):
        raise _unknown(name)
    return nesting


def _unknown(name: str) -> ValueError:
    return ValueError(f"unknown variable {name}; known are {', '.join(sorted(VARIABLES))}")


def _uses(source: str) -> Iterator[_Use]:
    texts = [found["token"] for found in _TOKEN.finditer(source) if found["token"]]
    brackets: list[str | None] = []
    for index, text in enumerate(texts):
        before, after = texts[max(index - 2, 0) : index], texts[index + 1 : index + 3]
        if text in {"(", "[", "{"}:
            macro = before[:1] == ["."] and before[1] in _MACROS and after[1:] == [","]
            brackets.append(after[0] if macro else None)
        elif text in {")", "]", "}"}:
            del brackets[-1:]
        elif text.isidentifier() and (before[-1:] != ["."] or text == "matches"):
            scope = tuple(name for name in brackets if name is not None)
            yield _Use((text, *_members(texts, index + 1)), scope)


def _members(texts: Sequence[str], at: int) -> Iterator[str]:
    """The names that follow a variable: ``.name`` that is not called, and ``['name']``."""
    while True:
        match texts[at : at + 3]:
            case [".", name, *after] if name.isidentifier() and after != ["("]:
                yield name
                at += 2
            case ["[", text, "]"] if _PLAIN_TEXT.fullmatch(text):
                yield text[1:-1]
                at += 3
            case _:
                return


def _weigh(names: Mapping[str, Any]) -> int:
    """How many values there are. Raises ValueError for what CEL would change or not survive."""
    count, level = 0, [names]
    for _ in range(_MAX_DEPTH):
        count += len(level)
        if not (level := [inner for value in level for inner in _inner(value)]):
            return count
    raise ValueError("nested too deeply")


def _inner(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, int) and value not in _INT64:
        raise ValueError("an integer beyond 64 bits")
    return value if isinstance(value, list) else []
