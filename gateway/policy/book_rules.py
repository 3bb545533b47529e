"""What each rule counts, and when it says no: arithmetic on one account at a given time.

    rule      kept between calls                          fits                                 when settled
    TOTAL     spent, reserved                             spent + reserved + amount <= limit   spent += actual
    ROLLING   spent in each sixtieth of the period        the same over the last 61 of them    that of now += actual
    RATE      level of a bucket that drains               level + amount <= burst              level += actual - held
    SLOTS     reserved                                    reserved + amount <= limit           nothing stays
    AGE       when it was first granted                   now - first <= limit seconds         nothing changes
    LEVEL     nothing                                     amount <= limit                      nothing changes

Rules
1. Whole numbers only. What is spent is never lowered to fit a limit: debt keeps an account closed until it is over.
2. ROLLING counts the slot in which the period begins in full: in no window of `period` can more than the limit be
   spent. What is reserved counts for as long as it is.
3. RATE is GCRA, kept as the level of the bucket (in units times microseconds of the period) in place of a time of
   arrival: it stays exact when the limit changes, and no odd number is rounded. What a settle gives back is there for
   others at once: over any time the use is at most `burst` plus what drained; at one instant more than `burst` may
   have begun only by as much as was given back.
"""

from __future__ import annotations

from msgspec import Struct

from gateway.spend import Demand, Level, Rule, Unit

SLOTS_PER_PERIOD = 60
MOST = 2**62  # where a count stays: databases keep 64 bits
MICRO = 1000
SECOND = 10**9

TOTAL, ROLLING, RATE, SLOTS, AGE, LEVEL = (
    *(Rule.TOTAL, Rule.ROLLING, Rule.RATE),
    *(Rule.SLOTS, Rule.AGE, Rule.LEVEL),
)


class Account(Struct, gc=False):
    """One account; changed in place by the functions below."""

    name: str
    rule: Rule = Rule.TOTAL
    unit: Unit = Unit.USD
    limit: int = 0  # as last asked for
    spent: int = 0
    reserved: int = 0
    level: int = 0  # RATE: units x microseconds
    first: int = 0  # AGE: ns since the epoch
    at: int = 0  # of the last change, ns since the epoch
    since: int = 0
    until: int = 0
    period: int = 0
    burst: int = 0
    label: str = ""
    slots: dict[int, int] | None = None  # ROLLING: number of the slot -> spent, oldest first
    described: bool = False  # a store has rule, limit, window and label as they are here


