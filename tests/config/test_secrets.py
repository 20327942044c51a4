"""Secrets from variables, files and texts."""

from pathlib import Path

import pytest

from sidecar.config.secrets import MAX_SECRET_BYTES, LiveSecret, read_secret
from sidecar.errors import KeyMaterialError
from sidecar.policy.providers import SecretRef


def test_a_variable() -> None:
    assert read_secret(SecretRef("env", "NAME"), {"NAME": "geheim"}) == b"geheim"


def test_bytes_of_a_variable_that_are_not_utf_8_are_kept() -> None:
    assert read_secret(SecretRef("env", "NAME"), {"NAME": "\udcff"}) == b"\xff"


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(KeyMaterialError, match=r"variable NAME is not set; set it"):
        read_secret(SecretRef("env", "NAME"), {})


@pytest.mark.parametrize(
    ("content", "secret"),
    [(b"x\n", b"x"), (b"x\n\n", b"x\n"), (b"x", b"x"), (b" x ", b" x "), (b"\n", b"")],
)
def test_a_file_loses_one_newline_at_its_end(tmp_path: Path, content: bytes, secret: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    assert read_secret(SecretRef("file", str(file)), {}) == secret


def test_a_text() -> None:
    assert read_secret(SecretRef("value", "gehéim\n"), {}) == "gehéim".encode()


@pytest.mark.parametrize("name", ["missing", "", "nul\0"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyMaterialError, match="cannot be read"):
        read_secret(SecretRef("file", str(tmp_path / name)), {})


def test_a_file_that_is_too_large_is_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"x" * (MAX_SECRET_BYTES + 1))
    with pytest.raises(KeyMaterialError, match="is over 64 KiB"):
        read_secret(SecretRef("file", str(file)), {})


def test_a_secret_that_lives_is_read_again_when_its_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("first")
    secret = LiveSecret(SecretRef("file", str(file)), {})
    assert secret.read() == b"first"
    file.write_text("the second")
    assert secret.read() == b"the second"
    file.unlink()
    assert secret.read() == b"the second"
    file.write_text("third")
    assert secret.read() == b"third"


def test_a_secret_of_the_environment_stays(tmp_path: Path) -> None:
    assert LiveSecret(SecretRef("env", "NAME"), {"NAME": "text"}).read() == b"text"
