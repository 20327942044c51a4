"""Secrets, PEM and JWK set files, and what happens when they change."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from sidecar.auth.local import LocalKeys
from sidecar.errors import KeyMaterialError
from sidecar.policy.providers import (
    Discovery,
    JwksFile,
    KeySource,
    PublicKey,
    SecretRef,
    Secrets,
)

if TYPE_CHECKING:
    from tests.auth.conftest import MakeProvider, Mint

NEW = b"another-Secret_of-more-than-32-bytes!"
OLD = b"the-previous_Secret-of_more-than-32-bytes"


def secrets_in(*paths: Path) -> Secrets:
    return Secrets(tuple(SecretRef("file", str(path)) for path in paths))


def materials(keys: LocalKeys) -> list[object]:
    return [key.material for key in keys.material.keys]


def test_secrets_come_from_variables_files_and_values(
    provider: "MakeProvider", tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(OLD + b"\n")
    refs = (
        SecretRef("env", "JWT_SECRET"),
        SecretRef("file", str(tmp_path / "secret")),
        SecretRef("value", "x" + NEW.decode()),
    )
    keys = LocalKeys(provider(keys=Secrets(refs)), {"JWT_SECRET": NEW.decode()})
    assert materials(keys) == [NEW, OLD, b"x" + NEW]
    assert keys.material.signer is not None
    assert keys.material.signer.material == NEW
    assert keys.material.signer.algorithm == "HS256"


@pytest.mark.parametrize(("ending", "kept"), [(b"", b""), (b"\n", b""), (b"\n\n", b"\n")])
def test_one_newline_at_the_end_of_a_file_is_not_of_the_secret(
    provider: "MakeProvider", tmp_path: Path, ending: bytes, kept: bytes
) -> None:
    (tmp_path / "secret").write_bytes(NEW + ending)
    keys = LocalKeys(provider(keys=secrets_in(tmp_path / "secret")), {})
    assert materials(keys) == [NEW + kept]


def test_a_weak_secret_needs_leave(provider: "MakeProvider") -> None:
    weak = Secrets((SecretRef("value", "secret"),))
    with pytest.raises(KeyMaterialError, match="well known"):
        LocalKeys(provider(keys=weak), {})
    assert materials(LocalKeys(provider(keys=weak, allow_weak_secret=True), {})) == [b"secret"]


def test_a_missing_variable_or_file_is_an_error(provider: "MakeProvider", tmp_path: Path) -> None:
    with pytest.raises(KeyMaterialError, match="JWT_SECRET is not set"):
        LocalKeys(provider(keys=Secrets((SecretRef("env", "JWT_SECRET"),))), {})
    for source in (
        secrets_in(tmp_path / "none"),
        PublicKey(SecretRef("file", str(tmp_path / "none"))),
        JwksFile(str(tmp_path / "none")),
        JwksFile(str(tmp_path)),
        JwksFile("\0"),
    ):
        with pytest.raises(KeyMaterialError, match=r"cannot be read|is not a regular file"):
            LocalKeys(provider(keys=source, algorithms=("HS256", "RS256")), {})


def test_a_jwk_set_file_of_any_length_is_not_read(provider: "MakeProvider", tmp_path: Path) -> None:
    (tmp_path / "jwks").write_bytes(b" " * (512 * 1024 + 1))
    with pytest.raises(KeyMaterialError, match="over 512 KiB"):
        LocalKeys(provider(keys=JwksFile(str(tmp_path / "jwks")), algorithms=("RS256",)), {})


def test_a_public_key_verifies_and_does_not_sign(
    mint: "Mint", provider: "MakeProvider", tmp_path: Path
) -> None:
    (tmp_path / "pem").write_bytes(mint.rsa.as_pem(private=False))
    source = PublicKey(SecretRef("file", str(tmp_path / "pem")))
    keys = LocalKeys(provider(keys=source, algorithms=("RS256",)), {})
    assert [key.algorithms for key in keys.material.keys] == [{"RS256"}]
    assert keys.material.signer is None
    assert keys.watched


def test_a_jwk_set_file_is_read_strictly(
    mint: "Mint", provider: "MakeProvider", tmp_path: Path
) -> None:
    path = tmp_path / "jwks"
    corp = provider(keys=JwksFile(str(path)), algorithms=("RS256", "ES256"))
    path.write_bytes(mint.jwks(mint.rsa, mint.p256))
    assert [key.kid for key in LocalKeys(corp, {}).material.keys] == ["rsa", "p256"]
    path.write_bytes(mint.jwks(mint.rsa, mint.rsa))
    with pytest.raises(KeyMaterialError, match="same kid"):
        LocalKeys(corp, {})


def test_a_private_key_signs_and_its_public_half_verifies(
    mint: "Mint", provider: "MakeProvider"
) -> None:
    pem = SecretRef("value", mint.p256.as_pem(private=True).decode())
    keys = LocalKeys(provider(keys=None, algorithms=("ES256",), private_key=pem), {})
    assert keys.material.signer is not None
    assert keys.material.signer.algorithm == "ES256"
    public = keys.material.signer.material.public_key().public_numbers()
    assert [key.material.public_numbers() for key in keys.material.keys] == [public]
    assert not keys.watched


@pytest.mark.parametrize("source", [Discovery("https://a.example", refresh=1), Secrets(())])
def test_a_private_key_beside_other_keys_only_signs(
    mint: "Mint", provider: "MakeProvider", source: KeySource
) -> None:
    pem = SecretRef("value", mint.p256.as_pem(private=True).decode())
    keys = LocalKeys(provider(keys=source, algorithms=("ES256",), private_key=pem), {})
    assert keys.material.signer is not None
    assert keys.material.keys == ()


def test_material_does_not_show_itself(provider: "MakeProvider") -> None:
    keys = LocalKeys(provider(keys=Secrets((SecretRef("value", NEW.decode()),))), {})
    assert "another" not in repr(keys.material)


# --- changes


def write_in_place(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def write_and_rename(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)


@pytest.mark.parametrize("write", [write_in_place, write_and_rename])
def test_a_changed_file_is_read_again(
    provider: "MakeProvider", tmp_path: Path, write: Callable[[Path, bytes], None]
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(OLD)
    keys = LocalKeys(provider(keys=secrets_in(path)), {})
    assert keys.refresh() is None
    write(path, NEW)
    material = keys.refresh()
    assert material is not None
    assert [key.material for key in material.keys] == [NEW]
    assert keys.refresh() is None


def test_a_rotation_keeps_the_previous_secret_and_signs_with_the_first(
    provider: "MakeProvider", tmp_path: Path
) -> None:
    first, second = tmp_path / "current", tmp_path / "previous"
    first.write_bytes(OLD)
    second.write_bytes(b"0" + OLD)
    keys = LocalKeys(provider(keys=secrets_in(first, second)), {})
    second.write_bytes(OLD)
    first.write_bytes(NEW)
    material = keys.refresh()
    assert material is not None
    assert [key.material for key in material.keys] == [NEW, OLD]
    assert material.signer is not None
    assert material.signer.material == NEW


def test_the_symlink_swap_of_a_mounted_secret_is_seen(
    provider: "MakeProvider", tmp_path: Path
) -> None:
    for name, content in (("..1", OLD), ("..2", NEW + b"1234")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "secret").write_bytes(content)
        os.utime(tmp_path / name / "secret", ns=(10**18, 10**18))
    assert len(OLD) == len(NEW + b"1234")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "secret").symlink_to("..data/secret")
    keys = LocalKeys(provider(keys=secrets_in(tmp_path / "secret")), {})
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    material = keys.refresh()
    assert material is not None
    assert [key.material for key in material.keys] == [NEW + b"1234"]


@pytest.mark.parametrize("broken", [b"", b"short", None])
def test_broken_content_keeps_the_old_keys_and_is_logged_once(
    provider: "MakeProvider", tmp_path: Path, broken: bytes | None
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(OLD)
    keys = LocalKeys(provider(keys=secrets_in(path)), {})
    if broken is None:
        path.unlink()
    else:
        path.write_bytes(broken)
    with capture_logs() as lines:
        assert keys.refresh() is None
        assert keys.refresh() is None
        path.write_bytes(NEW)
        assert keys.refresh() is not None
    assert [line["event"] for line in lines] == ["keys_reload_failed", "keys_reloaded"]
    assert lines[0]["provider"] == "app"
    assert materials(keys) == [OLD]
