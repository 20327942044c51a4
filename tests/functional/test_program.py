"""The program as its users run it: a process with a policy, signals and files."""

import asyncio
import json
import os
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidMessage

from tests.support.certificates import authority
from tests.support.clients import Raw, head, raw
from tests.support.programs import running_program, serving
from tests.support.sidecars import ENVIRON, policy_of, sidecar_process
from tests.support.special_files import special_file
from tests.support.tokens import token
from tests.support.upstreams import recording, websocket_server

# The process chooses its own loop; the test's makes no difference.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLE = str(ROOT / "sample-config.yaml")


def bearer(**claims: Any) -> dict[str, str]:
    return {"Authorization": "Bearer " + token(**claims)}


async def echoes(client: ClientConnection) -> None:
    await client.send("hello")
    assert await client.recv() == "hello"


async def code_told(client: ClientConnection) -> tuple[int | None, str | None]:
    """The close code and reason that a client is told."""
    await client.wait_closed()
    return client.close_code, client.close_reason


async def attached(client: Raw) -> None:
    """Open a connection by hand."""
    await client.send(head("/ws", "Authorization: Bearer " + token()))
    assert (await client.response()).startswith(b"HTTP/1.1 101 ")


# Start.


async def test_it_starts_with_the_sample_policy(tmp_path: Path) -> None:
    async with websocket_server() as url:
        ports = {"SIDECAR_PORT": "0", "ADMIN_PORT": "0", "CHAT_PORT": url.rpartition(":")[2]}
        environ = {**ENVIRON, **ports}
        async with running_program("--config", SAMPLE, environ=environ) as program:
            headers = bearer(rooms=["blue"])
            async with connect(program.url + "/ws/blue", additional_headers=headers) as client:
                await echoes(client)
            async with connect(f"{program.url}/ws/blue?token={token(rooms=['blue'])}") as client:
                await echoes(client)
            async with raw(program.port) as refused:
                await refused.send(head("/ws/red", "Authorization: " + headers["Authorization"]))
                assert (await refused.refusal())["reason"] == "not_your_room"
            assert await program.ask("/livez") == (200, "ok")
            assert (await program.ask("/readyz"))[0] == 200
            program.process.process.terminate()
            assert await program.process.ended() == 0


async def test_several_files_and_folders_are_one_policy(tmp_path: Path) -> None:
    async with websocket_server() as url:
        base, folder = tmp_path / "base.yaml", tmp_path / "more"
        folder.mkdir()
        base.write_text(policy_of(url, routes=[]).replace("routes: []\n", ""))
        for name, path in (("10-first", "/one"), ("20-second", "/two")):
            (folder / f"{name}.yaml").write_text(
                f"routes: [{{name: {name}, match: {{path: {path}}}, origins: {{missing: allow}}}}]"
            )
        arguments = ("--config", str(base), "--config", str(folder))
        async with running_program(*arguments) as program:
            for path in ("/one", "/two"):
                async with connect(program.url + path, additional_headers=bearer()) as client:
                    await echoes(client)


async def test_a_bad_policy_ends_with_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "version: 1\nserver: {lisen: [x]}\nupstreams: {a: {url: 'ws://192.0.2.1'}}\n"
        "state: {backend: redis}\njwt: {leeway: 30}\n"
    )
    async with sidecar_process("serve", "--config", str(path)) as process:
        assert await process.ended() == 1
    for expected in ("2:10: server.lisen", "4:1: state", "not supported yet", "5:15: jwt.leeway"):
        assert expected in process.output
    assert "Traceback" not in process.output


async def test_a_policy_that_is_not_there_ends_with_a_clear_line(tmp_path: Path) -> None:
    async with sidecar_process("serve", "--config", str(tmp_path / "none.yaml")) as process:
        assert await process.ended() == 1
    assert "none.yaml: cannot be read (No such file or directory)" in process.output


async def test_a_policy_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = special_file(tmp_path, "pipe")
    async with sidecar_process("serve", "--config", str(pipe)) as process:
        assert await process.ended() == 1
    assert f"{pipe}: is not a regular file; name a file" in process.output


