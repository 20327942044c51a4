"""Health checks of upstreams, with servers that answer well and badly."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from sidecar.policy.compiled import Address, Health, Upstream, UpstreamTls
from sidecar.proxy.health import HealthChecks
from sidecar.proxy.tls import upstream_context
from tests.support.certificates import authority

INTERVAL = 0.02


class Checked:
    """An upstream whose health can be set; `asked` holds the targets that were asked for."""

    def __init__(self) -> None:
        self.status = 200
        self.hang = False
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        if self.hang:
            await asyncio.sleep(60)
        return web.Response(status=self.status, headers={"Location": "/elsewhere"})


@contextlib.asynccontextmanager
async def serving(
    checked: Checked, path: Path | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Address]:
    app = web.Application()
    app.router.add_get("/{path:.*}", checked.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        if path is not None:
            await web.UnixSite(runner, str(path)).start()
            yield Address(unix=str(path))
        else:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            yield Address(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


def upstream(address: Address, **more: object) -> Upstream:
    health = Health("/healthz", INTERVAL)
    return Upstream("main", address, connect_timeout=0.2, health=health, **more)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def checking(one: Upstream, tls: ssl.SSLContext | None = None) -> AsyncIterator[HealthChecks]:
    checks = HealthChecks({"main": one}, {"main": tls} if tls else {})
    await checks.start()
    try:
        yield checks
    finally:
        await checks.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_an_upstream_is_not_ready_before_its_first_answer() -> None:
    async with serving(Checked()) as address, checking(upstream(address)) as checks:
        assert checks.problems() == {"main": "not checked yet"}
        await until(lambda: checks.problems() == {})


async def test_an_upstream_without_a_check_is_always_well() -> None:
    one = Upstream("main", Address("127.0.0.1", 1))
    async with checking(one) as checks:
        assert checks.problems() == {}


@pytest.mark.parametrize("status", [200, 204, 299])
async def test_any_2xx_is_well(status: int) -> None:
    checked = Checked()
    checked.status = status
    async with serving(checked) as address, checking(upstream(address)) as checks:
        await until(lambda: checks.problems() == {})


@pytest.mark.parametrize("status", [302, 404, 500, 503])
async def test_any_other_answer_is_not(status: int) -> None:
    checked = Checked()
    checked.status = status
    async with serving(checked) as address, checking(upstream(address)) as checks:
        problem = f"the health check answers {status}"
        await until(lambda: checks.problems() == {"main": problem})
        await until(lambda: len(checked.asked) > 2)
    assert set(checked.asked) == {"/healthz"}  # a redirect is not followed


async def test_it_is_asked_again_and_again_and_changes_are_logged() -> None:
    checked = Checked()
    with capture_logs() as logs:
        async with serving(checked) as address, checking(upstream(address)) as checks:
            await until(lambda: len(checked.asked) > 2 and checks.problems() == {})
            checked.status = 500
            await until(lambda: checks.problems() != {})
            asked = len(checked.asked)
            await until(lambda: len(checked.asked) > asked + 2)
            checked.status = 200
            await until(lambda: checks.problems() == {})
    names = [line["event"] for line in logs]
    assert names == ["upstream_healthy", "upstream_unhealthy", "upstream_healthy"]


async def test_an_upstream_that_is_down_fails_its_check() -> None:
    async with serving(Checked()) as address:
        pass
    async with checking(upstream(address)) as checks:
        problem = "the health check fails (ClientConnectorError)"
        await until(lambda: checks.problems() == {"main": problem})


async def test_an_upstream_that_hangs_fails_its_check() -> None:
    checked = Checked()
    checked.hang = True
    async with serving(checked) as address, checking(upstream(address)) as checks:
        await until(lambda: checks.problems() == {"main": "the health check does not answer"})


async def test_the_prefix_and_a_query_are_part_of_the_target() -> None:
    checked = Checked()
    async with serving(checked) as address:
        one = Upstream("main", address, prefix="/v1", health=Health("/healthz?deep=1", INTERVAL))
        async with checking(one) as checks:
            await until(lambda: checks.problems() == {})
    assert checked.asked[0] == "/v1/healthz?deep=1"


async def test_a_unix_upstream_is_asked_through_its_socket(tmp_path: Path) -> None:
    checked = Checked()
    async with (
        serving(checked, path=tmp_path / "up.sock") as address,
        checking(upstream(address)) as checks,
    ):
        await until(lambda: checks.problems() == {})


async def test_a_wss_upstream_is_asked_over_tls_and_its_certificate_checked(
    tmp_path: Path,
) -> None:
    ours, other = authority(tmp_path, "ours"), authority(tmp_path, "other")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*ours.issue("chat.internal"))
    async with serving(Checked(), tls=context) as address:
        for trusted, name, well in [
            (ours, "chat.internal", True),
            (ours, "other.internal", False),
            (other, "chat.internal", False),
        ]:
            tls = UpstreamTls(ca=str(trusted.ca), server_name=name)
            one = upstream(address, secure=True, tls=tls)
            async with checking(one, upstream_context(tls)) as checks:
                await until(lambda: checks.problems() != {"main": "not checked yet"})
                assert (checks.problems() == {}) is well


async def test_an_upstream_that_stays_is_followed_on(tmp_path: Path) -> None:
    async with serving(Checked()) as address, checking(upstream(address)) as checks:
        task = checks._checks["main"].task
        checks.adopt({"main": upstream(address)}, {})
        await checks.settle()
        assert checks._checks["main"].task is task
        assert not task.cancelled()


async def test_a_changed_upstream_is_asked_anew_and_its_last_answer_holds_until_then() -> None:
    checked = Checked()
    checked.status = 500
    async with serving(checked) as address, checking(upstream(address)) as checks:
        await until(lambda: "answers 500" in checks.problems()["main"])
        checked.status = 200
        checks.adopt({"main": upstream(address, prefix="/v2")}, {})
        assert "answers 500" in checks.problems()["main"]
        await checks.settle()
        await until(lambda: checks.problems() == {})
        assert checked.asked[-1] == "/v2/healthz"


async def test_upstreams_that_come_are_no_problem_at_first_and_those_that_go_are_none() -> None:
    checked = Checked()
    checked.status = 500
    async with serving(checked) as address, checking(upstream(address)) as checks:
        await until(lambda: "answers 500" in checks.problems()["main"])
        other = replace(upstream(address), name="other")
        checks.adopt({"other": other}, {})
        assert checks.problems() == {}
        await checks.settle()
        await until(lambda: "other" in checks.problems())
        checks.adopt({"other": replace(other, health=None)}, {})
        assert checks.problems() == {}


async def test_a_check_goes_by_the_new_tls_context(tmp_path: Path) -> None:
    ours, other = authority(tmp_path, "ours"), authority(tmp_path, "other")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*ours.issue("localhost"))
    async with serving(Checked(), tls=context) as address:
        tls = UpstreamTls(server_name="localhost")
        one = upstream(address, secure=True, tls=tls)
        bad, good = (upstream_context(replace(tls, ca=str(each.ca))) for each in (other, ours))
        async with checking(one, bad) as checks:
            await until(lambda: "fails" in checks.problems()["main"])
            checks.adopt({"main": one}, {"main": good})
            await until(lambda: checks.problems() == {})
