"""Answers in Redis: what is away, slow, forgotten, thrown away or none of ours is a miss, and comes right by itself."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from redis.crc import key_slot

from gateway.policy.cached import Chosen
from gateway.ports import Entry
from gateway.stores.cache_desk import CacheUnusable
from gateway.stores.redis_cache import RedisCache, base_of
from gateway.stores.redis_cache_desk import RedisCacheDesk
from gateway.testing.doubles import at_once
from gateway.testing.gateway import free_port
from tests.redis_server import NEEDS_REDIS, RedisServer
from tests.unit.stores.cache_entries import NOW, entry

pytestmark = NEEDS_REDIS
Make = Callable[..., Awaitable[RedisCache]]
BASE = base_of("tollgate", "t").decode()


@pytest.fixture
async def make(server: RedisServer) -> AsyncIterator[Make]:
    made: list[RedisCache] = []

    async def store(url: str = "", timeout: float = 0.1, tenant: int = 1_000_000) -> RedisCache:
        made.append(RedisCache(url or server.url, "tollgate", timeout=timeout, tenant_bytes=tenant))
        return made[-1]

    yield store
    await asyncio.gather(*(store.close() for store in made))


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def find(store: RedisCache, wanted: Entry) -> Entry | None:
    return (await store.get(wanted.key, wanted.tenant, NOW))[0]


async def keep(store: RedisCache, *entries: Entry) -> None:
    for one in entries:
        store.put(one, (await store.get(one.key, one.tenant, NOW))[1])
        await store.written()


def held(server: RedisServer) -> tuple[int, int]:
    """Bytes by the books, and of the entries one by one."""
    facts = server.ask("HVALS", f"{BASE}i")
    assert isinstance(facts, list)
    return int(str(server.ask("HGET", f"{BASE}m", "b") or 0)), sum(int(fact.split("\n")[0]) for fact in facts)


# -- away -----------------------------------------------------------------------------------------------------------


async def test_a_server_that_hangs_is_a_miss_and_then_costs_nothing(
    make: Make, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = await make()
    await keep(store, entry())
    server.hang()
    async with asyncio.timeout(10):
        found = await asyncio.gather(*[store.get(entry().key, "t", NOW) for _ in range(200)])
    assert set(found) == {(None, -1)}
    assert not store.available
    for _ in range(100):
        assert at_once(store.get(entry().key, "t", NOW)) == (None, -1), "nobody waits for what is known to be away"
    store.put(entry("b"), 5)
    server.go_on()
    await until(lambda: store.available)
    assert await find(store, entry()) == entry()
    lines = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) <= 4, "one line for each connection and change"
    assert "calls go upstream" in lines[0]


async def test_a_server_that_is_not_there_at_the_start(make: Make, server: RedisServer) -> None:
    server.stop()
    store = await make()
    assert await find(store, entry()) is None
    server.start()
    await until(lambda: store.available)
    await keep(store, entry())
    assert await find(store, entry()) == entry()


async def test_what_a_server_forgot_is_a_miss_and_nothing_asked_before_is_kept(make: Make, server: RedisServer) -> None:
    store = await make()
    await keep(store, entry())
    _, before = await store.get(entry().key, "t", NOW)
    server.ask("FLUSHALL")
    assert await find(store, entry()) is None
    store.put(entry(), before)
    await store.written()
    assert await find(store, entry()) is None
    server.stop()
    server.start()
    store.tick(NOW)
    await until(lambda: store.asking.faults and store.telling.faults and store.available)
    await keep(store, entry())
    assert await find(store, entry()) == entry()


async def test_scripts_that_are_lost_are_sent_again(make: Make, server: RedisServer) -> None:
    store = await make()
    await keep(store, entry())
    server.ask("SCRIPT", "FLUSH")
    found = await asyncio.gather(*[find(store, entry()) for _ in range(50)])
    assert found == [entry()] * 50
    assert (store.asking.faults, store.available) == (0, True)


@pytest.mark.parametrize("how", ["OOM", "READONLY", "NOAUTH"])
async def test_a_server_that_refuses_is_away_until_it_does_not(
    make: Make, server: RedisServer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = await make()
    await keep(store, entry())
    if how == "OOM":
        server.ask("CONFIG", "SET", "maxmemory", 1)
    elif how == "READONLY":
        server.ask("REPLICAOF", "127.0.0.1", 1)
    else:
        server.ask("CONFIG", "SET", "requirepass", "secret")
        server.password = "secret"
        server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    for _ in range(5):
        await store.get(entry().key, "t", NOW)
        store.put(entry("b"), 5)
    await until(lambda: not store.asking.available)
    assert await store.get(entry().key, "t", NOW) == (None, -1)
    await asyncio.sleep(0.3)  # some probes
    assert len([record for record in caplog.records if "away" in record.message]) <= 2
    server.ask("CONFIG", "SET", "maxmemory", 0)
    server.ask("REPLICAOF", "NO", "ONE")
    server.ask("CONFIG", "SET", "requirepass", "")
    server.password = ""
    await until(lambda: store.available)
    await keep(store, entry())
    assert await find(store, entry()) == entry()


async def test_what_is_no_redis_is_away(make: Make) -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n" * 20)
        await writer.drain()
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    store = await make(f"redis://127.0.0.1:{other.sockets[0].getsockname()[1]}/0")
    assert await store.get(entry().key, "t", NOW) == (None, -1)
    store.put(entry(), 5)
    await until(lambda: store.asking.faults)
    other.close()
    await other.wait_closed()


async def test_a_bug_costs_one_miss_and_a_line_in_the_log(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.stores.redis_talk.BUG_SECONDS", 0.01)
    store = await make()
    await keep(store, entry())
    with monkeypatch.context() as patch:
        patch.setattr("gateway.stores.redis_talk.packed", lambda *parts: 1 / 0)
        assert await store.get(entry().key, "t", NOW) == (None, -1)
    await until(lambda: store.available)
    assert await find(store, entry()) == entry()
    assert "a bug" in caplog.text


async def test_the_desk_says_so(server: RedisServer) -> None:
    desk = RedisCacheDesk(server.url, "tollgate")
    server.stop()
    for ask in (lambda: desk.contents(NOW), lambda: desk.totals(NOW), lambda: desk.clear(Chosen())):
        with pytest.raises(CacheUnusable, match="Redis"):
            await asyncio.to_thread(ask)
    desk.close()
    server.start()


# -- what is none of ours ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("book", ["m", "u", "x", "i", "h"])
async def test_books_that_are_none_are_made_anew(make: Make, server: RedisServer, book: str) -> None:
    store = await make()
    await keep(store, entry("a"), entry("b"))
    server.ask("DEL", BASE + book)
    server.ask("SET", BASE + book, "garbage")
    async with asyncio.timeout(10):
        for _ in range(3):
            await store.get(entry("a").key, "t", NOW)
            store.put(entry("c"), (await store.get(entry("c").key, "t", NOW))[1])
            await store.written()
    assert store.available
    await keep(store, entry("a"))
    assert await find(store, entry("a")) == entry("a")
    assert len(set(held(server))) == 1


@pytest.mark.parametrize("book", ["m", "u", "x", "i", "h"])
async def test_books_that_were_thrown_away_mislead_nobody(make: Make, server: RedisServer, book: str) -> None:
    """A server may do so where its memory is full."""
    store, desk = await make(tenant=8000), RedisCacheDesk(server.url, "tollgate")
    await keep(store, *[entry(f"n{number}", os.urandom(900)) for number in range(3)])
    server.ask("DEL", BASE + book)
    await keep(store, *[entry(f"m{number}", os.urandom(900)) for number in range(6)])
    told, true = held(server)
    assert told == true <= 8000
    await asyncio.to_thread(desk.clear, Chosen(tag="red"))
    for name in ("n0", "n1", "n2", "m0", "m5"):
        assert await find(store, entry(name)) is None, "what was cleared is given to nobody"
    await keep(store, entry("last"))
    assert await find(store, entry("last")) == entry("last")
    desk.close()


@pytest.mark.parametrize("value", ["", "garbage", "0000000ff", "100000000", "\xff" * 50, "0zzzzzzzz"])
async def test_an_entry_that_is_none_is_a_miss_until_another_takes_its_place(
    make: Make, server: RedisServer, value: str
) -> None:
    store = await make()
    await keep(store, entry())
    (name,) = server.ask("KEYS", f"{BASE}e:*")  # type: ignore[misc]
    server.ask("SET", name, value)
    assert await find(store, entry()) is None
    await keep(store, entry())
    assert await find(store, entry()) == entry()


async def test_an_entry_is_never_taken_by_its_name_alone(make: Make, server: RedisServer) -> None:
    store = await make()
    await keep(store, entry("a"), entry("b"))
    names = sorted(server.ask("KEYS", f"{BASE}e:*"))  # type: ignore[call-overload]
    server.ask("COPY", names[0], names[1], "REPLACE")
    assert await find(store, entry("b")) is None
    assert await find(store, entry("a")) == entry("a")


async def test_a_body_that_unfolds_without_end_is_none(make: Make, server: RedisServer) -> None:
    store = await make()
    await keep(store, entry(body=b"x" * 100_000))
    (name,) = server.ask("KEYS", f"{BASE}e:*")  # type: ignore[misc]
    server.ask("SETRANGE", name, 0, "1")
    length = int(str(server.ask("STRLEN", name)))
    server.ask("SETRANGE", name, length - 8, "\x7f" * 8)
    assert await find(store, entry()) is None


async def test_what_does_not_go_into_an_entry_is_not_kept(make: Make) -> None:
    store = await make()
    await keep(store, entry("odd", model="\udce4"))
    assert await find(store, entry("odd")) is None


async def test_what_waits_to_be_written_is_bounded(
    make: Make, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.stores.redis_cache.WRITE_BYTES", 5000)
    store = await make()
    await keep(store, entry("first"))
    _, generation = await store.get(b"k" * 32, "t", NOW)
    for number in range(10):
        store.put(entry(f"n{number}", b"x" * 1000), generation)
    assert store.dropped == 7
    await store.written()
    assert [await find(store, entry(f"n{number}")) is not None for number in range(10)] == [True] * 3 + [False] * 7
    await keep(store, entry("later", b"x" * 2500))
    assert await find(store, entry("later")) is not None


async def test_what_could_not_be_written_is_counted(make: Make, server: RedisServer) -> None:
    store = await make()
    _, generation = await store.get(entry().key, "t", NOW)
    server.stop()
    store.put(entry(), generation)
    await until(lambda: store.dropped)
    assert store.dropped == 1
    store.put(entry(), generation)
    assert store.dropped == 2
    server.start()


async def test_expired_entries_leave_the_books(make: Make, server: RedisServer) -> None:
    store = await make()
    await keep(store, entry("a", expires=NOW + 50_000_000), entry("b"))
    await until(lambda: server.ask("EXISTS", f"{BASE}e:" + "a".ljust(32, ".")) == 0)
    await keep(store, entry("c"))
    assert server.ask("HLEN", f"{BASE}i") == 2
    assert len(set(held(server))) == 1


# -- many --------------------------------------------------------------------------------------------------------------


async def test_a_cluster_keeps_each_tenant_on_one_node() -> None:
    buses = [free_port(), free_port()]
    options = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
    nodes = [RedisServer(*options, "--cluster-port", str(bus)) for bus in buses]
    stores: list[RedisCache] = []
    try:
        nodes[0].ask("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        nodes[1].ask("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
        nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", nodes[1].port, buses[1])
        await until(lambda: all("cluster_state:ok" in str(node.ask("CLUSTER", "INFO")) for node in nodes))
        await until(lambda: all("cluster_slots_assigned:16384" in str(node.ask("CLUSTER", "INFO")) for node in nodes))
        tenants = [f"tenant {number}" for number in range(12)]
        assert len({key_slot(base_of("tollgate", tenant)) < 8192 for tenant in tenants}) == 2
        stores = [RedisCache(node.url, "tollgate", timeout=1, tenant_bytes=10**6) for node in nodes]
        for tenant in tenants:
            one = entry(tenant, tenant=tenant)
            stores[0].put(one, (await stores[0].get(one.key, tenant, NOW))[1])
        for tenant in tenants:
            async with asyncio.timeout(10):
                while await find(stores[1], entry(tenant, tenant=tenant)) is None:
                    await asyncio.sleep(0.02)
        desk = RedisCacheDesk(nodes[0].url, "tollgate")
        assert (await asyncio.to_thread(desk.contents, NOW)).entries == len(tenants)
        assert await asyncio.to_thread(desk.clear, Chosen(tenant=tenants[0])) == 1
        assert await asyncio.to_thread(desk.clear, Chosen()) == len(tenants) - 1
        for tenant in tenants:
            assert await find(stores[0], entry(tenant, tenant=tenant)) is None
        desk.close()
    finally:
        await asyncio.gather(*(store.close() for store in stores))
        for node in nodes:
            node.close()


WRITER = """
import asyncio, os, sys
from gateway.stores.redis_cache import RedisCache
sys.path.insert(0, sys.argv[2])
from cache_entries import NOW, entry

