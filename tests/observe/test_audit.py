import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sidecar.errors import ConfigError
from sidecar.observe.audit import Action, AuditLog, Closure, Decision, Event, hash_key
from sidecar.policy.compiled import Audit, Logging

KEY = b"0123456789abcdef0123456789abcdef"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.dBjftJeZ4CVP-mB92K27uhbUJU1p1r"

ALLOWED = Decision(
    allowed=True,
    reason=None,
    rule=None,
    detail="",
    route="chat",
    user="alice",
    provider="app",
    token_id="t-1",
    address="192.0.2.1",
    path="/ws/lobby",
    request_id="r-1",
    connection_id="c-1",
    shadowed=("verified", "member"),
    seconds=0.0012345678,
)
REFUSED = ALLOWED._replace(
    allowed=False,
    reason="claims_denied",
    rule="not_a_member",
    detail="no such role",
    connection_id=None,
    shadowed=(),
)
CLOSED = Closure(
    connection_id="c-1",
    request_id="r-1",
    route="chat",
    user="alice",
    code=1009,
    by="sidecar",
    reason="message_too_big",
    seconds=12.3456,
    client_messages=3,
    client_bytes=300,
    upstream_messages=4,
    upstream_bytes=4000,
    detail="200 KiB",
)
REVOKED = Action(
    Event.REVOCATION_ADDED,
    "192.0.2.9",
    revocation_id="rv-1",
    kind="user",
    provider="app",
    user="alice",
    before=1700000001.0,
    closed=2,
    detail="lost laptop",
)


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def audit(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., AuditLog]]:
    """Makes audit logs that write to `tmp_path / "audit.log"`."""
    made: list[AuditLog] = []

    def make(*, sample: float = 1.0, key: bytes | None = KEY, **rules: Any) -> AuditLog:
        to = Audit(str(tmp_path / "audit.log"), sample)
        made.append(AuditLog(Logging(audit=to, **rules), clock=clock, hash_key=key))
        return made[-1]

    yield make
    for log in made:
        log.close()


def lines(folder: Path) -> list[str]:
    return (folder / "audit.log").read_text("ascii").splitlines()


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(folder)]


Make = Callable[..., AuditLog]


def test_an_allowed_handshake_says_who_where_and_what(audit: Make, tmp_path: Path) -> None:
    audit(hash_user_ids=False).decision(ALLOWED)
    assert events(tmp_path) == [
        {
            "time": "2023-11-14T22:13:20.000000Z",
            "level": "info",
            "event": "handshake",
            "decision": "allowed",
            "request_id": "r-1",
            "connection_id": "c-1",
            "address": "192.0.2.1",
            "route": "chat",
            "user": "alice",
            "provider": "app",
            "token_id": "t-1",
            "seconds": 0.001235,
            "shadowed": "verified, member",
            "path": "/ws/lobby",
        }
    ]


def test_a_refused_handshake_says_why(audit: Make, tmp_path: Path) -> None:
    audit().decision(REFUSED)
    [event] = events(tmp_path)
    assert (event["level"], event["decision"]) == ("warning", "refused")
    assert (event["reason"], event["rule"]) == ("claims_denied", "not_a_member")
    assert event["detail"] == "no such role"
    assert "connection_id" not in event


def test_a_closure_says_by_whom_and_what_went_each_way(audit: Make, tmp_path: Path) -> None:
    audit(hash_user_ids=False).closed(CLOSED)
    [event] = events(tmp_path)
    assert event == {
        "time": "2023-11-14T22:13:20.000000Z",
        "level": "info",
        "event": "connection_closed",
        "code": 1009,
        "by": "sidecar",
        "reason": "message_too_big",
        "request_id": "r-1",
        "connection_id": "c-1",
        "route": "chat",
        "user": "alice",
        "seconds": 12.346,
        "client_messages": 3,
        "client_bytes": 300,
        "upstream_messages": 4,
        "upstream_bytes": 4000,
        "detail": "200 KiB",
    }


def test_a_revocation_says_what_it_means_and_what_it_ended(audit: Make, tmp_path: Path) -> None:
    audit(hash_user_ids=False).action(REVOKED)
    assert events(tmp_path) == [
        {
            "time": "2023-11-14T22:13:20.000000Z",
            "level": "info",
            "event": "revocation_added",
            "address": "192.0.2.9",
            "revocation_id": "rv-1",
            "kind": "user",
            "provider": "app",
            "user": "alice",
            "before": 1700000001.0,
            "closed": 2,
            "detail": "lost laptop",
        }
    ]


