"""Scalars: which plain texts are numbers and booleans, and what ``${NAME}`` stands for.

YAML 1.1 reads ``no`` as false, ``012`` as ten and ``12:30`` as 750. Here ``true`` and ``false``
are the only booleans, ``null``, ``~`` and nothing at all the only null, decimal numbers the only
numbers; everything else is text.
"""

import re
from collections.abc import Mapping

__all__ = ["expand", "resolve"]

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}")
_WORDS: Mapping[str, bool | None] = {
    "true": True,
    "false": False,
    "null": None,
    "~": None,
    "": None,
}
_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_VARIABLE = re.compile(r"([A-Z_][A-Z0-9_]*)(?::-(.*))?", re.DOTALL)


def resolve(text: str) -> str | int | float | bool | None:
    """The value of a plain (unquoted) scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Fill in ``${NAME}`` and ``${NAME:-default}``; ``$${`` is a literal ``${``.

    As in a shell the default also stands in for an empty variable. What was filled in is not
    looked at again. Raises ValueError("what is wrong; what would be right").
    """
    return _REFERENCE.sub(lambda match: _fill(match, environ), text)


def _fill(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match[0] == "$${":
        return "${"
    variable = _VARIABLE.fullmatch(match[1] or "")
    if variable is None:
        raise ValueError(
            "has a ${ that does not begin the name of a variable; "
            "write ${NAME} or ${NAME:-default} in upper case, or $${ for the text itself"
        )
    name, default = variable.groups()
    value = environ.get(name)
    if default is not None:
        return value or str(default)
    if value is None:
        raise ValueError(
            f"the environment variable {name} is not set; "
            f"set it, or give a default: ${{{name}:-default}}"
        )
    return value
