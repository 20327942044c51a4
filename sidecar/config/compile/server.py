"""The sections of the program itself, compiled: `server`, `admin`, `logging`."""

from ipaddress import ip_address
from typing import Final

from sidecar.config.compile.report import Report
from sidecar.config.schema import server as schema
from sidecar.policy.compiled import Address, Admin, Audit, Drain, Logging, Server, ServerTls

__all__ = ["compile_admin", "compile_logging", "compile_server", "is_loopback"]

_SPREAD: Final = 10.0


def is_loopback(address: Address) -> bool:
    """Whether only this host's programs reach the address: loopback or a Unix socket."""
    if address.unix is not None or address.host == "localhost":
        return True
    try:
        return ip_address(address.host).is_loopback
    except ValueError:
        return False


def compile_server(model: schema.Server, report: Report) -> Server:
    """The public listener."""
    for index, address in enumerate(model.listen):
        if address in model.listen[:index]:
            report.error(("server", "listen", index), "is listed twice", "remove one of the two")
    if model.proxy_protocol and not model.trusted_proxies:
        report.error(
            ("server", "proxy_protocol"),
            "is believed from nobody without trusted_proxies",
            "add the proxies' CIDRs to trusted_proxies",
            given=[("server", "trusted_proxies")],
        )
    for index, network in enumerate(model.trusted_proxies):
        if network.prefixlen == 0:
            report.warn(
                ("server", "trusted_proxies", index),
                "believes every client what it says of its address and of TLS",
                "name the proxies' own networks",
            )
    if model.require_tls and not model.tls and not model.trusted_proxies:
        report.error(
            ("server", "require_tls"),
            "refuses every connection: there is neither TLS here nor a trusted proxy",
            "add tls or trusted_proxies",
            given=[("server", "tls"), ("server", "trusted_proxies")],
        )
    return Server(
        listen=tuple(model.listen),
        workers=model.workers,
        tls=_tls(model.tls, report),
        trusted_proxies=tuple(model.trusted_proxies),
        proxy_protocol=model.proxy_protocol,
        require_tls=model.require_tls,
        handshake_timeout=model.handshake_timeout,
        max_connections=model.max_connections,
        drain=_drain(model.drain, report),
    )


def _drain(model: schema.Drain, report: Report) -> Drain:
    spread = min(_SPREAD, model.grace) if model.spread is None else model.spread
    if spread > model.grace:
        report.error(
            ("server", "drain", "spread"),
            "is longer than grace, at whose end every connection is cut",
            "give at most the grace",
            given=[("server", "drain", "grace")],
        )
    return Drain(model.grace, model.close_code, spread)


def _tls(model: schema.ServerTls | None, report: Report) -> ServerTls | None:
    if model is None:
        return None
    loc = ("server", "tls")
    certificate = report.readable((*loc, "certificate"), model.certificate)
    key = report.readable((*loc, "key"), model.key)
    client_ca = report.readable((*loc, "client_ca"), model.client_ca)
    report.certificate((*loc, "certificate"), certificate, key)
    report.authority((*loc, "client_ca"), client_ca)
    return ServerTls(certificate or "", key or "", client_ca)


def compile_admin(model: schema.Admin | None, report: Report) -> Admin | None:
    """The admin listener; None where it is turned off."""
    if model is None:
        return None
    token = None
    if model.token is not None:
        token = report.secret(("admin", "token"), model.token)
        report.token(("admin", "token"), token)
    if not is_loopback(model.listen):
        _check_exposed(model, report)
    return Admin(model.listen, token, model.metrics_public)


def _check_exposed(model: schema.Admin, report: Report) -> None:
    if model.token is None:
        report.error(
            ("admin", "listen"),
            f"{model.listen} is not loopback and there is no token",
            "add admin.token, or listen on 127.0.0.1",
            given=[("admin", "token")],
        )
    if model.metrics_public:
        report.warn(
            ("admin", "metrics_public"),
            f"whoever reaches {model.listen} reads the metrics",
            "remove it, or keep the address off public networks",
        )


def compile_logging(model: schema.Logging, report: Report) -> Logging:
    """What is logged."""
    file = model.audit.file
    return Logging(
        format=model.format,
        level=model.level,
        hash_user_ids=model.user_ids == "hash",
        audit=Audit(
            report.file(("logging", "audit", "file"), file) if file is not None else None,
            model.audit.sample_allowed,
        ),
    )
