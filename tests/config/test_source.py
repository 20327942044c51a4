"""Files and folders as one policy."""

import copy
import json
import random
import string
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.config.problems import MAX_PROBLEMS
from sidecar.config.source import Loaded, load_policy
from sidecar.errors import ConfigError
from tests.support.special_files import KINDS, special_file

UPSTREAM = "upstreams: {chat: {url: 'ws://127.0.0.1:9000'}}\n"
JWT = "jwt: {providers: {app: {algorithms: [HS256], secrets: [{env: JWT_SECRET}]}}}\n"
SMALL = UPSTREAM + JWT


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("conf.d").mkdir()
    return tmp_path


def load(environ: Mapping[str, str], *names: str) -> Loaded:
    return load_policy([Path(name) for name in names], environ)


def problems(environ: Mapping[str, str], *names: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(environ, *names)
    return [str(problem) for problem in caught.value.problems]


def write(name: str, text: str) -> None:
    Path(name).write_text(text)


def test_an_upstream_and_a_provider_protect_every_path(environ: Mapping[str, str]) -> None:
    write("p.yaml", SMALL)
    loaded = load(environ, "p.yaml")
    (route,) = loaded.policy.routes
    assert (route.path.source, route.upstream, route.host) == ("/{rest...}", "chat", None)
    assert route.authenticate.anonymous is False
    assert str(loaded.policy.server.listen[0]) == "0.0.0.0:8080"
    assert loaded.policy.admin is not None
    assert str(loaded.policy.admin.listen) == "127.0.0.1:9090"
    assert loaded.warnings == ()


def test_the_admin_listener_can_be_turned_off(environ: Mapping[str, str]) -> None:
    write("p.yaml", SMALL + "admin: null\n")
    assert load(environ, "p.yaml").policy.admin is None


def test_files_and_folders_become_one_policy(environ: Mapping[str, str]) -> None:
    write("a.yaml", UPSTREAM + "routes: [{match: {path: /a}}]")
    write("conf.d/20.yml", "routes: [{match: {path: /20}}]")
    write("conf.d/10.yaml", JWT + "routes: [{match: {path: /10}}]")
    write("conf.d/readme.txt", "not: [a policy")
    routes = load(environ, "a.yaml", "conf.d").policy.routes
    assert [route.path.source for route in routes] == ["/a", "/10", "/20"]


def test_a_mounted_config_map_is_read_once(environ: Mapping[str, str]) -> None:
    Path("conf.d/..2026").mkdir()
    write("conf.d/..2026/p.yaml", SMALL)
    Path("conf.d/..data").symlink_to("..2026")
    Path("conf.d/p.yaml").symlink_to("..data/p.yaml")
    write("conf.d/.hidden.yaml", "not: [a policy")
    assert list(load(environ, "conf.d").policy.upstreams) == ["chat"]


def test_conflicts_between_files_name_both(environ: Mapping[str, str]) -> None:
    write("a.yaml", SMALL)
    write("b.yaml", UPSTREAM)
    assert problems(environ, "a.yaml", "b.yaml") == [
        "b.yaml:1:13: upstreams.chat: is defined twice, first at a.yaml:1:13; "
        "rename one of the two or remove it"
    ]


def test_a_route_name_in_two_files_names_both(environ: Mapping[str, str]) -> None:
    write("a.yaml", SMALL + "routes: [{name: x, match: {path: /a}}]")
    write("b.yaml", "routes: [{name: x, match: {path: /b}}]")
    assert problems(environ, "a.yaml", "b.yaml") == [
        "b.yaml:1:17: routes[0].name: x is already the name of the route at a.yaml:3:10; "
        "give each route its own name"
    ]


def test_mistakes_of_all_files_are_told_at_once(environ: Mapping[str, str]) -> None:
    write("a.yaml", "a: [")
    write(
        "b.yaml",
        "server: &x {listen: 1}\nroutes: [{upstream: perhaps-in-a, authorize: [{cel: a}]}]",
    )
    assert [
        problem.split("; ")[0] for problem in problems(environ, "a.yaml", "b.yaml", "c.yaml")
    ] == [
        "a.yaml:2:1: is not valid YAML "
        "(while parsing a flow node: did not find expected node content)",
        "b.yaml:1:9: server: anchors are not supported",
        "b.yaml:1:21: server.listen: is not a list",
        "b.yaml:2:53: routes[0].authorize[0].cel: unknown variable a",
        "c.yaml: cannot be read (No such file or directory)",
    ]


def test_conflicts_of_all_files_are_told_with_all_other_mistakes(
    environ: Mapping[str, str],
) -> None:
    write("a.yaml", SMALL + "version: 1\nserver: {max_connections: 0}")
    write("b.yaml", "version: 2\njwt: {leeway: '${UNSET}'}")
    write("c.yaml", UPSTREAM + "version: 3\nroutes: [{upstream: none}]")
    assert [
        problem.split("; ")[0] for problem in problems(environ, "a.yaml", "b.yaml", "c.yaml")
    ] == [
        "a.yaml:4:27: server.max_connections: 0 is too small",
        "b.yaml:1:1: version: has another value at a.yaml:3:10",
        "b.yaml:2:15: jwt.leeway: the environment variable UNSET is not set",
        "c.yaml:1:13: upstreams.chat: is defined twice, first at a.yaml:1:13",
        "c.yaml:2:1: version: has another value at a.yaml:3:10",
        "c.yaml:3:21: routes[0].upstream: there is no upstream none",
    ]


def test_a_folder_that_cannot_be_listed_is_named(
    environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert problems(environ, "conf.d") == [
        "conf.d: cannot be read (Permission denied); check the path and its rights"
    ]


def test_mistakes_are_in_the_order_of_the_lines(environ: Mapping[str, str]) -> None:
    write("p.yaml", "version: 2\nserver: {listen: 1}\nzzz: 1\nlogging: {level: x}\n" + SMALL)
    lines = [int(problem.split(":")[1]) for problem in problems(environ, "p.yaml")]
    assert lines == sorted(lines) == [1, 2, 3, 4]


def test_a_mistake_in_defaults_is_told_once(environ: Mapping[str, str]) -> None:
    write(
        "p.yaml",
        SMALL
        + "defaults: {limits: {messages: 5}}\nroutes: [{match: {path: /a}}, {match: {path: /b}}]\n",
    )
    (problem,) = problems(environ, "p.yaml")
    assert problem.startswith("p.yaml:3:31: defaults.limits.messages: 5 is not a rate; ")


def test_defaults_hold_for_the_default_route_too(environ: Mapping[str, str]) -> None:
    write("p.yaml", SMALL + "defaults: {limits: {frame_size: 1KiB}}\n")
    assert load(environ, "p.yaml").policy.routes[0].limits.frame == 1024


def test_files_are_relative_to_the_policy(environ: Mapping[str, str], material: Path) -> None:
    write("conf.d/secret", (material / "secret").read_text())
    write("conf.d/p.yaml", SMALL.replace("env: JWT_SECRET", "file: secret"))
    (provider,) = load(environ, "conf.d/p.yaml").policy.tokens.providers
    assert "SecretRef(file: conf.d/secret)" in repr(provider)


@pytest.mark.parametrize("name", ["missing.yaml", "nul\0.yaml"])
def test_a_file_that_is_not_there_is_named(environ: Mapping[str, str], name: str) -> None:
    assert "cannot be read" in problems(environ, name)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_that_leads_to_no_regular_file_is_named(
    environ: Mapping[str, str], kind: str
) -> None:
    special_file(Path("conf.d"), kind, "p.yaml")
    wrong = "is not a regular file; name a file; a pipe, a device or a folder is not read"
    assert problems(environ, "conf.d") == [f"conf.d/p.yaml: {wrong}"]


@pytest.mark.parametrize("pipes", [False, True])
def test_a_pipe_in_a_folder_is_never_waited_for(environ: Mapping[str, str], pipes: bool) -> None:
    special_file(Path("conf.d"), "pipe", "p.yaml")
    with pytest.raises(ConfigError, match=r"conf\.d/p\.yaml: is not a regular file"):
        load_policy([Path("conf.d")], environ, pipes=pipes)


def test_a_folder_without_policies_is_an_error(environ: Mapping[str, str]) -> None:
    assert problems(environ, "conf.d") == [
        "conf.d: the folder has no *.yaml or *.yml file; name a policy file"
    ]


def test_no_file_at_all_is_an_error(environ: Mapping[str, str]) -> None:
    assert problems(environ) == [": there is no policy; name a file or folder"]


def test_an_empty_file_is_told_what_is_missing(environ: Mapping[str, str]) -> None:
    write("p.yaml", "")
    providers, upstreams = problems(environ, "p.yaml")
    assert upstreams == "p.yaml:1:1: upstreams: is missing; add it"
    assert providers.startswith("p.yaml:1:1: jwt.providers: is empty, ")


@pytest.mark.parametrize("line", ["key{n}: 1\n", "a{n}: *b\n"])
def test_countless_mistakes_are_cut_short(environ: Mapping[str, str], line: str) -> None:
    write("p.yaml", "".join(line.format(n=n) for n in range(20_000)))
    found = problems(environ, "p.yaml")
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1] == "p.yaml: has more mistakes than these; correct these first"


VOCABULARY = sorted(
    {
        *("server", "listen", "tls", "drain", "admin", "token", "upstreams", "url", "jwt"),
        *("providers", "algorithms", "secrets", "routes", "match", "path", "origins", "allow"),
        *("authorize", "claim", "equals", "in", "contains", "matches", "cel", "identity"),
        *("headers", "X-User", "user", "limits", "messages", "rate", "burst", "refuse", "codes"),
        *("defaults", "logging", "audit", "env", "file", "value", "sign", "provider", "chat"),
        *("authenticate", "sources", "header", "cookie", "forward_headers", "upstream_path"),
        *("discovery", "jwks_url", "jwks_file", "public_key", "private_key", "require", "health"),
    }
)
TEXTS = st.sampled_from(
    [
        "ws://127.0.0.1:9000",
        "https://a.example",
        "HS256",
        "RS256",
        "30s",
        "1KiB",
        "5/second",
        "127.0.0.1:80",
        "unix:/x",
        "{path.room}",
        "/ws/{room}",
        "{",
        "*",
        "header",
        "JWT_SECRET",
    ]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS | st.sampled_from(VOCABULARY) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(VOCABULARY), inner, max_size=4)
    ),
    max_leaves=12,
)


