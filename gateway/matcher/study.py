"""All parts of the matcher that need numpy, put together. Apart from `service`, which can say that it is missing."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from gateway.config import places
from gateway.config.schema import Config
from gateway.errors import EmbedderUnavailable
from gateway.matcher.compare import Comparer, Judge
from gateway.matcher.engine import Engine, Event, Outside
from gateway.matcher.memory import Memory
from gateway.matcher.scopes import Scopes
from gateway.matcher.server import tell
from gateway.matcher.shelf import Shelf
from gateway.matcher.vectors import Embeddings, Source
from gateway.policy.cached import Chosen
from gateway.ports import Feedback, Inquiry, Lesson, Match, MatcherState, Noted

TIDY_SECONDS = 10.0
AGAIN_SECONDS = 30.0  # between two looks for an embedder that is missing


class Finder(Protocol):
    """Where what a configuration names is found; gateway.matcher.sources."""

    def find(self, config: Config, executor: ThreadPoolExecutor) -> Source:
        """The embedder. May take seconds; raises EmbedderUnavailable, OSError."""
        ...

    def judge(self, config: Config) -> Judge | None: ...


_log = logging.getLogger("tollgate.matcher")


class Study:
    """Implements server.Mind. Raises OSError or sqlite3.Error where its file cannot be used at all."""

    def __init__(self, config: Config, finder: Finder, event: Event) -> None:
        self._config = config
        self._finder = finder
        self._executor = ThreadPoolExecutor(1, "embedder")
        self._numbers = itertools.count(time.time_ns())  # never those of a former process
        self._embeddings = Embeddings(None, time.monotonic_ns)
        self._comparer = Comparer(self._embeddings.of)
        self._memory = Memory(places.matcher(config), "")
        self._scopes = Scopes(self._memory)
        self._shelf = Shelf(config.cache.semantic.entries)
        self._engine = self._made(event)
        self._due = {"tidy": 0.0, "find": 0.0}
        self._tasks: list[asyncio.Task[None]] = []
        self.reconfigure(config)

    def _made(self, event: Event) -> Engine:
        outside = Outside(
            embed=self._embeddings.of,
            same=self._comparer.same,
            event=event,
            now=time.time_ns,
            monotonic=time.monotonic_ns,
            draw=random.random,
            unique=lambda: next(self._numbers),
        )
        return Engine(self._shelf, self._memory, self._scopes, outside)

    async def start(self) -> None:
        self._scopes.load(time.time_ns())
        await self._seek()
        self._tasks.append(asyncio.create_task(self._embeddings.run()))
        for task in self._tasks:
            task.add_done_callback(tell)

    async def _seek(self) -> None:
        """Find the embedder, and what was remembered of it."""
        config = self._config
        loop = asyncio.get_running_loop()
        try:
            source = await loop.run_in_executor(self._executor, self._finder.find, config, self._executor)
        except (EmbedderUnavailable, OSError) as error:
            if str(error) != self._embeddings.trouble:
                _log.error("only equal questions are answered: %s", error)
            self._embeddings.trouble = str(error)
            return
        _log.info("similar questions are found with %s", source.name)
        self._embeddings.source, self._embeddings.trouble = source, ""
        self._memory.use(source.name)
        self._engine.load()

    def reconfigure(self, config: Config) -> None:
        semantic, before = config.cache.semantic, self._config.cache.semantic
        self._config = config
        self._shelf.most = semantic.entries
        self._comparer.judge = self._finder.judge(config)
        self._comparer.by_sense = semantic.compare == "sense"
        self._engine.shadow_share = semantic.shadow_share
        self._engine.ttl = int(max([semantic.ttl, *[rule.ttl or 0 for rule in semantic.rules]]) * 1e9)
        if semantic.embedder != before.embedder:  # its vectors cannot be compared with those of the other
            self._embeddings.forget()
            self._shelf.clear()
            self._due["find"] = 0.0

    async def tick(self) -> None:
        """Several times a second."""
        now = time.monotonic()
        if self._embeddings.source is None and self._is_due("find", now, AGAIN_SECONDS):
            await self._seek()
        if self._is_due("tidy", now, TIDY_SECONDS):
            self._engine.tidy()
            await self._order()
        self._engine.step()

    async def _order(self) -> None:
        """Large partitions are put in order beside their use."""
        index = self._shelf.wanting()
        if index is not None:
            training = index.training()
            await asyncio.get_running_loop().run_in_executor(None, training.run)
            index.adopt(training)

    def _is_due(self, what: str, now: float, every: float) -> bool:
        due = now >= self._due[what]
        if due:
            self._due[what] = now + every
        return due

    async def ask(self, inquiry: Inquiry, until: int) -> Match:
        return await self._engine.ask(inquiry, until)

    async def learn(self, lesson: Lesson) -> None:
        await self._engine.learn(lesson)

    def say(self, feedback: Feedback) -> Noted:
        return self._engine.say(feedback)

    def forget(self, chosen: Chosen) -> Noted:
        return self._engine.forget(chosen)

    def state(self, waiting: int, dropped: int) -> MatcherState:
        source = self._embeddings.source
        return self._engine.state(
            embedder=source.name if source is not None else "",
            trouble=self._embeddings.trouble,
            waiting=waiting,
            dropped=dropped + self._embeddings.dropped,
        )

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._engine.keep()
        self._memory.close()
        self._executor.shutdown(wait=False, cancel_futures=True)
