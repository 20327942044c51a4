"""The audit log: one event for each decision, for each connection's end, and for each action of an
administrator or an issuer upon connections.

A line of the log is ASCII JSON. It names who, where, what and why, and never holds a token, a
cookie or a query.
"""

import hmac
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate, takewhile
from typing import Any, Final, NamedTuple
from zlib import crc32

from sidecar.errors import ConfigError, Problem
from sidecar.observe.logs import clean, dumps, timestamp
from sidecar.observe.sinks import Sink, open_sink
from sidecar.policy.compiled import Logging

__all__ = [
    "HASH_KEY_VARIABLE",
    "Action",
    "AuditLog",
    "Closure",
    "Decision",
    "Event",
    "hash_key",
]

HASH_KEY_VARIABLE: Final = "WS_SIDECAR_HASH_KEY"
"""Replicas that share this key give a user the same pseudonym, also after a restart."""

_MIN_HASH_KEY: Final = 32  # bytes; user ids are guessable, so the key must not be
_MAX_REFUSED_LINE: Final = 512  # bytes, the line's end included
_MAX_LINE: Final = 1024
_MAX_FIELD: Final = 64  # bytes of JSON for one field while others still need room
_MAX_REFUSED_PER_SECOND: Final = 100
# Fields that take what the others leave.
_LAST: Final = frozenset({"shadowed", "path", "detail"})
_SUMMARY: Final = "handshakes_refused_summary"


class Decision(NamedTuple):
    """What was decided about a handshake, and on what grounds.

    `reason` and `rule` are as in `model.Denial` (None where allowed), `detail` is for the log
    alone. `shadowed` names the rules that failed without being enforced. `path` is the raw path;
    `seconds` is the time from the request's head to the decision.
    """

    allowed: bool
    reason: str | None
    rule: str | None
    detail: str
    route: str | None
    user: str | None
    provider: str | None
    token_id: str | None
    address: str
    path: str
    request_id: str
    connection_id: str | None
    shadowed: tuple[str, ...]
    seconds: float


class Closure(NamedTuple):
    """How a connection ended: the close code, by whom ("client", "upstream" or "sidecar"), why
    (a reason's name where the sidecar ended it), and what went each way. `detail` is for the log
    alone.
    """

    connection_id: str
    request_id: str
    route: str
    user: str | None
    code: int
    by: str
    reason: str | None
    seconds: float
    client_messages: int
    client_bytes: int
    upstream_messages: int
    upstream_bytes: int
    detail: str = ""


class Event(StrEnum):
    """What can be done to live connections, as the log calls it."""

    REVOCATION_ADDED = "revocation_added"
    REVOCATION_WITHDRAWN = "revocation_withdrawn"
    KICKED = "kicked"
    LOGOUT_REFUSED = "logout_refused"
    REFRESHED = "token_refreshed"
    REFRESH_REFUSED = "token_refresh_refused"


_REFUSALS: Final = frozenset({Event.LOGOUT_REFUSED, Event.REFRESH_REFUSED})
_BOUNDED: Final = _REFUSALS | {Event.REFRESHED}
"""Not written without bound: a stranger or a client can cause them as often as it likes."""


@dataclass(frozen=True, slots=True)
class Action:
    """What an administrator, an issuer of tokens or a connection's own client asked for, and from
    which address.

    `reason` is why it was refused. `user` is whom a revocation names, by the user's claim or sub,
    or the connection's; `session_id` and `token_id` are the sid and jti that it names, `before` is
    its moment in seconds since the epoch. `closed` is how many live connections it ended. `detail`
    is for the log alone.
    """

    event: Event
    address: str
    reason: str | None = None
    revocation_id: str | None = None
    kind: str | None = None
    provider: str | None = None
    user: str | None = None
    session_id: str | None = None
    token_id: str | None = None
    before: float | None = None
    connection_id: str | None = None
    closed: int | None = None
    detail: str = ""


