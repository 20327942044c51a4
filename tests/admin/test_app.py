import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import structlog
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from sidecar.admin.app import Wiring, build, guard_of
from sidecar.observe.metrics import Metrics
from sidecar.policy.compiled import Address, Admin, Logging, Policy, Server, TokenRules

TOKEN = b"a-token-of-the-admin-listener"
BEARER = {"Authorization": f"Bearer {TOKEN.decode()}"}

Client = TestClient[Request, Application]


class Sidecar:
    """What the admin listener is wired to."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self.drains = 0

    async def readiness(self) -> dict[str, str]:
        return self.problems

    def drain(self) -> None:
        self.drains += 1


Connect = Callable[..., Awaitable[Client]]


@pytest.fixture
def sidecar() -> Sidecar:
    return Sidecar()


@pytest.fixture
async def connect(sidecar: Sidecar) -> AsyncIterator[Connect]:
    """Starts admin listeners and gives their clients."""
    clients: list[Client] = []
    listen = Address("127.0.0.1", 0)
    tokens = TokenRules(30.0, 8192, ())
    metrics = Metrics(Policy(Server((listen,)), None, {}, tokens, (), Logging()), version="1.2.3")

    async def exposition(accept: str) -> tuple[bytes, str]:
        return metrics.render(accept)

    async def start(
        *, token: bytes | None = None, metrics_public: bool = False, **wiring: Any
    ) -> Client:
        wired = Wiring(
            exposition,
            wiring.get("readiness", sidecar.readiness),
            wiring.get("drain", sidecar.drain),
        )
        admin = Admin(listen, metrics_public=metrics_public)
        guard = guard_of(admin, token=None if token is None else lambda: token, wiring=wired)
        app = build(guard, wired)
        clients.append(TestClient(TestServer(app)))
        await clients[-1].start_server()
        return clients[-1]

    yield start
    for client in clients:
        await client.close()


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


async def problem(response: ClientResponse) -> dict[str, Any]:
    assert response.content_type == "application/problem+json"
    body: dict[str, Any] = json.loads(await response.text())
    assert list(body) == ["type", "title", "status", "detail"]
    assert body["status"] == response.status
    return body


async def raw(client: Client, request: str) -> str:
    """What comes back for the bytes as they stand; a client library would tidy them up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(request.encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer.decode()


async def test_a_live_process_says_so(connect: Connect) -> None:
    client = await connect()
    response = await client.get("/livez")
    assert (response.status, await response.text()) == (200, "ok")


async def test_a_process_without_problems_is_ready(connect: Connect) -> None:
    client = await connect()
    response = await client.get("/readyz")
    assert (response.status, await response.json()) == (200, {"status": "ready"})


async def test_a_process_with_problems_is_not_ready(connect: Connect, sidecar: Sidecar) -> None:
    sidecar.problems["provider corp"] = "no keys yet"
    client = await connect()
    response = await client.get("/readyz")
    assert response.status == 503
    assert await response.json() == {
        "status": "not ready",
        "problems": {"provider corp": "no keys yet"},
    }


async def test_a_process_that_is_not_ready_is_still_live(
    connect: Connect, sidecar: Sidecar
) -> None:
    sidecar.problems["upstream chat"] = "no answer"
    client = await connect()
    assert (await client.get("/livez")).status == 200


@pytest.mark.parametrize(("problems", "status"), [({}, 200), ({"a": "b"}, 503)])
async def test_head_works_for_probes(
    connect: Connect, sidecar: Sidecar, problems: dict[str, str], status: int
) -> None:
    sidecar.problems.update(problems)
    client = await connect(token=TOKEN)
    assert (await client.head("/livez")).status == 200
    response = await client.head("/readyz")
    assert (response.status, await response.read()) == (status, b"")


async def test_metrics_are_exposed(connect: Connect) -> None:
    client = await connect()
    response = await client.get("/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'ws_sidecar_build_info{scanner="python",version="1.2.3"} 1.0' in await response.text()


async def test_openmetrics_is_exposed_when_asked_for(connect: Connect) -> None:
    client = await connect()
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    response = await client.get("/metrics", headers=accept)
    assert response.content_type == "application/openmetrics-text"
    families = text_string_to_metric_families(await response.text())  # type: ignore[no-untyped-call]
    assert "ws_sidecar_build" in {family.name for family in families}


async def test_drain_starts_once(connect: Connect, sidecar: Sidecar) -> None:
    client = await connect()
    for _ in range(3):
        response = await client.post("/drain")
        assert (response.status, await response.json()) == (202, {"status": "draining"})
    assert sidecar.drains == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9090"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
@pytest.mark.parametrize("token", [None, TOKEN])
async def test_a_web_page_cannot_drain(
    connect: Connect, sidecar: Sidecar, headers: dict[str, str], token: bytes | None
) -> None:
    client = await connect(token=token)
    response = await client.post("/drain", headers=headers | BEARER)
    told = await problem(response)
    assert told["title"] == "Forbidden"
    assert told["detail"].endswith("send no Origin and no Sec-Fetch-Site")
    assert sidecar.drains == 0


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
@pytest.mark.parametrize("path", ["/metrics", "/livez", "/nothing"])
async def test_a_web_page_cannot_change_anything(connect: Connect, method: str, path: str) -> None:
    client = await connect()
    page = {"Origin": "https://evil.example"}
    assert (await client.request(method, path, headers=page)).status == 403


async def test_a_web_page_may_look_where_the_guard_lets_it(connect: Connect) -> None:
    client = await connect()
    assert (await client.get("/livez", headers={"Sec-Fetch-Site": "none"})).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example:9090", "localhost.evil.example", "127.0.0.1.evil", ""]
)
async def test_a_strangers_name_for_this_address_opens_nothing(
    connect: Connect, sidecar: Sidecar, host: str
) -> None:
    client = await connect()
    for request in ("GET /metrics", "POST /drain"):
        answer = await raw(
            client, f"{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        assert answer.startswith("HTTP/1.1 403 ")
        assert "ask for an IP address or localhost, not for another name" in answer
    assert sidecar.drains == 0


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9090", "127.0.0.1:9", "[::1]:9090", "[::1]"]
)
async def test_loopback_needs_no_token(connect: Connect, host: str) -> None:
    answer = await raw(
        await connect(), f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    assert answer.startswith("HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/metrics"), ("POST", "/drain"), ("GET", "/drain"), ("GET", "/unknown"),
     ("POST", "/metrics"), ("GET", "/livez/"), ("GET", "/"), ("OPTIONS", "*")],
)  # fmt: skip
async def test_everything_but_the_probes_takes_the_token(
    connect: Connect, sidecar: Sidecar, method: str, path: str
) -> None:
    client = await connect(token=TOKEN)
    answer = await raw(client, f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith("HTTP/1.1 401 ")
    assert "\r\nWWW-Authenticate: Bearer\r\n" in answer
    assert sidecar.drains == 0


@pytest.mark.parametrize(
    "path",
    ["/livez/../drain", "/livez%2f..%2fdrain", "//drain", "/livez;/drain", "/drain%00",
     "/livez?/drain/../../drain", "http://a/livez/../drain"],
)  # fmt: skip
async def test_no_spelling_of_a_path_gets_round_the_token(
    connect: Connect, sidecar: Sidecar, path: str
) -> None:
    client = await connect(token=TOKEN)
    answer = await raw(client, f"POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(("HTTP/1.1 401 ", "HTTP/1.1 400 ", "HTTP/1.1 405 "))
    assert sidecar.drains == 0


@pytest.mark.parametrize(
    "credential",
    ["Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN.decode()}", TOKEN.decode(),
     f"Bearer {TOKEN.decode()}x", f"Bearer {TOKEN.decode()[:-1]}", "Bearer \xe9\xff"],
)  # fmt: skip
async def test_a_wrong_credential_is_refused(connect: Connect, credential: str) -> None:
    client = await connect(token=TOKEN)
    response = await client.get("/metrics", headers={"Authorization": credential})
    told = await problem(response)
    assert told["title"] == "Unauthorized"
    assert told["detail"] == "send the admin token: Authorization: Bearer and the token"
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("credential", ["Bearer", "Bearer ", "Bearer  "])
async def test_nothing_is_no_credential_even_where_the_token_is_empty(
    connect: Connect, sidecar: Sidecar, credential: str
) -> None:
    client = await connect(token=b"")
    response = await client.post("/drain", headers={"Authorization": credential})
    assert (response.status, sidecar.drains) == (401, 0)


async def test_two_credentials_are_refused(connect: Connect) -> None:
    client = await connect(token=TOKEN)
    bearer = f"Authorization: {BEARER['Authorization']}\r\n"
    head = f"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{bearer}{bearer}\r\n"
    assert (await raw(client, head)).split(" ")[1] in {"400", "401"}


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
async def test_the_token_opens_what_is_not_a_probe(
    connect: Connect, sidecar: Sidecar, scheme: str
) -> None:
    client = await connect(token=TOKEN)
    headers = {"Authorization": f"{scheme} {TOKEN.decode()}"}
    assert (await client.get("/metrics", headers=headers)).status == 200
    assert (await client.post("/drain", headers=headers)).status == 202
    assert sidecar.drains == 1


async def test_public_metrics_open_nothing_else(connect: Connect, sidecar: Sidecar) -> None:
    client = await connect(token=TOKEN, metrics_public=True)
    assert (await client.get("/metrics")).status == 200
    assert (await client.post("/drain")).status == 401
    assert sidecar.drains == 0


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_the_probes_take_no_token(connect: Connect, path: str) -> None:
    client = await connect(token=TOKEN)
    assert (await client.get(path)).status == 200


async def test_an_unknown_path_is_not_found(connect: Connect) -> None:
    client = await connect(token=TOKEN)
    response = await client.get("/unknown", headers=BEARER)
    assert await problem(response) == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "there is no such path; those that there are stand in docs/admin-api.md",
    }


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("POST", "/livez", "GET,HEAD"), ("DELETE", "/metrics", "GET,HEAD"), ("GET", "/drain", "POST")],
)
async def test_a_wrong_method_is_not_allowed(
    connect: Connect, method: str, path: str, allowed: str
) -> None:
    client = await connect()
    response = await client.request(method, path)
    told = await problem(response)
    assert told["title"] == "Method Not Allowed"
    assert told["detail"].endswith(f"is not for this path; use {' or '.join(allowed.split(','))}")
    assert response.headers["Allow"] == allowed


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/unknown", "/drain"])
async def test_every_answer_has_the_security_headers(connect: Connect, path: str) -> None:
    client = await connect()
    response = await client.get(path)
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Server"] == "ws-sidecar"


async def test_a_failure_is_logged_and_tells_nothing(connect: Connect, log: list[Any]) -> None:
    async def fail() -> dict[str, str]:
        raise RuntimeError("inner secret")

    client = await connect(readiness=fail)
    response = await client.get("/readyz")
    assert (await problem(response))["title"] == "Internal Server Error"
    assert "inner secret" not in await response.text()
    assert response.headers["Cache-Control"] == "no-store"
    assert [(event["event"], event["path"]) for event in log] == [
        ("admin_request_failed", "/readyz")
    ]


async def test_a_drain_that_failed_can_be_tried_again(
    connect: Connect, sidecar: Sidecar, log: list[Any]
) -> None:
    def drain() -> None:
        sidecar.drain()
        if sidecar.drains == 1:
            raise RuntimeError

    client = await connect(drain=drain)
    statuses = [(await client.post("/drain")).status for _ in range(3)]
    assert statuses == [500, 202, 202]
    assert (sidecar.drains, len(log)) == (2, 1)
