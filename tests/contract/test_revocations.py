"""What every engine of shared state does with revocations."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sidecar.errors import StateFull
from sidecar.model import Identity
from sidecar.state.base import Kind, Once, Outcome, Revocation, State, is_revoked
from tests.support.revocations import NOW, revocation, subject

ALICE = Identity("alice", {}, "app", None, None)

MakeState = Callable[..., State]


async def revoke(state: State, *revocations: Revocation, now: float = NOW) -> Outcome:
    outcome = await state.revoke(revocations, now)
    assert outcome is not None
    return outcome


async def listed(state: State, now: float = NOW) -> list[str]:
    page = await state.revocations(now, cursor=None, limit=1000)
    assert page.next is None
    return [each.id for each in page.revocations]


async def test_nothing_is_revoked_at_first(state: State) -> None:
    assert await state.revoked(subject(), NOW) is None
    assert (await listed(state), await state.count(NOW)) == ([], 0)


async def test_with_something_in_force_a_state_is_never_clear(state: State) -> None:
    await revoke(state, revocation())
    assert not state.is_clear
    assert await is_revoked(state, ALICE, NOW, NOW)
    assert not await is_revoked(state, replace(ALICE, user="bob"), NOW, NOW)
    assert not await is_revoked(state, None, NOW, NOW)


async def test_with_nothing_in_force_nobody_is_revoked(state: State) -> None:
    assert not await is_revoked(state, ALICE, NOW, NOW)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Kind.USER, "alice"),
        (Kind.SUB, "u-1"),
        (Kind.SID, "s-1"),
        (Kind.JTI, "t-1"),
        (Kind.ISSUED_BEFORE, ""),
    ],
)
async def test_a_token_is_revoked_by_each_of_its_names(
    state: State, kind: Kind, value: str
) -> None:
    await revoke(state, revocation(kind, value))
    assert await state.revoked(subject(), NOW) == revocation(kind, value)


@pytest.mark.parametrize("kind", [Kind.USER, Kind.SUB, Kind.SID, Kind.JTI])
async def test_another_name_is_not_revoked(state: State, kind: Kind) -> None:
    await revoke(state, revocation(kind, "somebody else"))
    assert await state.revoked(subject(), NOW) is None


@pytest.mark.parametrize("kind", [Kind.SUB, Kind.SID, Kind.JTI])
async def test_a_claim_that_is_not_there_is_not_revoked(state: State, kind: Kind) -> None:
    await revoke(state, *(revocation(kind, value) for value in ("None", "s-1", "u-1", "t-1", "?")))
    assert await state.revoked(subject(sub=None, sid=None, jti=None), NOW) is None


async def test_a_user_is_not_a_session_of_the_same_name(state: State) -> None:
    await revoke(state, revocation(Kind.SID, "alice"))
    assert await state.revoked(subject(), NOW) is None


@pytest.mark.parametrize("kind", list(Kind))
async def test_a_revocation_of_one_provider_leaves_the_others(state: State, kind: Kind) -> None:
    value = {"user": "alice", "sub": "u-1", "sid": "s-1", "jti": "t-1"}.get(kind, "")
    await revoke(state, revocation(kind, value, provider="app"))
    assert await state.revoked(subject(), NOW) is not None
    assert await state.revoked(subject(provider="corp"), NOW) is None


@pytest.mark.parametrize(
    ("issued_at", "is_revoked"), [(99.0, True), (99.9, True), (100.0, False), (None, True)]
)
@pytest.mark.parametrize("kind", [Kind.USER, Kind.ISSUED_BEFORE])
async def test_only_tokens_issued_before_the_moment_are_meant(
    state: State, kind: Kind, issued_at: float | None, is_revoked: bool
) -> None:
    value = "alice" if kind is Kind.USER else ""
    await revoke(state, revocation(kind, value, before=100.0))
    found = await state.revoked(subject(issued_at=issued_at), NOW)
    assert (found is not None) is is_revoked


async def test_one_revocation_that_does_not_mean_a_token_does_not_hide_another(
    state: State,
) -> None:
    await revoke(state, revocation(before=1.0), revocation(Kind.JTI, "t-1"))
    found = await state.revoked(subject(), NOW)
    assert found is not None
    assert found.kind is Kind.JTI


async def test_a_revocation_holds_until_its_last_second(state: State) -> None:
    await revoke(state, revocation(expires_at=NOW + 10))
    assert await state.revoked(subject(), NOW + 9.999) is not None
    assert await state.revoked(subject(), NOW + 10) is None
    assert await state.count(NOW + 9.999) == 1
    assert (await listed(state, NOW + 10), await state.count(NOW + 10)) == ([], 0)


async def test_a_revocation_that_is_over_is_not_remembered(state: State) -> None:
    outcome = await revoke(state, revocation(expires_at=NOW))
    assert outcome == Outcome((), 0)
    assert await listed(state, NOW - 1) == []


async def test_a_second_revocation_of_the_same_extends_the_first(state: State) -> None:
    await revoke(state, revocation(id="a", before=NOW, expires_at=NOW + 10, reason="lost laptop"))
    second = revocation(id="b", before=NOW + 5, expires_at=NOW + 3, created_at=NOW + 2)
    outcome = await revoke(state, second, now=NOW + 2)
    kept = revocation(id="a", before=NOW + 5, expires_at=NOW + 10, reason="lost laptop")
    assert outcome.revocations == (kept,)
    assert await listed(state, NOW + 9) == ["a"]
    assert await state.withdraw("b", NOW) is None


@pytest.mark.parametrize(("first", "second"), [(None, 1.0), (1.0, None)])
async def test_a_revocation_of_all_tokens_is_not_narrowed_by_another(
    state: State, first: float | None, second: float | None
) -> None:
    await revoke(state, revocation(before=first))
    outcome = await revoke(state, revocation(before=second, reason="again"))
    assert outcome.revocations == (revocation(reason="again"),)


async def test_one_that_was_extended_is_remembered_for_longer(state: State) -> None:
    await revoke(state, revocation(expires_at=NOW + 10))
    await revoke(state, revocation(expires_at=NOW + 20))
    assert await listed(state, NOW + 15) == ["user-alice"]
    assert await listed(state, NOW + 20) == []


async def test_a_revocation_after_one_that_is_over_is_a_new_one(state: State) -> None:
    await revoke(state, revocation(id="a", before=NOW + 9, expires_at=NOW + 10))
    await revoke(state, revocation(id="b", before=NOW, created_at=NOW + 10), now=NOW + 10)
    assert await listed(state, NOW + 10) == ["b"]
    assert await state.revoked(subject(issued_at=NOW + 5), NOW + 10) is None


async def test_a_revocation_can_be_withdrawn_once(state: State) -> None:
    await revoke(state, revocation(id="a"), revocation(Kind.JTI, "t-9", id="b"))
    assert await state.withdraw("a", NOW) == revocation(id="a")
    assert await state.revoked(subject(), NOW) is None
    assert await state.withdraw("a", NOW) is None
    assert await listed(state) == ["b"]


async def test_one_that_is_over_cannot_be_withdrawn(state: State) -> None:
    await revoke(state, revocation(id="a", expires_at=NOW + 10))
    assert await state.withdraw("a", NOW + 10) is None


# --- subscribers


async def test_subscribers_are_told_and_tell_what_they_ended(state: State) -> None:
    told: list[str] = []

    async def subscriber(each: Revocation) -> int:
        told.append(each.id)
        return len(told)

    state.subscribe(subscriber)
    state.subscribe(subscriber)
    outcome = await revoke(state, revocation(id="a"), revocation(Kind.JTI, "t-1", id="b"))
    assert told == ["a", "a", "b", "b"]
    assert outcome.closed == 1 + 2 + 3 + 4


async def test_a_subscriber_sees_what_is_already_in_force(state: State) -> None:
    seen: list[Any] = []

    async def subscriber(_each: Revocation) -> int:
        seen.append(await state.revoked(subject(), NOW))
        return 0

    state.subscribe(subscriber)
    await revoke(state, revocation())
    assert seen == [revocation()]


async def test_a_subscriber_is_told_of_an_extension_and_not_of_a_withdrawal(state: State) -> None:
    told: list[Revocation] = []

    async def subscriber(each: Revocation) -> int:
        told.append(each)
        return 0

    state.subscribe(subscriber)
    await revoke(state, revocation(id="a", before=1.0))
    await revoke(state, revocation(id="b", before=2.0))
    await state.withdraw("a", NOW)
    assert told == [revocation(id="a", before=1.0), revocation(id="a", before=2.0)]


# --- room


async def test_nothing_in_force_is_forgotten_for_lack_of_room(make_state: MakeState) -> None:
    state = make_state(2)
    await revoke(state, revocation(Kind.JTI, "a", expires_at=NOW + 10), revocation(Kind.JTI, "b"))
    with pytest.raises(StateFull, match="no room for more than 2 revocations"):
        await state.revoke([revocation(Kind.JTI, "c")], NOW)
    assert await listed(state) == ["jti-a", "jti-b"]


async def test_of_several_revocations_all_are_remembered_or_none(make_state: MakeState) -> None:
    state = make_state(2)
    await revoke(state, revocation(Kind.JTI, "a"))
    with pytest.raises(StateFull):
        await state.revoke([revocation(Kind.JTI, "b"), revocation(Kind.JTI, "c")], NOW)
    assert await listed(state) == ["jti-a"]


async def test_what_extends_another_takes_no_room(make_state: MakeState) -> None:
    state = make_state(1)
    await revoke(state, revocation(expires_at=NOW + 10))
    await revoke(state, revocation(expires_at=NOW + 20), revocation(expires_at=NOW + 30))
    assert await state.count(NOW + 29) == 1


async def test_what_is_over_or_withdrawn_makes_room(make_state: MakeState) -> None:
    state = make_state(1)
    await revoke(state, revocation(Kind.JTI, "a", expires_at=NOW + 10))
    await revoke(state, revocation(Kind.JTI, "b"), now=NOW + 10)
    await state.withdraw("jti-b", NOW + 10)
    await revoke(state, revocation(Kind.JTI, "c"), now=NOW + 10)
    assert await listed(state, NOW + 10) == ["jti-c"]


# --- names for one use


async def test_a_name_is_good_for_one_use(state: State) -> None:
    once = Once("n", NOW + 10)
    assert await state.revoke([revocation(Kind.JTI, "a")], NOW, once=once) is not None
    assert await state.revoke([revocation(Kind.JTI, "b")], NOW + 9, once=once) is None
    assert await listed(state, NOW + 9) == ["jti-a"]


async def test_a_name_is_forgotten_at_its_time(state: State) -> None:
    assert await state.revoke([], NOW, once=Once("n", NOW + 10)) is not None
    again = Once("n", NOW + 20)
    assert await state.revoke([], NOW + 10, once=again) is not None
    assert await state.revoke([], NOW + 19, once=again) is None


async def test_a_name_is_still_good_after_there_was_no_room(make_state: MakeState) -> None:
    state = make_state(1)
    await revoke(state, revocation(Kind.JTI, "a", expires_at=NOW + 10))
    once = Once("n", NOW + 100)
    with pytest.raises(StateFull):
        await state.revoke([revocation(Kind.JTI, "b")], NOW, once=once)
    assert await state.revoke([revocation(Kind.JTI, "b")], NOW + 10, once=once) is not None


async def test_names_are_bounded_too(make_state: MakeState) -> None:
    state = make_state(1)
    await state.revoke([], NOW, once=Once("a", NOW + 10))
    with pytest.raises(StateFull, match="names for one use"):
        await state.revoke([revocation()], NOW, once=Once("b", NOW + 10))
    assert await state.count(NOW) == 0
    assert await state.revoke([], NOW + 10, once=Once("b", NOW + 20)) is not None


# --- pages


async def test_pages_hold_everything_once_in_the_order_it_came(state: State) -> None:
    each = [revocation(Kind.JTI, f"{n}", created_at=NOW + n // 3) for n in range(10)]
    await revoke(state, *reversed(each))
    found: list[Revocation] = []
    cursor = None
    for _ in range(4):
        page = await state.revocations(NOW, cursor=cursor, limit=3)
        found += page.revocations
        cursor = page.next
    assert (found, cursor) == (each, None)


async def test_a_page_that_just_holds_the_rest_is_the_last(state: State) -> None:
    await revoke(state, revocation(Kind.JTI, "a"), revocation(Kind.JTI, "b"))
    assert (await state.revocations(NOW, cursor=None, limit=2)).next is None


async def test_turning_pages_survives_what_comes_and_goes(state: State) -> None:
    each = [revocation(Kind.JTI, name, created_at=NOW + n) for n, name in enumerate("abcd")]
    await revoke(state, *each)
    first = await state.revocations(NOW, cursor=None, limit=2)
    await state.withdraw("jti-b", NOW)
    await revoke(state, revocation(Kind.JTI, "e", created_at=NOW + 9))
    rest = await state.revocations(NOW, cursor=first.next, limit=9)
    assert [one.value for one in rest.revocations] == ["c", "d", "e"]


@pytest.mark.parametrize("cursor", ["", "x", "~", "x~y", "1,5~a"])
async def test_a_cursor_that_no_page_gave_is_an_error(state: State, cursor: str) -> None:
    with pytest.raises(ValueError, match=r"cursor|float"):
        await state.revocations(NOW, cursor=cursor, limit=1)


async def test_a_revocation_revokes_what_the_state_says_it_does(state: State) -> None:
    each = revocation(before=NOW, provider="app")
    await revoke(state, each)
    for one in (subject(), subject(issued_at=NOW), subject(provider="x"), subject(user="bob")):
        assert each.revokes(one) is (await state.revoked(one, NOW) is not None)
    assert not replace(each, kind=Kind.SID).revokes(subject())
