"""Bulkheads: a place for an attempt in the pool of its target, waited for where none is free. See policy.bulkhead.

A place is held from before an attempt is sent until its answer has passed or its failure is known. What waits before
another attempt holds none, and that one goes through the pool of its own target. A call that only keeps a session with
a server of tools going needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from gateway.call import Call, Usage
from gateway.errors import NoPlace, UpstreamTimeout
from gateway.policy.asked_facts import output_limit
from gateway.policy.bulkhead import DEADLINE, FULL, HELD, NANO, TIMEOUT, WAITING, Place
from gateway.policy.pools import POOL, REFUSED, WAITED, PoolBook, is_pressing
from gateway.ports import Downstream, Gateway

BUSY = frozenset((429, 503, 529))
USUAL_ANSWER = 500  # tokens, where the request names no limit
BYTES_PER_TOKEN = 4
UNPRICED = 1 << 62  # goes last
SAID = {
    FULL: "Too many calls wait for a place in {name}.",
    TIMEOUT: "No place in {name} became free in time.",
    DEADLINE: "No place in {name} becomes free before the client gives up.",
}


class Parking(Protocol):
    """One wait, which somebody else may end."""

    def wake(self) -> None: ...

    async def until(self, down: Downstream, seconds: float) -> bool:
        """False: so long. Raises what ends the call of `down` meanwhile."""
        ...


class Bulkheads:
    """The pools of a worker. `park` makes a wait."""

    def __init__(self, book: PoolBook, park: Callable[[], Parking]) -> None:
        self.book = book
        self._park = park

    def enter(self, call: Call, gw: Gateway) -> Place | None:
        """A place that is held, or that must be `waited` for. None: the call needs none."""
        if call.asked.aside:
            return None
        ticket = self.book.ticket(call)
        if ticket is None:
            return None
        pool, wish, request = ticket.pool, ticket.wish, call.request
        if pool.in_flight >= pool.limit or request.checks or is_pressing(request):
            wish = self.book.wish(call, ticket, partial(worst, call, gw))
        return pool.enter(wish, gw.monotonic())

    def beside(self, call: Call, gw: Gateway) -> Place | None:
        """A place for a second attempt beside one under way: at once. None: it needs none. Raises NoPlace."""
        ticket = self.book.ticket(call)
        if ticket is None:
            return None
        pool, wish = ticket.pool, self.book.wish(call, ticket, lambda: 0)
        place = pool.enter(wish, gw.monotonic()) if pool.has_room(wish.priority) else None
        if place is None or place.state is not HELD:
            raise NoPlace(SAID[FULL].format(name=pool.name))
        return place

    def leave(self, place: Place, call: Call, gw: Gateway) -> None:
        """The attempt is over."""
        attempts = call.attempts
        last = attempts[-1] if attempts else None
        if last is None or last.began < place.entered:  # it was not sent in this place
            place.pool.leave(place, gw.monotonic())
            return
        status, fault = last.status, last.fault
        first = last.ended - last.began or 1 if 100 < status < 400 else 0
        dropped = status in BUSY or (fault is not None and isinstance(fault, UpstreamTimeout))
        place.pool.leave(place, gw.monotonic(), first, dropped=dropped)

    async def waited(self, place: Place, call: Call, down: Downstream, gw: Gateway) -> None:
        """Wait until it is held. Raises NoPlace, and what ends the call meanwhile."""
        pool, began = place.pool, gw.monotonic()
        try:
            if place.state is WAITING:
                parking = self._park()
                place.tell = parking.wake
                if not await parking.until(down, max(0.0, pool.patience(place.wish, began) / NANO)):
                    pool.late(place, gw.monotonic())
        except BaseException:
            pool.leave(place, gw.monotonic())
            raise
        finally:
            place.tell = None
            note_wait(call, place, gw.monotonic() - began)
        if place.state is not HELD:
            wait = -(-pool.expected(place.wish, gw.monotonic()) // NANO)  # until those before it have had their turn
            raise NoPlace(SAID[place.why].format(name=pool.name), code=place.why, retry_after=max(1, wait))


def note_wait(call: Call, place: Place, took: int) -> None:
    """`took`: ns, beside what earlier attempts waited."""
    call.queued += took
    call.notes = {**call.notes, POOL: place.pool.name, WAITED: str(call.queued)}
    if place.why:
        call.notes[REFUSED] = place.why


def worst(call: Call, gw: Gateway) -> int:
    """What the call may cost at most, in pico-USD, roughly: it only decides who goes first."""
    if call.hold is not None and call.hold.usd:
        return call.hold.usd * 1000
    spec = gw.specs.get(call.route.upstream)
    tokens = Usage(len(call.request.body) // BYTES_PER_TOKEN, output_limit(call.asked) or USUAL_ANSWER)
    model = call.model_sent or call.asked.model
    money = gw.prices.price(spec.target.provider if spec is not None else "", model, tokens, call.started_at / 1e9)
    return UNPRICED if money.total is None else money.total
