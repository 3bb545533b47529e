"""Equal calls of many workers: who leads, what others see of it, and how they are let go; through files and Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from gateway.stores import flight_files, redis_flights
from gateway.stores.flight_files import FlightFiles
from gateway.stores.flights_shared import SharedFlight, SharedFlights
from gateway.stores.redis_cache import RedisCache
from gateway.stores.redis_flights import RedisFlights
from tests.redis_server import NEEDS_REDIS, RedisServer
from tests.unit.stores.cache_entries import NOW, entry

KEY, ENTRY = b"flight", entry().key
Worker = Callable[[], SharedFlights]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
async def stores(server: RedisServer) -> AsyncIterator[Callable[[], RedisCache]]:
    server.ask("FLUSHALL")
    made: list[RedisCache] = []

    def store() -> RedisCache:
        made.append(RedisCache(server.url, "tollgate", timeout=2, tenant_bytes=10**7))
        return made[-1]

    yield store
    await asyncio.gather(*(store.close() for store in made))


@pytest.fixture(params=["files", pytest.param("redis", marks=NEEDS_REDIS)])
async def worker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Worker]:
    """Makes workers that see one another's flights."""
    media: list[FlightFiles] = []
    made: list[RedisCache] = []
    server = request.getfixturevalue("server") if request.param == "redis" else None
    if server is not None:
        server.ask("FLUSHALL")

    def make() -> SharedFlights:
        if server is not None:
            made.append(RedisCache(server.url, "tollgate", timeout=2, tenant_bytes=10**7))
            return SharedFlights(1000, RedisFlights(made[-1]))
        media.append(FlightFiles(tmp_path / "flights"))
        return SharedFlights(1000, media[-1])

    yield make
    for files in media:
        files.close()
    await asyncio.gather(*(store.close() for store in made))


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.005)


async def claim(flights: SharedFlights, key: bytes = KEY) -> tuple[SharedFlight, bool]:
    flight = flights.lead(key)
    leads = await flight.leads("t", ENTRY)
    if not leads and not flight.stored:
        flight.followers += 1
    return flight, leads


async def test_one_leads_and_the_others_see_all_of_it(worker: Worker) -> None:
    (leader, leads), (follower, follows), (other, leads_too) = (
        await claim(worker()), await claim(worker()), await claim(worker(), b"another"),
    )  # fmt: skip
    assert (leads, follows, leads_too) == (True, False, True)
    assert follower.head is None
    leader.begin(b"text/event-stream", b"x-request-id: 1\r\n")
    await until(lambda: follower.head)
    assert follower.head == (b"text/event-stream", b"x-request-id: 1\r\n")
    leader.feed(b"a")
    leader.feed(b"")
    leader.feed(b"b" * 500)
    await until(lambda: len(follower.pieces) == 2)
    assert not follower.ended
    leader.end(whole=True, cost=7)
    await until(lambda: follower.ended)
    assert (b"".join(follower.pieces), follower.whole, follower.alone, follower.cost) == (
        b"a" + b"b" * 500, True, False, 7,
    )  # fmt: skip
    assert not other.ended
    other.end(whole=False)


async def test_whoever_comes_late_reads_from_the_beginning(worker: Worker) -> None:
    leader, _ = await claim(worker())
    leader.begin(b"k", b"")
    leader.feed(b"one")
    await asyncio.sleep(0.05)
    follower, leads = await claim(worker())
    assert not leads
    leader.feed(b"two")
    leader.end(whole=True)
    await until(lambda: follower.ended)
    assert (follower.head, follower.pieces) == ((b"k", b""), [b"one", b"two"])


@pytest.mark.parametrize("alone", [True, False])
async def test_a_leader_that_fails_lets_go_and_another_leads(worker: Worker, alone: bool) -> None:
    leader, _ = await claim(worker())
    flights = worker()
    follower, _ = await claim(flights)
    leader.end(whole=False, alone=alone)
    leader.feed(b"late")
    await until(lambda: follower.ended)
    assert (follower.whole, follower.alone, follower.pieces) == (False, alone, [])
    again, leads = await claim(flights)
    assert leads
    again.end(whole=False)


