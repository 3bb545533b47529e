"""Both ends of a call on the wire, as the stages see them: the client below, the upstream above."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from gateway.errors import GatewayError
from gateway.ports_dialect import Headers


class Downstream(Protocol):
    """The wire to the client. Writing is synchronous; `drained` is where a slow reader holds the upstream back."""

    on_gone: Callable[[GatewayError], None] | None  # called when the client leaves or the call must end
    gone: bool
    paused: bool  # the client is behind: await `drained` before reading on

    def interrupt(self, fault: GatewayError) -> None:
        """Make the call under way end with `fault`, wherever it waits on the wire."""
        ...

    def start(self, status: int, reason: bytes, block: bytes, length: int | None) -> None:
        """Begin the answer with its header lines; nothing is sent before the first `write` or `finish`."""
        ...

    def write(self, data: bytes) -> None: ...

    async def drained(self) -> None:
        """Wait until the client has taken what was written. Raises ClientGone."""
        ...

    def upgrade(self, sink: Callable[[bytes], None]) -> None:
        """Send the head of a 101; from now on bytes pass as they are, the client's to `sink`."""
        ...

    def hold(self, paused: bool) -> None:
        """Stop or go on reading from the client."""
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
    def names(self) -> Mapping[bytes, bytes]:
        """Lower-case header name -> its first value."""
        ...

    @property
    def block(self) -> bytes:
        """The header lines as they came."""
        ...

    @property
    def length(self) -> int | None:
        """From content-length; None when chunked or until close."""
        ...

    def upgraded(self, on_pause: Callable[[bool], None]) -> Callable[[bytes], None]:
        """After a 101: `read` gives raw bytes; returns how to send; `on_pause` says when the upstream is behind."""
        ...

    def expire_in(self, seconds: float) -> None:
        """The answer said that it is over: wait for its framing to end only so long."""
        ...

    def heard(self) -> None:
        """Content has come, or none is expected: the time to the first content is no limit any more."""
        ...

    async def read_within(self, seconds: float) -> bytes | None:
        """As `read`; None where nothing came for so long."""
        ...

    async def read(self) -> bytes:
        """The next piece of the body as it arrived; b"" at its clean end. Raises UpstreamFault or ClientGone."""
        ...

    async def relay(self, sink: Callable[[bytes], bool]) -> bool:
        """Give each further piece to `sink` as it arrives, until it wants no more (False) or the body ends (True).

        Raises as `read` does. The sink runs in the callback of the connection: it must neither wait nor raise.
        """
        ...

    def unread(self, data: bytes) -> None:
        """Put back what was read to look at it."""
        ...

    def close(self) -> None:
        """Give the connection back to the pool if the answer ended cleanly, else cut it. Idempotent."""
        ...
