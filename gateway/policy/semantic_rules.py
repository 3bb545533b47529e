"""Which calls may be answered by an answer to a similar question, and under which key it is looked for. Pure.

Rules
1. Only the text of the user's last turn may differ. All the rest of the request, and who asks whom for it, is a hard
   key, the *partition*: earlier turns, system prompt, tools, formats, parameters, tenant, end user, team or key,
   upstream, model, route, headers. No similarity reaches across partitions.
2. What the exact cache does not keep, this one does not give. On top of that it leaves alone what a rewording changes
   without a trace in the words: repetition ("again"), what is now ("today"), what is long, what is hardly anything.
3. Evidence is kept by scope: a tenant, an agent and a model. What one tenant does teaches nobody else.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw, Struct

from gateway.call import Call
from gateway.config.schema import SemanticCache
from gateway.config.schema_semantic import Mode, SemanticRule
from gateway.policy.cache_key import Basis, canonical, digest, parts_of
from gateway.policy.cache_rules import WORLD
from gateway.policy.scoped_rules import ScopedRules
from gateway.policy.semantic_words import PLAIN
from gateway.ports import Dialect, LastTurn, Spec, Topic

VERSION = b"tollgate similar 1"
"""Changed whenever the meaning of a partition changes."""
MOST_BYTES = 262_144  # of a request body: it is read once more
MOST_CHARS = 2_400  # of the text: about 512 tokens
LEAST_WORDS = 3  # of content, where the model has said something before
LEAST_FIRST = 2  # of content, where it has not: nothing is left to guess that other words of a chat would have to tell
WARM = 0.3  # a temperature above asks for something new
LOGPROBS = re.compile(rb'"(?:responseLogprobs|response_logprobs|logprobs)"\s*:\s*(?!false|null|0\b)')
_FORMATS = ("generationConfig", "generation_config", "logprobs", "top_logprobs")

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_REPEAT = re.compile(
    r"\b(?:again|continue|go on|keep going|carry on|another one|one more|anything else|something else|rephrase|"
    r"regenerate|retry|redo|repeat that|try that)\b",
    re.IGNORECASE,
)
"""Asks for something of an answer that was given: whoever asks wants another one."""
_BACK = re.compile(
    r"\b(?:it|its|that|this|those|these|they|them|their|he|him|his|she|her|hers|one|ones|above|former|latter|previous|"
    r"earlier|before|last|you said|mentioned|what about|how about|why not|also|too|more|shorter|longer|same|instead)\b",
    re.IGNORECASE,
)
"""May point at what was said before."""
_TIME = re.compile(
    r"\b(?:now|today(?:['’]s)?|tonight|tomorrow|yesterday|current|currently|latest|recent|recently|lately|so far|"
    r"this (?:hour|minute|morning|afternoon|evening)|at the moment|at present|presently|nowadays|these days|"
    r"up[ -]to[ -]date|breaking|as of|ago|yet)\b",
    re.IGNORECASE,
)
"""Says a time that moves on within minutes: soon the same words have another answer. (Not a week, month or year.)"""
_CLOCK = re.compile(
    r"\b(?:what|which)\b[^.?!]{0,20}\b(?:time|hour|day|weekday|date|month|year)"
    r"(?:\s+of\s+the\s+(?:day|week|month|year))?\s+(?:is\s+it|it\s+is)\b|"
    r"\b(?:what(?:['’]?s|\s+is)?|tell|give|show|have|got|know|check)\s+(?:(?:me|us|you)\s+)?the\s+"
    r"(?:(?:exact|precise|correct|right|actual|local)\s+)?(?:time|hour|day|date)\b"
    r"(?=\s*(?:$|[.?!,;]|(?:please|in|at|here|there|over)\b))|"
    r"^\s*(?:the\s+)?(?:local\s+)?time\s+(?:in|at|please)\b|\bhow\s+late\s+is\s+it\b",
    re.IGNORECASE,
)
"""Asks a clock or a calendar: "What time is it in Oslo?" """
_PERSONAL = re.compile(
    r"[\w.+-]+@[\w-]+\.\w|\b\d{3}-\d{2}-\d{4}\b|(?:\d[ -]?){13,19}|\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}|"
    r"(?:\+|\b00)\d(?:[ ()./-]?\d){7,}"
)
"""Addresses, numbers of accounts, cards and telephones."""
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Letters that a model reads, and neither people nor what compares texts here. (Not U+FE0F, which pictures end in.)"""

