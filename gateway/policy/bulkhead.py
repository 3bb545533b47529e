"""Bulkhead: a pool of places for calls of one kind, and the queue before it. Pure: the clock is handed in.

Rules
1. Never more calls than places. A place is given back once, however its call ends, and goes to whoever is next.
2. Next is who is more urgent; of those the tenant with the fewest places for its weight, then the one whose turn it is
   (weighted fair queueing: a tenant's tag grows by 1/weight with each place, and who is new begins at the present
   time); within a tenant its keys in the same way, by turns; within a key the order of the pool.
3. The queue is bounded. Who comes when it is full takes the place of one that is less urgent, or of one whose tenant
   (or key) waits with more than itself; else it is refused. So who floods the queue pushes out nobody but itself.
4. A call that cannot make it is refused at once, and when its turn comes: where the calls before it (the median of
   what calls took lately) and the quickest first byte of its kind lately end after its client has given up.
5. Batch calls may be kept to a share of the places, so that the urgent find one.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal

from msgspec import Struct

from gateway.policy.gradient import Gradient

NANO = 10**9
REMEMBERED = 33  # calls that are looked back on
ENOUGH = 8  # before that nothing is foretold
FRESH = 30 * NANO  # and after so long without one
KINDS = 256
Order = Literal["fifo", "lifo", "cost"]


class Priority(enum.IntEnum):
    URGENT = 0
    INTERACTIVE = 1
    BATCH = 2


URGENT, INTERACTIVE, BATCH = Priority  # an attribute of an enum costs more than a name


class State(enum.Enum):
    WAITING = "waiting"
    HELD = "held"
    REFUSED = "refused"
    GONE = "gone"  # given back


WAITING, HELD, REFUSED, GONE = State
FULL, TIMEOUT, DEADLINE = "bulkhead_full", "queue_timeout", "deadline_unreachable"


class Terms(Struct, frozen=True):
    """One pool; see config.Bulkhead. Times in ns."""

    limit: int
    queue: int = 100
    wait: int = 10 * NANO
    order: Order = "fifo"
    batch: float = 1.0  # share of the places that batch calls may have
    weights: Mapping[str, float] = {}  # of tenants or keys; 1 where nothing is said
    least: int = 0  # the limit is found out, from this up; 0: it is fixed


class Wish(Struct, frozen=True, gc=False):
    """Who asks for a place."""

    priority: Priority = INTERACTIVE
    tenant: str = ""
    key: str = ""
    deadline: int = 0  # when its client gives up; 0: it does not say so
    kind: str = ""  # its model: of the same kind answers take about as long
    cost: int = 0  # what it may cost at most, in any unit
    thrifty: bool = False  # its budget is nearly used: the cheap go first


class Place(Struct, eq=False):
    """One call's place in the pool or in its queue. `tell` is called when a wait is over, well or not."""

    wish: Wish
    since: int
    state: State = WAITING
    why: str = ""  # it was refused
    entered: int = 0
    number: int = 0
    tell: Callable[[], None] | None = None
    pool: Any = None  # that it is of


