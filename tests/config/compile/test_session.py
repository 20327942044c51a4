"""What holds while a connection lives, and messages that bring a token."""

from collections.abc import Callable, Mapping

import pytest

from sidecar.config.reference import json_schema
from sidecar.config.source import Loaded
from sidecar.policy.credentials import MaxWaiting, MessageSource, Source, SourceKind
from sidecar.policy.replies import Reply
from sidecar.policy.session import DEFAULT_SESSION, Heartbeat, Session

Load = Callable[[str], Loaded]
Mistakes = Callable[[str], list[str]]


@pytest.fixture
def session(load: Load, small: str) -> Callable[[str], Session]:
    """The session of a policy's only route, whose keys stand on line 3."""
    return lambda keys: load(f"{small}routes: [{{session: {keys}}}]\n").policy.routes[0].session


@pytest.fixture
def wrong(mistakes: Mistakes, small: str) -> Mistakes:
    return lambda keys: mistakes(f"{small}routes: [{{session: {keys}}}]\n")


@pytest.fixture
def source(load: Load, small: str) -> Callable[[str], MessageSource]:
    """The message source of a policy's only route."""

    def source(keys: str) -> MessageSource:
        text = f"{small}routes: [{{authenticate: {{sources: [{{message: {keys}}}]}}}}]\n"
        compiled = load(text).policy.routes[0].authenticate
        assert (compiled.sources, compiled.anonymous) == ((), False)
        assert compiled.message is not None
        return compiled.message

    return source


@pytest.mark.parametrize("keys", ["{}", "{expiry: close, warn: null, idle_timeout: null}"])
def test_what_holds_by_default(session: Callable[[str], Session], keys: str) -> None:
    assert session(keys) == DEFAULT_SESSION


def test_without_the_key_the_same_holds(load: Load, small: str) -> None:
    assert load(small).policy.routes[0].session == DEFAULT_SESSION


@pytest.mark.parametrize(
    ("keys", "heartbeat"),
    [
        ("{}", Heartbeat(30.0, 10.0)),
        ("{interval: 5s}", Heartbeat(5.0, 5.0)),
        ("{interval: 5s, timeout: 5s}", Heartbeat(5.0, 5.0)),
        ("{timeout: 30s}", Heartbeat(30.0, 30.0)),
    ],
)
def test_a_pong_has_no_longer_than_until_the_next_ping(
    session: Callable[[str], Session], keys: str, heartbeat: Heartbeat
) -> None:
    assert session(f"{{heartbeat: {keys}}}").heartbeat == heartbeat


def test_a_refresh_may_go_unanswered(session: Callable[[str], Session]) -> None:
    refresh = session("{refresh: {when: {/t: null}, token: /x}}").refresh
    assert refresh is not None
    assert refresh.reply is None
    assert refresh.pattern.match(b'{"t": null, "x": "a.b.c"}') == "a.b.c"
    assert refresh.pattern.limit == 8192


@pytest.mark.parametrize("value", ["[1, {a: null}]", '"bye {user}"', "1", "false"])
def test_a_message_may_be_any_value(session: Callable[[str], Session], value: str) -> None:
    warn = session(f"{{warn: {{message: {value}}}}}").warn
    assert warn is not None
    assert warn.before == 60.0


@pytest.mark.parametrize(
    ("keys", "mistake"),
    [
        (
            "{expiry: ignore, warn: {message: a}}",
            "3:43: routes[0].session.warn: warns of an end that `expiry: ignore` takes away; "
            "remove it, or use `expiry: close`",
        ),
        (
            "{heartbeat: {interval: 5s, timeout: 6s}}",
            "3:56: routes[0].session.heartbeat.timeout: is longer than the interval, so that the "
            "next ping comes first; give at most the interval",
        ),
        (
            "{warn: {message: {a: [b, '{usr}']}}}",
            "3:45: routes[0].session.warn.message.a[1]: {usr} names something unknown here; a "
            "reference starts with one of: claims, expires_in, now, now_ms, reason, user, uuid",
        ),
        (
            "{refresh: {when: {/t: a}, token: /x, reply: ['{claims}', '{']}}",
            "3:65: routes[0].session.refresh.reply[0]: {claims} is not one value; "
            "name a part: {claims.NAME}",
        ),
        (
            f"{{warn: {{message: {'x' * 20000}}}}}",
            "3:37: routes[0].session.warn.message: is over 16 KiB; shorten it",
        ),
        (
            "{refresh: {when: {/x: a}, token: /x/y}}",
            "3:37: routes[0].session.refresh.when: no message has both a value at /x and a token "
            "at /x/y; name two places that do not contain each other",
        ),
        (
            "{refresh: {when: {type: a}, token: /x}}",
            "3:38: routes[0].session.refresh.when.type: 'type' is not a pointer; "
            "begin it with a slash, such as /data/token",
        ),
        (
            "{refresh: {when: {/t: [a]}, token: /x}}",
            "3:42: routes[0].session.refresh.when./t: is not a single value; "
            "give text, a number, true, false or null",
        ),
        (
            "{refresh: {when: {}, token: /x}}",
            "3:37: routes[0].session.refresh.when: is empty; give it at least one entry",
        ),
        (
            "{refresh: {when: {/t: a}, token: /~x}}",
            '3:53: routes[0].session.refresh.token: "~" stands alone in a pointer; '
            'write ~0 for "~" and ~1 for "/"',
        ),
        (
            "{idle_timeout: 0s}",
            "3:35: routes[0].session.idle_timeout: '0s' is zero; give more than zero",
        ),
        ("{lookups: {}}", "3:21: routes[0].session.lookups: is not supported yet; remove it"),
        ("{warn: {}}", "3:27: routes[0].session.warn.message: is missing; add it"),
    ],
)
def test_a_session_that_cannot_be_is_refused(wrong: Mistakes, keys: str, mistake: str) -> None:
    assert wrong(keys)[0] == mistake


