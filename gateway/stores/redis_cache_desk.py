"""The cache in Redis as people see it: how much there is, and how it is forgotten. Beside the workers, any thread.

Rules
1. Forgetting begins a new generation of each tenant first, and then removes what was chosen: an answer that was asked
   for before is not kept from then on, and all that was kept before is looked through.
2. Which tenants there are is told by their books, wherever they are in a cluster. Only forgetting looks for all of them
   (it goes through all keys of the server); metrics ask no more often than once in a while.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import msgspec
from redis import Redis
from redis.cluster import RedisCluster
from redis.exceptions import RedisError

from gateway.policy.cached import Chosen, Contents, Group
from gateway.stores.cache_desk import GROUPS, CacheUnusable
from gateway.stores.redis_cache import base_of
from gateway.stores.redis_reader import literal
from gateway.stores.redis_talk import Script

SECONDS = 2.0  # for one answer
PAGE = 500
KEPT_SECONDS = 15.0  # that totals are not asked for again

_NEXT, _DROP = Script("next"), Script("drop")


class Row(msgspec.Struct, frozen=True, array_like=True):
    """What an entry is chosen by, as RedisCache writes it."""

    expires: int
    route: str
    upstream: str
    model: str
    agent: str
    tags: tuple[str, ...]


_row = msgspec.msgpack.Decoder(Row).decode


class RedisCacheDesk:
    """Implements policy.cached.Desk; raises CacheUnusable, and ValueError for a URL that is none."""

    def __init__(self, url: str, prefix: str) -> None:
        self.place = f"Redis at {url.rpartition('@')[2].rpartition('://')[2]}"
        self._prefix = prefix
        self._url = url
        self._single = Redis.from_url(url, **_OPTIONS)
        self._cluster: Any = None
        self._totals: Contents | None = None
        self._read_at = float("-inf")

    def contents(self, now: int, groups: int = GROUPS) -> Contents:
        found: dict[tuple[str, str, str], list[int]] = {}
        with self._redis() as redis:
            for base in self._bases(redis):
                tenant = (redis.hget(base + b"m", "t") or b"").decode("utf-8", "replace")
                hits = redis.hgetall(base + b"h")
                for key, size, row in self._rows(redis, base):
                    if row.expires > now:
                        sums = found.setdefault((tenant, row.route, row.model), [0, 0, 0])
                        sums[0] += 1
                        sums[1] += size
                        sums[2] += int(hits.get(key, 0))
        rows = sorted([Group(*scopes, *sums) for scopes, sums in found.items()], key=lambda one: -one.bytes)
        entries, size, given = (sum(getattr(row, name) for row in rows) for name in ("entries", "bytes", "hits"))
        return Contents(entries, size, given, tuple(rows[:groups]))

    def totals(self, now: int) -> Contents | None:
        """With what is over and not removed yet."""
        if time.monotonic() - self._read_at > KEPT_SECONDS:
            self._read_at, self._totals = time.monotonic(), None
            with self._redis() as redis:
                bases = list(self._bases(redis))
                entries = sum(int(redis.hlen(base + b"i")) for base in bases)
                size = sum(int(redis.hget(base + b"m", "b") or 0) for base in bases)
            self._totals = Contents(entries, size) if bases else None
        return self._totals

    def clear(self, chosen: Chosen) -> int:
        count = 0
        self._read_at = float("-inf")
        with self._redis() as redis:
            bases = [base_of(self._prefix, chosen.tenant)] if chosen.tenant else list(self._bases(redis))
            for base in bases:
                if redis.execute_command("EVAL", _NEXT.text, 1, base):
                    wanted = [key for key, _, row in self._rows(redis, base) if _is_chosen(chosen, key, row)]
                    for at in range(0, len(wanted), PAGE):
                        count += int(redis.execute_command("EVAL", _DROP.text, 1, base, *wanted[at : at + PAGE]))
        return count

    def close(self) -> None:
        self._single.close()
        if self._cluster is not None:
            self._cluster.close()

    def _bases(self, redis: Any) -> Iterator[bytes]:
        pattern = literal(f"{self._prefix}:") + "{cache-*}:m"
        seen = {key[:-1] for key in redis.scan_iter(match=pattern, count=1000)}
        return iter(sorted(seen))

    def _rows(self, redis: Any, base: bytes) -> Iterator[tuple[bytes, int, Row]]:
        for key, value in redis.hscan_iter(base + b"i", count=PAGE):
            size, _, packed = value.partition(b"\n")
            try:
                yield key, int(size), _row(packed)
            except (ValueError, msgspec.MsgspecError):  # of nobody's: chosen by everything
                yield key, 0, Row(0, "", "", "", "", ())

    @contextlib.contextmanager
    def _redis(self) -> Iterator[Any]:
        try:
            if self._cluster is None and self._single.info("cluster").get("cluster_enabled"):
                self._cluster = RedisCluster.from_url(self._url, **_OPTIONS)
            yield self._single if self._cluster is None else self._cluster
        except (RedisError, OSError) as error:
            raise CacheUnusable(f"the cache in Redis: {error}") from error


_OPTIONS: dict[str, Any] = {"protocol": 2, "retry": None, "socket_timeout": SECONDS, "socket_connect_timeout": SECONDS}


def _is_chosen(chosen: Chosen, key: bytes, row: Row) -> bool:
    """The tenant is chosen by its books."""
    scopes = ("route", "upstream", "model", "agent")
    return (
        all(getattr(chosen, name) in ("", getattr(row, name)) for name in scopes)
        and (not chosen.tag or chosen.tag in row.tags)
        and chosen.entry in ("", key[:8].hex())
    )
