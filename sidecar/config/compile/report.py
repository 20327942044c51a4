"""Where the compiler writes down what is wrong, and what is unwise."""

import re
import ssl
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final, TypeVar

from sidecar.config.files import check_pem, fault
from sidecar.config.nodes import Loc, Node, doubtful, find, locate
from sidecar.config.schema.base import Secret
from sidecar.config.secrets import read_secret, read_token
from sidecar.config.values import show
from sidecar.errors import KeyMaterialError, Problem, TemplateError
from sidecar.policy.pointers import ClaimPath
from sidecar.policy.providers import SecretRef

__all__ = ["Report"]

T = TypeVar("T")

_NESTED: Final = re.compile(r"[\w-]+(?:\.[\w-]+)+")


class Report:
    """Errors and warnings by place. `environ` is where secrets' variables are looked up.

    An error at, above or below a gap may only follow from what left the gap, and is dropped.
    """

    def __init__(self, root: Node, environ: Mapping[str, str]) -> None:
        self._root = root
        self.environ = environ
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []

    def error(
        self,
        loc: Loc,
        wrong: str,
        remedy: str,
        *,
        key: bool = False,
        given: Collection[Loc] = (),
    ) -> None:
        """The policy cannot be used because of the value (or key) at `loc`, `given` other values:
        where it is not known what stands there, that is no error.
        """
        if not any(map(self.doubtful, (loc, *given))):
            self.errors.append(self._problem(loc, wrong, remedy, key))

    def warn(self, loc: Loc, wrong: str, remedy: str) -> None:
        """The policy can be used, but one should know this."""
        self.warnings.append(self._problem(loc, wrong, remedy, False))

    def _problem(self, loc: Loc, wrong: str, remedy: str, key: bool) -> Problem:
        place = locate(self._root, loc, key=key)
        return Problem(place.file, place.line, place.column, place.path, wrong, remedy)

    def defines(self, loc: Loc) -> bool:
        """Whether the policy has something at `loc`, be it good or bad, or may have it."""
        return find(self._root, loc) is not None or self.doubtful(loc)

    def doubtful(self, loc: Loc) -> bool:
        """Whether it is not known what stands at `loc`."""
        return doubtful(self._root, loc)

    def where(self, loc: Loc) -> str:
        """The place of the value as ``file:line:column``."""
        return str(locate(self._root, loc))

    def attempt(self, loc: Loc, call: Callable[[], T], *, given: Collection[Loc] = ()) -> T | None:
        """What the call gives; None, with an error written down, where it refuses its input."""
        try:
            return call()
        except KeyMaterialError as error:
            self.error(loc, error.wrong, error.remedy, given=given)
        except (ValueError, TemplateError) as error:
            wrong, _, remedy = str(error).rpartition("; ")
            self.error(loc, wrong, remedy, given=given)
        return None

    def claim(self, loc: Loc, source: str) -> ClaimPath | None:
        """A claim's place, with a warning where a name looks like the way to a nested claim."""
        if _NESTED.fullmatch(source):
            pointer = source.replace(".", "/")
            self.warn(
                loc,
                f"{source} is one name with a dot in it",
                f"write /{pointer} for a nested claim, or /{source} for this one",
            )
        return self.attempt(loc, lambda: ClaimPath.parse(source))

    def file(self, loc: Loc, name: str) -> str:
        """A file's path: relative ones start at the folder of the policy file that names them."""
        return str(Path(locate(self._root, loc).file).parent / name)

    def readable(self, loc: Loc, name: str | None) -> str | None:
        """The path of a file that can be read now; None where none is named or it cannot be."""
        if name is None:
            return None
        path = self.file(loc, name)
        try:
            check_pem(path)
        except (OSError, ValueError) as error:
            wrong, remedy = fault(error, "create it, or let the user that runs the sidecar read it")
            self.error(loc, f"the file {show(path)} {wrong}", remedy)
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

    def token(self, loc: Loc, ref: SecretRef) -> None:
        """Check that a token can be read, and is nothing that one could guess."""
        self.attempt(loc, lambda: read_token(ref, self.environ))
