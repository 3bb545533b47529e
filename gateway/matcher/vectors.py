"""Vectors of texts, from whatever makes them: one at a time, those first that a call waits for.

Rules
1. What nobody waits for any more is not computed; what is computed is kept for a while.
2. Questions of calls go before those of fresh answers, which may wait, and are dropped where they are too many.
3. An embedder that fails is asked again after `REST` seconds; until then there are no vectors.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Protocol

from gateway.errors import GatewayError
from gateway.ports_semantic import Embedder, Vectors

BATCH = 16
KEPT = 4096
MOST_URGENT, MOST_OTHER = 512, 2048
REST = 5.0

_log = logging.getLogger("tollgate.matcher")


class Source(Protocol):
    name: str

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One row of length 1 per text. Raises GatewayError."""
        ...


class Local:
    """An embedder of this process, in a thread of its own."""

    def __init__(self, embedder: Embedder, executor: Executor) -> None:
        self.name = embedder.name
        self._embedder = embedder
        self._executor = executor

    async def embed(self, texts: Sequence[str]) -> Vectors:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._embedder.embed, texts)


class _Wanted:
    __slots__ = ("future", "text", "until")

    def __init__(self, text: str, until: int, future: asyncio.Future[Vectors | None]) -> None:
        self.text, self.until, self.future = text, until, future


class Embeddings:
    """`run` makes the vectors that `of` asks for. `monotonic` gives ns."""

    def __init__(self, source: Source | None, monotonic: Callable[[], int]) -> None:
        self.source = source
        self.trouble = ""
        self.dropped = 0
        self._monotonic = monotonic
        self._urgent: deque[_Wanted] = deque()
        self._other: deque[_Wanted] = deque()
        self._known: OrderedDict[str, Vectors] = OrderedDict()
        self._work = asyncio.Event()
        self._resting = 0

    def forget(self) -> None:
        """Another embedder comes."""
        self.source = None
        self._known.clear()

    async def of(self, text: str, until: int) -> Vectors | None:
        """`until`: monotonic ns; 0: it can wait."""
        known = self._known.get(text)
        if known is not None:
            self._known.move_to_end(text)
            return known
        queue, most = (self._urgent, MOST_URGENT) if until else (self._other, MOST_OTHER)
        if self.source is None or self._monotonic() < self._resting or len(queue) >= most:
            self.dropped += self.source is not None
            return None
        future: asyncio.Future[Vectors | None] = asyncio.get_running_loop().create_future()
        queue.append(_Wanted(text, until, future))
        self._work.set()
        return await future

    async def run(self) -> None:
        while True:
            await self._work.wait()
            batch = self._batch()
            if not batch:
                self._work.clear()
                continue
            await self._make(batch)

    def _batch(self) -> list[_Wanted]:
        """What calls wait for; else one of the others, so that no call waits for many."""
        found: list[_Wanted] = []
        now = self._monotonic()
        while self._urgent and len(found) < BATCH:
            wanted = self._urgent.popleft()
            if wanted.until > now:
                found.append(wanted)
            else:
                _give(wanted, None)
        return found or ([self._other.popleft()] if self._other else [])

    async def _make(self, batch: list[_Wanted]) -> None:
        source = self.source
        try:
            vectors = await source.embed([wanted.text for wanted in batch]) if source is not None else None
        except GatewayError as error:
            if str(error) != self.trouble:
                _log.error("no vectors: %s", error)
            self.trouble = str(error)
            self._resting = self._monotonic() + int(REST * 1e9)
            vectors = None
        else:
            self.trouble = ""
        for row, wanted in enumerate(batch):
            if vectors is not None:
                self._remember(wanted.text, vectors[row].copy())
            _give(wanted, self._known.get(wanted.text))

    def _remember(self, text: str, vector: Vectors) -> None:
        self._known[text] = vector
        if len(self._known) > KEPT:
            self._known.popitem(last=False)


def _give(wanted: _Wanted, vector: Vectors | None) -> None:
    if not wanted.future.done():
        wanted.future.set_result(vector)
