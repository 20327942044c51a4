import asyncio
from types import SimpleNamespace
from typing import cast

from sidecar.proxy.connections import Connections
from sidecar.proxy.deadlines import Deadlines
from sidecar.proxy.relay import Link
from tests.support.clocks import MovableClock


class StandIn(SimpleNamespace):
    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


def registry(limit: int) -> Connections:
    return Connections(limit, Deadlines(MovableClock(), leeway=0.0))


def link(identifier: str, route: str, client: int, upstream: int) -> Link:
    """A stand-in with what the registry looks at: each message has 10 bytes."""

    def pipe(side: str, messages: int) -> StandIn:
        meter = SimpleNamespace(messages=messages, payload_bytes=10 * messages)
        return StandIn(side=side, meter=meter)

    made = StandIn(
        identifier=identifier,
        route=route,
        client=pipe("client", client),
        upstream=pipe("upstream", upstream),
    )
    return cast(Link, made)


def test_there_are_as_many_places_as_the_limit() -> None:
    connections = registry(2)
    assert [connections.take_place() for _ in range(3)] == [True, True, False]
    connections.free_place()
    assert connections.take_place()


async def test_it_is_idle_when_no_place_is_taken() -> None:
    connections = registry(2)
    await connections.idle()
    connections.take_place()
    connections.take_place()
    idle = asyncio.create_task(connections.idle())
    connections.free_place()
    await asyncio.sleep(0)
    assert not idle.done()
    connections.free_place()
    await asyncio.wait_for(idle, 5)


def test_a_connection_that_ends_frees_its_place() -> None:
    connections = registry(1)
    connections.take_place()
    one = link("1", "main", 0, 0)
    connections.add(one)
    assert list(connections) == [one]
    assert len(connections) == 1
    connections.remove(one)
    assert len(connections) == 0
    assert connections.places_taken == 0


def test_connections_may_end_while_they_are_counted() -> None:
    connections = registry(2)
    for one in (link("1", "main", 0, 0), link("2", "main", 0, 0)):
        connections.take_place()
        connections.add(one)
    for one in connections:
        connections.remove(one)
    assert len(connections) == 0


def test_traffic_is_counted_by_route_and_direction_beyond_the_end() -> None:
    connections = registry(3)
    links = [link("1", "a", 1, 2), link("2", "a", 3, 4), link("3", "b", 5, 6)]
    for one in links:
        connections.take_place()
        connections.add(one)
    expected = {
        ("a", "client"): (4, 40),
        ("a", "upstream"): (6, 60),
        ("b", "client"): (5, 50),
        ("b", "upstream"): (6, 60),
    }
    assert connections.traffic() == expected
    connections.remove(links[0])
    connections.remove(links[2])
    assert connections.traffic() == expected


def test_the_pipes_of_a_connection_that_has_ended_are_not_looked_after() -> None:
    connections = registry(1)
    connections.take_place()
    one = link("1", "main", 0, 0)
    connections.add(one)
    connections.held |= {one.client, one.upstream}
    connections.remove(one)
    assert connections.held == set()


def test_only_a_live_connection_is_looked_at_again() -> None:
    deadlines = Deadlines(MovableClock(), leeway=0.0)
    connections = Connections(1, deadlines)
    connections.take_place()
    one = link("1", "main", 0, 0)
    connections.add(one)
    connections.reschedule(one)
    assert len(deadlines) == 1
    connections.remove(one)
    connections.reschedule(one)
    assert len(deadlines) == 0
