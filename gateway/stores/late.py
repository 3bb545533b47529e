"""Stores whose libraries a worker loads only where they are configured.

Nothing else imports these modules, so that a gateway without Redis neither pays for the client nor needs it. They are
named here, once, and everything after the import is typed.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gateway.config import places
from gateway.config.schema import Config, Spending
from gateway.policy.cached import Desk
from gateway.stores.breaker_news import Adopt
from gateway.stores.cache_desk import CacheDesk
from gateway.stores.flights_shared import Medium

if TYPE_CHECKING:
    from gateway.stores.redis_breakers import RedisBreakers
    from gateway.stores.redis_budgets import RedisBudgets
    from gateway.stores.redis_cache import RedisCache
    from gateway.stores.redis_reader import RedisReader


def redis_budgets(settings: Spending, state: Path) -> RedisBudgets:
    """To be called in the loop that will use it. Raises OSError, sqlite3.Error (its mirror), ValueError (the URL)."""
    module = importlib.import_module("gateway.stores.redis_budgets")
    return cast("RedisBudgets", module.RedisBudgets(settings, state))


def redis_breakers(url: str, prefix: str, adopt: Adopt) -> RedisBreakers:
    """To be called in the loop that will use it. Raises ValueError for a URL that is none."""
    module = importlib.import_module("gateway.stores.redis_breakers")
    return cast("RedisBreakers", module.RedisBreakers(url, prefix, adopt))


def redis_reader(settings: Spending) -> RedisReader:
    """Raises ValueError for a URL that is none."""
    module = importlib.import_module("gateway.stores.redis_reader")
    return cast("RedisReader", module.RedisReader(settings))


def redis_cache(url: str, config: Config) -> RedisCache:
    """To be called in the loop that will use it. Raises ValueError (the URL)."""
    module = importlib.import_module("gateway.stores.redis_cache")
    cache = config.cache
    store = module.RedisCache(url, config.spending.prefix, timeout=cache.timeout, tenant_bytes=cache.tenant_bytes)
    return cast("RedisCache", store)


def redis_flights(store: object) -> Medium:
    """What the workers of many machines share their calls under way through: where `store` keeps their answers."""
    module = importlib.import_module("gateway.stores.redis_flights")
    return cast("Medium", module.RedisFlights(store))


def cache_desk(config: Config) -> Desk:
    """Where people look at stored answers and forget them. Raises ValueError for a URL that is none."""
    url = places.cache_redis(config)
    if url is None:
        return CacheDesk(places.cache(config))
    module = importlib.import_module("gateway.stores.redis_cache_desk")
    return cast("Desk", module.RedisCacheDesk(url, config.spending.prefix))
