"""What the parent and a worker say to each other: JSON, one message a line, over a socket pair.

Either side asks: ``{"id": 1, "verb": "metrics", "body": {}}``. The other answers with the same id,
``{"id": 1, "answer": {}}`` or ``{"id": 1, "error": "why"}``. A verb is an entry in the mapping that
each side gives to its end.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog

from sidecar.errors import WorkerError
from sidecar.proxy.tasks import give_up, spawn

__all__ = ["MAX_MESSAGE", "Body", "Channel", "Verb"]

MAX_MESSAGE: Final = 32 * 1024 * 1024
"""Bytes of one message: a policy of several files of the greatest size, or the metrics of
thousands of routes.
"""

Body = Mapping[str, Any]

Verb = Callable[[Body], Awaitable[Body]]
"""Does what is asked for. A WorkerError is the answer's error."""

_log = structlog.get_logger()


class Channel:
    """One end, from `open` until the other end is gone or `close`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        verbs: Mapping[str, Verb],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._verbs = verbs
        self._count = 0
        self._waiting: dict[int, asyncio.Future[Body]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def open(cls, sock: socket.socket, verbs: Mapping[str, Verb]) -> "Channel":
        """Take over one socket of the pair, and answer these verbs."""
        streams = await asyncio.open_unix_connection(sock=sock, limit=MAX_MESSAGE)
        return cls(*streams, verbs)

    async def ask(self, verb: str, body: Body, *, within: float) -> Body:
        """The other end's answer. Raises WorkerError where it says why there is none, where none
        comes within so many seconds, and where the other end is gone.
        """
        self._count += 1
        number = self._count
        answer: asyncio.Future[Body] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._send({"id": number, "verb": verb, "body": body})
            async with asyncio.timeout(within):
                return await answer
        except TimeoutError:
            raise WorkerError(f"no answer to {verb} within {within:g} s") from None
        finally:
            del self._waiting[number]

    @property
    def is_open(self) -> bool:
        """Whether the other end is there."""
        return not self._listening.done()

    async def ended(self) -> None:
        """Wait until the other end is gone."""
        await asyncio.wait({self._listening})

    async def close(self) -> None:
        """Let go of this end."""
        await give_up([self._listening, *self._answering])
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    def _send(self, message: Mapping[str, Any]) -> None:
        if not self.is_open:
            raise WorkerError("the other process is gone")
        line = json.dumps(message).encode() + b"\n"
        if len(line) > MAX_MESSAGE:
            raise WorkerError(f"a message of {len(line)} bytes is over {MAX_MESSAGE}")
        self._writer.write(line)

    async def _listen(self) -> None:
        try:
            while line := await self._reader.readline():
                self._take(json.loads(line))
        except OSError:
            pass  # the other process died with something unread
        except (ValueError, TypeError, KeyError, AttributeError):
            _log.error("worker_channel_broken")
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(WorkerError("the other process is gone"))

    def _take(self, message: Mapping[str, Any]) -> None:
        if "verb" in message:
            answering = self._answer(message["id"], message["verb"], message["body"])
            spawn(answering, self._answering)
            return
        answer = self._waiting.get(message["id"])  # None where it comes too late
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(WorkerError(str(message["error"])))
        else:
            answer.set_result(message["answer"])

    async def _answer(self, number: int, verb: str, body: Body) -> None:
        try:
            message: dict[str, Any] = {"id": number, "answer": await self._verbs[verb](body)}
        except WorkerError as error:
            message = {"id": number, "error": str(error)}
        except Exception:
            _log.exception("worker_verb_failed", verb=verb)
            message = {"id": number, "error": f"{verb} failed; the log says more"}
        try:
            self._send(message)
        except WorkerError as error:  # too long, or nobody is there
            with suppress(WorkerError):
                self._send({"id": number, "error": str(error)})
