"""The part of a worker's composition root that has to do with upstreams that fail."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gateway.call import Call, Waits
from gateway.config import places
from gateway.config.check_resilience import breaking
from gateway.config.patterns import matches
from gateway.config.schema import Config
from gateway.journal.inflight import Gauges
from gateway.policy.breaker import NANO, Change, Terms
from gateway.policy.chains import Chains
from gateway.policy.overload import Marks, Overload
from gateway.policy.pools import FIGURES, PoolBook
from gateway.policy.priorities import Priorities
from gateway.policy.relief import Relief, shared
from gateway.policy.waits import WaitRules
from gateway.process.heap import trim
from gateway.stages.breaking import Breakers
from gateway.stages.bulkheads import Bulkheads
from gateway.stages.hedge import Hedges
from gateway.stages.hedge import Manner as Hedging
from gateway.stages.probe import Probes
from gateway.stages.shed import Shedder
from gateway.stages.trials import Manner, RetryingTrials
from gateway.stores.aside import Aside
from gateway.stores.flights import Parking, paused
from gateway.stores.late import redis_breakers

if TYPE_CHECKING:
    from gateway.stores.redis_breakers import RedisBreakers

PAGE = os.sysconf("SC_PAGE_SIZE")


class Teller(Protocol):
    """Where a worker says what happens: the journal."""

    @property
    def gauges(self) -> Gauges: ...

    def append_event(self, kind: str, **detail: str | int | float | bool) -> bool: ...


class Yielding(Protocol):
    """What a worker keeps in memory and could do without."""

    @property
    def held(self) -> int: ...

    @property
    def full(self) -> int: ...

    def give_way(self, room: int | None) -> int: ...


def waits_of(config: Config) -> Callable[[Call], Waits]:
    """How long to wait for what, by call."""
    return WaitRules(config.timeouts, {name: upstream.timeouts for name, upstream in config.upstreams.items()}).waits


class Resilience:
    """What a worker keeps of the trials of its configurations."""

    def __init__(self, teller: Teller, index: int) -> None:
        self._teller = teller
        self._breakers: Breakers | None = None
        self._aside = Aside()
        self._shared: RedisBreakers | None = None  # with other gateways
        self._bulkheads = Bulkheads(PoolBook(index), Parking)
        self._overload: Overload | None = None
        self._relief = Relief()
        self.answers: Callable[[], Yielding | None] = lambda: None  # that a cache holds in memory
        self.links: Yielding | None = None  # what joins the calls of runs
        self._stated = 0  # pools whose figures stand in the gauges

    def trials(self, config: Config) -> RetryingTrials:
        """Retries, fallbacks and breakers; also where every call is one attempt, for what is held by hand. A new
        configuration counts anew."""
        retries = config.retries
        before, self._breakers = self._breakers, self._breakers_of(config)
        if before is not None or self._breakers is not None:
            self._teller.append_event("breakers_reset")
        manner = Manner(**{name: getattr(retries, name) for name in retries.__struct_fields__})
        self._bulkheads.book.configure(
            config.bulkheads, Priorities(config.priorities), config.workers, time.monotonic_ns()
        )
        pools, hedges = self._bulkheads if config.bulkheads else None, self._hedges_of(config)
        patience = config.breakers.patience if self._breakers is not None else None
        return RetryingTrials(
            manner,
            Chains(config.fallbacks),
            paused,
            self._breakers,
            hedges=hedges,
            probes=Probes(patience, self._aside) if patience is not None else None,
            bulkheads=pools,
            later=self._aside.later,
        )

    def _hedges_of(self, config: Config) -> Hedges | None:
        """None where there are none. A new configuration learns anew what is late."""
        said = config.hedging
        if not said.enabled:
            return None

        def concerns(call: Call) -> bool:
            return (
                matches(said.route, call.route.template)
                and matches(said.upstream, call.route.upstream)
                and matches(said.agent, call.who.agent)
                and (matches(said.model, call.asked.model) or matches(said.model, call.model_sent))
            )

        return Hedges(Hedging(said.share, said.quantile, said.sample, said.least, concerns), self._aside)

    def shedder(self, config: Config) -> Shedder | None:
        """None: nothing says when there is too much to do."""
        said = config.overload
        marks = Marks(int((said.lag_seconds or 0) * NANO), said.memory_bytes or 0)
        if not (marks.lag or marks.memory):
            self._overload = None
            return None
        if self._overload is None:
            self._overload = Overload(marks)
        self._overload.marks = marks
        return Shedder(self._overload, Priorities(config.priorities))

    def tick(self, late: float) -> None:
        """`late`: seconds that the event loop was."""
        memory = self._relieved()
        if self._overload is not None:
            before = self._overload.level
            self._overload.look(int(late * NANO), memory, time.monotonic_ns())
            if self._overload.level != before:
                self._teller.append_event("overload", level=self._overload.level, cause=self._overload.cause)
        self._teller.gauges.set("overload_level", self._overload.level if self._overload is not None else 0)
        self._tell_pools()
        if self._shared is not None and self._breakers is not None:
            self._shared.tick()
        self._teller.gauges.set("breakers_open", self._breakers.open if self._breakers is not None else 0)

    def _relieved(self) -> int:
        """Bytes of memory, after the caches gave back what they have to before calls are sent away; 0: they do not
        matter."""
        mark = self._overload.marks.memory if self._overload is not None else 0
        if not mark and self._relief.room is None:
            return 0
        memory = resident() if mark else 0
        answers, links = self.answers(), self.links
        held, full = [sum([getattr(one, name) for one in (answers, links) if one]) for name in ("held", "full")]
        room = self._relief.look(memory, mark, held, full, time.monotonic_ns())
        rooms = shared(room, links.held if links is not None else 0)
        given = [one.give_way(own) if one is not None else 0 for one, own in zip((answers, links), rooms, strict=True)]
        if not any(given):
            return memory
        trim()
        self._teller.append_event("caches_shrunk", answers=given[0], links=given[1], memory=memory, mark=mark)
        return resident()

    def _tell_pools(self) -> None:
        rows = list(self._bulkheads.book.standing().values())
        for at in range(max(len(rows), self._stated)):
            for figure, value in zip(FIGURES, rows[at] if at < len(rows) else (0, 0, 0), strict=True):
                self._teller.gauges.set(f"pool{at}_{figure}", value)
        self._stated = len(rows)

    def _breakers_of(self, config: Config) -> Breakers | None:
        if not breaking(config):
            return None
        self._share(config)
        said = config.breakers
        terms = Terms(
            window=int(said.window * NANO),
            volume=said.volume,
            failures=said.failure_rate,
            slow=said.slow_rate if said.slow_seconds is not None else 1.0,
            consecutive=said.consecutive,
            pause=int(said.pause * NANO),
            longest=int(said.longest * NANO),
            probes=said.probes,
        )

        def tell(name: str, change: Change) -> None:
            if (
                made is self._breakers
            ):  # else a call ended that began before a reload: nobody asks that breaker any more
                self._tell(name, change)

        made = Breakers(terms, slow=int((said.slow_seconds or 0) * NANO), refuse=said.refuse, tell=tell)
        return made

    async def close(self) -> None:
        if self._shared is not None:
            await self._shared.close()

    def _share(self, config: Config) -> None:
        """With other gateways, where they have a Redis in common. Another one needs a restart. Raises ValueError."""
        url = config.spending.redis or places.cache_redis(config)
        if self._shared is None and url is not None:
            self._shared = redis_breakers(url, config.spending.prefix, self._adopt)

    def _adopt(self, name: str, *, opened: bool, until: int, at: int) -> None:
        if self._breakers is not None:
            change = self._breakers.adopt(name, opened=opened, until=until, at=at, now=time.monotonic_ns())
            if change is not None:
                self._note(name, change)

    def _tell(self, name: str, change: Change) -> None:
        if self._shared is not None:
            self._shared.tell(name, change)
        self._note(name, change)

    def _note(self, name: str, change: Change) -> None:
        seconds = max(0.0, (change.until - time.monotonic_ns()) / NANO) if change.until else 0.0
        state = str(change.state)
        self._teller.append_event("breaker", breaker=name, state=state, why=change.why, seconds=round(seconds, 3))


def resident() -> int:
    """Bytes of memory that this process has; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * PAGE
    except (OSError, IndexError, ValueError):
        return 0
