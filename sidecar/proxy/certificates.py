"""The TLS contexts of a policy, and the re-reading of the listener's files when they change."""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final

import structlog

from sidecar.config.files import signature
from sidecar.policy.compiled import Policy
from sidecar.proxy.tls import server_context, upstream_context

__all__ = ["Certificates"]

_POLL: Final = 1.0

_log = structlog.get_logger()


class Certificates:
    """`server` is the public listener's context (None without TLS), `upstreams` those of the wss
    upstreams by name. Raises OSError (ssl.SSLError) for files that cannot be used.
    """

    def __init__(self, policy: Policy) -> None:
        self._tls = policy.server.tls
        self._seen = self._signatures()
        self._server = server_context(self._tls) if self._tls is not None else None
        self.upstreams: Mapping[str, ssl.SSLContext] = {
            name: upstream_context(upstream.tls)
            for name, upstream in policy.upstreams.items()
            if upstream.secure
        }

    def adopt(self, fresh: "Certificates") -> None:
        """Have what these have from now on."""
        self._tls, self._seen = fresh._tls, fresh._seen
        self._server, self.upstreams = fresh._server, fresh.upstreams

    @property
    def server(self) -> ssl.SSLContext | None:
        """The public listener's context for the next connection; None without TLS."""
        return self._server

    async def watch(self) -> None:
        """Look at the listener's files every second, for ever."""
        while True:
            await asyncio.sleep(_POLL)
            self.refresh()

    def refresh(self) -> None:
        """Read the listener's files again if they have changed: new connections get what they
        say, live ones keep theirs. Files that cannot be used leave the old ones in force; that is
        logged once for each change.
        """
        if self._tls is None or self._signatures() == self._seen:
            return
        self._seen = self._signatures()
        try:
            self._server = server_context(self._tls)
        except OSError as error:
            _log.error(
                "certificate_reload_failed",
                files=self._files(),
                error=str(error),
                remedy="mend the files; what they said before is in use until then",
            )
        else:
            _log.info("certificate_reloaded")

    def _signatures(self) -> tuple[object, ...]:
        return tuple(map(signature, self._files()))

    def _files(self) -> list[str]:
        if self._tls is None:
            return []
        files = (self._tls.certificate, self._tls.key, self._tls.client_ca)
        return [file for file in files if file is not None]
