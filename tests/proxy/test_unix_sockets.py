"""Whose file a Unix socket's is."""

import errno
import os
import socket
from pathlib import Path

import pytest

from sidecar.proxy.unix_sockets import SocketFile, bind_unix


def test_a_file_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    bind_unix(path).close()
    assert os.path.exists(path)
    with bind_unix(path) as sock:
        assert sock.getsockname() == path


@pytest.mark.parametrize("full", [False, True])
def test_a_program_that_listens_keeps_its_path(tmp_path: Path, full: bool) -> None:
    path = str(tmp_path / "s")
    with bind_unix(path) as first, socket.socket(socket.AF_UNIX) as client:
        first.listen(0)
        if full:
            client.connect(path)
        with pytest.raises(OSError, match="in use") as raised:
            bind_unix(path)
        assert raised.value.errno == errno.EADDRINUSE
        with socket.socket(socket.AF_UNIX) as other:
            other.setblocking(False)
            assert other.connect_ex(path) in (0, errno.EAGAIN)


def test_another_kind_of_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        bind_unix(str(path))
    assert path.read_text() == "precious"


def test_its_own_file_is_removed(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with bind_unix(path) as sock:
        file = SocketFile.of(sock)
    file.remove()
    assert not os.path.exists(path)
    file.remove()  # once more does no harm


def test_the_file_of_a_program_that_came_later_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with bind_unix(path) as first:
        file = SocketFile.of(first)
        os.unlink(path)
        with bind_unix(path):
            file.remove()
            assert os.path.exists(path)
