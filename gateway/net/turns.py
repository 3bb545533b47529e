"""Turns: work that takes long is done piece by piece, and everything else of the worker comes in between.

Work that is no more than a few long steps of the interpreter is done `aside`, in a thread: after each of them the loop
has its turn. What is read in such a thread is nobody else's, or a memory that may lose an entry.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Turns:
    """Implements ports.Turns. However many wait, a turn of the event loop does one piece of one of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._lock = asyncio.Lock()
        self._thread: ThreadPoolExecutor | None = None  # one: bodies come one after the other, as all share one lock

    async def next(self) -> None:
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._give)
        await turn

    async def aside(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "aside")
        return await self._loop.run_in_executor(self._thread, work)

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
