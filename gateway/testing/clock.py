"""An event loop in virtual time: timers fire in order, at once, and the clock jumps to them.

For code whose only waiting is on timers and on other tasks of the same loop. A loop that waits for a socket while
no timer is due waits in real time, without moving the clock.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(RuntimeError):
    """Nothing is ready, no timer is set, no socket is watched: the awaited thing can never happen."""


class _Selector(selectors.DefaultSelector):
    """Where the loop would sleep until its next timer, the clock moves there instead."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is not None:
            self.loop.advance(timeout)
            return ready
        if len(self.get_map()) <= 1:  # only the loop's own wake-up socket
            raise Deadlock("the loop has nothing left to wait for")
        return super().select(None)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._now = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self._now

    def time_ns(self) -> int:
        """Virtual nanoseconds, for code that takes an integer clock."""
        return round(self._now * 1e9)

    def advance(self, seconds: float) -> None:
        self._now += seconds


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in virtual time. Raises Deadlock instead of hanging."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