def test_a_kick_says_which_connection(audit: Make, tmp_path: Path) -> None:
    audit().action(Action(Event.KICKED, "192.0.2.9", connection_id="c-1"))
    [event] = events(tmp_path)
    assert (event["event"], event["connection_id"]) == ("kicked", "c-1")
    assert set(event) == {"time", "level", "event", "address", "connection_id"}


def test_whom_a_revocation_names_is_a_pseudonym_too(audit: Make, tmp_path: Path) -> None:
    log = audit()
    log.decision(ALLOWED)
    log.action(REVOKED)
    first, second = (event["user"] for event in events(tmp_path))
    assert first == second != "alice"


def test_a_refused_logout_token_counts_as_a_refusal(audit: Make, tmp_path: Path) -> None:
    log = audit()
    refused = Action(Event.LOGOUT_REFUSED, "192.0.2.9", detail="x" * 2000)
    for _ in range(150):
        log.action(refused)
    log.close()
    written = events(tmp_path)
    assert [event["event"] for event in written[:100]] == ["logout_refused"] * 100
    assert {event["level"] for event in written} == {"warning"}
    assert all(len(line) < 512 for line in lines(tmp_path))
    assert written[100]["reasons"] == {"logout_refused": 50}


def test_tokens_that_were_taken_are_not_written_without_bound(audit: Make, tmp_path: Path) -> None:
    log = audit()
    for _ in range(150):
        log.action(Action(Event.REFRESHED, "192.0.2.9", user="alice"))
    log.close()
    written = events(tmp_path)
    assert [event["event"] for event in written[:100]] == ["token_refreshed"] * 100
    assert {event["level"] for event in written[:100]} == {"info"}
    assert written[100]["reasons"] == {"token_refreshed": 50}


def test_a_pseudonym_is_a_keyed_hash(audit: Make, tmp_path: Path) -> None:
    log = audit()
    log.decision(ALLOWED)
    log.closed(CLOSED)
    expected = hmac.new(KEY, b"alice", hashlib.sha256).hexdigest()[:16]
    assert [event["user"] for event in events(tmp_path)] == [expected, expected]


def test_without_a_key_each_process_has_its_own_pseudonyms(audit: Make, tmp_path: Path) -> None:
    audit(key=None).decision(ALLOWED)
    audit(key=None).decision(ALLOWED)
    first, second = (event["user"] for event in events(tmp_path))
    assert len(first) == len(second) == 16
    assert first != second


def test_an_anonymous_client_has_no_pseudonym(audit: Make, tmp_path: Path) -> None:
    audit().closed(CLOSED._replace(user=None))
    assert "user" not in events(tmp_path)[0]


def test_a_user_that_cannot_be_encoded_has_a_pseudonym(audit: Make, tmp_path: Path) -> None:
    audit().decision(ALLOWED._replace(user="a\ud800"))
    assert len(events(tmp_path)[0]["user"]) == 16


def test_the_hash_key_comes_from_the_environment() -> None:
    assert hash_key({"WS_SIDECAR_HASH_KEY": KEY.decode()}) == KEY
    assert hash_key({}) is None


@pytest.mark.parametrize("text", ["", "x" * 31])
def test_a_short_hash_key_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="WS_SIDECAR_HASH_KEY is shorter than 32 bytes"):
        hash_key({"WS_SIDECAR_HASH_KEY": text})


@pytest.mark.parametrize(
    "path",
    ["/ws?token=hunter2", f"/ws/{TOKEN}", "/ws\r\n{}?hunter2"],
)
def test_neither_query_nor_token_of_a_path_is_written(
    audit: Make, tmp_path: Path, path: str
) -> None:
    log = audit()
    log.decision(REFUSED._replace(path=path, detail=f"in {TOKEN}"))
    log.decision(ALLOWED._replace(path=path))
    text = (tmp_path / "audit.log").read_text()
    assert text.count("\n") == 2
    assert "hunter2" not in text
    assert "eyJ" not in text


texts = st.text(max_size=700) | st.text('é\x00\x7f\\"\U0001f600', min_size=1, max_size=2000)


