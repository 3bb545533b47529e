"""The socket of the matcher: messages in, answers out, in any order."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec

from gateway.frames import Frames
from gateway.policy.cached import Chosen
from gateway.ports import Feedback, Inquiry, Lesson, Match, MatcherState, Noted
from gateway.stores.matcher_wire import (
    LIMIT,
    Ask,
    Forget,
    FromMatcher,
    Report,
    Reported,
    Said,
    Say,
    Teach,
    Told,
    address,
    pack,
    to_matcher,
)

ASKING = 512  # questions at once, of all workers
LESSONS = 4096
BACKLOG = 128
UNREAD = 4_194_304  # bytes of answers that nobody takes

_log = logging.getLogger("tollgate.matcher")


class Mind(Protocol):
    """What answers; gateway.matcher.engine."""

    async def ask(self, inquiry: Inquiry, until: int) -> Match: ...

    async def learn(self, lesson: Lesson) -> None: ...

    def say(self, feedback: Feedback) -> Noted: ...

    def forget(self, chosen: Chosen) -> Noted: ...


class Server:
    """`state` is asked for by people; `monotonic` gives ns. `run` works through the lessons."""

    def __init__(self, mind: Mind, state: Callable[[], MatcherState], monotonic: Callable[[], int]) -> None:
        self.mind = mind
        self.state = state
        self.monotonic = monotonic
        self.dropped = 0
        self.asking = 0
        self.lessons: deque[Lesson] = deque()
        self._work = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.lines: set[Line] = set()

    async def listen(self, path: Path) -> None:
        """In the place of a socket that a dead one left behind. Raises OSError."""
        sock = listening(path)
        self._server = await asyncio.get_running_loop().create_server(lambda: Line(self), sock=sock)

    async def run(self) -> None:
        while True:
            await self._work.wait()
            while self.lessons:
                task = asyncio.ensure_future(self.mind.learn(self.lessons.popleft()))
                await asyncio.wait({task})
                tell(task)
            self._work.clear()

    def teach(self, lesson: Lesson) -> None:
        if len(self.lessons) >= LESSONS:
            self.dropped += 1
            return
        self.lessons.append(lesson)
        self._work.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(tell)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for line in list(self.lines):
            line.hang_up()


def listening(path: Path) -> socket.socket:
    """A socket that only this user may open. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        with address(path) as name:
            sock.bind(name)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def tell(task: asyncio.Future[Any]) -> None:
    """A bug costs the one who asked an answer, and the operator a line in the log."""
    if not task.cancelled() and (fault := task.exception()) is not None:
        _log.error("the matcher failed", exc_info=fault)


class Line(asyncio.Protocol):
    """One connection: a worker, or the recorder."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._frames = Frames(LIMIT)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.lines.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server.lines.discard(self)

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._frames.feed(data):
                self._take(to_matcher.decode(frame))
        except (ValueError, msgspec.MsgspecError) as error:
            _log.error("somebody talks nonsense: %s", error)
            self.hang_up()

    def _take(self, message: Ask | Teach | Report | Say | Forget) -> None:
        server = self._server
        match message:
            case Ask():
                if server.asking >= ASKING:
                    self._send(Told(message.number, Match(why="busy")))
                elif message.until > server.monotonic():
                    server.asking += 1
                    server.spawn(self._answer(message))
            case Teach(lesson=lesson):
                server.teach(lesson)
            case Report(number=number):
                self._send(Reported(number, server.state()))
            case Say(number=number, feedback=feedback):
                self._send(Said(number, server.mind.say(feedback)))
            case Forget(number=number, chosen=chosen):
                self._send(Said(number, server.mind.forget(chosen)))

    async def _answer(self, ask: Ask) -> None:
        try:
            match = await self._server.mind.ask(ask.inquiry, ask.until)
        finally:
            self._server.asking -= 1
        self._send(Told(ask.number, match))

    def _send(self, message: FromMatcher) -> None:
        transport = self._transport
        if transport is None:
            return
        transport.write(pack(message))
        if transport.get_write_buffer_size() > UNREAD:
            self.hang_up()
