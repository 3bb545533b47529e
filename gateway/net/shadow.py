"""Calls that no client waits for: a request that is sent once more, to learn what a fresh answer would have been.

They pass the same path as all others, so they are admitted, metered and recorded like them; only nobody reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.call import Request
from gateway.errors import ClientGone, Draining, GatewayError

MOST = 8  # at once in a worker

Handle = Callable[[Request, "Nobody", GatewayError | None], Awaitable[None]]


class Nobody:
    """Implements ports.Downstream: takes everything and keeps nothing."""

    def __init__(self) -> None:
        self.on_gone: Callable[[GatewayError], None] | None = None
        self.gone = False
        self.paused = False

    def interrupt(self, fault: GatewayError) -> None:
        if self.on_gone is not None:
            self.on_gone(fault)

    def start(self, status: int, reason: bytes, block: bytes, length: int | None) -> None:
        pass

    def write(self, data: bytes) -> None:
        pass

    async def drained(self) -> None:
        if self.gone:
            raise ClientGone()

    def upgrade(self, sink: Callable[[bytes], None]) -> None:
        pass

    def hold(self, paused: bool) -> None:
        pass

    def finish(self, tail: bytes = b"") -> None:
        pass

    def abort(self, tail: bytes = b"") -> None:
        pass


class Shadows:
    """`handle` carries a call; it records whatever becomes of it, and raises only what ends the worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: Handle) -> None:
        self._loop = loop
        self._handle = handle
        self._under_way: dict[asyncio.Future[None], Nobody] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._under_way)

    def send(self, request: Request) -> bool:
        """False where there are too many already."""
        if self._closed or len(self._under_way) >= MOST:
            return False
        nobody = Nobody()

        async def carry() -> None:
            await self._handle(request, nobody, None)

        task = self._loop.create_task(carry())
        self._under_way[task] = nobody
        task.add_done_callback(self._under_way.pop)
        return True

    def cut(self) -> None:
        """The worker ends: what is under way is recorded as broken off, and no more begins."""
        self._closed = True
        for nobody in list(self._under_way.values()):
            nobody.gone = True
            nobody.interrupt(Draining("the gateway is shutting down"))
