"""The section `session` of a route, and messages that bring a token, compiled."""

from collections.abc import Iterator
from typing import Any, Final

from sidecar.config.compile.report import Report
from sidecar.config.nodes import Loc
from sidecar.config.schema import session as schema
from sidecar.policy.credentials import MaxWaiting, MessageSource
from sidecar.policy.matching import MessagePattern
from sidecar.policy.replies import Reply, template
from sidecar.policy.session import Expiry, Heartbeat, Refresh, Session, Warn

__all__ = ["compile_message_source", "compile_session"]

_PONG: Final = 10.0


def compile_session(loc: Loc, model: schema.Session, limit: int, report: Report) -> Session:
    """A route's rule for live connections. `limit` is the largest token, in bytes."""
    return Session(
        expiry=Expiry(model.expiry),
        warn=_warn(loc, model, report),
        refresh=_refresh((*loc, "refresh"), model.refresh, limit, report),
        idle_timeout=model.idle_timeout,
        heartbeat=_heartbeat((*loc, "heartbeat"), model.heartbeat, report),
        max_lifetime=model.max_lifetime,
        revocable=model.revocable,
    )


def compile_message_source(
    loc: Loc, model: schema.MessageSource, limit: int, report: Report
) -> MessageSource | None:
    """The first message as a source; None, with errors written down, where it cannot be used."""
    pattern = _pattern(loc, model, limit, report)
    reply = _reply((*loc, "reply"), model.reply, report)
    failure = _reply((*loc, "failure"), model.failure, report)
    waiting = _waiting((*loc, "max_waiting"), model.max_waiting, report)
    if pattern is None:
        return None
    return MessageSource(pattern, model.timeout, reply, failure, waiting)


def _waiting(loc: Loc, model: schema.MaxWaiting, report: Report) -> MaxWaiting:
    if model.per_ip > model.total:
        report.warn(
            (*loc, "per_ip"),
            f"{model.per_ip} is over the total of {model.total}: one address can take every place",
            "give less than the total",
        )
    return MaxWaiting(model.per_ip, model.total)


def _warn(loc: Loc, model: schema.Session, report: Report) -> Warn | None:
    if model.warn is None:
        return None
    if model.expiry == "ignore":
        report.error(
            (*loc, "warn"),
            "warns of an end that `expiry: ignore` takes away",
            "remove it, or use `expiry: close`",
            given=[(*loc, "expiry")],
        )
    message = _filled((*loc, "warn", "message"), model.warn.message, report)
    return None if message is None else Warn(model.warn.before, message)


def _refresh(loc: Loc, model: schema.Refresh | None, limit: int, report: Report) -> Refresh | None:
    if model is None:
        return None
    pattern = _pattern(loc, model, limit, report)
    reply = _reply((*loc, "reply"), model.reply, report)
    failure = _reply((*loc, "failure"), model.failure, report)
    return None if pattern is None else Refresh(pattern, reply, failure)


def _heartbeat(loc: Loc, model: schema.Heartbeat | None, report: Report) -> Heartbeat | None:
    if model is None:
        return None
    timeout = min(_PONG, model.interval) if model.timeout is None else model.timeout
    if timeout > model.interval:
        report.error(
            (*loc, "timeout"),
            "is longer than the interval, so that the next ping comes first",
            "give at most the interval",
            given=[(*loc, "interval")],
        )
    return Heartbeat(model.interval, timeout)


def _pattern(
    loc: Loc, model: schema.MessageSource | schema.Refresh, limit: int, report: Report
) -> MessagePattern | None:
    when = tuple(model.when.items())
    return report.attempt(
        (*loc, "when"),
        lambda: MessagePattern(when, model.token, limit),
        given=[(*loc, "token"), ("jwt", "max_token_size")],
    )


def _reply(loc: Loc, value: Any, report: Report) -> Reply | None:
    return None if value is None else _filled(loc, value, report)


def _filled(loc: Loc, value: Any, report: Report) -> Reply | None:
    """The message; None, with an error at each text that is no template, where it is none."""
    before = len(report.errors)
    for place, text in _texts(loc, value):
        report.attempt(place, lambda text=text: template(text))  # type: ignore[misc]
    if len(report.errors) > before:
        return None
    return report.attempt(loc, lambda: Reply(value))


def _texts(loc: Loc, value: Any) -> Iterator[tuple[Loc, str]]:
    if isinstance(value, str):
        yield loc, value
    elif isinstance(value, dict | list):
        steps = value.items() if isinstance(value, dict) else enumerate(value)
        for step, inner in steps:
            yield from _texts((*loc, step), inner)