def describe(account: Account, demand: Demand, now: int) -> None:
    """Take over what the demand says of its account. What is spent stays, whatever else changes."""
    freshen(account, now)
    if account.rule is not demand.rule or (account.period != demand.period and demand.rule is ROLLING):
        account.slots = {_slot(now, demand.period): account.spent} if demand.rule is ROLLING and account.spent else None
        account.level = 0
    elif demand.rule is RATE and account.period != demand.period:
        account.level = -(-account.level * (demand.period // MICRO or 1) // _micros(account))
    account.rule, account.unit, account.limit = demand.rule, demand.unit, min(demand.limit, MOST)
    account.since, account.until, account.label = demand.since, demand.until, demand.label
    account.period, account.burst = demand.period, demand.burst
    account.described = False


def freshen(account: Account, now: int) -> None:
    """Let drain and age what does so by itself. The clock never goes back: an earlier `now` changes nothing."""
    if account.rule is RATE:
        if account.level:
            account.level = max(0, account.level - max(0, now // MICRO - account.at // MICRO) * account.limit)
    elif account.slots:
        over = _slot(now, account.period) - SLOTS_PER_PERIOD
        for slot in tuple(account.slots):
            if slot >= over:
                break
            account.spent -= account.slots.pop(slot)
    if now > account.at:  # noqa: PLR1730  five times a call: `max` would cost more than the rest
        account.at = now


def take(account: Account, amount: int, now: int) -> bool:
    """Reserve it if it fits; the account is fresh. Of AGE it is only said whether it does."""
    rule = account.rule
    if rule is RATE:
        if account.level + amount * _micros(account) > _burst(account) * _micros(account):
            return False
        account.level += amount * _micros(account)
    elif rule is AGE:
        return not account.first or now - account.first <= account.limit * SECOND
    else:
        if account.spent + account.reserved + amount > account.limit:
            return False
        account.reserved += amount
    return True


def untake(account: Account, amount: int) -> None:
    """Undo a `take` of the same instant, exactly."""
    if account.rule is RATE:
        account.level -= amount * _micros(account)
    elif account.rule is not AGE:
        account.reserved -= amount


def release(account: Account, amount: int) -> None:
    """Give back what was reserved, as if it had never been asked for; the account is fresh."""
    if account.rule is RATE:
        account.level = max(0, account.level - amount * _micros(account))
    else:
        rest = account.reserved - amount
        account.reserved = rest if rest > 0 else 0


def book(account: Account, amount: int, now: int) -> None:
    """Count as used what was not reserved (or was released); the account is fresh. Negative amounts give credit."""
    if account.rule is RATE:
        account.level = min(MOST, max(0, account.level + amount * _micros(account)))
    elif account.rule is TOTAL:
        spent = account.spent + amount
        account.spent = spent if spent < MOST else MOST
    elif account.rule is ROLLING:
        slots = account.slots = account.slots or {}
        slot = _slot(max(now, account.at), account.period)
        slots[slot] = min(MOST, slots.get(slot, 0) + amount)
        account.spent = min(MOST, account.spent + amount)


def fits(account: Account, amount: int, now: int) -> bool:
    if account.rule is AGE:
        return take(account, amount, now)
    return amount <= available(account, now, floor=False)


def available(account: Account, now: int, *, floor: bool = True) -> int:
    """How much would still fit; of AGE, the seconds that are left."""
    if account.rule is RATE:
        room = (_burst(account) * _micros(account) - account.level) // _micros(account)
    elif account.rule is AGE:
        room = account.limit - (-(-(now - account.first) // SECOND) if account.first else 0)
    else:
        room = account.limit - account.spent - account.reserved
    return max(0, room) if floor else room


def wait(account: Account, amount: int, now: int) -> int:
    """Nanoseconds until what does not fit may fit, if nobody does anything; 0: never."""
    if account.rule is RATE:
        over = account.level + (amount - _burst(account)) * _micros(account)
        possible = amount <= _burst(account) and account.limit > 0
        return -(-over // account.limit) * MICRO if possible else 0
    if account.rule is ROLLING:
        return _ageing(account, amount, now) if amount <= account.limit else 0
    if account.rule is TOTAL and amount <= account.limit:
        return max(0, account.until - now)
    return 0


def pending(account: Account, amount: int) -> bool:
    """Would it fit if nothing were reserved? What a RATE or AGE lacks, others do not hold."""
    return account.rule not in (RATE, AGE) and account.spent + amount <= account.limit


def level_of(account: Account, now: int) -> Level:
    """How a fresh account stands. Of RATE: what is in the bucket; of AGE: seconds."""
    rule = account.rule
    if rule is TOTAL or rule is SLOTS:
        return Level(account.name, account.limit, account.spent, account.reserved, account.until)
    if rule is RATE:
        empty = now + -(-account.level // account.limit) * MICRO if account.level and account.limit > 0 else 0
        return Level(account.name, account.limit, -(-account.level // _micros(account)), 0, empty)
    if rule is AGE:
        return Level(account.name, account.limit, (now - account.first) // SECOND if account.first else 0, 0)
    last = (max(account.slots) + SLOTS_PER_PERIOD + 1) * _width(account.period) if account.slots else 0
    return Level(account.name, account.limit, account.spent, account.reserved, last)


def _ageing(account: Account, amount: int, now: int) -> int:
    missing = account.spent + account.reserved + amount - account.limit
    end = now
    for slot, spent in (account.slots or {}).items():
        if missing <= 0:
            break
        missing -= spent
        end = (slot + SLOTS_PER_PERIOD + 1) * _width(account.period)
    return max(0, end - now)


def _width(period: int) -> int:
    return max(1, -(-period // SLOTS_PER_PERIOD))


def _slot(now: int, period: int) -> int:
    return now // _width(period)


def _micros(account: Account) -> int:
    return account.period // MICRO or 1


def _burst(account: Account) -> int:
    return account.burst or account.limit
