import asyncio
import contextlib
import errno
import os
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from sidecar.model import Denial
from sidecar.policy.compiled import Address
from sidecar.proxy.accept import Acceptor
from sidecar.proxy.front import Front, FrontServer, RequestHead
from sidecar.proxy.listeners import ADMIN, PUBLIC, Listeners, naming
from sidecar.proxy.refusals import HttpRefusal
from tests.support.certificates import authority
from tests.support.clients import Raw, raw

ANY = Address("127.0.0.1", 0)
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
NOBODY = (ip_network("192.0.2.0/24"),)
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n"
V2_BODY = bytes([192, 0, 2, 9, 192, 0, 2, 8]) + struct.pack("!HH", 1, 2)
V2 = SIGNATURE + struct.pack("!BBH", 0x21, 0x11, len(V2_BODY)) + V2_BODY
LOCAL = SIGNATURE + struct.pack("!BBH", 0x20, 0, 0)


class Listening:
    """Open listeners before `front`; `rejected` is what they told of."""

    def __init__(self) -> None:
        self.rejected: list[tuple[str, str]] = []
        self.listeners: Listeners
        self.front: FrontServer
        self.changed = asyncio.Event()

    @property
    def port(self) -> int:
        return self.listeners.bound[0].port

    def reject(self, address: str, denial: Denial) -> None:
        self.rejected.append((address, denial.detail))
        self.changed.set()

    async def rejection(self) -> tuple[str, str]:
        await asyncio.wait_for(self.changed.wait(), 5)
        (one,) = self.rejected
        return one


async def whoami(front: Front, _: RequestHead) -> HttpRefusal:
    """Answers with the peer's address and whether it speaks TLS."""
    return HttpRefusal(200, {}, f"{front.address} {front.secure}".encode())


def on_error(_: Front, error: Exception) -> HttpRefusal:
    raise error


@contextlib.asynccontextmanager
async def listening(
    *addresses: Address,
    tls: ssl.SSLContext | None = None,
    trusted: Sequence[Any] | None = None,
    head_timeout: float = 5,
) -> AsyncIterator[Listening]:
    one = Listening()
    one.front = front = FrontServer(
        whoami,
        on_error=on_error,
        on_reject=one.reject,
        head_timeout=head_timeout,
        max_field=1000,
        max_waiting=10,
    )
    acceptor = Acceptor(
        front, tls=lambda: tls, head_timeout=head_timeout, trusted=trusted, on_reject=one.reject
    )
    one.listeners = Listeners(front, acceptor if tls or trusted is not None else None)
    try:
        await one.listeners.open(addresses or (ANY,))
        yield one
    finally:
        await one.listeners.close()
        await front.close()
        await asyncio.sleep(0)


async def asked(client: Raw, before: bytes = b"") -> str:
    """Who the server takes this client for."""
    await client.send(before + REQUEST)
    answer = (await client.rest()).decode()
    client.writer.close()
    with contextlib.suppress(ConnectionError):
        await client.writer.wait_closed()
    return answer.partition("\r\n\r\n")[2]


