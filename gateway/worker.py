"""A worker process: `python -m gateway.worker --control FD --listen FD --index N`, started by the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Coroutine

import uvloop

from gateway.app import Worker
from gateway.process.control import (
    ChildArguments,
    Configure,
    Configured,
    Control,
    Drain,
    LameDuck,
    Message,
    Ready,
    Stop,
    child_arguments,
)

ORPHAN_DRAIN_SECONDS = 10.0
BACKLOG = 4096
log = logging.getLogger("tollgate.worker")


class Process:
    """What the supervisor sees of a worker."""

    def __init__(self, arguments: ChildArguments) -> None:
        self.arguments = arguments
        self.loop = asyncio.get_running_loop()
        self.worker: Worker | None = None
        self.control: Control | None = None
        self.done = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self.sockets: list[socket.socket] = []
        self.listeners: list[asyncio.Server] = []
        self.draining = False

    async def run(self) -> None:
        self.control = await Control.open(self.arguments.control, self.on_message, self.on_gone)
        await self.done.wait()
        if self.worker is not None:
            await self.worker.close()

    def on_message(self, message: Message) -> None:
        if isinstance(message, Configure):
            self.spawn(self.configure(message))
        elif isinstance(message, LameDuck):
            if self.worker is not None:
                self.worker.server.closing = True
        elif isinstance(message, Drain):
            self.spawn(self.drain(message.seconds))
        elif isinstance(message, Stop):
            self.spawn(self.drain(0.0))

    def on_gone(self) -> None:
        """The supervisor died: finish what runs and follow it."""
        if not self.done.is_set():
            self.spawn(self.drain(ORPHAN_DRAIN_SECONDS))

    async def configure(self, message: Configure) -> None:
        assert self.control is not None
        try:
            if self.worker is None:
                self.worker = Worker(self.loop, message)
                await self.listen()
                freeze()
                self.control.send(Configured(message.generation, ok=True))
                self.control.send(Ready())
                return
            self.worker.configure(message.config)
        except (OSError, ValueError) as error:
            log.error("worker %d: configuration %d: %s", self.arguments.index, message.generation, error)
            self.control.send(Configured(message.generation, ok=False, message=str(error)))
            if not self.listeners:
                self.done.set()
            return
        self.control.send(Configured(message.generation, ok=True))

    async def listen(self) -> None:
        assert self.worker is not None
        for fd in self.arguments.listen:
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            self.sockets.append(sock)
        await self.accept()
        self.worker.descriptors.on_starved = self.starved

    async def accept(self) -> None:
        """Raises OSError; then some are accepted from, and others not."""
        assert self.worker is not None
        context = self.worker.tls.context if self.worker.tls is not None else None
        for sock in self.sockets[len(self.listeners) :]:
            protocol = self.worker.server.protocol
            listener = await self.loop.create_server(protocol, sock=sock.dup(), ssl=context, backlog=BACKLOG)
            self.listeners.append(listener)
        if self.draining:  # meanwhile
            self.refrain()

    def refrain(self) -> None:
        """Accept nothing; who connects waits in the kernel's queue, for the sockets go on listening."""
        for listener in self.listeners:
            listener.close()
        self.listeners = []

    def starved(self, without: bool) -> None:
        """Without a file descriptor the loop would close who connects unheard, or be told of it again and again."""
        if without:
            self.refrain()
        elif not self.draining and len(self.listeners) < len(self.sockets):
            self.spawn(self.again())

    async def again(self) -> None:
        with contextlib.suppress(OSError):  # gone again: there will be a next time
            await self.accept()

    async def drain(self, seconds: float) -> None:
        self.draining = True
        self.refrain()
        for sock in self.sockets:
            sock.close()
        if self.worker is not None:
            await self.worker.drain(seconds)
        self.done.set()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def freeze() -> None:
    """What was loaded at the start stays for good: keep the cycle collector away from it, and let it run rarely.

    A call makes no reference cycles; the collector is for what bugs and libraries leave behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def main(arguments: ChildArguments) -> None:
    await Process(arguments).run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides when to end
    uvloop.run(main(child_arguments(sys.argv[1:])))
