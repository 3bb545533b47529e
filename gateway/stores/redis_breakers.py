"""Breakers that gateways share, in the Redis that they have anyway.

Rules
1. No call waits for Redis: what is found here is told, and what others found is taken in, by one script in the
   background, about once a second, and at once where there is news.
2. While Redis is away each gateway goes by what it finds itself. News that could not be told waits for it, the latest
   of each breaker; what is too old is told no more.
3. Times are the server's, so the clocks of machines need not agree. What nobody has told anew for a while is forgotten.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

from gateway.policy.breaker import NANO, Change, State
from gateway.stores.breaker_news import Adopt
from gateway.stores.redis_link import RedisAway
from gateway.stores.redis_talk import Broken, Script, Talk

EVERY = 1.0  # seconds between two looks
KEPT_MS = 300_000  # that news is kept
TIMEOUT = 1.0  # seconds of a script; nobody waits for it
ROOM = 1_048_576
UNTOLD = 1024  # breakers of which news waits
MILLI = 10**6

BREAKERS = Script("breakers")


class RedisBreakers:
    """To be made in the loop that uses it. `adopt` takes in what others found. Raises ValueError for a bad URL."""

    def __init__(self, url: str, prefix: str, adopt: Adopt) -> None:
        self._adopt = adopt
        self._me = secrets.token_hex(8).encode()
        self._base = f"{prefix}:{{breakers}}:".encode()
        self._talk = Talk(url, self._base, timeout=TIMEOUT, room=ROOM, without="breakers are each gateway's own")
        self._news: dict[str, tuple[bool, int, int]] = {}  # opened, until, since; monotonic ns
        self._task: asyncio.Task[None] | None = None
        self._looked = 0

    def tell(self, name: str, change: Change) -> None:
        """A breaker of this gateway was opened, or has healed."""
        if change.state is State.HALF_OPEN or (name not in self._news and len(self._news) >= UNTOLD):
            return
        self._news[name] = (change.state is State.OPEN, change.until, time.monotonic_ns())

    def tick(self) -> None:
        """Called a few times per second. Starts what goes on in the background."""
        now = time.monotonic_ns()
        if self._task is not None and not self._task.done():
            return
        if self._news or now - self._looked >= EVERY * NANO:
            self._looked = now
            self._task = asyncio.get_running_loop().create_task(self.exchange(), name="redis-breakers")

    async def exchange(self) -> None:
        """Tell and take in, once. Where Redis is away nothing changes."""
        now, news = time.monotonic_ns(), self._news
        self._news = {}
        told: list[bytes | int] = []
        for name, (opened, until, since) in news.items():
            if now - since < KEPT_MS * MILLI:
                told += (name.encode("utf-8", "replace"), int(opened), max(0, until - now) // MILLI if opened else 0)
        try:
            found = await self._talk.run(BREAKERS, self._base, self._me, KEPT_MS, *told)
        except (RedisAway, Broken):
            self._news = {**news, **self._news}
            return
        self._take(found, time.monotonic_ns())

    def _take(self, found: list[Any], now: int) -> None:
        for at in range(0, len(found) - 3, 4):
            name, opened, left, since = found[at : at + 4]
            self._adopt(
                name.decode("utf-8", "replace"),
                opened=opened == 1,
                until=now + left * MILLI,
                at=now - since * MILLI,
            )

    async def close(self) -> None:
        """What is under way is left at that: news is worth less than a quick end. Idempotent."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
        await self._talk.close(TIMEOUT)
