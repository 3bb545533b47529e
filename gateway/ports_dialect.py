"""The ports of the provider APIs: what a dialect reads, says and changes. All of it is sans-io: bytes in, facts out.

Part of `gateway.ports`, from where it is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from gateway.call import Answer, Asked, Bounds, Edit, Request, Route, Usage
from gateway.errors import GatewayError

Headers = Sequence[tuple[bytes, bytes]]


class ErrorAnswer(Struct, frozen=True):
    """A whole HTTP answer made by the gateway, in the client's dialect."""

    status: int
    headers: Headers
    body: bytes


class Blame(Struct, frozen=True):
    """What the body of an error says of its cause."""

    kind: str = ""  # context: too long for the model; policy: its content is refused; quota: spent, not only for now
    wait: float | None = None  # seconds to wait


class LastTurn(Struct, frozen=True):
    """What the user says last, and the request with nothing in its place."""

    text: str
    rest: Mapping[str, Any]  # members of the body
    before: bool = False  # the model has said something before
    why: str = ""  # that cannot be told: shape, turn (not the user's), tools, media, stored


class Meter(Protocol):
    """Reads a decoded (not content-encoded) response body as it passes, in pieces of any size.

    `feed` never raises and keeps bounded memory whatever it is given. For streams, `begun` turns true where an event
    says who is going to answer, `started` at the first that says more (no comment or ping does either), `terminal` at
    the dialect's terminal event, and `failed` holds the provider's error type once an error event was seen.
    """

    begun: bool
    started: bool
    terminal: bool
    failed: str

    def feed(self, data: bytes) -> None: ...

    def produced(self, most: int) -> int:
        """An upper estimate of the tokens of output that could be seen so far, or what the provider states where that
        is more; exact only from `most` on, so that it may be asked for every piece. 0 for what is no stream.
        """
        ...

    def stop(self, data: bytes) -> int:
        """End the reading here, `data` being the piece fed last: how many of its bytes the client may still have before
        `Dialect.finish_early`, up to the end of its last whole event. What follows is forgotten.

        -1, and nothing is changed, where that end lies before the piece, or the body is no stream: go on, ask again.
        """
        ...

    def readable(self) -> bool:
        """Is the body, which has come to its end, of the kind that it claims to be? To be asked before `end`."""
        ...

    def garbled(self) -> bool:
        """Is it a stream of which events came, and no data of them is JSON? May be asked at any time."""
        ...

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
    ping: bytes  # an event that means nothing, where the clients of the dialect take one; else b""
    caches_marked: bool  # providers cache what the client marks, and nothing else

    def read(self, route: Route, request: Request) -> Asked:
        """Read the request body. Raises BadBody for JSON faults, duplicate policy keys and bombs."""
        ...

    def bounds(self, route: Route, asked: Asked) -> Bounds:
        """What the call may make the provider do, before it is sent."""
        ...

    def meter(self, route: Route, asked: Asked, status: int, content_type: bytes) -> Meter: ...

    def writes_into(self, route: Route, kind: bytes) -> bool:
        """Can `interruption` and `finish_early` be written into an answer of this content type?"""
        ...

    def inject_usage(self, route: Route, asked: Asked, body: bytes) -> Edit | None:
        """The splice that makes a stream carry usage, or None where it does by itself or was asked to."""
        ...

    def cap_output(
        self, route: Route, asked: Asked, body: bytes, ceiling: int, model: str = ""
    ) -> tuple[Edit, ...] | None:
        """The splices by which no more than `ceiling` tokens can come of each choice; () where that is so already.

        None where it cannot be had: the operation has no such limit, the body was not read as it stands, or a request
        for reasoning leaves no room. `model`: the one that is sent, where it is not the one asked for. Raises BadBody
        where keys within a value are repeated.
        """
        ...

    def lower_effort(self, route: Route, asked: Asked, body: bytes, effort: str, model: str = "") -> tuple[Edit, ...]:
        """The splices that ask for reasoning of at most this effort (minimal, low, medium), where it asks for more."""
        ...

    def mark_prefix(self, route: Route, asked: Asked, body: bytes) -> tuple[Edit, ...]:
        """The splices that let the provider cache what is stable of a prompt in which the client marked nothing."""
        ...

    def rename(self, route: Route, asked: Asked, model: str) -> tuple[Route, tuple[Edit, ...]]:
        """How the same call asks for another model: in its path or by a splice of its body."""
        ...

    def stripper(self) -> Stripper: ...

    def rejects_injection(self, status: int, body: bytes) -> bool:
        """Does this upstream error say that it does not know `stream_options`?"""
        ...

    def refusal(
        self,
        fault: GatewayError,
        request_id: str,
        *,
        stream: bool,
        route: Route | None = None,
        asked: Asked | None = None,
    ) -> ErrorAnswer:
        """The answer to a call that the gateway itself refuses or could not complete, before the commit point.

        `route` and `asked`, where known, let a dialect word the error as that endpoint does.
        """
        ...

    def last_word(self, fault: GatewayError, request_id: str, names: Mapping[bytes, bytes]) -> ErrorAnswer | None:
        """What a client that asked for a stream takes as final, where it would try the plain refusal again. `names`:
        its headers. None: it takes the plain one.
        """
        ...

    def sieve(self, allowed: Callable[[str], bool], *, stream: bool) -> Stripper:
        """Takes the tools that are not `allowed` out of an answer that lists some; `stream`: it is an event stream."""
        ...

    def tap(self, extensions: bytes) -> Tap:
        """A reader of the WebSocket that follows a 101; `extensions` as negotiated."""
        ...

    def restate(self, route: Route, frame: bytes) -> ErrorAnswer | None:
        """The HTTP error that a first SSE frame stands for, with the provider's own error body."""
        ...

    def blame(self, status: int, body: bytes) -> Blame:
        """What an error of the upstream means, as far as its body says."""
        ...

    def interruption(self, fault: GatewayError, meter: Meter, request_id: str) -> bytes:
        """The event that tells a client in mid-stream that the answer failed. Never a terminal event of success."""
        ...

    def unfinished(self, tail: bytes) -> bytes:
        """The end of a stream that failed, without what a client would take for the end of a whole one."""
        ...

    def remark(self, note: str) -> bytes:
        """A line for people in an event stream, ignored by clients; b"" where some client would choke on it."""
        ...

    def streamed(self, route: Route, asked: Asked, body: bytes) -> bytes | None:
        """A whole JSON answer as the stream that this API would have sent; None where that cannot be had."""
        ...

    def gathered(self, route: Route, asked: Asked, body: bytes) -> bytes | None:
        """A whole stream as the JSON answer that this API would have sent; None where that cannot be had."""
        ...

    def last_turn(self, route: Route, value: Mapping[str, Any]) -> LastTurn:
        """`value`: the members of the request body. For questions that are like one another."""
        ...

    def answer_text(self, route: Route, asked: Asked, body: bytes, *, stream: bool) -> str | None:
        """What the model says in a whole answer, without its reasoning; None where that is not one text."""
        ...

    def finish_early(
        self, meter: Meter, asked: Asked, request_id: str, usage: Usage, note: str = "budget_exceeded"
    ) -> bytes:
        """What ends a stream properly whose allowance is used up, as the provider does at `max_tokens`, behind a
        `note` of one line. `meter` was stopped (also when it has ended since). b"" where the body is no stream.
        """
        ...


class Used(Struct, frozen=True, gc=False):
    """The answers of a WebSocket session together: by which model, how much, and what else their price hangs on."""

    model: str
    usage: Usage
    pricing: dict[str, str]
    parts: tuple[tuple[Usage, str, dict[str, str]], ...] = ()  # billed apart, as of `Answer`


class Tap(Protocol):
    """Reads both directions of a WebSocket as it is relayed, byte for byte; never raises, bounded memory."""

    def feed(self, from_client: bool, data: bytes) -> None: ...

    def used(self) -> Used | None:
        """What the session took so far; None where no answer has come to its end since it was last asked."""
        ...

    def strays(self, model: str) -> bool:
        """Did a message of the client ask for another model than this one, or may one that could not be read?"""
        ...

    def withheld(self) -> None:
        """What the client asked for last does not go on to the upstream."""
        ...

    def close(self, fault: GatewayError, request_id: str) -> bytes:
        """What tells the client that the gateway ends the session; b"" while the upstream is within a message."""
        ...

    def end(self) -> Answer: ...