def fuzz(document: object, environ: Mapping[str, str]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(document, file, ensure_ascii=False)  # JSON is YAML, and fast to write
        file.flush()
        try:
            assert load_policy([Path(file.name)], environ).policy.upstreams
        except ConfigError as error:
            assert error.problems  # noqa: PT017
            assert all(problem.wrong and problem.remedy for problem in error.problems)  # noqa: PT017


@given(st.dictionaries(st.sampled_from(VOCABULARY), VALUES))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_document_is_a_policy_or_a_config_error(
    environ: Mapping[str, str], document: dict[str, Any]
) -> None:
    fuzz(document, environ)


FULL = yaml.safe_load((Path(__file__).parent / "golden" / "full.yaml").read_text())


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to every value in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = [(*way, key) for key, _ in inner]
    for here in list(found):
        child = value[here[-1]]
        if isinstance(child, dict | list):
            found += places(child, here)
    return found


@given(st.sampled_from(places(FULL)), VALUES | st.text(alphabet=string.printable))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
def test_a_policy_with_any_value_anywhere_is_a_policy_or_a_config_error(
    environ: Mapping[str, str], way: tuple[Any, ...], value: object
) -> None:
    document = copy.deepcopy(FULL)
    target = document
    for step in way[:-1]:
        target = target[step]
    target[way[-1]] = value
    fuzz(document, environ)


def test_a_policy_without_any_one_of_its_lines_is_a_policy_or_a_config_error(
    environ: Mapping[str, str],
) -> None:
    lines = (Path(__file__).parent / "golden" / "full.yaml").read_text().splitlines(keepends=True)
    for number in random.Random(7).sample(range(len(lines)), 40):
        write("p.yaml", "".join(lines[:number] + lines[number + 1 :]))
        try:
            assert load(environ, "p.yaml").policy.upstreams
        except ConfigError as error:
            assert error.problems  # noqa: PT017
