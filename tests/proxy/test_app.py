"""The wiring: start, readiness, drain and the end."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from sidecar.config.source import load_policy
from sidecar.errors import KeyMaterialError
from sidecar.observe import logs
from sidecar.policy.compiled import Address
from sidecar.proxy import app, public
from sidecar.proxy.app import Sidecar
from sidecar.proxy.sockets import files_for
from tests.support.audits import audit_to, events
from tests.support.clients import Raw, head, raw
from tests.support.reloads import reload
from tests.support.sidecars import ENVIRON, Running, policy_of, sidecar
from tests.support.tokens import SECRET, token
from tests.support.upstreams import recording

NOWHERE = "ws://127.0.0.1:1"


def loaded(folder: Path, policy: str) -> Sidecar:
    path = folder / "policy.yaml"
    path.write_text(policy)
    return Sidecar(load_policy([path], ENVIRON).policy, ENVIRON)


@contextlib.asynccontextmanager
async def attached(running: Running) -> AsyncIterator[Raw]:
    async with raw(running.port) as client:
        await client.send(head("/ws", "Authorization: Bearer " + token()))
        assert (await client.response()).startswith(b"HTTP/1.1 101 ")
        yield client


async def test_it_listens_on_every_address(tmp_path: Path) -> None:
    unix = tmp_path / "s.sock"
    listen = ["127.0.0.1:0", "[::1]:0", f"unix:{unix}"]
    async with sidecar(policy_of(NOWHERE, server={"listen": listen}), tmp_path) as s:
        v4, v6, path = s.sidecar.public
        assert (v4.host, v6.host, path) == ("127.0.0.1", "::1", Address(unix=str(unix)))
        assert v4.port
        assert v6.port
        for host, port in ((v4.host, v4.port), (v6.host, v6.port)):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            await writer.wait_closed()
        _, writer = await asyncio.open_unix_connection(str(unix))
        writer.close()
        await writer.wait_closed()
    assert not unix.exists()


async def test_the_admin_listener_may_be_a_unix_socket_or_none(tmp_path: Path) -> None:
    unix = tmp_path / "a.sock"
    policy = policy_of(NOWHERE, admin={"listen": f"unix:{unix}"})
    async with sidecar(policy, tmp_path) as s:
        assert s.sidecar.admin == Address(unix=str(unix))
        connector = aiohttp.UnixConnector(str(unix))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://localhost/livez") as answer,
        ):
            assert answer.status == 200
    async with sidecar(policy_of(NOWHERE, admin=None), tmp_path) as s:
        assert s.sidecar.admin is None


async def test_the_admin_token_guards_the_metrics(tmp_path: Path) -> None:
    policy = policy_of(NOWHERE, admin={"token": {"env": "ADMIN_TOKEN"}})
    environ = {**ENVIRON, "ADMIN_TOKEN": "the token of the admin"}
    async with sidecar(policy, tmp_path, environ) as s, aiohttp.ClientSession() as session:
        async with session.get(s.admin_url + "/metrics") as answer:
            assert answer.status == 401
        headers = {"Authorization": "Bearer the token of the admin"}
        async with session.get(s.admin_url + "/metrics", headers=headers) as answer:
            assert answer.status == 200
            assert 'ws_sidecar_provider_ready{provider="app"} 1.0' in await answer.text()


async def test_fewer_files_mean_fewer_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public, "raise_file_limit", lambda wanted: (1, 1))
    async with recording() as up:
        with capture_logs() as logs:
            async with sidecar(policy_of(up.url), tmp_path) as s, attached(s):
                async with raw(s.port) as second:
                    await second.send(head("/ws", "Authorization: Bearer " + token()))
                    assert (await second.refusal())["reason"] == "overloaded"
                up.connections[0][1].transport.abort()
        (warning,) = [line for line in logs if line["event"] == "file_limit_too_low"]
    assert warning == {
        "event": "file_limit_too_low",
        "log_level": "warning",
        "problem": "server.max_connections is lowered from 10000 to 1",
        "remedy": f"raise the limit of open files (ulimit -n) to {files_for(10000)}",
    }


async def test_fewer_files_mean_fewer_sockets_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public, "raise_file_limit", lambda wanted: (wanted, 3))
    with capture_logs() as logs:
        async with sidecar(policy_of(NOWHERE), tmp_path) as s:
            assert s.sidecar._public._front.max_waiting == 3 + 64
    assert [line["event"] for line in logs] == ["started"]


async def test_enough_files_leave_the_policys_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public, "raise_file_limit", lambda wanted: (wanted, wanted))
    with capture_logs() as logs:
        async with sidecar(policy_of(NOWHERE, server={"max_connections": 7}), tmp_path) as s:
            assert s.sidecar.connections.limit == 7
    assert [line["event"] for line in logs] == ["started"]


@pytest.mark.parametrize("section", ["server", "admin"])
async def test_an_address_in_use_is_named(tmp_path: Path, section: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        listen: object = [address] if section == "server" else address
        program = loaded(tmp_path, policy_of(NOWHERE, **{section: {"listen": listen}}))
        wrong = f"^{section}.listen: cannot listen on {address}: Address already in use; end the"
        with pytest.raises(OSError, match=wrong):
            await program.start()
        assert program.public == []
        await program.close()


async def test_a_worker_listens_when_it_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(policy_of(NOWHERE))
    policy = load_policy([path], ENVIRON).policy
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    program = Sidecar(policy, ENVIRON, worker=1, sockets=[sock])
    await program.start()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*sock.getsockname())
    assert program.public == []
    await program.listen()
    _, writer = await asyncio.open_connection(*sock.getsockname())
    writer.close()
    await writer.wait_closed()
    await program.close()


async def test_a_worker_that_never_listened_lets_go_of_its_sockets(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(policy_of(NOWHERE))
    sock = socket.socket()
    program = Sidecar(load_policy([path], ENVIRON).policy, ENVIRON, worker=1, sockets=[sock])
    await program.start()
    await program.close()
    assert sock.fileno() == -1


async def test_a_name_that_is_not_known_is_named(tmp_path: Path) -> None:
    policy = policy_of(NOWHERE, server={"listen": ["no-such-name.invalid:80"]})
    program = loaded(tmp_path, policy)
    with pytest.raises(OSError, match=r"cannot listen on no-such-name\.invalid:80: \w+"):
        await program.start()
    await program.close()


async def test_a_failed_start_leaves_nothing_open(tmp_path: Path) -> None:
    unix = tmp_path / "s.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = [f"unix:{unix}", f"127.0.0.1:{taken.getsockname()[1]}"]
        program = loaded(tmp_path, policy_of(NOWHERE, server={"listen": listen}))
        with pytest.raises(OSError, match="Address already in use"):
            await program.start()
        assert unix.exists()
        await program.close()
    assert not unix.exists()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_secret_that_has_gone_since_the_check_fails_the_start(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    provider = {"algorithms": ["HS256"], "secrets": [{"file": str(secret)}]}
    program = loaded(tmp_path, policy_of(NOWHERE, jwt={"providers": {"app": provider}}))
    secret.unlink()
    with pytest.raises(KeyMaterialError):
        await program.start()
    await program.close()


async def test_draining_twice_is_draining_once(tmp_path: Path) -> None:
    async with recording() as up, sidecar(policy_of(up.url), tmp_path) as s, attached(s) as client:
        with capture_logs() as logs:
            s.sidecar.drain()
            s.sidecar.drain()
        assert s.sidecar.draining
        assert [line["event"] for line in logs] == ["draining"]
        assert await client.exactly(12) == b"\x88\x0a\x03\xf4draining"
        assert s.sidecar.readiness() == {"server": "draining"}
        up.connections[0][1].transport.abort()


async def test_a_drain_that_is_hurried_is_spread_no_longer(tmp_path: Path) -> None:
    rule = {"drain": {"grace": "2h", "spread": "2h"}}
    async with (
        recording() as up,
        sidecar(policy_of(up.url, server=rule), tmp_path) as s,
        attached(s) as client,
    ):
        s.sidecar.hurry()  # there is nothing to hurry yet
        s.sidecar.drain()
        s.sidecar.hurry()
        assert await client.exactly(12) == b"\x88\x0a\x03\xf4draining"
        up.connections[0][1].transport.abort()


async def test_a_drain_waits_no_longer_than_the_grace(tmp_path: Path) -> None:
    async with recording() as up:
        policy = policy_of(up.url, server={"drain": {"grace": "100ms", "close_code": 4000}})
        async with sidecar(policy, tmp_path) as s, attached(s) as client:
            s.sidecar.drain()
            with capture_logs() as logs:
                await s.sidecar.drained()
            await s.until_idle()
            assert logs[0] == {"event": "drained", "cut_off": 1, "log_level": "info"}
            assert await client.rest() == b"\x88\x0a\x0f\xa0draining"


async def test_a_drain_that_nobody_waits_for_ends_too_and_says_so_once(tmp_path: Path) -> None:
    async with recording() as up, sidecar(policy_of(up.url), tmp_path) as s:
        with capture_logs() as logs:
            async with attached(s):
                s.sidecar.drain()
            up.connections[0][1].transport.abort()
            await s.until_idle()
            async with asyncio.timeout(5):
                await s.sidecar.drained()
                await s.sidecar.drained()
        told = [line["event"] for line in logs if line["event"].startswith("drain")]
        assert told == ["draining", "drained"]


async def test_the_end_does_not_wait_for_a_drain(tmp_path: Path) -> None:
    async with recording() as up, contextlib.AsyncExitStack() as clients:
        policy = policy_of(up.url, server={"drain": {"grace": "1h"}})
        with capture_logs() as logs:
            async with sidecar(policy, tmp_path) as s:
                await clients.enter_async_context(attached(s))
                s.sidecar.drain()
    assert "drained" not in [line["event"] for line in logs]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_drain_ends_with_the_last_connection(tmp_path: Path) -> None:
    async with recording() as up:
        policy = policy_of(up.url, server={"drain": {"grace": "1h"}})
        async with sidecar(policy, tmp_path) as s:
            async with attached(s):
                s.sidecar.drain()
                waiting = asyncio.create_task(s.sidecar.drained())
                await asyncio.sleep(0)
                assert not waiting.done()
            up.connections[0][1].transport.abort()
            async with asyncio.timeout(5):
                await waiting


async def test_the_end_cuts_what_is_left_and_records_it(tmp_path: Path) -> None:
    async with recording() as up:
        policy = policy_of(up.url, logging=audit_to(tmp_path / "audit.jsonl"))
        async with contextlib.AsyncExitStack() as clients:
            async with sidecar(policy, tmp_path) as s:
                client = await clients.enter_async_context(attached(s))
            assert await client.rest() in (b"", b"\x88\x02\x03\xe9")
        await up.until(lambda u: u.eof + u.lost == 1)
    assert len(events(tmp_path / "audit.jsonl", "connection_closed")) == 1


async def test_what_is_unready_is_named(tmp_path: Path) -> None:
    corp = {"algorithms": ["ES256"], "jwks_url": "http://127.0.0.1:1/", "allow_http": True}
    upstreams = {"main": {"url": NOWHERE, "health": {"path": "/healthz"}}}
    policy = policy_of(NOWHERE, upstreams=upstreams, jwt={"providers": {"corp": corp}})
    async with sidecar(policy, tmp_path) as s:
        assert set(s.sidecar.readiness()) == {"keys of corp", "upstream main"}


async def test_a_proxy_header_that_is_not_there_is_recorded(tmp_path: Path) -> None:
    server = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1/32"]}
    policy = policy_of(NOWHERE, server=server, logging=audit_to(tmp_path / "audit.jsonl"))
    async with sidecar(policy, tmp_path) as s, raw(s.port) as client:
        await client.send(head("/ws"))
        assert await client.rest() == b""
    (decision,) = events(tmp_path / "audit.jsonl")
    assert (decision["reason"], decision["address"]) == ("bad_handshake", "127.0.0.1")
    assert decision["detail"].startswith("PROXY protocol")


async def test_what_is_due_is_done_every_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary of a flood of refusals is written even when nobody comes any more."""
    monkeypatch.setattr(app, "_NOTE", 0.01)
    async with sidecar(policy_of(NOWHERE), tmp_path) as s:
        for _ in range(2):
            flushed = asyncio.Event()
            monkeypatch.setattr(s.sidecar._audit, "flush", flushed.set)
            async with asyncio.timeout(5):
                await flushed.wait()


