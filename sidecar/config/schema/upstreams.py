"""The section `upstreams`: the WebSocket servers behind the sidecar."""

from sidecar.config.schema.base import (
    Model,
    PositiveDuration,
    Text,
    setting,
)

__all__ = ["Health", "Upstream", "UpstreamTls"]


class UpstreamTls(Model):
    """TLS towards an upstream with a wss URL."""

    ca: Text | None = setting(None, description="PEM file of its CA; null is the system's store.")
    certificate: Text | None = setting(None, description="PEM file of a client certificate.")
    key: Text | None = setting(None, description="PEM file of the client certificate's key.")
    server_name: Text | None = setting(
        None, description="The name to ask for and to check, where it is not the URL's host."
    )


class Health(Model):
    """A plain GET that says whether the upstream is well; any 2xx is."""

    path: Text = setting(description="The path to ask for.")
    interval: PositiveDuration = setting("10s", description="How often.")


class Upstream(Model):
    """A WebSocket server."""

    url: Text = setting(
        description="`ws://host:port`, `wss://host:port` or `unix:/path.sock`; a path here is put "
        "before every path."
    )
    connect_timeout: PositiveDuration = setting("5s", description="For the dial and its handshake.")
    allow_remote: bool = setting(
        False,
        description="Permit an address that is not loopback: others on the network may go round "
        "the sidecar, as the upstream has no authentication of its own.",
    )
    tls: UpstreamTls | None = setting(None, description="For wss.")
    health: Health | None = setting(None, description="Feeds /readyz.")
