"""Where the events of the audit log go: the log stream, or a file of their own."""

import io
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import structlog

from sidecar.errors import ConfigError, Problem
from sidecar.observe.logs import dumps

__all__ = ["Sink", "open_sink"]

_MODE: Final = 0o640  # an audit log is not for everybody's eyes


class Sink(Protocol):
    """Takes events whose fields are clean and cut to size."""

    def write(self, time: str, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write one event; never raises."""

    def close(self) -> None:
        """Let go of what the sink holds; what comes later is lost."""


def open_sink(path: str | None) -> Sink:
    """The sink for `logging.audit.file`. Raises ConfigError where the file cannot be written."""
    if path is None:
        return _StreamSink()
    try:
        return _FileSink(path)
    except OSError as error:
        wrong = f"the file cannot be written ({error.strerror})"
        remedy = "name a file that this process may append to, or null for the log stream"
        raise ConfigError([Problem(path, 0, 0, "logging.audit.file", wrong, remedy)]) from error


class _StreamSink:
    """The log stream, at the level that it was configured for."""

    def write(self, time: str, level: str, event: str, fields: Mapping[str, Any]) -> None:
        log = structlog.get_logger()
        (log.warning if level == "warning" else log.info)(event, time=time, **fields)

    def close(self) -> None:
        """Nothing to let go: the stream is everybody's."""


class _FileSink:
    """A file, with one write for each line, so that several processes may share it.

    When the file was moved or removed (log rotation), the next line opens the path anew; where
    that fails, lines still go to the old file. A line that cannot be written is lost; the first
    of a row of such failures is logged.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = _open(path)
        self._failing = False

    def write(self, time: str, level: str, event: str, fields: Mapping[str, Any]) -> None:
        if self._file.closed:
            return
        line = dumps({"time": time, "level": level, "event": event, **fields}) + "\n"
        reopened = self._try(self._reopen_when_moved, "audit_reopen_failed")
        written = self._try(lambda: self._file.write(line.encode("ascii")), "audit_write_failed")
        self._failing = not (reopened and written)

    def close(self) -> None:
        self._file.close()

    def _reopen_when_moved(self) -> None:
        here = os.fstat(self._file.fileno())
        try:
            if os.path.samestat(here, os.stat(self._path)):
                return
        except FileNotFoundError:
            pass
        fresh = _open(self._path)
        self._file.close()
        self._file = fresh

    def _try(self, step: Callable[[], object], failure: str) -> bool:
        try:
            step()
        except OSError as error:
            if not self._failing:
                structlog.get_logger().error(failure, file=self._path, error=error.strerror)
            return False
        return True


def _open(path: str) -> io.FileIO:
    return open(path, "ab", buffering=0, opener=_at_once)


def _at_once(path: str, flags: int) -> int:
    """Opens a pipe only where somebody reads it: else nobody knows how long that would take."""
    descriptor = os.open(path, flags | os.O_NONBLOCK, _MODE)
    os.set_blocking(descriptor, True)  # a line is written whole, or not at all
    return descriptor
