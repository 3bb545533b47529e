"""Equal calls at once: who waits, who is told, and who is let go."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import ClientGone, RunStopped
from gateway.stores.flights import LocalFlights, Parking
from gateway.testing.doubles import MemoryDown


def down() -> MemoryDown:
    return MemoryDown([])


async def test_everybody_who_waits_is_told_of_everything() -> None:
    flights = LocalFlights(100)
    flight = flights.lead(b"k")
    assert flights.find(b"k") is flight
    waiting = [asyncio.create_task(flight.moved(down(), 5)) for _ in range(3)]
    await asyncio.sleep(0)
    flight.begin(b"text/event-stream", b"")
    assert await asyncio.gather(*waiting) == [True] * 3
    waiting = [asyncio.create_task(flight.moved(down(), 5)) for _ in range(3)]
    await asyncio.sleep(0)
    flight.feed(b"a")
    assert await asyncio.gather(*waiting) == [True] * 3
    flight.feed(b"")
    assert flight.pieces == [b"a"]
    flight.end(whole=True, cost=7)
    assert (flight.ended, flight.whole, flight.cost, len(flights)) == (True, True, 7, 0)
    flight.end(whole=False)
    flight.feed(b"late")
    assert (flight.whole, flight.pieces) == (True, [b"a"])


async def test_time_and_the_own_client_end_the_waiting() -> None:
    flight = LocalFlights(100).lead(b"k")
    assert not await flight.moved(down(), 0.01)
    gone = down()
    gone.gone = True
    with pytest.raises(ClientGone):
        await flight.moved(gone, 5)
    told = down()
    waiting = asyncio.create_task(flight.moved(told, 5))
    await asyncio.sleep(0)
    assert told.on_gone is not None
    told.on_gone(RunStopped("stop"))
    told.on_gone(RunStopped("again"))
    with pytest.raises(RunStopped):
        await waiting
    assert told.on_gone is None
    assert flight._waiting == []


async def test_a_waiter_that_is_cancelled_leaves_nothing() -> None:
    flight = LocalFlights(100).lead(b"k")
    waiting = asyncio.create_task(flight.moved(down(), 5))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert flight._waiting == []
    flight.feed(b"x")


async def test_one_wait_is_for_many_and_leaves_nothing() -> None:
    flights = LocalFlights(100)
    slow, latest = flights.lead(b"k"), flights.lead(b"k")
    for one in (slow, latest):
        asyncio.get_running_loop().call_soon(one.begin, b"text/plain", b"")
        assert await latest.moved(down(), 10, [slow])
        assert (slow._waiting, latest._waiting) == ([], [])
    assert not await latest.moved(down(), 0, [slow])
    assert (slow._waiting, latest._waiting) == ([], [])


async def test_a_new_leader_takes_the_place_and_the_old_one_ends_without_it() -> None:
    flights = LocalFlights(100)
    old = flights.lead(b"k")
    new = flights.lead(b"k")
    old.end(whole=False)
    assert flights.find(b"k") is new


async def test_nobody_joins_what_is_too_large_to_be_kept() -> None:
    flights = LocalFlights(10)
    flight = flights.lead(b"k")
    flight.feed(b"12345678901")
    assert flights.find(b"k") is None
    assert not flight.ended


async def test_a_pause_ends_by_itself_or_with_the_client() -> None:
    flights = LocalFlights(10)
    await flights.pause(down(), 0.001)
    gone = down()
    gone.gone = True
    with pytest.raises(ClientGone):
        await flights.pause(gone, 5)


async def test_who_leaves_just_as_the_wait_ends_is_not_forgotten() -> None:
    gone, parking = down(), Parking()
    waiting = asyncio.create_task(parking.until(gone, 60))
    await asyncio.sleep(0)
    parking.wake()  # its place is free; before the call goes on its client leaves
    assert gone.on_gone is not None
    gone.on_gone(ClientGone())
    with pytest.raises(ClientGone):
        await waiting
    assert gone.on_gone is None
