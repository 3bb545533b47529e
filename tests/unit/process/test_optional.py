"""A process that the gateway can do without: it runs where it is wanted, and comes back where it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.config.schema import Config
from gateway.process import child
from gateway.process.control import Configure
from gateway.process.optional import Optional

OBEYS = """
import asyncio, sys
from gateway.process.control import *
async def main():
    done = asyncio.Event()
    def take(message):
        with open(sys.argv[1], "a") as log: log.write(type(message).__name__ + chr(10))
        if isinstance(message, Stop | Drain): done.set()
    await Control.open(child_arguments(sys.argv[2:]).control, take, done.set)
    await done.wait()
asyncio.run(main())
"""
CONFIGURE = Configure(Config(), 1, "/s", "/i", "/j", "l", "a", -1)


class Place:
    def __init__(self, path: Path, code: str = OBEYS) -> None:
        self.log = path / "log"
        self.events: list[tuple[str, Any]] = []
        command = (sys.executable, "-c", code, str(self.log))
        self.matcher = Optional("matcher", command, lambda kind, **detail: self.events.append((kind, detail)))

    def seen(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


async def until(good: Any) -> None:
    for _ in range(4000):
        if good():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("still not so")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setattr(child, "BACKOFF_SECONDS", 0.01)


async def test_it_runs_only_while_it_is_wanted(tmp_path: Path) -> None:
    place = Place(tmp_path)
    await place.matcher.follow(None)
    assert place.matcher.pid == 0
    await place.matcher.follow(CONFIGURE)
    await until(lambda: place.seen() == ["Configure"])
    await place.matcher.follow(CONFIGURE)
    await until(lambda: place.seen() == ["Configure", "Configure"])
    await place.matcher.follow(None)
    await until(lambda: not place.matcher.pid)
    assert place.seen()[-1] == "Stop"
    assert place.events == []


async def test_it_comes_back_where_it_dies_and_that_is_written_down(tmp_path: Path) -> None:
    place = Place(tmp_path)
    await place.matcher.follow(CONFIGURE)
    await until(lambda: place.seen() == ["Configure"])
    killed = place.matcher.pid
    os.kill(killed, signal.SIGKILL)
    await until(lambda: place.seen() == ["Configure", "Configure"])
    assert place.matcher.pid not in (0, killed)
    (event,) = place.events
    assert event[0] == "matcher_died"
    assert (event[1]["pid"], event[1]["cause"]) == (killed, "SIGKILL")
    await place.matcher.end(5, asyncio.Event())
    assert place.matcher.pid == 0
    assert place.seen()[-1] == "Drain"


async def test_one_that_cannot_be_started_is_tried_again_and_nobody_waits(tmp_path: Path) -> None:
    place = Place(tmp_path, "raise SystemExit(3)")
    await place.matcher.follow(CONFIGURE)
    await until(lambda: len(place.events) >= 2)
    place.matcher.kill()
    missing = Optional("matcher", (str(tmp_path / "nothing"),), lambda kind, **detail: None)
    await missing.follow(CONFIGURE)
    assert missing.pid == 0
    missing.kill()
    await asyncio.sleep(0)
