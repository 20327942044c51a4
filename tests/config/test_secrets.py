"""Secrets from variables, files and texts."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sidecar.config.secrets import MAX_SECRET_BYTES, LiveToken, read_secret, read_token
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


@pytest.mark.parametrize("name", ["missing", "nul\0"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyMaterialError, match="cannot be read"):
        read_secret(SecretRef("file", str(tmp_path / name)), {})


def test_a_file_that_is_too_large_is_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"x" * (MAX_SECRET_BYTES + 1))
    with pytest.raises(KeyMaterialError, match="is over 64 KiB"):
        read_secret(SecretRef("file", str(file)), {})


FIRST, SECOND, THIRD = (b"a-token-of-the-admin-listener-%d" % number for number in (1, 2, 3))


@pytest.mark.parametrize("content", [b"", b"\n", b"x", b"fifteen bytes..\n"])
def test_what_one_could_guess_is_no_token(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(KeyMaterialError, match=r"the token is shorter than 16 bytes; use at least"):
        read_token(SecretRef("file", str(file)), {})
    with pytest.raises(KeyMaterialError, match="shorter than"):
        LiveToken(SecretRef("file", str(file)), {})


def test_a_token_is_read_again_when_its_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(FIRST)
    token = LiveToken(SecretRef("file", str(file)), {})
    assert token.read() == FIRST
    file.write_bytes(SECOND + b"\n")
    assert token.read() == SECOND
    file.unlink()
    assert token.read() == SECOND
    file.write_bytes(THIRD)
    assert token.read() == THIRD


@pytest.mark.parametrize("content", [b"", b"x", b"fifteen bytes..\n"])
def test_a_file_that_is_emptied_or_cut_leaves_the_token_of_before(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "token"
    file.write_bytes(FIRST)
    token = LiveToken(SecretRef("file", str(file)), {})
    with capture_logs() as logs:
        file.write_bytes(content)
        assert [token.read(), token.read()] == [FIRST, FIRST]
        file.write_bytes(SECOND)
        assert token.read() == SECOND
    assert logs == [
        {
            "event": "token_reload_failed",
            "log_level": "error",
            "file": str(file),
            "error": "the token is shorter than 16 bytes",
            "remedy": "mend the file; what it said before is in use until then",
        }
    ]


def test_a_token_of_the_environment_stays() -> None:
    assert LiveToken(SecretRef("env", "NAME"), {"NAME": FIRST.decode()}).read() == FIRST
