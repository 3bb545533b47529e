"""Cache: an answer already paid for, given again. Behind `watch`, since a stopped run gets nothing; before `admit`,
since a hit asks for no money.

Rules
1. What a call may have and leave is `policy.cache_rules`; which question it is, `policy.cache_key`.
2. A hit is relayed like any answer: recorded before its last byte, marked as cached, at no cost, with what it saved.
   It asks admission for its place among requests per minute and for nothing else.
3. On a miss the answer is collected as it passes, within a bound, and judged in `close`, when everything is known.
4. Where an equal call is under way, its answer is shared while it comes (see stores.flights). What one call was changed
   into after the lookup (clamped, tapered) is for that call alone.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from gateway.call import Answer, Cached, Call, Edit
from gateway.errors import NotCached
from gateway.policy.cache_key import Basis, Meanings, key_of, place_of
from gateway.policy.cache_rules import BROKEN, REFRESH, CacheRules, fits, lifetime, tags_of, unfit, unkeepable, wish_of
from gateway.ports import CacheStore, Downstream, Entry, Exchange, Flight, Flights, Gateway, Spec
from gateway.stages.attempt import spliced
from gateway.stages.ending import Ending
from gateway.stages.gather import Gathered
from gateway.stages.replay import JSON, Question, follow, replay, say, shaped
from gateway.stages.semantic import Found, SemanticTier
from gateway.stages.waiting import waiting

KEPT = (b"x-request-id", b"request-id", b"openai-version")
"""Headers of an answer that are kept with it: where it came from. Limits and dates are those of another moment."""
MEANINGS = 8_388_608  # bytes of bodies that each worker knows the meaning of
ROUNDS = 3  # flights that a call follows before it goes by itself

_document = msgspec.json.Decoder(dict[str, Raw])
_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Fill(Gathered):
    """What passes of an answer that may be kept, and that others may be waiting for. Never raises."""

    __slots__ = ("_begun", "_edits", "_path", "carried", "flight", "generation", "head", "kind", "question")

    def __init__(self, question: Question, generation: int, limit: int, flight: Flight | None) -> None:
        super().__init__(limit, wanted=question.wish.store)
        self.question = question
        self.generation = generation
        self.flight = flight
        self.kind = self.head = b""
        self.carried = False  # read to its end for others, though its own client left
        self._edits = question.call.edits
        self._path = question.call.route.path
        self._begun = False

    @property
    def followed(self) -> bool:
        """Is somebody else waiting for the rest?"""
        return self.flight is not None and self.flight.followed

    def restart(self) -> None:
        super().restart()
        if self.flight is not None:
            self.flight.pieces.clear()

    def forsake(self) -> None:
        """What comes now is for its own client alone."""
        self.pieces = None
        flight, self.flight = self.flight, None
        if flight is not None:
            flight.end(whole=False, alone=True)

    def begin(self, exchange: Exchange, streaming: bool) -> None:
        """The answer is about to be passed on."""
        if self._begun:
            return
        self._begun = True
        self.kind = exchange.names.get(b"content-type", JSON)
        self.head = b"".join([b"%b: %b\r\n" % (name, exchange.names[name]) for name in KEPT if name in exchange.names])
        call = self.question.call
        changed = is_changed(call, self._edits) or call.away or call.route.path != self._path
        if changed or exchange.status != 200 or streaming != call.asked.stream:
            self.pieces = None
            if self.flight is not None:
                self.flight.end(whole=False, alone=changed)
        elif self.flight is not None:
            self.flight.begin(self.kind, self.head)

    def feed(self, plain: bytes, shown: bytes) -> None:
        """`plain`: decoded, as it is kept; `shown`: without what was added for us, as others may have it."""
        self.gather(plain)
        if self.flight is not None:
            self.flight.feed(shown)


async def recall(call: Call, down: Downstream, gw: Gateway) -> Ending | None:
    """How a call ends whose answer was paid for before; None where it must go on. Raises what `ports.Cache` does, also
    where the client wants a stored answer or none and nothing is cached of such calls."""
    ending: Ending | None = await gw.cache.answer(call, down, gw) if gw.cache is not None else None
    if ending is None and call.cached is None and call.route.operation and wish_of(call.request).only:
        raise NotCached("nothing is cached of such calls, and the client wants no other answer")
    return ending


def is_changed(call: Call, before: tuple[Edit, ...]) -> bool:
    """Was something else sent than what the cache was asked about?"""
    return call.edits != before and tuple([edit for edit in call.edits if not edit.silent]) != before


class ExactCache:
    """Implements ports.Cache. `limit`: bytes of an answer; `pace`: events per second of a replayed stream, 0: at once;
    `patience`: seconds to wait for the first byte of another's answer, 0: nobody waits for another."""

    def __init__(
        self,
        rules: CacheRules,
        store: CacheStore,
        flights: Flights,
        *,
        limit: int,
        pace: float,
        patience: float,
        tier: SemanticTier | None = None,
    ) -> None:
        self._rules = rules
        self._store = store
        self._flights = flights
        self._limit = limit
        self._pace = pace
        self._patience = patience
        self._tier = tier  # None: only equal questions are answered
        self._bases: dict[str, tuple[Spec, Basis]] = {}  # by name of the upstream
        self._meanings = Meanings(MEANINGS)

    async def answer(self, call: Call, down: Downstream, gw: Gateway) -> Ending | None:
        terms = self._rules.terms(call)
        spec = gw.specs.get(call.route.upstream)
        if not terms.enabled or spec is None:
            return None
        wish = wish_of(call.request)
        if call.request.checks:
            wish = REFRESH
            call.who.request_class = "shadow"
        question = Question(call, down, gw, terms, wish)
        why = unfit(call, terms, question.dialect)
        if not why and not (wish.look or wish.store):
            why = "client"
        if not why:
            if call.edits:
                question.sent = spliced(question.body, call.edits)
            question.key = key_of(call, spec, question.sent, self._basis(spec)) or b""
            why = "" if question.key else "ambiguous"
        if why:
            if wish.only:
                raise NotCached(f"this call is none for the cache: {why}")
            say(call, Cached("bypass", why))
            return None
        return await self._asked(question)

    def _basis(self, spec: Spec) -> Basis:
        known = self._bases.get(spec.name)
        if known is None or known[0] is not spec:
            basis = Basis(self._rules.version.encode(), place_of(spec), self._rules.ignored, self._meanings)
            known = self._bases[spec.name] = (spec, basis)
        return known[1]

    async def _asked(self, question: Question) -> Ending | None:
        call, wish = question.call, question.wish
        found, generation = await self._look(question)
        if found is not None:
            return await replay(question, found[0], found[1], self._flights, self._pace)
        similar = await self._tier.look(question, self._store, self._basis) if self._tier is not None else None
        if similar is not None:
            return await self._given(question, similar)
        if wish.only:
            raise NotCached("no stored answer fits, and the client wants no other")
        flight: Flight | None = None
        if self._patience and wish.look and (question.terms.tools or not call.asked.tools):
            options = call.asked.fields.get("stream_options", b"")
            question.flight_key = b"%b%d%d %b" % (question.key, call.asked.stream, generation, bytes(options))
            ending, flight = await self._together(question)
            if ending is not None:
                return ending
        say(call, Cached("miss") if wish.look else Cached("bypass", "shadow" if call.request.checks else "refresh"))
        call.fill = Fill(question, generation, self._limit, flight)
        return None

    async def _given(self, question: Question, similar: Found) -> Ending:
        """The answer to a similar question; to be checked, perhaps."""
        entry, body, match = similar
        ending = await replay(question, entry, body, self._flights, self._pace, score=match.score)
        if self._tier is not None:
            self._tier.check(question, match)
        return ending

    async def _look(self, question: Question) -> tuple[tuple[Entry, bytes] | None, int]:
        """A stored answer, and its body in the shape that was asked for; the generation that was looked in."""
        now, wish = question.gw.now(), question.wish
        entry, generation = await self._store.get(question.key, question.call.who.tenant, now)
        if entry is None or not wish.look or not fits(entry.answer, now - entry.created, question.terms, wish):
            return None, generation
        body = shaped(question, entry)
        return (None if body is None else (entry, body)), generation

    async def _together(self, question: Question) -> tuple[Ending | None, Flight | None]:
        """The answer of an equal call under way; else the flight that this call leads, if any."""
        flights, key = self._flights, question.flight_key
        joined: list[Flight] = []  # the latest first; the others are slow, and not given up
        try:
            for turn in range(ROUNDS + 1):
                flight = flights.find(key)
                if flight is None or flight in joined or turn == ROUNDS:
                    flight = flights.lead(key)
                    if await self._leads(question, flight):
                        return None, flight
                flight.followers += 1
                joined.insert(0, flight)
                with waiting(question.call, question.gw):
                    ending, last = await follow(question, joined, self._patience)
                if ending is None and not last.alone:
                    found, _ = await self._look(question)  # what another worker has left meanwhile
                    if found is not None:
                        ending = await replay(question, found[0], found[1], flights, self._pace)
                if ending is not None or last.alone or last.stored:
                    return ending, None
        finally:
            for flight in joined:
                flight.followers -= 1
        return None, None

    async def _leads(self, question: Question, flight: Flight) -> bool:
        known = False
        try:
            leads = await flight.leads(question.call.who.tenant, question.key)
            known = True
        finally:
            if not known:
                flight.end(whole=False)
        return leads

    def settle(self, call: Call) -> None:
        fill: Fill | None = call.fill
        if fill is None:
            return
        call.fill = None
        question, answer = fill.question, call.answer
        why = unkept(call, answer, fill)
        if call.cached is not None and not call.cached.reason:
            call.cached.reason = why or ("large" if fill.overran else "")  # why the next call will miss, too
        if not why and fill.pieces is not None and answer is not None:
            entry = self._entry(question, fill, answer, b"".join(fill.pieces))
            self._store.put(entry, fill.generation)
            if self._tier is not None:
                self._tier.learn(question, entry)
        if fill.flight is not None:
            went_well = call.fault is None or fill.carried
            came = answer is not None and answer.complete and went_well and "answer" not in call.notes
            whole = came and (not why or (call.asked.stream and why not in BROKEN))
            kept = not why and fill.pieces is not None
            fill.flight.end(whole=whole, alone=came and bool(why), cost=call.money.total, kept=kept)

    def _entry(self, question: Question, fill: Fill, answer: Answer, body: bytes) -> Entry:
        call, now = question.call, question.gw.now()
        return Entry(
            key=question.key,
            tenant=call.who.tenant,
            created=now,
            expires=now + lifetime(question.terms, self._rules.jitter, question.key),
            stream=call.asked.stream,
            counted=not question.uncounted or call.asked.injected,
            kind=fill.kind,
            head=fill.head,
            body=body,
            answer=answer,
            cost=call.money.total,
            route=call.route.template,
            upstream=call.route.upstream,
            model=call.model_sent or call.asked.model,
            agent=call.who.agent,
            tags=tags_of(call.request),
            partition=question.similar.inquiry.partition if question.similar is not None else b"",
        )


def unkept(call: Call, answer: Answer | None, fill: Fill) -> str:
    """Why the answer that a call was given is not kept; "" where it is."""
    if answer is None or "answer" in call.notes:
        return "unread"
    if call.check is not None and call.check.valid is False:
        return "unverified"
    why = unkeepable(call, answer, fill.question.terms, carried=fill.carried)
    if not why and fill.pieces is not None and not call.asked.stream:
        try:
            _document.decode(b"".join(fill.pieces))
        except _FAULTS:
            return "unread"
    return why
