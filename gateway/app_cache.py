"""The part of a worker's composition root that has to do with answers already paid for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from gateway.app_spending import Teller
from gateway.app_tools import outputs_of
from gateway.call import Request
from gateway.config import check_semantic, places
from gateway.config.check_cache import active, of_tools
from gateway.config.schema import Cache, Config
from gateway.policy.cache_rules import CacheRules
from gateway.policy.semantic_rules import SemanticRules
from gateway.ports import Cache as CachePort
from gateway.ports import CacheStore, Links
from gateway.stages.cache import ExactCache
from gateway.stages.semantic import SemanticTier
from gateway.stages.tool_cache import Caches, ToolCache
from gateway.stores.flight_files import FlightFiles
from gateway.stores.flights import LocalFlights
from gateway.stores.flights_shared import SharedFlights
from gateway.stores.late import redis_cache, redis_flights
from gateway.stores.matcher_link import MatcherLink
from gateway.stores.sqlite_cache import SqliteCache


class Store(CacheStore, Protocol):
    """Stored answers with the upkeep that a worker owes them, and what is to be told of them."""

    @property
    def available(self) -> bool: ...

    @property
    def dropped(self) -> int:
        """Writes that came to nothing."""
        ...

    def tick(self, now: int) -> None: ...

    def configure(self, cache: Cache) -> None:
        """Take over what may change while it runs."""
        ...


class Larder:
    """What a worker keeps for all its configurations: the store of answers, made when it is first needed, and the calls
    that others wait for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, check: Callable[[Request], bool]) -> None:
        self.store: Store | None = None
        self.local: SqliteCache | None = None  # the same where this worker holds answers in its own memory
        self._close: Callable[[], Awaitable[None]] | None = None
        self._flights: LocalFlights | None = None
        self._files: FlightFiles | None = None  # through which the workers of this machine see each other's calls
        self._told = 0  # writes that came to nothing, as far as the journal has them
        self._loop = loop
        self._check = check  # sends a request once more, in the background
        self._matcher: MatcherLink | None = None

    def cache(self, config: Config, links: Links) -> CachePort | None:
        """None where nothing is cached. Raises OSError, and ValueError for the URL of a Redis that is none."""
        if not active(config) and not of_tools(config):
            return None
        cache, identity = config.cache, config.identity
        if self.store is None:
            self.store, self._close = store_of(config)
            self.local = self.store if isinstance(self.store, SqliteCache) else None
        self.store.configure(cache)
        if self._flights is None:
            self._flights = self._shared(config)
        self._flights.room = cache.entry_bytes
        named = (identity.tenant_header, identity.run_header, identity.agent_header)
        rules = CacheRules(cache, [name for name in named if name is not None])
        exact = ExactCache(
            rules,
            self.store,
            self._flights,
            limit=cache.entry_bytes,
            pace=cache.pace,
            patience=cache.flight_seconds if cache.single_flight else 0.0,
            tier=self._tier(config),
        )
        outputs = outputs_of(config)
        if not outputs:
            return exact
        tools = ToolCache(
            outputs,
            self.store,
            links,
            version=rules.version,
            ignored=rules.ignored,
            jitter=rules.jitter,
            limit=cache.entry_bytes,
        )
        return Caches(exact if active(config) else None, tools)

    def _shared(self, config: Config) -> LocalFlights:
        """Whom this worker shares calls under way with. Raises OSError."""
        if places.cache_redis(config) is not None:
            return SharedFlights(0, redis_flights(self.store))
        if config.workers == 1:
            return LocalFlights(0)
        self._files = FlightFiles(places.flights(config))
        return SharedFlights(0, self._files)

    def _tier(self, config: Config) -> SemanticTier | None:
        """None where only equal questions are answered."""
        if not check_semantic.active(config):
            return None
        semantic = config.cache.semantic
        if self._matcher is None:
            self._matcher = MatcherLink(self._loop, places.matcher_socket(config), semantic.patience)
            self._matcher.tick()
        self._matcher.patience = semantic.patience
        return SemanticTier(SemanticRules(semantic), self._matcher, self._check)

    def tick(self, now: int) -> None:
        """`now`: ns since the epoch."""
        if self._files is not None:
            self._files.tick()
        if self.store is not None:
            self.store.tick(now)
        if self._matcher is not None:
            self._matcher.tick()

    def tell(self, teller: Teller) -> None:
        """How the store is, for metrics."""
        if self.store is not None:
            teller.gauges.set("cache_store_available", float(self.store.available))
            lost, self._told = self.store.dropped - self._told, self.store.dropped
            if lost > 0:
                teller.append_event("cache_writes_lost", count=lost)

    async def close(self) -> None:
        if self._files is not None:
            self._files.close()
        if self._matcher is not None:
            self._matcher.close()
        if self._close is not None:
            await self._close()


def store_of(config: Config) -> tuple[Store, Callable[[], Awaitable[None]]]:
    """The store of answers, and how it is closed. Raises OSError and ValueError."""
    url = places.cache_redis(config)
    if url is not None:
        remote = redis_cache(url, config)
        return remote, remote.close
    cache = config.cache
    local = SqliteCache(places.cache(config), memory_bytes=cache.memory_bytes, tenant_bytes=cache.tenant_bytes)

    async def close() -> None:
        local.close()

    return local, close
