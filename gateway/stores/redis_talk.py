"""Scripts that are run in Redis for the cache: many callers, one connection to each server, answers in order.

Rules
1. What is asked while a batch is out makes up the next one: a round trip is paid by all of them together.
2. A server that hangs costs those who wait one timeout, and those who come after nothing until it answers again
   (policy.outage). One task for each connection tries that by itself, with a script that writes: a server that only
   answers is not here.
3. Nothing is sent twice, but for what the server said it did not do: a script that it does not have, a slot of a
   cluster that is elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

from msgspec import Struct
from redis.asyncio import Connection, ConnectionPool
from redis.crc import key_slot
from redis.exceptions import AskError, ConnectionError, MovedError, NoScriptError, ResponseError

from gateway.policy.outage import Outage, State
from gateway.stores.redis_link import FAULTS, LUA, RedisAway, within

BATCH, BATCH_BYTES = 64, 1_048_576
CONNECT_SECONDS = 0.25  # at least
BUG_SECONDS = 1.0  # until a connection that a bug has ended is made anew
HOPS = 2  # times that a script is sent again, because it is unknown or elsewhere
WRONG = "WRONGTYPE"
_FAULTS = (*FAULTS, ValueError)  # the last of what is no Redis at all

Part: TypeAlias = "bytes | int | asyncio.Future[bytes]"
_log = logging.getLogger("tollgate.cache")


class Broken(Exception):
    """What stands in Redis is not what was written there."""


_SCRIPTS: list[Script] = []


class Script:
    """One file of lua/cache, behind what they have in common. Known to every connection from its beginning, so that
    what is told is done in order."""

    def __init__(self, name: str) -> None:
        directory = LUA / "cache"
        _SCRIPTS.append(self)
        self.text = b"".join(Path(directory / file).read_bytes() for file in ("0_head.lua", f"{name}.lua"))
        self.digest = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


_PROBE = Script("probe")


class Item(Struct, gc=False):
    """One script on its way."""

    script: Script
    base: bytes
    parts: Sequence[Part]
    answer: asyncio.Future[Any] | None
    size: int
    hops: int = 0

    async def packed(self) -> bytes:
        given = [await part if isinstance(part, asyncio.Future) else part for part in self.parts]
        return packed(b"EVALSHA", self.script.digest, 1, self.base, *given)


def packed(*parts: bytes | int) -> bytes:
    found = [b"*%d\r\n" % len(parts)]
    for part in parts:
        text = b"%d" % part if isinstance(part, int) else part
        found += (b"$%d\r\n" % len(text), text, b"\r\n")
    return b"".join(found)


class Talk:
    """`timeout`: seconds of a batch; `room`: bytes that may wait. Of one event loop.

    Raises ValueError for a URL that is none.
    """

    def __init__(
        self, url: str, probe: bytes, *, timeout: float, room: int, without: str = "answers are not kept"
    ) -> None:
        self.timeout = timeout
        self.room = room
        self.without = without  # what is so while it is away
        self.probe = probe  # what the keys of a tenant begin with that nobody is
        self.waiting = 0  # bytes
        self.lost = 0  # of what was told, what came to nothing
        self.closing = False
        self._url = url
        self._nodes: dict[tuple[str, int], Node] = {}
        self._slots: dict[int, Node] = {}
        self._first = Node(self, self.pool())

    def pool(self, **address: Any) -> ConnectionPool:
        pool = ConnectionPool.from_url(
            self._url,
            protocol=2,
            retry=None,
            socket_timeout=None,
            socket_connect_timeout=max(self.timeout, CONNECT_SECONDS),
        )
        pool.connection_kwargs.update(address)
        return pool

    @property
    def available(self) -> bool:
        return all(node.outage.here for node in (self._first, *self._nodes.values()))

    @property
    def faults(self) -> int:
        return sum(node.outage.outages for node in (self._first, *self._nodes.values()))

    async def run(self, script: Script, base: bytes, *parts: Part) -> Any:
        """What the script returns. Raises RedisAway and Broken."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._node(base).send(Item(script, base, parts, answer, 0))
        return await answer

    def tell(self, script: Script, base: bytes, *parts: Part, size: int, answer: Any = None) -> bool:
        """Run it behind what was told before; False where too much waits for that, or Redis is away."""
        node = self._node(base)
        if self.waiting + size > self.room or node.outage.state is State.AWAY or self.closing:
            return False
        self.waiting += size
        node.send(Item(script, base, parts, answer, size))
        return True

    def check(self) -> None:
        """See whether the servers that nobody asks are there."""
        for node in (self._first, *self._nodes.values()):
            node.check()

    def _node(self, base: bytes) -> Node:
        return self._slots.get(key_slot(base), self._first) if self._slots else self._first

    def moved(self, item: Item, error: MovedError) -> None:
        """A slot of a cluster is elsewhere: from now on it is asked there."""
        address = (error.host, error.port)
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = Node(self, self.pool(host=error.host, port=error.port))
        self._slots[error.slot_id] = node
        node.send(item)

    def forget(self, node: Node) -> None:
        """Its slots may have another server by now: the first one knows."""
        self._slots = {slot: other for slot, other in self._slots.items() if other is not node}

    async def close(self, seconds: float) -> None:
        """Send what can be sent within a while. Idempotent."""
        self.closing = True
        nodes = [self._first, *self._nodes.values()]
        for node in nodes:
            node.wake.set()
        await asyncio.wait([node.task for node in nodes], timeout=seconds)
        for node in nodes:
            node.task.cancel()
        await asyncio.gather(*[node.task for node in nodes], return_exceptions=True)


