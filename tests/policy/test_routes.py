import re
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy import routes
from sidecar.policy.credentials import Authenticate
from sidecar.policy.headers import IdentityRules
from sidecar.policy.limits import Limits
from sidecar.policy.origins import OriginRule
from sidecar.policy.refuse import Refuse
from sidecar.policy.routes import (
    HostPattern,
    Match,
    PathPattern,
    Route,
    check_path,
    find_route,
    split_path,
)


def route(name: str, path: str, host: str | None = None) -> Route:
    return Route(
        name=name,
        path=PathPattern.parse(path),
        host=HostPattern.parse(host) if host else None,
        upstream="up",
        upstream_path=None,
        origins=OriginRule(),
        authenticate=Authenticate(None, ()),
        authorize=(),
        identity=IdentityRules(),
        forward_headers=frozenset(),
        limits=Limits(),
        refuse=Refuse(),
    )


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/ws",
        "/ws/",
        "/ws/room-1_a.b~c",
        "/ws/...",
        "/ws/.well-known",
        "/ws/a..b",
        "/ws/!$&'()*+,=:@",
        "/ws/[a]|b^",
        "/ws/a%20b",
        "/ws/%40user%3a1%2B",
        "/caf%C3%A9/%e6%97%a5",
    ],
)
def test_an_unambiguous_path_passes(path: str) -> None:
    assert check_path(path) is None


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "slash"),
        ("ws", "slash"),
        ("*", "slash"),
        ("http://host/ws", "slash"),
        ("\\ws", "slash"),
        ("//", "empty or dot"),
        ("//ws", "empty or dot"),
        ("//evil.com/ws", "empty or dot"),
        ("/ws//", "empty or dot"),
        ("/ws//a", "empty or dot"),
        ("/.", "empty or dot"),
        ("/..", "empty or dot"),
        ("/./ws", "empty or dot"),
        ("/public/../ws", "empty or dot"),
        ("/ws/..", "empty or dot"),
        ("/ws/../", "empty or dot"),
        ("/ws/..%20/admin", "empty or dot"),
        ("/ws/%20", "empty or dot"),
        ("/ws/..%c2%a0/admin", "empty or dot"),
        ("/ws/%2e%2e/admin", "needs no encoding"),
        ("/ws/.%2E/admin", "needs no encoding"),
        ("/%77s", "needs no encoding"),
        ("/ws/%7e", "needs no encoding"),
        ("/ws/%2d%5F%30%5a", "needs no encoding"),
        ("/ws%2fadmin", "encoded delimiter"),
        ("/ws%2Fadmin", "encoded delimiter"),
        ("/ws/..%5c..%5cadmin", "encoded delimiter"),
        ("/ws%3bx", "encoded delimiter"),
        ("/ws%3Ftoken=x", "encoded delimiter"),
        ("/ws%23x", "encoded delimiter"),
        ("/ws/%252e%252e/admin", "encoded delimiter"),
        ("/ws/%25", "encoded delimiter"),
        ("/ws%00", "control"),
        ("/ws%0d%0aX-Admin:1", "control"),
        ("/ws%09", "control"),
        ("/ws%7f", "control"),
        ("/ws%c2%85", "control"),
        ("/ws;x", "semicolon"),
        ("/ws;/../admin", "semicolon"),
        ("/ws#x", "number sign"),
        ("/ws?x", "question mark"),
        ("/ws\\admin", "backslash"),
        ("/ws/%", "bad percent"),
        ("/ws/%4", "bad percent"),
        ("/ws/%zz", "bad percent"),
        ("/ws/%+1", "bad percent"),
        ("/ws/%u0041", "bad percent"),
        ("/ws/%c0%ae%c0%ae/admin", "not UTF-8"),
        ("/ws%c0%af", "not UTF-8"),
        ("/ws/%ed%a0%80", "not UTF-8"),
        ("/ws/%ff", "not UTF-8"),
        ("/ws/%c3/%a9", "not UTF-8"),
        ("/ws/a b", "visible ASCII"),
        ("/ws/\t", "visible ASCII"),
        ("/ws\r\nX: 1", "visible ASCII"),
        ("/ws\n", "visible ASCII"),
        ("/ws\x00", "visible ASCII"),
        ("/ws\x7f", "visible ASCII"),
        ("/café", "visible ASCII"),
        ("/ws/١", "visible ASCII"),
    ],
)
def test_an_ambiguous_path_is_refused(path: str, why: str) -> None:
    assert why in str(check_path(path))


PATHS = st.one_of(
    st.text().map("/".__add__),
    st.text(alphabet="/.%25fFeEcC3b;\\?# a~").map("/".__add__),
    st.lists(st.text(min_size=1)).map(
        lambda parts: "/" + "/".join(quote(part, "") for part in parts)
    ),
)


