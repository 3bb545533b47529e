"""How a worker joins an epoch: it tells all that it knows, and waits until everybody has. See lua/6_epoch.lua."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Protocol, TypeVar

import msgspec

from gateway.config.schema import Spending
from gateway.spend import Charge, Demand
from gateway.stores import redis_wire as wire
from gateway.stores.mirror import Mirror
from gateway.stores.redis_link import Link, RedisAway
from gateway.stores.spent_parts import Row, SpentParts, slot_at

ROWS = 250  # of a contribution, at once
OPS = 50
WAIT_SECONDS = 0.1  # between looks whether learning is over

RECENT = 86_400 * 10**9  # ns: what a worker could not send before it ended
ROUNDS = 5

T = TypeVar("T")


class Forgotten(Exception):
    """The server has not, or no longer, the epoch that this worker has joined; nothing was applied."""


class Knowledge(Protocol):
    """What a worker knows by itself: the store."""

    settings: Spending
    worker: str
    parts: SpentParts
    mirror: Mirror
    link: Link
    holds: dict[str, Sequence[Demand]]
    releases: dict[str, Charge]
    unheld: set[str]
    closing: bool
    disk: Executor

    def now(self) -> int: ...

    def clock_read(self, at: int) -> None: ...


class Session:
    """`learn`: seconds until a new epoch opens whoever is missing; `grace`: seconds for all to notice its beginning."""

    def __init__(self, store: Knowledge, learn: float, grace: float) -> None:
        self._store = store
        self._learn, self._grace = learn, grace
        self.epoch = ""
        self.eviction = ""
        self.renewal_due = False
        self._looked = asyncio.get_running_loop().time()  # for strangers
        self.members: Sequence[str] = ()  # as Redis says; nothing before it has said so

    async def say(self, *entries: msgspec.Raw) -> Sequence[wire.Result]:
        """One round trip. Raises RedisAway, Forgotten, msgspec.MsgspecError."""
        store = self._store
        reply = wire.decode(await store.link.run(wire.batch(self.epoch, store.worker, entries)))
        store.clock_read(reply.at)
        if reply.status != "ok":
            raise Forgotten
        return reply.results

    def renewal(self) -> list[msgspec.Raw]:
        """The lease; now and then also what the server holds for this worker, see `strangers`."""
        self.renewal_due = False
        settings = self._store.settings
        entries = [wire.entry("t", settings.lease_seconds * 1000, settings.on_dead_worker == "charge")]
        now = asyncio.get_running_loop().time()
        if now - self._looked >= settings.lease_seconds:
            self._looked = now
            entries.append(wire.entry("k"))
        return entries

    def strangers(self, held: wire.Held) -> list[str]:
        """What the server holds for this worker without its knowledge: a reserve that was given up and arrived later,
        from a network that was slow to deliver it."""
        store = self._store
        return [op for op in held.ops if op not in store.holds and op not in store.releases]

    def slot(self, now: int, period: int) -> int:
        return slot_at(now, period) if period else 0

    async def join(self) -> None:
        """Until the server may grant, and knows what this worker knows. Raises RedisAway."""
        store = self._store
        if not store.link.connected:
            await store.link.open()
        while True:
            try:
                joined = await self._enter()
                if joined.epoch != self.epoch:
                    self.epoch = joined.epoch
                    await self._contribute_all(joined.phase)
                else:
                    await self._catch_up()
                if joined.phase == "O":
                    await self._give_back_strangers()
                    await self._catch_up()
                    return
            except Forgotten:
                pass
            if store.closing:
                raise RedisAway("this worker ends")
            await asyncio.sleep(WAIT_SECONDS)

    async def _enter(self) -> wire.Joined:
        store = self._store
        known = await self._on_disk(store.mirror.members)
        lease = store.settings.lease_seconds * 1000
        members = known if len(known) < 1000 else known[:1000]
        (joined,) = await self.say(
            wire.entry("j", secrets.token_hex(8), members, lease, self._learn * 1000, self._grace * 1000)
        )
        assert isinstance(joined, wire.Joined)
        self.eviction = joined.eviction
        return joined

    async def _contribute_all(self, phase: str) -> None:
        """All that this worker and its machine know; to an epoch that the others have filled, only what is recent."""
        store = self._store
        since = 0 if phase == "L" else store.now() * 1000 - RECENT
        rows = {(row[1], row[0], row[2]): row for row in await self._on_disk(lambda: store.mirror.rows(since))}
        rows.update({(row[1], row[0], row[2]): row for row in [*store.parts.unwritten.values(), *store.parts.all()]})
        await self._send_rows(list(rows.values()))
        await self._send_holds(dict(store.holds))
        await self._catch_up()
        members = await self._on_disk(store.mirror.members)
        dead = await self._on_disk(lambda: store.mirror.dead(members))
        await self.say(wire.entry("w", dead))

    async def _catch_up(self) -> None:
        """Send what the server may not have. Settles go on meanwhile, so that a little may be left."""
        store = self._store
        for _ in range(ROUNDS):
            if not (store.parts.unsent or store.releases or store.unheld):
                return
            await self._send_rows(list(store.parts.unsent.values()))
            await self._send_holds({op: store.holds[op] for op in store.unheld if op in store.holds})
            releases = dict(store.releases)
            for ops in _chunks(list(releases), OPS):
                await self.say(*(wire.entry("s", op, (), releases[op]) for op in ops))
                for op in ops:
                    if store.releases.get(op) is releases[op]:
                        del store.releases[op]

    async def _send_rows(self, rows: Sequence[Row]) -> None:
        for some in _chunks(rows, ROWS):
            await self.say(wire.entry("c", some))
            self._store.parts.confirm(some)

    async def _send_holds(self, holds: Mapping[str, Sequence[Demand]]) -> None:
        for ops in _chunks(list(holds), OPS):
            await self.say(*(wire.entry("h", op, holds[op]) for op in ops))
            self._store.unheld.difference_update(ops)

    async def _give_back_strangers(self) -> None:
        (held,) = await self.say(wire.entry("k"))
        assert isinstance(held, wire.Held)
        self._store.releases.update((op, Charge(calls=0)) for op in self.strangers(held))

    async def _on_disk(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._store.disk, work)


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
