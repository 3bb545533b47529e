"""Looks at the budgets in Redis from any process, without writing: for the API, metrics and the command line.

The same questions as `budget_reader` answers of the file of one machine; it blocks, for at most a second.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from typing import cast

import msgspec
from msgspec import Struct
from redis import Redis
from redis.exceptions import RedisError

from gateway.config.schema import Spending
from gateway.errors import BudgetsUnavailable
from gateway.policy.book_rules import Account, freshen, level_of
from gateway.spend import Adjustment, Rule, Standing, Unit

SECONDS = 1.0
MOST = 20_000  # accounts looked at for one answer
_PAGE = 500


class _Note(Struct, frozen=True, array_like=True):
    """An adjustment, as the script writes it."""

    id: str
    account: str
    delta: int
    reason: str
    who: str
    at: int  # microseconds since the epoch


class Described(Struct, frozen=True, array_like=True):
    """What an account was asked with last."""

    rule: Rule = Rule.TOTAL
    unit: Unit = Unit.USD
    limit: int = 0
    since: int = 0
    until: int = 0
    period: int = 0
    burst: int = 0
    label: str = ""


class RedisReader:
    """Raises BudgetsUnavailable while Redis is away, and ValueError for a URL that is none."""

    def __init__(self, settings: Spending) -> None:
        self._redis = Redis.from_url(
            settings.redis or "", protocol=2, retry=None, socket_timeout=SECONDS, socket_connect_timeout=SECONDS
        )
        self._prefix = f"{{{settings.prefix}}}:"

    def levels(self, accounts: Sequence[str]) -> list[Standing]:
        """How these accounts stand now; those that nobody has asked for yet are left out."""
        try:
            seconds, micros = self._redis.time()
            found: list[tuple[str, dict[bytes, bytes]]] = []
            for start in range(0, len(accounts), _PAGE):
                names = accounts[start : start + _PAGE]
                with self._redis.pipeline(transaction=False) as pipe:
                    for name in names:
                        pipe.hgetall(f"{self._prefix}a:{name}")
                    found += zip(names, pipe.execute(), strict=True)
        except RedisError as error:
            raise BudgetsUnavailable(f"Redis is away: {error}") from error
        now = (seconds * 10**6 + micros) * 1000
        return [_standing(name, fields, now) for name, fields in found if fields]

    def under(self, prefix: str = "", limit: int = 1000, *, after: str = "", over: bool = True) -> list[Standing]:
        """The first accounts, by name, whose names begin so; behind `after`; `over`: also of windows that are over."""
        names = (name for name in self._names(prefix) if name > after)
        return self._first(heapq.nsmallest(MOST, names), limit, lambda one: over or not one.until or one.until > now())

    def in_money(self, limit: int = 1000) -> list[Standing]:
        """The first accounts in USD, by name: of windows that are not over, and of all scopes but runs."""
        names = (name for name in self._names("") if "|usd|" in name and not name.startswith("run:"))
        return self._first(heapq.nsmallest(MOST, names), limit, lambda one: not one.until or one.until > now())

    def _names(self, prefix: str) -> set[str]:
        """Of the accounts that begin so; goes through all keys of the database."""
        start = f"{self._prefix}a:"
        pattern = literal(start + prefix) + "*"
        try:
            return {key.decode().removeprefix(start) for key in self._redis.scan_iter(match=pattern, count=1000)}
        except RedisError as error:
            raise BudgetsUnavailable(f"Redis is away: {error}") from error

    def _first(self, names: list[str], limit: int, wanted: Callable[[Standing], bool]) -> list[Standing]:
        found: list[Standing] = []
        for start in range(0, len(names), _PAGE):
            found += filter(wanted, self.levels(names[start : start + _PAGE]))
            if len(found) >= limit:
                break
        return found[:limit]

    def adjustments(self, limit: int = 100) -> list[Adjustment]:
        """The latest first; the last thousand are kept."""
        try:
            notes = cast("list[bytes]", self._redis.lrange(f"{self._prefix}notes", 0, limit - 1))
        except RedisError as error:
            raise BudgetsUnavailable(f"Redis is away: {error}") from error
        found = [msgspec.msgpack.decode(note, type=_Note) for note in notes]
        return [Adjustment(n.id, n.at * 1000, n.account, n.delta, n.reason, n.who) for n in found]

    def close(self) -> None:
        self._redis.close()


def _standing(name: str, fields: dict[bytes, bytes], now: int) -> Standing:
    told = msgspec.msgpack.decode(fields[b"d"], type=Described) if b"d" in fields else Described()

    def number(field: bytes) -> int:
        return int(fields.get(field, 0))

    slots = sorted((int(field[1:]), int(spent)) for field, spent in fields.items() if field[:1] == b"S")
    account = Account(
        name,
        told.rule,
        told.unit,
        told.limit,
        number(b"s"),
        number(b"r"),
        number(b"o"),
        number(b"f") * 1000,
        number(b"b") * 1000,
        told.since,
        told.until,
        told.period,
        told.burst,
        told.label,
        dict(slots) or None,
    )
    freshen(account, now)
    level = level_of(account, now)
    counts = (level.limit, level.spent, level.reserved, level.resets_at, told.since, told.until)
    return Standing(name, told.rule, told.unit, *counts, 0, told.label)


def now() -> int:
    """Which windows are over is told by the clock of this machine: it is for people."""
    return time.time_ns()


def literal(text: str) -> str:
    """Of a pattern of Redis."""
    return "".join(f"\\{letter}" if letter in "*?[]^\\" else letter for letter in text)
