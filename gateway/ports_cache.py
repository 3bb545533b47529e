"""The ports of the exact cache: what an entry is, where entries are kept, and how equal calls wait for one another.

Part of `gateway.ports`, from where it is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct

from gateway.call import Answer, Call


class Entry(Struct, frozen=True):
    """An answer that came whole, as its upstream produced it, decoded. Times are ns since the epoch."""

    key: bytes  # SHA-256, see policy.cache_key
    tenant: str
    created: int
    expires: int
    stream: bool  # the body is an event stream
    counted: bool  # the stream states its usage
    kind: bytes  # content type
    head: bytes  # further header lines for the client
    body: bytes
    answer: Answer
    cost: int | None  # pico-USD that it took; None: unknown
    route: str
    upstream: str
    model: str
    agent: str
    tags: tuple[str, ...] = ()
    partition: bytes = b""  # similar questions that may have it, see policy.semantic_rules; b"": none


class CacheStore(Protocol):
    """Entries by key, of each tenant by itself. Nothing here raises or waits for long: what cannot be read is not
    there. A look-up may cross the network; one in memory or in a file of this machine does not suspend."""

    async def get(self, key: bytes, tenant: str, now: int) -> tuple[Entry | None, int]:
        """An entry that is still good; and the generation it was looked for in, which counts what was cleared."""
        ...

    def put(self, entry: Entry, generation: int) -> None:
        """Keep it, unless something was cleared since `generation`. Returns at once."""
        ...


class Flight(Protocol):
    """One call under way whose answer equal calls receive, too."""

    followers: int
    head: tuple[bytes, bytes] | None  # content type, further header lines: the answer has begun
    ended: bool
    whole: bool  # it ended well
    alone: bool  # its answer is for nobody else: followers go by themselves, all at once
    stored: bool  # it was over before it began: its answer is in the store
    cost: int | None  # pico-USD, once it has ended
    pieces: list[bytes]

    @property
    def followed(self) -> bool:
        """Does anybody wait for the rest? Where nobody here does, and other workers have to be asked: yes until they
        have answered."""
        ...

    async def leads(self, tenant: str, key: bytes) -> bool:
        """To be asked by who began it, first: does its call go upstream, or does that of another worker, or none?
        `key`: under which the answer is stored."""
        ...

    def begin(self, kind: bytes, head: bytes) -> None: ...

    def feed(self, data: bytes) -> None: ...

    def end(self, *, whole: bool, alone: bool = False, cost: int | None = None, kept: bool = False) -> None:
        """Tell everybody; `kept`: the answer was put into the store. Idempotent; the first word counts."""
        ...

    async def moved(self, down: Any, seconds: float, others: Sequence[Any] = ()) -> bool:
        """Wait until there is more, here or in one of the others; False when so much time is over. Raises what ends the
        call of `down`."""
        ...


class Flights(Protocol):
    def find(self, key: bytes) -> Flight | None: ...

    def lead(self, key: bytes) -> Flight:
        """Begin one, in place of any other under this key."""
        ...

    async def pause(self, down: Any, seconds: float) -> None:
        """Wait between two pieces of a paced answer. Raises what ends the call of `down`."""
        ...


class CacheHealth(Protocol):
    """What the provider's prompt cache did for a call; see policy.prompt_cache."""

    def learn(self, call: Call) -> None:
        """After the answer, when its usage is known: fill in `call.prompt_cache`, remember the prefix."""
        ...
