"""The section `upstreams`, compiled."""

import re
from typing import NamedTuple

from sidecar.config.compile.report import Report
from sidecar.config.compile.server import is_loopback
from sidecar.config.nodes import Loc
from sidecar.config.schema import upstreams as schema
from sidecar.policy.compiled import Address, Health, Upstream, UpstreamTls
from sidecar.policy.origins import parse_authority
from sidecar.policy.routes import check_path

__all__ = ["compile_upstream"]

_URL = re.compile(r"(wss?)://([^/?#]+)(/[^?#]*)?")
_PORTS = {"ws": 80, "wss": 443}


class _Target(NamedTuple):
    address: Address
    secure: bool
    prefix: str


def compile_upstream(name: str, model: schema.Upstream, report: Report) -> Upstream | None:
    """One upstream; None where its URL is none."""
    loc = ("upstreams", name)
    target = report.attempt((*loc, "url"), lambda: _parse_url(model.url))
    health = _health((*loc, "health"), model.health, report)
    tls = _tls((*loc, "tls"), model.tls, report)
    if target is None:
        return None
    if model.tls is not None and not target.secure:
        report.error(
            (*loc, "tls"),
            "has no effect without TLS",
            "write the url with wss://, or remove tls",
            given=[(*loc, "url")],
        )
    remote = not is_loopback(target.address)
    if remote:
        _check_remote(loc, model, target, report)
    return Upstream(
        name=name,
        address=target.address,
        secure=target.secure,
        remote=remote,
        prefix=target.prefix,
        connect_timeout=model.connect_timeout,
        tls=tls,
        health=health,
    )


def _parse_url(url: str) -> _Target:
    examples = "write ws://127.0.0.1:9000, wss://host:port or unix:/path.sock"
    if url.startswith("unix:"):
        if not url.startswith("unix:/") or "\0" in url:
            raise ValueError(f"the socket's path is not absolute; {examples}")
        return _Target(Address(unix=url.removeprefix("unix:")), False, "")
    parts = _URL.fullmatch(url)
    authority = parse_authority(parts[2]) if parts else None
    if parts is None or authority is None:
        raise ValueError(f"is not the URL of a WebSocket server; {examples}")
    prefix = (parts[3] or "").removesuffix("/")
    if wrong := check_path(f"{prefix}/path"):
        raise ValueError(f"{wrong}; write a plain path, such as ws://127.0.0.1:9000/chat")
    host = authority[0].strip("[]")
    port = authority[1] or _PORTS[parts[1]]
    return _Target(Address(host, port), parts[1] == "wss", prefix)


def _check_remote(loc: Loc, model: schema.Upstream, target: _Target, report: Report) -> None:
    url = (*loc, "url")
    if not model.allow_remote:
        report.error(
            url,
            f"{target.address} is not loopback: who reaches it goes round the sidecar",
            "use 127.0.0.1 or a Unix socket, or set allow_remote: true",
            given=[(*loc, "allow_remote")],
        )
    elif not target.secure:
        report.warn(
            url,
            f"identity headers go to {target.address} in clear, and it believes whoever connects",
            "use wss:// with a client certificate, or a network policy",
        )
    elif model.tls is None or model.tls.certificate is None:
        report.warn(
            url,
            f"{target.address} believes whoever connects",
            "give the sidecar a client certificate under tls, or use a network policy",
        )


def _health(loc: Loc, model: schema.Health | None, report: Report) -> Health | None:
    if model is None:
        return None
    if wrong := check_path(model.path.partition("?")[0]):
        report.error((*loc, "path"), wrong, "write a plain path, such as /healthz")
    return Health(model.path, model.interval)


def _tls(loc: Loc, model: schema.UpstreamTls | None, report: Report) -> UpstreamTls:
    if model is None:
        return UpstreamTls()
    ca = report.readable((*loc, "ca"), model.ca)
    certificate = report.readable((*loc, "certificate"), model.certificate)
    key = report.readable((*loc, "key"), model.key)
    report.authority((*loc, "ca"), ca)
    if (model.certificate is None) != (model.key is None):
        report.error(loc, "has only one of certificate and key", "give both, or neither")
    report.certificate((*loc, "certificate"), certificate, key)
    return UpstreamTls(ca, certificate, key, model.server_name)