async def test_another_number_of_workers_needs_a_restart_and_the_rest_applies(
    tmp_path: Path,
) -> None:
    async with sidecar(policy_of(NOWHERE), tmp_path) as s:
        after = policy_of(NOWHERE, server={"workers": 2, "max_connections": 7})
        with capture_logs() as logs:
            for _ in range(2):
                await reload(s, tmp_path, after)
        (line,) = [line for line in logs if line["event"] == "restart_needed"]
        assert (line["key"], line["log_level"]) == ("server.workers", "warning")
        assert s.sidecar.connections.limit == 7


async def test_a_limit_of_connections_that_stays_is_not_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public, "raise_file_limit", lambda wanted: (5, 5))
    async with sidecar(policy_of(NOWHERE), tmp_path) as s:
        with capture_logs() as logs:
            await reload(s, tmp_path, policy_of(NOWHERE))
            assert s.sidecar.connections.limit == 5
            await reload(s, tmp_path, policy_of(NOWHERE, server={"max_connections": 7}))
        told = [line["event"] for line in logs]
        assert told == ["policy_settled", "file_limit_too_low", "policy_settled"]
        assert s.sidecar.connections.limit == 5


async def test_the_log_goes_by_other_settings_where_they_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured: list[tuple[str, int | None]] = []
    monkeypatch.setattr(
        logs, "configure", lambda rules, worker: configured.append((rules.level, worker))
    )
    async with sidecar(policy_of(NOWHERE), tmp_path) as s:
        for level in ("info", "debug", "debug"):
            await reload(s, tmp_path, policy_of(NOWHERE, logging={"level": level}))
    assert configured == [("debug", None)]


