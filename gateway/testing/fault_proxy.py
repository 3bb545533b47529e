"""A TCP proxy that harms what passes: latency, jitter, bandwidth, cuts, black holes, corruption, per direction.

    async with FaultProxy("127.0.0.1", 9000) as proxy:
        proxy.down.latency = 0.2          # answers come 0.2 s later
        proxy.up.cut_after = 1000         # RST after 1000 bytes of request
        proxy.blackhole = True            # accept, swallow, say nothing

Settings may change at any time and hold for the bytes read from then on; `cut()` ends all connections now.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(slots=True)
class Direction:
    latency: float = 0  # seconds added to every piece
    jitter: float = 0  # up to so many more, drawn from the seed
    bandwidth: float = 0  # bytes per second; 0: unlimited
    piece: int = 0  # split into pieces of so many bytes; 0: as read
    cut_after: int | None = None  # bytes, then the connection ends
    reset: bool = True  # it ends with RST; else with FIN in this direction only (half close)
    corrupt_at: int | None = None  # offset of one byte to flip
    stall_after: int | None = None  # bytes, then nothing more comes, and nothing closes


class FaultProxy:
    def __init__(
        self,
        host: str,
        port: int,
        *,
        seed: int = 0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._target = (host, port)
        self._rng, self._sleep = random.Random(seed), sleep
        self.up, self.down = Direction(), Direction()
        self.blackhole = False  # accept and read, never connect nor answer
        self.refuse = False  # accept, then RST
        self.connections = 0
        self.host, self.port = "127.0.0.1", 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self, *, reset: bool = True) -> None:
        """End every open connection."""
        for writer in list(self._open):
            _end(writer, reset=reset)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._open.add(writer)
        self.connections += 1
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):  # ENOTCONN of an end that was reset is no ConnectionError
            pass  # the point of this proxy
        finally:
            self._open.discard(writer)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            _end(writer, reset=True)
            return
        if self.blackhole:
            while await reader.read(65_536):
                pass
            return
        up_reader, up_writer = await asyncio.open_connection(*self._target)
        self._open.add(up_writer)
        try:
            await asyncio.gather(
                self._pump(self.up, reader, up_writer, writer), self._pump(self.down, up_reader, writer, up_writer)
            )
        finally:
            self._open.discard(up_writer)
            up_writer.close()

    async def _pump(
        self,
        how: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
    ) -> None:
        passed = 0
        while data := await reader.read(how.piece or 65_536):
            data = self._harmed(how, data, passed)
            await self._delay(how, len(data))
            writer.write(data)
            await writer.drain()
            passed += len(data)
            if how.stall_after is not None and passed >= how.stall_after:
                await asyncio.Event().wait()
            if how.cut_after is not None and passed >= how.cut_after:
                _end(writer, reset=how.reset)
                if how.reset:
                    _end(other, reset=True)
                return
        if not writer.is_closing():
            writer.write_eof()

    def _harmed(self, how: Direction, data: bytes, passed: int) -> bytes:
        limits = [limit - passed for limit in (how.cut_after, how.stall_after) if limit is not None]
        data = data[: max(0, min([len(data), *limits]))]
        if how.corrupt_at is not None and passed <= how.corrupt_at < passed + len(data):
            spot = how.corrupt_at - passed
            data = data[:spot] + bytes([data[spot] ^ 0xFF]) + data[spot + 1 :]
        return data

    async def _delay(self, how: Direction, size: int) -> None:
        delay = how.latency + (self._rng.random() * how.jitter if how.jitter else 0)
        if how.bandwidth:
            delay += size / how.bandwidth
        if delay:
            await self._sleep(delay)


def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if not reset:
        if not writer.is_closing():
            writer.write_eof()
        return
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
