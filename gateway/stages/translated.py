"""Translated: an upstream that speaks another API than the client is asked in its own, and answers in the client's.

Rules
1. Bytes of an upstream that speaks the client's API are never touched: nothing of this is used for them.
2. The request is translated as it would be sent, so that an alias, a lower limit and a lower effort are in it. Nothing
   of the client's credentials goes along: they are another provider's.
3. What stands behind the wire to the upstream and what stands before the client see one `Exchange`, in the client's
   dialect; the meter has read the upstream's bytes (see dialects.translate.port).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from gateway.call import Call, Usage
from gateway.errors import BadAnswer, GatewayError, Rejected, UpstreamFault
from gateway.policy.encoding import PLAIN, decoder_for
from gateway.policy.model_limits import most
from gateway.ports import Exchange, Gateway, Headers, OtherAnswer, OtherQuestion, Spec, Turns

REWRITTEN = frozenset((b"content-length", b"content-type", b"content-encoding", b"transfer-encoding"))


def is_translated(call: Call, spec: Spec, gw: Gateway) -> bool:
    return gw.translator is not None and bool(gw.translator.dialect(call, spec.family))


def may_lead(call: Call, upstream: str, gw: Gateway, *, home: Spec | None = None) -> bool:
    """Can this call be answered by that upstream, in whatever words? `home`: the one that it was for."""
    family = gw.specs[upstream].family
    home = home or gw.specs[call.route.upstream]
    return family == home.family or (gw.translator is not None and gw.translator.serves(call, family))


def sayable(call: Call, spec: Spec, gw: Gateway, body: bytes) -> bool:
    """Can the API of this upstream say all that the client asks? `body`: of the request, decoded."""
    if gw.translator is None or not gw.translator.dialect(call, spec.family):
        return True
    try:
        gw.translator.ask(call, (spec.name, spec.family), body, droppable=spec.droppable)
    except Rejected:
        return False
    return True


def ask(call: Call, spec: Spec, body: bytes, gw: Gateway) -> OtherQuestion | None:
    """The request in the words of this upstream; None where they are the client's. Raises BadBody, Untranslatable."""
    call.translated = None
    if gw.translator is None or not gw.translator.dialect(call, spec.family):
        return None
    usage = spec.inject_usage and spec.name not in gw.learned.refuses_injection
    known = most(call.model_sent or call.asked.model)
    question = gw.translator.ask(
        call,
        (spec.name, spec.family),
        body,
        droppable=spec.droppable,
        usage=usage,
        max_tokens=known.asked if known is not None else 0,
    )
    call.notes = {**call.notes, "translated": question.dialect}
    if question.dropped:
        call.notes = {**call.notes, "dropped": ",".join(question.dropped)}
    return question


def answered(call: Call, question: OtherQuestion, exchange: Exchange, gw: Gateway) -> Exchange:
    """The answer in the words of the client."""
    call.translated = question.answer(exchange.status, exchange.names.get(b"content-type", b""))
    return TranslatedExchange(exchange, call.translated, gw.turns)


def end_early(call: Call, usage: Usage, gw: Gateway) -> bytes:
    """What ends a stream whose allowance is used up."""
    if call.translated is not None:
        said: bytes = call.translated.finish_early(usage)
        return said
    return gw.dialects[call.route.dialect].finish_early(call.meter, call.asked, call.id, usage)


def interruption(call: Call, fault: GatewayError, gw: Gateway) -> bytes:
    """The event that tells a client in mid-stream that its answer failed."""
    if call.translated is not None:
        said: bytes = call.translated.interrupt(fault, call.id)
        return said
    return gw.dialects[call.route.dialect].interruption(fault, call.meter, call.id)


class TranslatedExchange:
    """Implements ports.Exchange over the answer of an upstream that speaks another API."""

    def __init__(self, inner: Exchange, answer: OtherAnswer, turns: Turns) -> None:
        self._inner = inner
        self._answer = answer
        self._turns = turns
        self._decoder = decoder_for(inner.names.get(b"content-encoding", b""))
        self._ended = False
        self._waiting = b""  # put back
        self.reused = inner.reused
        self.status, self.reason = inner.status, inner.reason
        self.length: int | None = None  # known once a whole answer was translated
        self._kept = [header for header in inner.headers if header[0].lower() not in REWRITTEN]
        self._kept.append((b"content-type", answer.content_type))

    @property
    def headers(self) -> Headers:
        sized = [(b"content-length", b"%d" % self.length)] if self.length is not None else []
        return [*self._kept, *sized]

    @property
    def names(self) -> Mapping[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for name, value in self.headers:
            found.setdefault(name.lower(), value)
        return found

    @property
    def block(self) -> bytes:
        return b"".join([b"%b: %b\r\n" % header for header in self.headers])

    def upgraded(self, on_pause: Callable[[bool], None]) -> Callable[[bytes], None]:
        return self._inner.upgraded(on_pause)

    def expire_in(self, seconds: float) -> None:
        self._inner.expire_in(seconds)

    def heard(self) -> None:
        self._inner.heard()

    async def read(self) -> bytes:
        if self._waiting:
            return self._put_back()
        while not self._ended:
            said = await self._turn(self._inner.read)
            if said:
                return said
        return b""

    async def read_within(self, seconds: float) -> bytes | None:
        if self._waiting:
            return self._put_back()
        while not self._ended:
            said = await self._turn(lambda: self._inner.read_within(seconds))
            if said is None or said:
                return said
        return b""

    async def _turn(self, read: Callable[[], Awaitable[bytes | None]]) -> bytes | None:
        """What the next piece says to the client; None where nothing came."""
        if self._decoder.behind:
            await self._turns.next()
            return self._answer.feed(self._decoder.more())
        try:
            data = await read()
        except UpstreamFault:
            if not self._answer.meter.terminal:
                raise
            data = b""  # all was said: what is missing is the end of its framing
        if data is None:
            return None
        return self._said(data) if data else self._finish()

    async def relay(self, sink: Callable[[bytes], bool]) -> bool:
        """A piece that says nothing to the client is not given on, unless it is the end."""
        if self._waiting and not sink(self._put_back()):
            return False
        if self._ended:
            return True
        if self._decoder is not PLAIN:
            return await self._relay_decoded(sink)
        meter = self._answer.meter

        def into(data: bytes) -> bool:
            said = self._said(data)
            return sink(said) if said or meter.terminal or meter.failed else True

        if not await self._inner.relay(into):
            return False
        tail = self._finish()
        return sink(tail) if tail else True

    async def _relay_decoded(self, sink: Callable[[bytes], bool]) -> bool:
        """A piece may expand to more than is decoded at a time."""
        while said := await self.read():
            if not sink(said):
                return False
        return True

    def unread(self, data: bytes) -> None:
        self._waiting = data + self._waiting

    def _put_back(self) -> bytes:
        waiting, self._waiting = self._waiting, b""
        return waiting

    def close(self) -> None:
        self._inner.close()

    def _said(self, data: bytes) -> bytes:
        return self._answer.feed(self._decoder.begin(data))

    def _finish(self) -> bytes:
        """The upstream's body has ended. Raises BadAnswer."""
        self._ended = True
        if self._decoder.broken:
            raise BadAnswer("the answer cannot be decoded, and so not be translated")
        tail = self._answer.end()
        if not self._answer.streams:
            self.length = len(tail)
        return tail
