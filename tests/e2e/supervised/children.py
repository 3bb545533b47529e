"""Small children for tests of the supervisor, and the gateway that runs them.

    children.py serve <config>       the gateway
    children.py worker ...           answers one line per connection: "pid generation drain_seconds"
    children.py recorder ...         answers the last Status and its own pid as JSON

A worker takes one command line first: `say`, `call ID` (a whole call), `hang ID` (a call that never ends by itself),
`die` (exit 3). A configuration with the capture mode "hash" is refused by workers.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from pathlib import Path

import msgspec

from gateway.call import Asked, Call, Request, Route, Trace, Who
from gateway.errors import Draining
from gateway.journal.append import JournalWriter
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
    child_arguments,
    leave_signals_to_supervisor,
    receive_configure,
)
from gateway.supervisor import run


def call(id: str) -> Call:
    route = Route("/v1/x", "openai_chat", "chat", "openai", b"/v1/x")
    request = Request(b"POST", b"/v1/x", [], b"")
    return Call(id, request, route, Asked(), Who(), Trace(), time.time_ns(), time.monotonic_ns(), status=200)


class Worker:
    def __init__(self, arguments: ChildArguments) -> None:
        self.first = receive_configure(arguments)
        self.configure = self.first
        config = self.first.config
        self.journal = JournalWriter(
            Path(self.first.journal),
            f"w{self.first.index}",
            config.journal,
            worker=self.first.index,
            inflight=Path(self.first.inflight),
        )
        self.arguments = arguments
        self.hanging: dict[str, tuple[Call, int, asyncio.Event]] = {}
        self.over = asyncio.Event()

    async def main(self) -> None:
        self.control = await Control.open(self.arguments.control, self.on_message, self.on_gone)
        sock = socket.socket(fileno=self.arguments.listen[0])
        self.server = await asyncio.start_server(self.serve, sock=sock)
        self.control.send(Ready())
        await self.over.wait()
        for started, slot, _ in self.hanging.values():
            started.fault, started.ended = Draining(), time.monotonic_ns()
            self.journal.append(started, slot)
        self.journal.close()

    def on_message(self, message: Message) -> None:
        match message:
            case Configure():
                ok = message.config.capture != "hash"
                if ok:
                    self.configure = message
                self.control.send(Configured(message.generation, ok, "" if ok else "no hashes here"))
            case Drain():
                self.server.close()
                if not self.hanging:
                    self.over.set()
                asyncio.get_running_loop().call_later(message.seconds, self.over.set)
            case Stop():
                self.over.set()

    def on_gone(self) -> None:
        self.over.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode().split()
        match line:
            case ["die"]:
                os._exit(3)
            case ["call", id]:
                whole = call(id)
                slot = self.journal.begin(whole)
                whole.ended = time.monotonic_ns()
                self.journal.append(whole, slot)
            case ["hang", id]:
                started = call(id)
                self.hanging[id] = (started, self.journal.begin(started), asyncio.Event())
        configure = self.configure
        seconds = configure.config.limits.drain_seconds
        writer.write(f"{os.getpid()} {configure.generation} {seconds}\n".encode())
        await writer.drain()
        writer.close()


class Recorder:
    def __init__(self, arguments: ChildArguments) -> None:
        self.arguments = arguments
        self.status: Status | None = None
        self.configured = False
        self.over = asyncio.Event()

    async def main(self) -> None:
        self.control = await Control.open(self.arguments.control, self.on_message, self.over.set)
        await asyncio.start_server(self.serve, sock=socket.socket(fileno=self.arguments.listen[0]))
        await self.over.wait()

    def on_message(self, message: Message) -> None:
        match message:
            case Configure() if not self.configured:
                self.configured = True
                self.control.send(Ready())
            case Configure():
                self.control.send(Configured(message.generation, True))
            case Status():
                self.status = message
            case Drain() | Stop():
                self.over.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status = msgspec.structs.asdict(self.status) if self.status is not None else {}
        writer.write(msgspec.json.encode({**status, "recorder": os.getpid()}) + b"\n")
        await writer.drain()
        writer.close()


def main() -> int:
    mode, *rest = sys.argv[1:]
    if mode == "serve":
        me = (sys.executable, __file__)
        broken = (sys.executable, "-c", "raise SystemExit(7)")
        worker = broken if "--broken" in rest else (*me, "worker")
        if "--killed" in rest:  # from outside, while it starts, time and again
            shot = (
                "import os,sys; open('shots', 'a').write('x'); os.path.getsize('shots') > 3 or os.kill(os.getpid(), 9)"
            )
            worker = (sys.executable, "-c", f"{shot}; os.execv(sys.executable, sys.argv[1:])", *me, "worker")
        return run(Path(rest[0]), {}, worker=worker, recorder=(*me, "recorder"))
    leave_signals_to_supervisor()
    arguments = child_arguments(rest)
    asyncio.run(Worker(arguments).main() if mode == "worker" else Recorder(arguments).main())
    return 0


if __name__ == "__main__":
    sys.exit(main())
