"""Positioned nodes: paths and places."""

from sidecar.config.load import load
from sidecar.config.nodes import Section, join, locate, plain

TEXT = b"""\
jwt:
  leeway: 5s
routes:
  - limits: 10/second
    origins: {allow: [a, b]}
"""


def root() -> Section:
    return load(TEXT, "p.yaml", {})


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


def test_the_root_is_the_beginning() -> None:
    assert str(locate(root(), ())) == "p.yaml:1:1"


def test_a_key_with_control_characters_is_escaped_in_paths() -> None:
    assert join("a", "b\nc") == r"a.'b\nc'"
    assert join("", "a") == "a"
