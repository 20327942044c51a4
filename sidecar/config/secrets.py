"""Secrets: texts that come from a variable, a file or (with a warning) the policy itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sidecar.errors import KeyMaterialError
from sidecar.policy.providers import SecretRef

__all__ = ["MAX_SECRET_BYTES", "read_secret"]

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
