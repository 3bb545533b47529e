"""What the fake model answers: a neutral question in, a neutral reply out.

A script travels inside the prompt, so that clients that cannot set headers follow it too. Directives:

    [[say TEXT]]            answer with this text
    [[think TEXT]]          reason with this text first
    [[tokens N]]            answer with N tokens of generated text
    [[tool NAME {json}]]    call a tool (several in one step: parallel calls), if the request offers it
    [[wait SECONDS]]        additional time to the first token
    [[fault KIND k=v ...]]  break the answer, see `gateway.testing.fake_faults`
    [[then]]                the following directives belong to the next step of the tool loop

The step is the number of tool rounds since the prompt that holds the script. A header `x-fake: ` with the same
directives outranks the prompt. Without a directive the reply is generated from the question and the seed.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.testing.fake_schema import WORDS, instance
from gateway.testing.fake_tokens import tokens

_DIRECTIVE = re.compile(r"\[\[(say|think|tokens|tool|wait|fault|then)\b ?")
_DECODER = json.JSONDecoder()


@dataclass(slots=True)
class Turn:
    role: str  # user | assistant
    text: str = ""
    calls: int = 0  # tool calls the assistant made in this turn
    results: tuple[str, ...] = ()  # tool results the user turn brought
    errors: int = 0  # how many of them were errors


@dataclass(slots=True)
class Ask:
    """A request of any dialect, in the words of this module."""

    dialect: str
    model: str
    turns: list[Turn]
    prompt: str  # everything the model reads, as text; the base of input tokens
    tools: dict[str, Any] = field(default_factory=dict)  # name -> JSON schema of its arguments
    tool_choice: str = "auto"  # auto | none | required | a tool's name
    schema: Any = None  # structured output
    max_tokens: int | None = None
    thinking: bool = False
    stream: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class ToolAnswer:
    name: str
    arguments: Any = field(default_factory=dict)
    id: str = ""


@dataclass(slots=True)
class Fault:
    kind: str
    after: int = 3  # frames sent before a stream breaks
    seconds: float = 3600
    times: int = 1_000_000  # only the first so many requests of this kind
    retry_after: float | None = None


@dataclass(slots=True)
class Reply:
    text: str = ""
    thinking: str = ""
    calls: list[ToolAnswer] = field(default_factory=list)
    stop: str = "stop"  # stop | length | tool
    wait: float = 0
    fault: Fault | None = None


@dataclass(slots=True)
class Step:
    say: str | None = None
    think: str = ""
    tokens: int = 0
    tools: list[ToolAnswer] = field(default_factory=list)
    wait: float = 0
    fault: Fault | None = None


def parse(text: str) -> list[Step]:
    """Steps of the script in `text`; empty without directives. Raises ValueError for a malformed one."""
    steps: list[Step] = []
    at = 0
    while match := _DIRECTIVE.search(text, at):
        if not steps:
            steps.append(Step())
        word, at = match[1], match.end()
        if word == "tool":
            at = _tool(text, at, steps[-1])
            continue
        end = text.find("]]", at)
        if end < 0:
            raise ValueError(f"directive without an end: {text[match.start() : at + 20]}")
        value, at = text[at:end].strip(), end + 2
        if word == "then":
            steps.append(Step())
        else:
            _apply(steps[-1], word, value)
    return steps


def _apply(step: Step, word: str, value: str) -> None:
    if word == "say":
        step.say = value
    elif word == "think":
        step.think = value
    elif word == "tokens":
        step.tokens = int(value)
    elif word == "wait":
        step.wait = float(value)
    else:
        kind, *pairs = value.split()
        step.fault = Fault(kind)
        for key, _, number in (pair.partition("=") for pair in pairs):
            setattr(step.fault, key, int(number) if key in {"after", "times"} else float(number))


def _tool(text: str, at: int, step: Step) -> int:
    name, _, _ = text[at:].partition(" ")
    name = name.split("]]")[0]
    at += len(name)
    arguments: Any = {}
    if text[at : at + 1] == " ":
        arguments, at = _DECODER.raw_decode(text, at + 1)
    end = text.find("]]", at)
    if end < 0:
        raise ValueError(f"tool directive without an end: {name}")
    step.tools.append(ToolAnswer(name, arguments))
    return end + 2


def current(ask: Ask) -> Step | None:
    """The step of the script this request stands at, or None."""
    header = ask.headers.get("x-fake")
    if header:
        return next(iter(parse(header)), None)
    rounds = 0
    for turn in reversed(ask.turns):
        if turn.role == "assistant":
            if not turn.calls:
                return None  # the script ran to its end before
            rounds += 1
        elif turn.text and (steps := parse(turn.text)):
            return steps[rounds] if rounds < len(steps) else None
    return None


def answer(ask: Ask, rng: random.Random, typical_tokens: float = 60) -> Reply:
    """The reply to `ask`; the same question with the same generator state gives the same reply."""
    step = current(ask) or Step()
    reply = Reply(thinking=step.think, wait=step.wait, fault=step.fault)
    if ask.thinking and not reply.thinking:
        reply.thinking = sentences(rng, max(8, round(rng.lognormvariate(3.3, 0.4))))
    if ask.tool_choice != "none":
        reply.calls = [tool for tool in step.tools if tool.name in ask.tools]
    forced = ask.tools if ask.tool_choice == "required" else (ask.tool_choice,)
    if not reply.calls and step.say is None and (name := next((n for n in forced if n in ask.tools), "")):
        reply.calls = [ToolAnswer(name, instance(ask.tools[name], rng))]
    if reply.calls:
        reply.text, reply.stop = step.say or "", "tool"
    else:
        reply.text = step.say if step.say is not None else _text(ask, step, rng, typical_tokens)
    return _limited(ask, reply)


def _text(ask: Ask, step: Step, rng: random.Random, typical_tokens: float) -> str:
    if ask.schema is not None:
        return json.dumps(instance(ask.schema, rng), separators=(",", ":"))
    results = ask.turns[-1].results if ask.turns else ()
    if results and not step.tokens:
        return "The tools answered: " + " | ".join(text.strip()[:400] for text in results)
    return sentences(rng, step.tokens or max(4, round(typical_tokens * rng.lognormvariate(0, 0.5))))


def sentences(rng: random.Random, size: int) -> str:
    """Exactly `size` tokens of plain text."""
    pieces: list[str] = []
    while len(pieces) < size:
        words = [rng.choice(WORDS) for _ in range(rng.randint(5, 14))]
        pieces += tokens((" " if pieces else "") + " ".join(words).capitalize() + ".")
    return "".join(pieces[:size])


def _limited(ask: Ask, reply: Reply) -> Reply:
    """Cut thinking and text at max_tokens, as a model does; tool calls are cut to none."""
    if ask.max_tokens is None:
        return reply
    left = ask.max_tokens
    for name in ("thinking", "text"):
        pieces = tokens(getattr(reply, name))
        if len(pieces) > left:
            setattr(reply, name, "".join(pieces[:left]))
            reply.stop, reply.calls = "length", []
        left = max(0, left - len(pieces))
    return reply


def transcript(parts: Sequence[tuple[str, str]]) -> str:
    """The text a model reads: each part framed by its role, as chat templates do."""
    return "".join(f"<{role}>{text}\n" for role, text in parts if text)
