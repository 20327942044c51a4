"""WebSocket on the wire (RFC 6455): bytes and headers, no policy, no identity, no I/O."""
