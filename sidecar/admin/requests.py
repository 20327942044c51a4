"""What clients of the admin API send, read strictly."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final

from multidict import MultiMapping
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from sidecar.admin.live import ConnectionFilter
from sidecar.admin.problems import Refused
from sidecar.config.schema.base import PositiveDuration
from sidecar.policy.compiled import TokenRules
from sidecar.policy.strict_json import json_object
from sidecar.state.base import Kind, Revocation, moment_after
from sidecar.state.retention import LONGEST, retention

__all__ = ["ListQuery", "list_query", "revocation_of"]

_DEFAULT_PAGE: Final = 100
_MAX_PAGE: Final = 1000
_FUTURE: Final = 60.0
"""Seconds that the clock of whoever gives a time may be ahead of ours."""
_FILTERS: Final = ("user", "route", "address", "provider")
_PAGING: Final = ("limit", "cursor")

_LIMIT: Final = re.compile("[1-9][0-9]{0,3}")

_Value = Annotated[str, Field(min_length=1, max_length=1024)]


class _Revocation(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    user: _Value | None = None
    sid: _Value | None = None
    jti: _Value | None = None
    issued_before: Annotated[float, Field(ge=0)] | None = None
    provider: str | None = None
    ttl: PositiveDuration | None = None
    reason: Annotated[str, Field(max_length=200)] = ""


def revocation_of(
    body: bytes, rules: TokenRules, now: float, new_id: Callable[[], str]
) -> Revocation:
    """The revocation that a JSON body asks for at `now`. Raises Refused with what is wrong."""
    model = _parsed(body)
    kind, value = _named(model)
    known = [provider.name for provider in rules.providers]
    if model.provider is not None and model.provider not in known:
        raise _bad(f"provider: there is none with this name, only {', '.join(known) or 'none'}")
    before = model.issued_before
    if before is not None and before > now + _FUTURE:
        raise _bad("issued_before: is in the future; only tokens that exist can be revoked")
    if before is None and kind is Kind.USER:
        before = moment_after(now)
    ttl = retention(rules, model.provider) if model.ttl is None else model.ttl
    if not 1 <= ttl <= LONGEST:
        raise _bad(f"ttl: give one from 1s to {LONGEST / 86_400:.0f}d")
    return Revocation(
        id=new_id(),
        kind=kind,
        value=value,
        provider=model.provider,
        before=before,
        created_at=now,
        expires_at=now + ttl,
        reason=model.reason,
    )


def _parsed(body: bytes) -> _Revocation:
    try:
        return _Revocation.model_validate(json_object(body))
    except ValidationError as error:
        raise _bad("; ".join(_mistake(each) for each in error.errors())) from None
    except ValueError as error:
        raise _bad(f"the body is {error}") from None


def _mistake(error: ErrorDetails) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{key}: is not known; the keys are {', '.join(_Revocation.model_fields)}"
    return f"{key}: {error['msg'].removeprefix('Value error, ')}"


def _named(model: _Revocation) -> tuple[Kind, str]:
    """By what the tokens are named: one of user, sid and jti, or else by time alone."""
    given = {
        kind: value
        for kind, value in ((Kind.USER, model.user), (Kind.SID, model.sid), (Kind.JTI, model.jti))
        if value is not None
    }
    timed = model.issued_before is not None
    if not given and timed:
        return Kind.ISSUED_BEFORE, ""
    if len(given) != 1 or (timed and Kind.USER not in given):
        raise _bad("give one of user, sid, jti and issued_before; the last may go with user")
    return next(iter(given.items()))


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What a listing is asked for; `cursor` None is the first page."""

    cursor: str | None
    limit: int
    which: ConnectionFilter


def list_query(query: MultiMapping[str], *, filters: bool) -> ListQuery:
    """Read the query of a listing, with filters or without. Raises Refused, for an unknown name
    too: a misspelt filter that was ignored would mean every connection.
    """
    known = (*_PAGING, *_FILTERS) if filters else _PAGING
    if len(query) != len(set(query)) or not set(query).issubset(known):
        raise _bad(f"the query: give each of {', '.join(known)} at most once, and nothing else")
    limit = query.get("limit", str(_DEFAULT_PAGE))
    if _LIMIT.fullmatch(limit) is None or int(limit) > _MAX_PAGE:
        raise _bad(f"limit: give a number from 1 to {_MAX_PAGE}")
    which = ConnectionFilter(**{name: query[name] for name in _FILTERS if name in query})
    return ListQuery(query.get("cursor"), int(limit), which)


def _bad(detail: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, detail)
