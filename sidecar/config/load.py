"""YAML text to positioned nodes, strictly.

A node is made of each parser event, so that what PyYAML would resolve silently (tags, aliases,
merge keys, duplicate keys, further documents, YAML 1.1's booleans) is seen and refused.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

import yaml

from sidecar.config.nodes import Entry, Items, Leaf, Node, Place, Section, join
from sidecar.config.scalars import expand, resolve
from sidecar.errors import ConfigError, Problem

__all__ = ["MAX_BYTES", "load"]

MAX_BYTES: Final = 1024 * 1024
"""A policy is written by people; a file beyond this is something else."""

_MAX_DEPTH: Final = 32
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load(data: bytes, file: str, environ: Mapping[str, str]) -> Section:
    """Parse one file's bytes. Raises ConfigError with every mistake that YAML alone shows."""
    if len(data) > MAX_BYTES:
        raise _whole(file, "is larger than 1 MiB", "split it, or check that it is the policy")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _whole(file, "is not UTF-8 text", "save it as UTF-8") from None
    composer = _Composer(yaml.parse(text, Loader=_LOADER), file, environ)
    try:
        root = composer.document()
    except yaml.MarkedYAMLError as error:
        raise _syntax(file, error) from None
    except yaml.YAMLError:
        raise _whole(
            file, "holds a character that YAML does not allow", "remove control characters"
        ) from None
    if composer.problems:
        raise ConfigError(composer.problems)
    return root


def _whole(file: str, wrong: str, remedy: str) -> ConfigError:
    return ConfigError([Problem(file, 0, 0, "", wrong, remedy)])


def _syntax(file: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    what = ": ".join(filter(None, (error.context, error.problem)))
    return ConfigError(
        [
            Problem(
                file,
                line,
                column,
                "",
                f"is not valid YAML ({what})",
                "check the indentation, and put quotes around text with { } [ ] : or #",
            )
        ]
    )


class _Composer:
    """Turns parser events into nodes and gathers what is wrong on the way."""

    def __init__(self, events: Iterator[Any], file: str, environ: Mapping[str, str]) -> None:
        self._events = events
        self._file = file
        self._environ = environ
        self._depth = 0
        self.problems: list[Problem] = []

    def document(self) -> Section:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return Section(Place(self._file, 1, 1, ""), {})
        event = next(self._events)
        root = self._node(event, "")
        next(self._events)  # the document's end
        following = next(self._events)
        if not isinstance(following, yaml.StreamEndEvent):
            self._problem(
                self._place(following, ""),
                "a second document starts here",
                "put each document in a file of its own",
            )
            self._stop()
        if isinstance(root, Section):
            return root
        if not (isinstance(root, Leaf) and root.value is None):
            self._problem(root.place, "is not a mapping", "a policy has keys such as `upstreams:`")
        return Section(root.place, {})

    def _node(self, event: Any, path: str) -> Node:
        place = self._place(event, path)
        if isinstance(event, yaml.AliasEvent):
            self._problem(place, "aliases are not supported", "write the value out")
            return Leaf(place, None)
        if event.anchor is not None:
            self._problem(
                place, "anchors are not supported", f"remove &{event.anchor} and its aliases"
            )
        if event.tag is not None:
            self._problem(
                place, f"the tag {event.tag!a} is not supported", "write the value without a tag"
            )
        if isinstance(event, yaml.ScalarEvent):
            return Leaf(place, self._scalar(event, place))
        return self._nested(event, place)

    def _nested(self, event: Any, place: Place) -> Node:
        if self._depth == _MAX_DEPTH:
            self._problem(
                place, f"is nested deeper than {_MAX_DEPTH} levels", "a policy never needs that"
            )
            self._stop()
        self._depth += 1
        node: Node
        if isinstance(event, yaml.SequenceStartEvent):
            node = Items(place, tuple(self._items(place.path)))
        else:
            node = Section(place, self._entries(place.path))
        self._depth -= 1
        return node

    def _items(self, path: str) -> Iterator[Node]:
        index = 0
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._node(event, join(path, index))
            index += 1

    def _entries(self, path: str) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            name = self._key(event, path)
            key = self._place(event, join(path, name))
            node = self._node(next(self._events), key.path)
            if name in entries:
                self._problem(
                    key,
                    f"stands twice (first on line {entries[name].key.line})",
                    "keep one of the two",
                )
            else:
                entries[name] = Entry(key, node)
        return entries

    def _key(self, event: Any, path: str) -> str:
        """A key's text as it stands: keys are never numbers, booleans or references."""
        place = self._place(event, path)
        if not isinstance(event, yaml.ScalarEvent):
            self._node(event, path)
            self._problem(place, "a key must be text", 'put quotes around a value such as "{user}"')
            return ""
        if event.anchor is not None or event.tag is not None:
            self._problem(place, "a key must be plain text", "remove the anchor or tag")
        if event.value == "<<" and event.implicit[0]:
            self._problem(
                place,
                "merge keys are not supported",
                "write the keys out; what all routes share goes under `defaults`",
            )
        return str(event.value)

    def _scalar(self, event: yaml.ScalarEvent, place: Place) -> str | int | float | bool | None:
        text = str(event.value)
        is_plain = event.implicit[0]
        if "${" not in text:
            return resolve(text) if is_plain else text
        try:
            text = expand(text, self._environ)
            text.encode()
        except UnicodeEncodeError:  # a variable whose bytes are not UTF-8
            self._problem(place, "is not valid text once expanded", "set the variable to UTF-8")
            return None
        except ValueError as error:
            self._problem(place, *str(error).split("; ", 1))
            return None
        # A variable may hold a number or a boolean for an unquoted value, but an empty one must
        # not turn a condition such as `audience` into null.
        value = resolve(text) if is_plain else text
        return text if value is None else value

    def _place(self, event: Any, path: str) -> Place:
        mark = event.start_mark
        return Place(self._file, mark.line + 1, mark.column + 1, path)

    def _problem(self, place: Place, wrong: str, remedy: str) -> None:
        self.problems.append(
            Problem(place.file, place.line, place.column, place.path, wrong, remedy)
        )

    def _stop(self) -> NoReturn:
        raise ConfigError(self.problems)
