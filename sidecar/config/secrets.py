"""Secrets: texts that come from a variable, a file or (with a warning) the policy itself."""

import contextlib
from collections.abc import Mapping
from typing import Final

from sidecar.config.files import Signature, read_bounded, signature
from sidecar.errors import KeyMaterialError
from sidecar.policy.providers import SecretRef

__all__ = ["MAX_SECRET_BYTES", "LiveSecret", "read_secret"]

MAX_SECRET_BYTES: Final = 64 * 1024
"""Longer than any key or certificate chain that one would sign or verify with."""


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


class LiveSecret:
    """A secret that is read again when its file changes.

    Raises KeyMaterialError where it cannot be read at first; later the last good text stays.
    """

    def __init__(self, ref: SecretRef, environ: Mapping[str, str]) -> None:
        self._ref = ref
        self._environ = environ
        self._seen = self._signature()
        self._text = read_secret(ref, environ)

    def read(self) -> bytes:
        """The text as it is now."""
        seen = self._signature()
        if seen != self._seen:
            self._seen = seen
            with contextlib.suppress(KeyMaterialError):
                self._text = read_secret(self._ref, self._environ)
        return self._text

    def _signature(self) -> Signature | None:
        return signature(self._ref.ref) if self._ref.kind == "file" else None


def _without_newline(data: bytes) -> bytes:
    return data.removesuffix(b"\n")
