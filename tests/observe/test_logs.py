import asyncio
import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from sidecar.observe import logs
from sidecar.policy.compiled import Logging

HEADER = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
TOKEN = f"{HEADER}.eyJzdWIiOiJhbGljZSJ9.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

Configured = Callable[..., Any]


def test_an_event_is_one_line_of_json_with_time_level_and_event(configured: Configured) -> None:
    stream = configured()
    structlog.get_logger().info("started", port=8080)
    [event] = stream.events
    assert list(event) == ["time", "level", "event", "port"]
    assert (event["level"], event["event"], event["port"]) == ("info", "started", 8080)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["time"])


def test_events_below_the_level_are_not_written(configured: Configured) -> None:
    stream = configured(level="warning")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [event["event"] for event in stream.events] == ["loud"]


def test_control_characters_cannot_start_a_second_line(configured: Configured) -> None:
    stream = configured()
    structlog.get_logger().info(
        "refused\nforged", path='/\r\n{"event":"forged"}\x1b[2J\x7f\x85\u2028'
    )
    [line] = stream.lines
    assert all(" " <= character <= "~" for character in line)
    assert json.loads(line)["path"].endswith("\x1b[2J\x7f\x85\u2028")


def test_the_console_format_escapes_control_characters_too(configured: Configured) -> None:
    stream = configured(format="console")
    structlog.get_logger().warning("re\nfused", path="/\r\n\x1b[2J")
    [line] = stream.lines
    assert line.endswith(r' [warning] re\nfused path="/\r\n\u001b[2J"')


@pytest.mark.parametrize(
    "key",
    ["token", "Authorization", "cookie", "Set-Cookie", "query", "client_secret", "access_token",
     "PASSWORD", "proxy-authorization"],
)  # fmt: skip
def test_the_value_of_a_credentials_key_is_redacted(configured: Configured, key: str) -> None:
    stream = configured()
    structlog.get_logger().info("event", **{key: "hunter2"})
    assert stream.events[0][key] == "[redacted]"


def test_a_credentials_key_inside_a_mapping_is_redacted() -> None:
    assert logs.clean({"headers": [{"Cookie": "session=1"}]}) == {
        "headers": [{"Cookie": "[redacted]"}]
    }


def test_a_token_id_is_no_token() -> None:
    assert logs.clean("7f3a", "token_id") == "7f3a"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (TOKEN, "[redacted]"),
        (f"Bearer {TOKEN}, and more", "Bearer [redacted], and more"),
        (f"Bearer%20{TOKEN}", "Bearer%20[redacted]"),
        (f"/ws/{TOKEN}/room", "/ws/[redacted]/room"),
        (TOKEN.replace(".", "%2e"), "[redacted]"),
        (f"{HEADER}.e30.", "[redacted]"),
        (f"{HEADER}", "[redacted]"),
        ("eyJ9.e30.x", "[redacted]"),
        ("base64url.bearer.authorization.k8s.io.ZXlKaGJHY2lPaUpJVXpJMU5pSjkuZTMwLng",
         "base64url.bearer.authorization.k8s.io.[redacted]"),
    ],
)  # fmt: skip
def test_what_looks_like_a_token_is_redacted_in_any_text(text: str, kept: str) -> None:
    assert logs.clean(text) == kept


@pytest.mark.parametrize("text", ["eyJ", "keyJunction", "/a/eyJ.x", "chat.example.com-v1.2.3"])
def test_other_text_is_left_alone(text: str) -> None:
    assert logs.clean(text) == text


def test_a_token_in_the_events_name_is_redacted(configured: Configured) -> None:
    stream = configured()
    structlog.get_logger().info(f"got {TOKEN}")
    assert stream.events[0]["event"] == "got [redacted]"


def test_long_text_is_cut() -> None:
    text = logs.clean("x " * 1000)
    assert len(text) == logs.MAX_TEXT
    assert text.endswith("...")


def test_a_giant_token_does_not_get_through_by_being_cut() -> None:
    assert "eyJ" not in logs.clean("a/eyJ" + "a" * 8_000_000 + ".e30.x")


@given(st.text(), st.text(alphabet="eyJ.%-_aZ0", max_size=60))
def test_cleaning_twice_is_cleaning_once_and_never_lengthens(before: str, after: str) -> None:
    once = logs.clean(before + TOKEN + after)
    assert logs.clean(once) == once
    assert len(once) <= min(len(before + TOKEN + after), logs.MAX_TEXT)
    assert "dBjftJeZ4CVP" not in once


