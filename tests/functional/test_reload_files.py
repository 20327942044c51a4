"""The policy's files change, as editors, deployments and kubelets change them."""

import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from joserfc.jwk import RSAKey
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.certificates import authority
from tests.support.issuers import Issuer, issuing
from tests.support.reloads import eager, following, reloads, until
from tests.support.sidecars import PROVIDER, Running, policy_of, sidecar
from tests.support.special_files import special_file
from tests.support.tokens import SECRET, token
from tests.support.upstreams import websocket_server

__all__ = ["eager"]

pytestmark = pytest.mark.usefixtures("eager")

NOWHERE = "ws://127.0.0.1:1"
ADMINS = {"authorize": [{"claim": "role", "equals": "admin"}]}


async def lets_in(it: Running, **claims: Any) -> bool:
    bearer = {"Authorization": "Bearer " + token(**claims)}
    try:
        async with connect(it.url, additional_headers=bearer):
            return True
    except InvalidStatus as refused:
        return refused.response.status_code != 403


async def until_taken(it: Running, count: int = 1) -> None:
    await until(lambda: reloads(it, "ok") == count)


async def test_a_file_that_is_written_again_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    async with (
        websocket_server() as url,
        sidecar(policy_of(url), tmp_path) as it,
        following(it, path),
    ):
        assert await lets_in(it)
        path.write_text(policy_of(url, route=ADMINS))
        await until_taken(it)
        assert not await lets_in(it)
        assert await lets_in(it, role="admin")


async def test_a_file_that_an_editor_renames_over_it_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    async with (
        websocket_server() as url,
        sidecar(policy_of(url), tmp_path) as it,
        following(it, path),
    ):
        for count, route in enumerate((ADMINS, {}), 1):
            path.rename(tmp_path / "policy.yaml~")
            fresh = tmp_path / ".policy.yaml.swp"
            fresh.write_text(policy_of(url, route=route))
            fresh.rename(path)
            await until_taken(it, count)
            assert await lets_in(it) is (route == {})


