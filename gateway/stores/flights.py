"""Equal calls of one worker on their way at once: one goes upstream, the others receive what it receives.

Rules
1. A flight belongs to the call that leads it. It ends with that call, however that ends; `close` sees to it.
2. Followers that have passed nothing on are free when it ends badly: the first that asks leads anew. Where the answer
   turned out to be for nobody else, they all go by themselves, at once: a queue of leaders would be slower than none.
3. What has passed is kept until the end, so that whoever comes late reads from the beginning; above `room` nobody
   new joins.
4. Workers do not wait for one another here; see stores.flights_shared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.errors import ClientGone, GatewayError
from gateway.ports import Downstream


class LocalFlight:
    """Implements ports.Flight."""

    def __init__(self, flights: LocalFlights, key: bytes) -> None:
        self._flights = flights
        self.key = key
        self.followers = 0
        self.head: tuple[bytes, bytes] | None = None
        self.ended = False
        self.whole = False
        self.alone = self.stored = False
        self.cost: int | None = None
        self.pieces: list[bytes] = []
        self._size = 0
        self._waiting: list[asyncio.Future[bool]] = []

    @property
    def followed(self) -> bool:
        return self.followers > 0 and not self.ended

    async def leads(self, tenant: str, key: bytes) -> bool:
        return True

    def begin(self, kind: bytes, head: bytes) -> None:
        self.head = (kind, head)
        self._wake()

    def feed(self, data: bytes) -> None:
        if not data or self.ended:
            return
        self.pieces.append(data)
        self._size += len(data)
        if self._size > self._flights.room:
            self._flights.forget(self)
        self._wake()

    def end(self, *, whole: bool, alone: bool = False, cost: int | None = None, kept: bool = False) -> None:
        if not self.ended:
            self.ended, self.whole, self.alone, self.cost = True, whole, alone, cost
            self._flights.forget(self)
            self._wake()

    async def moved(self, down: Downstream, seconds: float, others: Sequence[LocalFlight] = ()) -> bool:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        flights = (self, *others)
        for flight in flights:
            flight._waiting.append(future)
        try:
            return await waited(future, down, seconds)
        finally:
            for flight in flights:
                if future in flight._waiting:
                    flight._waiting.remove(future)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(True)


class LocalFlights:
    """Implements ports.Flights. `room`: bytes of one answer."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._flights: dict[bytes, LocalFlight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def find(self, key: bytes) -> LocalFlight | None:
        return self._flights.get(key)

    def lead(self, key: bytes) -> LocalFlight:
        flight = self._flights[key] = LocalFlight(self, key)
        return flight

    def forget(self, flight: LocalFlight) -> None:
        """Nobody new joins it."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    async def pause(self, down: Downstream, seconds: float) -> None:
        await paused(down, seconds)


class Parking:
    """Implements stages.bulkheads.Parking: one wait, which somebody else may end."""

    def __init__(self) -> None:
        self._future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        if not self._future.done():
            self._future.set_result(True)

    async def until(self, down: Downstream, seconds: float) -> bool:
        return await waited(self._future, down, seconds)


async def paused(down: Downstream, seconds: float) -> None:
    """Wait. Raises what ends the call of `down` meanwhile."""
    await waited(asyncio.get_running_loop().create_future(), down, seconds)


async def waited(future: asyncio.Future[bool], down: Downstream, seconds: float) -> bool:
    """Until the future is done (True) or the time is over (False). Raises what ends the call of `down` meanwhile."""
    if down.gone:
        raise ClientGone()

    told: list[GatewayError] = []

    def tell(fault: GatewayError) -> None:
        told.append(fault)
        if not future.done():
            future.set_exception(fault)

    def late() -> None:
        if not future.done():
            future.set_result(False)

    timer = asyncio.get_running_loop().call_later(seconds, late)
    down.on_gone = tell
    try:
        done = await future
    finally:
        timer.cancel()
        down.on_gone = None
    if told:  # between the end of the wait and now: nobody else will hear of it
        raise told[0]
    return done
