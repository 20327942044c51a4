"""YAML text to positioned nodes, strictly.

A node is made of each parser event, so that what PyYAML would resolve silently (tags, aliases,
merge keys, duplicate keys, further documents, YAML 1.1's booleans) is seen and refused.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from sidecar.config.nodes import MORE, Entry, Gap, Items, Leaf, Node, Place, Section, join
from sidecar.config.scalars import expand, resolve
from sidecar.errors import Problem

__all__ = ["MAX_BYTES", "load", "unknown"]

MAX_BYTES: Final = 1024 * 1024
"""A policy is written by people; a file beyond this is something else."""

_MAX_DEPTH: Final = 32
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _UnreadableError(Exception):
    """The text cannot be read further; the composer's problems tell why."""


def load(data: bytes, file: str, environ: Mapping[str, str]) -> tuple[Section, tuple[Problem, ...]]:
    """Parse one file's bytes to what can be read of it, and every mistake that YAML alone shows.

    What cannot be read is a gap; where that is the file's rest, or the whole, it is an open one.
    """
    if len(data) > MAX_BYTES:
        return unknown(file, "is larger than 1 MiB", "split it, or check that it is the policy")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return unknown(file, "is not UTF-8 text", "save it as UTF-8")
    composer = _Composer(yaml.parse(text, Loader=_LOADER), file, environ)
    try:
        return composer.document(), tuple(composer.problems)
    except _UnreadableError:
        return _open(file), tuple(composer.problems)
    except yaml.MarkedYAMLError as error:
        return _open(file), (*composer.problems, _syntax(file, text, error))
    except yaml.YAMLError:
        return unknown(
            file, "holds a character that YAML does not allow", "remove control characters"
        )


def unknown(file: str, wrong: str, remedy: str) -> tuple[Section, tuple[Problem, ...]]:
    """A file of which nothing can be read."""
    return _open(file), (Problem(file, 0, 0, "", wrong, remedy),)


def _open(file: str) -> Section:
    """A mapping that may hold anything."""
    place = Place(file, 1, 1, "")
    return Section(place, {MORE: Entry(place, Gap(place))})


def _syntax(file: str, text: str, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    if mark and text[mark.index : mark.index + 1] == "\t":
        return Problem(file, line, column, "", "a tab stands here", "indent with spaces")
    what = ": ".join(filter(None, (error.context, error.problem)))
    return Problem(
        file,
        line,
        column,
        "",
        f"is not valid YAML ({what})",
        "check the indentation, and put quotes around text with { } [ ] : or #",
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
            raise _UnreadableError
        if isinstance(root, Section):
            return root
        if isinstance(root, Leaf) and root.value is None:
            return Section(root.place, {})
        if not isinstance(root, Gap):
            self._problem(root.place, "is not a mapping", "a policy has keys such as `upstreams:`")
        return _open(self._file)

    def _node(self, event: Any, path: str) -> Node:
        place = self._place(event, path)
        if isinstance(event, yaml.AliasEvent):
            self._problem(place, "aliases are not supported", "write the value out")
            return Gap(place)
        if event.anchor is not None:
            self._problem(
                place, "anchors are not supported", f"remove &{event.anchor} and its aliases"
            )
        if event.tag is not None:
            self._problem(
                place, f"the tag {event.tag!a} is not supported", "write the value without a tag"
            )
        if isinstance(event, yaml.ScalarEvent):
            scalar = self._scalar(event, place)
            return scalar if event.tag is None else Gap(place)
        return self._nested(event, place)

    def _nested(self, event: Any, place: Place) -> Node:
        if self._depth == _MAX_DEPTH:
            self._problem(
                place, f"is nested deeper than {_MAX_DEPTH} levels", "a policy never needs that"
            )
            raise _UnreadableError
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
            key = self._place(event, path if name is None else join(path, name))
            node = self._node(next(self._events), key.path)
            if name is None:
                entries[MORE] = Entry(key, Gap(key))
            elif name in entries:
                self._problem(
                    key,
                    f"stands twice (first on line {entries[name].key.line})",
                    "keep one of the two",
                )
            else:
                entries[name] = Entry(key, node)
        return entries

    def _key(self, event: Any, path: str) -> str | None:
        """A key's text as it stands: keys are never numbers, booleans or references. None where
        it is not known which keys are meant.
        """
        place = self._place(event, path)
        if not isinstance(event, yaml.ScalarEvent):
            self._node(event, path)
            self._problem(place, "a key must be text", 'put quotes around a value such as "{user}"')
            return None
        if event.anchor is not None or event.tag is not None:
            self._problem(place, "a key must be plain text", "remove the anchor or tag")
        if event.value == "<<" and event.implicit[0]:
            self._problem(
                place,
                "merge keys are not supported",
                "write the keys out; what all routes share goes under `defaults`",
            )
            return None
        return str(event.value)

    def _scalar(self, event: yaml.ScalarEvent, place: Place) -> Leaf | Gap:
        text = str(event.value)
        is_plain = event.implicit[0]
        if "${" not in text:
            return Leaf(place, resolve(text) if is_plain else text)
        try:
            text = expand(text, self._environ)
            text.encode()
        except UnicodeEncodeError:  # a variable whose bytes are not UTF-8
            self._problem(place, "is not valid text once expanded", "set the variable to UTF-8")
            return Gap(place)
        except ValueError as error:
            self._problem(place, *str(error).split("; ", 1))
            return Gap(place)
        # A variable may hold a number or a boolean for an unquoted value, but an empty one must
        # not turn a condition such as `audience` into null.
        value = resolve(text) if is_plain else text
        return Leaf(place, text if value is None else value)

    def _place(self, event: Any, path: str) -> Place:
        mark = event.start_mark
        return Place(self._file, mark.line + 1, mark.column + 1, path)

    def _problem(self, place: Place, wrong: str, remedy: str) -> None:
        self.problems.append(
            Problem(place.file, place.line, place.column, place.path, wrong, remedy)
        )
