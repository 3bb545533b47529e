"""Pump: upstream -> meter -> client, bytes untouched. The commit point is in here.

Rules
1. COMMIT is the first byte towards the client. Before it a fault becomes an HTTP error; after it only an error event
   and a cut connection can tell the truth.
2. A JSON answer of bounded size is read whole first: then its cost can stand in its headers.
3. A stream is looked at until its first meaningful event before it is committed, so that a 200 that carries an error is
   answered as that error (see stages.peek).
4. From the terminal event on, bytes are held back until the record is written (see `Ending`).
5. A stream that ends without its terminal event, or with an error event, or of which no event could be read, never ends
   cleanly.
6. Where a dearer target of a cascade is left, nothing is committed before the answer was checked (see stages.cascade).
"""

from __future__ import annotations

from gateway.call import Call, Usage
from gateway.errors import BadAnswer, ClientGone, GatewayError, StreamErrored, StreamTruncated, UpstreamFault
from gateway.policy.encoding import Bounded, Identity, decoder_for
from gateway.policy.forward import rendered, response_block
from gateway.ports import Downstream, Exchange, Gateway
from gateway.stages.account import account
from gateway.stages.cascade import weigh
from gateway.stages.ending import Ending
from gateway.stages.passage import JSON, Passage
from gateway.stages.peek import peek
from gateway.stages.refuse import own_lines, whole
from gateway.stages.translated import end_early

WHOLE_LIMIT = 1_048_576  # answers up to here are read whole before they are committed
GRACE_SECONDS = 0.25  # from a terminal event to the end of the body
BYTES_PER_TOKEN = 4  # of a stream; events wrap their tokens in far more, so a bound in bytes errs towards less cost
ONE_THOUSAND_OUT = Usage(output_tokens=1000)
RESTATED = frozenset((b"content-length", b"content-type", b"content-encoding"))
PAGE = b"text/html"


async def pump(call: Call, exchange: Exchange, down: Downstream, gw: Gateway) -> Ending:
    """Returns what is still to be sent. Raises UpstreamFault, ClientGone."""
    try:
        passage = Passage(call, exchange, down, gw)
        try:
            if down.gone:
                raise ClientGone()
            if passage.kind[:9].lower() == PAGE:
                refuse_page(passage)
            if call.sight is not None:
                refuse_opaque(passage)
            if call.promised and not (exchange.status == call.status and passage.interruptible):
                raise BadAnswer("the client waits for an event stream, and what was answered is none")
            if call.route.operation and not passage.streaming:
                ending = await pump_whole(passage)
            else:
                ending = await pump_stream(passage)
            if down.gone:
                raise ClientGone()
            return ending
        except ClientGone:
            if passage.fill is not None and passage.fill.followed and not passage.holds:
                await carry_on(passage)
            elif passage.spec.drain:
                await drain(passage)
            raise
    finally:
        call.upstream_last_byte = gw.monotonic()
        exchange.close()


def refuse_page(passage: Passage) -> None:
    """A web page in the place of a successful answer comes from a portal or a wrong URL, but where a tool fetches one.
    Raises BadAnswer."""
    call = passage.call
    if call.route.operation and not call.asked.calls and 200 <= passage.exchange.status < 300:
        raise BadAnswer("the upstream answered with a web page")


def refuse_opaque(passage: Passage) -> None:
    """Something may have to be taken out of the answer, and it came compressed all the same. Raises BadAnswer."""
    if type(passage.decoder) is not Identity:
        raise BadAnswer("the answer is compressed although that was declined, and cannot be looked through")


def refuse_nonsense(passage: Passage) -> None:
    """What says that it is JSON, and is not, is no answer of a model. Raises BadAnswer."""
    if passage.exchange.status < 300 and passage.kind.startswith(JSON) and not passage.call.asked.gated:
        if passage.decoder.broken and isinstance(passage.decoder, Bounded):  # an unknown coding may be right
            raise BadAnswer("the content coding of the upstream's answer is broken")
        if not passage.meter.readable():
            raise BadAnswer("the upstream answered with what is not JSON, though it says so")


async def pump_whole(passage: Passage) -> Ending:
    """An answer that means nothing before it is complete."""
    exchange, look = passage.exchange, passage.looker()
    held: list[bytes] = []
    size = 0

    def keep(data: bytes) -> bool:
        nonlocal size
        if not size:
            exchange.heard()
        held.append(look(data))
        size += len(data)
        return size <= WHOLE_LIMIT and not passage.decoder.behind

    while not await exchange.relay(keep):  # the pieces are kept as they come, without waking this coroutine for each
        await passage.catch_up()
        if size > WHOLE_LIMIT:
            passage.commit(b"".join(held))
            return await pump_rest(passage)
    if passage.stripper is not None:
        held.append(passage.rest())
    refuse_nonsense(passage)
    settle(passage)
    body = held[0] if len(held) == 1 else b"".join(held)
    if passage.seen is not None:
        weigh(passage, lambda: whole_answer(passage, body))
    return whole_answer(passage, body)