async def test_the_swap_of_a_mounted_configmap_is_taken(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    async with websocket_server() as url, sidecar(policy_of(url), tmp_path) as it:
        for name, route in (("..one", {}), ("..two", ADMINS)):
            (mount / name).mkdir(parents=True)
            (mount / name / "policy.yaml").write_text(policy_of(url, route=route))
        (mount / "..data").symlink_to("..one")
        (mount / "policy.yaml").symlink_to("..data/policy.yaml")
        async with following(it, mount):
            assert await lets_in(it)
            (mount / "..data_tmp").symlink_to("..two")
            os.replace(mount / "..data_tmp", mount / "..data")
            await until_taken(it)
            assert not await lets_in(it)


async def test_what_is_half_written_leaves_the_policy_of_before(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    async with websocket_server() as url, sidecar(policy_of(url), tmp_path) as it:
        after = policy_of(url, route=ADMINS)
        async with following(it, path):
            with capture_logs() as logs:
                path.write_text(after[: len(after) // 2] + "\n  - {")
                await until(lambda: reloads(it, "error") == 1)
            problems = [line for line in logs if line["event"] == "policy_problem"]
            assert str(path) + ":" in problems[0]["problem"]
            (failed,) = [line for line in logs if line["event"] == "policy_reload_failed"]
            assert failed["log_level"] == "error"
            assert "of before is in force" in failed["remedy"]
            assert await lets_in(it)
            assert it.sidecar.readiness() == {}
            path.write_text(after)
            await until_taken(it)
            assert not await lets_in(it)
            assert reloads(it, "error") == 1


async def test_a_file_that_is_gone_leaves_the_policy_of_before(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    async with (
        websocket_server() as url,
        sidecar(policy_of(url), tmp_path) as it,
        following(it, path),
    ):
        path.unlink()
        await until(lambda: reloads(it, "error") == 1)
        assert await lets_in(it)


async def test_who_asks_has_it_read_again_without_a_change(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    async with sidecar(policy_of(NOWHERE), tmp_path) as it, following(it, path) as reloader:
        for count in (1, 2):
            reloader.ask()
            await until_taken(it, count)


async def test_a_policy_whose_address_is_taken_is_not(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    async with websocket_server() as url, sidecar(policy_of(url), tmp_path) as it:
        taken = url.removeprefix("ws://")
        async with following(it, path):
            with capture_logs() as logs:
                path.write_text(policy_of(url, server={"listen": ["127.0.0.1:0", taken]}))
                await until(lambda: reloads(it, "error") == 1)
            (failed,) = [line for line in logs if line["event"] == "policy_reload_failed"]
            assert failed["error"].startswith(f"server.listen: cannot listen on {taken}: Address")
            assert await lets_in(it)


async def test_an_upstreams_certificate_that_is_replaced_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    old, new = authority(tmp_path, "old"), authority(tmp_path, "new")
    main = {"url": "wss://127.0.0.1:1", "tls": {"ca": str(old.ca)}}
    async with (
        sidecar(policy_of("", upstreams={"main": main}), tmp_path) as it,
        following(it, path),
    ):
        before = it.sidecar._certificates.upstreams["main"].get_ca_certs()
        os.replace(new.ca, old.ca)
        await until_taken(it)
        assert it.sidecar._certificates.upstreams["main"].get_ca_certs() != before


async def test_a_secret_that_is_swapped_is_taken_without_a_reload(tmp_path: Path) -> None:
    path, secret = tmp_path / "policy.yaml", tmp_path / "secret"
    secret.write_text(SECRET[::-1])
    provider = {"algorithms": ["HS256"], "secrets": [{"file": str(secret)}]}
    async with websocket_server() as url:
        policy = policy_of(url, jwt={"providers": {"app": provider}})
        async with sidecar(policy, tmp_path) as it, following(it, path) as reloader:
            reloader.ask()
            await until_taken(it)
            store = it.sidecar._keys
            before = store._local["app"].material
            secret.write_text(SECRET)
            await until(lambda: store._local["app"].material is not before)
            assert await lets_in(it)
            assert reloads(it, "ok") == 1


async def test_fetched_keys_stay_and_are_not_fetched_again(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    path = tmp_path / "policy.yaml"
    issuer = Issuer(unused_tcp_port)
    key = RSAKey.generate_key(2048, {"kid": "k", "use": "sig", "alg": "RS256"})
    issuer.keys = {"keys": [key.as_dict(private=False)]}
    corp = {
        "issuer": issuer.url,
        "jwks_url": f"{issuer.url}/keys.json",
        "allow_http": True,
    }

    def policy(audience: str, *more: str) -> str:
        providers: dict[str, Any] = {"app": PROVIDER}
        for name in ("corp", *more):
            audiences = {"algorithms": ["RS256"], "audience": audience}
            providers[name] = {**corp, **audiences, "issuer": f"{issuer.url}/{name}"}
        return policy_of(NOWHERE, jwt={"providers": providers})

    async with issuing(issuer), sidecar(policy("chat"), tmp_path) as it:
        await until(lambda: it.sidecar.readiness() == {})
        assert issuer.asked == ["/keys.json"]
        async with following(it, path):
            for count in range(1, 4):
                path.write_text(policy(f"chat-{'x' * count}"))
                await until_taken(it, count)
                assert it.sidecar.readiness() == {}
            assert issuer.asked == ["/keys.json"]
            path.write_text(policy("chat", "another"))
            await until(lambda: len(issuer.asked) == 2)
            await until(lambda: it.sidecar.readiness() == {})


async def test_a_pipe_in_the_policys_place_holds_nothing_up(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    async with (
        websocket_server() as url,
        sidecar(policy_of(url), tmp_path) as it,
        following(it, path),
    ):
        with capture_logs() as logs:
            special_file(tmp_path, "pipe", path.name)
            await until(lambda: reloads(it, "error") == 1)
        assert any(f"{path}: is not a regular file" in line.get("problem", "") for line in logs)
        assert await lets_in(it)
        path.unlink()
        path.write_text(policy_of(url, route=ADMINS))
        await until_taken(it)
        assert not await lets_in(it)


async def test_a_pipe_in_the_place_of_the_admin_token_holds_nothing_up(tmp_path: Path) -> None:
    text = "an-admin-token-0123456789"
    (tmp_path / "admin.token").write_text(text)
    admin = {"listen": "127.0.0.1:0", "token": {"file": str(tmp_path / "admin.token")}}
    async with (
        sidecar(policy_of(NOWHERE, admin=admin), tmp_path) as it,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {text}"}) as session,
    ):
        special_file(tmp_path, "pipe", "admin.token")
        async with session.get(it.admin_url + "/metrics") as answer:
            assert answer.status == 200