@given(
    st.builds(
        Decision,
        allowed=st.just(False),
        reason=st.none() | texts,
        rule=st.none() | texts,
        detail=texts,
        route=st.none() | texts,
        user=st.none() | texts,
        provider=st.none() | texts,
        token_id=st.none() | texts,
        address=texts,
        path=texts,
        request_id=texts,
        connection_id=st.none() | texts,
        shadowed=st.lists(texts, max_size=3).map(tuple),
        seconds=st.floats(),
    )
)
@example(REFUSED._replace(path="/" + "\x00" * 1_000_000, detail="\\" * 1_000_000))
@example(REFUSED._replace(path="/" + "é" * 300, user="\U0001f600" * 300, route="r" * 300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@pytest.mark.parametrize("worker", [None, 256])
def test_a_refused_handshakes_line_has_at_most_512_bytes(
    tmp_path: Path, worker: int | None, refused: Decision
) -> None:
    path = tmp_path / "audit.log"
    path.unlink(missing_ok=True)
    rules = Logging(hash_user_ids=False, audit=Audit(str(path)))
    log = AuditLog(rules, clock=Clock(), hash_key=None, worker=worker)
    log.decision(refused)
    log.close()
    line = path.read_bytes()
    assert len(line) <= 512
    assert json.loads(line).get("worker") == worker
    assert line.endswith(b"\n")
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    assert json.loads(line)["decision"] == "refused"


@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_refusal_in_the_log_stream_has_at_most_512_bytes(
    configured: Callable[..., Any], clock: Clock, format_: str
) -> None:
    stream = configured(format=format_)
    log = AuditLog(Logging(format=format_), clock=clock, hash_key=KEY, worker=7)
    log.decision(REFUSED._replace(path="/\r\n" + "\x00" * 1_000_000, detail="\x1b" * 1000))
    [line] = stream.lines
    assert len(line.encode()) < 512
    assert "claims_denied" in line


def test_a_long_path_leaves_out_no_reason(audit: Make, tmp_path: Path) -> None:
    audit().decision(REFUSED._replace(path="/" + "a" * 1_000_000))
    [line] = lines(tmp_path)
    event = json.loads(line)
    assert 480 <= len(line) < 512
    assert (event["reason"], event["request_id"], event["address"]) == (
        "claims_denied",
        "r-1",
        "192.0.2.1",
    )
    assert event["path"].endswith("...")


def test_a_field_of_others_cannot_take_all_the_room(audit: Make, tmp_path: Path) -> None:
    audit().decision(REFUSED._replace(token_id="j" * 1000, route="\x00" * 1000))
    [event] = events(tmp_path)
    assert (len(event["token_id"]), event["path"]) == (62, "/ws/lobby")


def test_a_hundred_refusals_are_written_in_a_second(
    audit: Make, tmp_path: Path, clock: Clock
) -> None:
    log = audit()
    for _ in range(250):
        log.decision(REFUSED)
        clock.now += 0.001
    log.flush()
    assert len(lines(tmp_path)) == 100


def test_two_bursts_at_a_seconds_edge_are_one(audit: Make, tmp_path: Path, clock: Clock) -> None:
    log = audit()
    for _ in range(100):
        log.decision(REFUSED)
    clock.now += 0.9
    for _ in range(100):
        log.decision(REFUSED)
    assert len(lines(tmp_path)) == 100


def flood(log: AuditLog) -> None:
    for _ in range(110):
        log.decision(REFUSED)
    for _ in range(5):
        log.decision(REFUSED._replace(reason="token_missing", rule=None))
    log.decision(REFUSED._replace(reason=None, rule=None))


SUMMARY = {
    "time": "2023-11-14T22:13:21.000000Z",
    "level": "warning",
    "event": "handshakes_refused_summary",
    "refused": 16,
    "reasons": {"none": 1, "not_a_member": 10, "token_missing": 5},
}


def test_the_others_are_summed_up_a_second_later(audit: Make, tmp_path: Path, clock: Clock) -> None:
    log = audit()
    flood(log)
    clock.now += 1
    log.flush()
    log.flush()
    assert events(tmp_path)[100:] == [SUMMARY]


@pytest.mark.parametrize("event", [ALLOWED, REFUSED])
def test_the_next_decision_brings_the_summary(
    audit: Make, tmp_path: Path, clock: Clock, event: Decision
) -> None:
    log = audit()
    flood(log)
    clock.now += 1
    log.decision(event)
    written = events(tmp_path)[100:]
    assert written[0] == SUMMARY
    assert written[1]["event"] == "handshake"


def test_the_next_closure_brings_the_summary(audit: Make, tmp_path: Path, clock: Clock) -> None:
    log = audit()
    flood(log)
    clock.now += 1
    log.closed(CLOSED)
    assert [event["event"] for event in events(tmp_path)[100:]] == [
        "handshakes_refused_summary",
        "connection_closed",
    ]


def test_closing_the_log_does_not_lose_the_summary(audit: Make, tmp_path: Path) -> None:
    log = audit()
    flood(log)
    log.close()
    assert events(tmp_path)[-1]["refused"] == 16


def test_a_flood_of_refusals_hides_no_admission(audit: Make, tmp_path: Path) -> None:
    log = audit()
    flood(log)
    log.decision(ALLOWED)
    assert events(tmp_path)[-1]["decision"] == "allowed"


def test_a_clock_that_is_set_back_does_not_silence_the_log(
    audit: Make, tmp_path: Path, clock: Clock
) -> None:
    log = audit()
    flood(log)
    clock.now -= 3600
    log.decision(REFUSED)
    assert [event["event"] for event in events(tmp_path)[100:]] == [
        "handshakes_refused_summary",
        "handshake",
    ]


def test_a_sampled_connections_events_stay_together(audit: Make, tmp_path: Path) -> None:
    log = audit(sample=0.3)
    for number in range(1000):
        log.decision(ALLOWED._replace(connection_id=f"c-{number}"))
        log.closed(CLOSED._replace(connection_id=f"c-{number}"))
    written = events(tmp_path)
    opened = [event["connection_id"] for event in written if event["event"] == "handshake"]
    ended = [event["connection_id"] for event in written if event["event"] == "connection_closed"]
    assert opened == ended
    assert 200 < len(opened) < 400


@pytest.mark.parametrize(("sample", "written"), [(0.0, 0), (1.0, 2)])
def test_none_or_all_of_the_admissions_are_sampled(
    audit: Make, tmp_path: Path, sample: float, written: int
) -> None:
    log = audit(sample=sample)
    log.decision(ALLOWED._replace(connection_id=None))
    log.closed(CLOSED)
    assert len(lines(tmp_path)) == written


def test_refusals_are_not_sampled(audit: Make, tmp_path: Path) -> None:
    audit(sample=0.0).decision(REFUSED)
    assert len(lines(tmp_path)) == 1


def test_without_a_file_events_go_to_the_log_stream(
    configured: Callable[..., Any], clock: Clock
) -> None:
    stream = configured()
    log = AuditLog(Logging(), clock=clock, hash_key=KEY)
    log.decision(ALLOWED)
    log.closed(CLOSED)
    log.close()
    first, second = stream.events
    assert list(first)[:4] == ["time", "level", "event", "decision"]
    assert first["time"] == second["time"] == "2023-11-14T22:13:20.000000Z"
    assert (first["event"], second["event"]) == ("handshake", "connection_closed")


def test_the_level_applies_to_the_log_stream_but_not_to_a_file(
    audit: Make, tmp_path: Path, clock: Clock, configured: Callable[..., Any]
) -> None:
    stream = configured(level="warning")
    for log in (AuditLog(Logging(), clock=clock, hash_key=KEY), audit(level="warning")):
        log.decision(ALLOWED)
        log.decision(REFUSED)
    assert [event["decision"] for event in stream.events] == ["refused"]
    assert [event["decision"] for event in events(tmp_path)] == ["allowed", "refused"]


def test_other_settings_take_another_file_and_keep_pseudonyms(
    audit: Callable[..., AuditLog], tmp_path: Path
) -> None:
    log = audit(key=None)
    log.decision(ALLOWED)
    rules = Logging(audit=Audit(str(tmp_path / "other.log")))
    sink = log.sink_for(rules)
    log.follow(rules, sink)
    log.decision(ALLOWED)
    (before,) = lines(tmp_path)
    after = (tmp_path / "other.log").read_text("ascii")
    assert json.loads(before)["user"] == json.loads(after)["user"] != ALLOWED.user


def test_other_settings_for_the_same_file_leave_it_open(
    audit: Callable[..., AuditLog], tmp_path: Path
) -> None:
    log = audit()
    rules = Logging(audit=Audit(str(tmp_path / "audit.log"), 0.0), hash_user_ids=False)
    log.follow(rules, log.sink_for(rules))
    log.decision(ALLOWED)
    assert lines(tmp_path) == []
    rules = replace(rules, audit=Audit(str(tmp_path / "audit.log")))
    log.follow(rules, log.sink_for(rules))
    log.decision(ALLOWED)
    assert json.loads(lines(tmp_path)[0])["user"] == ALLOWED.user


def test_a_file_that_is_not_followed_after_all_is_closed(
    audit: Callable[..., AuditLog], tmp_path: Path
) -> None:
    log = audit()
    unused = log.sink_for(Logging(audit=Audit(str(tmp_path / "other.log"))))
    log.close_unused(unused)
    unused.write("", "info", "late", {})
    assert (tmp_path / "other.log").read_text() == ""
    log.close_unused(log.sink_for(Logging(audit=Audit(str(tmp_path / "audit.log")))))
    log.decision(ALLOWED)
    assert len(lines(tmp_path)) == 1
