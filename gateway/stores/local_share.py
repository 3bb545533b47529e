"""What a worker grants by itself while the shared store is away: a share of each limit, from a book in its memory.

The book outlives an outage: in one window a worker grants its share once, however often the store goes away.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from gateway.policy.book import Book
from gateway.spend import Charge, Demand, Grant, Refusal, Rule

MOST_ACCOUNTS = 50_000
_AS_THEY_ARE = (Rule.LEVEL, Rule.AGE)  # nothing is used up there


class LocalShare:
    def __init__(self, share: float, worker: str) -> None:
        self.share(share)
        self._worker = worker
        self._book = Book()

    def share(self, share: float) -> None:
        """A part of one."""
        self._millionths = round(share * 1e6)

    def reserve(self, op: str, demands: Sequence[Demand], now: int) -> Grant | Refusal:
        """`now`: ns since the epoch. Levels and limits of the answer are those of the share."""
        book = self._book
        if len(book.accounts) > MOST_ACCOUNTS:
            self._forget(now)
        answer = book.reserve(op, [self._shared(demand) for demand in demands], self._worker, now)
        book.touched.clear()
        book.changed.clear()
        return answer

    def settle(self, op: str, charge: Charge, now: int) -> None:
        if op in self._book.holds:
            self._book.settle(op, charge, now)
            self._book.touched.clear()
            self._book.changed.clear()

    def _shared(self, demand: Demand) -> Demand:
        if demand.rule in _AS_THEY_ARE:
            return demand
        limit = demand.limit * self._millionths // 10**6
        burst = demand.burst and max(1, demand.burst * self._millionths // 10**6)
        return structs.replace(demand, limit=limit, burst=burst)

    def _forget(self, now: int) -> None:
        """Windows that are over; nothing else, or a share would be granted again."""
        accounts = self._book.accounts
        for name in [name for name, account in accounts.items() if 0 < account.until < now and not account.reserved]:
            del accounts[name]