def whole_answer(passage: Passage, body: bytes) -> Ending:
    """COMMIT, of an answer that was accounted for."""
    call = passage.call
    call.committed = True
    call.status = passage.exchange.status
    call.first_byte = passage.gw.monotonic()
    passage.start(own_lines(call) + cost_lines(call, passage.gw), resized=passage.stripper is not None)
    return Ending(body, complete=True)


async def pump_stream(passage: Passage) -> Ending:
    """Look at the beginning, then pass on what comes as it comes."""
    call, exchange, meter = passage.call, passage.exchange, passage.meter
    if not (passage.streaming and call.route.operation):
        exchange.heard()
    elif not await peek(passage):
        return await end_of_stream(passage, [passage.held])
    held, open_ = passage.held, not call.committed
    fresh = open_ and not call.promised
    if open_ and meter.garbled():
        raise BadAnswer("nothing that came before the end of the stream is JSON")
    if fresh and meter.failed and exchange.status < 400 and (ending := restated(passage, held)) is not None:
        return ending
    holds = open_ and passage.holds
    if holds and call.trial is not None:
        call.trial.keep_waiting(passage)
    if passage.stopped:
        return stopped_stream(passage, held)
    if meter.terminal or meter.failed:
        return await end_of_stream(passage, [held])
    if holds:
        return await pump_held(passage, held)
    (passage.commit if open_ else passage.down.write)(held)
    return await pump_rest(passage)


async def pump_held(passage: Passage, first: bytes) -> Ending:
    """A stream that may still be withheld: read it to its end, within a bound, before anything of it is passed on."""
    exchange, meter, seen, held = passage.exchange, passage.meter, passage.seen, [first]
    assert seen is not None
    while not (meter.terminal or meter.failed or passage.stopped):
        if seen.full:  # too much to be checked
            passage.commit(b"".join(held))
            return await pump_rest(passage)
        data = await exchange.read()
        if not data:
            break
        held.append(await passage.take(data))
    return stopped_stream(passage, b"".join(held)) if passage.stopped else await end_of_stream(passage, held)


def restated(passage: Passage, frame: bytes) -> Ending | None:
    """The answer began with an error event: give it the status it should have had. None if something came before it."""
    call, gw = passage.call, passage.gw
    plain = decoder_for(passage.exchange.names.get(b"content-encoding", b"")).begin(frame)
    answer = gw.dialects[call.route.dialect].restate(call.route, plain)
    if answer is None:
        return None
    fault = call.attempts[-1].fault = StreamErrored(f"error in the first event: {passage.meter.failed}")
    fault.status = call.attempts[-1].status = answer.status
    if call.trial is not None and call.trial.again(answer.status, answer.body):
        raise fault
    call.status = answer.status
    block = rendered(answer.headers) + response_block(passage.exchange, dropped=RESTATED) + own_lines(call)
    return whole(passage.down, answer.status, block, answer.body)


async def pump_rest(passage: Passage) -> Ending:
    down, meter, sink = passage.down, passage.meter, passage.sink()
    while not await passage.exchange.relay(sink):
        if passage.decoder.behind:
            await passage.catch_up()
            if not (meter.terminal or meter.failed):
                down.write(passage.tail)
        if passage.stopped:
            return stopped_stream(passage, passage.tail)
        if meter.terminal or meter.failed:
            return await end_of_stream(passage, [passage.tail])
        await down.drained()
    return await end_of_stream(passage, [])


async def end_of_stream(passage: Passage, tail: list[bytes]) -> Ending:
    """Read what comes behind the terminal event, and judge how the stream ended. Raises StreamTruncated."""
    exchange, meter, call = passage.exchange, passage.meter, passage.call
    cut = False
    try:
        if tail:
            await read_on(passage, tail)
    except UpstreamFault:
        if not (meter.terminal or meter.failed):
            raise
        cut = passage.stripper is None and exchange.length is not None
    if passage.stripper is not None:
        tail.append(passage.rest())
    settle(passage)
    assert call.answer is not None
    rest = b"".join(tail)
    if meter.failed and exchange.status < 400:
        fault = StreamErrored(f"the upstream reported an error in mid-stream: {meter.failed}")
        if passage.holds:
            raise fault  # nobody has read anything of it
        call.fault = fault
        ensure_committed(passage)
        unfinished = passage.gw.dialects[call.route.dialect].unfinished
        return Ending(unfinished(rest) if type(passage.decoder) is Identity else rest, complete=False)
    if passage.streaming and call.route.operation and not call.answer.complete:
        if rest and (meter.started or call.committed) and not meter.garbled() and not passage.holds:
            ensure_committed(passage)
            passage.down.write(rest)
        raise StreamTruncated("the upstream ended the stream without its terminal event")
    if passage.seen is not None:
        weigh(passage, lambda: ended_stream(passage, rest, cut=cut))
    return ended_stream(passage, rest, cut=cut)


