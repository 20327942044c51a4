"""Secrets: texts that come from a variable, a file or (with a warning) the policy itself."""

from collections.abc import Mapping
from typing import Final

import structlog

from sidecar.config.files import Signature, read_bounded, signature
from sidecar.errors import KeyMaterialError
from sidecar.policy.providers import SecretRef

__all__ = ["MAX_SECRET_BYTES", "MIN_TOKEN_BYTES", "LiveToken", "read_secret", "read_token"]

MAX_SECRET_BYTES: Final = 64 * 1024
"""Longer than any key or certificate chain that one would sign or verify with."""

MIN_TOKEN_BYTES: Final = 16
"""What nobody guesses, even where nothing slows the guesses down."""

_log = structlog.get_logger()


def read_secret(ref: SecretRef, environ: Mapping[str, str]) -> bytes:
    """The secret's bytes, without one trailing newline (editors and `echo` add it).

    Raises KeyMaterialError where it cannot be read; the text names the place, never the secret.
    """
    if ref.kind == "value":
        return _without_newline(ref.ref.encode())
    if ref.kind == "env":
        value = environ.get(ref.ref)
        if value is None:
            raise KeyMaterialError(f"the environment variable {ref.ref} is not set", "set it")
        return _without_newline(value.encode("utf-8", "surrogateescape"))
    return _without_newline(read_bounded(ref.ref, MAX_SECRET_BYTES))


def read_token(ref: SecretRef, environ: Mapping[str, str]) -> bytes:
    """The text of a token that whoever knows it may present.

    Raises KeyMaterialError as `read_secret` does, and where it is shorter than `MIN_TOKEN_BYTES`.
    """
    text = read_secret(ref, environ)
    if len(text) < MIN_TOKEN_BYTES:
        raise KeyMaterialError(
            f"the token is shorter than {MIN_TOKEN_BYTES} bytes",
            f"use at least {MIN_TOKEN_BYTES} random characters",
        )
    return text


class LiveToken:
    """A token that is read again when its file changes.

    Raises KeyMaterialError where it cannot be used at first. Later the last good text stays: a file
    that is emptied, or read while it is being written, opens nothing. That is logged once for each
    change.
    """

    def __init__(self, ref: SecretRef, environ: Mapping[str, str]) -> None:
        self._ref = ref
        self._environ = environ
        self._seen = self._signature()
        self._text = read_token(ref, environ)

    def read(self) -> bytes:
        """The text as it is now."""
        seen = self._signature()
        if seen != self._seen:
            self._seen = seen
            try:
                self._text = read_token(self._ref, self._environ)
            except KeyMaterialError as error:
                _log.error(
                    "token_reload_failed",
                    file=self._ref.ref,
                    error=error.wrong,
                    remedy="mend the file; what it said before is in use until then",
                )
        return self._text

    def _signature(self) -> Signature | None:
        return signature(self._ref.ref) if self._ref.kind == "file" else None


def _without_newline(data: bytes) -> bytes:
    return data.removesuffix(b"\n")
