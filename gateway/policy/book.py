"""The budget book: accounts, and what operations hold of them. No I/O, no clock; a store keeps it and tells the time.

Rules
1. An operation holds all of its demands or none. The same operation again replaces its hold; where that is refused the
   old hold stands.
2. A hold is settled once: afterwards it is not known. What is not known is not settled.
3. A hold that expires (its owner died) is charged as reserved, or freed. It stays known: a late settle then books what
   is more than was charged, or, where it was freed, the whole cost. It gives nothing back. So with `charge` no account
   goes over by a death; with `free` it may, by what was freed.
4. A store puts every account and hold that an operation names into `accounts` and `holds` before, if it has them, and
   writes `touched` and `changed` afterwards. An account that is missing is a new one.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

from msgspec import Struct

from gateway.policy import book_rules as rules
from gateway.policy.book_rules import AGE, LEVEL, RATE, ROLLING, TOTAL, Account
from gateway.spend import Charge, Demand, Grant, Level, Refusal

MOST_CHARGED = 2**53  # by one operation, of one unit; what an upstream reports may be anything


class State(enum.IntEnum):
    """Of a hold."""

    LIVE = 0
    CHARGED = 1  # expired, and what was reserved is spent
    FREED = 2  # expired, and nothing was spent


LIVE, CHARGED, FREED = State.LIVE, State.CHARGED, State.FREED


class Hold(Struct, gc=False):
    op: str
    owner: str
    at: int  # when it was made, or expired; ns since the epoch
    state: State
    parts: Sequence[tuple[str, int]]  # account, amount reserved
    stored: bool = False  # a store has a row of this operation


class Book:
    """Times are ns since the epoch and do not go back."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.holds: dict[str, Hold] = {}
        self.touched: dict[str, Account] = {}  # changed since the store last cleared this
        self.changed: dict[str, Hold | None] = {}  # op -> its hold now; None: settled

    def reserve(self, op: str, demands: Sequence[Demand], owner: str, now: int) -> Grant | Refusal:
        known = self.holds.get(op)
        old = known if known is not None and known.state is LIVE else None  # what expired is over: this is a new hold
        before = self._lift(old, now) if old is not None else {}
        taken: list[tuple[Account, int]] = []
        levels: list[Level] = []
        if not self._take(demands, taken, levels, now):
            for account, amount in taken:
                rules.untake(account, amount)
            refusal = self._refusal(op, demands, len(levels), now)
            if old is not None:
                self._put_back(old, before)
            return refusal
        touched = self.touched
        for name in before:
            touched[name] = self.accounts[name]
        parts = []
        for account, amount in taken:
            touched[account.name] = account
            if account.rule is not AGE:
                parts.append((account.name, amount))
            elif not account.first:
                account.first = now
        self.holds[op] = self.changed[op] = Hold(op, owner, now, LIVE, parts, known is not None and known.stored)
        return Grant(op, levels, now)

    def settle(self, op: str, charge: Charge, now: int) -> bool:
        """False: there was no such hold, or it was settled before."""
        hold = self.holds.pop(op, None)
        if hold is None:
            return False
        self.changed[op] = None
        for name, reserved in hold.parts:
            account = self.accounts.get(name)
            if account is None:  # forgotten: its window is long over
                continue
            rules.freshen(account, now)
            actual = charge.of(account.unit)
            if not 0 <= actual <= MOST_CHARGED:
                actual = min(max(actual, 0), MOST_CHARGED)
            _settle(account, hold.state, reserved, actual, now)
            self.touched[name] = account
        return True

    def expire(self, owner: str, now: int, *, charge: bool) -> int:
        """What a dead owner held is charged or freed. Returns how many holds expired."""
        held = [hold for hold in self.holds.values() if hold.owner == owner and hold.state is LIVE]
        for hold in held:
            self.lapse(hold.op, now, charge=charge)
        return len(held)

    def lapse(self, op: str, now: int, *, charge: bool) -> bool:
        """Expire one hold."""
        hold = self.holds.get(op)
        if hold is None or hold.state is not LIVE:
            return False
        for name, amount in hold.parts:
            account = self.accounts.get(name)
            if account is None:
                continue
            rules.freshen(account, now)
            if not charge:
                rules.release(account, amount)
            elif account.rule is not RATE:  # there it is in the bucket already
                rules.release(account, amount)
                rules.book(account, amount, now)
            self.touched[name] = account
        hold.state, hold.at = CHARGED if charge else FREED, now
        self.changed[op] = hold
        return True

    def adjust(self, name: str, delta: int, now: int) -> Level:
        """Book an amount by hand; negative ones give credit.

        Raises ValueError for accounts that count no amounts.
        """
        account = self.accounts.get(name)
        if account is None:
            account = self.accounts[name] = Account(name)
        if account.rule not in (TOTAL, ROLLING, RATE):
            raise ValueError(f"{name}: counts what is under way, which cannot be adjusted")
        rules.freshen(account, now)
        rules.book(account, delta, now)
        self.touched[name] = account
        return rules.level_of(account, now)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Which of these accounts a store should look for."""
        return [name for name in names if name not in self.accounts]

    def _take(self, demands: Sequence[Demand], taken: list[tuple[Account, int]], levels: list[Level], now: int) -> bool:
        """Reserve one demand after the other; False at the first that does not fit."""
        for demand in demands:
            if demand.rule is LEVEL:
                if demand.amount > demand.limit:
                    return False
                levels.append(Level(demand.account, demand.limit, 0, demand.amount))
                continue
            account = self._account(demand, now)
            if not rules.take(account, demand.amount, now):
                return False
            taken.append((account, demand.amount))
            levels.append(rules.level_of(account, now))
        return True

    def _account(self, demand: Demand, now: int) -> Account:
        account = self.accounts.get(demand.account)
        if account is None:
            account = self.accounts[demand.account] = Account(demand.account)
            rules.describe(account, demand, now)
        elif (
            account.limit != demand.limit
            or account.until != demand.until
            or account.rule is not demand.rule
            or account.period != demand.period
            or account.burst != demand.burst
            or account.unit is not demand.unit
        ):
            rules.describe(account, demand, now)
            self.touched[account.name] = account
        else:
            rules.freshen(account, now)
        return account

    def _refusal(self, op: str, demands: Sequence[Demand], failed: int, now: int) -> Refusal:
        """`failed`: the demand that stopped it, which may have been the second one of its account."""
        index, waits, pending, rooms, shown = -1, [], True, [], Level("", 0, 0, 0)
        for n, demand in enumerate(demands):
            if demand.rule is LEVEL:
                room, fitting, wait, helps = demand.limit, demand.amount <= demand.limit, 0, False
                level = Level(demand.account, demand.limit, 0, 0)
            else:
                account = self._account(demand, now)
                room, fitting = rules.available(account, now), rules.fits(account, demand.amount, now)
                wait, helps = rules.wait(account, demand.amount, now), rules.pending(account, demand.amount)
                level = rules.level_of(account, now)
            rooms.append(max(0, room))
            if not fitting or n == failed:
                if index < 0:
                    index, shown = n, level
                waits.append(wait)
                pending = pending and helps
        retry_after = max(waits) if all(waits) else 0
        return Refusal(op, index, shown, rooms, retry_after, pending, now)

    def _lift(self, old: Hold, now: int) -> dict[str, int]:
        """Release a hold that is to be replaced; returns what was in the buckets of its accounts."""
        before: dict[str, int] = {}
        for name, amount in old.parts:
            account = self.accounts.get(name)
            if account is not None:
                rules.freshen(account, now)
                before.setdefault(name, account.level)
                rules.release(account, amount)
        return before

    def _put_back(self, old: Hold, before: dict[str, int]) -> None:
        for name, amount in old.parts:
            if name in before:
                account = self.accounts[name]
                if account.rule is RATE:
                    account.level = before[name]
                else:
                    account.reserved += amount


def _settle(account: Account, state: State, reserved: int, actual: int, now: int) -> None:
    if state is LIVE:
        if account.rule is RATE:
            rules.book(account, actual - reserved, now)
        else:
            rules.release(account, reserved)
            rules.book(account, actual, now)
    elif state is FREED:
        rules.book(account, actual, now)
    elif actual > reserved:
        rules.book(account, actual - reserved, now)
