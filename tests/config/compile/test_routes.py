"""Routes: references, templates, names, and what can never match."""

from collections.abc import Callable

import pytest

from sidecar.config.source import Loaded

Load = Callable[[str], Loaded]
Mistakes = Callable[[str], list[str]]


@pytest.fixture
def route(load: Load, small: str) -> Load:
    """Load a policy with one route, whose keys stand on line 4 and below."""
    return lambda keys: load(f"{small}routes:\n  - {keys}\n")


@pytest.fixture
def wrong(mistakes: Mistakes, small: str) -> Mistakes:
    """The mistakes of such a policy."""
    return lambda keys: mistakes(f"{small}routes:\n  - {keys}\n")


@pytest.fixture
def routes(load: Load, small: str) -> Load:
    """Load a policy with routes for the paths and hosts, given as `path host`."""
    return lambda matches: load(small + routes_text(matches))


def routes_text(matches: str) -> str:
    lines = ["routes:"]
    for match in matches.split(", "):
        path, _, host = match.partition(" ")
        lines.append(f'  - match: {{path: "{path}", host: {f"{host!r}" if host else "null"}}}')
    return "\n".join(lines)


def test_a_route_may_be_empty(route: Load) -> None:
    (compiled,) = route("{}").policy.routes
    assert (compiled.name, compiled.upstream) == ("route-1", "chat")


def test_routes_are_not_null(mistakes: Mistakes, small: str) -> None:
    assert mistakes(f"{small}routes:\n") == [
        "3:8: routes: is not a list; write [one, two], or one item a line after a hyphen"
    ]


def test_routes_are_not_empty(mistakes: Mistakes, small: str) -> None:
    assert mistakes(f"{small}routes: []\n") == ["3:9: routes: is empty; give it at least one entry"]


def test_a_default_name_does_not_hide_a_given_one(mistakes: Mistakes, small: str) -> None:
    text = "routes: [{name: route-2, match: {path: /a}}, {match: {path: /b}}]"
    assert mistakes(small + text) == [
        "3:46: routes[1].name: route-2 is already the name of the route at policy.yaml:3:10; "
        "give each route its own name"
    ]


@pytest.mark.parametrize(
    "matches",
    [
        *("/a, /a", "/{x}, /{y}", "/{x}, /a", "/{rest...}, /a", "/{rest...}, /{other...}"),
        *("/a, /a x.example", "/a x.example, /a x.example", "/a/{rest...}, /a/{b}/c"),
        *("/a/{rest...}, /a/", "/a/{rest...}, /a/{more...}", "/{x}/{rest...}, /a/b/{more...}"),
    ],
)
def test_a_route_that_never_matches_is_refused(
    mistakes: Mistakes, small: str, matches: str
) -> None:
    (mistake,) = mistakes(small + routes_text(matches))
    assert "routes[1].match: never matches: the route route-1 at policy.yaml:4:5 " in mistake


@pytest.mark.parametrize(
    "matches",
    [
        *("/a, /b", "/a, /{x}", "/a, /{rest...}", "/{x}, /{x}/", "/{x}, /a/b", "/a x.example, /a"),
        *("/a/{rest...}, /a", "/a/{x}, /a/", "/{x}, /{rest...}", "/a/b/{rest...}, /a/{rest...}"),
        *("/a x.example, /a y.example", "/a/{rest...}, /{rest...}"),
    ],
)
def test_a_route_that_may_match_passes(routes: Load, matches: str) -> None:
    assert len(routes(matches).policy.routes) == 2


@pytest.mark.parametrize("template", ["/x/{room}", "/x/{path.room}", "/x"])
def test_the_path_at_the_upstream(route: Load, template: str) -> None:
    keys = f'{{match: {{path: "/ws/{{room}}"}}, upstream_path: "{template}"}}'
    compiled = route(keys).policy.routes[0].upstream_path
    assert compiled is not None
    assert compiled.render({"path": {"room": "x"}, "room": "x"}) in ("/x/x", "/x")


@pytest.mark.parametrize(
    "template", ["/x/{rom}", "/{room.x}", "/{path}", "/{path.rom}", "/{room", "x", "/a/../b", "/?x"]
)
def test_a_bad_path_at_the_upstream(wrong: Mistakes, template: str) -> None:
    (mistake,) = wrong(f'{{match: {{path: "/ws/{{room}}"}}, upstream_path: "{template}"}}')
    assert mistake.startswith("4:50: routes[0].upstream_path: ")


def test_without_providers_only_anonymous_routes_are_possible(
    load: Load, mistakes: Mistakes, small: str
) -> None:
    upstreams = small.splitlines()[0] + "\n"
    assert load(upstreams + "routes: [{authenticate: {anonymous: true}}]").policy.routes
    assert mistakes(upstreams) == [
        "1:1: jwt.providers: is empty, so that no token could ever be good; "
        "add a provider, or set authenticate.anonymous on every route"
    ]


def test_a_provider_where_there_is_none(mistakes: Mistakes, small: str) -> None:
    upstreams = small.splitlines()[0] + "\n"
    (mistake,) = mistakes(
        upstreams + "routes: [{authenticate: {anonymous: true, providers: [app]}}]"
    )
    assert "there is no provider app; define it first" in mistake


def test_only_the_host_itself_by_default(route: Load) -> None:
    (compiled,) = route("{}").policy.routes
    assert compiled.origins.allow is None
    assert not compiled.origins.missing_allowed


