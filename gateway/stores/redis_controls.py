"""Decisions of many machines: one log of them in Redis, copied by the recorder of each machine into its own file.

Theory of operation
* The log is a stream, `PREFIX:{controls}`: Redis orders it, entries have ascending ids, old ones are trimmed.
* A recorder tells it what was decided on its machine and reads on from where it was (see controls_exchange), several
  times per second. Its workers read the machine's own SQLite file and never talk to Redis for this.
* While Redis is away every machine goes by what it knows, decisions on it hold on it, and are told once Redis is back:
  a kill switch must not need the network.
* What is lost with Redis is told again by who decided it. A log that has not the entry that we have read last is
  another one (flushed, from an older snapshot, of a replica that lagged): all is told again, and read from its
  beginning. What was told counts as told once it was read back: until then it may be lost without a trace.
* The client does not retry by itself: what is told twice counts once anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.stores.controls_exchange import BEGIN, Entry, Exchange

BLOCK_MS = 200  # how long Redis holds a read back for news; what is decided here waits as long
READ_COUNT = 500
KEPT = 100_000  # entries of the log, about
TIMEOUT_SECONDS = 2.0
AWAY_SECONDS = 0.5  # between two tries while Redis is away

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode
_log = logging.getLogger("tollgate.controls")


class RedisControls:
    """The exchange with the other machines; `run` it as a task of the recorder. `now`: ns since the epoch."""

    def __init__(self, url: str, prefix: str, exchange: Exchange, now: Callable[[], int]) -> None:
        self.key = f"{prefix}:{{controls}}"
        self._exchange = exchange
        self._now = now
        self._redis: Redis = Redis.from_url(
            url, protocol=2, retry=None, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
        )
        self.away = False
        self._sent = 0  # what was told up to this revision is still to be read back

    async def run(self) -> None:
        """For ever; cancel it to end it. The client of Redis may swallow a cancellation, so it is asked for, too."""
        me = asyncio.current_task()
        while me is None or not me.cancelling():
            try:
                await self.turn()
                if self.away:
                    _log.info("redis is back: decisions of other machines are taken in again")
                self.away = False
            except (RedisError, OSError) as error:  # of the network, and of our own file
                if not self.away:
                    _log.error("decisions are not exchanged with other machines, each goes by its own: %s", error)
                self.away = True
                await asyncio.sleep(AWAY_SECONDS)

    async def turn(self, block_ms: int = BLOCK_MS) -> int:
        """Tell and read once; returns how many entries were new here. Raises RedisError or OSError."""
        await asyncio.to_thread(self._exchange.machine)
        await self._tell()
        return await self._read(block_ms)

    async def close(self) -> None:
        await self._redis.aclose()

    async def _tell(self) -> None:
        exchange = self._exchange
        place = await asyncio.to_thread(exchange.place)
        if place != BEGIN and not await self._redis.xrange(self.key, place, place):
            await asyncio.to_thread(exchange.tell_again)
        while outgoing := await asyncio.to_thread(exchange.outgoing, self._now(), self._sent):
            for entry in outgoing:
                await self._redis.xadd(self.key, {"entry": _encode(entry)}, maxlen=KEPT, approximate=True)
            self._sent = outgoing[-1].revision

    async def _read(self, block_ms: int) -> int:
        place = await asyncio.to_thread(self._exchange.place)
        answer: Any = await self._redis.xread({self.key: place}, count=READ_COUNT, block=block_ms)
        found = answer[0][1] if answer else []
        if len(found) < READ_COUNT:  # the end of the log: what did not come back by now is lost
            self._sent = 0
        if not found:
            return 0
        entries = [entry for _, fields in found if (entry := _entry(fields)) is not None]
        return await asyncio.to_thread(self._exchange.take, entries, found[-1][0].decode())


def _entry(fields: dict[bytes, bytes]) -> Entry | None:
    """None for what is no entry: of a later version, or of somebody else."""
    try:
        return _decode(fields.get(b"entry", b""))
    except msgspec.MsgspecError:
        _log.warning("the log of decisions holds something that is none")
        return None