@pytest.mark.parametrize("section", ["server", "admin"])
async def test_a_port_in_use_ends_with_a_clear_line(tmp_path: Path, section: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        listen: Any = [address] if section == "server" else address
        path = tmp_path / "policy.yaml"
        path.write_text(policy_of("ws://127.0.0.1:1", **{section: {"listen": listen}}))
        async with sidecar_process("serve", "--config", str(path)) as process:
            assert await process.ended() == 1
    (line,) = [json.loads(line) for line in process.output.splitlines() if "start_failed" in line]
    wrong = f"{section}.listen: cannot listen on {address}: Address already in use"
    assert line["error"] == f"{wrong}; end the program that does, or choose another port"
    assert "Traceback" not in process.output


async def test_warnings_of_the_policy_are_logged(tmp_path: Path) -> None:
    async with serving(policy_of("ws://127.0.0.1:1"), tmp_path) as program:
        (warning,) = program.logged("policy_warning")
    assert "origins.missing" in warning["problem"]


# The end.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(tmp_path: Path, number: signal.Signals) -> None:
    async with websocket_server() as url:
        policy = policy_of(url, server={"drain": {"grace": "2s"}})
        async with serving(policy, tmp_path) as program, raw(program.port) as straggler:
            await attached(straggler)
            clients = [await connect(program.url, additional_headers=bearer()) for _ in range(20)]
            await asyncio.gather(*map(echoes, clients))
            program.process.process.send_signal(number)
            told = await asyncio.gather(*map(code_told, clients))
            assert told == [(1012, "draining")] * 20
            status, body = await program.ask("/readyz")
            assert (status, json.loads(body)["problems"]) == (503, {"server": "draining"})
            assert (await program.ask("/livez"))[0] == 200
            async with raw(program.port) as late:
                await late.send(head("/ws", "Authorization: Bearer " + token()))
                problem = await late.refusal()
            assert (problem["status"], problem["reason"]) == (503, "draining")
            assert await straggler.rest() == b"\x88\x0a\x03\xf4draining"
            assert await program.process.ended() == 0
            assert program.logged("draining")[0]["connections"] == 21
            assert program.logged("drained")[0]["cut_off"] == 1
            assert program.logged("stopped")
            closures = program.logged("connection_closed")
            assert [(one["code"], one["by"]) for one in closures] == [(1012, "sidecar")] * 21


async def test_nobody_to_wait_for_ends_at_once(tmp_path: Path) -> None:
    policy = policy_of("ws://127.0.0.1:1", server={"drain": {"grace": "1h"}})
    async with serving(policy, tmp_path) as program:
        program.process.process.terminate()
        assert await program.process.ended() == 0


async def test_a_signal_hurries_a_drain_that_the_endpoint_has_begun(tmp_path: Path) -> None:
    async with websocket_server() as url:
        policy = policy_of(
            url,
            server={"drain": {"close_code": 4999, "grace": "200h", "spread": "100h"}},
            admin={"token": {"env": "ADMIN_TOKEN"}},
        )
        environ = {**ENVIRON, "ADMIN_TOKEN": "the token of the admin"}
        async with serving(policy, tmp_path, environ) as program:
            async with connect(program.url, additional_headers=bearer()) as client:
                await echoes(client)
                assert (await program.ask("/drain", "POST"))[0] == 401
                await echoes(client)
                admin = {"Authorization": "Bearer the token of the admin"}
                assert (await program.ask("/drain", "POST", admin))[0] == 202
                assert (await program.ask("/drain", "POST", admin))[0] == 202
                assert (await program.ask("/readyz"))[0] == 503
                assert (await program.ask("/livez"))[0] == 200
                await echoes(client)
                program.process.process.terminate()
                assert await code_told(client) == (4999, "draining")
            assert await program.process.ended() == 0
            assert len(program.logged("draining")) == 1


# TLS.


def trusting(ca: Path, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return context


def with_tls(url: str, files: tuple[Path, Path], **tls: str) -> str:
    section = {"certificate": str(files[0]), "key": str(files[1]), **tls}
    return policy_of(url, server={"tls": section, "require_tls": True})


async def test_a_certificate_is_replaced_while_connections_live(tmp_path: Path) -> None:
    old, new = authority(tmp_path, "old"), authority(tmp_path, "new")
    files = old.issue("127.0.0.1")
    async with (
        websocket_server() as url,
        serving(with_tls(url, files), tmp_path) as program,
    ):
        address = f"wss://127.0.0.1:{program.port}"

        async def opened(ca: Path) -> ClientConnection:
            return await connect(address, ssl=trusting(ca), additional_headers=bearer())

        first = await opened(old.ca)
        await echoes(first)
        with pytest.raises(ssl.SSLCertVerificationError):
            await opened(new.ca)

        files[1].write_text("not a key")
        await program.until_logged("certificate_reload_failed")
        await (await opened(old.ca)).close()  # the old one stays

        for path, fresh in zip(files, new.issue("127.0.0.1"), strict=True):
            os.replace(fresh, path)
        await program.until_logged("certificate_reloaded")
        second = await opened(new.ca)
        with pytest.raises(ssl.SSLCertVerificationError):
            await opened(old.ca)
        await echoes(first)
        await echoes(second)
        await asyncio.gather(first.close(), second.close())


async def test_clear_text_gets_nothing_from_a_tls_listener(tmp_path: Path) -> None:
    files = authority(tmp_path).issue("127.0.0.1")
    async with (
        serving(with_tls("ws://127.0.0.1:1", files), tmp_path) as program,
        raw(program.port) as client,
    ):
        await client.send(head("/ws", "Authorization: Bearer " + token()))
        assert b"HTTP" not in await client.rest()


async def test_mutual_tls_lets_in_who_the_authority_knows(tmp_path: Path) -> None:
    ours, other = authority(tmp_path, "ours"), authority(tmp_path, "other")
    files = ours.issue("127.0.0.1")
    async with (
        websocket_server() as url,
        serving(with_tls(url, files, client_ca=str(ours.ca)), tmp_path) as program,
    ):
        address = f"wss://127.0.0.1:{program.port}"
        known = trusting(ours.ca, ours.issue("somebody", client=True))
        async with connect(address, ssl=known, additional_headers=bearer()) as client:
            await echoes(client)
        for certificate in (None, other.issue("somebody", client=True)):
            stranger = trusting(ours.ca, certificate)
            with pytest.raises((OSError, ConnectionClosed, InvalidMessage)):
                async with connect(address, ssl=stranger, additional_headers=bearer()) as client:
                    await echoes(client)
        async with connect(address, ssl=known, additional_headers=bearer()) as client:
            await echoes(client)
        program.process.process.terminate()
        assert await program.process.ended() == 0
        decisions = [line["decision"] for line in program.logged("handshake")]
        assert sorted(decisions) == ["allowed", "allowed", "refused", "refused"]


# Unix sockets.


async def test_it_listens_on_a_unix_socket(tmp_path: Path) -> None:
    path, admin = tmp_path / "s.sock", tmp_path / "a.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))  # left behind by a process that was killed
    left.close()
    async with websocket_server() as url:
        policy = policy_of(
            url,
            server={"listen": [f"unix:{path}"]},
            admin={"listen": f"unix:{admin}"},
            route={"origins": {"allow": ["http://localhost"], "missing": "allow"}},
        )
        async with serving(policy, tmp_path) as program:
            assert program.listen == [f"unix:{path}"]
            async with unix_connect(
                str(path), "ws://localhost/ws", additional_headers=bearer()
            ) as client:
                await echoes(client)
            assert (await program.until_logged("handshake"))["address"] == "unix"
            program.process.process.terminate()
            assert await program.process.ended() == 0
    assert not path.exists()


# Output.


def places(text: str) -> list[tuple[str, list[str]]]:
    """The path and the lines of handshakes that carry this token in every place there is."""
    origin = "Origin: http://127.0.0.1"
    return [
        ("/ws", [f"Authorization: Bearer {text}"]),
        ("/ws", [f"authorization:bearer   {text}"]),
        ("/ws", [f"Cookie: a=1; session={text}", origin]),
        ("/ws", [f"Cookie: session={text}"]),
        (f"/ws?x=1&token={text}", []),
        (f"/ws?token={text}&token=other", []),
        ("/ws", [f"Sec-WebSocket-Protocol: bearer, {text}, chat"]),
        ("/ws", [f"Sec-WebSocket-Protocol: bearer.{text}"]),
        ("/refused", [f"Authorization: Bearer {text}"]),
        ("/unreachable", [f"Authorization: Bearer {text}"]),
        ("/closed", [f"Authorization: Bearer {text}", "Origin: null"]),
        ("/elsewhere", [f"Authorization: Bearer {text}"]),
        ("/elsewhere", [f"Referer: http://127.0.0.1/?token={text}"]),
        (f"/elsewhere/{text}", []),
        (f"/elsewhere/{text.replace('.', '%2e')}", []),
        ("/ws", [f"Authorization: Bearer {text}", f"Authorization: Bearer {text}"]),
        ("/ws", [f"Authorization Bearer {text}"]),
        ("/ws", [f"Bearer {text}"]),
        ("/ws", [f"Authorization: Bearer {text}\x01"]),
        ("/ws", [f"Authorization: Bearer {text}", "Content-Length: 5"]),
        (f"http://127.0.0.1/ws?token={text}", []),
        (f"/ws#{text}", []),
    ]


def secret_parts(text: str) -> list[str]:
    """What must not be found of a token."""
    pieces = text.split(".")
    return [text, ".".join(pieces[:2]), *(piece for piece in pieces[1:] if len(piece) > 20)]


async def answer_to(port: int, path: str, lines: list[str]) -> bytes:
    """What a client is told: the head of a 101, or all of a refusal."""
    async with raw(port) as client:
        await client.send(head(path, *lines))
        answer = await client.response()
        return answer if b" 101 " in answer else answer + await client.rest()


def forbidding(_: bytes) -> bytes:
    return b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("in_a_file", [True, False])
async def test_no_token_appears_in_any_output(tmp_path: Path, in_a_file: bool) -> None:
    tokens = [
        token(jti="one"),
        token(ttl=-600),
        token("root", secret="z" * 64),
        token("cut")[:-5],
        token("giant", pad="p" * 9000),
        token(iat=2**33),
        token(None),
        token().rpartition(".")[0] + ".",
    ]
    audit = tmp_path / "audit.jsonl"
    sources = ["header", {"cookie": "session"}, {"query": "token"}, {"subprotocol": "bearer"}]
    async with websocket_server() as url, recording(forbidding) as refusing:
        policy = policy_of(
            url,
            upstreams={
                "main": {"url": url},
                "refusing": {"url": refusing.url},
                "nobody": {"url": "ws://127.0.0.1:1"},
            },
            routes=[
                {"match": {"path": "/refused"}, "upstream": "refusing"},
                {"match": {"path": "/unreachable"}, "upstream": "nobody"},
                {"match": {"path": "/closed"}, "refuse": {"with": "close"}},
                {"match": {"path": "/ws"}},
            ],
            defaults={
                "upstream": "main",
                "origins": {"missing": "allow"},
                "authenticate": {"sources": sources},
            },
            logging={"level": "debug", "audit": {"file": str(audit) if in_a_file else None}},
        )
        answers = b""
        async with serving(policy, tmp_path) as program:
            for text in tokens:
                for path, lines in places(text):
                    answers += await answer_to(program.port, path, lines)
            metrics = (await program.ask("/metrics"))[1]
            program.process.process.terminate()
            assert await program.process.ended() == 0
            log = program.process.output
    recorded = log + audit.read_text() if in_a_file else log
    for reason in ("token_invalid", "token_expired", "upstream_refused", "bad_handshake"):
        assert reason in recorded
        assert reason in metrics
    assert b" 101 " in answers
    for text in tokens:
        for part in secret_parts(text):
            assert part not in recorded
            assert part not in metrics
            assert part.encode() not in answers
