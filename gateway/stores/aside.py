"""What goes on beside a call: tasks, timers, and the bell that says that something is new. See stages.race."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Bell:
    """Implements stages.race.Bell: rung as often as one likes, heard by one who waits."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()

    async def heard(self) -> None:
        """Until it was rung since the last time."""
        await self._event.wait()
        self._event.clear()


class Aside:
    """Implements stages.race.Aside on the running event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps none alive

    def bell(self) -> Bell:
        return Bell()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def later(self, seconds: float, act: Callable[[], None]) -> Callable[[], None]:
        """Returns what calls it off."""
        return asyncio.get_running_loop().call_later(seconds, act).cancel
