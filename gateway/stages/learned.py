"""Learned: which of its targets does a call get by what was learned; and what its record carries so that more is.

Rules
1. Nothing is learned here: the recorder does that, workers read what came of it. Until there is something, and below
   `policy.selection.ENOUGH` labels, the first target serves.
2. The features are of what the user said last, for a run in its middle, too; no text of it leaves this module.
3. What may be held against an answer at once is only whether it keeps to the JSON that was asked for.

Cost: see policy.selection; nothing for calls of rules that learn nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from gateway.call import Call
from gateway.policy.answer_schema import ASKS, keeps_to
from gateway.policy.routing import Learned
from gateway.policy.selection import Model
from gateway.policy.selection_features import Features, Situation, features
from gateway.policy.selection_rules import Terms
from gateway.policy.selection_wire import encode
from gateway.ports import Gateway

SCOPE, ARM, SCORE, VALID = "learn", "learn_arm", "learn_score", "learn_valid"  # notes of a record
JUDGED_BYTES = 65_536  # of an answer that is held against a schema
LOOK_BACK = 16  # messages, for the last that the user wrote
_ENDS = 96  # bytes of a message in which its role stands
_NOT_USERS = (b'"assistant"', b'"model"', b'"tool"', b'"function_call_output"', b'"system"')


class Said(Protocol):
    """What this needs of an item of a conversation."""

    role: str

    @property
    def said(self) -> str: ...


class LearnedChoice:
    """`terms`: of each rule. `models`: of each scope, from memory. `read`: an item of a conversation, by dialect."""

    def __init__(
        self,
        terms: Sequence[Terms | None],
        models: Callable[[], Mapping[str, Model]],
        read: Callable[[str, Any], Said],
    ) -> None:
        self._terms, self._models, self._read = terms, models, read
        self._by_id = {one.learn.id: one for one in terms if one is not None}

    def chooser(self, call: Call, gw: Gateway) -> Learned:
        """What rules ask for this call. It notes what it saw, and what it expects of the target."""

        def choose(id: str, arms: Sequence[str], free: bool) -> tuple[Sequence[int], str]:
            terms = self._by_id[id]
            seen = self._features(call)
            call.seen = encode(seen)
            draw = int.from_bytes(gw.random(4), "little") / 2**32
            model = self._models().get(terms.scope(call))
            choice = terms.choose(model, seen, terms.permitted(call, arms), draw, explores=free)
            if choice.score >= 0:
                call.notes = {**call.notes, SCORE: f"{choice.score:.3f}"}
            first = arms.index(choice.arm)
            return [first, *[place for place in range(len(arms)) if place != first]], choice.why

        return choose

    def mark(self, call: Call, rule: int, model: str, upstream: str) -> None:
        """Note for the recorder what is to be learned from a call that its rule is going to send there."""
        terms = self._terms[rule]
        arm = terms.arm_at(call, model, upstream) if terms is not None else ""
        if terms is None or not arm:
            return
        call.seen = call.seen or encode(self._features(call))
        call.notes = {**call.notes, SCOPE: terms.scope(call), ARM: arm}
        fields = call.asked.fields
        if any(name in fields and b"json" in bytes(fields[name]).lower() for name in ASKS):
            call.kept = JUDGED_BYTES

    def judge(self, call: Call, gw: Gateway) -> None:
        """The call has ended: did the answer keep to what was asked for?"""
        answer = call.answer
        if not call.kept or call.fault is not None or call.status != 200 or call.translated is not None:
            return
        if answer is None or not answer.complete or answer.tool_uses or not 0 < len(call.captured) < call.kept:
            return
        dialect, asked = gw.dialects[call.route.dialect], call.asked
        text = dialect.answer_text(call.route, asked, call.captured, stream=asked.stream)
        if text is not None:
            call.notes = {**call.notes, VALID: "yes" if keeps_to(text, asked.fields) else "no"}

    def _features(self, call: Call) -> Features:
        asked, who = call.asked, call.who
        tools = asked.tools[:4096].count(b'"name"') if asked.tools else 0
        return features(self._prompt(call), Situation(tools or bool(asked.tools), who.step, who.request_class))

    def _prompt(self, call: Call) -> str:
        """The last that the user said; "" where nothing is found."""
        dialect = call.route.dialect
        for raw in reversed(call.asked.messages[-LOOK_BACK:]):
            data = bytes(raw)
            ends = data[:_ENDS] + data[-_ENDS:]
            if any(mark in ends for mark in _NOT_USERS) and b'"user"' not in ends:
                continue
            item = self._read(dialect, raw)
            if item.role == "user" and item.said:
                return item.said
        return ""
