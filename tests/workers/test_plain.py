"""What parent and worker send each other comes as it was."""

import json
from dataclasses import replace
from typing import Any

import pytest

from sidecar.admin.live import ConnectionFilter
from sidecar.auth.logout import Logout
from sidecar.errors import WorkerError
from sidecar.model import Denial, Reason
from sidecar.state.base import Kind
from sidecar.workers.plain import CLOSED, CONNECTIONS, FILTER, KICKED, REVOCATIONS, VERDICT, Plain
from tests.admin.conftest import ALICE
from tests.support.revocations import NOW, revocation

NOBODY = replace(ALICE, user=None, provider=None, token_id=None, expires_at=None)
ODD = "ä\u2028\U0001f600\0 \x7f"
VALUES: list[tuple[Plain[Any], Any]] = [
    (CLOSED, 7),
    (KICKED, True),
    (CONNECTIONS, ()),
    (CONNECTIONS, (ALICE, NOBODY, replace(ALICE, user=ODD))),
    (FILTER, ConnectionFilter()),
    (FILTER, ConnectionFilter(user="", route=ODD, address="::1", provider="app")),
    (REVOCATIONS, (revocation(Kind.ISSUED_BEFORE, "", before=NOW + 0.1), revocation(value=ODD))),
    (REVOCATIONS, (revocation(Kind.SUB, provider="app", reason=ODD),)),
    (VERDICT, Denial(Reason.STATE_UNAVAILABLE, "no keys", "rule")),
    (VERDICT, Logout("app", "https://a.example", Kind.SID, "s-1", "l-1", NOW)),
]


@pytest.mark.parametrize(("plain", "value"), VALUES)
def test_a_value_comes_through_json_as_it_was(plain: Plain[Any], value: Any) -> None:
    found = plain.get(json.loads(json.dumps(plain.put(value))))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("plain", "body"),
    [
        (CLOSED, {}),
        (CLOSED, {"closed": "many"}),
        (CLOSED, None),
        (CONNECTIONS, {"connections": [{"id": "c-1"}]}),
        (REVOCATIONS, {"revocations": 5}),
        (VERDICT, {"verdict": {"provider": "app"}}),
    ],
)
def test_what_is_no_such_value_is_an_error(plain: Plain[Any], body: Any) -> None:
    with pytest.raises(WorkerError, match="a message has no "):
        plain.get(body)
