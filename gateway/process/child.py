"""A supervised process: started, watched, started again."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from gateway.process.control import Control, FromChild, Message, Stop, ToChild, WorkerStatus

STEADY_SECONDS = 10.0  # a process that lived so long did not fail at its start
BACKOFF_SECONDS = 0.1  # doubled with every failure in a row
BACKOFF_LIMIT = 5.0
CUT_SECONDS = 1.0  # between the word to stop at once and the kill
DEAF_SECONDS = 5.0  # how long a process may live on without its control channel

_log = logging.getLogger("tollgate.supervisor")


class Child:
    """One place in the gateway, and the process that fills it at the moment.

    It inherits `sockets`, named on its command line, and the descriptors `keep`, which it just holds open.
    `on_message(child, message)` and `on_exit(child, code, seconds it lived, pid)` are called from the event loop.
    """

    def __init__(
        self,
        name: str,
        index: int,
        command: Sequence[str],
        sockets: Sequence[socket.socket],
        *,
        keep: Sequence[int] = (),
        on_message: Callable[[Child, Message], None],
        on_exit: Callable[[Child, int, float, int], None],
    ) -> None:
        self.name = name
        self.index = index
        self.ready = False
        self.came = False  # one was ready here before
        self.starts = 0
        self.coming = False  # a process is being started, and cannot hear yet
        self.failures = 0  # deaths in a row soon after the start
        self._command = command
        self._sockets = sockets
        self._keep = keep
        self._on_message = on_message
        self._on_exit = on_exit
        self._process: asyncio.subprocess.Process | None = None
        self._control: Control | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """0 where no process runs."""
        return self._process.pid if self._process is not None else 0

    @property
    def status(self) -> WorkerStatus:
        return WorkerStatus(self.index, self.pid, self.ready, max(0, self.starts - 1))

    @property
    def delay(self) -> float:
        """Seconds to wait before the next start."""
        return min(BACKOFF_LIMIT, BACKOFF_SECONDS * 2 ** (self.failures - 1)) if self.failures else 0.0

    async def start(self, first: Callable[[], Sequence[ToChild]]) -> None:
        """Start a process and send it its first messages, as they are then. Raises OSError where there can be none."""
        self.coming = True
        try:
            await self._spawn()
        finally:
            self.coming = False
        for message in first():
            self.send(message)

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        listening = [sock.fileno() for sock in self._sockets]
        options = [str(part) for fd in listening for part in ("--listen", fd)]
        try:
            with theirs:
                self._process = process = await asyncio.create_subprocess_exec(
                    *self._command,
                    *("--control", str(theirs.fileno()), *options, "--index", str(self.index)),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno(), *listening, *self._keep],
                    start_new_session=True,  # a signal to the terminal's group reaches the supervisor alone
                )
        except OSError:
            ours.close()
            raise
        self.starts += 1
        self._watcher = asyncio.create_task(self._watch(process, time.monotonic()), name=f"watch {self.name}")
        self._control = await Control.open(ours, self._received, lambda: self._gone(process))

    def send(self, message: ToChild) -> None:
        if self._control is not None:
            self._control.send(message)

    def kill(self, process: asyncio.subprocess.Process | None = None) -> None:
        """End the process at once, if it still runs."""
        target = process or self._process
        if target is not None and target.returncode is None:
            target.kill()

    async def exited(self) -> None:
        """Wait until no process runs here."""
        if self._watcher is not None:
            await asyncio.shield(self._watcher)

    def _received(self, message: Message) -> None:
        assert isinstance(message, FromChild)
        self._on_message(self, message)

    def _gone(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            asyncio.get_running_loop().call_later(DEAF_SECONDS, self.kill, process)

    async def _watch(self, process: asyncio.subprocess.Process, began: float) -> None:
        code = await process.wait()
        lived = time.monotonic() - began
        self.failures = 0 if lived >= STEADY_SECONDS else self.failures + 1
        self.ready = False
        self._process = None
        if self._control is not None:
            self._control.abort()
            self._control = None
            await asyncio.sleep(0)  # the channel is closed in the next turn of the loop
        self._on_exit(self, code, lived, process.pid)


async def until_gone(children: Sequence[Child], seconds: float, cutting: asyncio.Event) -> None:
    """Wait for children to end; after `seconds`, or once `cutting` is set, they are told to stop, then killed."""
    gone = asyncio.gather(*(child.exited() for child in children))
    cut = asyncio.create_task(cutting.wait())
    either: set[asyncio.Future[Any]] = {gone, cut}
    await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    cut.cancel()
    if not gone.done():
        for child in children:
            child.send(Stop())
        await asyncio.wait({gone}, timeout=CUT_SECONDS)
    for child in children:
        if child.pid:
            _log.warning("%s did not end in time; killed", child.name)
            child.kill()
    await gone


def cause(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
