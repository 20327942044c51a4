"""What a handshake is decided by, from its beginning to its end."""

import ssl
from collections.abc import Mapping
from typing import NamedTuple

from sidecar.auth.authenticator import Authenticator
from sidecar.policy.compiled import Policy

__all__ = ["Rules"]


class Rules(NamedTuple):
    """A policy, who verifies its tokens, and the TLS contexts of its upstreams that are wss."""

    policy: Policy
    authenticator: Authenticator
    upstream_tls: Mapping[str, ssl.SSLContext]
