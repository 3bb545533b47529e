"""Virtual time: hours pass at once, in order, and a wait for nothing is an error."""

import asyncio
import time

import pytest

from gateway.testing.clock import Deadlock, VirtualLoop, run


def test_an_hour_takes_no_time_and_timers_fire_in_order() -> None:
    async def main() -> tuple[list[int], float]:
        order: list[int] = []

        async def after(seconds: int) -> None:
            await asyncio.sleep(seconds)
            order.append(seconds)

        await asyncio.gather(after(3600), after(1), after(60))
        return order, asyncio.get_running_loop().time()

    began = time.monotonic()
    order, now = run(main())
    assert order == [1, 60, 3600]
    assert now == pytest.approx(3600)
    assert time.monotonic() - began < 60


def test_timeouts_use_the_same_clock() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(300):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(300)


def test_nothing_to_wait_for_is_a_deadlock() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run(main())


def test_sockets_still_work() -> None:
    async def main() -> bytes:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\n")
            line = await reader.readline()
            writer.close()
            return line

    assert run(main()) == b"hello\n"


def test_integer_nanoseconds() -> None:
    loop = VirtualLoop()
    try:
        loop.advance(1.5)
        assert loop.time_ns() == 1_500_000_000
    finally:
        loop.close()