async def test_a_leader_knows_whether_anybody_waits(worker: Worker) -> None:
    leader, _ = await claim(worker())
    leader.begin(b"k", b"")
    follower, _ = await claim(worker())
    assert leader.followed, "before anything else was sent"
    leader.feed(b"x")
    await until(lambda: bool(follower.pieces))
    assert leader.followed
    follower.followers = 0
    await until(lambda: follower.ended)
    assert not follower.whole
    leader.feed(b"y")
    await until(lambda: not leader.followed)
    leader.end(whole=True)


async def test_a_leader_learns_that_nobody_waits(worker: Worker) -> None:
    leader, _ = await claim(worker())
    await until(lambda: not leader.followed)
    leader.end(whole=False)
    assert not leader.followed


async def test_a_slow_leader_is_replaced_by_one_and_ends_nobody_elses(worker: Worker) -> None:
    slow, _ = await claim(worker())
    workers = [worker() for _ in range(3)]
    waiting = [(await claim(flights))[0] for flights in workers]
    assert not any(flight.ended for flight in waiting)
    again = [await claim(flights) for flights in workers]  # each has found it slow
    (leader,) = [flight for flight, leads in again if leads]
    slow.begin(b"old", b"")
    slow.feed(b"old")
    slow.end(whole=True)
    late, leads = await claim(worker())
    assert not leads, "the claim of the new leader stands"
    leader.begin(b"new", b"")
    leader.feed(b"new")
    leader.end(whole=True)
    followers = [late, *[flight for flight, leads in again if not leads]]
    await until(lambda: all(flight.ended for flight in followers))
    assert {(flight.head, b"".join(flight.pieces)) for flight in followers} == {((b"new", b""), b"new")}


async def test_what_has_grown_large_is_joined_by_nobody_new(worker: Worker) -> None:
    leader, _ = await claim(worker())
    follower, _ = await claim(worker())
    leader.begin(b"k", b"")
    leader.feed(b"x" * 1500)
    await until(lambda: follower.pieces)
    again, leads = await claim(worker())
    assert leads
    leader.feed(b"y")
    leader.end(whole=True)
    await until(lambda: follower.ended)
    assert (follower.whole, b"".join(follower.pieces)) == (True, b"x" * 1500 + b"y")
    late, leads = await claim(worker())
    assert not leads
    again.end(whole=False)
    await until(lambda: late.ended)


async def test_what_a_claim_was_cancelled_for_is_free_again(worker: Worker) -> None:
    flights = worker()
    flight = flights.lead(KEY)
    task = asyncio.create_task(flight.leads("t", ENTRY))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    flight.end(whole=False)
    async with asyncio.timeout(20):
        while not (last := await claim(worker()))[1]:
            await asyncio.sleep(0.01)
    last[0].end(whole=False)


LEADER = """
import asyncio, sys
from pathlib import Path
from gateway.stores.flight_files import FlightFiles
from gateway.stores.flights_shared import SharedFlights
from gateway.stores.redis_cache import RedisCache
from gateway.stores.redis_flights import RedisFlights

async def main(place, url, key):
    if url:
        medium = RedisFlights(RedisCache(url, "tollgate", timeout=2, tenant_bytes=10**7))
    else:
        medium = FlightFiles(Path(place))
    flight = SharedFlights(1000, medium).lead(key)
    assert await flight.leads("t", b"e" * 32)
    print("leads", flush=True)
    flight.begin(b"k", b"")
    number = 0
    while True:
        flight.feed(b"%d;" % number)
        number += 1
        await asyncio.sleep(0.01)

asyncio.run(main(sys.argv[1], sys.argv[2], b"flight"))
"""


