"""Equal calls of many workers on their way at once: one of all goes upstream, the others receive what it receives.

Rules
1. Within a worker it is as in stores.flights. A flight that nobody here leads is claimed first, in what all of them
   see (a *medium*: files of this machine, or Redis). Where another worker leads, its flight is followed from there and
   looks like one of this worker: its pieces come in as they are written.
2. A leader that dies is found out by the medium; its followers go on as after any failure. One that is slow loses its
   claim to the first that finds it so, and never ends another's.
3. A medium that cannot be used is no reason to wait: then each worker goes by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from gateway.stores.flights import LocalFlight, LocalFlights

HEAD, PIECE, END = b"h", b"p", b"e"  # what a record begins with

_pack = msgspec.msgpack.Encoder().encode
_head = msgspec.msgpack.Decoder(tuple[bytes, bytes]).decode
_end = msgspec.msgpack.Decoder(tuple[bool, bool, int | None]).decode


class Lead(Protocol):
    """A claim on a flight. Nothing here raises or waits."""

    name: bytes

    @property
    def followed(self) -> bool:
        """Does any other worker wait for the rest? Where that has to be asked for first, yes until it is known."""
        ...

    def say(self, record: bytes) -> None: ...

    def part(self) -> None:
        """Nobody new may follow."""
        ...

    def end(self, record: bytes, *, kept: bool) -> None:
        """`kept`: the answer was put into the store, and may be found there in a moment."""
        ...


class Trail(Protocol):
    """What another worker leads."""

    name: bytes

    async def read(self) -> tuple[Sequence[bytes], bool]:
        """What has come since; does the leader live? Raises OSError where that cannot be told."""
        ...

    def leave(self) -> None: ...


class Claim(Struct, frozen=True):
    """How a flight stands: led by who asks, followed, or over with its answer in the store; else nobody knows."""

    lead: Any = None  # Lead
    trail: Any = None  # Trail
    stored: bool = False


class Medium(Protocol):
    poll: float  # seconds between looks at what comes

    async def claim(self, flight: bytes, tenant: str, key: bytes, slow: bytes) -> Claim:
        """`key`: of the stored answer; `slow`: the name of a leader that is not waited for any more."""
        ...


class SharedFlight(LocalFlight):
    """Implements ports.Flight."""

    def __init__(self, flights: SharedFlights, key: bytes, slow: bytes) -> None:
        super().__init__(flights, key)
        self.name = b""
        self._shared = flights
        self._slow = slow
        self._lead: Lead | None = None
        self._large = False

    @property
    def followed(self) -> bool:
        return not self.ended and (self.followers > 0 or (self._lead is not None and self._lead.followed))

    async def leads(self, tenant: str, key: bytes) -> bool:
        claim = await self._shared.medium.claim(self.key, tenant, key, self._slow)
        if claim.lead is not None:
            self._lead = claim.lead
            self.name = claim.lead.name
            if self.ended:
                claim.lead.end(END + _pack((False, False, None)), kept=False)
        elif claim.trail is not None:
            self.name = claim.trail.name
            self._shared.spawn(self._follow(claim.trail))
            return False
        elif claim.stored:
            self.stored = True
            super().end(whole=False)
            return False
        return True

    def begin(self, kind: bytes, head: bytes) -> None:
        super().begin(kind, head)
        if self._lead is not None:
            self._lead.say(HEAD + _pack((kind, head)))

    def feed(self, data: bytes) -> None:
        if not data or self.ended:
            return
        super().feed(data)
        if self._lead is not None:
            self._lead.say(PIECE + data)
            if not self._large and self._size > self._flights.room:
                self._large = True
                self._lead.part()

    def end(self, *, whole: bool, alone: bool = False, cost: int | None = None, kept: bool = False) -> None:
        if not self.ended:
            super().end(whole=whole, alone=alone, cost=cost, kept=kept)
            if self._lead is not None:
                self._lead.end(END + _pack((whole, alone, cost)), kept=kept)

    async def _follow(self, trail: Trail) -> None:
        shortest = delay = self._shared.medium.poll
        try:
            while True:
                records, alive = await trail.read()
                for record in records:
                    self._take(record)
                if self.ended or not (alive or records):
                    break
                delay = shortest if records else min(delay * 1.3, shortest * 5)
                await asyncio.sleep(delay)
                if not self.followers:
                    break
        except (OSError, ValueError, msgspec.MsgspecError):
            pass  # as a leader that died
        finally:
            trail.leave()
            super().end(whole=False)

    def _take(self, record: bytes) -> None:
        kind, rest = record[:1], record[1:]
        if kind == HEAD:
            super().begin(*_head(rest))
        elif kind == PIECE:
            super().feed(rest)
        elif kind == END:
            whole, alone, cost = _end(rest)
            super().end(whole=whole, alone=alone, cost=cost)


class SharedFlights(LocalFlights):
    """Implements ports.Flights."""

    def __init__(self, room: int, medium: Medium) -> None:
        super().__init__(room)
        self.medium = medium
        self._tasks: set[asyncio.Task[None]] = set()

    def lead(self, key: bytes) -> SharedFlight:
        slow = self._flights.get(key)
        flight = SharedFlight(self, key, slow.name if isinstance(slow, SharedFlight) else b"")
        self._flights[key] = flight
        return flight

    def spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
