"""The part of a worker's composition root that has to do with answers already paid for."""

from __future__ import annotations

from gateway.config import places
from gateway.config.check_cache import active
from gateway.config.schema import Config
from gateway.policy.cache_rules import CacheRules
from gateway.stages.cache import ExactCache
from gateway.stores.flights import LocalFlights
from gateway.stores.sqlite_cache import SqliteCache


class Larder:
    """What a worker keeps for all its configurations: the store of answers, made when it is first needed, and the calls
    that others wait for."""

    def __init__(self) -> None:
        self.store: SqliteCache | None = None
        self._flights = LocalFlights(0)

    def cache(self, config: Config) -> ExactCache | None:
        """None where nothing is cached. Raises OSError."""
        if not active(config):
            return None
        cache, identity = config.cache, config.identity
        if self.store is None:
            self.store = SqliteCache(
                places.cache(config), memory_bytes=cache.memory_bytes, tenant_bytes=cache.tenant_bytes
            )
        self.store.memory_bytes, self.store.tenant_bytes = cache.memory_bytes, cache.tenant_bytes
        self._flights.room = cache.entry_bytes
        named = (identity.tenant_header, identity.run_header, identity.agent_header)
        return ExactCache(
            CacheRules(cache, [name for name in named if name is not None]),
            self.store,
            self._flights,
            limit=cache.entry_bytes,
            pace=cache.pace,
            patience=cache.flight_seconds if cache.single_flight else 0.0,
        )

    def tick(self, now: int) -> None:
        """`now`: ns since the epoch."""
        if self.store is not None:
            self.store.tick(now)

    def close(self) -> None:
        if self.store is not None:
            self.store.close()
