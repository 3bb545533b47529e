"""Scripted clients as they look on the wire: each sends its history in the form of its API, with the headers of a real
program, and says which run and agent every call truly belongs to.

For tests that ask whether a gateway finds this out by itself. Nothing here does I/O; randomness is handed in.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Use:
    id: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    result: str = "42"


@dataclass(slots=True)
class Reply:
    """An answer of the model. `status` other than 200: it failed."""

    text: str = ""
    uses: list[Use] = field(default_factory=list)
    id: str = ""
    status: int = 200


@dataclass(slots=True)
class Turn:
    """One piece of a conversation: a user's text, an answer, or the results of its tools."""

    text: str = ""
    reply: Reply | None = None
    results: list[Use] = field(default_factory=list)


@dataclass(slots=True)
class Form:
    """An API: its path, and how a conversation is written as a request body."""

    path: str
    write: Callable[[str, list[Turn]], dict[str, Any]]


def chat(system: str, turns: list[Turn]) -> dict[str, Any]:
    """OpenAI chat completions."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        if turn.reply is not None:
            message: dict[str, Any] = {"role": "assistant", "content": turn.reply.text or None}
            if turn.reply.uses:
                message["tool_calls"] = [
                    {
                        "id": use.id,
                        "type": "function",
                        "function": {"name": use.name, "arguments": json.dumps(use.arguments)},
                    }
                    for use in turn.reply.uses
                ]
            messages.append(message)
        elif turn.results:
            messages += [{"role": "tool", "tool_call_id": use.id, "content": use.result} for use in turn.results]
        else:
            messages.append({"role": "user", "content": turn.text})
    return {"model": "gpt-4.1-mini", "messages": messages}


def anthropic(system: str, turns: list[Turn]) -> dict[str, Any]:
    """Anthropic messages, with the cache mark that clients move along to the last message."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        content: list[dict[str, Any]] = []
        if turn.reply is not None:
            content = [{"type": "text", "text": turn.reply.text}] if turn.reply.text else []
            content += [
                {"type": "tool_use", "id": use.id, "name": use.name, "input": use.arguments} for use in turn.reply.uses
            ]
        elif turn.results:
            content = [{"type": "tool_result", "tool_use_id": use.id, "content": use.result} for use in turn.results]
        else:
            content = [{"type": "text", "text": turn.text}]
        messages.append({"role": "user" if turn.reply is None else "assistant", "content": content})
    messages[-1]["content"][-1]["cache_control"] = {"type": "ephemeral"}
    return {"model": "claude-sonnet-4-5", "max_tokens": 1024, "system": system, "messages": messages}


