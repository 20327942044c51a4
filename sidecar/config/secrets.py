"""Secrets: texts that come from a variable, a file or (with a warning) the policy itself."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sidecar.config.files import Signature, signature
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
    return _without_newline(_read_file(ref.ref))


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


def _read_file(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a valid path"
        raise KeyMaterialError(
            f"the file {path} cannot be read ({why})",
            "create it, or let the user that runs the sidecar read it",
        ) from None
    if len(data) > MAX_SECRET_BYTES:
        raise KeyMaterialError(f"the file {path} is over 64 KiB", "name the file with the secret")
    return data


def _without_newline(data: bytes) -> bytes:
    return data.removesuffix(b"\n")
