"""Reading what the audit log has written."""

import json
from pathlib import Path
from typing import Any


def audit_to(path: Path) -> dict[str, Any]:
    """The policy's `logging` section for an audit log in this file, with users' names in clear."""
    return {"user_ids": "plain", "audit": {"file": str(path)}}


def events(path: Path, name: str = "handshake") -> list[dict[str, Any]]:
    """The events of this name, in order."""
    parsed = [json.loads(line) for line in path.read_text().splitlines()]
    return [event for event in parsed if event["event"] == name]