async def main():
    store = RedisCache(sys.argv[1], "tollgate", timeout=2, tenant_bytes=300_000)
    number = 0
    while True:
        one = entry(f"{os.getpid()}-{number}", bytes([number % 256]) * 3000 + os.urandom(2000))
        store.put(one, (await store.get(one.key, one.tenant, NOW))[1])
        number += 1
        if number % 20 == 0:
            await store.written()
            print(number, flush=True)

asyncio.run(main())
"""


async def test_workers_killed_while_they_write_leave_whole_entries_and_right_sums(
    make: Make, server: RedisServer
) -> None:
    root = Path(__file__).parents[3]
    for _ in range(2):
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(WRITER), server.url, str(Path(__file__).parent)],
                stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)},
            )
            for _ in range(2)
        ]  # fmt: skip
        for worker in workers:
            assert worker.stdout is not None
            for _ in range(4):
                await asyncio.to_thread(worker.stdout.readline)
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            assert worker.stdout is not None
            worker.stdout.close()
    told, true = held(server)
    assert 250_000 < told == true <= 300_000
    store = await make(timeout=2)
    names = server.ask("KEYS", f"{BASE}e:*")
    assert isinstance(names, list)
    assert server.ask("HLEN", f"{BASE}i") == len(names) >= 40
    for name in names:
        found, _ = await store.get(name.removeprefix(f"{BASE}e:").encode(), "t", NOW)
        assert found is not None
        assert len(found.body) == 5000
        assert len(set(found.body[:3000])) == 1
