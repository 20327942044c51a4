"""What a connection's time asks for, at any moment of any life."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model import Reason
from sidecar.policy.replies import Reply
from sidecar.policy.session import Expiry, Heartbeat, Session, Warn
from sidecar.proxy.lifetimes import Signs, Step, next_step

NOW = 1000.0
WARN = Warn(60.0, Reply({"type": "token_expiring"}))
BEAT = Heartbeat(30.0, 10.0)
OFF = Session()


def signs(
    *,
    opened: float = NOW,
    left: float | None = None,
    leeway: float = 0.0,
    warned: bool = False,
    active: float = NOW,
    read: float = NOW,
    pinged: float | None = None,
    stalled: bool = False,
) -> Signs:
    return Signs(opened, left, leeway, warned, active, read, pinged, stalled)


def test_without_a_rule_and_an_end_there_is_nothing_to_do_ever() -> None:
    assert next_step(OFF, signs(), NOW) == Step(inf)


def test_a_token_ends_its_connection_at_that_moment() -> None:
    assert next_step(OFF, signs(left=5), NOW) == Step(NOW + 5)
    assert next_step(OFF, signs(left=0), NOW).reason is Reason.TOKEN_EXPIRED
    assert next_step(OFF, signs(left=-5), NOW).reason is Reason.TOKEN_EXPIRED


def test_an_end_that_is_ignored_is_none() -> None:
    assert next_step(Session(expiry=Expiry.IGNORE), signs(left=-5), NOW) == Step(inf)


def test_the_longest_life_counts_from_the_beginning() -> None:
    session = Session(max_lifetime=600)
    assert next_step(session, signs(opened=NOW - 599), NOW) == Step(NOW + 1)
    assert next_step(session, signs(opened=NOW - 600), NOW).reason is Reason.SESSION_LIFETIME


def test_a_client_that_does_nothing_is_idle_after_the_timeout() -> None:
    session = Session(idle_timeout=60)
    assert next_step(session, signs(active=NOW - 59), NOW) == Step(NOW + 1)
    assert next_step(session, signs(active=NOW - 60), NOW).reason is Reason.IDLE_TIMEOUT


def test_a_client_that_is_not_read_is_neither_idle_nor_pinged_nor_dead() -> None:
    unheard = signs(active=NOW - 999, read=NOW - 999, pinged=NOW - 900, stalled=True)
    assert next_step(Session(idle_timeout=60), unheard, NOW) == Step(NOW + 60)
    assert next_step(Session(heartbeat=BEAT), unheard, NOW) == Step(NOW + 10)
    assert next_step(Session(heartbeat=BEAT), unheard._replace(pinged=None), NOW) == Step(NOW + 30)


def test_a_silent_client_is_pinged_and_dead_where_it_does_not_answer() -> None:
    session = Session(heartbeat=BEAT)
    assert next_step(session, signs(read=NOW - 29), NOW) == Step(NOW + 1)
    assert next_step(session, signs(read=NOW - 30), NOW) == Step(NOW + 10, ping=True)
    asked = signs(read=NOW - 39, pinged=NOW - 9)
    assert next_step(session, asked, NOW) == Step(NOW + 1)
    assert next_step(session, asked, NOW + 1).reason is Reason.HEARTBEAT_TIMEOUT


def test_the_warning_comes_ahead_of_the_end_and_once() -> None:
    session = Session(warn=WARN)
    assert next_step(session, signs(left=70), NOW) == Step(NOW + 10)
    assert next_step(session, signs(left=60), NOW) == Step(NOW + 60, warn=True)
    assert next_step(session, signs(left=9), NOW) == Step(NOW + 9, warn=True)
    assert next_step(session, signs(left=60, warned=True), NOW) == Step(NOW + 60)


def test_the_warning_counts_to_exp_and_the_end_comes_with_the_leeway() -> None:
    session = Session(warn=WARN)
    assert next_step(session, signs(left=70, leeway=30), NOW) == Step(NOW + 10)
    assert next_step(session, signs(left=60, leeway=30), NOW) == Step(NOW + 90, warn=True)
    assert next_step(session, signs(left=-29, leeway=30, warned=True), NOW) == Step(NOW + 1)


def test_a_token_without_an_end_needs_no_warning() -> None:
    assert next_step(Session(warn=WARN), signs(), NOW) == Step(inf)


@pytest.mark.parametrize("left", [-1, 0])
def test_nobody_is_warned_of_what_is_over(left: float) -> None:
    assert next_step(Session(warn=WARN), signs(left=left), NOW) == Step(inf, Reason.TOKEN_EXPIRED)


seconds = st.integers(1, 7200).map(lambda half: half / 2)
ago = st.integers(0, 7200).map(lambda half: NOW - half / 2)
sessions = st.builds(
    Session,
    expiry=st.sampled_from(Expiry),
    warn=st.none() | st.builds(Warn, seconds, st.just(WARN.message)),
    idle_timeout=st.none() | seconds,
    heartbeat=st.none() | st.builds(Heartbeat, seconds, seconds),
    max_lifetime=st.none() | seconds,
)
lives = st.builds(
    Signs,
    opened=ago,
    left=st.none() | st.integers(-7200, 7200).map(lambda half: half / 2),
    leeway=st.sampled_from([0.0, 30.0]),
    warned=st.booleans(),
    active=ago,
    read=ago,
    pinged=st.none() | ago,
    stalled=st.booleans(),
)


@given(session=sessions, life=lives)
def test_what_is_not_over_is_asked_for_later(session: Session, life: Signs) -> None:
    step = next_step(session, life, NOW)
    assert (step.due > NOW) if step.reason is None else step == Step(inf, step.reason)


@given(session=sessions, life=lives, later=seconds)
def test_nothing_is_to_be_done_before_it_is_due(
    session: Session, life: Signs, later: float
) -> None:
    """Looking more often than it was asked for makes no difference."""
    step = next_step(session, life, NOW)
    if step.reason is None and NOW + later < step.due:
        then = life._replace(
            left=None if life.left is None else life.left - later,
            warned=life.warned or step.warn,
            pinged=NOW if step.ping else life.pinged,
        )
        again = next_step(session, then, NOW + later)
        assert (again.reason, again.warn, again.ping) == (None, False, False)
        assert again.due >= step.due


@given(session=sessions, life=lives)
def test_an_end_is_not_before_its_moment(session: Session, life: Signs) -> None:
    over = {
        Reason.TOKEN_EXPIRED: session.expiry is Expiry.CLOSE
        and life.left is not None
        and life.left + life.leeway <= 0,
        Reason.SESSION_LIFETIME: NOW - life.opened >= (session.max_lifetime or inf),
        Reason.IDLE_TIMEOUT: not life.stalled
        and NOW - life.active >= (session.idle_timeout or inf),
        Reason.HEARTBEAT_TIMEOUT: session.heartbeat is not None
        and not life.stalled
        and life.pinged is not None
        and NOW - life.pinged >= session.heartbeat.timeout,
    }
    reason = next_step(session, life, NOW).reason
    assert over[reason] if reason else not any(over.values())
