"""The compiled policy: what `config.compile` makes of the YAML and the proxy works from.

Durations are in seconds, sizes in bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.policy.peers import Network
from sidecar.policy.providers import Provider, SecretRef
from sidecar.policy.routes import Route

__all__ = [
    "Address",
    "Admin",
    "Audit",
    "Drain",
    "Health",
    "Logging",
    "Policy",
    "Server",
    "ServerTls",
    "TokenRules",
    "Upstream",
    "UpstreamTls",
]


@dataclass(frozen=True, slots=True)
class Address:
    """A socket address: host and port, or `unix` with a path."""

    host: str = ""
    port: int = 0
    unix: str | None = None

    def __str__(self) -> str:
        if self.unix is not None:
            return f"unix:{self.unix}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Files of the public listener's TLS; `client_ca` asks for client certificates."""

    certificate: str
    key: str
    client_ca: str | None = None


@dataclass(frozen=True, slots=True)
class Drain:
    """What happens on SIGTERM: close frames with `close_code`, over `spread` (at most `grace`), and
    the end after `grace`.
    """

    grace: float = 30.0
    close_code: int = 1012
    spread: float = 10.0


@dataclass(frozen=True, slots=True)
class Server:
    """The public listener. `workers` is how many processes share it; None is one for each CPU."""

    listen: tuple[Address, ...]
    workers: int | None = 1
    tls: ServerTls | None = None
    trusted_proxies: tuple[Network, ...] = ()
    proxy_protocol: bool = False
    require_tls: bool = False
    handshake_timeout: float = 10.0
    max_connections: int = 10_000
    drain: Drain = Drain()


@dataclass(frozen=True, slots=True)
class Admin:
    """The admin listener. `token` is required for everything but the probes where it is set."""

    listen: Address
    token: SecretRef | None = None
    metrics_public: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """TLS towards the upstream. `ca` None is the system's trust store."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """A plain GET to the upstream; any 2xx is healthy."""

    path: str
    interval: float


@dataclass(frozen=True, slots=True)
class Upstream:
    """A WebSocket server behind the sidecar. `prefix` is put before every path ("" or "/x");
    `remote` says that it is not on this host.
    """

    name: str
    address: Address
    secure: bool = False
    remote: bool = False
    prefix: str = ""
    connect_timeout: float = 5.0
    tls: UpstreamTls = UpstreamTls()
    health: Health | None = None


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What holds for the tokens of every provider."""

    leeway: float
    max_token_size: int
    providers: tuple[Provider, ...]


@dataclass(frozen=True, slots=True)
class Audit:
    """The audit log: a file (None: the log stream), and the share of allowed events recorded."""

    file: str | None = None
    sample_allowed: float = 1.0


@dataclass(frozen=True, slots=True)
class Logging:
    """How the program logs. `level` is a name of the logging module in lower case."""

    format: str = "json"
    level: str = "info"
    hash_user_ids: bool = True
    audit: Audit = Audit()


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole policy."""

    server: Server
    admin: Admin | None
    upstreams: Mapping[str, Upstream]
    tokens: TokenRules
    routes: tuple[Route, ...]
    logging: Logging