class Recent:
    """What the last calls took, ns. Nothing is known (0) from too few of them, or of long ago: who is refused for what
    it says would never bring better news. Every call adds to it, few ask: so what is asked is found out then."""

    __slots__ = ("last", "seen")

    def __init__(self) -> None:
        self.seen: deque[int] = deque(maxlen=REMEMBERED)
        self.last = 0  # when the latest was added

    def add(self, took: int, now: int) -> None:
        self.seen.append(took)
        self.last = now

    def median(self, now: int) -> int:
        return sorted(self.seen)[len(self.seen) // 2] if self._knows(now) else 0

    def least(self, now: int) -> int:
        return min(self.seen) if self._knows(now) else 0

    def reaches(self, took: int, now: int) -> bool:
        """Is `least` so long? Mostly the latest says no."""
        return bool(self.seen) and took <= self.seen[-1] and took <= self.least(now)

    def _knows(self, now: int) -> bool:
        return len(self.seen) >= ENOUGH and now - self.last <= FRESH


Flow = tuple[str, str]  # tenant, key


class Pool:
    """The places, and who waits for one."""

    __slots__ = (
        *("_gradient", "_held", "_holds", "_firsts", "_lines", "_numbers", "_tags", "_turns", "_virtual", "batch"),
        *("in_flight", "limit", "name", "terms", "waiting"),
    )

    def __init__(self, terms: Terms, name: str = "") -> None:
        self.terms, self.name = terms, name  # the name is that of its rule
        self._gradient = Gradient(terms.least, terms.limit) if terms.least else None
        self.limit = terms.limit
        self.in_flight = self.waiting = self.batch = 0
        self._held: dict[Flow, int] = {}
        self._lines: tuple[dict[Flow, list[Place]], ...] = ({}, {}, {})  # by priority
        self._holds = Recent()
        self._firsts: dict[str, Recent] = {}  # by kind
        self._numbers = 0
        self._virtual = 0.0
        self._tags: dict[str, float] = {}  # of tenants
        self._turns: dict[Flow, int] = {}  # when a key had its last

    # -- what is asked -------------------------------------------------------------------------------------------

    def enter(self, wish: Wish, now: int) -> Place:
        """A place that is held, waits or is refused."""
        place = Place(wish, now, pool=self)
        if wish.deadline and self._is_late(wish, now + self.expected(wish, now), now):
            return self._refuse(place, DEADLINE)
        if self.in_flight < self.limit and (wish.priority is not BATCH or self.has_room(BATCH)):
            self._take(place, now)
            return place
        if self.waiting >= self.terms.queue:
            victim = self._victim(wish)
            if victim is None:
                return self._refuse(place, FULL)
            self._unqueue(victim)
            self._end(victim, FULL)
        self._queue(place)
        return place

    def leave(self, place: Place, now: int, first: int = 0, *, dropped: bool = False) -> None:
        """It is given back, or no longer waited for; once. `first`: ns to the first byte of its answer, 0: there was
        none; `dropped`: the upstream said that it has too much to do."""
        state, place.state = place.state, GONE
        if state is HELD:
            self._give_back(place, now)
            if first:
                self._first(place.wish.kind).add(first, now)
            if self._gradient is not None:
                self._adapt(self._gradient, first, now, dropped=dropped)
            if self.waiting:
                self._fill(now)
        elif state is WAITING:
            self._unqueue(place)
            self._rest()

    def late(self, place: Place, now: int) -> None:
        """It has waited for as long as it may."""
        if place.state is WAITING:
            self._unqueue(place)
            over = place.wish.deadline and now >= place.wish.deadline
            self._refuse(place, DEADLINE if over else TIMEOUT)
            self._rest()

    def retune(self, terms: Terms, now: int) -> None:
        """Another configuration: who is in stays in, who waits goes on waiting."""
        self.terms = terms
        if not terms.least:
            self._gradient = None
        elif self._gradient is None:
            self._gradient = Gradient(terms.least, terms.limit)
        else:
            self._gradient.bound(terms.least, terms.limit)
        self.limit = terms.limit if self._gradient is None else self._gradient.limit
        self._fill(now)

    def patience(self, wish: Wish, now: int) -> int:
        """ns that it may wait from now on."""
        return min(self.terms.wait, wish.deadline - now) if wish.deadline else self.terms.wait

    def expected(self, wish: Wish, now: int) -> int:
        """ns until it would have a place, as far as can be said; 0 where nothing is known."""
        if self.has_room(wish.priority):
            return 0
        line = self._lines[wish.priority]
        before = sum([len(places) for lines in self._lines[: wish.priority] for places in lines.values()])
        alike = sum(map(len, line.values()))
        flow = (wish.tenant, wish.key)
        fair = (len(line.get(flow, ())) + 1) * (len(line) + (flow not in line)) - 1
        return self._holds.median(now) * (before + min(alike, fair) + 1) // self.limit

    # -- the places ----------------------------------------------------------------------------------------------

    def has_room(self, priority: Priority) -> bool:
        """Is a place free for such a call? Then nobody waits who could have it."""
        if self.in_flight >= self.limit:
            return False
        share = self.terms.batch
        return priority is not BATCH or share >= 1 or self.batch < max(1, int(self.limit * share))

    def _take(self, place: Place, now: int) -> None:
        wish = place.wish
        flow, held = (wish.tenant, wish.key), self._held
        held[flow] = held.get(flow, 0) + 1
        self.in_flight += 1
        if wish.priority is BATCH:
            self.batch += 1
        place.state, place.entered = HELD, now

    def _give_back(self, place: Place, now: int) -> None:
        wish = place.wish
        flow, held = (wish.tenant, wish.key), self._held
        left = held.pop(flow) - 1
        if left:
            held[flow] = left
        self.in_flight -= 1
        if wish.priority is BATCH:
            self.batch -= 1
        self._holds.add(now - place.entered, now)

    def _first(self, kind: str) -> Recent:
        known = self._firsts.get(kind)
        if known is None:
            if len(self._firsts) >= KINDS:  # names of models come from clients
                self._firsts.clear()
            known = self._firsts[kind] = Recent()
        return known

    def _adapt(self, gradient: Gradient, first: int, now: int, *, dropped: bool) -> None:
        if dropped:
            gradient.dropped()
        elif first:
            gradient.sample(first, self.in_flight + 1, now)
        self.limit = gradient.limit

    def _fill(self, now: int) -> None:
        """Give free places to who is next."""
        for priority in (URGENT, INTERACTIVE, BATCH):
            while self._lines[priority] and self.has_room(priority):
                place = self._next(priority)
                self._unqueue(place)
                if place.wish.deadline and self._is_late(place.wish, now, now):
                    self._end(place, DEADLINE)
                    continue
                self._count_turn(place.wish, priority)
                self._take(place, now)
                if place.tell is not None:
                    place.tell()
        self._rest()

    # -- the queue -----------------------------------------------------------------------------------------------

    def _queue(self, place: Place) -> None:
        wish = place.wish
        line = self._lines[wish.priority]
        flow = (wish.tenant, wish.key)
        self._numbers += 1
        place.number = self._numbers
        if not any([wish.tenant == tenant for lines in self._lines for tenant, _ in lines]):
            self._tags[wish.tenant] = max(self._tags.get(wish.tenant, 0.0), self._virtual)
        line.setdefault(flow, []).append(place)
        self.waiting += 1

    def _unqueue(self, place: Place) -> None:
        line = self._lines[place.wish.priority]
        flow = (place.wish.tenant, place.wish.key)
        line[flow].remove(place)
        if not line[flow]:
            del line[flow]
        self.waiting -= 1

    def _rest(self) -> None:
        """Nobody waits: whose turn it is begins anew."""
        if not self.waiting:
            self._virtual = 0.0
            self._tags.clear()
            self._turns.clear()

    def _next(self, priority: Priority) -> Place:
        line = self._lines[priority]
        held: dict[str, int] = {}
        for (tenant, _), count in self._held.items():
            held[tenant] = held.get(tenant, 0) + count

        def rank(flow: Flow) -> tuple[float, float, float, int, int]:
            tenant, key = flow
            load, own = held.get(tenant, 0) / self._weight(tenant), self._held.get(flow, 0) / self._weight(key)
            return load, self._tags[tenant], own, self._turns.get(flow, 0), line[flow][0].number

        places = line[min(line, key=rank)]
        order = self.terms.order
        if order == "cost" or places[-1].wish.thrifty:
            return min(places, key=lambda place: place.wish.cost)  # the first of equal ones
        newest = order == "lifo" and 2 * self.waiting > self.terms.queue
        return places[-1] if newest else places[0]

    def _count_turn(self, wish: Wish, priority: Priority) -> None:
        tenants = {tenant for tenant, _ in self._lines[priority]} | {wish.tenant}
        self._virtual += 1 / sum([self._weight(tenant) for tenant in sorted(tenants)])
        self._tags[wish.tenant] = self._tags.get(wish.tenant, 0.0) + 1 / self._weight(wish.tenant)
        self._numbers += 1
        self._turns[wish.tenant, wish.key] = self._numbers

    def _weight(self, name: str) -> float:
        return self.terms.weights.get(name, 1.0)

    def _victim(self, wish: Wish) -> Place | None:
        """Whose place in the queue this one takes; None: it is refused itself."""
        for priority in (BATCH, INTERACTIVE, URGENT):
            line = self._lines[priority]
            if priority < wish.priority:
                return None
            if line:
                return self._longest(line, wish, alike=priority is wish.priority)
        return None

    def _longest(self, line: dict[Flow, list[Place]], wish: Wish, *, alike: bool) -> Place | None:
        """The last of the longest queue of a key of the tenant that waits with most. `alike`: only where the one who
        asks waits with less."""
        sizes: dict[str, float] = {}
        for (tenant, _), places in line.items():
            sizes[tenant] = sizes.get(tenant, 0.0) + len(places) / self._weight(tenant)
        most = max(sizes, key=lambda tenant: sizes[tenant])
        flow = max([flow for flow in line if flow[0] == most], key=lambda flow: len(line[flow]) / self._weight(flow[1]))
        if alike and most != wish.tenant:
            mine = sizes.get(wish.tenant, 0.0) + 1 / self._weight(wish.tenant)
            if mine >= sizes[most]:
                return None
        elif alike:
            own = (len(line.get((wish.tenant, wish.key), ())) + 1) / self._weight(wish.key)
            if flow[1] == wish.key or own >= len(line[flow]) / self._weight(flow[1]):
                return None
        return line[flow][-1]

    # -- refusals ------------------------------------------------------------------------------------------------

    def _is_late(self, wish: Wish, turn: int, now: int) -> bool:
        """Does its client give up before an answer can come? `turn`: when it has its place."""
        left, known = wish.deadline - turn, self._firsts.get(wish.kind)
        return left <= 0 or (known is not None and known.reaches(left, now))

    def _refuse(self, place: Place, why: str) -> Place:
        place.state, place.why = REFUSED, why
        return place

    def _end(self, place: Place, why: str) -> None:
        """Of one that waited."""
        self._refuse(place, why)
        if place.tell is not None:
            place.tell()