_value = msgspec.json.Decoder(float_hook=lambda text: Raw(text.encode())).decode
_encode = msgspec.json.Encoder(order="sorted").encode


class Terms(Struct, frozen=True, gc=False):
    """What holds for a call."""

    mode: Mode
    target: float
    sample: float
    ttl: int  # ns
    time_words: bool


class SemanticRules:
    """The rules of one configuration."""

    def __init__(self, semantic: SemanticCache) -> None:
        self._semantic = semantic
        self._scoped = ScopedRules(semantic.rules, SemanticRule(), self._terms)

    def terms(self, call: Call) -> Terms:
        return self._scoped.of(call)

    def _terms(self, rule: SemanticRule) -> Terms:
        semantic = self._semantic
        return Terms(
            rule.mode or semantic.mode,
            rule.target or semantic.target,
            rule.sample or semantic.sample,
            int((rule.ttl or semantic.ttl) * 1e9),
            semantic.time_words if rule.time_words is None else rule.time_words,
        )


def topic_of(call: Call, terms: Terms) -> Topic:
    who, model = call.who, call.model_sent or call.asked.model
    tenant, agent, model = [_written(part) for part in (who.tenant, who.agent, model)]
    return Topic(
        f"{tenant or '-'}/{agent or '-'}/{model or '-'}",
        tenant,
        terms.target,
        terms.sample,
        terms.ttl,
        terms.mode == "serve",
    )


def _written(name: str) -> str:
    """Headers may hold bytes that are no text."""
    return name.encode("utf-8", "backslashreplace").decode()


def unsuited(call: Call, dialect: Dialect) -> str:
    """Why the answer hangs on more than words, by all but the messages; "" where it does not."""
    asked, route = call.asked, call.route
    fields = asked.fields
    if len(call.request.body) > MOST_BYTES:
        return "length"
    temperature = asked.params.get("temperature")
    if isinstance(temperature, int | float) and temperature > WARM:
        return "temperature"
    bounds = dialect.bounds(route, asked)
    if bounds.choices != 1:
        return "choices"
    if bounds.server_tools or bounds.history or not WORLD.isdisjoint(fields):
        return "server_tools"
    if any([_wants_logprobs(name, fields[name]) for name in _FORMATS if name in fields]):
        return "logprobs"
    return ""


def _wants_logprobs(name: str, raw: Raw) -> bool:
    return LOGPROBS.search(b'"logprobs":' + bytes(raw) if "logprobs" in name else bytes(raw)) is not None


def cut(call: Call, spec: Spec, body: bytes, basis: Basis, dialect: Dialect) -> tuple[LastTurn, bytes]:
    """What the user says last, and the partition: the key of all the rest. `body`: as it would be sent, decoded."""
    meant = canonical(body)
    if meant is None:
        return LastTurn("", {}, why="ambiguous"), b""
    value = _value(meant)
    turn = dialect.last_turn(call.route, value)
    if turn.why:
        return turn, b""
    return turn, digest(parts_of(VERSION, call, spec, _encode(turn.rest), basis))


def reworded(turn: LastTurn, *, time_words: bool) -> str:
    """Why a rewording of this text may ask for something else; "" where none of the known reasons holds.

    A word like "it" points at what stands in the text or in the turns before, and those are equal for all texts of a
    partition. So it is a reason only where there are such turns, of which a rewording may mean another.
    """
    return unsure(turn.text, before=turn.before, time_words=time_words)


def unsure(text: str, *, before: bool, time_words: bool) -> str:
    """The same of a text. `before`: the model has said something before."""
    if len(text) > MOST_CHARS:
        return "length"
    if not text.isprintable() and _HIDDEN.search(text):
        return "hidden"
    if _REPEAT.search(text) or (before and _BACK.search(text)):
        return "refers_back"
    if not time_words and (_TIME.search(text) or _CLOCK.search(text)):
        return "time"
    if _PERSONAL.search(text):
        return "personal"
    words = {word.lower() for word in _WORD.findall(text)}
    return "few_words" if len(words - PLAIN) < (LEAST_WORDS if before else LEAST_FIRST) else ""
