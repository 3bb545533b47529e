"""The matcher's mind: what it answers to a question, and what it makes of fresh answers and of what people say.

Theory of operation
* `ask` and `learn` share one thread; only embedding and the comparison of answers are awaited, and nothing they took
  for granted is used behind an await without being looked up again.
* A question gets a ticket, under which the decision on it is kept until its fresh answer comes, or for long enough.
* A fresh answer is compared with the stored ones of the candidates, and settles the decision: on a miss for nothing,
  on a hit where it was sampled. A scope that only learns sees the truth of all its would-be hits.
* What somebody called wrong is not given to that text again, by whatever similar question it would come: blocked are
  the partition, the text, and the group of questions that share the answer.
* A scope belongs to one tenant. So what a client asks, answers or reports changes nothing for another one.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from msgspec import Struct, structs

from gateway.matcher.memory import Hit, Memory
from gateway.matcher.scopes import Counts, Scopes, Studied
from gateway.matcher.shelf import Question, Shelf
from gateway.policy.cache_key import entry_name
from gateway.policy.cached import Chosen
from gateway.policy.semantic_compare import plain
from gateway.policy.semantic_scope import NEIGHBOURS, Decision, Entry, Near
from gateway.policy.semantic_text import Said
from gateway.ports import Feedback, Inquiry, Lesson, Match, MatcherState, Noted, ScopeState
from gateway.ports_semantic import Vectors

MOST_TICKETS = 20_000
MOST_SAID = 8192  # texts whose reading is kept
FREE_CHECKS = 150  # of a scope: evidence comes first, then the bound on its cost

Embed: TypeAlias = "Callable[[str, int], Awaitable[Vectors | None]]"
"""The vector of a text; None where there is none in time. The number: monotonic ns until which it is wanted, or 0."""
Same = Callable[[str, str, str, bool], Awaitable[bool | None]]
"""Do two answers to a question mean the same? Question, stored answer, fresh one, and whether it matters most; None: it
cannot be told."""
Event = Callable[..., object]


class Ticket(Struct):
    inquiry: Inquiry
    vector: Vectors | None = None
    decision: Decision | None = None
    served: bool = False  # the worker was told that it may
    key: bytes = b""


class Outside(Struct, frozen=True):
    """All that the engine does not know by itself. `event` writes to the journal."""

    embed: Embed
    same: Same
    event: Event
    now: Callable[[], int]  # ns since the epoch
    monotonic: Callable[[], int]
    draw: Callable[[], float]  # a random number of 0 to 1
    unique: Callable[[], int]


class Engine:
    """`shadow_share`: of what a scope has saved, that checking it may cost."""

    def __init__(self, shelf: Shelf, memory: Memory, scopes: Scopes, outside: Outside) -> None:
        self.shadow_share = 0.5
        self.ttl = 0  # ns, the longest of any rule
        self._shelf = shelf
        self._memory = memory
        self._scopes = scopes
        self._outside = outside
        self._tickets: OrderedDict[int, Ticket] = OrderedDict()
        self._said: OrderedDict[str, Said] = OrderedDict()
        self._blocked = memory.blocked()

    # -- questions --------------------------------------------------------------------------------------------------

    async def ask(self, inquiry: Inquiry, until: int) -> Match:
        ticket = Ticket(inquiry)
        number = self._ticket(ticket)
        if inquiry.partition not in self._shelf:
            return Match(number, why="empty")
        vector = await self._outside.embed(inquiry.text, until)
        if vector is None:
            return Match(number, why="late" if self._outside.monotonic() > until else "no_embedder")
        ticket.vector = vector
        if self._outside.monotonic() > until:  # the call has gone on without an answer
            return Match(number, why="late")
        near = self._near(inquiry, vector)
        if not near:
            return Match(number, why="empty")
        return self._decided(number, ticket, near)

    def _ticket(self, ticket: Ticket) -> int:
        number = self._outside.unique()
        self._tickets[number] = ticket
        if len(self._tickets) > MOST_TICKETS:
            self._tickets.popitem(last=False)
        return number

    def _near(self, inquiry: Inquiry, vector: Vectors) -> list[tuple[Question, float]]:
        """Those that are not too old, nor were called wrong for this text."""
        oldest, mark = self._outside.now() - inquiry.topic.ttl, marked(inquiry.text)
        return [
            (question, cosine)
            for question, cosine in self._shelf.near(inquiry.partition, vector, 4 * NEIGHBOURS)
            if question.created > oldest and (inquiry.partition, mark, question.group) not in self._blocked
        ][:NEIGHBOURS]

    def _decided(self, number: int, ticket: Ticket, near: Sequence[tuple[Question, float]]) -> Match:
        inquiry = ticket.inquiry
        studied = self._scopes.of(inquiry.topic, self._outside.now())
        scope, counts = studied.scope, studied.counts
        studied.changed = True
        found = [Near(Entry(one.id, self._read(one.text), one.group), cosine) for one, cosine in near]
        draw = self._outside.draw() if self._may_check(studied) else 1.0
        decision = ticket.decision = scope.decide(self._read(inquiry.text), found, draw)
        best = decision.best
        if best is None:
            return Match(number, why="far")
        if not decision.serve:
            why = "veto" if best.veto else "tripped" if scope.tripped else "learning" if studied.learning else "unsure"
            return Match(number, why=why)
        if not inquiry.topic.serve:
            counts.would += 1
            return Match(number, why="shadow")
        question = self._shelf.get(best.entry.id)
        assert question is not None  # nothing was awaited since it was found
        self._serve(ticket, question, best.cosine, counts)
        return Match(number, question.key, best.guess.chance, decision.sampled)

    def _serve(self, ticket: Ticket, question: Question, cosine: float, counts: Counts) -> None:
        inquiry = ticket.inquiry
        ticket.served, ticket.key = True, question.key
        counts.hits += 1
        counts.saved += question.cost
        name = entry_name(question.key)
        hit = (question.partition, question.id, name, question.group, inquiry.text, question.text, cosine)
        self._memory.hit(Hit(inquiry.call, self._outside.now(), inquiry.topic.scope, *hit))

    def _may_check(self, studied: Studied) -> bool:
        counts = studied.counts
        return counts.checks < FREE_CHECKS or counts.shadow_cost < self.shadow_share * counts.saved

    def _read(self, text: str) -> Said:
        said = self._said.get(text)
        if said is None:
            said = self._said[text] = Said(text)
            if len(self._said) > MOST_SAID:
                self._said.popitem(last=False)
        return said

    # -- answers ----------------------------------------------------------------------------------------------------

    async def learn(self, lesson: Lesson) -> None:
        inquiry = lesson.inquiry
        ticket = self._tickets.pop(lesson.ticket, None) or Ticket(inquiry)
        if ticket.inquiry.partition != inquiry.partition or ticket.inquiry.text != inquiry.text:
            return
        vector = ticket.vector if ticket.vector is not None else await self._outside.embed(inquiry.text, 0)
        if vector is None:
            return
        if ticket.served and not lesson.checked:
            self._not_given(ticket)
        decision = ticket.decision
        compared = (
            [one.entry.id for one in decision.candidates] if decision is not None else self._like(inquiry, vector)
        )
        compared += self._refused(inquiry, vector)
        right = await self._right(inquiry.text, lesson.answer, compared)
        studied = self._scopes.of(inquiry.topic, self._outside.now())
        if lesson.checked:
            studied.counts.checks += 1
            studied.counts.shadow_cost += lesson.cost
        if decision is not None:
            self._settle(studied, decision if lesson.checked else structs.replace(decision, weight=1.0), right)
        alike = [id for id in compared if right.get(id)] or self._equal(inquiry, vector, lesson.answer, compared)
        self._keep(lesson, vector, alike)
        studied.scope.rarity.add(self._read(inquiry.text))
        studied.changed = True

    def _not_given(self, ticket: Ticket) -> None:
        """The worker did not find the answer any more: it was no hit, and the question leads nowhere."""
        counts = self._scopes.of(ticket.inquiry.topic, self._outside.now()).counts
        question = self._shelf.of_key(ticket.key)
        counts.hits -= 1
        if question is not None:
            counts.saved -= question.cost
            self._drop([question.id])

    def _like(self, inquiry: Inquiry, vector: Vectors) -> list[int]:
        """Nothing was decided: with which answers is the fresh one compared, to find its group?"""
        return [question.id for question, cosine in self._near(inquiry, vector)[:2] if cosine >= 0.8]

    def _refused(self, inquiry: Inquiry, vector: Vectors) -> list[int]:
        """What was called wrong for this text: an answer that means the same is of its group, and refused like it."""
        if not self._blocked:
            return []
        mark, near = marked(inquiry.text), self._shelf.near(inquiry.partition, vector, NEIGHBOURS)
        return [one.id for one, _ in near if (inquiry.partition, mark, one.group) in self._blocked]

    def _equal(self, inquiry: Inquiry, vector: Vectors, fresh: str, compared: Sequence[int]) -> list[int]:
        """A neighbour that was no candidate, and has this answer word for word: where groups fall apart, neighbours
        that agree look as if they did not."""
        for question, _ in self._near(inquiry, vector):
            stored = self._memory.answer(question.id) if question.id not in compared else None
            if stored is not None and plain(stored) == plain(fresh):
                return [question.id]
        return []

    async def _right(self, text: str, fresh: str, ids: Sequence[int]) -> dict[int, bool]:
        found = {}
        for place, id in enumerate(ids):
            stored = self._memory.answer(id)
            verdict = await self._outside.same(text, stored, fresh, place == 0) if stored is not None else None
            if verdict is not None:
                found[id] = verdict
        return found

    def _settle(self, studied: Studied, decision: Decision, right: dict[int, bool]) -> None:
        scope, best = studied.scope, decision.best
        before = scope.tripped
        scope.settle(decision, right)
        verdict = right.get(best.entry.id) if best is not None and decision.serve else None
        if verdict is not None:
            self._outside.event("cache_verified", scope=studied.name, right=verdict)
        if scope.tripped != before:
            self._outside.event("cache_breaker", scope=studied.name, open=scope.tripped, wrong_lower=studied.lower)

    def _keep(self, lesson: Lesson, vector: Vectors, alike: Sequence[int]) -> None:
        inquiry = lesson.inquiry
        first = self._shelf.get(alike[0]) if alike else None
        facts = (inquiry.partition, inquiry.topic.scope, inquiry.topic.tenant, inquiry.text, lesson.key)
        group = first.group if first is not None else 0
        question = Question(0, *facts, group, lesson.created, lesson.cost)
        id = self._memory.add(question, vector, lesson.answer)
        if not id:
            return
        if not group:  # the first of its own
            self._memory.group(id, id)
        question = structs.replace(question, id=id, group=group or id)
        self._memory.remove(self._shelf.add(question, vector))

    def _drop(self, ids: Sequence[int]) -> None:
        for id in ids:
            self._shelf.remove(id)
        self._memory.remove(ids)

    # -- people -----------------------------------------------------------------------------------------------------

    def say(self, feedback: Feedback) -> Noted:
        """On disk when it returns."""
        hits = self._memory.hits(feedback.call, feedback.entry)
        for hit in hits:
            self._judge(hit, feedback.right)
        if feedback.entry and not feedback.right:
            self.forget(Chosen(entry=feedback.entry))
        self._memory.commit()
        return Noted(len(hits), tuple(sorted({hit.scope for hit in hits})))

    def _judge(self, hit: Hit, right: bool) -> None:
        studied = self._scopes.known(hit.scope, self._outside.now())
        if studied is None:
            return
        asked = self._read(hit.asked)
        near = Near(Entry(hit.id, self._read(hit.cached), hit.group), hit.cosine)
        studied.scope.feedback(asked, studied.scope.look(asked, [near]), right)
        if not right:
            studied.counts.reported += 1
            block = (hit.partition, marked(hit.asked), hit.group)
            self._blocked.add(block)
            self._memory.block(*block)
        self._scopes.write(studied, self._outside.now())
        self._outside.event("cache_feedback", scope=studied.name, right=right, call=hit.call, entry=hit.entry)

    def forget(self, chosen: Chosen) -> Noted:
        """Answers were cleared. What is kept of them is an entry's name and its tenant; for the rest the workers find
        the answer gone, and that is noticed then."""
        found = [
            one.id
            for one in self._shelf
            if (not chosen.entry or entry_name(one.key) == chosen.entry)
            and (not chosen.tenant or one.tenant == chosen.tenant)
        ]
        if chosen.entry or not any([chosen.route, chosen.upstream, chosen.model, chosen.agent, chosen.tag]):
            self._drop(found)
            self._memory.commit()
            return Noted(len(found))
        return Noted(0)

    # -- upkeep -----------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """What was known before."""
        for question, vector in self._memory.questions(self._outside.now() - self.ttl):
            self._shelf.add(question, vector)

    def tidy(self) -> None:
        """Now and then."""
        self._drop(self._shelf.older(self._outside.now() - self.ttl))
        self._memory.tidy()

    def step(self) -> None:
        """Several times a second: make durable what changed, a little at a time."""
        self._scopes.keep_next(self._outside.now())
        self._memory.commit()

    def keep(self) -> None:
        """Make durable all that changed."""
        self._scopes.keep(self._outside.now())
        self._memory.commit()

    def state(self, *, embedder: str, trouble: str, waiting: int, dropped: int) -> MatcherState:
        entries: dict[str, int] = {}
        for question in self._shelf:
            entries[question.scope] = entries.get(question.scope, 0) + 1
        scopes = tuple([self._scope_state(studied, entries.get(studied.name, 0)) for studied in self._scopes.all()])
        return MatcherState(embedder, trouble, len(self._shelf), waiting, dropped, scopes)

    def _scope_state(self, studied: Studied, entries: int) -> ScopeState:
        scope, counts, interval = studied.scope, studied.counts, studied.scope.interval
        return ScopeState(
            scope=studied.name,
            tenant=studied.tenant,
            mode="serve" if counts.serves else "shadow",
            target=scope.target,
            labels=scope.learner.labels,
            verified=scope.verified.count,
            wrong=scope.verified.wrong,
            share=scope.verified.share,
            lower=interval.lower,
            upper=interval.upper,
            cut=studied.cut,
            hits=counts.hits,
            would=counts.would,
            saved=counts.saved,
            shadow_cost=counts.shadow_cost,
            tripped=scope.tripped,
            trips=scope.trips,
            entries=entries,
            reported=counts.reported,
        )


def marked(text: str) -> bytes:
    """A text as people mean it when they say that an answer was wrong for it."""
    return hashlib.blake2b(" ".join(text.casefold().split()).encode("utf-8", "surrogatepass"), digest_size=16).digest()
