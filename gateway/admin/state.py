"""What the admin API is given: the parts of the recorder it asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec
from aiohttp import web

from gateway.admin.views import Readiness
from gateway.call import Money, Usage
from gateway.config.schema import Config
from gateway.journal.record import OutcomeRecord
from gateway.key import Key
from gateway.policy.cached import Chosen, Desk
from gateway.policy.canary import Decision as CanaryDecision
from gateway.policy.controls import Decision, Standing
from gateway.policy.selection_standing import ScopeStanding
from gateway.ports import Feedback, MatcherState, Noted
from gateway.recorder.ledger_read import LedgerReader
from gateway.spend import Adjustment, Level
from gateway.spend import Standing as Spent

T = TypeVar("T")


class Exposition(Protocol):
    def render(self, accept: str) -> tuple[bytes, str]:
        """(body, content type) for a scrape with this Accept header."""
        ...


class PriceBook(Protocol):
    version: str

    def describe(self, provider: str, model: str) -> Mapping[str, Any]:
        """What is known of a price; `known` says whether anything is."""
        ...

    def price(
        self, provider: str, model: str, usage: Usage, at: float, context: Mapping[str, str] | None = None
    ) -> Money: ...


class Decisions(Protocol):
    """Where decisions are kept. Methods raise OSError where they cannot be, and take their time."""

    def record(self, decision: Decision) -> Standing: ...

    def stopped(self) -> Sequence[Standing]:
        """What is stopped now, the latest first."""
        ...

    def forced(self) -> Sequence[Standing]:
        """Breakers that a person holds open or closed."""
        ...

    def decisions(self, limit: int) -> Sequence[Decision]:
        """The latest first."""
        ...

    def standing(self, scope: str, value: str) -> Standing | None: ...

    def capped(self) -> Sequence[Standing]:
        """Every subject that limits were set for, but runs."""
        ...


class KeyStore(Protocol):
    """Where virtual keys are kept; by name or id. Methods raise KeyError for a key that is not there, KeyRefused for
    what must not be, OSError where the store cannot be used, and take their time. A secret is returned once."""

    def listed(self) -> Sequence[Key]: ...

    def get(self, name: str) -> Key: ...

    def create(self, wanted: Key, who: str) -> tuple[Key, str]: ...

    def rotate(self, name: str, overlap: int, who: str) -> tuple[Key, str]:
        """`overlap`: ns that the secret before stays good."""
        ...

    def disable(self, name: str, who: str, reason: str) -> Key: ...


class BudgetDesk(Protocol):
    """Where budgets are looked at. Methods raise BudgetsUnavailable; those that are not coroutines take their time."""

    def levels(self, accounts: Sequence[str]) -> Sequence[Spent]:
        """Those of them that are there."""
        ...

    def under(self, prefix: str, limit: int, *, after: str = "", over: bool = True) -> Sequence[Spent]:
        """Accounts by name, behind `after`; `over`: also of windows that are over."""
        ...

    def adjustments(self, limit: int) -> Sequence[Adjustment]:
        """The latest first."""
        ...

    async def adjust(self, id: str, account: str, delta: int, reason: str, who: str) -> Level:
        """Book by hand, once for each id. Raises ValueError for accounts that count no amounts."""
        ...


class MatcherDesk(Protocol):
    """Where the matcher is asked and told. Methods raise OSError while it is away, and take their time."""

    def state(self) -> MatcherState: ...

    def say(self, feedback: Feedback) -> Noted: ...

    def forget(self, chosen: Chosen) -> Noted: ...


class Gauges(msgspec.Struct, frozen=True):
    """What is known of the processes beside their readiness."""

    inflight: int = 0
    lost: int = 0  # records that wait for room, or never got it
    reload_ok: bool = True
    reload_message: str = ""
    needs_restart: tuple[str, ...] = ()


@dataclass(frozen=True)
class AdminState:
    """`token` and `prices` are asked at every request: a reload changes them."""

    ledger: LedgerReader
    metrics: Exposition
    prices: Callable[[], PriceBook]
    readiness: Callable[[], Readiness]
    append: Callable[[OutcomeRecord], bool]  # into the journal; False: not written
    event: Callable[[str, dict[str, str | int | float | bool]], object]  # into the journal
    decisions: Decisions
    keys: KeyStore
    budgets: BudgetDesk
    cache: Desk
    matcher: MatcherDesk
    config: Callable[[], Config]  # in force
    gauges: Callable[[], Mapping[str, Mapping[str, float]]]  # of each process, by its name as "w0"; takes its time
    refused: Callable[[], Mapping[tuple[str, ...], int]]  # calls that found no place, by pool and reason
    canaries: Callable[[], list[tuple[CanaryDecision, int]]]  # how each stands, since when; raises OSError
    condition: Callable[[], Gauges]
    learned: Callable[[], list[tuple[ScopeStanding, int]]]  # how each scope stands, since when; raises OSError
    in_force: Callable[[int], bool]  # has every worker taken in the decisions up to this revision?
    caught_up_at: Callable[[], float]  # monotonic: what was written before is in the ledger
    token: Callable[[], str | None]
    now: Callable[[], int]  # ns since the epoch
    new_id: Callable[[], str]
    monotonic: Callable[[], float] = time.monotonic
    touched: set[str] = field(default_factory=set)  # runs that something was decided or said of, for those who listen
    pulse: float = 1.0  # seconds between two looks for those who listen to events
    patience: float = 2.0  # seconds to wait for the ledger to catch up
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4, "admin"))

    def touch(self, run: str) -> None:
        """Something was decided or said of it. A thousand are kept: whoever does not listen misses them anyway."""
        if len(self.touched) < 1000:
            self.touched.add(run)

    async def ask(self, query: Callable[[], T]) -> T:
        """Run a query of the ledger (or anything that takes its time) beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, query)

    async def caught_up(self) -> bool:
        """Wait until the ledger has everything written by now; False where that takes too long."""
        began = self.monotonic()
        while self.caught_up_at() <= began:
            if self.monotonic() > began + self.patience:
                return False
            await asyncio.sleep(0.01)
        return True


STATE = web.AppKey("state", AdminState)


def answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(value), content_type="application/json", headers=headers
    )