class Node:
    """One server."""

    def __init__(self, talk: Talk, pool: ConnectionPool) -> None:
        self.outage = Outage()
        self.wake = asyncio.Event()
        self._talk = talk
        self._pool = pool
        self._queue: deque[Item] = deque()
        self._connection: Connection | None = None
        self._loop = asyncio.get_running_loop()
        self.task = self._start()

    def _start(self) -> asyncio.Task[None]:
        task = self._loop.create_task(self._run(), name="redis-cache")
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A bug is no reason to do without the cache for ever; whoever waited was told by `_run`."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("answers in Redis: a bug", exc_info=error)
            if not self._talk.closing:
                self._loop.call_later(BUG_SECONDS, self._restart)

    def _restart(self) -> None:
        if not self._talk.closing:
            self.task = self._start()

    def send(self, item: Item) -> None:
        if self.outage.state is State.AWAY or self.task.done():
            self._fail(item, "it is away")
            return
        self._queue.append(item)
        self.wake.set()

    def check(self) -> None:
        if self.outage.here and not self._queue:
            self.send(Item(_PROBE, self._talk.probe, (), None, 0))

    async def _run(self) -> None:
        try:
            while not self._talk.closing or (self._queue and self.outage.here):
                try:
                    await self._turn()
                except _FAULTS as error:
                    await self._cut()
                    self._away(str(error) or type(error).__name__)
                    await self._pause(self.outage.pause())
        finally:
            self._away("this worker ends", quiet=True)
            await self._cut()

    async def _turn(self) -> None:
        if self._connection is None:
            await self._open()
        if not self._queue:
            await self.wake.wait()
        self.wake.clear()
        while self._queue:
            await self._exchange()

    async def _open(self) -> None:
        connection = cast(Connection, self._pool.make_connection())  # type: ignore[no-untyped-call]
        self._connection = connection
        patience = max(self._talk.timeout, CONNECT_SECONDS)
        await within(connection.connect(), patience)  # type: ignore[no-untyped-call]
        known = [packed(b"SCRIPT", b"LOAD", script.text) for script in _SCRIPTS]
        probe = await Item(_PROBE, self._talk.probe, (), None, 0).packed()
        for answer in await within(self._converse(connection, [*known, probe]), patience):
            if isinstance(answer, ResponseError) and not isinstance(answer, MovedError | AskError):
                raise answer
        state, seconds = self.outage.state, self._loop.time() - self.outage.since
        if self.outage.back(self._loop.time()) and state is not State.STARTING:
            _log.warning("Redis is back after %.1f s; before, %s", seconds, self._talk.without)

    async def _exchange(self) -> None:
        """One batch. Raises one of _FAULTS; whatever is raised, those who wait are told by `_away`."""
        connection, size = self._connection, 0
        items: list[Item] = []
        if connection is None:
            raise ConnectionError("not connected")
        while self._queue and len(items) < BATCH and size < BATCH_BYTES:
            item = self._queue.popleft()
            items.append(item)
            size += item.size
        taken = False
        try:
            texts = [await item.packed() for item in items]
            answers = await within(self._converse(connection, texts), self._talk.timeout)
            await self._take(connection, items, answers)
            taken = True
        finally:
            if not taken:
                self._queue.extendleft(item for item in reversed(items) if item.hops >= 0)

    async def _take(self, connection: Connection, items: Sequence[Item], answers: Sequence[Any]) -> None:
        unknown: list[Item] = []
        for item, answer in zip(items, answers, strict=True):
            if isinstance(answer, NoScriptError) and item.hops < HOPS:
                item.hops += 1
                unknown.append(item)
            elif isinstance(answer, MovedError) and item.hops < HOPS:
                if not answer.host:  # of the server that was asked
                    answer.host = self._pool.connection_kwargs["host"]
                other = Item(item.script, item.base, item.parts, item.answer, item.size, item.hops + 1)
                item.hops = -1  # it is no business of this batch any more
                self._talk.moved(other, answer)
            else:
                self._answered(item, answer)
        if unknown:
            known = [(item, await item.packed()) for item in unknown]
            again = await within(self._load(connection, known), self._talk.timeout)
            for item, answer in zip(unknown, again, strict=True):
                self._answered(item, answer)

    async def _converse(self, connection: Connection, texts: Sequence[bytes]) -> list[Any]:
        await connection.send_packed_command(texts, check_health=False)
        return [await self._read(connection) for _ in texts]

    async def _load(self, connection: Connection, known: Sequence[tuple[Item, bytes]]) -> list[Any]:
        """Send scripts that the server does not have, and ask once more."""
        scripts = {item.script.digest: item.script.text for item, _ in known}
        loads = [packed(b"SCRIPT", b"LOAD", text) for text in scripts.values()]
        answers = await self._converse(connection, [*loads, *[text for _, text in known]])
        return answers[len(loads) :]

    async def _read(self, connection: Connection) -> Any:
        try:
            return await connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return error

    def _answered(self, item: Item, answer: Any) -> None:
        """Raises what says that the server cannot be used at all."""
        hops, item.hops = item.hops, -1
        if isinstance(answer, ResponseError):
            if isinstance(answer, AskError | MovedError | NoScriptError):
                self._fail(item, str(answer))
                return
            if WRONG not in str(answer):
                item.hops = hops
                raise answer
            answer = Broken(str(answer))
        self._done(item)
        if item.answer is not None and not item.answer.done():
            if isinstance(answer, Exception):
                item.answer.set_exception(answer)
            else:
                item.answer.set_result(answer)

    def _done(self, item: Item) -> None:
        self._talk.waiting -= item.size
        item.size = 0

    def _fail(self, item: Item, why: str) -> None:
        self._talk.lost += item.size > 0
        self._done(item)
        if item.answer is not None and not item.answer.done():
            item.answer.set_exception(RedisAway(why))

    def _away(self, why: str, *, quiet: bool = False) -> None:
        if self.outage.fault(self._loop.time()) and not quiet:
            _log.warning("Redis is away (%s): calls go upstream, and %s", why, self._talk.without)
        self._talk.forget(self)
        items, self._queue = self._queue, deque()
        for item in items:
            self._fail(item, why)

    async def _pause(self, seconds: float) -> None:
        end = self._loop.time() + seconds
        while not self._talk.closing and (left := end - self._loop.time()) > 0:
            self.wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.wake.wait()

    async def _cut(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*FAULTS):
                await connection.disconnect(nowait=True)