@given(PATHS)
def test_the_segments_of_a_path_that_passes_mean_one_thing(path: str) -> None:
    if check_path(path) is not None:
        return
    assert re.fullmatch(r"/[!-~]*", path)
    segments = path[1:].split("/")
    for raw in segments:
        text = unquote_to_bytes(raw).decode()
        assert not set(text) & set("/\\;?#%\x00\r\n")
        assert text.strip() not in {".", ".."}
        assert unquote_to_bytes(text) == text.encode()  # a second decoding changes nothing
    assert "" not in segments[:-1]


@given(PATHS)
def test_the_reason_never_holds_what_the_client_sent(path: str) -> None:
    known = {
        check_path(bad) for bad in ("", "/\x00", "/;", "/%", "/%41", "/%2f", "/%ff", "/%01", "/.")
    }
    assert check_path(path) in known | {None}


@given(st.lists(st.text(min_size=1), min_size=1))
def test_names_that_browsers_encode_come_back_as_captures(names: list[str]) -> None:
    try:
        path = "/ws/" + "/".join(quote(name, safe="~") for name in names)
    except UnicodeEncodeError:
        return
    if check_path(path) is None:
        assert PathPattern.parse("/ws/{all...}").match(path) == {"all": "/".join(names)}


@pytest.mark.parametrize(
    ("pattern", "path", "captures"),
    [
        ("/", "/", {}),
        ("/ws", "/ws", {}),
        ("/ws/", "/ws/", {}),
        ("/ws/{room}", "/ws/a", {"room": "a"}),
        ("/ws/{room}", "/ws/a%20b%C3%A9", {"room": "a bé"}),
        ("/{a}/x/{B_2}", "/1/x/2", {"a": "1", "B_2": "2"}),
        ("/{rest...}", "/", {"rest": ""}),
        ("/{rest...}", "/a/b/", {"rest": "a/b/"}),
        ("/ws/{rest...}", "/ws/", {"rest": ""}),
        ("/ws/{id}/{rest...}", "/ws/1/a%40b/c", {"id": "1", "rest": "a@b/c"}),
        ("/caf%C3%A9", "/caf%c3%a9", {}),
        ("/a@b", "/a%40b", {}),
    ],
)
def test_a_pattern_captures_decoded_segments(
    pattern: str, path: str, captures: dict[str, str]
) -> None:
    assert PathPattern.parse(pattern).match(path) == captures


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/ws", "/"),
        ("/ws", "/ws/"),
        ("/ws/", "/ws"),
        ("/ws", "/WS"),
        ("/ws", "/wsx"),
        ("/ws", "/ws/a"),
        ("/ws/{room}", "/ws"),
        ("/ws/{room}", "/ws/"),
        ("/ws/{room}", "/ws/a/b"),
        ("/ws/{room}", "/ws/a/"),
        ("/ws/{room}/x", "/ws/a/y"),
        ("/ws/{rest...}", "/ws"),
        ("/ws/{rest...}", "/wss/a"),
    ],
)
def test_another_path_does_not_match(pattern: str, path: str) -> None:
    assert PathPattern.parse(pattern).match(path) is None


@pytest.mark.parametrize(
    ("pattern", "captures"),
    [("/ws", ()), ("/{b}/{a}", ("b", "a")), ("/{x}/y/{rest...}", ("x", "rest"))],
)
def test_captures_are_named_in_order(pattern: str, captures: tuple[str, ...]) -> None:
    assert PathPattern.parse(pattern).captures == captures


@pytest.mark.parametrize(
    ("pattern", "mistake"),
    [
        ("", "does not start with a slash; write"),
        ("ws", "does not start with a slash; write"),
        ("{rest...}", "does not start with a slash; write"),
        ("//ws", "empty or dot segment; write"),
        ("/ws/../x", "empty or dot segment; write"),
        ("/ws?x", "question mark or number sign; write"),
        ("/ws%2fx", "encoded delimiter; write"),
        ("/%77s", "needs no encoding; write"),
        ("/café", "not visible ASCII; write"),
        ("/{a}/{a}", "the same name; name each"),
        ("/{a}/{a...}", "the same name; name each"),
        ("/{rest...}/x", "not the last segment; nothing"),
        ("/{rest...}/{more...}", "not the last segment; nothing"),
        ("/{rest...}/", "not the last segment; nothing"),
        ("/ws-{room}", "no capture; write {name}"),
        ("/{a}{b}", "no capture; write {name}"),
        ("/{}", "no capture; write {name}"),
        ("/{1a}", "no capture; write {name}"),
        ("/{a-b}", "no capture; write {name}"),
        ("/{a..}", "no capture; write {name}"),
        ("/{a", "no capture; write {name}"),
        ("/a}", "no capture; write {name}"),
        ("/{é}", "no capture; write {name}"),
    ],
)
def test_a_bad_pattern_is_refused_with_its_remedy(pattern: str, mistake: str) -> None:
    with pytest.raises(ValueError, match=re.escape(mistake)):
        PathPattern.parse(pattern)