async def ask(
    port: int, before: bytes = b"", host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> str:
    name = "localhost" if tls else None
    streams = await asyncio.open_connection(host, port, ssl=tls, server_hostname=name)
    return await asked(Raw(*streams), before)


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels may not hand options on")
@pytest.mark.parametrize("trusted", [None, LOOPBACK])
async def test_the_kernel_notices_a_client_that_is_gone(trusted: Sequence[Any] | None) -> None:
    async with listening(trusted=trusted) as one, raw(one.port) as client:
        await client.send(b"PROXY UNKNOWN\r\n" if trusted else b"G")
        async with asyncio.timeout(5):
            while not one.front.fronts:
                await asyncio.sleep(0.005)
        (accepted,) = one.front.fronts
        sock = accepted.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_several_addresses_are_listened_on() -> None:
    async with listening(ANY, ANY) as one:
        first, second = one.listeners.bound
        assert first.host == "127.0.0.1"
        assert first.port
        assert first.port != second.port
        for address in (first, second):
            assert await ask(address.port) == "127.0.0.1 False"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
async def test_ipv6_is_listened_on() -> None:
    async with listening(Address("::1", 0)) as one:
        assert await ask(one.port, host="::1") == "::1 False"


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
async def test_a_proxy_may_speak_ipv6() -> None:
    async with listening(Address("::1", 0), trusted=LOOPBACK) as one:
        assert await ask(one.port, V1, host="::1") == "192.0.2.7 False"


async def test_a_unix_socket_is_listened_on_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "front.sock"
    async with listening(Address(unix=str(path))) as one:
        assert one.listeners.bound == [Address(unix=str(path))]
        assert await asked(Raw(*await asyncio.open_unix_connection(path))) == "unix False"
    assert not path.exists()


async def test_a_unix_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "front.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with listening(Address(unix=str(path))):
        assert await asked(Raw(*await asyncio.open_unix_connection(path))) == "unix False"


async def test_a_file_that_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "precious.txt"
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        async with listening(Address(unix=str(path))):
            raise AssertionError
    assert path.read_text() == "precious"


async def test_a_unix_socket_that_somebody_has_removed_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "front.sock"
    async with listening(Address(unix=str(path))):
        path.unlink()
    assert not path.exists()


async def test_a_port_in_use_is_an_error_and_the_others_are_closed() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        one = None
        with pytest.raises(OSError, match="in use"):
            async with listening(ANY, Address("127.0.0.1", port)) as one:
                raise AssertionError
        assert one is None


async def test_nothing_is_accepted_after_the_close() -> None:
    for trusted in (None, LOOPBACK):
        async with listening(trusted=trusted) as one:
            port = one.port
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (V1, "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", "2001:db8::1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (V2, "192.0.2.9"),
        (LOCAL, "127.0.0.1"),
    ],
)
async def test_a_proxys_header_tells_the_address(header: bytes, address: str) -> None:
    async with listening(trusted=LOOPBACK) as one:
        assert await ask(one.port, header) == f"{address} False"
        assert one.rejected == []


async def test_a_header_may_come_byte_by_byte() -> None:
    for header, address in ((V1, "192.0.2.7"), (V2, "192.0.2.9")):
        async with listening(trusted=LOOPBACK) as one, raw(one.port) as client:
            for byte in header:
                await client.send(bytes([byte]))
                await asyncio.sleep(0)
            assert await asked(client) == f"{address} False"


async def test_a_proxy_may_speak_over_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "front.sock")
    async with listening(Address(unix=path), trusted=LOOPBACK):
        for header, address in ((V1, "192.0.2.7"), (LOCAL, "unix")):
            client = Raw(*await asyncio.open_unix_connection(path))
            assert await asked(client, header) == f"{address} False"


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (REQUEST, "no header"),
        (b"PROXY TCP4 " + b"1" * 200, "too long"),
        (b"PROXY TCP9 1.2.3.4 5.6.7.8 1 2\r\n", "not PROXY"),
        (SIGNATURE + b"\x31\x11\x00\x00", "not version 2"),
        (SIGNATURE + b"\x21\x11\xff\xff", "too long"),
        (SIGNATURE + b"\x21\x11\x00\x04" + bytes(4), "cut off"),
    ],
)
async def test_a_crooked_header_is_rejected(header: bytes, why: str) -> None:
    async with listening(trusted=LOOPBACK) as one, raw(one.port) as client:
        await client.send(header)
        assert await client.rest() == b""
        address, detail = await one.rejection()
        assert address == "127.0.0.1"
        assert why in detail


async def test_a_header_that_ends_early_is_rejected() -> None:
    async with listening(trusted=LOOPBACK) as one, raw(one.port) as client:
        await client.send(b"PROXY TCP4 1")
        client.writer.close()
        assert "ended" in (await one.rejection())[1]


async def test_a_header_that_is_too_slow_is_rejected() -> None:
    async with listening(trusted=LOOPBACK, head_timeout=0.1) as one, raw(one.port) as client:
        await client.send(b"PROXY TCP4 1")
        assert await client.rest() == b""
        assert "Timeout" in (await one.rejection())[1]


