"""The table of refusals, compared with the one in the README."""

import json
import re
from pathlib import Path

import pytest

from sidecar.model import Denial, Reason
from sidecar.proxy.refusals import (
    REFUSALS,
    closable,
    close_code,
    http_refusal,
    public_name,
)

README = Path(__file__).resolve().parent.parent.parent / "README.md"
ROW = re.compile(r"\| (`[a-z_]+`.*?) \|(.*?)\|(.*?)\|")

Table = dict[str, tuple[int | None, int | None]]


def documented() -> Table:
    """The README's table: reasons in one row share its status, and its code or have one each."""
    table: Table = {}
    for row in filter(None, map(ROW.fullmatch, README.read_text().splitlines())):
        names = re.findall("`([a-z_]+)`", row[1])
        statuses: list[int | None] = [int(text) for text in re.findall(r"\d+", row[2])] or [None]
        codes: list[int | None] = [int(text) for text in re.findall(r"\d+", row[3])] or [None]
        if len(codes) == 1:
            codes *= len(names)
        for name, code in zip(names, codes, strict=True):
            assert name not in table
            table[name] = statuses[0], code
    return table


def test_every_reason_has_its_place_in_the_table() -> None:
    assert set(REFUSALS) == set(Reason)


def test_the_table_is_the_documented_one() -> None:
    table = {reason.value: (entry.status, entry.code) for reason, entry in REFUSALS.items()}
    assert table == documented()


@pytest.mark.parametrize("reason", Reason)
def test_every_503_says_when_to_come_back(reason: Reason) -> None:
    fields = http_refusal(Denial(reason), "id").headers
    assert ("Retry-After" in fields) == (REFUSALS[reason].status == 503)


@pytest.mark.parametrize("reason", Reason)
def test_every_401_has_a_challenge(reason: Reason) -> None:
    fields = http_refusal(Denial(reason), "id").headers
    assert ("WWW-Authenticate" in fields) == (REFUSALS[reason].status == 401)


@pytest.mark.parametrize("reason", Reason)
def test_a_close_frame_has_room_for_every_reason(reason: Reason) -> None:
    """RFC 6455 section 5.5: 125 bytes, two of which are the code."""
    assert len(reason.value) <= 123


@pytest.mark.parametrize("reason", Reason)
def test_the_body_names_the_reason_and_the_request(reason: Reason) -> None:
    refusal = http_refusal(Denial(reason, "a detail for the log"), "0123456789abcdef")
    problem = json.loads(refusal.body)
    assert problem == {
        "type": "about:blank",
        "title": problem["title"],
        "status": refusal.status,
        "reason": reason.value,
        "request_id": "0123456789abcdef",
    }
    assert refusal.headers["Content-Type"] == "application/problem+json"
    assert refusal.headers["Cache-Control"] == "no-store"


def test_a_reason_of_live_connections_would_be_an_internal_error() -> None:
    assert http_refusal(Denial(Reason.MESSAGE_RATE), "id").status == 500


def test_another_version_is_answered_with_426() -> None:
    refusal = http_refusal(Denial(Reason.BAD_HANDSHAKE), "id", unsupported_version=True)
    assert refusal.status == 426
    assert refusal.headers["Sec-WebSocket-Version"] == "13"


def test_a_rules_own_name_is_told_instead_of_the_reason() -> None:
    denial = Denial(Reason.CLAIMS_DENIED, rule="not_a_member")
    assert public_name(denial) == "not_a_member"
    assert json.loads(http_refusal(denial, "id").body)["reason"] == "not_a_member"
    assert public_name(Denial(Reason.CLAIMS_DENIED)) == "claims_denied"


def test_only_what_has_a_close_code_can_be_told_in_a_close_frame() -> None:
    assert {reason for reason in Reason if not closable(reason)} == {Reason.BAD_HANDSHAKE}
    with pytest.raises(KeyError):
        close_code(Reason.BAD_HANDSHAKE)


@pytest.mark.parametrize(
    ("rule", "overrides", "code"),
    [
        (None, None, 4403),
        (None, {}, 4403),
        (None, {"token_missing": 4001}, 4403),
        (None, {"claims_denied": 4002}, 4002),
        ("mine", {"claims_denied": 4002}, 4002),
        ("mine", {"claims_denied": 4002, "mine": 4003}, 4003),
        (None, {"mine": 4003}, 4403),
    ],
)
def test_the_policys_codes_come_first(
    rule: str | None, overrides: dict[str, int] | None, code: int
) -> None:
    assert close_code(Reason.CLAIMS_DENIED, rule, overrides) == code
