from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from sidecar.config.source import load_policy
from sidecar.errors import ConfigError

BASE = {
    "upstreams": {"chat": {"url": "ws://127.0.0.1:9000"}},
    "jwt": {"providers": {"app": {"algorithms": ["HS256"], "secrets": [{"env": "JWT_SECRET"}]}}},
}


def paths_of(policy: Mapping[str, object], folder: Path, environ: Mapping[str, str]) -> list[str]:
    """The keys that mistakes were found at."""
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump({**BASE, **policy}, sort_keys=False))
    with pytest.raises(ConfigError) as caught:
        load_policy([file], environ)
    return [problem.path for problem in caught.value.problems]


def test_a_wrong_key_hides_no_mistake_elsewhere(tmp_path: Path, environ: Mapping[str, str]) -> None:
    routes = [{"limits": {"frame_size": 1}, "upstream": "none", "authorize": [{"cel": "1 +"}]}]
    assert paths_of({"routes": routes}, tmp_path, environ) == [
        "routes[0].limits.frame_size",
        "routes[0].upstream",
        "routes[0].authorize[0].cel",
    ]


def test_what_a_badly_defined_name_is_used_for_is_no_mistake(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    policy = {
        "upstreams": {"chat": {"url": "http://127.0.0.1"}, "more": {"url": "ws://127.0.0.1:1"}},
        "jwt": {"providers": {"app": {"secrets": []}}},
        "routes": [{"upstream": "chat", "authenticate": {"providers": ["app"]}}],
    }
    assert paths_of(policy, tmp_path, environ) == [
        "upstreams.chat.url",
        "jwt.providers.app.algorithms",
    ]


def test_a_badly_defined_signer_is_told_once(tmp_path: Path, environ: Mapping[str, str]) -> None:
    policy = {
        "jwt": {"providers": {"app": {"algorithms": "HS256"}}},
        "routes": [{"identity": {"sign": {"provider": "app", "ttl": "60s", "header": "X-I"}}}],
    }
    assert paths_of(policy, tmp_path, environ) == ["jwt.providers.app.algorithms"]


def test_a_consequence_of_a_wrong_value_is_no_mistake(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    providers = {"app": {"algorithms": ["HS256"], "secrets": [{"nothing": "X"}]}}
    found = paths_of({"jwt": {"providers": providers}}, tmp_path, environ)
    assert {path.startswith("jwt.providers.app.secrets[0]") for path in found} == {True}


def test_a_route_that_matches_nobody_knows_what_hides_no_other(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    routes = [{"match": {"path": 1}}, {"match": {"path": "/b"}, "upstream": "none"}]
    assert paths_of({"routes": routes}, tmp_path, environ) == [
        "routes[0].match.path",
        "routes[1].upstream",
    ]


def test_where_nothing_sound_is_left_only_the_first_mistakes_are_told(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    policy = {"upstreams": {"chat": {"url": 1}}, "routes": [{"upstream": "none"}]}
    assert paths_of(policy, tmp_path, environ) == ["upstreams.chat.url"]


def test_the_same_key_in_another_file_is_another_key(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**BASE, "routes": [{"http": "maybe"}]}))
    (tmp_path / "b.yaml").write_text("routes: [{match: {path: /x}, upstream: none}]")
    with pytest.raises(ConfigError) as caught:
        load_policy([tmp_path / "a.yaml", tmp_path / "b.yaml"], environ)
    assert {Path(problem.file).name for problem in caught.value.problems} == {"a.yaml", "b.yaml"}


def test_with_nothing_wrong_between_keys_there_is_nothing_to_add(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    assert paths_of({"server": {"listen": 1}}, tmp_path, environ) == ["server.listen"]
