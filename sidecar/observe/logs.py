"""Log lines: one line of ASCII for each event, and never a credential in one.

Every value passes `clean` before it is rendered: what the call sites must not log is taken out
here once more, should one of them ever forget.
"""

import json
import logging
import math
import re
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TextIO

import structlog

from sidecar.policy.compiled import Logging

__all__ = ["MAX_TEXT", "clean", "configure", "dumps", "follow", "timestamp"]

MAX_TEXT: Final = 256
"""The longest text in a log line, in characters."""

_TRACEBACK_KEY: Final = "exception"
_MAX_TRACEBACK: Final = 4096
_MAX_SEARCHED: Final = 4096  # of a giant text only so much is searched for tokens; less is kept
_REDACTED: Final = "[redacted]"
_SECRET_KEYS: Final = frozenset(
    {"authorization", "cookie", "jwt", "password", "query", "query_string", "secret", "token"}
)
_SECRET_ENDINGS: Final = ("_authorization", "_cookie", "_password", "_query", "_secret", "_token")
# All the characters of a JWS compact serialisation (RFC 7515 section 7.1), also percent-encoded.
_RUN: Final = re.compile(r"[A-Za-z0-9_.%~-]{10,}")
# '{"' in base64url, which starts every JOSE header; and the same encoded once more, as in
# base64url.bearer.authorization.k8s.io.<token>.
_TOKEN_START: Final = re.compile(r"eyJ|ZXlK")
_LONG_RUN: Final = 32

_encode: Final = json.JSONEncoder(separators=(",", ":")).encode

_EventDict = MutableMapping[str, Any]


def configure(rules: Logging, *, worker: int | None = None) -> None:
    """Send structlog's events and the standard library's warnings to stderr, in one format.

    Events of the program itself are written from `rules.level` on; those of libraries (aiohttp,
    asyncio) from that level on too, but never below warning. Those of one of several workers bear
    its number. May be called again.
    """
    stamp = partial(_stamp, worker)
    render = _render_console if rules.format == "console" else _render_json
    level = logging.getLevelNamesMapping()[rules.level.upper()]
    stream = _Stream(sys.stderr)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            stamp,
            _clean_event,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=stream),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    _route_standard_library(stream, [stamp, _clean_event, render], max(level, logging.WARNING))


def follow(before: Logging, rules: Logging, *, worker: int | None = None) -> None:
    """`configure` anew where the rules are others than before."""
    if (before.format, before.level) != (rules.format, rules.level):
        configure(rules, worker=worker)


def clean(value: Any, key: str = "") -> Any:
    """The value as it may be logged: JSON types only, credentials redacted, long texts cut."""
    if _is_secret(key):
        return _REDACTED
    if type(value) is str and key != _TRACEBACK_KEY:
        return _clean_text(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {_clean_text(str(name)): clean(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item) for item in value]
    if key == _TRACEBACK_KEY:
        return _redact(str(value)[-_MAX_TRACEBACK:])
    return _clean_text(str(value))


def dumps(value: Any) -> str:
    """Compact JSON in printable ASCII."""
    return _encode(value)


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, with microseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class _Stream:
    """stderr for log lines. A reader that went away must not fail what is being logged."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._file.flush()


class _Handler(logging.StreamHandler[_Stream]):
    """The program's own handler on the root logger, told from others by its type."""


def _route_standard_library(
    stream: _Stream, last: Sequence[structlog.typing.Processor], level: int
) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.format_exc_info,
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = _Handler(stream)
    handler.setFormatter(formatter)
    handler.setLevel(level)
    root = logging.getLogger()
    for other in root.handlers[:]:
        if isinstance(other, _Handler):
            root.removeHandler(other)
    root.addHandler(handler)


def _is_secret(key: str) -> bool:
    folded = key.lower().replace("-", "_")
    return folded in _SECRET_KEYS or folded.endswith(_SECRET_ENDINGS)


def _clean_text(text: str) -> str:
    text = _redact(text[:_MAX_SEARCHED])
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 3]}..."


def _redact(text: str) -> str:
    return _RUN.sub(_redact_run, text)


def _redact_run(found: re.Match[str]) -> str:
    run = found.group()
    start = _TOKEN_START.search(run)
    if start is None:
        return run
    rest = run[start.start() :]
    has_parts = "." in rest or "%2e" in rest.lower()
    # A replacement never makes a text longer: the audit log counts on it.
    if len(rest) >= _LONG_RUN or (has_parts and len(rest) >= len(_REDACTED)):
        return run[: start.start()] + _REDACTED
    return run


def _stamp(worker: int | None, _logger: Any, _method: str, event: _EventDict) -> _EventDict:
    event.setdefault("time", timestamp(datetime.now(UTC).timestamp()))
    if worker is not None:
        event.setdefault("worker", worker)
    return event


def _clean_event(_logger: Any, _method: str, event: _EventDict) -> _EventDict:
    return {key: clean(value, key) for key, value in event.items()}


def _ordered(event: _EventDict) -> dict[str, Any]:
    first = ("time", "level", "event", "worker")
    return {key: event[key] for key in first if key in event} | {
        key: value for key, value in event.items() if key not in first
    }


def _render_json(_logger: Any, _method: str, event: _EventDict) -> str:
    return dumps(_ordered(event))


def _render_console(_logger: Any, _method: str, event: _EventDict) -> str:
    """For people's eyes; values are still JSON, so that nothing can break out of its line."""
    time, level, name, *rest = _ordered(event).items()
    words = [time[1], f"[{level[1]}]", dumps(name[1])[1:-1]]
    return " ".join(words + [f"{key}={dumps(value)}" for key, value in rest])
