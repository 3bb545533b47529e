"""Turns of the event loop, counted by a callback that comes back in each."""

from __future__ import annotations

import asyncio
from threading import Event

import pytest

from gateway.net.turns import Turns


class Wheel:
    """Counts the turns of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.turn = loop, 0

    def roll(self) -> None:
        self.turn += 1
        self.loop.call_soon(self.roll)


def test_one_piece_of_work_in_each_turn_whoever_waits() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        turns, wheel, done = Turns(loop), Wheel(loop), list[tuple[int, str]]()
        loop.call_soon(wheel.roll)

        async def work(name: str) -> None:
            for _ in range(5):
                await turns.next()
                done.append((wheel.turn, name))

        await asyncio.gather(*(work(name) for name in "abc"))
        assert [name for _, name in done] == list("abc") * 5, "each in its turn"
        assert len({turn for turn, _ in done}) == 15, "and never two in one"

    asyncio.run(scenario())


def test_who_gives_up_waiting_takes_no_turn() -> None:
    async def scenario() -> None:
        turns = Turns(asyncio.get_running_loop())
        first, second, third = (asyncio.ensure_future(turns.next()) for _ in range(3))
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        await third
        fourth = asyncio.ensure_future(turns.next())
        await asyncio.sleep(0)
        fourth.cancel()
        await asyncio.gather(first, second, fourth, return_exceptions=True)
        await turns.next()  # none was lost with them

    asyncio.run(scenario())


def test_the_loop_goes_on_while_something_is_done_aside() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        turns, wheel, seen = Turns(loop), Wheel(loop), Event()
        loop.call_soon(wheel.roll)

        def work() -> int:
            began = wheel.turn
            assert seen.wait(60), "the loop stands still"
            return began

        loop.call_later(0, lambda: loop.call_later(0, seen.set))
        assert await turns.aside(work) < wheel.turn
        with pytest.raises(ZeroDivisionError):
            await turns.aside(lambda: 1 // 0)

    asyncio.run(scenario())
