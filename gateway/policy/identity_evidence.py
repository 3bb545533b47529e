"""Joining a call to a run that it does not name, by what it brings along. Pure.

Rules
1. An unsafe guess is worse than a new run. A piece of evidence counts when it points to one thread only; every answer
   leaves its evidence here, so when two runs could have left it both are in the list.
2. The exact history in front of an answer, with that answer behind it, is the one place where several threads may
   leave the same evidence and still one of them must be chosen: equal prompts, equal answers. Then the one that has
   gone on least since is due, preferably on the same connection, preferably the one that waits longest among those
   that wait about equally long: equal runs in parallel get one chain each.
3. Order: retry of the same request, previous_response_id, unique tool-call ids, exact history, then what survives edits
   of the history (repeated tool-call ids under the same first message, long answers, older turns), the caller's trace.
4. A first request (no turn of the assistant) belongs to no earlier run, but as a retry or within its caller's trace.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

from gateway.call import Call
from gateway.policy.identity_facts import Stated, json_string
from gateway.policy.identity_history import History, Turn, same_first, same_prompt
from gateway.policy.identity_links import FAILED, SHORT, Lead, Memory, Thread, age, digest, pack_lead

SHORT_TEXT, LONG_TEXT = 24, 80  # characters from which on an answer's text is evidence, in part and alone
OLDER_TURNS = 2
IDS_READ = 8
RETRY_TICKS = 120_000  # about two minutes: a client that does not count retries repeats a failed request by then
RETRIES = 8
WAIT_RATIO, WAIT_SLACK = 8, 50
BODY_HASHED = 16_384
_UNIQUE_ID = re.compile(r"(?=.{9})(?:[^0-9A-Z]*[0-9A-Z]){5}")
_RESPONSE_PATH = re.compile(rb"/responses/([A-Za-z0-9_.-]{6,128})")


class Question(Struct, gc=False):
    """What is known of a call before its run is."""

    stated: Stated
    scope: bytes  # of its tenant and credential
    at: int  # arrival, ticks
    peer: int
    history: History | None
    ref: bytes = b""  # its thread, once known
    joined: Thread | None = None  # to which the evidence led
    step: int = 0
    derived: bool = False
    counted: bool = False
    request_key: bytes = b""

    def lead(self, at: int, flags: int = 0) -> bytes:
        """A packed lead to its thread."""
        history = self.history
        shape, length = (history.shape, history.count) if history is not None else (0, 0)
        return pack_lead(self.ref, shape, at, min(self.step, 0xFFFF), 0, flags, self.peer, min(length, 0xFFFF))


class Evidence(Struct, frozen=True, gc=False):
    lead: Lead
    source: str
    confidence: float
    same_step: bool = False


class Joiner:
    """Finds the thread that a call continues. `idle` ticks after its last answer a run is over."""

    def __init__(self, memory: Memory, idle: int) -> None:
        self._memory = memory
        self._idle = idle

    def join(self, question: Question, call: Call) -> Evidence | None:
        found = self.retried(question, call)
        if found is None and question.history is not None and question.history.last is not None:
            found = self._previous(question, call) or self._by_turn(question, question.history, question.history.last)
        elif found is None:
            found = self._previous(question, call) or self._by_results(question)
        if found is None and call.trace.parent_id:
            found = self._by_trace(question, call.trace.trace_id)
        return found

    def retried(self, question: Question, call: Call, ref: bytes = b"") -> Evidence | None:
        """The call of which this one is a retry (of thread `ref`, if given): same run, same step."""
        stated = question.stated
        if stated.idempotency_key:
            key = idempotency_key(question.scope, stated.idempotency_key)
            leads = self._fresh(question, key, ref)
            if leads:
                return Evidence(leads[-1], "prefix", 0.99, same_step=True)
        if stated.retry == 0 or not question.counted:
            return None
        if stated.retry < 0 and not self._memory.failed_since(question.scope, question.at, RETRY_TICKS):
            return None
        question.request_key = request_key(question.scope, call)
        leads = [lead for lead in self._fresh(question, question.request_key, ref) if lead.flags & FAILED]
        if stated.retry < 0:
            at = question.at
            leads = [lead for lead in leads if age(at, lead.at) <= RETRY_TICKS and lead.continued < RETRIES]
        if not leads:
            return None
        lead = self._due(leads, question, [lead.continued for lead in leads])
        self._memory.follow(question.request_key, lead)
        return Evidence(lead, "prefix", 0.95, same_step=True)

    def _previous(self, question: Question, call: Call) -> Evidence | None:
        """previous_response_id, or the id of a response that is fetched."""
        raw = call.asked.fields.get("previous_response_id")
        identifier = json_string(raw) if raw is not None else ""
        if not identifier and not call.asked.fields and (path := _RESPONSE_PATH.search(call.route.path)):
            identifier = path[1].decode()
        if not identifier:
            return None
        key = response_key(question.scope, identifier)
        leads = self._fresh(question, key)
        return Evidence(self._next(leads, question), "previous_response", 0.99) if leads else None

    def _by_turn(self, question: Question, history: History, turn: Turn) -> Evidence | None:
        ids = turn.ids or _result_ids(history)
        hits = self._tool_leads(question, ids)
        if (lead := _only(hits)) is not None and _unique(ids):
            return Evidence(lead, "tool_call", 0.99)
        key = turn_key(question.scope, history, turn.start, turn.signature())
        exact = self._fresh(question, key)
        if exact:
            asked_for = {lead.ref for lead in hits}
            exact = [lead for lead in exact if lead.ref in asked_for] or exact
            return Evidence(self._next(exact, question), "prefix", 0.97 if len(exact) == 1 else 0.6)
        return self._after_edits(question, history, turn, hits)

    def _after_edits(self, question: Question, history: History, turn: Turn, hits: list[Lead]) -> Evidence | None:
        """The history in front is not what it was: compacted, cut at the front, re-serialised, trimmed."""
        shape = history.shape
        alike = [lead for lead in hits if same_first(lead.shape, shape) and same_prompt(lead.shape, shape)]
        if (lead := _only(alike)) is not None:
            return Evidence(lead, "tool_call", 0.9)
        if text := turn.text():
            said = self._fresh(question, text_key(question.scope, text))
            said = [lead for lead in said if _plausible(lead, question, shape)]
            if (lead := _only(said)) is not None:
                return Evidence(lead, "prefix", 0.85)
        older: Turn | None = turn
        for _ in range(OLDER_TURNS):
            older = history.earlier(older) if older is not None else None
            if older is None:
                return None
            if (found := self._by_older(question, history, older)) is not None:
                return found
        return None

    def _by_older(self, question: Question, history: History, turn: Turn) -> Evidence | None:
        if (lead := _only(self._tool_leads(question, turn.ids))) is not None and _unique(turn.ids):
            return Evidence(lead, "tool_call", 0.8)
        mark = turn.signature()
        if not mark:
            return None
        lead = _only(self._fresh(question, turn_key(question.scope, history, turn.start, mark)))
        return Evidence(lead, "prefix", 0.8) if lead is not None else None

    def _by_results(self, question: Question) -> Evidence | None:
        """No turn of the assistant, but tool results: the provider keeps the history."""
        if question.history is None or not question.history.results:
            return None
        ids = _result_ids(question.history)
        lead = _only(self._tool_leads(question, ids))
        return Evidence(lead, "tool_call", 0.95) if lead is not None and _unique(ids) else None

    def _by_trace(self, question: Question, trace_id: str) -> Evidence | None:
        leads = self._fresh(question, trace_key(question.scope, trace_id))
        return Evidence(leads[-1], "trace", 0.7) if leads else None

    def _next(self, leads: list[Lead], question: Question) -> Lead:
        """Which of several threads that left the same evidence is due; see rule 2."""
        if len(leads) == 1:
            return leads[0]
        shape = question.history.shape if question.history is not None else 0
        leads = [lead for lead in leads if same_prompt(lead.shape, shape)] or leads
        threads = [self._memory.thread(question.scope, lead.ref) for lead in leads]
        gone_on = [
            max(0, thread.steps - lead.step) if thread is not None else 1
            for lead, thread in zip(leads, threads, strict=True)
        ]
        return self._due(leads, question, gone_on)

    def _due(self, leads: list[Lead], question: Question, followed: list[int]) -> Lead:
        """The one that was followed least, preferably on this connection, preferably the one that waits longest."""
        fewest = min(followed)
        leads = [lead for lead, times in zip(leads, followed, strict=True) if times == fewest]
        leads = [lead for lead in leads if lead.peer == question.peer] or leads
        waits = [age(question.at, lead.at) for lead in leads]
        longest = min(waits) * WAIT_RATIO + WAIT_SLACK
        return max((pair for pair in zip(waits, leads, strict=True) if pair[0] <= longest), key=lambda pair: pair[0])[1]

    def _tool_leads(self, question: Question, ids: Iterable[str]) -> list[Lead]:
        """Leads of the first of these ids that has any; ids of one turn come from one answer."""
        for identifier in list(ids)[:IDS_READ]:
            leads = self._fresh(question, tool_key(question.scope, identifier)) if identifier else []
            if leads:
                return leads
        return []

    def _fresh(self, question: Question, key: bytes, ref: bytes = b"") -> list[Lead]:
        at, idle = question.at, self._idle
        return [lead for lead in self._memory.leads(key) if age(at, lead.at) <= idle and (not ref or lead.ref == ref)]


def _only(leads: list[Lead]) -> Lead | None:
    """The latest lead, if all point to one thread."""
    return leads[-1] if leads and all(lead.ref == leads[0].ref for lead in leads) else None


def _plausible(lead: Lead, question: Question, shape: int) -> bool:
    """May this answer, known by its text alone, be the one in a history of this shape?"""
    if lead.flags & SHORT:
        return same_prompt(lead.shape, shape) and lead.peer == question.peer
    return same_first(lead.shape, shape) or same_prompt(lead.shape, shape)


def _unique(ids: Iterable[str]) -> bool:
    """Is one of these ids random enough never to be given twice? `call_1` or `functions.search:0` are not."""
    return any(_UNIQUE_ID.match(identifier) for identifier in ids)


def _result_ids(history: History) -> list[str]:
    return [result.id for result in history.results if result.id]


def turn_key(scope: bytes, history: History, end: int, mark: bytes) -> bytes:
    return digest(scope + b"C" + history.trail(end) + mark)


def tool_key(scope: bytes, identifier: str) -> bytes:
    return digest(scope + b"I" + identifier.encode("utf-8", "replace"))


def text_key(scope: bytes, text: bytes) -> bytes:
    return scope + b"A" + text


def response_key(scope: bytes, identifier: str) -> bytes:
    return digest(scope + b"V" + identifier.encode("utf-8", "replace"))


def trace_key(scope: bytes, trace_id: str) -> bytes:
    return digest(scope + b"W" + trace_id.encode())


def idempotency_key(scope: bytes, key: str) -> bytes:
    return digest(scope + b"K" + key.encode())


def request_key(scope: bytes, call: Call) -> bytes:
    """A retry is the same request byte for byte; of a large body its length, head and tail are compared."""
    body = call.request.body
    size = len(body)
    if size > 2 * BODY_HASHED:
        body = body[:BODY_HASHED] + body[-BODY_HASHED:]
    return digest(b"%bQ%b%b%b" % (scope, size.to_bytes(8, "little"), body, call.route.path))