def hash_key(environ: Mapping[str, str]) -> bytes | None:
    """The key for users' pseudonyms from the environment; None where it is not set.

    Raises ConfigError for a key under 32 bytes.
    """
    text = environ.get(HASH_KEY_VARIABLE)
    if text is None:
        return None
    key = text.encode("utf-8", "surrogateescape")
    if len(key) < _MIN_HASH_KEY:
        wrong = f"the key in {HASH_KEY_VARIABLE} is shorter than {_MIN_HASH_KEY} bytes"
        remedy = "set a random key, or none for one that lasts as long as the process"
        raise ConfigError([Problem("environment", 0, 0, HASH_KEY_VARIABLE, wrong, remedy)])
    return key


class AuditLog:
    """Writes decisions, closures and actions to `logging.audit.file`, or to the log stream.

    In the stream a refusal is a warning and everything else an info, and `logging.level` applies;
    a file gets every event. User ids are replaced by the first 16 hexadecimal digits of their
    HMAC-SHA256 where the policy says so; `hash_key` None is a random key for this process.

    A refusal's line has at most 512 bytes, and at most 100 of them are written in a second. The
    others are counted and come as one summary: with the next event, or by `flush`, which the
    server calls every second or so. As one of several, a worker's events bear its number.

    Raises ConfigError where the file cannot be written. `clock` gives seconds since the epoch.
    """

    def __init__(
        self,
        logging: Logging,
        *,
        clock: Callable[[], float],
        hash_key: bytes | None,
        worker: int | None = None,
    ) -> None:
        self._clock = clock
        self._hash_key = hash_key or secrets.token_bytes(32)
        self._rules = logging
        self._sink = open_sink(logging.audit.file)
        self._worker: dict[str, Any] = {} if worker is None else {"worker": worker}
        self._written: deque[float] = deque(maxlen=_MAX_REFUSED_PER_SECOND)
        self._suppressed: Counter[str] = Counter()
        self._suppressed_since = 0.0

    def sink_for(self, logging: Logging) -> Sink:
        """Where events go by these settings: what is open already, or opened now. Raises
        ConfigError where the file cannot be written.
        """
        path = logging.audit.file
        return self._sink if path == self._rules.audit.file else open_sink(path)

    def close_unused(self, sink: Sink) -> None:
        """Let go of a sink that was opened and is not to be followed."""
        if sink is not self._sink:
            sink.close()

    def follow(self, logging: Logging, sink: Sink) -> None:
        """Go by these settings from now on, with their sink; pseudonyms stay the same."""
        before, self._rules, self._sink = self._sink, logging, sink
        self.close_unused(before)

    def decision(self, decision: Decision) -> None:
        """Record a decision about a handshake."""
        now = self._clock()
        self._summarise(now)
        if decision.allowed:
            if self._sampled(decision.connection_id or decision.request_id):
                self._emit(now, "info", "handshake", self._of_decision(decision), _MAX_LINE)
        elif self._is_flooded(now):
            self._suppress(decision.rule or decision.reason or "none", now)
        else:
            self._written.append(now)
            self._emit(now, "warning", "handshake", self._of_decision(decision), _MAX_REFUSED_LINE)

    def closed(self, closure: Closure) -> None:
        """Record the end of a connection whose admission was recorded."""
        now = self._clock()
        self._summarise(now)
        if self._sampled(closure.connection_id):
            self._emit(now, "info", "connection_closed", self._of_closure(closure), _MAX_LINE)

    def action(self, action: Action) -> None:
        """Record what was asked for."""
        now = self._clock()
        self._summarise(now)
        if action.event in _BOUNDED:
            if self._is_flooded(now):
                self._suppress(action.event, now)
                return
            self._written.append(now)
        if action.event in _REFUSALS:
            self._emit(now, "warning", action.event, self._of_action(action), _MAX_REFUSED_LINE)
        else:
            self._emit(now, "info", action.event, self._of_action(action), _MAX_LINE)

    def flush(self) -> None:
        """Write the summary of refusals that were not written, when its second is over."""
        self._summarise(self._clock())

    def close(self) -> None:
        """Write what is outstanding and let the file go."""
        self._write_summary(self._clock())
        self._sink.close()

    def _sampled(self, connection_id: str) -> bool:
        """By the connection's id, so that its admission and its end are kept or left together."""
        share = self._rules.audit.sample_allowed
        return crc32(connection_id.encode("utf-8", "surrogatepass")) < share * 2**32

    def _is_flooded(self, now: float) -> bool:
        """Whether as many refusals as may be were written within the last second."""
        full = len(self._written) == _MAX_REFUSED_PER_SECOND
        return full and _within_a_second(self._written[0], now)

    def _suppress(self, reason: str, now: float) -> None:
        if not self._suppressed:
            self._suppressed_since = now
        self._suppressed[reason] += 1

    def _summarise(self, now: float) -> None:
        if not _within_a_second(self._suppressed_since, now):
            self._write_summary(now)

    def _write_summary(self, now: float) -> None:
        if not self._suppressed:
            return
        reasons = dict(sorted(self._suppressed.items()))
        fields = {**self._worker, "refused": self._suppressed.total(), "reasons": reasons}
        self._suppressed.clear()
        self._sink.write(timestamp(now), "warning", _SUMMARY, fields)

    def _emit(
        self, now: float, level: str, event: str, fields: Iterable[tuple[str, Any]], limit: int
    ) -> None:
        time = timestamp(now)
        always = {"time": time, "level": level, "event": event, **self._worker}
        used = len(dumps(always)) + len("\n")
        self._sink.write(time, level, event, self._worker | _fit(fields, limit - used))

    def _user(self, user: str | None) -> str | None:
        if user is None or not self._rules.hash_user_ids:
            return user
        name = user.encode("utf-8", "surrogatepass")
        return hmac.digest(self._hash_key, name, "sha256").hex()[:16]

    def _of_decision(self, decision: Decision) -> Iterable[tuple[str, Any]]:
        """The event's fields; where there is not room for all, the first come first."""
        yield "decision", "allowed" if decision.allowed else "refused"
        yield "reason", decision.reason
        yield "rule", decision.rule
        yield "request_id", decision.request_id
        yield "connection_id", decision.connection_id
        yield "address", decision.address
        yield "route", decision.route
        yield "user", self._user(decision.user)
        yield "provider", decision.provider
        yield "token_id", decision.token_id
        yield "seconds", round(decision.seconds, 6)
        yield "shadowed", ", ".join(decision.shadowed)
        yield "path", decision.path.partition("?")[0]
        yield "detail", decision.detail

    def _of_closure(self, closure: Closure) -> Iterable[tuple[str, Any]]:
        yield "code", closure.code
        yield "by", closure.by
        yield "reason", closure.reason
        yield "request_id", closure.request_id
        yield "connection_id", closure.connection_id
        yield "route", closure.route
        yield "user", self._user(closure.user)
        yield "seconds", round(closure.seconds, 3)
        yield "client_messages", closure.client_messages
        yield "client_bytes", closure.client_bytes
        yield "upstream_messages", closure.upstream_messages
        yield "upstream_bytes", closure.upstream_bytes
        yield "detail", closure.detail

    def _of_action(self, action: Action) -> Iterable[tuple[str, Any]]:
        yield "address", action.address
        yield "reason", action.reason
        yield "revocation_id", action.revocation_id
        yield "kind", action.kind
        yield "provider", action.provider
        yield "user", self._user(action.user)
        yield "session_id", action.session_id
        yield "token_id", action.token_id
        yield "before", action.before
        yield "connection_id", action.connection_id
        yield "closed", action.closed
        yield "detail", action.detail


def _within_a_second(before: float, now: float) -> bool:
    return 0 <= now - before < 1  # a clock that was set back must not silence the log


def _fit(fields: Iterable[tuple[str, Any]], room: int) -> dict[str, Any]:
    """As many of the fields as `room` bytes of a JSON object hold, texts cut where they must be."""
    kept: dict[str, Any] = {}
    for key, value in fields:
        if value is None or value == "":
            continue
        free = room - len(f',"{key}":')
        limit = free if key in _LAST else min(free, _MAX_FIELD)
        text = clean(value)
        size = len(dumps(text))
        if size > limit and isinstance(text, str):
            text = _cut(text, limit - len('""'))
            size = len(dumps(text))
        if size <= limit and text != "":
            kept[key] = text
            room = free - size
    return kept


def _cut(text: str, size: int) -> str:
    """The start of a text that is too long whose JSON, without quotes, has at most `size` bytes."""
    sizes = accumulate(len(dumps(character)) - 2 for character in text)
    count = sum(1 for _ in takewhile(lambda total: total <= size - len("..."), sizes))
    return f"{text[:count]}..." if count else ""
