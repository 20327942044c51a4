import asyncio
import resource
import socket
import struct
from pathlib import Path
from typing import cast

import pytest

from sidecar.policy.session import Heartbeat
from sidecar.proxy.sockets import (
    half_close,
    has_hung_up,
    keep_alive,
    probe,
    raise_file_limit,
    unsent,
)

INFINITY = resource.RLIM_INFINITY


class OfSocket(asyncio.BaseTransport):
    def __init__(self, sock: socket.socket | None) -> None:
        super().__init__({"socket": sock})


class HalfClosing(asyncio.WriteTransport):
    def __init__(self, can: bool, error: OSError | None = None) -> None:
        super().__init__()
        self.can = can
        self.error = error
        self.ended = False

    def can_write_eof(self) -> bool:
        return self.can

    def write_eof(self) -> None:
        self.ended = True
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_kernel_probes_a_silent_peer(family: socket.AddressFamily) -> None:
    with socket.socket(family) as sock:
        keep_alive(OfSocket(sock))
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_other_sockets_are_left_alone() -> None:
    keep_alive(OfSocket(None))
    with socket.socket(socket.AF_UNIX) as sock:
        keep_alive(OfSocket(sock))
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_reset_shows_without_reading() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
        with ours:
            assert not has_hung_up(OfSocket(ours))
            peer.sendall(b"unread")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            assert has_hung_up(OfSocket(ours))
        assert not has_hung_up(OfSocket(ours))
    assert not has_hung_up(OfSocket(None))


def test_the_end_of_file_is_no_reset() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as peer,
    ):
        ours, _ = server.accept()
        peer.shutdown(socket.SHUT_WR)
        with ours:
            assert not has_hung_up(OfSocket(ours))


def test_a_socket_that_is_closed_already_is_no_error() -> None:
    sock = socket.socket()
    sock.close()
    keep_alive(OfSocket(sock))


@pytest.mark.parametrize("can", [True, False])
def test_a_transport_is_half_closed_where_it_can(can: bool) -> None:
    transport = HalfClosing(can)
    half_close(transport)
    assert transport.ended == can


def test_a_peer_that_has_just_vanished_is_no_error() -> None:
    half_close(HalfClosing(can=True, error=OSError(107, "not connected")))


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "allowed"),
    [
        (1024, 4096, 3256, (1000, 1000)),
        (1024, INFINITY, 3256, (1000, 1000)),
        (1024, 2756, 2756, (1000, 500)),
        (1024, 1156, 1156, (400, 100)),
        (64, 128, 128, (1, 0)),
        (4096, 4096, None, (1000, 1000)),
        (INFINITY, INFINITY, None, (1000, 1000)),
    ],
)
def test_the_file_limit_is_raised_as_far_as_it_may(
    monkeypatch: pytest.MonkeyPatch,
    soft: int,
    hard: int,
    raised: int | None,
    allowed: tuple[int, int],
) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: told.append(limits))
    assert raise_file_limit(1000) == allowed
    assert told == ([] if raised is None else [(raised, hard)])


def test_with_a_heartbeat_the_kernel_probes_as_often() -> None:
    with socket.socket() as sock:
        probe(OfSocket(sock), Heartbeat(interval=20.5, timeout=9))
        found = [
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (
                socket.TCP_KEEPIDLE,
                socket.TCP_KEEPINTVL,
                socket.TCP_KEEPCNT,
                socket.TCP_USER_TIMEOUT,
            )
        ]
        assert found == [21, 3, 3, 29_500]


def test_a_heartbeat_that_is_longer_than_the_kernel_can_count_is_cut() -> None:
    with socket.socket() as sock:
        probe(OfSocket(sock), Heartbeat(interval=1e9, timeout=1e9))
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 32767
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2**31 - 1


def test_what_the_kernel_does_not_offer_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as sock:
        option = socket.TCP_USER_TIMEOUT
        monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
        probe(OfSocket(sock), Heartbeat(interval=20, timeout=9))
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 20
        assert sock.getsockopt(socket.IPPROTO_TCP, option) == 0


class Writing(asyncio.WriteTransport):
    """A transport on a socket (or none) that holds so many bytes itself."""

    def __init__(self, sock: socket.socket | None, size: int) -> None:
        super().__init__({"socket": sock})
        self.size = size

    def get_write_buffer_size(self) -> int:
        return self.size


def test_what_the_peer_has_not_confirmed_is_unsent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        with theirs, ours:
            assert unsent(Writing(ours, 7)) == 7
            ours.setblocking(False)
            ours.send(bytes(2**24))
            assert unsent(Writing(ours, 7)) > 7
        assert unsent(Writing(ours, 7)) == 7
    assert unsent(Writing(None, 7)) == 7


def test_a_socket_that_cannot_tell_what_it_has_sent_is_no_error(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        assert unsent(Writing(cast(socket.socket, file), 7)) == 7
