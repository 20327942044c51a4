"""The keys of every provider: loaded, fetched and kept fresh in the background."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sidecar.auth import keys as module
from sidecar.auth.keys import KeyStore
from sidecar.errors import KeyMaterialError, KeysUnavailable
from sidecar.policy.compiled import TokenRules
from sidecar.policy.providers import (
    Discovery,
    JwksFile,
    JwksUrl,
    Provider,
    PublicKey,
    SecretRef,
    Secrets,
)

if TYPE_CHECKING:
    from tests.auth.conftest import Issuer, MakeProvider, Mint

Eventually = Callable[[Callable[[], object]], Awaitable[None]]
MakeStore = Callable[..., Awaitable[KeyStore]]
MakeRules = Callable[..., TokenRules]


@pytest.fixture
async def store(rules: MakeRules) -> AsyncIterator[MakeStore]:
    """Start a store for some providers; closed at the end."""
    stores: list[KeyStore] = []

    async def make(*providers: Provider, **options: Any) -> KeyStore:
        stores.append(KeyStore(rules(*providers), environ={}, **options))
        await stores[-1].start()
        return stores[-1]

    yield make
    for each in stores:
        await each.close()


async def test_secrets_take_any_kid(store: MakeStore, provider: "MakeProvider") -> None:
    app = provider()
    keys = await store(app)
    assert list(await keys.keys_for(app, None)) == list(await keys.keys_for(app, "../../dev/null"))
    assert len(await keys.keys_for(app, None)) == 1


async def test_a_single_public_key_takes_any_kid(
    store: MakeStore, provider: "MakeProvider", mint: "Mint"
) -> None:
    pem = SecretRef("value", mint.rsa.as_pem(private=False).decode())
    corp = provider(keys=PublicKey(pem), algorithms=("RS256",))
    keys = await store(corp)
    assert len(await keys.keys_for(corp, "any")) == 1


async def test_a_jwk_set_file_is_looked_up_by_kid(
    store: MakeStore, provider: "MakeProvider", mint: "Mint", tmp_path: Path
) -> None:
    (tmp_path / "jwks").write_bytes(mint.jwks(mint.rsa, mint.p256))
    corp = provider(keys=JwksFile(str(tmp_path / "jwks")), algorithms=("RS256", "ES256"))
    keys = await store(corp)
    assert [key.kid for key in await keys.keys_for(corp, "p256")] == ["p256"]
    assert [key.kid for key in await keys.keys_for(corp, None)] == ["rsa", "p256"]
    assert list(await keys.keys_for(corp, "../../dev/null")) == []


async def test_a_published_set_is_fetched_from_the_start(
    store: MakeStore, remote: "MakeProvider", issuer: "Issuer"
) -> None:
    outcomes: list[tuple[str, str]] = []
    corp = remote()
    keys = await store(corp, on_fetch=lambda *outcome: outcomes.append(outcome))
    assert keys.unready() == {"corp": "not fetched yet"}
    assert [key.kid for key in await keys.keys_for(corp, "rsa")] == ["rsa"]
    assert keys.unready() == {}
    assert outcomes == [("corp", "ok")]
    assert len(issuer.requests) == 1


async def test_discovery_leads_to_the_set(
    store: MakeStore, remote: "MakeProvider", issuer: "Issuer"
) -> None:
    issuer.metadata = f'{{"issuer": "{issuer.root}", "jwks_uri": "{issuer.url}"}}'.encode()
    corp = remote(keys=Discovery(issuer.root, refresh=600, allow_http=True))
    keys = await store(corp)
    assert [key.kid for key in await keys.keys_for(corp, "rsa")] == ["rsa"]


async def test_one_hundred_handshakes_at_the_start_share_one_fetch(
    store: MakeStore, remote: "MakeProvider", issuer: "Issuer"
) -> None:
    corp = remote()
    keys = await store(corp)
    found = await asyncio.gather(*(keys.keys_for(corp, "rsa") for _ in range(100)))
    assert [key.kid for each in found for key in each] == ["rsa"] * 100
    assert len(issuer.requests) == 1


async def test_a_rotated_set_is_found_by_its_new_kid(
    store: MakeStore, remote: "MakeProvider", issuer: "Issuer", mint: "Mint"
) -> None:
    corp = remote(algorithms=("RS256", "ES256"))
    keys = await store(corp)
    assert await keys.keys_for(corp, "rsa")
    issuer.body = mint.jwks(mint.p256)
    assert [key.kid for key in await keys.keys_for(corp, "p256")] == ["p256"]
    assert list(await keys.keys_for(corp, "rsa")) == []
    assert len(issuer.requests) == 2


async def test_stale_keys_serve_while_the_issuer_is_down(
    store: MakeStore, remote: "MakeProvider", issuer: "Issuer", eventually: Eventually
) -> None:
    outcomes: list[str] = []
    corp = remote(keys=JwksUrl(issuer.url, refresh=0.01, allow_http=True))
    keys = await store(corp, on_fetch=lambda _, outcome: outcomes.append(outcome))
    await eventually(lambda: "ok" in outcomes)
    issuer.status = 500
    await eventually(lambda: outcomes.count("error") > 2)
    assert [key.kid for key in await keys.keys_for(corp, "rsa")] == ["rsa"]
    assert keys.unready() == {}
    issuer.status = 200
    recovered = len(outcomes)
    await eventually(lambda: "ok" in outcomes[recovered:])


async def test_an_issuer_that_never_answered_makes_its_provider_unready(
    store: MakeStore, remote: "MakeProvider", issuer: "Issuer", eventually: Eventually
) -> None:
    issuer.status = 500
    corp = remote()
    keys = await store(corp)
    await eventually(lambda: keys.unready() != {"corp": "not fetched yet"})
    assert keys.unready() == {"corp": "127.0.0.1 answered 500"}
    with pytest.raises(KeysUnavailable, match=r"127\.0\.0\.1 answered 500"):
        await keys.keys_for(corp, "rsa")


async def test_a_weak_secret_is_refused_at_the_start(
    store: MakeStore, provider: "MakeProvider"
) -> None:
    weak = Secrets((SecretRef("value", "your-256-bit-secret"),))
    with pytest.raises(KeyMaterialError, match="app: the secret is well known"):
        await store(provider(keys=weak))


async def test_before_the_start_there_are_no_keys(
    rules: MakeRules, provider: "MakeProvider"
) -> None:
    keys = KeyStore(rules(provider()), environ={})
    with pytest.raises(KeysUnavailable):
        await keys.keys_for(provider(), None)
    with pytest.raises(KeysUnavailable):
        keys.signing_key("app")
    assert keys.unready() == {"app": "no keys"}
    await keys.close()


async def test_a_provider_signs_with_its_first_secret_or_its_private_key(
    store: MakeStore, provider: "MakeProvider", remote: "MakeProvider", mint: "Mint"
) -> None:
    pem = SecretRef("value", mint.p256.as_pem(private=True).decode())
    keys = await store(
        provider(),
        provider(name="internal", keys=None, algorithms=("ES256",), private_key=pem),
        remote(),
    )
    assert keys.signing_key("app").algorithm == "HS256"
    assert keys.signing_key("internal").algorithm == "ES256"
    for name in ("corp", "nobody"):
        with pytest.raises(KeysUnavailable, match="no secret or private key"):
            keys.signing_key(name)


async def test_a_remote_provider_may_sign_too(
    store: MakeStore, remote: "MakeProvider", mint: "Mint"
) -> None:
    pem = SecretRef("value", mint.rsa.as_pem(private=True).decode())
    corp = remote(private_key=pem)
    keys = await store(corp)
    assert keys.signing_key("corp").algorithm == "RS256"
    assert [key.kid for key in await keys.keys_for(corp, None)] == ["rsa"]


async def test_changed_files_are_followed(
    store: MakeStore,
    provider: "MakeProvider",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    monkeypatch.setattr(module, "POLL", 0.005)
    first, second = (b"%d-Secret_of-more-than-32-bytes!-really" % n for n in (1, 2))
    path = tmp_path / "secret"
    path.write_bytes(first)
    watched = provider(keys=Secrets((SecretRef("file", str(path)),)))
    plain = provider(name="plain")
    keys = await store(watched, plain)
    assert keys.signing_key("app").material == first
    path.write_bytes(b"broken")
    await asyncio.sleep(0.05)
    assert keys.signing_key("app").material == first
    path.write_bytes(second)
    await eventually(lambda: keys.signing_key("app").material == second)
    assert [key.material for key in await keys.keys_for(watched, None)] == [second]
    assert len(await keys.keys_for(plain, None)) == 1


async def test_closing_leaves_no_task_behind(
    store: MakeStore, remote: "MakeProvider", issuer: "Issuer", eventually: Eventually
) -> None:
    before = asyncio.all_tasks()
    issuer.hang = True
    keys = await store(remote())
    await eventually(lambda: issuer.requests)
    await keys.close()
    issuer.release.set()
    await eventually(lambda: len(asyncio.all_tasks() - before) <= 1)
    names = {task.get_coro().__qualname__ for task in asyncio.all_tasks() - before}  # type: ignore[union-attr]
    assert not any(name.startswith(("RemoteKeys", "KeyStore")) for name in names)


async def test_other_rules_keep_the_keys_whose_source_is_the_same(
    store: MakeStore,
    provider: "MakeProvider",
    remote: "MakeProvider",
    rules: MakeRules,
    issuer: "Issuer",
    eventually: Eventually,
) -> None:
    app, corp = provider(), remote()
    keys = await store(app, corp)
    await eventually(lambda: keys.unready() == {})
    for number in range(3):
        later = rules(app, replace(corp, audience=(f"chat-{number}",)))
        keys.adopt(later, await keys.read(later))
        await keys.settle()
        assert keys.unready() == {}
    assert len(issuer.requests) == 1


async def test_other_rules_end_the_fetching_of_what_is_not_asked_for_any_more(
    store: MakeStore,
    provider: "MakeProvider",
    remote: "MakeProvider",
    rules: MakeRules,
    eventually: Eventually,
) -> None:
    corp = remote()
    keys = await store(corp)
    await eventually(lambda: keys.unready() == {})
    fetching = keys._remote["corp"]._task
    assert fetching is not None
    local = provider(name="corp")
    keys.adopt(rules(local), await keys.read(rules(local)))
    await keys.settle()
    assert fetching.cancelled()
    assert len(await keys.keys_for(local, None)) == 1


async def test_other_rules_begin_to_fetch_what_is_new(
    store: MakeStore,
    provider: "MakeProvider",
    remote: "MakeProvider",
    rules: MakeRules,
    issuer: "Issuer",
    eventually: Eventually,
) -> None:
    keys = await store(provider())
    later = rules(provider(), remote(), remote(name="again", algorithms=("RS512",)))
    keys.adopt(later, await keys.read(later))
    assert set(keys.unready()) == {"corp", "again"}
    await eventually(lambda: keys.unready() == {})
    assert len(issuer.requests) == 2


async def test_local_keys_that_are_bad_leave_the_old_ones(
    store: MakeStore, provider: "MakeProvider", rules: MakeRules
) -> None:
    app = provider()
    keys = await store(app)
    before = await keys.keys_for(app, None)
    bad = provider(keys=Secrets((SecretRef("value", "short"),)))
    with pytest.raises(KeyMaterialError, match=r"^app: "):
        await keys.read(rules(bad))
    assert await keys.keys_for(app, None) is before


async def test_a_secret_of_other_rules_is_watched(
    store: MakeStore,
    provider: "MakeProvider",
    rules: MakeRules,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    keys = await store(provider(), sleep=lambda _: asyncio.sleep(0.005))
    file = tmp_path / "secret"
    file.write_text("s1-" + "abcdefghij" * 5)
    later = provider(keys=Secrets((SecretRef("file", str(file)),)))
    for _ in range(2):
        keys.adopt(rules(later), await keys.read(rules(later)))
    file.write_text("s2-another-" + "abcdefghij" * 5)
    material = b"s2-another-" + b"abcdefghij" * 5
    await eventually(lambda: keys.signing_key("app").material == material)
