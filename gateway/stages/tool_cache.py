"""Tool cache: an output of a tool, given again to whoever asks it the same. Stands where stages.cache does.

Rules
1. Nothing is kept but what the operator names, and what `policy.tool_cache` and the outputs' own reader let pass.
2. A hit is a call of the tool in which nothing ran: recorded before its last byte, at no cost, with what it saved. It
   asks admission for its place among requests per minute and for nothing else.
3. What a server says of its tools is remembered as its lists pass, and asked with every call: a tool that it says to
   change something goes to it each time.
4. Equal calls under way at once do not wait for one another: each goes to the tool.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.call import Answer, Cached, Call, ToolCall, UsageSource
from gateway.errors import NotCached
from gateway.policy.cache_key import Basis, entry_name, place_of
from gateway.policy.cache_rules import Terms, Wish, lifetime, tags_of, wish_of
from gateway.policy.tool_cache import (
    NO,
    YES,
    forbidden,
    good_for,
    hint_key,
    is_framed,
    key_of_output,
    lines_of,
    own_place,
    unkept,
)
from gateway.ports import Cache, CacheStore, Downstream, Entry, Exchange, Gateway, Headers, Links, Outputs, Spec, Wanted
from gateway.stages.arrive import readable
from gateway.stages.ending import Ending
from gateway.stages.gather import Gathered
from gateway.stages.replay import FREE, JSON, admitted, say, start
from gateway.stages.replay import Question as Asking


class Output(Gathered):
    """What passes of an answer that may be kept. Never raises; has the surface of stages.cache.Fill."""

    __slots__ = ("carried", "framed", "generation", "headers", "kind", "question")
    followed = False

    def __init__(self, question: Question, generation: int, limit: int) -> None:
        super().__init__(limit)
        self.question = question
        self.generation = generation
        self.kind = b""
        self.headers: Headers = ()
        self.framed = self.carried = False

    def begin(self, exchange: Exchange, streaming: bool) -> None:
        self.kind = exchange.names.get(b"content-type", JSON)
        self.headers = exchange.headers
        self.framed = streaming or is_framed(exchange)

    def feed(self, plain: bytes, shown: bytes) -> None:
        self.gather(plain)


class Question:
    """One call of a tool that the cache is asked about."""

    __slots__ = ("basis", "key", "outputs", "wanted", "wish")

    def __init__(self, outputs: Outputs, basis: Basis, wanted: Wanted, wish: Wish) -> None:
        self.outputs, self.basis, self.wanted, self.wish = outputs, basis, wanted, wish
        self.key = b""


class ToolCache:
    """Implements ports.Cache for calls of tools. `outputs` by upstream; `limit`: bytes of an answer."""

    def __init__(
        self,
        outputs: Mapping[str, Outputs],
        store: CacheStore,
        links: Links,
        *,
        version: str,
        ignored: frozenset[bytes],
        jitter: float,
        limit: int,
    ) -> None:
        self._outputs = outputs
        self._store = store
        self._links = links
        self._version = version.encode()
        self._ignored = ignored
        self._jitter = jitter
        self._limit = limit
        self._bases: dict[str, tuple[Spec, Basis]] = {}

    async def answer(self, call: Call, down: Downstream, gw: Gateway) -> Ending | None:
        outputs, spec = self._outputs.get(call.route.upstream), gw.specs.get(call.route.upstream)
        if outputs is None or spec is None:
            return None
        basis = self._basis(spec)
        wanted = outputs.wanted(call, readable(call).body) if call.asked.calls else None
        if wanted is None or not wanted.lifetime:
            return None
        question = Question(outputs, basis, wanted, wish_of(call.request))
        why = self._objection(call, question)
        if not why:
            question.key = key_of_output(call, spec, basis, outputs, wanted) or b""
            why = "" if question.key else "ambiguous"
        entry, generation = (None, 0) if why else await self._look(call, question, gw)
        if entry is not None:
            return await self._given(call, down, gw, question, entry)
        if question.wish.only:
            raise NotCached(f"this call is none for the cache: {why}" if why else "no stored output fits")
        if why:
            say(call, Cached("bypass", why))
            return None
        say(call, Cached("miss") if question.wish.look else Cached("bypass", "refresh"))
        call.fill = Output(question, generation, self._limit)
        return None

    def _basis(self, spec: Spec) -> Basis:
        known = self._bases.get(spec.name)
        if known is None or known[0] is not spec:
            basis = Basis(self._version, own_place(spec, place_of(spec)), self._ignored)
            known = self._bases[spec.name] = (spec, basis)
        return known[1]

    def _objection(self, call: Call, question: Question) -> str:
        """Why the call must go to the tool; "" where it need not."""
        outputs, wanted, wish = question.outputs, question.wanted, question.wish
        if wanted.why or not (wish.look or wish.store):
            return wanted.why or "client"
        upstream, place, session = call.route.upstream, question.basis.place, outputs.session(call)
        said = self._links.get(hint_key(upstream, place, session, wanted.name))
        if said is None and session:  # in which no list has passed yet
            said = self._links.get(hint_key(upstream, place, "", wanted.name))
        return "not_read_only" if said == NO else ""

    async def _look(self, call: Call, question: Question, gw: Gateway) -> tuple[Entry | None, int]:
        """A stored output that the client wants, and the generation in which it was looked for."""
        now, wish = gw.now(), question.wish
        entry, generation = await self._store.get(question.key, call.who.tenant, now)
        if entry is None or not wish.look:
            return None, generation
        age = now - entry.created
        fits = age < question.wanted.lifetime and (wish.oldest < 0 or age <= wish.oldest)
        return (entry if fits else None), generation

    async def _given(self, call: Call, down: Downstream, gw: Gateway, question: Question, entry: Entry) -> Ending:
        asking = Asking(call, down, gw, terms_of(question.wanted), question.wish)
        await admitted(asking)
        age = max(0, gw.now() - entry.created)
        say(call, Cached("exact", "", age, entry.cost or 0, entry_name(entry.key)))
        kind, body = question.outputs.given(call, entry.kind, entry.body)
        call.answer = Answer(usage_source=UsageSource.CACHED)
        call.money = FREE
        call.tools = [*call.tools, told(call, question.wanted, gw.monotonic())]
        call.response_bytes = len(body)
        call.captured = body[: gw.capture_bytes]
        start(asking, kind, entry.head, len(body))
        return Ending(body, complete=True)

    def settle(self, call: Call) -> None:
        if call.answer is not None and call.answer.offered:
            self._hear(call, call.answer)
        fill: Output | None = call.fill
        if fill is None:
            return
        call.fill = None
        question, answer = fill.question, call.answer
        most = good_for(fill.headers) if question.outputs.dated else -1
        why = unkept(call, answer) or forbidden(fill.headers, question.outputs, self._ignored)
        if not why and not most:
            why = "no_cache"
        if not why and fill.pieces is None:
            why = "large"
        if not why and not fill.framed:
            why = "unframed"
        if not why and fill.pieces is not None:
            body = question.outputs.kept(call, fill.kind, b"".join(fill.pieces))
            why = "unread" if body is None else ""
            if body is not None:
                self._store.put(self._entry(call, fill, body, most), fill.generation)
        if why and call.cached is not None:
            call.cached.reason = why  # for the record: why the next call will miss, too

    def _hear(self, call: Call, answer: Answer) -> None:
        """A list of tools passed: what its server says of each counts for this session, and for those who saw none."""
        upstream, outputs = call.route.upstream, self._outputs[call.route.upstream]
        place = self._bases[upstream][1].place
        for session in {outputs.session(call), ""}:
            for tool in answer.offered:
                self._links.put(hint_key(upstream, place, session, tool.name), NO if tool.changes else YES)

    def _entry(self, call: Call, fill: Output, body: bytes, most: int) -> Entry:
        """`most`: ns for which the tool says that it is good; -1 where it does not."""
        question, now = fill.question, call.started_at
        span = lifetime(terms_of(question.wanted), self._jitter, question.key)
        return Entry(
            key=question.key,
            tenant=call.who.tenant,
            created=now,
            expires=now + (span if most < 0 else min(span, most)),
            stream=False,
            counted=True,
            kind=fill.kind,
            head=lines_of(fill.headers) if question.outputs.headed else b"",
            body=body,
            answer=Answer(),
            cost=call.money.total,
            route=call.route.template,
            upstream=call.route.upstream,
            model=question.wanted.name,
            agent=call.who.agent,
            tags=tags_of(call.request),
        )


def terms_of(wanted: Wanted) -> Terms:
    return Terms(True, wanted.lifetime, True, "all")


def told(call: Call, wanted: Wanted, now: int) -> ToolCall:
    """The call of the tool that a hit is."""
    server = call.route.upstream.partition("/")[2]
    return ToolCall(
        f"{call.id}/0", wanted.name, call.started_at, max(0, now - call.began), True, server=server, cached=True
    )  # fmt: skip


class Caches:
    """Implements ports.Cache: calls of tools have their cache, all others theirs."""

    def __init__(self, models: Cache | None, tools: ToolCache) -> None:
        self._models = models
        self._tools = tools

    async def answer(self, call: Call, down: Downstream, gw: Gateway) -> Ending | None:
        if call.asked.gated:
            return await self._tools.answer(call, down, gw)
        ending: Ending | None = await self._models.answer(call, down, gw) if self._models is not None else None
        return ending

    def settle(self, call: Call) -> None:
        if call.asked.gated:
            self._tools.settle(call)
        elif self._models is not None:
            self._models.settle(call)
