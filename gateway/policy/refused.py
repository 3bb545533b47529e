"""What follows from a refusal of the store: what the client is told, or how much less it may ask for.

Rules
1. Where the refusal passes by itself within a minute (a rate, a window about to end, a place among the calls at once)
   the answer is 429 with whole seconds to wait, at least one: SDKs do wait and try again. A rolling minute passes in
   one, too, though what is kept of it in slices is gone a moment later.
2. Everything else is 402, which no SDK tries again. So is a call that asks for more than the whole limit: no waiting
   would ever let it in.
3. The message names scope, limit, spent, reserved and when the limit resets, so that an agent that reads it can act.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from gateway.errors import BudgetExceeded, GatewayError, LimitReached
from gateway.policy.ceiling import Worst
from gateway.spend import NANO_USD, PICO_PER_NANO, Demand, Refusal, Rule, Unit

SOON = 60 * 10**9
SECOND = 10**9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {
    Unit.TOKENS: "tokens",
    Unit.CALLS: "calls",
    Unit.TOOLS: "tool results",
    Unit.STEPS: "steps",
    Unit.CONCURRENCY: "calls at once",
    Unit.SECONDS: "seconds",
    Unit.DEPTH: "levels of sub-agents",
}


def explain(refusal: Refusal, demands: Sequence[Demand], now: int) -> GatewayError:
    """The answer to the call: LimitReached where waiting helps soon, else BudgetExceeded. `now`: ns since the epoch."""
    demand = demands[refusal.index]
    now = max(now, refusal.at)
    message = _message(refusal, demand)
    wait = _wait(refusal, demand, now)
    if 0 < wait <= SOON or (wait > 0 and demand.rule is Rule.ROLLING and demand.period <= SOON):
        seconds = max(1, -(-wait // SECOND))
        return LimitReached(f"{message} Please try again in {seconds}s.", retry_after=seconds)
    resets = refusal.level.resets_at or demand.until
    when = f" It resets at {_iso(resets)}." if resets > now else ""
    return BudgetExceeded(message + when)


def _wait(refusal: Refusal, demand: Demand, now: int) -> int:
    """Nanoseconds until the same call may be let in; 0 where that is never, or not known."""
    if demand.rule in (Rule.AGE, Rule.LEVEL) or demand.amount > _whole(demand):
        return 0
    if demand.rule is Rule.SLOTS:
        return refusal.retry_after or SECOND
    waits = [refusal.retry_after, (refusal.level.resets_at or demand.until) - now]
    return min((wait for wait in waits if wait > 0), default=0)


def _whole(demand: Demand) -> int:
    """The most that may be asked for at once."""
    return demand.burst or demand.limit if demand.rule is Rule.RATE else demand.limit


def _message(refusal: Refusal, demand: Demand) -> str:
    level, unit = refusal.level, demand.unit
    who = demand.label or demand.account
    if demand.rule is Rule.SLOTS:
        return f"The limit of {who} is {level.limit} calls at once, and as many are under way."
    if demand.rule is Rule.LEVEL:
        return f"The limit of {who} is {level.limit} levels of sub-agents; this call is made at level {demand.amount}."
    if demand.rule is Rule.AGE:
        return f"The limit of {who} is {level.limit} seconds since its first call, and they are over."
    if demand.rule is Rule.RATE:
        asked = f"; this call may take {demand.amount}" if unit is Unit.TOKENS else ""
        return f"The limit of {who} is {shown(level.limit, unit)}{asked}."
    if unit not in (Unit.USD, Unit.TOKENS):
        under_way = f" and {level.reserved} reserved by calls under way" if level.reserved else ""
        spent = f"{level.spent} spent{under_way}"
        return f"The limit of {who} is {shown(level.limit, unit)}: {spent}, and this call brings {demand.amount}."
    reserved = f" and {shown(level.reserved, unit)} reserved by calls under way" if level.reserved else ""
    return (
        f"The budget of {who} is {shown(level.limit, unit)}: {shown(level.spent, unit)} spent{reserved}; "
        f"this call may need {shown(demand.amount, unit)}."
    )


def shown(amount: int, unit: Unit) -> str:
    """An amount for people: $1.25, or 1200 tokens. Money to the micro-dollar, rounded down."""
    if unit is not Unit.USD:
        return f"{amount} {_UNITS[unit]}"
    whole, rest = divmod(abs(amount), NANO_USD)
    digits = f"{rest // 1000:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount < 0 else ''}${whole}.{digits}"


def _iso(nanos: int) -> str:
    at = _EPOCH + timedelta(seconds=nanos // SECOND)
    return at.isoformat().replace("+00:00", "Z")


def clamped(refusal: Refusal, demands: Sequence[Demand], worst: Worst, floor: int) -> int | None:
    """The largest ceiling of output tokens (of each answer) with which all demands fit; None where even `floor` does
    not, or where something does not fit that the length of the answer does not change."""
    if demands[refusal.index].rule is Rule.AGE:
        return None
    most = worst.each
    for demand, available in zip(demands, refusal.available, strict=True):
        if demand.amount <= available:
            continue
        fits = _fits(demand.unit, available, worst)
        if fits is None:
            return None
        most = min(most, fits)
    return most if most >= floor else None


def _fits(unit: Unit, available: int, worst: Worst) -> int | None:
    """Tokens of each answer for which so much is enough; None where no length is."""
    if unit is Unit.USD and worst.nano_usd is not None:
        left = available * PICO_PER_NANO - worst.base_pico
        each = worst.each_pico * worst.choices
    elif unit is Unit.TOKENS:
        left = available - (worst.tokens_out - worst.each * worst.choices) - worst.tokens_in
        each = worst.choices
    else:
        return None
    return left // each if left >= 0 and each > 0 else None
