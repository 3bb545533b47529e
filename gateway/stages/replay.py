"""Replay: an answer that was paid for before, or is just being paid for, given to a client that asks the same.

Rules
1. What a client gets is a whole answer of its own dialect: the stored bytes where it asks as the first client did, else
   what the dialect makes of them. Only usage that was added for the gateway is taken out.
2. Nothing is written before admission has counted the call; the last piece is written behind its record (`Ending`).
3. An answer that is shared while it comes ends well only if it ended well for the call that leads.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from gateway.call import Answer, Cached, Call, Money, UsageSource
from gateway.errors import ClientGone, StreamTruncated
from gateway.policy.cache_key import entry_name
from gateway.policy.cache_rules import Terms, Wish
from gateway.ports import Dialect, Downstream, Entry, Flight, Flights, Gateway, Inquiry, Meter
from gateway.stages.arrive import readable
from gateway.stages.ending import Ending
from gateway.stages.refuse import own_lines
from gateway.stages.waiting import waiting

FREE = Money(total=0, status="free")
EVENT_STREAM = b"text/event-stream; charset=utf-8"
JSON = b"application/json"
IDLE_SECONDS = 3600.0  # between two pieces of a shared answer; the call that leads has limits of its own


class Similar:
    """A question as the matcher knows it."""

    __slots__ = ("checked", "inquiry", "ticket", "ttl")

    def __init__(self, inquiry: Inquiry, ttl: int, checks: int) -> None:
        self.inquiry = inquiry
        self.ttl = ttl  # ns
        self.ticket = checks
        self.checked = checks != 0


class Question:
    """One call that the cache is asked about."""

    __slots__ = (
        *("body", "call", "dialect", "down", "flight_key", "gw", "key", "sent", "similar", "terms", "uncounted"),
        "wish",
    )

    def __init__(self, call: Call, down: Downstream, gw: Gateway, terms: Terms, wish: Wish) -> None:
        self.call, self.down, self.gw = call, down, gw
        self.terms, self.wish = terms, wish
        self.dialect: Dialect = gw.dialects[call.route.dialect]
        self.body = readable(call).body  # as `asked` was read from it
        self.sent = self.body  # as it would be sent
        self.key = b""
        self.flight_key = b""
        self.similar: Similar | None = None  # what the matcher is asked and told of it
        # a stream whose client does not want to see usage, though it could be had
        edit = self.dialect.inject_usage(call.route, call.asked, self.body) if call.asked.stream else None
        self.uncounted = edit is not None


def shaped(question: Question, entry: Entry) -> bytes | None:
    """The stored body as this client wants it; None where it cannot be had."""
    call, dialect = question.call, question.dialect
    route, asked = call.route, call.asked
    if asked.stream and entry.stream:
        if question.uncounted:
            stripper = dialect.stripper()
            return stripper.feed(entry.body) + stripper.end()
        return entry.body if entry.counted else None
    if asked.stream:
        return dialect.streamed(route, asked, entry.body)
    if not entry.stream:
        return entry.body
    return dialect.gathered(route, asked, entry.body) if entry.counted else None  # JSON always states its usage


def say(call: Call, cached: Cached) -> None:
    """Note what became of it, for the client and the record."""
    call.cached = cached
    shown = "exact" if cached.result in ("exact", "joined") else cached.result
    call.lines += f"x-tollgate-cache: {shown}\r\n"
    if cached.age >= 0:
        call.lines += f"x-tollgate-cache-age: {cached.age // 10**9}\r\n"
    if cached.entry:
        call.lines += f"x-tollgate-cache-entry: {cached.entry}\r\n"
    if cached.score:
        call.lines += f"x-tollgate-cache-score: {cached.score:.4f}\r\n"


def start(question: Question, kind: bytes, head: bytes, length: int | None) -> None:
    """COMMIT: the head of an answer that costs nothing."""
    call, down, gw = question.call, question.down, question.gw
    call.committed = True
    call.status = 200
    call.first_byte = gw.monotonic()
    block = b"content-type: %b\r\n%b%b" % (kind, head, own_lines(call))
    if gw.cost_header:
        block += b"x-tollgate-cost-usd: 0.000000000000\r\n"
    block += b"x-tollgate-usage-source: cached\r\n"
    if length is not None:
        block += b"content-length: %d\r\n" % length
    down.start(200, b"OK", block, length)


async def admitted(question: Question) -> None:
    """Raises LimitReached, BudgetsUnavailable, ClientGone."""
    gw = question.gw
    if gw.admission is not None:
        await gw.admission.admit_hit(question.call, question.down, gw)
    if question.down.gone:
        raise ClientGone()


async def replay(
    question: Question, entry: Entry, body: bytes, flights: Flights, pace: float, *, score: float = 0.0
) -> Ending:
    """Give a stored answer again. `score`: of one to a similar question, the chance that it is right."""
    call, gw, down = question.call, question.gw, question.down
    age = max(0, gw.now() - entry.created)
    await admitted(question)
    result = "semantic" if score else "exact"
    say(call, Cached(result, "", age, entry.cost or 0, entry_name(entry.key), score))
    call.answer = structs.replace(entry.answer, usage_source=UsageSource.CACHED)
    call.money = FREE
    call.response_bytes = len(body)
    call.captured = body[: gw.capture_bytes]
    same = call.asked.stream == entry.stream
    if not call.asked.stream:
        start(question, entry.kind if same else JSON, entry.head, len(body))
        return Ending(body, complete=True)
    start(question, entry.kind if same else EVENT_STREAM, entry.head, None)
    if not pace:
        return Ending(body, complete=True)
    events = body.split(b"\n\n")
    last = events.pop() or b""
    tail = events.pop() + b"\n\n" + last if events else last
    with waiting(call, gw):
        for event in events:
            down.write(event + b"\n\n")
            if down.paused:
                await down.drained()
            await flights.pause(down, 1 / pace)
    return Ending(tail, complete=True)


async def follow(question: Question, joined: list[Flight], patience: float) -> tuple[Ending | None, Flight]:
    """The answer of the first of these equal calls that has one, and which that is. None where the latest of them (it
    stands first) failed before anything was passed on, or none has begun in time. What has failed is taken out.

    Raises ClientGone, StreamTruncated, and what refuses a hit.
    """
    latest = joined[0]
    while True:
        first = await soonest(joined, question.down, patience)
        if first is None:
            return None, latest
        ending = await shared(question, first)
        if ending is None:
            joined.remove(first)
            first.followers -= 1
        if ending is not None or first is latest or first.alone:
            return ending, first


async def soonest(joined: Sequence[Flight], down: Downstream, patience: float) -> Flight | None:
    """That which begins or ends first, None where none does in time."""
    latest, *others = joined
    while True:
        for flight in joined:
            if flight.head is not None or flight.ended:
                return flight
        if not await latest.moved(down, patience, others):
            return None


async def shared(question: Question, flight: Flight) -> Ending | None:
    """The answer of a call that has begun it or has ended, as it comes. None where that failed before anything was
    passed on."""
    call, down = question.call, question.down
    while not call.asked.stream and not flight.ended:
        await flight.moved(down, IDLE_SECONDS)
    if flight.head is None or (flight.ended and not flight.whole):
        return None
    await admitted(question)
    say(call, Cached("joined", "", 0, 0, entry_name(question.key)))
    kind, head = flight.head
    call.meter = meter = question.dialect.meter(call.route, call.asked, 200, kind)
    if call.asked.stream:
        start(question, kind, head, None)
        call.interruptible = question.dialect.writes_into(call.route, kind)
        tail = await passed_on(question, flight, meter)
    else:
        tail = b"".join(flight.pieces)
        take(question, meter, tail)
        start(question, kind, head, len(tail))
    ended(question, flight, meter.end())
    return Ending(tail, complete=True)


def take(question: Question, meter: Meter, data: bytes) -> None:
    call, gw = question.call, question.gw
    call.response_bytes += len(data)
    if gw.capture_bytes > len(call.captured):
        call.captured += data[: gw.capture_bytes - len(call.captured)]
    meter.feed(data)


async def passed_on(question: Question, flight: Flight, meter: Meter) -> bytes:
    """Pass on what the leader receives; returns what comes from the terminal event on. Raises StreamTruncated."""
    down, at = question.down, 0
    tail: list[bytes] = []
    while True:
        while at < len(flight.pieces):
            data = flight.pieces[at]
            at += 1
            take(question, meter, data)
            if tail or meter.terminal or meter.failed:
                tail.append(data)
                continue
            down.write(data)
            if down.paused:
                await down.drained()
        if flight.ended:
            break
        await flight.moved(down, IDLE_SECONDS)
    if not flight.whole:
        raise StreamTruncated("the call whose answer this one shares broke off")
    return b"".join(tail)


def ended(question: Question, flight: Flight, answer: Answer) -> None:
    call = question.call
    answer.complete = True
    if answer.usage is not None:
        answer.usage_source = UsageSource.CACHED
    call.answer = answer
    call.money = FREE
    if call.cached is not None:
        call.cached.saved = flight.cost or 0
