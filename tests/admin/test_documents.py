"""docs/admin-api.md says what the listener does."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.forgery import signed

if TYPE_CHECKING:
    from sidecar.admin.live import Connection
    from tests.admin.conftest import Running

TEXT = (Path(__file__).parents[2] / "docs" / "admin-api.md").read_text()
EXAMPLES: list[Any] = [
    json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, flags=re.DOTALL)
]
PROBLEM, REVOKED, REVOCATIONS, CONNECTIONS, LOGOUT_ERROR = EXAMPLES
NOW = 1_700_000_000


def body_of(path: str) -> dict[str, Any]:
    """The JSON that the example with curl sends to a path."""
    match = re.search(rf"{path} .*?-d '([^']+)'", TEXT, flags=re.DOTALL)
    assert match is not None
    body: dict[str, Any] = json.loads(match[1])
    return body


def test_every_path_is_in_the_document_and_no_other(running: "Running") -> None:
    app = running.client.app
    assert app is not None
    served = {
        f"{route.method} {route.resource.canonical}"
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert set(re.findall(r"`((?:GET|POST|DELETE) /[^`?]*)`", TEXT)) == served


async def test_the_example_of_a_revocation_is_answered_as_it_says(running: "Running") -> None:
    answer = await running.revoke(**body_of("/api/revocations"))
    assert answer | {"id": REVOKED["id"], "closed": 2} == REVOKED
    _, page = await running.ask("GET", "/api/revocations")
    assert page["revocations"][0] | {"id": REVOKED["id"]} == REVOCATIONS["revocations"][0]
    assert page.keys() == REVOCATIONS.keys()


async def test_the_example_of_a_connection_has_the_keys_of_the_answer(
    running: "Running", crowd: list["Connection"]
) -> None:
    _, page = await running.ask("GET", "/api/connections", params={"user": "alice", "limit": "50"})
    assert len(crowd) > len(page["connections"]) == 2
    assert page.keys() == CONNECTIONS.keys()
    assert list(page["connections"][0]) == list(CONNECTIONS["connections"][0])


async def test_the_example_of_a_mistake_is_answered_as_it_says(running: "Running") -> None:
    assert await running.ask("GET", "/api/connections?limit=0") == (400, PROBLEM)


async def test_the_example_of_a_refused_logout_is_answered_as_it_says(running: "Running") -> None:
    form = {"logout_token": signed({"sub": "alice", "exp": NOW + 60})}
    assert await running.ask("POST", "/backchannel-logout", data=form) == (400, LOGOUT_ERROR)
