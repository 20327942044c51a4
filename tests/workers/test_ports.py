"""The listening sockets of several processes."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sidecar.policy.compiled import Address
from sidecar.workers.ports import BALANCED, Place, Ports, open_places

ANY = Address("127.0.0.1", 0)

balanced = pytest.mark.skipif(not BALANCED, reason="the kernel spreads no connections here")


@contextlib.asynccontextmanager
async def settled(*addresses: Address, shared: bool = False) -> AsyncIterator[Ports]:
    ports = Ports(balanced=BALANCED and not shared)
    try:
        await ports.open(addresses or (ANY,))
        yield ports
    finally:
        ports.close()


@contextlib.contextmanager
def another(port: int, *options: int) -> Iterator[None]:
    """A socket of another program of this user, which listens on the port."""
    with socket.socket() as sock:
        for option in options:
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen()
        yield


def reach(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


@balanced
async def test_each_worker_listens_on_a_socket_of_its_own() -> None:
    async with settled() as ports:
        port = ports.bound[0].port
        workers = [open_places(ports.places)[0] for _ in range(2)]
        for sock in workers:
            sock.listen()
        assert ports.inherited == ()
        assert {sock.getsockname() for sock in workers} == {("127.0.0.1", port)}
        clients, taken = [], [0, 0]
        while not all(taken):  # each connection goes to one of the two, by chance
            clients.append(reach(port))
            for index, sock in enumerate(workers):
                with contextlib.suppress(BlockingIOError):
                    sock.accept()[0].close()
                    taken[index] += 1
            assert len(clients) < 1000
        for one in (*clients, *workers):
            one.close()


@balanced
@pytest.mark.parametrize("options", [(), (socket.SO_REUSEADDR,)], ids=["bare", "reuse"])
async def test_nobody_else_gets_the_port_while_no_worker_listens(options: tuple[int, ...]) -> None:
    async with settled() as ports:
        with pytest.raises(OSError, match="in use"), another(ports.bound[0].port, *options):
            raise AssertionError


@balanced
async def test_a_port_that_others_share_is_in_use() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(OSError, match=f"cannot listen on {address}: Address already in use"):
            async with settled(address):
                raise AssertionError


async def test_elsewhere_the_workers_share_a_socket() -> None:
    async with settled(shared=True) as ports:
        assert ports.inherited == (ports.places[0].descriptor,)
        with pytest.raises(ConnectionRefusedError):
            reach(ports.bound[0].port)
        (first,) = open_places(ports.places)
        first.listen()
        first.detach()
        clients = [reach(ports.bound[0].port) for _ in range(2)]
        for _ in range(2):
            (sock,) = open_places(ports.places)
            accepted, _ = await asyncio.get_running_loop().sock_accept(sock)
            accepted.close()
            sock.detach()
        for client in clients:
            client.close()


async def test_a_unix_socket_is_shared_and_its_file_is_the_parents(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with settled(Address(unix=str(path))) as ports:
        assert ports.bound == [Address(unix=str(path))]
        (sock,) = open_places(ports.places)
        sock.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            accepted, _ = await asyncio.get_running_loop().sock_accept(sock)
            accepted.close()
        sock.detach()
    assert not path.exists()


def test_a_worker_opens_an_ipv6_socket_beside_the_ipv4_one() -> None:
    places = [
        Place(None, socket.AF_INET6, ("::", 0, 0, 0)),
        Place(None, socket.AF_INET, ("0.0.0.0", 0)),
    ]
    for sock in open_places(places):
        sock.close()


def test_a_port_that_a_worker_cannot_have_is_an_error() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(OSError, match="in use"),
    ):
        open_places([Place(None, socket.AF_INET, taken.getsockname())])
