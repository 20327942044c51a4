"""What a worker is told comes as it was meant."""

import json
import socket

from sidecar.config.source import Document
from sidecar.workers.orders import Orders
from sidecar.workers.ports import Place

ORDERS = Orders(
    [Document("a.yaml", "\ufeff# ä\r\n".encode()), Document("b.yaml", b"")],
    3,
    [
        Place(None, socket.AF_INET, ("127.0.0.1", 80)),
        Place(None, socket.AF_INET6, ("::1", 80, 0, 0)),
        Place(7, socket.AF_UNIX, None),
    ],
    "secret \udce9",
)


def test_orders_come_through_json_as_they_were() -> None:
    assert Orders.from_json(json.loads(json.dumps(ORDERS.to_json()))) == ORDERS


def test_neither_policy_nor_key_is_shown() -> None:
    assert "secret" not in repr(ORDERS)
    assert "#" not in repr(ORDERS)
