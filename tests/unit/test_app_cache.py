"""The part of a worker that keeps answers: what it tells of the store, and what it takes over while it runs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from gateway.app_cache import Larder
from gateway.config.schema import Cache, Config, ExactCache
from gateway.stores.sqlite_cache import SqliteCache
from gateway.testing.calls import MemoryLinks
from gateway.testing.gateway import dead_port
from tests.unit.stores.cache_entries import entry

LINKS = MemoryLinks()


def new_larder() -> Larder:
    return Larder(asyncio.get_running_loop(), lambda request: False)


class Teller:
    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.events: list[tuple[str, dict[str, Any]]] = []

    @property
    def gauges(self) -> Any:
        return self

    def set(self, name: str, value: float) -> None:
        self.values[name] = value

    def append_event(self, kind: str, **detail: Any) -> bool:
        self.events.append((kind, detail))
        return True


def config(path: Path, **cache: Any) -> Config:
    return Config(state=str(path), cache=Cache(exact=ExactCache(enabled=True), **cache))


async def test_nothing_is_made_where_nothing_is_cached(tmp_path: Path) -> None:
    larder, teller = new_larder(), Teller()
    assert larder.cache(Config(state=str(tmp_path)), LINKS) is None
    larder.tick(1)
    larder.tell(teller)
    await larder.close()
    assert (larder.store, teller.values) == (None, {})
    assert list(tmp_path.iterdir()) == []


async def test_what_changes_while_it_runs_is_taken_over(tmp_path: Path) -> None:
    larder = new_larder()
    assert larder.cache(config(tmp_path), LINKS) is not None
    store = larder.store
    assert isinstance(store, SqliteCache)
    assert larder.cache(config(tmp_path, tenant_bytes=10**8, memory_bytes=7), LINKS) is not None
    assert larder.store is store
    assert (store.tenant_bytes, store.memory_bytes) == (10**8, 7)
    await larder.close()


async def test_a_redis_that_is_not_there_is_told(tmp_path: Path) -> None:
    larder, teller = new_larder(), Teller()
    settings = config(tmp_path, store="redis", redis=f"redis://127.0.0.1:{dead_port()}/0")
    assert larder.cache(settings, LINKS) is not None
    store = larder.store
    assert store is not None
    assert await store.get(b"k" * 32, "t", time.time_ns()) == (None, -1)
    for _ in range(3):
        store.put(entry(), 5)
    larder.tick(time.time_ns())
    larder.tell(teller)
    assert teller.values == {"cache_store_available": 0.0}
    larder.tell(teller)
    assert sum(detail["count"] for _, detail in teller.events) == store.dropped == 3
    assert {kind for kind, _ in teller.events} == {"cache_writes_lost"}
    assert larder.cache(structs.replace(settings, cache=structs.replace(settings.cache, timeout=9)), LINKS) is not None
    assert store.asking.timeout == 9  # type: ignore[attr-defined]
    await larder.close()


async def test_a_url_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="scheme"):
        new_larder().cache(config(tmp_path, store="redis", redis="http://127.0.0.1/0"), LINKS)
