"""Stored answers in Redis or Valkey, for many machines.

Rules
1. A cache is never the reason that a call fails: a server that is away, hangs or holds something else is a miss, within
   two timeouts at most; one that is known to be away costs nothing. See stores.redis_talk.
2. Every look-up asks Redis, and nothing is kept in the worker: what was cleared is given to nobody any more.
3. Each tenant has books of its own behind one hash tag, with a bound in bytes, what was used, and a generation. An
   answer asked for in an earlier generation is not kept. A server that forgot has none; the next one is its clock's.
4. Look-ups and what is written have connections of their own: no call waits behind another's large answer.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import msgspec

from gateway.config.schema import Cache
from gateway.ports import Entry
from gateway.stores.cache_codec import FAULTS, joined, split
from gateway.stores.cache_file import OVERHEAD
from gateway.stores.redis_link import RedisAway
from gateway.stores.redis_talk import Broken, Script, Talk

WRITE_SECONDS = 2.0  # for a batch of writes
WRITE_BYTES = 67_108_864  # that wait to be written; more are dropped
CLOSE_SECONDS = 3.0
INLINE = 65_536  # bytes of a body that is compressed on the loop; larger ones in a thread
CHECK_NS = 1_000_000_000
TENANTS = 10_000  # whose keys are known by heart

GET, PUT, WIPE = Script("get"), Script("put"), Script("wipe")
_pack = msgspec.msgpack.Encoder().encode


def base_of(prefix: str, tenant: str) -> bytes:
    """What all keys of a tenant begin with; the hash tag keeps them in one slot of a cluster."""
    digest = hashlib.blake2b(tenant.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    return f"{prefix}:{{cache-{digest}}}:".encode()


class RedisCache:
    """Implements ports.CacheStore. To be made in the loop that uses it. Raises ValueError for a URL that is none."""

    def __init__(self, url: str, prefix: str, *, timeout: float, tenant_bytes: int) -> None:
        self.tenant_bytes = tenant_bytes
        self._refused = 0
        self._checked = 0
        self._prefix = prefix
        self._bases: dict[str, bytes] = {}
        probe = base_of(prefix, "")
        self.asking = Talk(url, probe, timeout=timeout, room=WRITE_BYTES)
        self.telling = Talk(url, probe, timeout=max(timeout, WRITE_SECONDS), room=WRITE_BYTES)

    @property
    def available(self) -> bool:
        return self.asking.available and self.telling.available

    @property
    def dropped(self) -> int:
        """Writes that came to nothing."""
        return self._refused + self.telling.lost

    def base(self, tenant: str) -> bytes:
        found = self._bases.get(tenant)
        if found is None:
            if len(self._bases) >= TENANTS:
                self._bases.clear()
            found = self._bases[tenant] = base_of(self._prefix, tenant)
        return found

    async def get(self, key: bytes, tenant: str, now: int) -> tuple[Entry | None, int]:
        base, generation = self.base(tenant), -1
        try:
            reply = await self.asking.run(GET, base, key, tenant.encode("utf-8", "surrogatepass"))
            generation = int(reply[0])
            entry = split(reply[1]) if len(reply) > 1 else None
        except RedisAway:
            return None, -1
        except Broken:
            self.telling.tell(WIPE, base, size=0)
            return None, -1
        except (*FAULTS, IndexError):  # not an entry: what is stored next takes its place
            return None, generation
        if entry is None or entry.key != key or entry.tenant != tenant or entry.expires <= now:
            return None, generation
        return entry, generation

    def put(self, entry: Entry, generation: int) -> None:
        if generation < 0:
            return
        value: bytes | asyncio.Future[bytes]
        if len(entry.body) > INLINE:
            value = asyncio.get_running_loop().run_in_executor(None, _joined, entry)
        else:
            value = _joined(entry)
        size = len(entry.body) + OVERHEAD
        ttl = max(1, (entry.expires - entry.created) // 1_000_000)
        parts: tuple[Any, ...] = (entry.key, generation, value, ttl, OVERHEAD, self.tenant_bytes, _chosen(entry))
        if not self.telling.tell(PUT, self.base(entry.tenant), *parts, size=size):
            self._refused += 1

    def configure(self, cache: Cache) -> None:
        """Another URL or prefix needs a restart."""
        self.tenant_bytes, self.asking.timeout = cache.tenant_bytes, cache.timeout

    def tick(self, now: int) -> None:
        """To be called now and then: see whether Redis is there, so that no call has to find out."""
        if now - self._checked >= CHECK_NS:
            self._checked = now
            self.asking.check()
            self.telling.check()

    async def written(self) -> None:
        """Wait until all that was put is there; for tests and measurements. Raises RedisAway."""
        await self.telling.run(GET, base_of(self._prefix, ""), b"", b"")

    async def close(self) -> None:
        """What was put is written, within a while. Idempotent."""
        await asyncio.gather(self.asking.close(0), self.telling.close(CLOSE_SECONDS))


def _joined(entry: Entry) -> bytes:
    """Nothing where it cannot be written down."""
    try:
        return joined(entry)
    except FAULTS:
        return b""


def _chosen(entry: Entry) -> bytes:
    """What it is chosen by; see redis_cache_desk.Row."""
    try:
        return _pack((entry.expires, entry.route, entry.upstream, entry.model, entry.agent, entry.tags))
    except FAULTS:
        return b""