async def test_the_audit_log_moves(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    async with sidecar(policy_of(NOWHERE, logging=audit_to(one)), tmp_path) as s:
        for path in (one, two):
            await reload(s, tmp_path, policy_of(NOWHERE, logging=audit_to(path)))
            async with raw(s.port) as client:
                await client.send(head("/ws"))
                await client.refusal()
    assert len(events(one)) == len(events(two)) == 1


async def test_a_change_of_the_policy_waits_until_the_one_before_is_finished(
    tmp_path: Path,
) -> None:
    async with sidecar(policy_of(NOWHERE), tmp_path) as s:
        policy = load_policy([tmp_path / "policy.yaml"], ENVIRON).policy
        with capture_logs() as logs:
            assert await s.sidecar.take(policy) == 0
            assert "policy_settled" not in [line["event"] for line in logs]
            assert await s.sidecar.take(policy) == 0
            assert [line["event"] for line in logs].count("policy_settled") == 1


async def test_a_worker_keeps_the_sockets_that_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(policy_of(NOWHERE, admin=None))
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    program = Sidecar(load_policy([path], ENVIRON).policy, ENVIRON, worker=1, sockets=[sock])
    await program.start()
    await program.listen()
    bound = program.public
    path.write_text(policy_of(NOWHERE, admin=None, server={"listen": ["[::1]:0"]}))
    await program.reload(load_policy([path], ENVIRON).policy)
    assert program.public == bound
    async with raw(bound[0].port) as client:
        await client.send(head("/elsewhere"))
        await client.refusal()
    await program.close()


async def test_a_secret_that_is_bad_fails_a_reload_and_changes_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    provider = {"algorithms": ["HS256"], "secrets": [{"file": str(secret)}]}
    policy = policy_of(NOWHERE, jwt={"providers": {"app": provider}})
    async with sidecar(policy, tmp_path) as s:
        loaded = load_policy([tmp_path / "policy.yaml"], ENVIRON).policy
        secret.unlink()
        with pytest.raises(KeyMaterialError):
            await s.sidecar.reload(loaded)
        assert s.sidecar.readiness() == {}


async def test_what_was_put_in_force_is_finished_before_the_end(tmp_path: Path) -> None:
    async with sidecar(policy_of(NOWHERE), tmp_path) as s:
        path = tmp_path / "next.yaml"
        path.write_text(policy_of(NOWHERE, admin={"listen": "localhost:0"}))
        (await s.sidecar.prepare(load_policy([path], ENVIRON).policy)).commit()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_logout_tokens_are_verified_by_the_rules_in_force(tmp_path: Path) -> None:
    async with sidecar(policy_of(NOWHERE), tmp_path) as s, aiohttp.ClientSession() as session:
        provider = {"algorithms": ["HS256"], "secrets": [{"env": "JWT_SECRET"}]}
        await reload(s, tmp_path, policy_of(NOWHERE, jwt={"providers": {"other": provider}}))
        form = {"logout_token": token()}
        async with session.post(s.admin_url + "/backchannel-logout", data=form) as answer:
            assert answer.status == 400


async def test_what_fails_behind_a_change_of_policy_keeps_nothing_else_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sidecar(policy_of(NOWHERE), tmp_path) as s:

        async def fail() -> None:
            raise OSError("no files left")

        settled: list[str] = []

        async def note() -> None:
            settled.append("keys")

        monkeypatch.setattr(s.sidecar._public, "settle", fail)
        monkeypatch.setattr(s.sidecar._keys, "settle", note)
        with capture_logs() as logs:
            await reload(s, tmp_path, policy_of(NOWHERE))
        assert settled == ["keys"]
        assert "internal_error" in [entry["event"] for entry in logs]
