"""Passage: one answer on its way through, and who looks at it. See gateway.stages.pump."""

from __future__ import annotations

from collections.abc import Callable

from gateway.call import Call
from gateway.policy.encoding import PLAIN, Decoder, decoder_for
from gateway.policy.forward import keeps_cookies, response_block
from gateway.ports import Downstream, Exchange, Gateway, Meter, Reading, Spec, Stripper
from gateway.stages.refuse import own_lines

NONE: frozenset[bytes] = frozenset()
SIZED = frozenset((b"content-length",))
JSON = b"application/json"
STREAMS = (
    *(b"text/event-stream", b"application/x-ndjson", b"application/stream+json"),
    b"application/vnd.amazon.eventstream",
)


class Passage:
    """One answer on its way through: where its bytes come from, and who looks at them."""

    __slots__ = (
        "call", "decoder", "down", "exchange", "fill", "gw", "held", "interruptible", "kept", "kind", "meter", "most",
        "seen", "spec", "stopped", "streaming", "stripper", "tail",
    )  # fmt: skip

    def __init__(self, call: Call, exchange: Exchange, down: Downstream, gw: Gateway) -> None:
        dialect = gw.dialects[call.route.dialect]
        names = exchange.names
        kind = names.get(b"content-type", b"")
        self.call, self.exchange, self.down, self.gw = call, exchange, down, gw
        self.spec: Spec = gw.specs[call.route.upstream]
        self.kind = kind
        self.streaming = is_stream(call, exchange, kind)
        other = call.translated  # its meter reads what the upstream said, not what the client gets
        self.meter: Meter = other.meter if other else dialect.meter(call.route, call.asked, exchange.status, kind)
        call.meter = self.meter
        coding = names.get(b"content-encoding")
        self.decoder: Decoder = PLAIN if coding is None else decoder_for(coding)
        events = coding is None and kind.startswith(STREAMS[0])
        open_ended = coding is None and exchange.length is None
        self.interruptible = open_ended and dialect.writes_into(call.route, kind)
        self.stripper: Stripper | None = dialect.stripper() if events and call.asked.injected else None
        if call.sight is not None:
            self.stripper = dialect.sieve(call.sight, stream=b"event-stream" in kind.lower())
        self.fill = call.fill  # None: the answer is for nobody else
        checked = call.check is not None and 200 <= exchange.status < 300
        self.seen: Reading | None = call.check.reading(call.route) if checked else None  # to be checked at the end
        self.kept = max(gw.capture_bytes, call.kept)
        self.held = b""  # what came of a stream and is not passed on yet; see stages.peek
        self.tail = b""  # what `pass_on` did not send any more
        plain = self.interruptible or self.stripper is not None
        self.most = call.hold.output if call.hold is not None and plain else 0  # tokens of output; 0: no limit of ours
        self.stopped = False  # by that limit

    def look(self, data: bytes) -> bytes:
        """Meter a piece, or its first step (`catch_up` follows); return what of it the client shall see."""
        call = self.call
        call.response_bytes += len(data)
        plain = self.decoder.begin(data)
        self.read(plain)
        if self.most and self.meter.produced(self.most) >= self.most:
            data = self.stop(data)
        shown = data if self.stripper is None else self.stripper.feed(data)
        if self.fill is not None:
            self.fill.feed(plain, shown if self.stripper is not None else plain)
        return shown

    def read(self, plain: bytes) -> None:
        call = self.call
        self.meter.feed(plain)
        if self.kept > len(call.captured):
            call.captured += plain[: self.kept - len(call.captured)]
        if self.seen is not None:
            self.seen.feed(plain)

    async def take(self, data: bytes) -> bytes:
        """`look`, and all that the piece expands to."""
        shown = self.look(data)
        if self.decoder.behind:
            await self.catch_up()
        return shown

    async def catch_up(self) -> None:
        """Meter what the last piece expands to beyond one step, in turns with everything else."""
        while self.decoder.behind:
            await self.gw.turns.next()
            plain = self.decoder.more()
            self.read(plain)
            if self.fill is not None:
                self.fill.feed(plain, plain)

    def rest(self) -> bytes:
        """What the stripper still holds back when the upstream has ended."""
        rest = self.stripper.end() if self.stripper is not None else b""
        if self.fill is not None:
            self.fill.feed(b"", rest)
        return rest

    def stop(self, data: bytes) -> bytes:
        """The allowance of the call is used up: what of the last piece the client may still have."""
        left = -1 if self.meter.terminal or self.meter.failed else self.meter.stop(data)
        if left < 0:
            return data  # within an event, or at the end anyway
        self.stopped, self.most = True, 0
        return data[:left]

    def looker(self) -> Callable[[bytes], bytes]:
        """What looks at the pieces of an answer: `look`, or the short way where there is little to do."""
        return self.look_plain if self.is_plain() else self.look

    def look_plain(self, data: bytes) -> bytes:
        self.call.response_bytes += len(data)
        self.meter.feed(data)
        return data

    def is_plain(self) -> bool:
        """Is nothing decoded, kept or taken out?"""
        kept = self.kept or self.most or self.fill is not None or self.seen is not None
        return self.decoder is PLAIN and self.stripper is None and not kept

    def sink(self) -> Callable[[bytes], bool]:
        """Where the pieces of a committed answer go. It says False where that was the last for now: the answer ends,
        or the client is behind, or the decoder."""
        return self.pass_plain if self.is_plain() else self.pass_on

    def pass_plain(self, data: bytes) -> bool:
        """`pass_on` where nothing is decoded, kept or taken out: what a paced stream costs is mostly this."""
        meter, down = self.meter, self.down
        self.call.response_bytes += len(data)
        meter.feed(data)
        if meter.terminal or meter.failed:
            self.tail = data
            return False
        down.write(data)
        return not (down.paused or down.gone)

    def pass_on(self, data: bytes) -> bool:
        out, meter, down = self.look(data), self.meter, self.down
        if meter.terminal or meter.failed or self.stopped or self.decoder.behind:
            self.tail = out
            return False
        if out:
            down.write(out)
        return not (down.paused or down.gone)

    @property
    def events(self) -> bool:
        """Is it a stream of server-sent events, in which there may be comments?"""
        return self.kind.startswith(STREAMS[0])

    @property
    def holds(self) -> bool:
        """Could all of it still be withheld, because a dearer target is left that could be asked?"""
        call = self.call
        return self.seen is not None and not call.committed and call.trial is not None and call.trial.above

    def commit(self, data: bytes) -> None:
        """COMMIT: the head and the first bytes go to the client."""
        call = self.call
        call.committed = True
        call.interruptible = self.interruptible or self.stripper is not None
        call.first_byte = call.first_byte or self.gw.monotonic()
        if call.promised:
            if self.fill is not None:
                self.fill.begin(self.exchange, self.streaming)
        else:
            call.status = self.exchange.status
            self.start(own_lines(call), resized=self.stripper is not None)
        self.down.write(data)

    def promise(self) -> None:
        """The head of an event stream goes to the client, with nothing behind it yet but pings: what it will be the
        head of may still change."""
        call, exchange = self.call, self.exchange
        call.promised = call.early = True
        call.status, call.first_byte = exchange.status, self.gw.monotonic()
        block = response_block(exchange, dropped=SIZED if self.stripper is not None else NONE) + own_lines(call)
        self.down.start(exchange.status, exchange.reason, block, None)

    def start(self, added: bytes, *, resized: bool) -> None:
        exchange = self.exchange
        if self.fill is not None:
            self.fill.begin(exchange, self.streaming)
        dropped = SIZED if resized else NONE
        if self.call.asked.gated and keeps_cookies(self.gw.specs[self.call.route.upstream]):
            dropped |= {b"set-cookie"}
        block = response_block(exchange, dropped=dropped) + added
        self.down.start(exchange.status, exchange.reason, block, None if resized else exchange.length)


def is_stream(call: Call, exchange: Exchange, kind: bytes) -> bool:
    """Does this answer mean something piece by piece? An event stream does; so does a JSON array that was asked for as
    a stream (Gemini without alt=sse) and has no stated length. Errors, redirects and empty answers do not."""
    if not 200 <= exchange.status < 300 or exchange.status == 204:
        return False
    return kind.startswith(STREAMS) or (call.asked.stream and kind.startswith(JSON) and exchange.length is None)
