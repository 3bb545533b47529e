"""One connection to Redis that runs one script: a request out, its answer back, never twice by itself.

redis-py opens the connection (URL, TLS, passwords, RESP) and parses; its client is left aside, because it retries ten
times by default, and a late answer is then applied as often. What goes wrong is one exception here, `RedisAway`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

from redis.asyncio import Connection, ConnectionPool
from redis.exceptions import MovedError, NoScriptError, RedisError

LUA = Path(__file__).with_name("lua")
# What a connection raises that is of no use; the last where uvloop has seen its end before anybody else did.
FAULTS = (RedisError, OSError, RuntimeError)
_LATE = 0.2  # of a timeout: a timer so much late says that this process was busy, not Redis


class RedisAway(Exception):
    """No usable answer: refused, cut, too late, or an error of the server (READONLY, LOADING, OOM, NOAUTH, ...)."""


def script() -> bytes:
    """The one script, in the order of its files."""
    return b"".join(path.read_bytes() for path in sorted(LUA.glob("*.lua")))


async def within(work: Coroutine[Any, Any, Any], seconds: float) -> Any:
    """Its result. Raises TimeoutError; not for an answer that was there when this process was late to look."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    try:
        for _ in range(2):
            due = loop.time() + seconds
            done, _pending = await asyncio.wait([task], timeout=seconds)
            if done or loop.time() - due < seconds * _LATE:
                break
        if not task.done():
            raise TimeoutError(f"no answer within {seconds * 1000:.0f} ms")
        return task.result()
    finally:
        task.cancel()


class Link:
    """Not for two tasks at once. `timeout`: seconds for one exchange, and for connecting."""

    def __init__(self, url: str, key: str, timeout: float) -> None:
        self.timeout = timeout
        self._script = script()
        self._patience = max(timeout, 0.25)  # for connecting: a few exchanges
        digest = hashlib.sha1(self._script, usedforsecurity=False).hexdigest()
        self._prefix = b"*5\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n$1\r\n1\r\n$%d\r\n%s\r\n" % (
            digest.encode(),
            len(key.encode()),
            key.encode(),
        )
        self._pool = ConnectionPool.from_url(
            url, protocol=2, retry=None, socket_timeout=None, socket_connect_timeout=self._patience
        )
        self._connection: Connection | None = None

    @property
    def connected(self) -> bool:
        return self._connection is not None

    async def open(self) -> None:
        """Raises RedisAway."""
        await self.close()
        self._connection = cast(Connection, self._pool.make_connection())  # type: ignore[no-untyped-call]
        try:
            await within(self._connection.connect(), self._patience)  # type: ignore[no-untyped-call]
        except FAULTS as error:
            await self.close()
            raise RedisAway(_text(error)) from error

    async def run(self, argument: bytes) -> bytes:
        """Run the script; loads it first where the server has lost it. Raises RedisAway, and the connection is gone."""
        connection = self._connection
        if connection is None:
            raise RedisAway("not connected")
        try:
            answer = await within(self._run(connection, argument), self.timeout)
        except FAULTS as error:  # TimeoutError is an OSError
            await self.close()
            if isinstance(error, MovedError):
                self._pool.connection_kwargs.update(host=error.host, port=error.port)
            raise RedisAway(_text(error)) from error
        if not isinstance(answer, bytes):
            await self.close()
            raise RedisAway(f"an answer of {type(answer).__name__}")
        return answer

    async def _run(self, connection: Connection, argument: bytes) -> Any:
        command = b"%s$%d\r\n%s\r\n" % (self._prefix, len(argument), argument)
        await connection.send_packed_command([command], check_health=False)
        try:
            return await connection.read_response(disable_decoding=True)
        except NoScriptError:
            text = self._script
            load = b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$%d\r\n%s\r\n" % (len(text), text)
            await connection.send_packed_command([load, command], check_health=False)
            await connection.read_response(disable_decoding=True)
            return await connection.read_response(disable_decoding=True)

    async def close(self) -> None:
        """Cut it, whatever is under way. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*FAULTS):
                await connection.disconnect(nowait=True)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
