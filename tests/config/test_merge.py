"""Several files as one policy, and `defaults`."""

import pytest

from sidecar.config.load import load
from sidecar.config.merge import merge_files, with_defaults
from sidecar.config.nodes import doubtful, plain


def merged(first: str, second: str) -> tuple[object, list[str]]:
    one, two = load(first.encode(), "a.yaml", {})[0], load(second.encode(), "b.yaml", {})[0]
    section, problems = merge_files(one, two)
    return plain(section), [str(problem) for problem in problems]


def shared(text: str) -> object:
    return plain(with_defaults(load(text.encode(), "p.yaml", {})[0]))


def test_mappings_are_merged_and_routes_appended() -> None:
    value, problems = merged(
        "jwt: {leeway: 5s}\nroutes: [{name: a}]", "jwt: {providers: {x: {}}}\nroutes: [{name: b}]"
    )
    assert value == {
        "jwt": {"leeway": "5s", "providers": {"x": {}}},
        "routes": [{"name": "a"}, {"name": "b"}],
    }
    assert problems == []


def test_the_same_scalar_with_the_same_value_is_fine() -> None:
    assert merged("version: 1", "version: 1") == ({"version": 1}, [])


def test_a_scalar_with_two_values_names_both_places() -> None:
    assert merged("jwt: {leeway: 5s}", "\njwt: {leeway: 6s}")[1] == [
        "b.yaml:2:7: jwt.leeway: has another value at a.yaml:1:15; give it in one file only"
    ]


def test_one_and_true_are_two_values() -> None:
    assert len(merged("a: 1", "a: true")[1]) == 1


def test_lists_other_than_routes_are_values() -> None:
    assert merged("server: {listen: [a]}", "server: {listen: [a]}")[1] == []
    assert len(merged("server: {listen: [a]}", "server: {listen: [b]}")[1]) == 1


def test_a_mapping_and_a_scalar_do_not_merge() -> None:
    assert len(merged("admin: null", "admin: {listen: x}")[1]) == 1
    assert len(merged("routes: [a]", "routes: {a: 1}")[1]) == 1


def test_the_same_upstream_or_provider_twice_names_both_places() -> None:
    text = "upstreams: {chat: {url: x}}\njwt: {providers: {app: {}}}"
    assert merged(text, text)[1] == [
        "b.yaml:1:13: upstreams.chat: is defined twice, first at a.yaml:1:13; "
        "rename one of the two or remove it",
        "b.yaml:2:19: jwt.providers.app: is defined twice, first at a.yaml:2:19; "
        "rename one of the two or remove it",
    ]


def test_after_a_conflict_merging_goes_on_with_the_first_value() -> None:
    assert merged("a: 1\nb: {c: 1}", "a: 2\nb: {d: 1}\ne: 1")[0] == {
        "a": 1,
        "b": {"c": 1, "d": 1},
        "e": 1,
    }


@pytest.mark.parametrize(("first", "second"), [("${X}", "1"), ("1", "${X}"), ("${X}", "${X}")])
def test_a_value_that_is_not_known_is_no_other_value(first: str, second: str) -> None:
    assert merged(f"a: {first}", f"a: {second}")[1] == []


def test_a_shared_name_is_not_merged() -> None:
    assert shared("defaults: {name: x, a: 1}\nroutes: [{}]") == {
        "defaults": {"name": "x", "a": 1},
        "routes": [{"a": 1}],
    }


def test_with_defaults_that_are_not_known_routes_may_have_any_key() -> None:
    root = with_defaults(load(b"defaults: ${X}\nroutes: [{a: 1}]", "p.yaml", {})[0])
    assert doubtful(root, ["routes", 0, "upstream"])
    assert not doubtful(root, ["routes", 0, "a"])
    assert plain(root) == {"routes": [{"a": 1}]}


def test_defaults_are_merged_under_each_route() -> None:
    assert shared(
        "defaults: {limits: {a: 1, b: 1}, list: [1], own: x}\n"
        "routes: [{limits: {b: 2}, list: [2]}, {limits: null}]"
    ) == {
        "defaults": {"limits": {"a": 1, "b": 1}, "list": [1], "own": "x"},
        "routes": [
            {"limits": {"a": 1, "b": 2}, "list": [2], "own": "x"},
            {"limits": None, "list": [1], "own": "x"},
        ],
    }


def test_a_default_mapping_does_not_replace_a_scalar_of_the_route() -> None:
    assert shared("defaults: {a: {b: 1}}\nroutes: [{a: 2}, text]") == {
        "defaults": {"a": {"b": 1}},
        "routes": [{"a": 2}, "text"],
    }


def test_defaults_alone_are_the_only_route() -> None:
    assert shared("defaults: {a: 1}") == {"defaults": {"a": 1}, "routes": [{"a": 1}]}


def test_what_is_not_a_mapping_or_list_is_left_to_the_schema() -> None:
    assert shared("defaults: 1\nroutes: []") == {"defaults": 1, "routes": []}
    assert shared("defaults: {a: 1}\nroutes: 1") == {"defaults": {"a": 1}, "routes": 1}
    assert shared("routes: []") == {"routes": []}
