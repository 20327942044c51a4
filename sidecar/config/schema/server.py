"""The sections of the program itself: `server`, `admin`, `logging`."""

from typing import Annotated

from sidecar.config.schema.base import (
    AddressText,
    CloseCodeNumber,
    Duration,
    Model,
    NetworkText,
    PositiveDuration,
    Secret,
    Text,
    WorkerCount,
    setting,
    word,
)

__all__ = ["Admin", "Audit", "Drain", "Logging", "Server", "ServerTls"]


class ServerTls(Model):
    """TLS of the public listener. The files are read again when they change."""

    certificate: Text = setting(description="PEM file with the certificate chain.")
    key: Text = setting(description="PEM file with the private key.")
    client_ca: Text | None = setting(
        None, description="PEM file of the CA that client certificates must come from (mutual TLS)."
    )


class Drain(Model):
    """What happens to open connections on SIGTERM, SIGINT or POST /drain on the admin port."""

    grace: Duration = setting(
        "30s", description="Connections that are still open at its end are cut."
    )
    spread: Duration | None = setting(
        None,
        description="The close frames are spread over it, so that clients do not come back all at "
        "once. Default: 10s, or `grace` where that is shorter.",
    )
    close_code: CloseCodeNumber = setting(
        1012, description="The close code that clients get (1012: service restart)."
    )


class Server(Model):
    """The public listener."""

    listen: list[AddressText] = setting(
        ["0.0.0.0:8080"],
        min_length=1,
        description="Addresses to listen on: `host:port`, `[v6]:port` or `unix:/path.sock`. The "
        "file of a Unix socket gets the mode that the umask gives.",
    )
    workers: WorkerCount = setting(
        1,
        description="Processes that share the listener. `auto`: as many as there are CPUs, by "
        "affinity and the control group's quota, rounded up.",
    )
    tls: ServerTls | None = setting(None, description="TLS on the public listener.")
    trusted_proxies: list[NetworkText] = setting(
        [],
        description="CIDRs whose X-Forwarded-For, X-Forwarded-Proto and Forwarded are believed, "
        "hops counted from the right. Default: nobody's.",
    )
    proxy_protocol: bool = setting(
        False, description="Expect the HAProxy PROXY protocol (v1, v2), from trusted proxies only."
    )
    require_tls: bool = setting(
        False,
        description="Refuse connections that came in clear: neither TLS here nor "
        "`X-Forwarded-Proto: https` from a trusted proxy.",
    )
    handshake_timeout: PositiveDuration = setting(
        "10s",
        description="From the first byte to the end of the request head, and again until the 101.",
    )
    max_connections: int = setting(
        10_000,
        ge=1,
        le=10_000_000,
        description="Connections over it get a 503 with Retry-After before any work. Several "
        "workers have equal shares of it, rounded up.",
    )
    drain: Drain = setting({}, description="The end of the program's life.")


class Admin(Model):
    """The admin listener: /livez, /readyz, /metrics. Never on the public port."""

    listen: AddressText = setting("127.0.0.1:9090", description="Its own address.")
    token: Secret | None = setting(
        None,
        description="Bearer token, of 16 bytes or more, for everything but the probes; required "
        "off loopback.",
    )
    metrics_public: bool = setting(False, description="Give /metrics to whoever asks.")


class Audit(Model):
    """The audit log: one event for each decision."""

    file: Text | None = setting(None, description="A file to append to; null is the log stream.")
    sample_allowed: float = setting(
        1.0, ge=0, le=1, description="The share of allowed events that is recorded."
    )


class Logging(Model):
    """What is logged."""

    format: Annotated[str, *word("json", "console")] = setting(
        "json", description="`json` for machines, `console` for people."
    )
    level: Annotated[str, *word("debug", "info", "warning", "error")] = setting(
        "info", description="The least severe level that is logged."
    )
    user_ids: Annotated[str, *word("hash", "plain")] = setting(
        "hash", description="What log lines and the audit log say of a user."
    )
    audit: Audit = setting({}, description="The audit log.")
