"""Learned: which of its targets does a call get by what was learned; and what its record carries so that more is.

Rules
1. Nothing is learned here: the recorder does that, workers read what came of it. Until there is something, and below
   `policy.selection.ENOUGH` labels, the first target serves.
2. The features are of what the user said last, for a run in its middle, too; no text of it leaves this module.
3. What may be held against an answer at once is only whether it keeps to the JSON that was asked for.
4. Of a bounded sample, another target is asked behind the client's back, as a call like others, and the two answers are
   compared (policy.semantic_compare). Only where nothing but words hangs on them: no tools, nothing that is stored.

Cost: see policy.selection; nothing for calls of rules that learn nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct, structs

from gateway.call import Call, Request
from gateway.policy.answer_schema import ASKS, keeps_to
from gateway.policy.estimate import declares
from gateway.policy.routing import Learned, Plan
from gateway.policy.routing_rules import Target
from gateway.policy.selection import Model
from gateway.policy.selection_features import Features, Situation, features
from gateway.policy.selection_rules import Terms
from gateway.policy.selection_wire import encode
from gateway.policy.semantic_compare import Verdict, compare
from gateway.policy.semantic_rules import unsuited
from gateway.ports import Dialect, Gateway
from gateway.stages.cheaper import retarget

SCOPE, ARM, SCORE, VALID = "learn", "learn_arm", "learn_score", "learn_valid"  # notes of a record
AGREED, SHADOW = "learn_agreed", "shadow"
JUDGED_BYTES = 65_536  # of an answer that is held against a schema
LOOK_BACK = 16  # messages, for the last that the user wrote
_ENDS = 96  # bytes of a message in which its role stands
_NOT_USERS = (b'"assistant"', b'"model"', b'"tool"', b'"function_call_output"', b'"system"')


class Said(Protocol):
    """What this needs of an item of a conversation."""

    role: str

    @property
    def said(self) -> str: ...


class Pair(Struct, frozen=True):
    """A target that is asked the same as another one was. `text`: what that one said."""

    scope: str
    arm: str
    target: Target
    seen: bytes
    text: str = ""


class LearnedChoice:
    """`terms`: of each rule. `models`: of each scope, from memory. `read`: an item of a conversation, by dialect.
    `shadow`: sends a request in the background; False where it cannot."""

    def __init__(
        self,
        terms: Sequence[Terms | None],
        models: Callable[[], Mapping[str, Model]],
        read: Callable[[str, Any], Said],
        shadow: Callable[[Request], bool] = lambda request: False,
    ) -> None:
        self._terms, self._models, self._read, self._shadow = terms, models, read, shadow
        self._by_id = {one.learn.id: one for one in terms if one is not None}

    def chooser(self, call: Call, gw: Gateway) -> Learned:
        """What rules ask for this call. It notes what it saw, and what it expects of the target."""

        def choose(id: str, arms: Sequence[str], free: bool) -> tuple[Sequence[int], str]:
            terms = self._by_id[id]
            seen = self._features(call)
            call.seen = encode(seen)
            draw = _chance(gw)
            model = self._models().get(terms.scope(call))
            choice = terms.choose(model, seen, terms.permitted(call, arms), draw, explores=free)
            if choice.score >= 0:
                call.notes = {**call.notes, SCORE: f"{choice.score:.3f}"}
            first = arms.index(choice.arm)
            return [first, *[place for place in range(len(arms)) if place != first]], choice.why

        return choose

    def mark(self, call: Call, plan: Plan, gw: Gateway) -> None:
        """Note for the recorder what is to be learned from a call that is going to be sent there."""
        terms, target = self._terms[plan.rule], plan.targets[0]
        arm = terms.arm_at(call, target.model, target.upstream) if terms is not None else ""
        if terms is None or not arm or call.request.checks:
            return
        call.seen = call.seen or encode(self._features(call))
        call.notes = {**call.notes, SCOPE: terms.scope(call), ARM: arm}
        if _asks_for_json(call):
            call.kept = JUDGED_BYTES
        if terms.learn.shadow and arm == terms.arms[0].name and _chance(gw) < terms.learn.shadow:
            call.pair = self._other(call, terms, plan)
            call.kept = JUDGED_BYTES if call.pair is not None else call.kept

    def _other(self, call: Call, terms: Terms, plan: Plan) -> Pair | None:
        """Of the targets that could have taken the call, that of which the least is known."""
        if len(plan.targets) < 2 or declares(call.asked.tools) or b"content-encoding" in call.request.names:
            return None
        scope = terms.scope(call)
        model = self._models().get(scope)
        known = dict(zip(model.arms, model.counts, strict=False)) if model is not None else {}
        arms = [(terms.arm_at(call, target.model, target.upstream), target) for target in plan.targets[1:]]
        arm, target = min(arms, key=lambda one: known.get(one[0], 0.0))
        return Pair(scope, arm, target, call.seen)

    def judge(self, call: Call, gw: Gateway) -> None:
        """The call has ended: did the answer keep to what was asked for, and what does another target say?"""
        answer, pair = call.answer, call.request.pair
        if call.check is not None and SCOPE in call.notes and call.check.valid is not None and _as_planned(call):
            call.notes = {**call.notes, VALID: "yes" if call.check.valid else "no"}
        if not call.kept or call.fault is not None or call.status != 200 or call.translated is not None:
            return
        if answer is None or not answer.complete or answer.tool_uses or not 0 < len(call.captured) < call.kept:
            return
        if not _as_planned(call):
            return
        dialect, asked = gw.dialects[call.route.dialect], call.asked
        text = dialect.answer_text(call.route, asked, call.captured, stream=asked.stream)
        if text is None:
            return
        if pair is not None:
            verdict = compare(pair.text, text)
            if verdict is not Verdict.UNKNOWN:
                call.notes = {**call.notes, AGREED: "yes" if verdict is Verdict.SAME else "no"}
            return
        if _asks_for_json(call) and VALID not in call.notes:
            call.notes = {**call.notes, VALID: "yes" if keeps_to(text, asked.fields) else "no"}
        if call.pair is not None and _only_words(call, dialect):
            self._shadow(structs.replace(call.request, checks=-1, pair=structs.replace(call.pair, text=text)))

    def _features(self, call: Call) -> Features:
        asked, who = call.asked, call.who
        tools = max(1, asked.tools[:4096].count(b'"name"')) if declares(asked.tools) else 0
        return features(self._prompt(call), Situation(tools, who.step, who.request_class))

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


def compared(call: Call, gw: Gateway) -> None:
    """Send a call that nobody waits for to the target whose answer is compared."""
    pair: Pair = call.request.pair
    retarget(call, gw, pair.target.model, pair.target.upstream)
    call.who.request_class = SHADOW
    call.seen, call.kept = pair.seen, JUDGED_BYTES
    call.notes = {
        **call.notes,
        "route_why": SHADOW,
        "route_to": pair.target.name,
        SCOPE: pair.scope,
        ARM: pair.arm,
    }


def _as_planned(call: Call) -> bool:
    """Did no other target answer?"""
    last = call.attempts[-1] if call.attempts else None
    return last is not None and f"{last.target.upstream}/{last.model}" == call.notes.get("route_to")


def _chance(gw: Gateway) -> float:
    return int.from_bytes(gw.random(4), "little") / 2**32


def _asks_for_json(call: Call) -> bool:
    fields = call.asked.fields
    return any(name in fields and b"json" in bytes(fields[name]).lower() for name in ASKS)


def _only_words(call: Call, dialect: Dialect) -> bool:
    """Does nothing but words hang on the answer, as far as is known?"""
    if unsuited(call, dialect):
        return False
    try:
        value = msgspec.json.decode(call.request.body)
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(value, dict) and not dialect.last_turn(call.route, value).why
