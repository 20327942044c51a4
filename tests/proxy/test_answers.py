"""Messages of the sidecar's own are whole frames, each with an identifier of its own."""

import json
from uuid import UUID

from sidecar.model import Identity
from sidecar.policy.replies import Reply
from sidecar.proxy.answers import answer_frame
from tests.support.frames import TEXT

REPLY = Reply({"id": "{uuid}", "user": "{user}", "why": "{reason}", "now": "{now}"})
ALICE = Identity("alice", {}, "app", None, None)


def test_an_answer_is_a_text_in_one_frame() -> None:
    first = answer_frame(REPLY, ALICE, 1_700_000_000.5, "token_invalid")
    assert first[0] == 0x80 | TEXT
    told = json.loads(first[2:])
    identifier = UUID(told.pop("id"))
    assert told == {"user": "alice", "why": "token_invalid", "now": 1_700_000_000}
    again = json.loads(answer_frame(REPLY, None, 1_700_000_000.5)[2:])
    assert UUID(again["id"]) != identifier
    assert again["user"] is None
