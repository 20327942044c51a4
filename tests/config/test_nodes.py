"""Positioned nodes: paths and places."""

import pytest

from sidecar.config.load import load
from sidecar.config.nodes import Gap, Loc, Section, doubtful, find, join, locate, plain, with_gap

TEXT = b"""\
jwt:
  leeway: 5s
routes:
  - limits: 10/second
    origins: {allow: [a, b]}
"""


def root() -> Section:
    return load(TEXT, "p.yaml", {})[0]


def gapped() -> Section:
    text = b"a: ['${X}', 1, {b: '${X}'}]\nc: {<<: {}, d: 1}\ne: {f: 1}"
    return load(text, "p.yaml", {})[0]


def test_plain_gives_the_values_alone() -> None:
    assert plain(root()) == {
        "jwt": {"leeway": "5s"},
        "routes": [{"limits": "10/second", "origins": {"allow": ["a", "b"]}}],
    }


def test_a_value_is_found_with_its_path() -> None:
    place = locate(root(), ("routes", 0, "origins", "allow", 1))
    assert (str(place), place.path) == ("p.yaml:5:26", "routes[0].origins.allow[1]")


def test_a_key_is_found_beside_its_value() -> None:
    assert str(locate(root(), ("jwt", "leeway"))) == "p.yaml:2:11"
    assert str(locate(root(), ("jwt", "leeway"), key=True)) == "p.yaml:2:3"


def test_a_missing_key_is_at_its_mapping() -> None:
    place = locate(root(), ("jwt", "providers", "app"))
    assert (str(place), place.path) == ("p.yaml:2:3", "jwt.providers.app")


def test_a_missing_item_is_at_its_list() -> None:
    assert locate(root(), ("routes", 7)).path == "routes[7]"


def test_the_inside_of_a_short_form_is_the_short_form() -> None:
    place = locate(root(), ("routes", 0, "limits", "messages", "rate"))
    assert (str(place), place.path) == ("p.yaml:4:13", "routes[0].limits")


def test_a_gap_is_left_out_unless_something_stands_in_for_it() -> None:
    assert plain(gapped()) == {"a": [1, {}], "c": {"d": 1}, "e": {"f": 1}}
    place = root().place
    assert plain(with_gap(root(), ["jwt"], Gap(place, {"x": 1}))) == {
        "jwt": {"x": 1},
        "routes": [{"limits": "10/second", "origins": {"allow": ["a", "b"]}}],
    }


def test_indexes_do_not_count_gaps() -> None:
    assert locate(gapped(), ["a", 0]).path == "a[1]"
    assert isinstance(find(gapped(), ["a", 1, "b"]), Gap)
    assert plain(with_gap(gapped(), ["a", 0], Gap(root().place)))["a"] == [{}]


def test_a_gap_may_stand_where_nothing_stood() -> None:
    section = with_gap(root(), ["jwt", "providers"], Gap(root().place, {}))
    assert plain(section)["jwt"] == {"leeway": "5s", "providers": {}}


def test_a_gap_in_place_of_everything() -> None:
    assert with_gap(root(), [], gap := Gap(root().place)) is gap


@pytest.mark.parametrize(
    "loc", [["a"], ["a", 1], ["a", 1, "b"], ["a", 1, "b", "c"], ["c"], ["c", "x"], ["c", "x", "y"]]
)
def test_at_above_and_below_a_gap_it_is_not_known_what_there_is(loc: Loc) -> None:
    assert doubtful(gapped(), loc)


@pytest.mark.parametrize("loc", [["a", 0], ["a", 7], ["c", "d"], ["e"], ["e", "x"], ["x", "y"]])
def test_elsewhere_it_is_known(loc: Loc) -> None:
    assert not doubtful(gapped(), loc)


def test_a_quoted_merge_key_hides_nothing() -> None:
    assert not doubtful(load(b"'<<': 1", "p.yaml", {})[0], ["a"])


def test_the_root_is_the_beginning() -> None:
    assert str(locate(root(), ())) == "p.yaml:1:1"


def test_a_key_with_control_characters_is_escaped_in_paths() -> None:
    assert join("a", "b\nc") == r"a.'b\nc'"
    assert join("", "a") == "a"
