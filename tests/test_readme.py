"""Every example of the README runs, and what it says of refusals is what the program does."""

import asyncio
import json
import os
import re
import secrets
import socket
import sys
from pathlib import Path

import pytest
import yaml
from joserfc.jwk import KeySet, RSAKey

from sidecar.config.source import load_policy
from sidecar.model import Denial, Reason
from sidecar.proxy.refusals import REFUSALS, http_refusal
from tests.support.upstreams import websocket_server

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
ENVIRON = {
    "JWT_SECRET": "0123456789abcdef0123456789abcdef-readme",
    "JWT_SECRET_PREVIOUS": "fedcba9876543210fedcba9876543210-readme",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def first_policy() -> str:
    return next(block for block in blocks("yaml") if block.startswith("version:"))


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.split("\n")[1].strip())
def test_every_policy_in_the_readme_is_good(block: str, tmp_path: Path) -> None:
    base = yaml.safe_load(first_policy())
    del base["routes"]
    if "jwt:" in block:
        del base["jwt"]
    paths = [tmp_path / "block.yaml"]
    paths[0].write_text(block.replace("/etc/keys", str(tmp_path)))
    (tmp_path / "machines").write_text(secrets.token_hex(64))
    keys = KeySet([RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})])
    (tmp_path / "jwks.json").write_text(json.dumps(keys.as_dict(private=False)))
    if not block.startswith("version:"):
        paths.append(tmp_path / "base.yaml")
        paths[1].write_text(yaml.safe_dump(base))
    assert load_policy(paths, ENVIRON).policy.routes


def keys_of(schema: object) -> set[str]:
    """Every key of the policy that the schema names."""
    if isinstance(schema, list):
        return {key for item in schema for key in keys_of(item)}
    if not isinstance(schema, dict):
        return set()
    own = set(schema.get("properties", {}))
    return own.union(*(keys_of(value) for value in schema.values()))


def test_the_readme_shows_every_key_of_the_policy() -> None:
    schema = json.loads((ROOT / "docs/policy.schema.json").read_text())
    assert sorted(key for key in keys_of(schema) if not re.search(rf"\b{key}\b", README)) == []


def test_the_first_policy_is_as_short_as_promised() -> None:
    assert len(first_policy().splitlines()) <= 15


def test_the_sizes_of_the_comparisons_are_true() -> None:
    sizes = [
        len((ROOT / "docs/comparison" / name).read_text().splitlines())
        for name in ("nginx.conf", "envoy.yaml")
    ]
    assert f"{sizes[0]} lines and the service" in README
    assert f"[{sizes[1]} lines]" in README


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_table_of_refusals_is_the_programs() -> None:
    rows = re.findall(r"^\| (`[a-z_`, ]+`[^|]*)\| ([^|]*)\| ([^|]*)\|$", README, re.MULTILINE)
    told = {}
    for names, statuses, codes in rows:
        reasons = re.findall(r"`(\w+)`", names)
        numbers = re.findall(r"\b\d{4}\b", codes) or [None]
        for place, reason in enumerate(reasons):
            status = re.match(r"\d{3}", statuses)
            code = numbers[place] if len(numbers) == len(reasons) else numbers[0]
            told[reason] = (status and int(status[0]), code and int(code))
    assert told == {reason.value: (row.status, row.code) for reason, row in REFUSALS.items()}


def test_the_body_of_a_refusal_is_as_shown() -> None:
    shown = json.loads(blocks("json")[0])
    answer = http_refusal(Denial(Reason.TOKEN_EXPIRED), shown["request_id"])
    assert json.loads(answer.body) == shown


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def run(line: str, folder: Path, environ: dict[str, str], stdin: bytes = b"") -> str:
    process = await asyncio.create_subprocess_shell(
        line,
        cwd=folder,
        env=environ,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        output, _ = await process.communicate(stdin)
    return output.decode()


async def test_the_five_minutes_work_as_written(tmp_path: Path) -> None:
    scripts = blocks("sh")
    start = next(script for script in scripts if "ws-sidecar serve" in script)
    attempt = next(script for script in scripts if "ws-sidecar token" in script)
    port = free_port()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    async with websocket_server() as url:
        policy = first_policy().replace("ws://127.0.0.1:9000", url)
        ports = f'server: {{listen: ["127.0.0.1:{port}"]}}\nadmin: null\n'
        (tmp_path / "policy.yaml").write_text(policy + ports)
        secret, check, serve = start.splitlines()
        name, _, command = secret.removeprefix("export ").partition("=")
        made = await run(f"echo {command}", tmp_path, {"PATH": path})
        environ = {**os.environ, "PATH": path, name: made.strip()}
        assert "missing" in await run(check, tmp_path, environ)
        server = await asyncio.create_subprocess_shell(
            f"exec {serve}", cwd=tmp_path, env=environ, stderr=asyncio.subprocess.PIPE
        )
        assert server.stderr is not None
        try:
            while b'"started"' not in (line := await server.stderr.readline()):
                assert line
            token_line, admitted, refused, _ = attempt.replace("8080", str(port)).splitlines()
            shell = f"{token_line}; {admitted}"
            assert "Connected to" in await run(shell, tmp_path, environ, b"hello\n")
            assert "HTTP 401" in await run(refused, tmp_path, environ)
        finally:
            server.terminate()
            await server.communicate()
        assert server.returncode == 0
