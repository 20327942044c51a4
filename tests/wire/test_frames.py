import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.frames import (
    apply_mask,
    close_frame,
    ping_frame,
    pong_frame,
    text_frame,
    valid_close_code,
)
from sidecar.wire.scanner import FrameScanner
from tests.support.frames import PING, PONG, TEXT, frame

MASK = b"\x37\xfa\x21\x3d"


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 4401, 4999]
)
def test_a_code_that_may_be_sent_is_valid(code: int) -> None:
    assert valid_close_code(code)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535])
def test_a_code_that_may_not_be_sent_is_not_valid(code: int) -> None:
    assert not valid_close_code(code)


def test_masking_is_the_rfcs_example() -> None:
    # RFC 6455 section 5.7: a single-frame masked text message
    assert apply_mask(b"Hello", MASK) == b"\x7f\x9f\x4d\x51\x58"


@given(payload=st.binary(max_size=125), mask=st.binary(min_size=4, max_size=4))
def test_masking_twice_gives_the_payload(payload: bytes, mask: bytes) -> None:
    assert apply_mask(apply_mask(payload, mask), mask) == payload


def test_a_servers_close_frame_is_not_masked() -> None:
    assert close_frame(1000, "bye", None) == b"\x88\x05\x03\xe8bye"


def test_a_clients_close_frame_is_masked() -> None:
    sent = close_frame(1000, "bye", MASK)
    assert sent[:6] == b"\x88\x85" + MASK
    assert apply_mask(sent[6:], MASK) == b"\x03\xe8bye"


def test_no_status_gives_an_empty_close_frame() -> None:
    assert close_frame(1005, "not sent", None) == b"\x88\x00"
    assert close_frame(1005, "not sent", MASK) == b"\x88\x80" + MASK


@pytest.mark.parametrize("code", [1006, 1015, 0, 5000, 70000])
def test_a_close_frame_with_another_code_is_refused(code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        close_frame(code, "", None)


def test_a_long_reason_is_cut_at_a_character() -> None:
    sent = close_frame(4403, "a" * 122 + "é", None)
    assert sent[1] == 124
    assert sent[4:] == b"a" * 122


def test_a_reason_of_123_bytes_is_kept() -> None:
    assert close_frame(4403, "a" * 123, None)[4:] == b"a" * 123


def test_a_lone_surrogate_in_a_reason_is_replaced() -> None:
    assert close_frame(1000, "\ud800", None)[4:] == b"?"


@given(reason=st.text(max_size=200))
def test_a_close_frames_reason_is_utf8_and_fits(reason: str) -> None:
    closing = close_frame(1000, reason, None)
    assert closing[1] == len(closing) - 2 <= 125
    sent = closing[4:].decode()
    assert reason.encode("utf-8", "replace").decode().startswith(sent)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_text_message_has_its_length_in_the_shortest_form(size: int) -> None:
    payload = b"a" * size
    sent = text_frame(payload)
    assert sent == frame(TEXT, payload, masked=False)
    scanner = FrameScanner(masked=False)
    assert scanner.feed(sent, 0.0) == sent
    assert (scanner.messages, scanner.remaining) == (1, 0)


def test_a_ping_bears_its_payload() -> None:
    assert ping_frame(b"12345678") == frame(PING, b"12345678", masked=False)
    assert pong_frame(b"12345678") == frame(PONG, b"12345678", masked=False)
