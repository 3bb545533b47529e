"""Every Protocol of the core, and the frozen `Gateway` bundle that `pipeline.serve` receives.

Dialects and meters are sans-io. Stores acquire asynchronously and release synchronously and idempotently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from gateway.call import Answer, Asked, Attempt, Call, Money, Request, Route, Target, ToolCall, Usage, Who
from gateway.errors import GatewayError

Headers = Sequence[tuple[bytes, bytes]]


class Edit(Struct, frozen=True):
    """A minimal splice: replace body[start:end] by `text`."""

    start: int
    end: int
    text: bytes


class ErrorAnswer(Struct, frozen=True):
    """A whole HTTP answer made by the gateway, in the client's dialect."""

    status: int
    headers: Headers
    body: bytes


class Meter(Protocol):
    """Reads a decoded (not content-encoded) response body as it passes, in pieces of any size.

    `feed` never raises and keeps bounded memory whatever it is given. For streams, `started` turns true at the first
    meaningful event (not a comment or ping), `terminal` at the dialect's terminal event, and `failed` holds the
    provider's error type once an error event was seen.
    """

    started: bool
    terminal: bool
    failed: str

    def feed(self, data: bytes) -> None: ...

    def end(self) -> Answer:
        """The facts seen so far; called once, at the end of the body or when it was cut."""
        ...


class Stripper(Protocol):
    """Removes exactly what usage injection added to a stream; `feed` returns the bytes the client shall see."""

    def feed(self, data: bytes) -> bytes: ...

    def end(self) -> bytes:
        """What is still held back, when the upstream has ended."""
        ...


class Dialect(Protocol):
    """One provider API. All methods are pure."""

    name: str

    def read(self, route: Route, request: Request) -> Asked:
        """Read the request body. Raises BadBody for JSON faults, duplicate policy keys and bombs."""
        ...

    def meter(self, route: Route, asked: Asked, status: int, content_type: bytes) -> Meter: ...

    def inject_usage(self, route: Route, asked: Asked, body: bytes) -> Edit | None:
        """The splice that makes a stream carry usage, or None where it does by itself or was asked to."""
        ...

    def stripper(self) -> Stripper: ...

    def rejects_injection(self, status: int, body: bytes) -> bool:
        """Does this upstream error say that it does not know `stream_options`?"""
        ...

    def refusal(self, fault: GatewayError, request_id: str, *, stream: bool) -> ErrorAnswer:
        """The answer to a call that the gateway itself refuses or could not complete, before the commit point."""
        ...

    def restate(self, route: Route, frame: bytes) -> ErrorAnswer | None:
        """The HTTP error that a first SSE frame stands for, with the provider's own error body."""
        ...

    def interruption(self, fault: GatewayError, meter: Meter, request_id: str) -> bytes:
        """The event that tells a client in mid-stream that the answer failed. Never a terminal event of success."""
        ...


class Prices(Protocol):
    """Prices of models; see policy.pricing."""

    version: str

    def price(
        self, provider: str, model: str, usage: Usage, at: float, context: Mapping[str, str] | None = None
    ) -> Money: ...

    def knows(self, provider: str, model: str) -> bool: ...


class Estimator(Protocol):
    """Counts tokens where the provider does not."""

    def estimate(self, call: Call, answer: Answer) -> Usage: ...


class Identity(Protocol):
    """Who is asking; see policy.identity. Both methods are synchronous and never raise."""

    def identify(self, call: Call) -> tuple[Who, list[ToolCall]]:
        """Resolve the call, and pair the tool results in it with the tool uses answered before."""
        ...

    def learn(self, call: Call) -> None:
        """After the answer: remember response id, tool-call ids and prefix for the next request of this run."""
        ...


class Links(Protocol):
    """A bounded map shared by the workers of one machine; values up to 200 bytes; old entries are overwritten."""

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None: ...


class Journal(Protocol):
    """Where finished calls are written down; see gateway.journal."""

    def begin(self, call: Call) -> int:
        """Note the call as in flight, in memory that outlives this process; returns its slot.

        Raises JournalUnavailable when records cannot be written and the operator requires them.
        """
        ...

    def append(self, call: Call, slot: int) -> None:
        """Write the one record of a closed call and free its slot. Counts a loss instead of raising."""
        ...


class Downstream(Protocol):
    """The wire to the client. Writing is synchronous; `drained` is where a slow reader holds the upstream back."""

    on_gone: Callable[[GatewayError], None] | None  # called once when the client leaves
    gone: bool

    def start(self, status: int, reason: bytes, headers: Headers, length: int | None) -> None:
        """Begin the answer; nothing is sent before the first `write` or `finish`."""
        ...

    def write(self, data: bytes) -> None: ...

    async def drained(self) -> None:
        """Wait until the client has taken what was written. Raises ClientGone."""
        ...

    def finish(self, tail: bytes = b"") -> None:
        """Write the last piece; the answer is complete."""
        ...

    def abort(self, tail: bytes = b"") -> None:
        """Write the last piece and cut: the client must not take what it got for a complete answer."""
        ...


class Exchange(Protocol):
    """One answer in progress from an upstream; an object with a close, never a bare generator."""

    reused: bool

    @property
    def status(self) -> int: ...

    @property
    def reason(self) -> bytes: ...

    @property
    def headers(self) -> Headers: ...

    @property
    def length(self) -> int | None:
        """From content-length; None when chunked or until close."""
        ...

    def expire_in(self, seconds: float) -> None:
        """The answer said that it is over: wait for its framing to end only so long."""
        ...

    async def read(self) -> bytes:
        """The next piece of the body as it arrived; b"" at its clean end. Raises UpstreamFault or ClientGone."""
        ...

    def close(self) -> None:
        """Give the connection back to the pool if the answer ended cleanly, else cut it. Idempotent."""
        ...


class Upstreams(Protocol):
    async def open(self, attempt: Attempt, head: bytes, body: bytes, owner: Downstream) -> Exchange:
        """Send a request and wait for the head of the answer."""
        ...


class Router(Protocol):
    def plan(self, call: Call) -> Sequence[Target]: ...


class Gateway(Struct, frozen=True):
    """Built once by app.py, the only place that knows concrete classes."""

    dialects: Mapping[str, Dialect]
    prices: Prices
    estimator: Estimator
    identity: Identity
    journal: Journal
    upstreams: Upstreams
    router: Router
    monotonic: Callable[[], int]
    now: Callable[[], int]
