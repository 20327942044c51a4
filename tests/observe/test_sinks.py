import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import ConfigError
from sidecar.observe.sinks import Sink, open_sink
from tests.support.special_files import special_file

Open = Callable[[str], Sink]


@pytest.fixture
def open_at() -> Iterator[Open]:
    opened: list[Sink] = []

    def open_at(path: str) -> Sink:
        opened.append(open_sink(path))
        return opened[-1]

    yield open_at
    for sink in opened:
        sink.close()


def write(sink: Sink, event: str) -> None:
    sink.write("2023-11-14T22:13:20.000000Z", "info", event, {"route": "chat"})


def names(path: Path) -> list[str]:
    return [json.loads(line)["event"] for line in path.read_text("ascii").splitlines()]


def test_a_line_is_in_the_file_as_soon_as_it_is_written(tmp_path: Path, open_at: Open) -> None:
    path = tmp_path / "audit.log"
    write(open_at(str(path)), "first")
    assert path.read_text() == (
        '{"time":"2023-11-14T22:13:20.000000Z","level":"info","event":"first","route":"chat"}\n'
    )


def test_an_existing_file_is_appended_to(tmp_path: Path, open_at: Open) -> None:
    path = tmp_path / "audit.log"
    for event in ("first", "second"):
        sink = open_at(str(path))
        write(sink, event)
        sink.close()
    assert names(path) == ["first", "second"]


def test_others_cannot_read_a_new_file(tmp_path: Path, open_at: Open) -> None:
    open_at(str(tmp_path / "audit.log")).close()
    assert (tmp_path / "audit.log").stat().st_mode & 0o007 == 0


@pytest.mark.parametrize("missing", [True, False])
def test_a_file_that_was_rotated_is_opened_anew(
    tmp_path: Path, missing: bool, open_at: Open
) -> None:
    path, moved = tmp_path / "audit.log", tmp_path / "audit.log.1"
    sink = open_at(str(path))
    write(sink, "before")
    path.rename(moved)
    if not missing:
        path.touch()
    write(sink, "after")
    assert (names(moved), names(path)) == (["before"], ["after"])


def test_a_file_that_was_truncated_goes_on_from_its_start(tmp_path: Path, open_at: Open) -> None:
    path = tmp_path / "audit.log"
    sink = open_at(str(path))
    write(sink, "before")
    os.truncate(path, 0)
    write(sink, "after")
    assert names(path) == ["after"]


def test_rotation_leaves_no_file_open(tmp_path: Path, open_at: Open) -> None:
    path = tmp_path / "audit.log"
    sink = open_at(str(path))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        path.unlink()
        write(sink, "event")
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_old_file_is_kept_while_the_path_cannot_be_opened(
    tmp_path: Path, configured: Callable[..., Any], open_at: Open
) -> None:
    stream = configured()
    path, moved = tmp_path / "audit.log", tmp_path / "audit.log.1"
    sink = open_at(str(path))
    path.rename(moved)
    path.mkdir()
    write(sink, "first")
    write(sink, "second")
    assert names(moved) == ["first", "second"]
    assert [event["event"] for event in stream.events] == ["audit_reopen_failed"]
    path.rmdir()
    write(sink, "third")
    assert names(path) == ["third"]


def test_a_full_disk_is_logged_once_and_fails_nobody(
    configured: Callable[..., Any], open_at: Open
) -> None:
    stream = configured()
    sink = open_at("/dev/full")
    write(sink, "first")
    write(sink, "second")
    [event] = stream.events
    assert (event["event"], event["file"]) == ("audit_write_failed", "/dev/full")
    assert event["error"] == os.strerror(errno.ENOSPC)


def test_a_failure_after_a_recovery_is_logged_again(
    tmp_path: Path, configured: Callable[..., Any], open_at: Open
) -> None:
    stream = configured()
    path = tmp_path / "audit.log"
    sink = open_at(str(path))
    for _ in range(2):
        path.unlink()
        path.mkdir()
        write(sink, "lost")
        path.rmdir()
        write(sink, "written")
    assert [event["event"] for event in stream.events] == ["audit_reopen_failed"] * 2


def test_what_comes_after_the_end_is_lost(tmp_path: Path, open_at: Open) -> None:
    path = tmp_path / "audit.log"
    sink = open_at(str(path))
    sink.close()
    write(sink, "late")
    assert path.read_text() == ""


def test_a_file_that_cannot_be_written_is_an_error_at_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_sink(str(tmp_path / "nowhere" / "audit.log"))
    [problem] = caught.value.problems
    assert problem.path == "logging.audit.file"
    assert "No such file or directory" in problem.wrong


def test_a_pipe_that_nobody_reads_is_an_error_and_not_waited_for(tmp_path: Path) -> None:
    path = special_file(tmp_path, "pipe")
    with pytest.raises(ConfigError, match=r"the file cannot be written \(No such device"):
        open_sink(str(path))


def test_a_pipe_that_somebody_reads_takes_lines(tmp_path: Path, open_at: Open) -> None:
    path = special_file(tmp_path, "pipe")
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write(open_at(str(path)), "first")
        assert json.loads(os.read(reading, 1000))["event"] == "first"
    finally:
        os.close(reading)
