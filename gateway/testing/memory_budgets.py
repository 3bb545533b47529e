"""Budgets in memory, for the world of gateway.testing.doubles: the book, with a stop wherever a store would wait.

world = World()
budgets = limit(world, runs=Runs(budget_usd=0.01))
...
budgets.spent("run:run-1|usd|life")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any

from gateway.config.schema import Budget, Limits, Runs, Spending
from gateway.policy import limits as policy
from gateway.policy.book import Book, State
from gateway.policy.ceiling import Ceiling
from gateway.policy.priorities import Priorities
from gateway.spend import Charge, Demand, Grant, Refusal
from gateway.stages.admit import Admitter, Manner
from gateway.testing.doubles import FlatPrices, Log, World
from gateway.testing.turns import Stop

NOW = 1_790_000_000_000_000_000


class MemoryBudgets:
    """`ports.Budgets` over a `Book`. `on_wait` is what happens elsewhere while somebody waits in `freed`."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.ranks: list[tuple[int, int]] = []  # of those that waited
        self.book = Book()
        self.charges: list[tuple[str, Charge]] = []
        self.asked: list[Sequence[Demand]] = []
        self.on_wait: Callable[[], None] = lambda: None

    async def reserve(self, op: str, demands: Sequence[Demand]) -> Grant | Refusal:
        await Stop("reserve")
        self.asked.append(demands)
        answer = self.book.reserve(op, demands, "me", NOW)
        self.log.append(("reserve", isinstance(answer, Grant)))
        return answer

    def settle(self, op: str, charge: Charge) -> None:
        if self.book.settle(op, charge, NOW):
            self.charges.append((op, charge))
            self.log.append(("settle", charge))

    async def freed(self, seconds: float, rank: tuple[int, int] = (0, 0)) -> None:
        self.ranks.append(rank)
        await Stop("freed")
        self.on_wait()

    @property
    def held(self) -> list[str]:
        """Operations whose hold stands."""
        return [op for op, hold in self.book.holds.items() if hold.state is State.LIVE]

    def spent(self, account: str) -> int:
        return self.book.accounts[account].spent

    def spend(self, account: Demand, amount: int) -> None:
        """Book something for an account beforehand."""
        self.book.reserve("before", [account], "me", NOW)
        charge = Charge(**{"calls": 0, str(account.unit): amount})
        self.book.settle("before", charge, NOW)


def limit(
    world: World,
    *,
    budgets: tuple[Budget, ...] = (),
    runs: Runs | None = None,
    limits: Limits | None = None,
    spending: Spending | None = None,
    **manner: Any,
) -> MemoryBudgets:
    """Limit the world's gateway; returns its books."""
    kept = MemoryBudgets(world.log)
    settings = spending or Spending()
    world.settings["admission"] = Admitter(
        kept,
        policy.Limits(budgets, runs or Runs(), limits or Limits(), settings, UTC),
        Ceiling(FlatPrices(), output=settings.output_ceiling),
        world.links,
        Manner(**{"clamp_floor": settings.clamp_floor, "queue_seconds": settings.queue_seconds, **manner}),
        urgency=Priorities(()).of,
    )
    return kept
