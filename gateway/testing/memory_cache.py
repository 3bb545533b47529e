"""The exact cache in memory: for worlds of doubles (see gateway.testing.doubles), where every await is a `Stop`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.config.schema import Cache
from gateway.config.schema import ExactCache as Settings
from gateway.errors import ClientGone
from gateway.policy.cache_rules import CacheRules
from gateway.ports import Entry, Outputs
from gateway.stages.cache import ExactCache
from gateway.stages.semantic import SemanticTier
from gateway.stages.tool_cache import Caches, ToolCache
from gateway.testing.doubles import World
from gateway.testing.turns import Stop

EVERYTHING = Cache(exact=Settings(enabled=True, sampled="all"))


class MemoryCache:
    """`ports.CacheStore`: a dictionary. `far`: a look-up takes a moment."""

    def __init__(self, *, far: bool = False) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.generation = 0
        self.puts: list[Entry] = []
        self.far = far

    async def get(self, key: bytes, tenant: str, now: int) -> tuple[Entry | None, int]:
        if self.far:
            await Stop("look")
        entry = self.entries.get(key)
        return (entry if entry is not None and entry.expires > now else None), self.generation

    def put(self, entry: Entry, generation: int) -> None:
        if generation == self.generation:
            self.entries[entry.key] = entry
            self.puts.append(entry)

    def clear(self) -> None:
        self.entries.clear()
        self.generation += 1


class MemoryFlight:
    """`ports.Flight`: what happens while a follower waits is the test's to say (`script`: one step per wait)."""

    def __init__(self, key: bytes = b"") -> None:
        self.key = key
        self.followers = 0
        self.head: tuple[bytes, bytes] | None = None
        self.ended = self.whole = self.alone = self.stored = self.kept = False
        self.elsewhere: Callable[[MemoryFlight], object] | None = None  # what the claim brings to light
        self.cost: int | None = None
        self.pieces: list[bytes] = []
        self.ends = 0
        self.script: list[Any] = []

    @property
    def followed(self) -> bool:
        return self.followers > 0 and not self.ended

    async def leads(self, tenant: str, key: bytes) -> bool:
        if self.elsewhere is None:
            return True
        await Stop("claim")
        self.elsewhere(self)
        return False

    def begin(self, kind: bytes, head: bytes) -> None:
        self.head = (kind, head)

    def feed(self, data: bytes) -> None:
        if data:
            self.pieces.append(data)

    def end(self, *, whole: bool, alone: bool = False, cost: int | None = None, kept: bool = False) -> None:
        if not self.ended:
            self.ended, self.whole, self.alone, self.cost, self.kept = True, whole, alone, cost, kept
            self.ends += 1

    async def moved(self, down: Any, seconds: float, others: Sequence[Any] = ()) -> bool:
        if down.gone:
            raise ClientGone()
        await Stop("moved")
        if not self.script:
            return False
        self.script.pop(0)(self)
        return True


class MemoryFlights:
    """`ports.Flights`."""

    def __init__(self) -> None:
        self.flights: dict[bytes, MemoryFlight] = {}
        self.led: list[MemoryFlight] = []
        self.elsewhere: list[tuple[Callable[[MemoryFlight], object], list[Any]]] = []
        """Of the next flights: another worker leads them, and what its followers see."""
        self.ahead: MemoryFlight | None = None  # the flight that the next call finds, whatever it asks

    def find(self, key: bytes) -> MemoryFlight | None:
        found = self.flights.get(key)
        if found is None and self.ahead is not None:
            found, self.ahead = self.ahead, None
            found.key = key
        return None if found is None or found.ended else found

    def lead(self, key: bytes) -> MemoryFlight:
        flight = self.flights[key] = MemoryFlight(key)
        if self.elsewhere:
            flight.elsewhere, flight.script = self.elsewhere.pop(0)
        self.led.append(flight)
        return flight

    async def pause(self, down: Any, seconds: float) -> None:
        await Stop("pause")


def cached(
    world: World, settings: Cache = EVERYTHING, *, far: bool = False, tier: SemanticTier | None = None
) -> tuple[MemoryCache, MemoryFlights]:
    """Give the world a cache; returns where its answers are kept, and who waits for whom."""
    store, flights = MemoryCache(far=far), MemoryFlights()
    world.settings["cache"] = ExactCache(
        CacheRules(settings),
        store,
        flights,
        limit=settings.entry_bytes,
        pace=settings.pace,
        patience=settings.flight_seconds if settings.single_flight else 0.0,
        tier=tier,
    )
    return store, flights


def outputs_cached(
    world: World, outputs: Mapping[str, Outputs], *, settings: Cache = EVERYTHING, far: bool = False
) -> MemoryCache:
    """Give the world a cache of the outputs of tools, and none of the answers of models."""
    store, rules = MemoryCache(far=far), CacheRules(settings)
    world.settings["cache"] = Caches(
        None,
        ToolCache(
            outputs,
            store,
            world.links,
            version=rules.version,
            ignored=rules.ignored,
            jitter=0.0,
            limit=settings.entry_bytes,
        ),
    )
    return store