@pytest.mark.parametrize(
    ("origins", "warning"),
    [
        ("{allow: ['*']}", "every web page may connect"),
        ("{missing: allow}", "lets programs that are no browsers in without an Origin"),
    ],
)
def test_open_origins_are_warned_of(route: Load, origins: str, warning: str) -> None:
    (found,) = route(f"{{origins: {origins}}}").warnings
    assert found.wrong == warning


@pytest.mark.parametrize(
    ("authenticate", "has_effect"),
    [
        ("{sources: [{cookie: a}]}", False),
        ("{sources: [{cookie: a}, {cookie: b}]}", False),
        ("{sources: [{cookie: a}, header]}", True),
        ("{sources: [{cookie: a}], anonymous: true}", True),
    ],
)
def test_a_missing_origin_is_never_taken_with_cookies_alone(
    route: Load, authenticate: str, has_effect: bool
) -> None:
    keys = f"{{origins: {{missing: allow}}, authenticate: {authenticate}}}"
    warning = route(keys).warnings[0]
    assert warning.path == "routes[0].origins.missing"
    assert warning.wrong.startswith("has no effect") is not has_effect


@pytest.mark.parametrize(
    ("path", "segment"), [("/ws/*", "*"), ("/ws/**", "**"), ("/:room/x", ":room"), ("/a/b*", "b*")]
)
def test_other_programs_wildcards_are_warned_of(route: Load, path: str, segment: str) -> None:
    (warning,) = route(f'{{match: {{path: "{path}"}}}}').warnings
    assert str(warning) == (
        f"policy.yaml:4:20: routes[0].match.path: {segment} stands for itself; "
        "write {name} or {rest...} for any text"
    )
    (warning,) = route(f'{{upstream_path: "{path}"}}').warnings
    assert warning.path == "routes[0].upstream_path"


def test_a_colon_within_a_segment_is_text(route: Load) -> None:
    assert route('{match: {path: "/a:b"}}').warnings == ()


@pytest.mark.parametrize("source", ["https://a@b", "null", "https://x.example/", "https://*"])
def test_what_is_no_origin(wrong: Mistakes, source: str) -> None:
    (mistake,) = wrong(f"{{origins: {{allow: ['{source}']}}}}")
    assert mistake.startswith("4:24: routes[0].origins.allow[0]: ")


@pytest.mark.parametrize("reason", ["token_missing", "message_rate", "not_a_member"])
def test_a_code_for_a_reason_or_for_a_rules_own(route: Load, reason: str) -> None:
    rule = "{claim: a, exists: true, reason: not_a_member}"
    keys = f"{{authorize: [{rule}], refuse: {{with: auto, hold: 1s, codes: {{{reason}: 4000}}}}}}"
    assert route(keys).policy.routes[0].refuse.codes == {reason: 4000}


def test_the_reason_of_another_route_is_not_known(mistakes: Mistakes, small: str) -> None:
    text = (
        "routes:\n"
        "  - {match: {path: /a}, authorize: [{claim: a, exists: true, reason: not_mine}]}\n"
        "  - {match: {path: /b}, refuse: {codes: {not_mine: 4000}}}\n"
    )
    (mistake,) = mistakes(small + text)
    assert mistake.startswith("5:42: routes[1].refuse.codes.not_mine: is not a reason; ")


def test_a_hold_that_nothing_waits_for_is_warned_of(route: Load) -> None:
    (warning,) = route("{refuse: {hold: 1s}}").warnings
    assert warning.wrong == "has no effect with `with: http`"


def test_the_burst_is_the_rate_where_none_is_given(route: Load) -> None:
    limits = route("{limits: {messages: 60/minute, bytes: 1KiB/second}}").policy.routes[0].limits
    assert limits.messages is not None
    assert (limits.messages.amount, limits.messages.burst) == (60, 60)
    assert limits.bytes is not None
    assert (limits.bytes.amount, limits.bytes.burst) == (1024, 1024)


@pytest.mark.parametrize(
    ("size", "client", "upstream"),
    [
        ("1KiB", 1024, 1024),
        ("{client: 1KiB}", 1024, None),
        ("{upstream: 1KiB}", 1024**2, 1024),
        ("{client: null}", None, None),
        ("null", None, None),
    ],
)
def test_the_size_of_messages(
    route: Load, size: str, client: int | None, upstream: int | None
) -> None:
    limits = route(f"{{limits: {{message_size: {size}}}}}").policy.routes[0].limits
    assert (limits.client_message, limits.upstream_message) == (client, upstream)


@pytest.mark.parametrize("name", ["bad_handshake", "overloaded", "internal_error"])
def test_a_code_for_what_is_never_told_in_a_close_frame_is_refused(
    wrong: Mistakes, name: str
) -> None:
    (mistake,) = wrong(f"refuse: {{with: close, codes: {{{name}: 4000}}}}")
    assert mistake.endswith(f"codes.{name}: is never told in a close frame; remove it")


def test_codes_of_handshakes_without_a_close_frame_are_warned_of(route: Load) -> None:
    (warning,) = route("refuse: {codes: {token_conflict: 4001, message_rate: 4002}}").warnings
    assert warning.path == "routes[0].refuse.codes"
    assert route("refuse: {codes: {message_rate: 4002}}").warnings == ()
    assert route("refuse: {with: auto, codes: {token_missing: 4001}}").warnings == ()