@pytest.mark.parametrize(
    ("value", "logged"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
        ((1, {"a": "b"}), [1, {"a": "b"}]),
        (ValueError(f"bad {TOKEN}"), "bad [redacted]"),
        ({TOKEN: 1}, {"[redacted]": 1}),
    ],
)
def test_every_value_becomes_json(value: object, logged: object) -> None:
    assert logs.clean(value) == logged


@given(st.text())
def test_json_is_printable_ascii(text: str) -> None:
    line = logs.dumps({"text": text})
    assert all(" " <= character <= "~" for character in line)
    assert json.loads(line) == {"text": text}


def test_a_timestamp_is_in_utc() -> None:
    assert logs.timestamp(0.5) == "1970-01-01T00:00:00.500000Z"


def test_a_traceback_is_one_line_without_the_token(configured: Configured) -> None:
    stream = configured()
    try:
        raise RuntimeError(f"bad {TOKEN}" + " x" * 200)
    except RuntimeError:
        structlog.get_logger().exception("failed")
    [event] = stream.events
    assert event["level"] == "error"
    assert event["exception"].startswith("Traceback")
    assert len(event["exception"]) > logs.MAX_TEXT
    assert HEADER not in event["exception"]


@pytest.mark.parametrize("name", ["aiohttp.server", "asyncio"])
def test_a_librarys_warning_comes_in_the_same_format(configured: Configured, name: str) -> None:
    stream = configured()
    logging.getLogger(name).info("not this")
    logging.getLogger(name).warning("bad\r\nrequest %s", TOKEN)
    [event] = stream.events
    assert list(event)[:3] == ["time", "level", "event"]
    assert (event["level"], event["logger"]) == ("warning", name)
    assert event["event"] == "bad\r\nrequest [redacted]"


def test_a_librarys_traceback_stays_on_its_line(configured: Configured) -> None:
    stream = configured()
    try:
        raise RuntimeError(TOKEN)
    except RuntimeError:
        logging.getLogger("asyncio").exception("callback failed")
    [event] = stream.events
    assert event["exception"].endswith("RuntimeError: [redacted]")


def test_an_event_loops_complaint_is_one_line(configured: Configured) -> None:
    stream = configured()
    loop = asyncio.new_event_loop()
    loop.call_exception_handler({"message": "lost", "exception": ValueError(TOKEN)})
    loop.close()
    [event] = stream.events
    assert event["level"] == "error"
    assert HEADER not in stream.getvalue()


def test_a_librarys_warning_is_below_the_level_error(configured: Configured) -> None:
    stream = configured(level="error")
    logging.getLogger("aiohttp").warning("quiet")
    logging.getLogger("aiohttp").error("loud")
    assert [event["event"] for event in stream.events] == ["loud"]


def test_configuring_again_does_not_double_the_lines(configured: Configured) -> None:
    configured()
    stream = configured(format="console")
    logging.getLogger("aiohttp").warning("once")
    structlog.get_logger().info("once")
    assert len(stream.lines) == 2


def test_a_broken_stderr_fails_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    broken = Broken()
    monkeypatch.setattr(sys, "stderr", broken)
    logs.configure(Logging())
    structlog.get_logger().info("into the void")
    logging.getLogger("aiohttp").warning("into the void")
    assert broken.getvalue() == ""


def test_a_workers_lines_bear_its_number(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = configured()
    logs.configure(Logging(), worker=3)
    structlog.get_logger().info("something", port=1)
    logging.getLogger("aiohttp").warning("something of theirs")
    assert [event["worker"] for event in stream.events] == [3, 3]
    assert [list(event)[:4] for event in stream.events] == [
        ["time", "level", "event", "worker"],
    ] * 2


def test_the_parents_lines_about_a_worker_bear_it_at_the_same_place(
    configured: Configured,
) -> None:
    stream = configured()
    structlog.get_logger().info("something", pid=1, worker=3)
    assert list(stream.events[0]) == ["time", "level", "event", "worker", "pid"]


def test_a_line_is_one_write() -> None:
    """Several processes write to one stderr: what is written at once cannot be torn apart."""
    program = (
        "import structlog; from sidecar.observe import logs; "
        "from sidecar.policy.compiled import Logging; "
        "logs.configure(Logging()); log = structlog.get_logger(); "
        "[log.info('line', text=['x' * 200] * count) for count in (1, 10, 20)]"
    )
    # Each write to a socket of this kind is a message of its own.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for unbuffered in ("", "1"):
        environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        subprocess.run(
            [sys.executable, "-c", program], stderr=theirs.fileno(), env=environ, check=True
        )
        messages = [ours.recv(65536) for _ in range(3)]
        assert [json.loads(message)["event"] for message in messages] == ["line"] * 3
        assert all(message.endswith(b"\n") for message in messages)
    ours.close()
    theirs.close()
