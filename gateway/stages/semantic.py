"""Semantic: an answer to a similar question, where the matcher knows that it serves. Behind the exact lookup, which is
cheaper and never wrong.

Rules
1. What may differ, and what a similarity may look at, is `policy.semantic_rules`. What the matcher says is checked: an
   entry is given only within the partition that was asked for, in its time, and if the exact cache still has it.
2. A matcher that is away, slow or at its limit is a miss. Nothing waits beyond its patience.
3. Every fresh answer that is kept is told to the matcher: misses teach it what hits are worth.
4. Of the hits a sample is asked upstream once more, behind the client's back and at the cost of its accounts.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from gateway.call import Request
from gateway.policy.cache_key import Basis
from gateway.policy.cache_rules import fits
from gateway.policy.semantic_rules import SemanticRules, cut, reworded, topic_of, unsuited
from gateway.ports import CacheStore, Entry, Inquiry, Lesson, Match, Matcher, Spec
from gateway.stages.replay import Question, Similar, shaped

MOST_ANSWER = 32_768  # characters of an answer that is compared with others
NOTE = "similar"  # of a record: hit, or why not
NOTE_TIME = "similar_ns"  # that the matcher took
NOTE_SCORE = "similar_score"

Found = tuple[Entry, bytes, Match]


class SemanticTier:
    """`check`: sends a request once more in the background; False where it cannot."""

    def __init__(self, rules: SemanticRules, matcher: Matcher, check: Callable[[Request], bool]) -> None:
        self._rules = rules
        self._matcher = matcher
        self._check = check

    async def look(self, question: Question, store: CacheStore, basis: Callable[[Spec], Basis]) -> Found | None:
        """A stored answer, its body in the shape that was asked for, and what the matcher says of it."""
        call, gw = question.call, question.gw
        terms = self._rules.terms(call)
        if terms.mode == "off":
            return None
        why = unsuited(call, question.dialect)
        if not why:
            spec = gw.specs[call.route.upstream]
            turn, partition = cut(call, spec, question.sent, basis(spec), question.dialect)
            why = turn.why or reworded(turn, time_words=terms.time_words)
        if why:
            call.notes = {**call.notes, NOTE: why}
            return None
        inquiry = Inquiry(call.id, partition, turn.text, topic_of(call, terms))
        question.similar = Similar(inquiry, terms.ttl, call.request.checks)
        if not question.wish.look or question.wish.equal:
            return None
        return await self._ask(question, question.similar, store)

    async def _ask(self, question: Question, similar: Similar, store: CacheStore) -> Found | None:
        call, gw = question.call, question.gw
        began = gw.monotonic()
        match = await self._matcher.ask(similar.inquiry, question.down)
        similar.ticket = match.ticket
        found = await self._entry(question, similar, match, store)
        why = "hit" if found is not None else "gone" if match.key else match.why
        call.notes = {**call.notes, NOTE: why, NOTE_TIME: str(gw.monotonic() - began)}
        if found is not None:
            call.notes[NOTE_SCORE] = f"{match.score:.5f}"
        return found

    async def _entry(self, question: Question, similar: Similar, match: Match, store: CacheStore) -> Found | None:
        if not match.key:
            return None
        now, wish = question.gw.now(), question.wish
        entry, _ = await store.get(match.key, question.call.who.tenant, now)
        if entry is None or entry.partition != similar.inquiry.partition or entry.tenant != question.call.who.tenant:
            return None
        terms = structs.replace(question.terms, ttl=min(question.terms.ttl, similar.ttl), tools=False)
        if not fits(entry.answer, now - entry.created, terms, wish):
            return None
        body = shaped(question, entry)
        return None if body is None else (entry, body, match)

    def check(self, question: Question, match: Match) -> None:
        """The client has its answer. Was it right?"""
        if match.sampled and not question.wish.only:
            self._check(structs.replace(question.call.request, checks=match.ticket))

    def learn(self, question: Question, entry: Entry) -> None:
        similar, call = question.similar, question.call
        if similar is None or entry.answer.tool_uses:
            return
        text = question.dialect.answer_text(call.route, call.asked, entry.body, stream=entry.stream)
        if not text or len(text) > MOST_ANSWER:
            return
        lesson = Lesson(
            similar.inquiry, similar.ticket, entry.key, text, entry.created, entry.cost or 0, similar.checked
        )
        self._matcher.teach(lesson)