async def test_a_header_of_somebody_who_is_not_trusted_is_rejected() -> None:
    async with listening(trusted=NOBODY) as one, raw(one.port) as client:
        assert await client.rest() == b""
        address, detail = await one.rejection()
        assert address == "127.0.0.1"
        assert "not trusted" in detail


async def test_a_header_that_never_came_does_not_outlive_the_listener() -> None:
    async with listening(trusted=LOOPBACK, head_timeout=3600) as one, raw(one.port) as client:
        await client.send(b"PROXY")
        await asyncio.sleep(0.02)
        await one.listeners.close()
        assert await client.rest() == b""


async def test_a_listener_that_is_out_of_files_goes_on_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sidecar.proxy.accept._ACCEPT_PAUSE", 0)
    loop = asyncio.get_running_loop()
    accept = loop.sock_accept
    troubles = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ECONNABORTED, errno.EPROTO]

    async def troubled(sock: socket.socket) -> Any:
        if troubles:
            number = troubles.pop()
            raise OSError(number, os.strerror(number))
        return await accept(sock)

    monkeypatch.setattr(loop, "sock_accept", troubled)
    async with listening(trusted=LOOPBACK) as one:
        assert await ask(one.port, V1) == "192.0.2.7 False"
    assert troubles == []


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS of a server and of a client that trusts it."""
    made = authority(tmp_path)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(*made.issue("localhost"))
    return server, ssl.create_default_context(cafile=made.ca)


async def test_tls_is_listened_on(
    tmp_path: Path, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server, client = contexts
    path = str(tmp_path / "front.sock")
    async with listening(ANY, Address(unix=path), tls=server) as one:
        assert await ask(one.port, tls=client) == "127.0.0.1 True"
        streams = await asyncio.open_unix_connection(path, ssl=client, server_hostname="localhost")
        assert await asked(Raw(*streams)) == "unix True"


async def test_a_proxys_header_stands_before_tls(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, trusting = contexts
    async with listening(tls=server, trusted=LOOPBACK) as one:
        for header, address in ((V1, "192.0.2.7"), (V2, "192.0.2.9")):
            sock = socket.create_connection(("127.0.0.1", one.port))
            sock.sendall(header)
            sock.setblocking(False)
            client = await asyncio.open_connection(
                sock=sock, ssl=trusting, server_hostname="localhost"
            )
            assert await asked(Raw(*client)) == f"{address} True"


async def test_what_is_not_tls_is_rejected(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with listening(tls=contexts[0]) as one, raw(one.port) as client:
        await client.send(REQUEST)
        await client.rest()
        address, detail = await one.rejection()
        assert address == "127.0.0.1"
        assert detail.startswith("TLS: ")


async def test_sockets_that_wait_for_tls_are_limited(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with listening(tls=contexts[0]) as one, contextlib.AsyncExitStack() as stack:
        for _ in range(10):
            await stack.enter_async_context(raw(one.port))
        async with raw(one.port) as client:
            assert await client.rest() == b""
            assert (await one.rejection())[1] == "too many sockets wait for their handshake"


async def test_what_is_not_tls_behind_a_proxys_header_is_rejected(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with listening(tls=contexts[0], trusted=LOOPBACK) as one, raw(one.port) as client:
        await client.send(V1 + REQUEST)
        await client.rest()
        assert (await one.rejection())[0] == "127.0.0.1"


# What cannot be listened on.


@pytest.mark.parametrize(
    ("number", "address", "said"),
    [
        (errno.EADDRNOTAVAIL, ANY, "127.0.0.1:0: Cannot assign requested address; choose an"),
        (errno.EACCES, ANY, "127.0.0.1:0: Permission denied; choose a port from 1024 on"),
        (errno.EACCES, Address(unix="/s"), "unix:/s: Permission denied; let the program write"),
        (errno.ENOENT, Address(unix="/s"), "unix:/s: No such file or directory; make the folder"),
        (errno.EADDRINUSE, Address(unix="/s"), "unix:/s: Address already in use; end who listens"),
    ],
)
def test_the_remedy_fits_what_is_wrong(number: int, address: Address, said: str) -> None:
    with (
        pytest.raises(OSError, match=f"^admin.listen: cannot listen on {said}"),
        naming(address, ADMIN),
    ):
        raise OSError(number, "?")


def test_where_no_remedy_is_known_none_is_told() -> None:
    wrong = "^server.listen: cannot listen on 127.0.0.1:0: Too many open files$"
    with pytest.raises(OSError, match=wrong), naming(ANY, PUBLIC):
        raise OSError(errno.EMFILE, "?")


def through(one: Listening, trusted: Sequence[Any]) -> Acceptor:
    """An acceptor that asks for the PROXY protocol."""
    return Acceptor(
        one.front, tls=lambda: None, head_timeout=5, trusted=trusted, on_reject=one.reject
    )


async def test_a_change_that_is_discarded_leaves_everything(tmp_path: Path) -> None:
    unix = tmp_path / "s.sock"
    async with listening() as one:
        before = one.listeners.bound
        addresses = [Address(unix=str(unix)), ANY]
        opening = await one.listeners.prepare(addresses, through(one, LOOPBACK))
        assert unix.exists()
        opening.discard()
        assert not unix.exists()
        assert one.listeners.bound == before
        assert await ask(before[0].port) == "127.0.0.1 False"


async def test_a_change_that_fails_leaves_nothing(tmp_path: Path) -> None:
    unix = tmp_path / "s.sock"
    async with listening() as one:
        (address,) = one.listeners.bound
        with pytest.raises(OSError, match="cannot listen"):
            await one.listeners.prepare([Address(unix=str(unix)), address], None)
        assert not unix.exists()
        assert await ask(address.port) == "127.0.0.1 False"


async def test_descriptors_that_run_out_leave_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: socket.socket) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    async with listening() as one:
        with monkeypatch.context() as patched:
            patched.setattr(socket.socket, "dup", fail)
            with pytest.raises(OSError, match="Too many"):
                await one.listeners.prepare([ANY], through(one, LOOPBACK))
        assert await ask(one.port) == "127.0.0.1 False"


async def test_a_client_of_a_new_address_waits_until_it_is_served() -> None:
    async with listening() as one:
        opening = await one.listeners.prepare([ANY, ANY], None)
        (fresh,) = opening.fresh
        async with raw(fresh.bound[0].port) as client:
            await client.send(REQUEST)
            one.listeners.take(opening)
            await one.listeners.settle()
            assert (await client.rest()).endswith(b"127.0.0.1 False")


async def test_an_address_is_served_in_another_way_from_then_on(tmp_path: Path) -> None:
    unix = tmp_path / "s.sock"
    listen = [ANY, Address(unix=str(unix))]
    async with listening(*listen) as one:
        bound = one.listeners.bound
        acceptor = through(one, LOOPBACK)
        for _ in range(2):
            one.listeners.take(await one.listeners.prepare(listen, acceptor))
            await one.listeners.settle()
            assert await ask(one.port, b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n") == (
                "192.0.2.7 False"
            )
            one.listeners.take(await one.listeners.prepare(listen, None))
            await one.listeners.settle()
            assert await ask(one.port) == "127.0.0.1 False"
        assert one.listeners.bound == bound
        assert unix.exists()
        await acceptor.close()
    assert not unix.exists()


async def test_sockets_that_were_given_stay_whatever_the_addresses_are() -> None:
    async with listening() as one:
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        await one.listeners.adopt([sock])
        one.listeners.take(await one.listeners.prepare((), None))
        await one.listeners.settle()
        assert [address.port for address in one.listeners.bound] == [sock.getsockname()[1]]
        assert await ask(sock.getsockname()[1]) == "127.0.0.1 False"


async def test_two_changes_before_the_first_is_settled_end_with_the_second() -> None:
    async with listening() as one:
        one.listeners.take(await one.listeners.prepare([ANY, ANY], None))
        one.listeners.take(await one.listeners.prepare([ANY], None))
        await one.listeners.settle()
        assert len(one.listeners.bound) == 1
        assert await ask(one.port) == "127.0.0.1 False"
