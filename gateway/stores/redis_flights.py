"""Flights that the workers of many machines share, in the Redis that keeps their answers.

Theory of operation
* A claim is a name with the token of its leader, and a sign of life under that token which the leader renews. Whoever
  claims a flight whose leader gives no sign of life any more leads it. What is not one's own token is never deleted.
* What comes is appended to a list under the token, a few times a second at most, and read from there by number.
* A leader ends behind what it has put (one connection, in order): whoever claims after it finds the answer stored.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from functools import partial

from gateway.stores.flights_shared import Claim
from gateway.stores.redis_cache import RedisCache
from gateway.stores.redis_link import RedisAway
from gateway.stores.redis_talk import Broken, Script

LEASE_MS = 3000  # a leader that gives no sign of life for so long is dead
BEAT_SECONDS = LEASE_MS / 3000
FLUSH_SECONDS = 0.02  # that a piece waits for others to go with
KEPT_MS = 60_000  # that pieces are kept while they come,
READ_MS = 10_000  # and once they have all come

CLAIM, FEED, FINISH, PART = Script("claim"), Script("feed"), Script("finish"), Script("part")
FOLLOW, LEAVE = Script("follow"), Script("leave")


class RedisFlights:
    """Implements Medium."""

    poll = 0.02

    def __init__(self, store: RedisCache) -> None:
        self._store = store

    async def claim(self, flight: bytes, tenant: str, key: bytes, slow: bytes) -> Claim:
        store, base, token = self._store, self._store.base(tenant), secrets.token_hex(12).encode()
        try:
            found = await store.asking.run(CLAIM, base, flight, token, LEASE_MS, key, slow)
        except asyncio.CancelledError:
            store.asking.tell(FINISH, base, flight, token, READ_MS, size=0)  # behind the claim
            raise
        except (RedisAway, Broken):
            return Claim()
        if found == token:
            return Claim(lead=RedisLead(store, base, flight, token))
        return Claim(trail=RedisTrail(store, base, found)) if found else Claim(stored=True)


class RedisLead:
    """Implements Lead."""

    def __init__(self, store: RedisCache, base: bytes, flight: bytes, token: bytes) -> None:
        self.name = token
        self._store, self._base, self._flight = store, base, flight
        self._loop = asyncio.get_running_loop()
        self._waiting = 0  # other workers, as of the last sign of life
        self._sure: bool | None = None  # of what `_waiting` says since it mattered; None: it never did
        self._unsent: list[bytes] = []
        self._ended = False
        self._timer = self._loop.call_later(BEAT_SECONDS, self._send)
        self._soon: asyncio.TimerHandle | None = None

    @property
    def followed(self) -> bool:
        if self._sure is None and not self._ended:
            self._sure = False
            self._send(sure=True)
        return not self._ended and (self._waiting > 0 or not self._sure)

    def say(self, record: bytes) -> None:
        if not self._ended:
            self._unsent.append(record)
            if self._soon is None:
                self._soon = self._loop.call_later(FLUSH_SECONDS, self._send)

    def part(self) -> None:
        self._store.telling.tell(PART, self._base, self._flight, self.name, size=0)

    def end(self, record: bytes, *, kept: bool) -> None:
        if not self._ended:
            self._stop()
            records = (*self._unsent, record)
            size = sum(map(len, records))
            self._store.telling.tell(FINISH, self._base, self._flight, self.name, READ_MS, *records, size=size)

    def _stop(self) -> None:
        self._ended = True
        self._timer.cancel()
        if self._soon is not None:
            self._soon.cancel()

    def _send(self, *, sure: bool = False) -> None:
        """What there is, if only a sign of life. `sure`: the answer is waited for."""
        self._timer.cancel()
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        self._timer = self._loop.call_later(BEAT_SECONDS, self._send)
        records, self._unsent = self._unsent, []
        answer: asyncio.Future[int] = self._loop.create_future()
        answer.add_done_callback(partial(self._told, sure))
        tell, size = self._store.telling.tell, sum(map(len, records))
        given: tuple[int | bytes, ...] = (LEASE_MS, KEPT_MS, *records)
        if not tell(FEED, self._base, self._flight, self.name, *given, size=size, answer=answer):
            answer.cancel()
            self._stop()  # what was lost cannot be made good: the lease runs out

    def _told(self, sure: bool, answer: asyncio.Future[int]) -> None:
        if answer.cancelled():
            return
        if answer.exception() is not None or answer.result() < 0:
            self._stop()
        else:
            self._waiting, self._sure = answer.result(), sure or self._sure


class RedisTrail:
    """Implements Trail."""

    def __init__(self, store: RedisCache, base: bytes, token: bytes) -> None:
        self.name = token
        self._store, self._base = store, base
        self._at = 0

    async def read(self) -> tuple[Sequence[bytes], bool]:
        try:
            alive, records = await self._store.asking.run(FOLLOW, self._base, self.name, self._at)
        except (RedisAway, Broken) as error:
            raise OSError(str(error)) from error
        self._at += len(records)
        return records, bool(alive)

    def leave(self) -> None:
        self._store.telling.tell(LEAVE, self._base, self.name, size=0)
