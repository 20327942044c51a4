"""The sidecar beside nginx, HAProxy, Envoy, aiohttp and a bare relay; see README.md here."""
