"""Calls that no client waits for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.call import Request
from gateway.errors import ClientGone, Draining
from gateway.net.shadow import MOST, Nobody, Shadows

REQUEST = Request(b"POST", b"/x", (), b"", checks=7)


async def test_a_request_is_carried_once_by_somebody_who_takes_everything() -> None:
    seen: list[Any] = []

    async def handle(request: Request, down: Nobody, fault: Any) -> None:
        seen.append((request, fault))
        down.start(200, b"OK", b"", None)
        down.write(b"x")
        await down.drained()
        down.hold(True)
        down.upgrade(lambda data: None)
        down.finish(b"y")
        down.abort()

    shadows = Shadows(asyncio.get_running_loop(), handle)
    assert shadows.send(REQUEST)
    assert len(shadows) == 1
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert seen == [(REQUEST, None)]
    assert len(shadows) == 0


async def test_there_are_never_many_and_none_once_the_worker_ends() -> None:
    ended: list[Any] = []

    async def handle(request: Request, down: Nobody, fault: Any) -> None:
        future = asyncio.get_running_loop().create_future()
        down.on_gone = lambda fault: None if future.done() else future.set_exception(fault)
        try:
            await future
        except Draining as fault:
            ended.append(fault)
        with pytest.raises(ClientGone):
            await down.drained()

    shadows = Shadows(asyncio.get_running_loop(), handle)
    assert [shadows.send(REQUEST) for _ in range(MOST + 3)] == [True] * MOST + [False] * 3
    await asyncio.sleep(0)
    shadows.cut()
    assert not shadows.send(REQUEST)
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(ended) == MOST
    assert len(shadows) == 0
