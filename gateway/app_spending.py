"""The part of a worker's composition root that has to do with money: budgets, limits, keys, and runaway agents."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

from msgspec import structs

from gateway.config import places
from gateway.config.address import parse_address
from gateway.config.schema import Config, Spending
from gateway.config.semantics import ALLOW_OPEN
from gateway.dialects.steps import newest_step
from gateway.journal.inflight import Gauges
from gateway.policy.caps import configured
from gateway.policy.ceiling import Ceiling
from gateway.policy.controls import LOOP_BREAKER, Caps, Decision, Kind, Scope
from gateway.policy.limits import Limits
from gateway.policy.loop import LoopBreaker, active
from gateway.policy.priorities import Priorities
from gateway.policy.token_bound import Pieces
from gateway.ports import Budgets, Links, Prices
from gateway.stages.admit import Admitter, Manner
from gateway.stores.late import redis_budgets
from gateway.stores.sqlite_budgets import SqliteBudgets
from gateway.stores.sqlite_controls import ControlsUnusable, SqliteDecisions
from gateway.stores.sqlite_keys import SqliteKeys

TICK_SECONDS = 1.0  # between renewals of a lease in a file


class Store(Budgets, Protocol):
    """Budgets with the upkeep that a worker owes them, and what is to be told of them."""

    @property
    def available(self) -> bool: ...

    @property
    def waiting(self) -> int:
        """Settles that the store does not have yet."""
        ...

    @property
    def lost(self) -> int:
        """Settles that could not be kept."""
        ...

    @property
    def expired(self) -> int:
        """Holds of dead workers that were charged or freed by this one."""
        ...

    def tick(self) -> None: ...

    def configure(self, settings: Spending) -> None: ...


class Teller(Protocol):
    """Where a worker says how it is: the journal."""

    @property
    def gauges(self) -> Gauges: ...

    def append_event(self, kind: str, **detail: str | int | float | bool) -> bool: ...


class Purse:
    """What a worker keeps for all its configurations: the store of budgets, the keys, what bounds were worked out."""

    def __init__(self, config: Config, index: int, links: Links, on_fault: Callable[[str], None]) -> None:
        self.store, self._close = store_of(config.spending, places.state(config), index)
        self._admitters: list[tuple[Admitter, Config]] = []
        self._caps: Mapping[tuple[str, str], Caps] = {}
        self._shared = config.spending.redis is not None  # with machines that must see this worker alive
        self.keys = SqliteKeys(places.keys(config), places.pepper(config), required=is_exposed(config))
        self._decisions = SqliteDecisions(places.controls(config))
        self._links = links
        self._pieces = Pieces()
        self._on_fault = on_fault
        self._told: dict[str, int] = {}  # of what is counted, how much the journal has
        self._tick_at = 0.0

    def admitter(self, config: Config, prices: Prices) -> Admitter:
        spending = config.spending
        admitter = Admitter(
            self.store,
            self._limits(config),
            Ceiling(prices, output=spending.output_ceiling, pieces=self._pieces),
            self._links,
            Manner(
                clamp_floor=spending.clamp_floor,
                queue_seconds=spending.queue_seconds,
                stop_overruns=spending.on_overrun == "stop",
                learn=any(budget.soft for budget in config.budgets),
            ),
            urgency=Priorities(config.priorities).of,
        )
        self._admitters = [*self._admitters[-1:], (admitter, config)]
        return admitter

    def _limits(self, config: Config) -> Limits:
        budgets, rates = configured(self._caps)
        limits = structs.replace(config.limits, rates=(*config.limits.rates, *rates))
        spending = config.spending
        return Limits((*config.budgets, *budgets), config.runs, limits, spending, zone_of(spending.timezone))

    def cap(self, caps: Mapping[tuple[str, str], Caps]) -> None:
        """What people set for scopes, beside what is configured. To be told again only when it has changed."""
        if caps is not self._caps:
            self._caps = caps
            for admitter, config in self._admitters:
                admitter.relimit(self._limits(config))

    def loops(self, config: Config) -> LoopBreaker | None:
        return LoopBreaker(config.loops, self._links, newest_step) if active(config.loops) else None

    def halt(self, run_id: str, reason: str) -> None:
        """The breaker stops a run: as a person would, so that it stays stopped everywhere until a person resumes it."""
        decision = Decision(Kind.KILL, Scope.RUN, run_id, reason=reason, who=LOOP_BREAKER, at=time.time_ns())
        try:
            self._decisions.record(decision)
        except ControlsUnusable as error:
            self._on_fault(str(error))

    def configure(self, config: Config) -> None:
        self.store.configure(config.spending)

    def tick(self, now: float) -> None:
        self.keys.refresh()
        if self._shared:
            self.store.tick()
        elif now >= self._tick_at and any(admitter.used for admitter, _ in self._admitters):
            self._tick_at = now + TICK_SECONDS
            self.store.tick()

    def tell(self, teller: Teller) -> None:
        """How the store is, for metrics. Before `tick`, which forgets a fault to try again."""
        store, gauges = self.store, teller.gauges
        gauges.set("budget_store_available", float(store.available))
        gauges.set("budget_settles_waiting", float(store.waiting))
        for kind, count in (("holds_expired", store.expired), ("settles_lost", store.lost)):
            if count > (told := self._told.get(kind, 0)):
                self._told[kind] = count
                teller.append_event(kind, count=count - told)

    async def close(self) -> None:
        self.keys.close()
        await self._close()


def is_exposed(config: Config) -> bool:
    """Can others than this machine's users reach the gateway, without the operator's word that they may?"""
    return not parse_address(config.listen).loopback and os.environ.get(ALLOW_OPEN) != "1"


def zone_of(name: str) -> tzinfo:
    """UTC needs no time zone data, which a slim machine may lack."""
    return UTC if name == "UTC" else ZoneInfo(name)


def store_of(spending: Spending, state: Path, index: int) -> tuple[Store, Callable[[], Awaitable[None]]]:
    """The store of budgets, and how it is closed."""
    if spending.redis is not None:
        remote = redis_budgets(spending, state)
        return remote, remote.close
    local = SqliteBudgets(
        state / "budgets.sqlite",
        f"{index}.{os.getpid()}.{time.time_ns()}",
        charge_dead=spending.on_dead_worker == "charge",
        lease_seconds=spending.lease_seconds,
    )

    async def close() -> None:
        local.close()

    return local, close
