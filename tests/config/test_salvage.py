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


def mistakes_of(text: str, folder: Path) -> list[str]:
    """The mistakes of a policy, each as its key and what is wrong."""
    file = folder / "policy.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_policy([file], {"JWT_SECRET": "7f3c0e9a1b5d48e2a6c4f8b0d1e29375"})
    return [f"{problem.path}: {problem.wrong}" for problem in caught.value.problems]


UPSTREAMS = 'upstreams: {chat: {url: "ws://127.0.0.1:9000"}}'
JWT = "jwt: {providers: {app: {algorithms: [HS256], secrets: [{env: JWT_SECRET}]}}}"


def test_what_yaml_refuses_hides_no_mistake_elsewhere(tmp_path: Path) -> None:
    text = """\
upstreams:
  chat: {url: "${UNSET}", connect_timeout: 5}
  chat: {url: "ws://127.0.0.1:9000"}
jwt:
  providers:
    app: {algorithms: [HS256], secrets: [{env: NOPE}, {file: nope}], max_age: 30}
    other: {algorithms: ["${UNSET}"], secrets: [{env: NOPE}]}
routes:
  - {name: a, match: {path: "/${UNSET}"}, upstream: none}
  - {name: a, match: 1, identity: &x {sign: {provider: other}}}
  - {name: a, match: {path: "/ws/{room"}, authorize: [{cel: path.room}, {cel: "1 +"}]}
"""
    found = [mistake[:62] for mistake in mistakes_of(text, tmp_path)]
    assert found == [
        "upstreams.chat.url: the environment variable UNSET is not set",
        "upstreams.chat.connect_timeout: 5 is not a duration",
        "upstreams.chat: stands twice (first on line 2)",
        "jwt.providers.app.secrets[0]: the environment variable NOPE is",
        f"jwt.providers.app.secrets[1]: the file {tmp_path}/nope cannot"[:62],
        "jwt.providers.app.max_age: 30 is not a duration",
        "jwt.providers.other.algorithms[0]: the environment variable UN",
        "jwt.providers.other.secrets[0]: the environment variable NOPE ",
        "routes[0].match.path: the environment variable UNSET is not se",
        "routes[0].upstream: there is no upstream none",
        f"routes[1].name: a is already the name of the route at {tmp_path}"[:62],
        "routes[1].match: is not a mapping",
        "routes[1].identity: anchors are not supported",
        f"routes[2].name: a is already the name of the route at {tmp_path}"[:62],
        "routes[2].match.path: a brace stands in a segment that is no c",
        "routes[2].authorize[1].cel: not a CEL expression (<input>:1:4:",
    ]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        # what is named may well be defined where it cannot be read
        (f"upstreams: *x\n{JWT}\nroutes: [{{upstream: chat}}]", "upstreams"),
        (f"upstreams: {{chat: *x}}\n{JWT}\nroutes: [{{upstream: chat}}]", "upstreams.chat"),
        (f"upstreams: {{<<: *x}}\n{JWT}\nroutes: [{{upstream: chat}}]", "upstreams"),
        (f"{UPSTREAMS}\njwt: ${{UNSET}}\nroutes: [{{authenticate: {{providers: [a]}}}}]", "jwt"),
        (f"{UPSTREAMS}\njwt: {{providers: {{a: *x}}}}", "jwt.providers.a"),
        (f"{UPSTREAMS}\njwts: {{providers: {{}}}}", "jwts"),
        # what is missing may have been meant
        (f"{UPSTREAMS}\n{JWT}\nadmin: {{listen: '0.0.0.0:1', token: x}}", "admin.token"),
        (f"{UPSTREAMS}\n{JWT}\nserver: {{require_tls: true, tls: 1}}", "server.tls"),
        (
            f"{UPSTREAMS}\n{JWT}\nserver: {{proxy_protocol: true, trusted_proxies: [a]}}",
            "server.trusted_proxies[0]",
        ),
        (
            f"upstreams: {{chat: {{url: 'ws://h:1', allow_remote: yes}}}}\n{JWT}",
            "upstreams.chat.allow_remote",
        ),
        (
            f"upstreams: {{chat: {{url: 1, tls: {{server_name: a}}}}}}\n{JWT}",
            "upstreams.chat.url",
        ),
        (
            f"{UPSTREAMS}\nroutes: [{{authenticate: {{anonymous: yes}}}}]",
            "routes[0].authenticate.anonymous",
        ),
        (
            f"{UPSTREAMS}\njwt: {{providers: {{a: {{algorithms: [HS256], require: [sub], "
            "allow_no_expiry: yes, secrets: [{env: JWT_SECRET}]}}}",
            "jwt.providers.a.allow_no_expiry",
        ),
        (
            f"{UPSTREAMS}\njwt: {{providers: {{a: {{algorithms: [HS256], allow_weak_secret: yes, "
            "secrets: [{file: weak}]}}}",
            "jwt.providers.a.allow_weak_secret",
        ),
        (
            f"{UPSTREAMS}\njwt: {{providers: {{a: {{algorithms: [HS256], allow_weak_secret: true, "
            "secrets: 1}}}",
            "jwt.providers.a.secrets",
        ),
        (
            f"{UPSTREAMS}\njwt: {{providers: {{a: {{algorithms: [ES256], allow_http: true, "
            "jwks_url: 1}}}",
            "jwt.providers.a.jwks_url",
        ),
        (
            f"{UPSTREAMS}\njwt: {{providers: {{a: {{algorithms: [ES256], allow_http: yes, "
            "jwks_url: 'http://a.example'}}}",
            "jwt.providers.a.allow_http",
        ),
        (
            f"{UPSTREAMS}\n{JWT}\nroutes: [{{refuse: {{codes: {{own: 4000}}}}, authorize: "
            "[{cel: 'true', reason: own, shadow: yes}]}]",
            "routes[0].authorize[0].shadow",
        ),
        (
            f"{UPSTREAMS}\n{JWT}\nroutes: [{{match: {{host: 1}}}}, {{match: {{path: /a}}}}]",
            "routes[0].match.host",
        ),
        (
            f"{UPSTREAMS}\n{JWT}\nroutes: [{{match: {{host: 'a/b'}}}}, {{match: {{path: /a}}}}]",
            "routes[0].match.host",
        ),
        (
            f"{UPSTREAMS}\n{JWT}\nroutes: [{{name: 1, match: {{path: /b}}}}, {{name: route-1}}]",
            "routes[0].name",
        ),
        # defaults are everywhere
        (
            f"upstreams: {{a: {{url: 'ws://127.0.0.1:1'}}, b: {{url: 'ws://127.0.0.1:1'}}}}\n{JWT}\n"
            "defaults: {upstream: '${UNSET}'}\nroutes: [{}]",
            "defaults.upstream",
        ),
        (
            f"upstreams: {{a: {{url: 'ws://127.0.0.1:1'}}, b: {{url: 'ws://127.0.0.1:1'}}}}\n{JWT}\n"
            "routes: [{<<: *x}]",
            "routes[0]",
        ),
        (
            f"{UPSTREAMS}\n{JWT}\ndefaults: {{name: a}}\n"
            "routes: [{match: {path: /a}}, {match: {path: /b}}]",
            "defaults",
        ),
    ],
)
def test_what_may_only_follow_from_a_mistake_is_none(tmp_path: Path, text: str, path: str) -> None:
    (tmp_path / "weak").write_text("secret")
    found = mistakes_of(text, tmp_path)
    assert {mistake.partition(": ")[0].removesuffix(".<<") for mistake in found} == {path}


def test_two_providers_cannot_be_compared_where_one_is_not_known(tmp_path: Path) -> None:
    one = "algorithms: [HS256], secrets: [{env: JWT_SECRET}]"
    text = f"{UPSTREAMS}\njwt: {{providers: {{a: {{issuer: 1, {one}}}, b: {{{one}}}}}}}"
    assert mistakes_of(text, tmp_path) == [
        "jwt.providers.a.issuer: is not text",
    ]


def test_a_badly_named_upstream_is_no_upstream(tmp_path: Path) -> None:
    text = f"upstreams: {{a b: {{url: 1}}}}\n{JWT}\nroutes: [{{upstream: a}}]"
    assert mistakes_of(text, tmp_path) == [
        "upstreams.a b: 'a b' is not a usable name",
        "upstreams.a b.url: is not text",
    ]


def test_where_nothing_sound_is_left_the_first_mistakes_are_told(tmp_path: Path) -> None:
    text = "".join(f"key{n}: 1\n" for n in range(101)) + "server: {listen: 1}"
    assert len(mistakes_of(text, tmp_path)) == 101


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