def _responses_items(turns: list[Turn]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for turn in turns:
        if turn.reply is not None:
            items.append({"type": "reasoning", "id": f"rs_{turn.reply.id}", "summary": []})
            if turn.reply.text:
                content = [{"type": "output_text", "text": turn.reply.text, "annotations": []}]
                items.append({"type": "message", "role": "assistant", "content": content})
            items += [
                {"type": "function_call", "call_id": use.id, "name": use.name, "arguments": json.dumps(use.arguments)}
                for use in turn.reply.uses
            ]
        elif turn.results:
            items += [{"type": "function_call_output", "call_id": use.id, "output": use.result} for use in turn.results]
        else:
            items.append({"role": "user", "content": turn.text})
    return items


def responses(system: str, turns: list[Turn]) -> dict[str, Any]:
    """OpenAI responses with the whole input."""
    return {"model": "gpt-5", "instructions": system, "input": _responses_items(turns), "store": False}


def responses_chained(system: str, turns: list[Turn]) -> dict[str, Any]:
    """OpenAI responses that name the one before and send only what is new."""
    answers = [at for at, turn in enumerate(turns) if turn.reply is not None]
    body: dict[str, Any] = {"model": "gpt-5", "instructions": system}
    if not answers:
        return {**body, "input": turns[0].text}
    last = turns[answers[-1]].reply
    assert last is not None
    return {**body, "previous_response_id": last.id, "input": _responses_items(turns[answers[-1] + 1 :])}


def gemini(system: str, turns: list[Turn]) -> dict[str, Any]:
    """Gemini, whose tool calls have no ids."""
    contents: list[dict[str, Any]] = []
    for turn in turns:
        parts: list[dict[str, Any]]
        if turn.reply is not None:
            parts = [{"text": turn.reply.text}] if turn.reply.text else []
            parts += [{"functionCall": {"name": use.name, "args": use.arguments}} for use in turn.reply.uses]
        elif turn.results:
            parts = [
                {"functionResponse": {"name": use.name, "response": {"result": use.result}}} for use in turn.results
            ]
        else:
            parts = [{"text": turn.text}]
        contents.append({"role": "user" if turn.reply is None else "model", "parts": parts})
    return {"systemInstruction": {"parts": [{"text": system}]}, "contents": contents}


CHAT = Form("/v1/chat/completions", chat)
ANTHROPIC = Form("/v1/messages", anthropic)
RESPONSES = Form("/v1/responses", responses)
CHAINED = Form("/v1/responses", responses_chained)
GEMINI = Form("/v1beta/models/gemini-2.5-flash:generateContent", gemini)


@dataclass(slots=True)
class Truth:
    """Whose call it is: the run, the agent instance in it, and whether it repeats a request that failed."""

    run: str
    thread: str
    again: bool


@dataclass(slots=True)
class Sent:
    """One request on the wire."""

    path: str
    headers: Headers
    body: bytes
    client: str
    truth: Truth
    results: list[Use]  # of tools, sent for the first time


class Client:
    """One conversation. `edit` changes the turns that are sent (not what is remembered); `extra` adds body fields."""

    def __init__(
        self,
        form: Form,
        headers: Headers,
        random: Random,
        *,
        run: str,
        thread: str = "main",
        calls: int = 5,
        system: str = "You are a helpful assistant.",
        prompts: Iterator[str],
        address: str = "",
        extra: dict[str, Any] | None = None,
        edit: Callable[[list[Turn]], list[Turn]] = list,
        counts_retries: bool = True,
        path_prefix: str = "",
    ) -> None:
        self.form, self.headers, self.random, self.run, self.thread = form, headers, random, run, thread
        self.system, self.prompts, self.extra, self.edit = system, prompts, extra or {}, edit
        self.left = calls
        self.address = address or f"127.0.0.1:{random.randrange(20_000, 60_000)}"
        self.turns = [Turn(text=next(prompts))]
        self.retry = 0
        self.counts_retries, self.path_prefix = counts_retries, path_prefix

    def ask(self) -> Sent:
        body = {**self.form.write(self.system, self.edit(self.turns)), **self.extra}
        headers = list(self.headers)
        if self.counts_retries:
            headers.append((b"X-Stainless-Retry-Count", b"%d" % self.retry))
        truth = Truth(self.run, self.thread, self.retry > 0)
        text = json.dumps(body, separators=(",", ":")).encode()
        results = [] if self.retry else self.turns[-1].results
        return Sent(self.path_prefix + self.form.path, headers, text, self.address, truth, results)

    def hear(self, reply: Reply) -> None:
        """Take an answer; what is asked next depends on it."""
        if reply.status != 200:
            self.retry += 1
            return
        self.retry = 0
        self.left -= 1
        self.turns.append(Turn(reply=reply))
        self.turns.append(Turn(results=reply.uses) if reply.uses else Turn(text=next(self.prompts)))


def bearer(key: str, user_agent: str, *more: tuple[str, str]) -> Headers:
    """The headers of a program that authenticates like OpenAI's clients."""
    pairs = [("Authorization", f"Bearer {key}"), ("User-Agent", user_agent), ("Content-Type", "application/json")]
    return [(name.encode(), value.encode()) for name, value in (*pairs, *more)]


def new_uuid(random: Random) -> str:
    return str(uuid.UUID(int=random.getrandbits(128), version=4))


_WORDS = ("the", "result", "of", "this", "step", "shows", "that", "we", "need", "one", "more", "look", "at", "value")


class Model:
    """Answers at random. `ids` makes tool-call ids; `tool_share` of the answers ask for one to three tools."""

    def __init__(self, random: Random, ids: Callable[[Random, int], str], tool_share: float = 0.6) -> None:
        self.random, self.ids, self.tool_share = random, ids, tool_share
        self.given = 0

    def answer(self) -> Reply:
        random = self.random
        identifier = f"resp_{random.getrandbits(96):024x}"
        if random.random() >= self.tool_share:
            words = random.choices(_WORDS, k=random.randrange(2, 60))
            return Reply(text=" ".join([*words, str(random.randrange(10**6))]), id=identifier)
        uses = []
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            self.given += 1
            uses.append(Use(self.ids(random, self.given), random.choice(("search", "read_file", "bash"))))
        return Reply(text=random.choice(("", "Let me look.")), uses=uses, id=identifier)


_ALNUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def openai_ids(random: Random, _: int) -> str:
    return "call_" + "".join(random.choices(_ALNUM, k=24))


def anthropic_ids(random: Random, _: int) -> str:
    return "toolu_01" + "".join(random.choices(_ALNUM, k=22))


def mistral_ids(random: Random, _: int) -> str:
    return "".join(random.choices(_ALNUM, k=9))


def counted_ids(_: Random, given: int) -> str:
    """As some local servers give them: unique within one conversation at best."""
    return f"call_{given}"


def no_ids(_: Random, __: int) -> str:
    return ""
