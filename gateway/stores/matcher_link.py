"""A worker's connection to the matcher.

Rules
1. Nothing here is a reason for a call to fail or to wait longer than `patience`: a matcher that is not there, does not
   answer in time, or has too much to do is a miss.
2. What is too much is said at once: `WAITING` questions may be open, `UNSENT` bytes of lessons may wait for the socket.
3. After `LATE` answers in a row that came too late nobody asks for `REST` seconds; so a matcher that hangs costs a few
   calls their patience, not all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import cast

import msgspec

from gateway.frames import Frames
from gateway.ports import Downstream, Inquiry, Lesson, Match
from gateway.stores.flights import waited
from gateway.stores.matcher_wire import LIMIT, Ask, Teach, Told, connected, from_matcher, pack

WAITING = 256
UNSENT = 1_048_576
LATE = 4
REST = 1.0
AGAIN = 0.1  # seconds between two attempts to connect

_log = logging.getLogger("tollgate.cache")


class MatcherLink(asyncio.Protocol):
    """Implements ports.Matcher. `tick` keeps it connected."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: Path, patience: float) -> None:
        self.patience = patience
        self.dropped = 0  # lessons that could not be told
        self._loop = loop
        self._path = path
        self._frames = Frames(LIMIT)
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._again = 0.0
        self._numbers = 0
        self._open: dict[int, asyncio.Future[bool]] = {}
        self._told: dict[int, Match] = {}
        self._late = 0
        self._resting = 0.0
        self._missed = False

    @property
    def connected(self) -> bool:
        return self._transport is not None

    async def ask(self, inquiry: Inquiry, down: Downstream) -> Match:
        transport, now = self._transport, self._loop.time()
        if transport is None or now < self._resting:
            return Match(why="down")
        if len(self._open) >= WAITING:
            return Match(why="busy")
        self._numbers += 1
        number, future = self._numbers, self._loop.create_future()
        self._open[number] = future
        until = time.monotonic_ns() + int(self.patience * 1e9)
        try:
            transport.write(pack(Ask(number, inquiry, until)))
            await waited(future, down, self.patience)
        finally:
            self._open.pop(number, None)
            match = self._told.pop(number, None)
        return self._judged(match)

    def _judged(self, match: Match | None) -> Match:
        if match is not None:
            self._late = 0
            return match
        if self._transport is None:
            return Match(why="down")
        self._late += 1
        if self._late >= LATE:
            self._late, self._resting = 0, self._loop.time() + REST
        return Match(why="late")

    def teach(self, lesson: Lesson) -> None:
        transport = self._transport
        if transport is None or transport.get_write_buffer_size() > UNSENT:
            self.dropped += 1
            return
        transport.write(pack(Teach(lesson)))

    def tick(self) -> None:
        """To be called several times a second."""
        now = self._loop.time()
        if self._transport is None and self._connecting is None and now >= self._again:
            self._again = now + AGAIN
            self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            sock = connected(self._path, None)
            await self._loop.create_connection(lambda: self, sock=sock)
        except OSError as error:
            if not self._missed:
                _log.warning("the matcher is not there, only equal questions are answered: %s", error)
            self._missed = True
        finally:
            self._connecting = None

    def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._frames = Frames(LIMIT)
        self._missed = False
        self._late, self._resting = 0, 0.0

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._frames.feed(data):
                self._take(frame)
        except (ValueError, msgspec.MsgspecError) as error:
            _log.error("the matcher talks nonsense: %s", error)
            if self._transport is not None:
                self._transport.abort()

    def _take(self, frame: bytes) -> None:
        message = from_matcher.decode(frame)
        if not isinstance(message, Told):
            return
        future = self._open.get(message.number)
        if future is not None and not future.done():
            self._told[message.number] = message.match
            future.set_result(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for future in self._open.values():
            if not future.done():
                future.set_result(False)
