"""TLS contexts of the listener and of the upstreams."""

import ssl

from sidecar.config.files import check_pem
from sidecar.policy.compiled import ServerTls, UpstreamTls

__all__ = ["server_context", "upstream_context"]


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """The public listener's context: TLS 1.2 or later, HTTP/1.1 only, client certificates
    required where a `client_ca` is named. Raises OSError (ssl.SSLError) for unusable files.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _check(tls.certificate, tls.key, tls.client_ca)
    context.load_cert_chain(tls.certificate, tls.key)
    if tls.client_ca is not None:
        # A resumed session would not be asked for its certificate again (RFC 8446 section 2.2).
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(tls.client_ca)
    return context


def upstream_context(tls: UpstreamTls) -> ssl.SSLContext:
    """A context that verifies the upstream's certificate and name, with a client certificate
    where one is named. Raises OSError (ssl.SSLError) for unusable files.
    """
    _check(tls.ca, tls.certificate, tls.key)
    context = ssl.create_default_context(cafile=tls.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


def _check(*files: str | None) -> None:
    """Raises OSError for what is no such file: OpenSSL would wait for the end of a pipe."""
    for file in files:
        if file is not None:
            check_pem(file)
