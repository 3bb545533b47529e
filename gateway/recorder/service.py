"""The recorder process: `python -m gateway.recorder.service`, started by the supervisor. See gateway.recorder.recorder.

Nothing is waited for without a bound: `Drain` ends in its time.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from typing import Any

from aiohttp import web

from gateway.admin.guard import TokenRequired, check
from gateway.config import places
from gateway.config.address import parse_address
from gateway.errors import LedgerUnavailable
from gateway.process.control import (
    ChildArguments,
    Configure,
    Configured,
    Control,
    Drain,
    Message,
    Ready,
    Status,
    Stop,
    run_child,
)
from gateway.recorder.ledger_rebuild import exclusive
from gateway.recorder.recorder import Recorder

GONE_SECONDS = 3.0  # to end in, where the supervisor is gone
STOP_SECONDS = 1.0

_log = logging.getLogger("tollgate.recorder")


class Service:
    """The process as the supervisor sees it: messages in and out."""

    def __init__(self, recorder: Recorder, generation: int) -> None:
        self._recorder = recorder
        self._generation = generation
        self._ending: asyncio.Future[float] = asyncio.get_running_loop().create_future()  # seconds to end in
        self._reload: asyncio.Task[None] | None = None

    async def run(self, arguments: ChildArguments) -> int:
        """Until told to end; returns the exit status."""
        recorder = self._recorder
        runner = web.AppRunner(recorder.admin(), access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        for fd in arguments.listen:
            await web.SockSite(runner, socket.socket(fileno=fd)).start()
        control = recorder.control = await Control.open(
            arguments.control, self._on_message, lambda: self._end(GONE_SECONDS)
        )
        await recorder.start()
        control.send(Configured(self._generation, True))
        control.send(Ready())
        ticks = [asyncio.create_task(self._tick())]
        if recorder.exchange is not None:
            ticks.append(asyncio.create_task(recorder.exchange.run()))
        either: set[asyncio.Future[Any]] = {recorder.ended, self._ending}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        failed = not self._ending.done()
        recorder.drain()
        for task in ticks:
            task.cancel()
        await recorder.close(STOP_SECONDS if failed else self._ending.result())
        await runner.cleanup()
        control.close()
        return int(failed)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._recorder.writer.tick()

    def _end(self, seconds: float) -> None:
        self._recorder.drain()
        if not self._ending.done():
            self._ending.set_result(seconds)

    def _on_message(self, message: Message) -> None:
        match message:
            case Status():
                self._recorder.take(message)
            case Drain(seconds=seconds):
                self._end(seconds)
            case Stop():
                self._end(STOP_SECONDS)
            case Configure():
                self._reload = asyncio.create_task(self._reconfigure(message, self._reload))

    async def _reconfigure(self, message: Configure, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before
        reason = ""
        try:
            check(parse_address(message.admin).host, message.config.admin_token)
            await self._recorder.reconfigure(message.config)
        except (TokenRequired, OSError, ValueError) as e:
            reason = str(e)
        if self._recorder.control is not None:
            self._recorder.control.send(Configured(message.generation, not reason, reason))


async def serve(arguments: ChildArguments, configure: Configure) -> int:
    """Run until told to end; a configuration that cannot be put into force is said to the supervisor."""
    try:
        check(parse_address(configure.admin).host, configure.config.admin_token)
        with exclusive(places.ledger(configure.config)):
            recorder = Recorder(configure)
            return await Service(recorder, configure.generation).run(arguments)
    except (TokenRequired, LedgerUnavailable, OSError, ValueError) as e:
        _log.error("recorder: %s", e)
        control = await Control.open(arguments.control, lambda message: None, lambda: None)
        control.send(Configured(configure.generation, False, str(e)))
        await asyncio.sleep(0)
        control.close()
        return 1


if __name__ == "__main__":
    sys.exit(run_child(sys.argv[1:], serve))
