"""The matcher process: `python -m gateway.matcher.service`, started by the supervisor.

What it lacks it says, and goes on without: no embedder, no libraries are misses for the workers, never faults.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from gateway.config import places
from gateway.config.schema import Config
from gateway.journal.append import JournalWriter
from gateway.matcher.server import Server, tell
from gateway.policy.cached import Chosen
from gateway.ports import Feedback, Inquiry, Lesson, Match, MatcherState, Noted
from gateway.process.control import (
    ChildArguments,
    Configure,
    Configured,
    Control,
    Drain,
    Message,
    Ready,
    Stop,
    run_child,
)
from gateway.semantic import parts

WRITER = "match"
TICK_SECONDS = 0.25

_log = logging.getLogger("tollgate.matcher")


class Absent:
    """What stands in for the matcher's mind where its libraries are missing."""

    def __init__(self, trouble: str) -> None:
        self.trouble = trouble

    async def start(self) -> None:
        _log.error("only equal questions are answered: %s", self.trouble)

    async def ask(self, inquiry: Inquiry, until: int) -> Match:
        return Match(why="no_embedder")

    async def learn(self, lesson: Lesson) -> None:
        pass

    def say(self, feedback: Feedback) -> Noted:
        return Noted(0)

    def forget(self, chosen: Chosen) -> Noted:
        return Noted(0)

    def state(self, waiting: int, dropped: int) -> MatcherState:
        return MatcherState("", self.trouble, 0, waiting, dropped, ())

    def reconfigure(self, config: Config) -> None:
        pass

    async def tick(self) -> None:
        pass

    def close(self) -> None:
        pass


class Process:
    """The process as the supervisor sees it: messages in and out."""

    def __init__(self, configure: Configure) -> None:
        self._generation = configure.generation
        self._journal = JournalWriter(Path(configure.journal), WRITER, configure.config.journal)
        self._mind = self._found(configure)
        self._server = Server(self._mind, self._state, time.monotonic_ns)
        self._ending = asyncio.Event()
        self._control: Control | None = None

    def _found(self, configure: Configure) -> Any:
        lacking = [name for name in parts.missing() if name == "numpy"]
        if lacking:
            return Absent(f"numpy is not installed: {parts.advice(lacking)}")
        module = importlib.import_module("gateway.matcher.study")  # what it imports may not be installed
        finders = importlib.import_module("gateway.matcher.sources")
        finder = finders.Finder(Path(configure.state), self._journal.append_event)
        return module.Study(configure.config, finder, self._journal.append_event)

    async def run(self, arguments: ChildArguments, socket: Path) -> int:
        control = self._control = await Control.open(arguments.control, self._on_message, self._ending.set)
        await self._server.listen(socket)
        tasks = [asyncio.create_task(self._server.run()), asyncio.create_task(self._tick())]
        control.send(Configured(self._generation, True))
        control.send(Ready())
        stopped = asyncio.create_task(self._ending.wait())
        done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            tell(task)
        for task in (stopped, *tasks):
            task.cancel()
        self._server.close()
        self._mind.close()
        self._journal.close()
        control.close()
        return int(stopped not in done)

    def _state(self) -> MatcherState:
        found: MatcherState = self._mind.state(len(self._server.lessons), self._server.dropped)
        return found

    async def _tick(self) -> None:
        await self._mind.start()  # it may take seconds; until then it says that it has no embedder
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._journal.tick()
            await self._mind.tick()

    def _on_message(self, message: Message) -> None:
        match message:
            case Configure(config=config, generation=generation):
                self._journal.configure(config.journal)
                self._mind.reconfigure(config)
                if self._control is not None:
                    self._control.send(Configured(generation, True))
            case Drain() | Stop():
                self._ending.set()


async def serve(arguments: ChildArguments, configure: Configure) -> int:
    try:
        return await Process(configure).run(arguments, places.matcher_socket(configure.config))
    except (OSError, sqlite3.Error) as error:  # its file or its socket
        _log.error("matcher: %s", error)
        return 1


if __name__ == "__main__":
    sys.exit(run_child(sys.argv[1:], serve))
