"""Turns: work that takes long is done piece by piece, and everything else of the worker comes in between."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Implements ports.Turns. However many wait, a turn of the event loop does one piece of one of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._lock = asyncio.Lock()

    async def next(self) -> None:
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._give)
        await turn

    def alone(self) -> asyncio.Lock:
        return self._lock

    def _give(self) -> None:
        waiting = self._waiting
        while waiting[0].done():  # it was cancelled
            waiting.popleft()
            if not waiting:
                return
        waiting.popleft().set_result(None)
        if waiting:
            self._loop.call_soon(self._give)
