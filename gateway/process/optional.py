"""A process that the gateway can do without: started where the configuration wants it, and started again where it dies.

Unlike a worker it holds nothing up: no start, no reload, no readiness waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from gateway.process.child import Child, cause, until_gone
from gateway.process.control import Configure, Drain, Message, Stop

_log = logging.getLogger("tollgate.supervisor")


class Optional:
    """`event` writes to the journal."""

    def __init__(self, name: str, command: Sequence[str], event: Callable[..., None]) -> None:
        self.name = name
        self._event = event
        self._child = Child(name, -1, command, [], on_message=self._received, on_exit=self._exited)
        self._wanted: Configure | None = None
        self._again: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """0 where no process runs."""
        return self._child.pid

    async def follow(self, configure: Configure | None) -> None:
        """Run with this configuration from now on; None: do not run."""
        self._wanted = configure
        if configure is None:
            self._child.send(Stop())
        elif self._child.pid:
            self._child.send(configure)
        elif self._again is None and not self._child.coming:
            await self._start()

    async def end(self, seconds: float, cutting: asyncio.Event) -> None:
        """Let it make durable what it knows."""
        self._wanted = None
        if self._again is not None:
            self._again.cancel()
        if self._child.pid:
            self._child.send(Drain(seconds))
            await until_gone([self._child], seconds, cutting)

    def kill(self) -> None:
        self._wanted = None
        if self._again is not None:
            self._again.cancel()
        self._child.kill()

    async def _start(self) -> None:
        try:
            await self._child.start(lambda: [self._wanted or Stop()])
        except OSError as error:
            self._child.failures += 1
            _log.error("%s cannot be started: %s", self.name, error)
            self._restart()

    def _restart(self) -> None:
        async def later() -> None:
            await asyncio.sleep(self._child.delay)
            self._again = None
            if self._wanted is not None and not self._child.pid:
                await self._start()

        self._again = asyncio.get_running_loop().create_task(later())

    def _received(self, child: Child, message: Message) -> None:
        """It has nothing to say that anybody waits for."""

    def _exited(self, child: Child, code: int, lived: float, pid: int) -> None:
        if self._wanted is None:
            return
        _log.error("%s (process %d) died: %s after %.1f s", self.name, pid, cause(code), lived)
        self._event(f"{self.name}_died", process=self.name, pid=pid, cause=cause(code), lived_seconds=round(lived, 3))
        self._restart()
