"""Where the compiler writes down what is wrong, and what is unwise."""

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from sidecar.config.nodes import Loc, Node, exists, locate
from sidecar.config.schema.base import Secret
from sidecar.config.secrets import read_secret
from sidecar.config.values import show
from sidecar.errors import KeyMaterialError, Problem, TemplateError
from sidecar.policy.providers import SecretRef

__all__ = ["Report"]

T = TypeVar("T")


class Report:
    """Errors and warnings by place. `environ` is where secrets' variables are looked up, and
    `defined` (default: the root) is where a name counts as defined, be it well or badly.
    """

    def __init__(self, root: Node, environ: Mapping[str, str], defined: Node | None = None) -> None:
        self._root = root
        self._defined = defined or root
        self.environ = environ
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []

    def error(self, loc: Loc, wrong: str, remedy: str, *, key: bool = False) -> None:
        """The policy cannot be used because of the value (or key) at `loc`."""
        self.errors.append(self._problem(loc, wrong, remedy, key))

    def warn(self, loc: Loc, wrong: str, remedy: str) -> None:
        """The policy can be used, but one should know this."""
        self.warnings.append(self._problem(loc, wrong, remedy, False))

    def _problem(self, loc: Loc, wrong: str, remedy: str, key: bool) -> Problem:
        place = locate(self._root, loc, key=key)
        return Problem(place.file, place.line, place.column, place.path, wrong, remedy)

    def defines(self, loc: Loc) -> bool:
        """Whether the policy has something at `loc`."""
        return exists(self._defined, loc)

    def where(self, loc: Loc) -> str:
        """The place of the value as ``file:line:column``."""
        return str(locate(self._root, loc))

    def attempt(self, loc: Loc, call: Callable[[], T]) -> T | None:
        """What the call gives; None, with an error written down, where it refuses its input."""
        try:
            return call()
        except KeyMaterialError as error:
            self.error(loc, error.wrong, error.remedy)
        except (ValueError, TemplateError) as error:
            wrong, _, remedy = str(error).rpartition("; ")
            self.error(loc, wrong, remedy)
        return None

    def file(self, loc: Loc, name: str) -> str:
        """A file's path: relative ones start at the folder of the policy file that names them."""
        return str(Path(locate(self._root, loc).file).parent / name)

    def readable(self, loc: Loc, name: str | None) -> str | None:
        """The path of a file that can be read now; None where none is named or it cannot be."""
        if name is None:
            return None
        path = self.file(loc, name)
        try:
            Path(path).open("rb").close()
        except (OSError, ValueError):
            self.error(
                loc,
                f"the file {show(path)} cannot be read",
                "create it, or let the user that runs the sidecar read it",
            )
            return None
        return path

    def certificate(self, loc: Loc, certificate: str | None, key: str | None) -> None:
        """Check that a certificate chain and its key, where both are there, belong together."""
        if certificate is None or key is None:
            return
        try:
            # The empty password keeps OpenSSL from asking for one on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
        except (ssl.SSLError, ValueError):
            self.error(
                loc,
                "the certificate and its key cannot be used together",
                "give PEM files: the certificate chain, and its unencrypted private key",
            )

    def authority(self, loc: Loc, path: str | None) -> None:
        """Check that a file of an authority's certificates, where it is there, can be used."""
        if path is None:
            return
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        except ssl.SSLError:
            self.error(loc, "the file has no certificate", "give a PEM file of the authority")

    def secret(self, loc: Loc, secret: Secret) -> SecretRef:
        """A secret's reference, with a warning where the policy itself has the text."""
        if secret.value is not None:
            self.warn(loc, "the secret stands in the policy", "use {env: NAME} or {file: /path}")
        if secret.file is not None:
            return SecretRef("file", self.file((*loc, "file"), secret.file))
        return secret.ref

    def read(self, loc: Loc, ref: SecretRef) -> bytes | None:
        """The secret's bytes; None, with an error written down, where it cannot be read."""
        return self.attempt(loc, lambda: read_secret(ref, self.environ))
