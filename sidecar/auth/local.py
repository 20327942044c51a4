"""Keys that lie here: secrets, PEM and JWK set files, re-read when they change."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import structlog

from sidecar.config.files import Signature, read_bounded, signature
from sidecar.config.secrets import read_secret
from sidecar.errors import KeyMaterialError
from sidecar.policy.keys import (
    MAX_SET_BYTES,
    SigningKey,
    VerificationKey,
    hmac_key,
    jwk_set,
    private_key,
    public_half,
    public_key,
)
from sidecar.policy.providers import JwksFile, Provider, PublicKey, SecretRef, Secrets

__all__ = ["LocalKeys", "Material"]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, repr=False)
class Material:
    """What one reading gave: the keys that verify, and the one that signs."""

    keys: tuple[VerificationKey, ...]
    signer: SigningKey | None


class LocalKeys:
    """The local keys of one provider. It may have none, when its keys are remote."""

    def __init__(self, provider: Provider, environ: Mapping[str, str]) -> None:
        self._provider = provider
        self._environ = environ
        self._paths = tuple(_paths(provider))
        self._seen = self._stat()
        self.material = self._read()

    @property
    def watched(self) -> bool:
        """Whether any of it comes from a file."""
        return bool(self._paths)

    def refresh(self) -> Material | None:
        """The new material if a file has changed, else None. Blocks on the file system.

        A file is another one when its resolved path, inode, size or time of change differ, so
        that the symlink swap of a mounted Secret is seen. Content that cannot be used leaves the
        old keys in force and is logged once.
        """
        seen = self._stat()
        if seen == self._seen:
            return None
        self._seen = seen
        try:
            material = self._read()
        except KeyMaterialError as error:
            _log.error("keys_reload_failed", provider=self._provider.name, error=error.wrong)
            return None
        _log.info("keys_reloaded", provider=self._provider.name)
        return material

    def _stat(self) -> tuple[Signature | None, ...]:
        return tuple(signature(path) for path in self._paths)

    def _read(self) -> Material:
        provider = self._provider
        keys = tuple(self._verifiers())
        if isinstance(provider.keys, Secrets) and keys:
            return Material(keys, SigningKey(None, provider.algorithms[0], keys[0].material))
        if provider.private_key is None:
            return Material(keys, None)
        pem = read_secret(provider.private_key, self._environ)
        if provider.keys is None:
            keys = (public_half(pem, provider.algorithms),)
        return Material(keys, private_key(pem, provider.algorithms))

    def _verifiers(self) -> Iterator[VerificationKey]:
        provider = self._provider
        match provider.keys:
            case Secrets(secrets):
                for ref in secrets:
                    secret = read_secret(ref, self._environ)
                    yield hmac_key(
                        secret, provider.algorithms, allow_weak=provider.allow_weak_secret
                    )
            case PublicKey(pem):
                yield public_key(read_secret(pem, self._environ), provider.algorithms)
            case JwksFile(path):
                document = read_bounded(path, MAX_SET_BYTES)
                yield from jwk_set(document, provider.algorithms, strict=True)


def _paths(provider: Provider) -> Iterator[str]:
    refs: list[SecretRef | None] = [provider.private_key]
    match provider.keys:
        case Secrets(secrets):
            refs.extend(secrets)
        case PublicKey(pem):
            refs.append(pem)
        case JwksFile(path):
            yield path
    yield from (ref.ref for ref in refs if ref is not None and ref.kind == "file")
