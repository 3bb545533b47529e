"""Settle: charge what a call really used, in place of what was held for it. Called in `close`, once; never waits.

Where the true cost is not known but something may have been billed (a client that left before its answer was complete,
an upstream that broke off, an answer that comes later), what was held is charged: doubt overspends no budget.
"""

from __future__ import annotations

from gateway.call import Answer, Call, UsageSource
from gateway.policy.ceiling import nano_of
from gateway.policy.hosted_tools import taken
from gateway.policy.usual import fed, usual_key
from gateway.ports import Budgets, Links
from gateway.spend import Charge, Hold
from gateway.stages.kept import remember

HITS = frozenset(("exact", "joined"))  # answered from the cache


def settled(call: Call, budgets: Budgets, links: Links, *, learn: bool) -> None:
    hold = call.hold
    if hold is None:
        return
    charge = charge_of(call, hold)
    budgets.settle(hold.op, charge)
    answer = call.answer
    if is_hit(call) or answer is None or answer.usage is None:
        return
    remember(call, links)
    if learn and call.money.total is not None:
        key = usual_key(call.who.key_id, call.model_sent or call.asked.model)
        links.update(key, lambda value: fed(value, charge.usd, charge.tokens))


def charge_of(call: Call, hold: Hold) -> Charge:
    if is_hit(call):
        return Charge()  # one request, and nothing else
    if not any([attempt.sent for attempt in call.attempts[call.booked :]]):  # nothing left this gateway, now or before
        return Charge(calls=int(call.booked > 0 and any([attempt.sent for attempt in call.attempts])))
    usd = nano_of(own_cost(call) + beside_tokens(call)) if call.money.total is not None else 0
    tokens = tokens_of(call.answer)
    if in_doubt(call):
        usd, tokens = max(usd, hold.usd), max(tokens, hold.tokens)
    return Charge(usd, tokens, 1, hold.tools, hold.steps)


def own_cost(call: Call) -> int:
    """pico-USD of the last attempt alone: what those before it cost was charged when each of them was over."""
    before = call.spent.total if call.spent is not None else 0
    return (call.money.total or 0) - (before or 0)


def beside_tokens(call: Call) -> int:
    """pico-USD of what was made on the way and no answer states the price of."""
    usage = call.answer.usage if call.answer is not None else None
    return taken(call.asked.tools, usage.detail) if usage is not None and usage.detail else 0


def is_hit(call: Call) -> bool:
    return call.cached is not None and call.cached.result in HITS


def in_doubt(call: Call) -> bool:
    """May more have been billed than what was seen?"""
    answer, last = call.answer, call.attempts[-1]
    if answer is None or answer.background or answer.pending or call.money.total is None or last.status == 0:
        return True
    estimated = answer.usage_source is UsageSource.ESTIMATED
    return estimated and (not answer.complete or call.notes.get("budget") == "stopped")


def tokens_of(answer: Answer | None) -> int:
    if answer is None:
        return 0
    usages = [part[0] for part in answer.parts]
    if answer.usage is not None:
        usages.append(answer.usage)
    return sum([usage.input_tokens + usage.output_tokens for usage in usages])
