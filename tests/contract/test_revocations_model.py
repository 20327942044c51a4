"""Whatever is revoked, extended, withdrawn and forgotten in whatever order: an engine answers as a
plain list would that is searched from one end to the other.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as each_of
from hypothesis import strategies as st

from sidecar.errors import StateFull
from sidecar.state.base import Kind, Revocation, State, Subject, merged
from tests.support.revocations import NOW

CAPACITY = 5
NAMES = st.sampled_from(["a", "b"])
PROVIDERS = st.sampled_from(["app", "corp"])
MOMENTS = st.integers(0, 20).map(lambda seconds: NOW + seconds)


@st.composite
def revocations(draw: st.DrawFn) -> Revocation:
    kind = draw(st.sampled_from(list(Kind)))
    return Revocation(
        id="",
        kind=kind,
        value="" if kind is Kind.ISSUED_BEFORE else draw(NAMES),
        provider=draw(st.none() | PROVIDERS),
        before=draw(st.none() | MOMENTS),
        created_at=draw(MOMENTS),
        expires_at=draw(MOMENTS),
    )


SUBJECTS = st.builds(
    Subject,
    provider=PROVIDERS,
    user=NAMES,
    sub=st.none() | NAMES,
    sid=st.none() | NAMES,
    jti=st.none() | NAMES,
    issued_at=st.none() | MOMENTS,
)
STEPS = st.lists(
    st.tuples(st.just("revoke"), st.lists(revocations(), min_size=1, max_size=3))
    | st.tuples(st.just("withdraw"), st.integers(0, 4))
    | st.tuples(st.just("wait"), st.integers(0, 5)),
    max_size=30,
)


class Model:
    """The list."""

    def __init__(self) -> None:
        self.known: list[Revocation] = []

    def alive(self, now: float) -> list[Revocation]:
        return [each for each in self.known if each.expires_at > now]

    def revoke(self, revocations: list[Revocation], now: float) -> None:
        known = self.alive(now)
        for new in revocations:
            if new.expires_at <= now:
                continue
            old = next((each for each in known if each.key == new.key), None)
            if old is None:
                known.append(new)
            else:
                known[known.index(old)] = merged(old, new)
        if len(known) > CAPACITY:
            raise StateFull(CAPACITY, "revocations")
        self.known = known

    def revoked(self, subject: Subject, now: float) -> bool:
        named = {"user": subject.user, "sub": subject.sub, "sid": subject.sid, "jti": subject.jti}
        return any(
            (each.kind is Kind.ISSUED_BEFORE or named[each.kind] == each.value)
            and each.provider in (None, subject.provider)
            and (
                each.before is None or subject.issued_at is None or subject.issued_at < each.before
            )
            for each in self.alive(now)
        )


async def check(state: State, steps: list[tuple[str, object]], subjects: list[Subject]) -> None:
    model, now = Model(), NOW
    for number, (verb, argument) in enumerate(steps):
        if verb == "wait":
            assert isinstance(argument, int)
            now += argument
        elif verb == "withdraw":
            assert isinstance(argument, int)
            for each in model.alive(now)[argument : argument + 1]:
                model.known.remove(each)
                assert await state.withdraw(each.id, now) == each
        else:
            assert isinstance(argument, list)
            given = [replace(each, id=f"{number}-{n}") for n, each in enumerate(argument)]
            try:
                model.revoke(given, now)
            except StateFull:
                with pytest.raises(StateFull):
                    await state.revoke(given, now)
            else:
                await state.revoke(given, now)
        for subject in subjects:
            found = await state.revoked(subject, now)
            assert (found is not None) is model.revoked(subject, now)
        expected = sorted(model.alive(now), key=lambda each: (each.created_at, each.id))
        page = await state.revocations(now, cursor=None, limit=100)
        assert list(page.revocations) == expected
        assert await state.count(now) == len(expected)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@each_of(steps=STEPS, subjects=st.lists(SUBJECTS, min_size=1, max_size=4))
def test_any_order_of_verbs_agrees_with_a_plain_list(
    make_state: Callable[..., State], steps: list[tuple[str, object]], subjects: list[Subject]
) -> None:
    asyncio.run(check(make_state(CAPACITY), steps, subjects))
