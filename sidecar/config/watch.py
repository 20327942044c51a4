"""Seeing that a policy has changed, without events: they are lost on network file systems, and a
mounted ConfigMap changes by the swap of a symlink far above the files.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sidecar.config.files import Signature, signature
from sidecar.config.source import policy_files
from sidecar.policy.compiled import Policy

__all__ = ["PolicyWatcher", "named_files"]

_Signatures = tuple[tuple[str, Signature | None], ...]


def named_files(policy: Policy) -> tuple[str, ...]:
    """The files that are read with the policy, and not again by themselves when they change: the
    certificates and keys towards the upstreams.
    """
    contexts = (one.tls for one in policy.upstreams.values() if one.secure)
    files = (file for tls in contexts for file in (tls.ca, tls.certificate, tls.key))
    return tuple(dict.fromkeys(file for file in files if file is not None))


class PolicyWatcher:
    """Looks at the policy's files, at folders for new and vanished ones too, and at the files that
    the policy names. Make it before the policy is read, so that no change is missed in between.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._named: tuple[str, ...] = ()
        self._known = self._last = self._look()

    def follow(self, named: Iterable[str]) -> None:
        """Look at these as the files that the policy names, from now on. Call it for each policy
        that comes into force, before the files are used: as they are now, new ones count as known.
        """
        own, before = self._known[0], dict(self._known[1])
        self._named = tuple(named)
        self._last = self._look()
        self._known = own, tuple((file, before.get(file, seen)) for file, seen in self._last[1])

    def changed(self) -> bool:
        """Look; true where the files are others than when it was true last, and are the same as at
        the look before. A few system calls for each file.

        Called each second, it says so once for each change and a second after the last one: what is
        being written, or swapped file by file, is read when it is done. A change that was undone is
        none. Whether the files can be read and are a policy is for `load_policy` to say.
        """
        look = self._look()
        settled = look == self._last
        self._last = look
        if not settled or look == self._known:
            return False
        self._known = look
        return True

    def _look(self) -> tuple[_Signatures, _Signatures]:
        """The policy's own files, and those that it names."""
        return _signatures(self._own_files()), _signatures(self._named)

    def _own_files(self) -> Iterator[str]:
        for path in self._paths:
            try:
                yield from map(str, policy_files(path))
            except OSError:  # a folder that cannot be listed now
                yield str(path)


def _signatures(files: Iterable[str]) -> _Signatures:
    return tuple((file, signature(file)) for file in files)
