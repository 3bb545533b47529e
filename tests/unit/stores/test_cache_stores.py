"""What every store of answers must do: one contract, kept by the file of a machine and by Redis."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from gateway.policy.cached import Chosen, Contents, Desk
from gateway.ports import CacheStore, Entry
from gateway.stores.cache_desk import CacheDesk
from gateway.stores.cache_file import OVERHEAD
from gateway.stores.redis_cache import RedisCache
from gateway.stores.redis_cache_desk import RedisCacheDesk
from gateway.stores.sqlite_cache import SqliteCache
from tests.redis_server import NEEDS_REDIS, RedisServer
from tests.unit.stores.cache_entries import NOW, entry


class Place(Protocol):
    """Where answers are kept."""

    desk: Desk

    def open(self, tenant: int = 1_000_000) -> CacheStore: ...

    async def settle(self, *stores: CacheStore) -> None:
        """Wait until all that was put is written."""
        ...

    async def close(self) -> None: ...


class File:
    def __init__(self, directory: Path) -> None:
        self.path = directory / "cache.sqlite"
        self.desk: Desk = CacheDesk(self.path)
        self.stores: list[SqliteCache] = []

    def open(self, tenant: int = 1_000_000) -> SqliteCache:
        self.stores.append(SqliteCache(self.path, memory_bytes=0, tenant_bytes=tenant))
        return self.stores[-1]

    async def settle(self, *stores: Any) -> None:
        now = NOW + 3600 * 10**9 - 1
        for store in stores:
            store.tick(now)
            assert await asyncio.to_thread(store.flush)

    async def close(self) -> None:
        for store in self.stores:
            store.close()


class Remote:
    def __init__(self, server: RedisServer) -> None:
        self.url = server.url
        self.desk: Desk = RedisCacheDesk(server.url, "tollgate")
        self.stores: list[RedisCache] = []

    def open(self, tenant: int = 1_000_000) -> RedisCache:
        self.stores.append(RedisCache(self.url, "tollgate", timeout=2, tenant_bytes=tenant))
        return self.stores[-1]

    async def settle(self, *stores: Any) -> None:
        for store in stores:
            await store.written()

    async def close(self) -> None:
        for store in self.stores:
            await store.close()
        self.desk.close()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture(params=["file", pytest.param("redis", marks=NEEDS_REDIS)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    made: Place
    if request.param == "file":
        made = File(tmp_path)
    else:
        server: RedisServer = request.getfixturevalue("server")
        server.ask("FLUSHALL")
        made = Remote(server)
    yield made
    await made.close()


async def find(store: CacheStore, wanted: Entry, now: int = NOW) -> Entry | None:
    return (await store.get(wanted.key, wanted.tenant, now))[0]


async def keep(place: Place, store: CacheStore, *entries: Entry) -> None:
    for one in entries:
        store.put(one, (await store.get(one.key, one.tenant, NOW))[1])
        await place.settle(store)


@pytest.mark.parametrize(
    "body",
    [b"small", b"large " * 5000, os.urandom(5000), b"", b"huge " * 200_000],
    ids=["small", "large", "odd", "none", "huge"],
)
async def test_what_is_kept_is_found_whole_by_all(place: Place, body: bytes) -> None:
    store, other = place.open(), place.open()
    wanted = entry(body=body)
    assert await find(store, wanted) is None
    await keep(place, store, wanted)
    assert await find(store, wanted) == wanted
    assert await find(other, wanted) == wanted
    assert await find(other, entry("b")) is None


async def test_large_answers_are_compressed(place: Place) -> None:
    await keep(place, place.open(), entry(body=b"large " * 50_000))
    assert 0 < place.desk.contents(NOW).bytes < 5000


async def test_a_lookup_and_what_is_put_are_of_one_tenant(place: Place) -> None:
    store = place.open()
    await keep(place, store, entry("a", tenant="t"), entry("b", tenant="}{: \u00e4 o"))
    assert await find(store, entry("a", tenant="t")) is not None
    assert await find(store, entry("b", tenant="}{: \u00e4 o")) is not None


async def test_what_is_over_is_not_found(place: Place) -> None:
    store = place.open()
    await keep(place, store, entry("a", expires=NOW + 10**10), entry("b"))
    assert await find(store, entry("a"), NOW + 10**10 - 1) is not None
    assert await find(store, entry("a"), NOW + 10**10) is None
    assert await find(store, entry("b"), NOW + 10**10) is not None


async def test_what_was_used_least_lately_goes_first_and_each_tenant_has_its_own_bound(place: Place) -> None:
    size = 1000 + OVERHEAD
    store = place.open(4 * (size + 650))
    await keep(place, store, entry("other", os.urandom(1000), tenant="o"))
    for number in range(4):
        await keep(place, store, entry(f"n{number}", os.urandom(1000), created=NOW + number))
    await find(store, entry("n0"), NOW + 100)  # used since
    await place.settle(store)
    await keep(place, store, entry("n4", os.urandom(1000), created=NOW + 200))
    found = {name for name in ("n0", "n1", "n2", "n3", "n4") if await find(store, entry(name)) is not None}
    assert {"n0", "n4"} <= found
    assert "n1" not in found
    assert await find(store, entry("other", tenant="o")) is not None
    of_t = next(group for group in place.desk.contents(NOW).groups if group.tenant == "t")
    assert of_t.bytes <= 4 * (size + 650)
    await keep(place, store, entry("huge", os.urandom(20_000)))
    assert await find(store, entry("huge")) is None
    assert await find(store, entry("n4")) is not None, "what fits nowhere displaces nothing"


async def test_an_answer_kept_again_takes_the_place_of_the_old_one(place: Place) -> None:
    store, other = place.open(), place.open()
    await keep(place, store, entry(body=b"old" * 100))
    before = place.desk.contents(NOW).bytes
    await keep(place, other, entry(body=b"new"))
    assert await find(place.open(), entry()) == entry(body=b"new")
    contents = place.desk.contents(NOW)
    assert contents.entries == 1
    assert contents.bytes < before


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        (Chosen(), set()),
        (Chosen(tenant="t"), {"b"}),
        (Chosen(route="/r"), {"b"}),
        (Chosen(model="m", tenant="t"), {"b"}),
        (Chosen(agent="z"), {"a"}),
        (Chosen(upstream="v"), {"a"}),
        (Chosen(tag="red"), {"b"}),
        (Chosen(tag="re"), {"a", "b"}),
        (Chosen(tag="%"), {"a", "b"}),
        (Chosen(entry=entry("a").key[:8].hex()), {"b"}),
        (Chosen(tenant="t", tag="green"), {"a", "b"}),
        (Chosen(tenant="' OR 1=1 --"), {"a", "b"}),
        (Chosen(tenant="*"), {"a", "b"}),
    ],
)
async def test_what_is_cleared_is_gone_everywhere_at_once(place: Place, chosen: Chosen, left: set[str]) -> None:
    one, two = place.open(), place.open()
    kept = {
        "a": entry("a"),
        "b": entry("b", tenant="o", route="/s", upstream="v", model="n", agent="z", tags=("green",)),
    }
    await keep(place, one, *kept.values())
    for store in (one, two):
        for wanted in kept.values():
            assert await find(store, wanted) == wanted
    assert await asyncio.to_thread(place.desk.clear, chosen) == 2 - len(left)
    for store in (one, two):
        assert {name for name, wanted in kept.items() if await find(store, wanted) is not None} == left


@pytest.mark.parametrize("chosen", [Chosen(), Chosen(tag="unrelated"), Chosen(tenant="t")])
async def test_an_answer_asked_for_before_a_clearing_is_not_kept_behind_it(place: Place, chosen: Chosen) -> None:
    store, other = place.open(), place.open()
    wanted = entry()
    found, before = await store.get(wanted.key, "t", NOW)
    assert found is None
    assert before >= 0
    await asyncio.to_thread(place.desk.clear, chosen)
    store.put(wanted, before)  # this worker does not know of it yet
    await place.settle(store)
    assert await find(other, wanted) is None
    assert await find(store, wanted) is None
    store.put(wanted, before)
    await place.settle(store)
    assert await find(store, wanted) is None
    await keep(place, store, wanted)
    assert await find(other, wanted) == wanted


async def test_the_desk_tells_what_there_is(place: Place) -> None:
    desk = place.desk
    assert (desk.contents(NOW), desk.totals(NOW), desk.clear(Chosen())) == (Contents(), None, 0)
    store = place.open()
    await keep(place, store, entry("a"), entry("b"), entry("c", tenant="o"), entry("d", expires=NOW + 5 * 10**9))
    for _ in range(3):
        await find(store, entry("a"))
    await place.settle(store)
    contents = desk.contents(NOW + 6 * 10**9)
    assert (contents.entries, contents.hits) == (3, 3)
    assert [(group.tenant, group.entries, group.hits) for group in contents.groups] == [("t", 2, 3), ("o", 1, 0)]
    assert sum(group.bytes for group in contents.groups) == contents.bytes
    desk.clear(Chosen(entry=entry("d").key[:8].hex()))  # which may have been removed by now
    totals = desk.totals(NOW)
    assert totals is not None
    assert (totals.entries, totals.bytes, totals.groups) == (3, contents.bytes, ())


async def test_many_write_at_once_and_the_sums_stay_right(place: Place) -> None:
    stores = [place.open(60_000) for _ in range(3)]
    for round_ in range(3):
        for number in range(60):
            one = entry(f"{number % 40}", os.urandom(900 + number), tenant="ab"[number % 2], created=NOW + round_)
            store = stores[number % 3]
            store.put(one, (await store.get(one.key, one.tenant, NOW))[1])
    for store in stores:
        await place.settle(store)
    contents = place.desk.contents(NOW)
    assert contents.entries > 20
    assert all(20_000 < group.bytes <= 60_000 for group in contents.groups)
    totals = place.desk.totals(NOW)
    assert totals is not None
    assert (totals.entries, totals.bytes) == (contents.entries, contents.bytes)


async def test_nothing_is_kept_for_a_lookup_that_failed(place: Place) -> None:
    store = place.open()
    await store.get(entry().key, "t", NOW)
    store.put(entry(), -1)
    await place.settle(store)
    assert await find(store, entry()) is None


async def test_what_was_put_is_written_at_the_end(place: Place) -> None:
    store = place.open()
    store.put(entry(), (await store.get(entry().key, "t", NOW))[1])
    await place.close()
    await place.close()
    assert await find(place.open(), entry()) == entry()
