"""Several files as one policy, and what all routes share."""

from sidecar.config.nodes import MORE, Entry, Gap, Items, Node, Section, plain
from sidecar.errors import Problem

__all__ = ["merge_files", "with_defaults"]

_NAMED = frozenset({("upstreams",), ("jwt", "providers")})
"""Mappings of named things: the same name in two files is a mistake even where both agree."""


def merge_files(first: Section, second: Section) -> tuple[Section, list[Problem]]:
    """One policy of two: mappings merged, routes appended; the conflicts that are between them, in
    which the first file's value stays.
    """
    problems: list[Problem] = []
    return _merge(first, second, (), problems), problems


def _merge(
    first: Section, second: Section, way: tuple[str, ...], problems: list[Problem]
) -> Section:
    entries = dict(first.entries)
    for name, entry in second.entries.items():
        known = entries.get(name)
        if known is None:
            entries[name] = entry
        elif way in _NAMED:
            problems.append(_twice(known, entry))
        else:
            entries[name] = _both(known, entry, (*way, name), problems)
    return Section(first.place, entries)


def _both(known: Entry, entry: Entry, way: tuple[str, ...], problems: list[Problem]) -> Entry:
    old, new = known.node, entry.node
    if isinstance(old, Section) and isinstance(new, Section):
        return Entry(known.key, _merge(old, new, way, problems))
    if way == ("routes",) and isinstance(old, Items) and isinstance(new, Items):
        return Entry(known.key, Items(old.place, (*old.items, *new.items)))
    if isinstance(old, Gap) or isinstance(new, Gap):
        return known
    # 1 and True are equal in Python, not in a policy: the type counts as well.
    if repr(plain(old)) != repr(plain(new)):
        problems.append(
            _problem(entry, f"has another value at {old.place}", "give it in one file only")
        )
    return known


def _twice(known: Entry, entry: Entry) -> Problem:
    return _problem(
        entry, f"is defined twice, first at {known.key}", "rename one of the two or remove it"
    )


def _problem(entry: Entry, wrong: str, remedy: str) -> Problem:
    place = entry.key
    return Problem(place.file, place.line, place.column, place.path, wrong, remedy)


def with_defaults(root: Section) -> Section:
    """The policy with `defaults` merged under each route.

    Mappings merge; a list or scalar of the route replaces the default's. Where the policy has no
    routes at all, `defaults` is the one route that there is.
    """
    defaults = root.entries.get("defaults")
    if defaults is None:
        return root
    if isinstance(defaults.node, Gap):  # then routes may have any key
        shared = Section(defaults.node.place, {MORE: defaults})
    elif isinstance(defaults.node, Section):
        own = {name: one for name, one in defaults.node.entries.items() if name != "name"}
        shared = Section(defaults.node.place, own)
    else:
        return root
    routes = root.entries.get("routes")
    if routes is None:
        merged = Entry(defaults.key, Items(shared.place, (shared,)))
    elif isinstance(routes.node, Items):
        items = tuple(_under(item, shared) for item in routes.node.items)
        merged = Entry(routes.key, Items(routes.node.place, items))
    else:
        return root
    return Section(root.place, {**root.entries, "routes": merged})


def _under(node: Node, defaults: Section) -> Node:
    if not isinstance(node, Section):
        return node
    entries = dict(node.entries)
    for name, default in defaults.entries.items():
        own = entries.get(name)
        if own is None:
            entries[name] = default
        elif isinstance(default.node, Section):
            entries[name] = Entry(own.key, _under(own.node, default.node))
    return Section(node.place, entries)