def ended_stream(passage: Passage, rest: bytes, *, cut: bool) -> Ending:
    """A stream has come to its proper end, and was accounted for."""
    call, gw = passage.call, passage.gw
    ensure_committed(passage)
    assert call.answer is not None
    if gw.stream_cost_comment and call.money.total is not None and call.interruptible and passage.events:
        dialect = gw.dialects[call.route.dialect]
        rest += dialect.remark(f"cost_usd={call.money.total / 1e12:.12f} usage_source={call.answer.usage_source}")
    return Ending(rest, complete=not cut)


def stopped_stream(passage: Passage, tail: bytes) -> Ending:
    """The allowance of the call is used up: end the answer as its provider does at `max_tokens`, and keep what came."""
    settle(passage)
    if passage.seen is not None:
        weigh(passage, lambda: finished_early(passage, tail))
    return finished_early(passage, tail)


def finished_early(passage: Passage, tail: bytes) -> Ending:
    call, gw = passage.call, passage.gw
    ensure_committed(passage)
    assert call.answer is not None
    call.notes = {**call.notes, "budget": "stopped"}
    usage = call.answer.usage or Usage()
    return Ending(tail + end_early(call, usage, gw), complete=True)


async def read_on(passage: Passage, tail: list[bytes]) -> None:
    """Gather what comes behind the terminal event, for a moment; where that is much, let it go on."""
    passage.exchange.expire_in(GRACE_SECONDS)
    held = 0
    while data := await passage.exchange.read():
        tail.append(await passage.take(data))
        held += len(data)
        if held > WHOLE_LIMIT:
            ensure_committed(passage)
            passage.down.write(b"".join(tail))
            tail.clear()
            held = 0
            await passage.down.drained()


def settle(passage: Passage) -> None:
    """The body has come to its end: account for it. What could not be decoded cannot be judged either."""
    call, unreadable = passage.call, passage.decoder.broken
    call.upstream_last_byte = passage.gw.monotonic()
    account(call, passage.meter, passage.gw, whole=unreadable or not passage.streaming or passage.stopped)
    if unreadable:
        call.notes = {**call.notes, "answer": "content coding cannot be read"}


def ensure_committed(passage: Passage) -> None:
    if not passage.call.committed:
        passage.commit(b"")


def cost_lines(call: Call, gw: Gateway) -> bytes:
    lines = b""
    if gw.cost_header and call.money.total is not None:
        lines = b"x-tollgate-cost-usd: %.12f\r\n" % (call.money.total / 1e12)
    if call.answer is not None:
        lines += b"x-tollgate-usage-source: %b\r\n" % call.answer.usage_source.encode()
    return lines


async def drain(passage: Passage) -> None:
    """The client left: read on, within bounds of time and cost, to learn what the answer really used."""
    exchange, meter, spec, gw, call = passage.exchange, passage.meter, passage.spec, passage.gw, passage.call
    model = call.model_sent or call.asked.model
    per_token = gw.prices.price(spec.target.provider, model, ONE_THOUSAND_OUT, call.started_at / 1e9).total
    limit = int(spec.drain_usd * 1e12 * 1000 * BYTES_PER_TOKEN / per_token) if per_token else WHOLE_LIMIT
    until = gw.monotonic() + int(spec.drain_seconds * 1e9)
    call.notes = {**call.notes, "client_gone": "drained"}
    exchange.expire_in(spec.drain_seconds)
    try:
        while limit > 0 and gw.monotonic() < until and not (meter.terminal or meter.failed):
            try:
                data = await exchange.read()
            except ClientGone:  # the same news again, where it left between two reads
                continue
            if not data:
                break
            await passage.take(data)
            limit -= len(data)
    except GatewayError:
        call.notes = {**call.notes, "client_gone": "drain_failed"}


async def carry_on(passage: Passage) -> None:
    """The client left, but others receive the same answer: read it to its end for them."""
    exchange, meter, fill = passage.exchange, passage.meter, passage.fill
    passage.call.notes = {**passage.call.notes, "client_gone": "carried_on"}
    try:
        fill.begin(exchange, passage.streaming)
        while not (meter.terminal or meter.failed) and fill.followed:
            try:
                data = await exchange.read()
            except ClientGone:  # the same news again
                continue
            if not data:
                fill.carried = not passage.streaming
                break
            await passage.take(data)
        fill.carried = fill.carried or (meter.terminal and not meter.failed)
        passage.rest()
    except GatewayError:
        return
    settle(passage)
