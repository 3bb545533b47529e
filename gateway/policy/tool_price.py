"""What tool calls cost: held before they go, and what they came to. Pure.

Rules
1. A call is held to its price; one that is priced by unit to `most` units. Calls in a batch add up.
2. What the tool refused (a status of 400 and above, a JSON-RPC error) costs nothing; one that ran and failed costs.
3. Unknown is never zero: where no result was seen, or it does not state its units, the cost is unknown, and what was
   held is charged (stages.settle). Units beyond `most` are charged as stated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from gateway.call import Call, Executed, Money, ToolCall, ToolUse
from gateway.config.patterns import matches
from gateway.tool import Price, Terms

COMPONENT = "tools"
FREE = Money(total=0, status="free")
UNKNOWN = Money(total=None, status="no_usage")


def price_of(terms: Terms, name: str) -> Price:
    for pattern, price in terms.prices:
        if matches(pattern, name):
            return price
    return terms.price


def held(terms: Terms, uses: Iterable[ToolUse]) -> int:
    """Pico-USD that these calls cost at most, as far as the operator says."""
    found = [price_of(terms, use.name) for use in uses]
    return sum([price.pico * (price.most if price.by_unit else 1) for price in found])


def cost_of(price: Price, result: Executed | None, headers: Mapping[bytes, bytes]) -> int | None:
    """Pico-USD of one call; None: unknown. `headers`: of the answer."""
    if not price.pico or (result is not None and not result.ran):
        return 0
    if result is None:
        return None
    if not price.by_unit:
        return price.pico
    units = number(headers.get(price.header, b"")) if price.header else result.units
    return None if units is None else math.ceil(price.pico * units)


def number(text: bytes) -> float | None:
    """A count of units as a header states it."""
    plain = text.strip()
    if not plain.replace(b".", b"", 1).isdigit() or len(plain) > 24:
        return None
    return float(plain)


def executions(call: Call, terms: Terms) -> list[ToolCall]:
    """The tool calls that went out with this call, each with what came of it and what it cost."""
    if not call.attempts or not call.attempts[-1].sent:
        return []
    answer, last = call.answer, call.attempts[-1]
    results = {result.id: result for result in (answer.executed if answer is not None else ())}
    ended = call.upstream_last_byte or last.ended or call.ended
    started = call.started_at + max(0, last.began - call.began)
    lost = call.fault is not None and not call.committed
    found = []
    for index, use in enumerate(call.asked.calls):
        result = results.get(use.id)
        failed = result.is_error if result is not None else lost
        cost = cost_of(price_of(terms, use.name), result, call.stated)
        seen, took = result is not None, max(0, ended - last.began)
        found.append(
            ToolCall(f"{call.id}/{index}", use.name, started, took, seen, failed, terms.server, cost)
        )  # fmt: skip
    return found


def money_of(calls: Iterable[ToolCall]) -> Money:
    """What they cost together; unknown in one is unknown in all."""
    costs = [call.cost for call in calls]
    known = [cost for cost in costs if cost is not None]
    if len(known) < len(costs):
        return UNKNOWN
    total = sum(known)
    return Money(total, {COMPONENT: total}, "configured", "priced") if total else FREE
