"""The pools of a worker by the rules of its configuration: which one a call goes through, and what it asks for there.

A pool belongs to this worker; its limit is this worker's share of the configured one, so that all of them together keep
to that. A pool lives on through a reload: who is in stays in, who waits goes on waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct, structs

from gateway.call import Call, Request
from gateway.config.schema_bulkheads import Bulkhead
from gateway.key import Key
from gateway.policy.bulkhead import NANO, Pool, Terms, Wish
from gateway.policy.deadline import seconds_left, states_one
from gateway.policy.matching import REMEMBERED, FirstMatch
from gateway.policy.priorities import HEADER, Priorities
from gateway.spend import Hold, Unit

FIGURES = ("in_flight", "waiting", "limit")  # that a worker states of each pool
POOL, REFUSED, WAITED = "bulkhead", "bulkhead_refused", "bulkhead_waited_ns"  # notes of a call that had to wait
POOLS = 1024  # with `each`; when there are more, those that nobody uses are forgotten
COUNTED = (Unit.USD, Unit.TOKENS)
EACH: Mapping[str, Callable[[Call], str]] = {
    "upstream": lambda call: call.route.upstream,
    "model": lambda call: call.model_sent or call.asked.model,
    "agent": lambda call: call.who.agent,
    "key": lambda call: call.who.key_id,
    "team": lambda call: call.who.team or call.who.tenant,
}


class Ticket(Struct, frozen=True, eq=False):
    """Through which pool calls of the same scopes go, and what they ask for there as long as they say nothing else."""

    at: int  # number of the rule
    pool: Pool
    wish: Wish  # where a place is free, and the head is not `pressing`


class Known(Struct, frozen=True, eq=False):
    ticket: Ticket | None  # None: they need no place
    key: Key | None  # with which they came: another one of the same id may have other rights


class PoolBook:
    """`index`: of this worker among `workers`."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._pools: dict[tuple[str, str, str], Pool] = {}  # by rule, `each`, and its value
        self._known: dict[tuple[str, ...], Known] = {}  # by scopes
        self.configure({}, Priorities(()), 1, 0)

    def configure(self, rules: Mapping[str, Bulkhead], priorities: Priorities, workers: int, now: int) -> None:
        self.priorities = priorities
        self._first = FirstMatch(tuple(rules.values()))
        self.names = tuple(rules)
        self._terms = tuple([terms_of(rule, workers, self._index) for rule in rules.values()])
        self._each = tuple([rule.each or "" for rule in rules.values()])
        self._thrift = tuple([rule.thrift for rule in rules.values()])
        self._known = {}
        for key, pool in tuple(self._pools.items()):
            name, each, _ = key
            if name in rules and (rules[name].each or "") == each:
                pool.retune(self._terms[self.names.index(name)], now)
            else:
                del self._pools[key]  # those inside still give their places back to those that wait there

    def ticket(self, call: Call) -> Ticket | None:
        """None: it needs no place. What was found is remembered: about 0.5 us a call."""
        who, route, key = call.who, call.route, call.key
        scopes = (
            *(route.template, route.upstream, call.asked.model, call.model_sent, who.agent, who.request_class),
            *(who.tenant, who.team, who.key_id),
        )
        known = self._known.get(scopes)
        if known is None or known.key is not key:
            found = self._ticket(call)  # before it is remembered: it may make room by forgetting
            if len(self._known) >= REMEMBERED:
                self._known = {}
            known = self._known[scopes] = Known(found, key)
        return known.ticket

    def _ticket(self, call: Call) -> Ticket | None:
        at = self._first.at(call)
        if at < 0:
            return None
        each = self._each[at]
        name = (self.names[at], each, EACH[each](call) if each else "")
        pool = self._pools.get(name)
        if pool is None:
            if len(self._pools) >= POOLS:
                self._forget()
            pool = self._pools[name] = Pool(self._terms[at], self.names[at])
        who, key = call.who, call.key
        wish = Wish(
            self.priorities.usual(call),
            who.team or who.tenant,
            (key.name or key.id) if key is not None else "",
            kind=call.model_sent or call.asked.model,
        )
        return Ticket(at, pool, wish)

    def _forget(self) -> None:
        self._pools = {name: pool for name, pool in self._pools.items() if pool.in_flight or pool.waiting}
        self._known = {}

    def wish(self, call: Call, ticket: Ticket, cost: Callable[[], int]) -> Wish:
        """What a call asks for; `cost` (in one unit for all) is asked where it matters."""
        pool, usual, hold = ticket.pool, ticket.wish, call.hold
        waits = pool.in_flight >= pool.limit
        left = seconds_left(call.request, call.started_at)
        thrifty = waits and hold is not None and strain(hold) >= self._thrift[ticket.at]
        return structs.replace(
            usual,
            priority=self.priorities.stated(call, usual.priority),
            deadline=0 if left is None else max(1, call.began + int(left * NANO)),
            cost=cost() if waits and (thrifty or pool.terms.order == "cost") else 0,
            thrifty=thrifty,
        )

    def standing(self) -> dict[str, tuple[int, int, int]]:
        """By rule: calls in its pools, calls that wait, and places; where no call came yet, those of one pool."""
        found = {name: [0, 0, 0] for name in self.names}
        for (name, _, _), pool in self._pools.items():
            row = found[name]
            row[0] += pool.in_flight
            row[1] += pool.waiting
            row[2] += pool.limit
        for name, terms in zip(self.names, self._terms, strict=True):
            if not found[name][2]:
                found[name][2] = terms.limit
        return {name: (row[0], row[1], row[2]) for name, row in found.items()}


def is_pressing(request: Request) -> bool:
    """Does its head say how urgent it is, or when its client gives up?"""
    known: bool | None = request.facts.get("pressing")
    if known is None:  # for equal heads this is found once
        known = request.facts["pressing"] = HEADER in request.names or states_one(request.names)
    return known


def terms_of(rule: Bulkhead, workers: int, index: int) -> Terms:
    """With this worker's share of the places; together they are all of them."""
    return Terms(
        limit=share(rule.max, workers, index),
        queue=rule.queue,
        wait=int(rule.wait * NANO),
        order=rule.order,
        batch=rule.batch,
        weights=rule.weights,
        least=share(rule.least, workers, index) if rule.adaptive else 0,
    )


def share(total: int, workers: int, index: int) -> int:
    return max(1, total // workers + (index < total % workers))


def strain(hold: Hold) -> float:
    """How much of the fullest budget in money or tokens that begins anew by itself is spent or held; 0 to 1."""
    found = 0.0
    for demand, level in zip(hold.demands, hold.levels, strict=False):
        if demand.unit in COUNTED and (demand.until or demand.period) and level.limit > 0:
            found = max(found, (level.spent + level.reserved) / level.limit)
    return found