@given(st.text(), st.sampled_from(["/", "/ws/{room}", "/{a}/{rest...}", "/{rest...}"]))
def test_matching_never_raises(path: str, source: str) -> None:
    pattern = PathPattern.parse(source)
    captures = pattern.match(path)
    assert captures is None or tuple(captures) == pattern.captures


@given(st.text(alphabet="/{}.ab%2f;é"))
def test_any_pattern_parses_or_is_refused_with_a_remedy(source: str) -> None:
    mistake = None
    try:
        PathPattern.parse(source)
    except ValueError as error:
        mistake = str(error)
    assert "; " in mistake if mistake else source.startswith("/")


@pytest.mark.parametrize(
    ("pattern", "host"),
    [
        ("chat.example.com", "chat.example.com"),
        ("chat.example.com", "chat.example.com:8443"),
        ("Chat.Example.COM", "chat.example.com"),
        ("chat.example.com:8443", "chat.example.com:8443"),
        ("chat.example.com:443", "chat.example.com"),
        ("chat.example.com:80", "chat.example.com"),
        ("*.example.com", "a.example.com"),
        ("*.example.com", "a.b.example.com:99"),
        ("*.example.com:99", "a.example.com:99"),
        ("[::1]", "[0::1]:8080"),
        ("localhost", "localhost"),
    ],
)
def test_a_host_fits_its_pattern(pattern: str, host: str) -> None:
    assert HostPattern.parse(pattern).matches(host)


@pytest.mark.parametrize(
    ("pattern", "host"),
    [
        ("chat.example.com", "example.com"),
        ("chat.example.com", "chat.example.com.evil.com"),
        ("chat.example.com", "evilchat.example.com"),
        ("chat.example.com", "chat.example.com."),
        ("chat.example.com", "chat.example.com:x"),
        ("chat.example.com", "a@chat.example.com"),
        ("chat.example.com", ""),
        ("chat.example.com:8443", "chat.example.com"),
        ("chat.example.com:443", "chat.example.com:80"),
        ("*.example.com", "example.com"),
        ("*.example.com", ".example.com"),
        ("*.example.com", "evilexample.com"),
        ("*.example.com:99", "a.example.com:98"),
    ],
)
def test_another_host_does_not_fit(pattern: str, host: str) -> None:
    assert not HostPattern.parse(pattern).matches(host)


def test_a_pattern_that_was_never_parsed_fits_nothing() -> None:
    assert not HostPattern("not a host").matches("not a host")


@pytest.mark.parametrize(
    ("pattern", "mistake"),
    [
        ("", "not a host; write"),
        ("*", "not a host; write"),
        ("*.", "not a host; write"),
        ("a.*.com", "not a host; write"),
        ("*.*.com", "not a host; write"),
        ("https://example.com", "not a host; write"),
        ("example.com/ws", "not a host; write"),
        ("example.com:0", "not a host; write"),
        ("example.com.", "not a host; write"),
        ("*.127.0.0.1", "an address has no subdomains"),
        ("*.[::1]:80", "an address has no subdomains"),
        ("чат.example.com", "not ASCII; write it in Punycode"),
    ],
)
def test_a_bad_host_pattern_is_refused_with_its_remedy(pattern: str, mistake: str) -> None:
    with pytest.raises(ValueError, match=mistake):
        HostPattern.parse(pattern)


ROUTES = (
    route("chat", "/ws/{room}", "chat.example.com"),
    route("any", "/ws/{name}"),
    route("later", "/ws/{never}"),
)


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        ("chat.example.com", "/ws/a", Match(ROUTES[0], {"room": "a"})),
        ("other.example.com", "/ws/a", Match(ROUTES[1], {"name": "a"})),
        ("chat.example.com", "/other", None),
    ],
)
def test_the_first_route_that_fits_is_found(host: str, path: str, expected: Any) -> None:
    assert find_route(ROUTES, host, path) == expected


def test_without_routes_nothing_is_found() -> None:
    assert find_route((), "chat.example.com", "/") is None


PLAIN = st.text("/aZ09._~-%e", max_size=12).map("/".__add__)


@given(st.one_of(PATHS, PLAIN))
def test_a_plain_path_passes_as_it_would_with_every_check(path: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes, "_PLAIN_PATH", re.compile("(?!)"))
        checked = check_path(path)
    assert check_path(path) == checked
    if checked is None:
        decoded = [unquote(part) for part in path.removeprefix("/").split("/")]
        assert split_path(path) == decoded


@pytest.mark.parametrize("path", ["/ws", "/ws/", "/a.b/~c/-d_1"])
def test_what_most_paths_are_is_plain(path: str) -> None:
    assert routes._PLAIN_PATH.fullmatch(path)