def test_every_bad_template_of_a_message_is_told(wrong: Mistakes) -> None:
    told = wrong("{warn: {message: ['{', {a: '}'}, ok]}}")
    assert [one.split(": ")[1] for one in told] == [
        "routes[0].session.warn.message[0]",
        "routes[0].session.warn.message[1].a",
    ]


def test_the_first_message_as_a_source(source: Callable[[str], MessageSource]) -> None:
    plain = source("{token: /token}")
    assert (plain.timeout, plain.reply, plain.failure) == (30.0, None, None)
    assert plain.pattern.match(b'{"token": "a.b.c"}') == "a.b.c"
    assert plain.max_waiting == MaxWaiting(100, 1000)
    assert source("{token: /x, max_waiting: {total: 5}}").max_waiting == MaxWaiting(100, 5)
    told = source("{when: {/t: a}, token: /x, timeout: 1s, reply: ok, failure: ['{reason}']}")
    assert (told.timeout, told.reply, told.failure) == (1.0, Reply("ok"), Reply(["{reason}"]))


def test_sources_in_the_handshake_come_before_the_message(load: Load, small: str) -> None:
    keys = "{sources: [header, {cookie: a}, {message: {token: /t}}]}"
    compiled = load(f"{small}routes: [{{authenticate: {keys}}}]").policy.routes[0].authenticate
    assert compiled.sources == (
        Source(SourceKind.HEADER, "Authorization"),
        Source(SourceKind.COOKIE, "a"),
    )
    assert compiled.message is not None


@pytest.mark.parametrize(
    ("authenticate", "mistake"),
    [
        (
            "{sources: [{message: {token: /t}}, header]}",
            "3:36: routes[0].authenticate.sources[0]: is not the last source; "
            "put it last, once: the handshake is looked at first",
        ),
        (
            "{sources: [{message: {token: /t}}, {message: {token: /t}}]}",
            "3:36: routes[0].authenticate.sources[0]: is not the last source; "
            "put it last, once: the handshake is looked at first",
        ),
        (
            "{anonymous: true, sources: [{message: {token: /t}}]}",
            "3:37: routes[0].authenticate.anonymous: lets in without a token, so that no first "
            "message is waited for; remove it, or the source `message`",
        ),
        (
            "{sources: [{message: {token: /t, when: {/t: 1}}}]}",
            "3:64: routes[0].authenticate.sources[0].message.when: no message has both a value at "
            "/t and a token at /t; name two places that do not contain each other",
        ),
        (
            "{sources: [{message: {token: /t, failure: '{'}}]}",
            "3:67: routes[0].authenticate.sources[0].message.failure: "
            '"{" is not closed; write {name} for a reference, {{ for a brace',
        ),
        (
            "{sources: [message]}",
            "3:36: routes[0].authenticate.sources[0]: 'message' needs keys; "
            "write {message: {token: /data/token}}",
        ),
        (
            "{sources: [{}]}",
            "3:36: routes[0].authenticate.sources[0]: "
            "has none of header, cookie, query, subprotocol, message; give exactly one of them",
        ),
    ],
)
def test_a_message_source_that_cannot_be_is_refused(
    mistakes: Mistakes, small: str, authenticate: str, mistake: str
) -> None:
    assert mistakes(f"{small}routes: [{{authenticate: {authenticate}}}]") == [mistake]


def test_codes_are_told_to_those_whose_first_message_fails(load: Load, small: str) -> None:
    keys = (
        "authenticate: {sources: [{message: {token: /t}}]}, "
        "refuse: {codes: {token_invalid: 4000}, hold: 1s}"
    )
    assert load(f"{small}routes: [{{{keys}}}]").warnings == ()


@pytest.mark.parametrize(
    ("drain", "spread"),
    [("{}", 10.0), ("{grace: 4s}", 4.0), ("{spread: 30s}", 30.0), ("{spread: 0s}", 0.0)],
)
def test_close_frames_are_spread_within_the_grace(
    load: Load, small: str, drain: str, spread: float
) -> None:
    assert load(f"{small}server: {{drain: {drain}}}").policy.server.drain.spread == spread


def test_a_spread_beyond_the_grace_is_refused(mistakes: Mistakes, small: str) -> None:
    assert mistakes(f"{small}server: {{drain: {{grace: 9s, spread: 10s}}}}") == [
        "3:37: server.drain.spread: is longer than grace, at whose end every connection is cut; "
        "give at most the grace"
    ]


def test_the_reference_tells_of_these_keys() -> None:
    definitions = json_schema()["$defs"]
    properties: Mapping[str, object] = definitions["Session"]["properties"]
    assert sorted(properties) == [
        *("expiry", "heartbeat", "idle_timeout", "max_lifetime", "refresh", "revocable", "warn"),
    ]
    assert definitions["Session"]["x-not-supported-yet"] == ["lookups"]
