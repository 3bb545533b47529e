"""Bulkheads: a place for an attempt in the pool of its target, waited for where none is free. See policy.bulkhead.

A place is held from before an attempt is sent until its answer has passed or its failure is known. What waits before
another attempt holds none, and that one goes through the pool of its own target. A call that only keeps a session with
a server of tools going needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from gateway.call import Call, Usage
from gateway.errors import NoPlace, UpstreamTimeout
from gateway.policy.asked_facts import output_limit
from gateway.policy.bulkhead import DEADLINE, FULL, HELD, NANO, TIMEOUT, WAITING, Place, Pool
from gateway.policy.pools import POOL, REFUSED, WAITED, PoolBook
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


class Seat(Struct, eq=False):
    """The place of one attempt."""

    name: str  # of the rule
    pool: Pool
    place: Place


class Bulkheads:
    """The pools of a worker. `park` makes a wait."""

    def __init__(self, book: PoolBook, park: Callable[[], Parking]) -> None:
        self.book = book
        self._park = park

    async def enter(self, call: Call, down: Downstream, gw: Gateway) -> Seat | None:
        """None: it needs no place. Raises NoPlace, and what ends the call while it waits."""
        if call.asked.aside:
            return None
        found = self.book.pool(call)
        if found is None:
            return None
        at, pool = found
        wish = self.book.wish(call, at, pool, lambda: worst(call, gw))
        seat = Seat(self.book.names[at], pool, pool.enter(wish, gw.monotonic()))
        if seat.place.state is not HELD:
            await self._waited(seat, call, down, gw)
        return seat

    def beside(self, call: Call, gw: Gateway) -> Seat | None:
        """A place for a second attempt beside one under way: at once. None: it needs none. Raises NoPlace."""
        found = self.book.pool(call)
        if found is None:
            return None
        at, pool = found
        name, wish = self.book.names[at], self.book.wish(call, at, pool, lambda: 0)
        place = pool.enter(wish, gw.monotonic()) if pool.has_room(wish.priority) else None
        if place is None or place.state is not HELD:
            raise NoPlace(SAID[FULL].format(name=name))
        return Seat(name, pool, place)

    def leave(self, seat: Seat, call: Call, gw: Gateway) -> None:
        """The attempt is over."""
        first, dropped = 0, False
        last = call.attempts[-1] if call.attempts else None
        if last is not None and last.began >= seat.place.entered:  # it was sent in this place
            dropped = last.status in BUSY or isinstance(last.fault, UpstreamTimeout)
            if 100 < last.status < 400:
                first = max(1, last.ended - last.began)
        seat.pool.leave(seat.place, gw.monotonic(), first, dropped=dropped)

    async def _waited(self, seat: Seat, call: Call, down: Downstream, gw: Gateway) -> None:
        pool, place, began = seat.pool, seat.place, gw.monotonic()
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
            note_wait(call, seat, gw.monotonic() - began)
        if place.state is not HELD:
            wait = -(-pool.expected(place.wish, gw.monotonic()) // NANO)  # until those before it have had their turn
            raise NoPlace(SAID[place.why].format(name=seat.name), code=place.why, retry_after=max(1, wait))


def note_wait(call: Call, seat: Seat, took: int) -> None:
    """`took`: ns, beside what earlier attempts waited."""
    call.queued += took
    call.notes = {**call.notes, POOL: seat.name, WAITED: str(call.queued)}
    if seat.place.why:
        call.notes[REFUSED] = seat.place.why


def worst(call: Call, gw: Gateway) -> int:
    """What the call may cost at most, in pico-USD, roughly: it only decides who goes first."""
    if call.hold is not None and call.hold.usd:
        return call.hold.usd * 1000
    spec = gw.specs.get(call.route.upstream)
    tokens = Usage(len(call.request.body) // BYTES_PER_TOKEN, output_limit(call.asked) or USUAL_ANSWER)
    model = call.model_sent or call.asked.model
    money = gw.prices.price(spec.target.provider if spec is not None else "", model, tokens, call.started_at / 1e9)
    return UNPRICED if money.total is None else money.total
