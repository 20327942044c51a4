"""An authentication sidecar and reverse proxy for WebSocket servers."""

__version__ = "0.1.0"
