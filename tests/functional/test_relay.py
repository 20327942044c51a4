"""What goes through: messages of every kind with a real client, and exactly their bytes."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.typing import Subprotocol

from tests.support.frames import BINARY, CONTINUATION, PING, PONG, TEXT, frame
from tests.support.pairs import pair
from tests.support.sidecars import Running, policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import echo, websocket_server

pytestmark = pytest.mark.usefixtures("implementation")

MIB = 2**20


def headers() -> dict[str, str]:
    return {"Authorization": "Bearer " + token()}


@contextlib.asynccontextmanager
async def conversation(
    folder: Path, message_size: str = "1MiB"
) -> AsyncIterator[tuple[Running, ClientConnection]]:
    """A library's client, and the library's echoing server behind a sidecar."""
    async with (
        websocket_server() as url,
        sidecar(policy_of(url, route={"limits": {"message_size": message_size}}), folder) as s,
    ):
        async with connect(s.url + "/ws", additional_headers=headers(), max_size=2**26) as client:
            yield s, client
        await s.until_idle()


async def test_text_and_binary_messages_go_both_ways(tmp_path: Path) -> None:
    async with conversation(tmp_path) as (_, client):
        for message in ("héllo", b"\x00\xff", "", b""):
            await client.send(message)
            assert await client.recv() == message


async def test_a_fragmented_message_arrives_whole(tmp_path: Path) -> None:
    async with conversation(tmp_path) as (_, client):
        await client.send(["one ", "", "two ", "three"])
        assert await client.recv() == "one two three"


async def test_a_message_of_16_mib_goes_both_ways(tmp_path: Path) -> None:
    message = bytes(range(256)) * (16 * MIB // 256)
    async with conversation(tmp_path, "16MiB") as (_, client):
        await client.send(message)
        assert await client.recv() == message


async def test_the_clients_ping_is_answered_by_the_upstream(tmp_path: Path) -> None:
    async with conversation(tmp_path) as (_, client):
        await asyncio.wait_for(await client.ping(b"payload"), 5)


async def test_the_upstreams_ping_is_answered_by_the_client(tmp_path: Path) -> None:
    answered: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def ping(connection: ServerConnection) -> None:
        answered.set_result(await (await connection.ping(b"payload")))

    async with (
        websocket_server(ping) as url,
        sidecar(policy_of(url), tmp_path) as s,
        connect(s.url + "/ws", additional_headers=headers()) as client,
    ):
        await asyncio.wait_for(answered, 5)
        await client.wait_closed()


async def test_the_subprotocol_is_negotiated_with_the_upstream(tmp_path: Path) -> None:
    names = [Subprotocol("v2.chat"), Subprotocol("v1.chat")]
    async with (
        websocket_server(subprotocols=names[1:]) as url,
        sidecar(policy_of(url), tmp_path) as s,
        connect(s.url + "/ws", additional_headers=headers(), subprotocols=names) as client,
    ):
        assert client.subprotocol == "v1.chat"


SCRIPT = (
    frame(TEXT, b"whole"),
    frame(TEXT, b"be", fin=False),
    frame(PING, b"between"),
    frame(CONTINUATION, b"gin", fin=False),
    frame(PONG, b""),
    frame(CONTINUATION, b"", fin=True),
    frame(BINARY, b"\x00" * 126),
    frame(BINARY, b"x" * 65536),
    frame(BINARY, b""),
)


async def test_the_upstream_gets_exactly_the_clients_bytes_still_masked(tmp_path: Path) -> None:
    async with pair(tmp_path) as p:
        script = b"".join(SCRIPT)
        await p.client.send(script)
        assert await p.upstream.exactly(len(script)) == script


async def test_the_client_gets_exactly_the_upstreams_bytes(tmp_path: Path) -> None:
    script = frame(TEXT, b"a", masked=False, fin=False) + frame(PING, b"b", masked=False)
    script += frame(CONTINUATION, b"c" * 70000, masked=False) + frame(BINARY, masked=False)
    async with pair(tmp_path) as p:
        await p.upstream.send(script)
        assert await p.client.exactly(len(script)) == script


async def test_frames_may_come_byte_by_byte(tmp_path: Path) -> None:
    script = b"".join(SCRIPT[:7])
    async with pair(tmp_path) as p:
        for byte in script:
            await p.client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert await p.upstream.exactly(len(script)) == script


async def test_many_frames_may_come_in_one_write(tmp_path: Path) -> None:
    script = b"".join(frame(TEXT, str(number).encode()) for number in range(5000))
    async with pair(tmp_path) as p:
        await p.client.send(script)
        assert await p.upstream.exactly(len(script)) == script
        assert p.link.client.meter.messages == 5000


async def test_what_a_client_sends_behind_its_request_reaches_the_upstream(tmp_path: Path) -> None:
    early = frame(TEXT, b"early") + frame(TEXT, b"cut")[:5]
    async with pair(tmp_path, client_early=early) as p:
        await p.client.send(frame(TEXT, b"cut")[5:])
        assert await p.upstream.exactly(20) == frame(TEXT, b"early") + frame(TEXT, b"cut")


async def test_what_an_upstream_sends_behind_its_answer_reaches_the_client(tmp_path: Path) -> None:
    early = frame(TEXT, b"early", masked=False)
    async with pair(tmp_path, early=early) as p:
        assert await p.client.exactly(len(early)) == early


async def test_early_data_that_breaks_a_rule_never_reaches_the_upstream(tmp_path: Path) -> None:
    async with pair(tmp_path, client_early=frame(TEXT, b"not masked", masked=False)) as p:
        assert (await p.upstream.exactly(2))[0] == 0x88
        p.hang_up()
        assert await p.ending() == (1002, "sidecar", "protocol_error")


async def test_early_data_of_the_upstream_that_breaks_a_rule_never_reaches_the_client(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path, early=frame(TEXT, b"masked")) as p:
        assert (await p.client.exactly(4))[2:] == (1002).to_bytes(2, "big")
        p.hang_up()
        assert await p.ending() == (1002, "sidecar", "protocol_error")


@pytest.fixture
def files() -> None:
    """As many open files as a thousand connections need, at every end of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"only {hard} files may be open")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@pytest.mark.usefixtures("files")
@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_thousand_connections_at_once(tmp_path: Path) -> None:
    shaking = asyncio.Semaphore(50)
    everybody = asyncio.Barrier(1001)

    async def client(url: str, number: int) -> None:
        async with shaking:
            connection = await connect(url, additional_headers=headers(), ping_interval=None)
        await everybody.wait()
        await connection.send(f"message {number}")
        assert await connection.recv() == f"message {number}"
        await connection.close()

    async with (
        websocket_server(echo, ping_interval=None) as url,
        sidecar(policy_of(url), tmp_path) as s,
        asyncio.timeout(25),
        asyncio.TaskGroup() as clients,
    ):
        for number in range(1000):
            clients.create_task(client(s.url + "/ws", number))
        await everybody.wait()
        assert len(s.sidecar.connections) == 1000
