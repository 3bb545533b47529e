"""The control channel between the supervisor and a child (a worker or the recorder).

A `socketpair`; each message is a length (u32, little-endian) and a msgpack object tagged by `type`.

To a child
    Configure    first of all, and at every reload; answered by Configured. Carries secrets: they go no other way.
    LameDuck     to workers: go on accepting, but let every answer close its connection; Drain follows
    Drain        accept nothing more, finish what runs within `seconds`, make everything durable, exit 0
    Stop         make everything durable now and exit 0; what runs is cut
    Status       to the recorder only, at every change: the state of all processes

From a child
    Ready        once: the first configuration is in force, connections are accepted
    Configured   a Configure took effect, or why not (then the former one stays in force)
    Consumed     recorder: how far the journal is committed to the ledger ({segment: offset}); retention goes by it
    Stats        anything worth a line in the supervisor's log

End of file in a child means that the supervisor is gone: drain and exit. The fds are passed on the command line
(`--control 5 --listen 6 --index 0`), nothing else is.

    class Worker:
        def on_message(self, message: ToChild) -> None:
            match message:
                case Configure(): ...
    args = child_arguments(sys.argv[1:])
    first = receive_configure(args)                     # before the loop starts, or leave it to on_message
    control = await Control.open(args.control, worker.on_message, worker.on_gone)
    control.send(Ready())
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Self, cast

import msgspec
from msgspec import Struct

from gateway.config.schema import Config
from gateway.frames import LENGTH, Frames, framed

MESSAGE_LIMIT = 64 * 1024 * 1024


class Configure(Struct, tag=True, frozen=True):
    config: Config
    generation: int  # counts from 1
    state: str  # state directory, absolute
    inflight: str  # directory of the tables of calls in flight, absolute
    journal: str  # directory of the journal, absolute
    listen: str  # as bound: the port is never 0
    admin: str
    index: int  # of the worker; -1 for the recorder


class LameDuck(Struct, tag=True, frozen=True):
    pass


class Drain(Struct, tag=True, frozen=True):
    seconds: float


class Stop(Struct, tag=True, frozen=True):
    pass


class WorkerStatus(Struct, frozen=True):
    index: int
    pid: int  # 0: none runs
    ready: bool
    restarts: int


class Status(Struct, tag=True, frozen=True):
    started_at: int  # ns since the epoch, as all times here
    draining: bool
    workers: tuple[WorkerStatus, ...]
    generation: int  # of the configuration in force
    configured_at: int
    reload_ok: bool  # the last attempt to reload; True before the first
    reloaded_at: int  # when that was; 0: never
    reload_message: str = ""
    needs_restart: tuple[str, ...] = ()  # changed fields that only a restart brings into force

    @property
    def ready(self) -> bool:
        """Is the gateway ready for traffic?"""
        return not self.draining and any(worker.ready for worker in self.workers)


class Ready(Struct, tag=True, frozen=True):
    pass


class Configured(Struct, tag=True, frozen=True):
    generation: int
    ok: bool
    message: str = ""


class Consumed(Struct, tag=True, frozen=True):
    positions: dict[str, int]


class Stats(Struct, tag=True, frozen=True):
    values: dict[str, str | int | float]


ToChild = Configure | LameDuck | Drain | Stop | Status
FromChild = Ready | Configured | Consumed | Stats
Message = ToChild | FromChild

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder[Message](
    Configure | LameDuck | Drain | Stop | Status | Ready | Configured | Consumed | Stats
).decode


def pack(message: Message) -> bytes:
    return framed(_encode(message))


class Unpacker:
    """Messages out of bytes in pieces of any size. Raises ValueError for what is no message."""

    def __init__(self) -> None:
        self._frames = Frames(MESSAGE_LIMIT)

    def feed(self, data: bytes) -> Iterator[Message]:
        return map(_decode, self._frames.feed(data))


class Control(asyncio.Protocol):
    """One end of the channel. `on_message` and `on_gone` are called from the event loop; neither may raise."""

    def __init__(self, on_message: Callable[[Message], None], on_gone: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_gone = on_gone
        self._unpacker = Unpacker()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(
        cls, channel: int | socket.socket, on_message: Callable[[Message], None], on_gone: Callable[[], None]
    ) -> Self:
        """Take over a descriptor (or socket) of the channel."""
        sock = socket.socket(fileno=channel) if isinstance(channel, int) else channel
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        _, control = await loop.create_connection(lambda: cls(on_message, on_gone), sock=sock)
        return control

    def send(self, message: Message) -> None:
        """Send in order; nothing happens when the other end is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(message))

    def close(self) -> None:
        """Close once everything is sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close now: nobody is there to read."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from it

    def data_received(self, data: bytes) -> None:
        for message in self._unpacker.feed(data):
            self._on_message(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_gone()


class ChildArguments(Struct, frozen=True):
    control: int  # descriptor of the channel
    listen: tuple[int, ...]  # descriptors of bound, listening sockets
    index: int  # of the worker; -1 for the recorder


def child_arguments(argv: Sequence[str]) -> ChildArguments:
    """Read the command line of a child. Raises ValueError where it was not started by the supervisor."""
    values: dict[str, list[int]] = {"--control": [], "--listen": [], "--index": []}
    for name, value in zip(argv[::2], argv[1::2], strict=False):
        if name not in values:
            raise ValueError(f"unknown option {name}")
        values[name].append(int(value))
    if len(values["--control"]) != 1 or len(argv) % 2:
        raise ValueError("this process is started by `tollgate serve`")
    return ChildArguments(values["--control"][0], tuple(values["--listen"]), (values["--index"] or [-1])[0])


def receive_configure(arguments: ChildArguments) -> Configure:
    """Wait for the first message without an event loop; `Control.open` goes on behind it.

    Raises EOFError when the supervisor is gone, ValueError when something else comes first.
    """
    with socket.socket(fileno=arguments.control) as sock:
        try:
            (size,) = LENGTH.unpack(_exactly(sock, LENGTH.size))
            message = _decode(_exactly(sock, size))
        finally:
            sock.detach()
    if not isinstance(message, Configure):
        raise ValueError("the first control message must be Configure")
    return message


def leave_signals_to_supervisor() -> None:
    """Terminal and service managers signal whole groups: children end when the supervisor says so, not before."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def run_child(argv: Sequence[str], serve: Callable[[ChildArguments, Configure], Coroutine[Any, Any, int]]) -> int:
    """Start logging, wait for the configuration, and be that process until it ends; returns its exit status."""
    leave_signals_to_supervisor()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    arguments = child_arguments(argv)
    try:
        configure = receive_configure(arguments)
    except EOFError:
        return 1
    return asyncio.run(serve(arguments, configure))


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError("the supervisor is gone")
        data += piece
    return data