async def test_a_leader_that_is_killed_lets_go(worker: Worker, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = request.getfixturevalue("server").url if "redis" in request.node.callspec.id else ""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LEADER), str(tmp_path / "flights"), url],
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"leads\n"
        flights = worker()
        follower, leads = await claim(flights)
        assert not leads
        await until(lambda: len(follower.pieces) > 3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        await until(lambda: follower.ended)
        assert not follower.whole
        numbers = b"".join(follower.pieces).split(b";")[:-1]
        assert numbers == [b"%d" % number for number in range(len(numbers))], "in order, and none lost between"
        again, leads = await claim(flights)
        assert leads
        late, leads = await claim(worker())
        assert not leads
        again.begin(b"k", b"")
        again.feed(b"fresh")
        again.end(whole=True)
        await until(lambda: late.ended)
        assert late.pieces == [b"fresh"], "nothing of the dead one"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Iterator[FlightFiles]:
    made = FlightFiles(tmp_path / "flights")
    yield made
    made.close()


async def test_an_answer_that_was_stored_is_there_until_it_is_found_in_the_store(
    files: FlightFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight_files, "LINGER", 0.2)
    leader, _ = await claim(SharedFlights(1000, files))
    leader.begin(b"k", b"")
    leader.feed(b"all")
    leader.end(whole=True, kept=True, cost=3)
    late, leads = await claim(SharedFlights(1000, files))
    assert not leads
    await until(lambda: late.ended)
    assert (late.whole, late.pieces, late.cost) == (True, [b"all"], 3)
    await until(lambda: not files.leads)
    assert {path.name for path in files.directory.iterdir()} == {"guard"}


async def test_files_are_for_the_gateway_alone_and_nothing_stays(files: FlightFiles) -> None:
    leader, _ = await claim(SharedFlights(1000, files))
    modes = {path.stat().st_mode & 0o777 for path in files.directory.iterdir()}
    assert (modes, files.directory.stat().st_mode & 0o777) == ({0o600}, 0o700)
    leader.feed(b"never asked for")
    assert all(path.stat().st_size == 0 for path in files.directory.iterdir()), "nobody reads it"
    leader.end(whole=True)
    assert {path.name for path in files.directory.iterdir()} == {"guard"}


async def test_who_joined_in_a_pause_reads_what_there_is(files: FlightFiles) -> None:
    leader, _ = await claim(SharedFlights(1000, files))
    leader.begin(b"k", b"")
    leader.feed(b"one")
    follower, _ = await claim(SharedFlights(1000, files))
    files.tick()
    await until(lambda: follower.pieces)
    assert follower.pieces == [b"one"]
    leader.end(whole=True)
    await until(lambda: follower.ended)


async def test_a_full_disk_lets_followers_go(files: FlightFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    leader, _ = await claim(SharedFlights(1000, files))
    follower, _ = await claim(SharedFlights(1000, files))

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "no space")

    monkeypatch.setattr(os, "write", full)
    leader.begin(b"k", b"")
    leader.feed(b"x")
    monkeypatch.undo()
    await until(lambda: follower.ended)
    assert not follower.whole
    assert leader.pieces == [b"x"], "whose own worker goes on"
    leader.end(whole=True)


async def test_a_directory_that_cannot_be_used_stops_nobody(files: FlightFiles) -> None:
    files.directory.rename(files.directory.with_name("gone"))
    flight, leads = await claim(SharedFlights(1000, files))
    assert leads
    flight.feed(b"x")
    flight.end(whole=True, kept=True)
    files.directory.with_name("gone").rename(files.directory)


async def test_what_killed_workers_left_is_swept(files: FlightFiles) -> None:
    alive, _ = await claim(SharedFlights(1000, files), b"alive")
    (files.directory / "dead").write_bytes(b"\1\0\0\0h")
    FlightFiles(files.directory).close()
    assert len(list(files.directory.iterdir())) == 2
    alive.end(whole=False)


async def test_a_guard_that_is_taken_is_not_waited_for(files: FlightFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight_files, "AGAIN", 0.01)
    leader, _ = await claim(SharedFlights(1000, files))
    fd = os.open(files.directory / "guard", os.O_RDWR)
    assert flight_files.lock(fd, flight_files.LEADER, 1)
    leader.end(whole=True)
    assert len(files.leads) == 1
    os.close(fd)
    await until(lambda: not files.leads)
    other, leads = await claim(SharedFlights(1000, files))
    assert leads
    other.end(whole=False)


# -- Redis ------------------------------------------------------------------------------------------------------------


@NEEDS_REDIS
async def test_an_answer_that_is_there_by_now_is_not_asked_for(stores: Callable[[], RedisCache]) -> None:
    """It ended between the look-up and the claim: the leader ends behind what it has put."""
    store = stores()
    flights = SharedFlights(1000, RedisFlights(store))
    _, generation = await store.get(ENTRY, "t", NOW)
    leader, _ = await claim(flights)
    follower, _ = await claim(SharedFlights(1000, RedisFlights(stores())))
    store.put(entry(), generation)
    leader.end(whole=True, kept=True)
    await until(lambda: follower.ended)
    late, leads = await claim(SharedFlights(1000, RedisFlights(stores())))
    assert (leads, late.stored, late.ended, late.whole) == (False, True, True, False)


@NEEDS_REDIS
async def test_tenants_claim_apart(stores: Callable[[], RedisCache]) -> None:
    one, other = (SharedFlights(1000, RedisFlights(stores())).lead(KEY) for _ in range(2))
    assert await one.leads("t", ENTRY)
    assert await other.leads("o", ENTRY)


@NEEDS_REDIS
async def test_a_leader_without_a_sign_of_life_has_lost_its_claim(
    stores: Callable[[], RedisCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_flights, "LEASE_MS", 2000)
    monkeypatch.setattr(redis_flights, "BEAT_SECONDS", 60)
    stuck, _ = await claim(SharedFlights(1000, RedisFlights(stores())))
    follower, leads = await claim(SharedFlights(1000, RedisFlights(stores())))
    assert not leads
    await until(lambda: follower.ended)
    monkeypatch.setattr(redis_flights, "LEASE_MS", 60_000)
    new, leads = await claim(SharedFlights(1000, RedisFlights(stores())))
    assert leads
    stuck.begin(b"k", b"")
    stuck.feed(b"x")
    await asyncio.sleep(0.1)
    stuck.end(whole=True)
    late, leads = await claim(SharedFlights(1000, RedisFlights(stores())))
    assert not leads, "the claim of the new leader stands"
    new.begin(b"k", b"")
    new.feed(b"new")
    new.end(whole=True)
    await until(lambda: late.ended)
    assert late.pieces == [b"new"]


@NEEDS_REDIS
async def test_leaders_that_live_keep_their_claim(
    stores: Callable[[], RedisCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_flights, "LEASE_MS", 1500)
    monkeypatch.setattr(redis_flights, "BEAT_SECONDS", 0.05)
    leader, _ = await claim(SharedFlights(1000, RedisFlights(stores())))
    await asyncio.sleep(2)
    follower, leads = await claim(SharedFlights(1000, RedisFlights(stores())))
    assert not leads
    leader.end(whole=False)
    await until(lambda: follower.ended)


@NEEDS_REDIS
async def test_what_redis_forgets_lets_everybody_go(stores: Callable[[], RedisCache], server: RedisServer) -> None:
    leader, _ = await claim(SharedFlights(1000, RedisFlights(stores())))
    flights = SharedFlights(1000, RedisFlights(stores()))
    follower, _ = await claim(flights)
    server.ask("FLUSHALL")
    await until(lambda: follower.ended)
    assert not follower.whole
    assert (await claim(flights))[1]
    leader.end(whole=True)


@NEEDS_REDIS
async def test_redis_away_leaves_each_worker_by_itself() -> None:
    server = RedisServer()
    store, other = (RedisCache(server.url, "tollgate", timeout=0.1, tenant_bytes=10**7) for _ in range(2))
    leader, _ = await claim(SharedFlights(1000, RedisFlights(store)))
    follower, _ = await claim(SharedFlights(1000, RedisFlights(other)))
    server.close()
    await until(lambda: follower.ended)
    leader.feed(b"x")
    leader.end(whole=True)
    for each in (store, other):
        assert (await claim(SharedFlights(1000, RedisFlights(each))))[1]
    await asyncio.gather(store.close(), other.close())
