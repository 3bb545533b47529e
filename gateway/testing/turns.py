"""`ports.Turns` of a single call: it is always next, and counted."""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")


class Stop:
    """One await of a double; the driver sees it by its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __await__(self) -> Generator[Stop, None, None]:
        yield self


class MemoryTurns:
    def __init__(self) -> None:
        self.taken = 0
        self.held = False  # whether somebody is alone
        self.beside = False  # whether something is done aside

    async def next(self) -> None:
        self.taken += 1
        await Stop("turn")

    async def aside(self, work: Callable[[], T]) -> T:
        await Stop("aside")
        self.beside = True
        try:
            return work()
        finally:
            self.beside = False

    def alone(self) -> MemoryTurns:
        return self

    async def __aenter__(self) -> None:
        await Stop("alone")
        self.held = True

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.held = False
