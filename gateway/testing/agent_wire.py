"""How the scripted agents talk: plain HTTP with the headers real clients send, and what each call showed them.

This reads answers on its own, sharing no code with the gateway, so that both can be held against each other.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

Event = tuple[str, Any]
RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504, 529})


@dataclass(slots=True)
class Seen:
    """One HTTP call as its caller saw it."""

    agent: str
    run: str
    model: str
    call_id: str = ""  # x-tollgate-request-id
    status: int = 0
    ended: str = "open"  # ok | error | left
    input_tokens: int | None = None  # None: the answer did not say
    output_tokens: int | None = None
    tools: int = 0  # tool calls asked for in the answer
    code: str = ""  # x-tollgate-code: why the gateway itself refused it


Log = list[Seen] | deque[Seen]


@dataclass(slots=True)
class Tool:
    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(slots=True)
class Answer:
    text: str = ""
    tools: list[Tool] = field(default_factory=list)
    id: str = ""
    content: Any = None  # the assistant turn to send back, in the dialect's own form
    usage: dict[str, Any] = field(default_factory=dict)
    failed: bool = False


@dataclass(slots=True)
class Dialect:
    """What differs between the APIs: where it stands in the URL and how an answer is read."""

    read: Callable[[Any], Answer]
    collect: Callable[[list[Event]], Answer]
    tokens: Callable[[Mapping[str, Any]], tuple[int, int]]


class Caller:
    """One agent of one run. `headers` go with every call; failed calls are retried as the SDKs do."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        log: Log,
        *,
        who: tuple[str, str],
        headers: Mapping[str, str],
    ) -> None:
        self._session, self._url, self._log = session, url, log
        self._agent, self._run = who
        self._headers = dict(headers)
        self.refused = ""  # why it was told not to try again: the code of the gateway, else the status

    async def ask(
        self, dialect: Dialect, path: str, body: dict[str, Any], *, stream: bool = False, leave_after: int = 0
    ) -> Answer | None:
        """None when it failed for good, or when the caller left after `leave_after` events."""
        for retry in range(3):
            seen = Seen(self._agent, self._run, str(body.get("model") or path.rpartition("/")[2].partition(":")[0]))
            self._log.append(seen)
            headers = {**self._headers, "x-stainless-retry-count": str(retry)}
            try:
                answer, wait = await self._once(
                    dialect, path, body, headers, seen, stream=stream, leave_after=leave_after
                )
            except (aiohttp.ClientError, ConnectionError, json.JSONDecodeError):
                answer, wait = None, 0.2  # the answer was cut
            if answer is not None or seen.ended == "left":
                return answer
            seen.ended = "error"
            if wait is None:
                return None
            await asyncio.sleep(min(wait, 1))
        return None

    async def _once(
        self,
        dialect: Dialect,
        path: str,
        body: dict[str, Any],
        headers: Mapping[str, str],
        seen: Seen,
        *,
        stream: bool,
        leave_after: int,
    ) -> tuple[Answer | None, float | None]:
        """(answer, seconds to wait before the next try or None for no other try)."""
        async with self._session.post(self._url + path, json=body, headers=headers) as response:
            seen.status = response.status
            seen.call_id = response.headers.get("x-tollgate-request-id", "")
            seen.code = response.headers.get("x-tollgate-code", "")
            if response.status != 200:
                await response.read()
                wait = float(response.headers.get("retry-after-ms", 500)) / 1000
                if response.status in RETRIED:
                    return None, wait
                self.refused = seen.code or str(response.status)
                return None, None
            if stream:
                events = []
                async for event in sse_events(response.content):
                    events.append(event)
                    if leave_after and len(events) >= leave_after:
                        seen.ended = "left"
                        response.close()
                        return None, None
                answer = dialect.collect(events)
            else:
                answer = dialect.read(await response.json(content_type=None))
        if answer.failed:
            return None, 0.2
        seen.ended, seen.tools = "ok", len(answer.tools)
        if answer.usage:
            seen.input_tokens, seen.output_tokens = dialect.tokens(answer.usage)
        return answer, None


async def sse_events(lines: AsyncIterable[bytes]) -> AsyncIterator[Event]:
    """(event name, JSON data) of a stream; data that is not JSON (`[DONE]`) as text."""
    name, data = "", ""
    async for raw in lines:
        line = raw.decode().rstrip("\r\n")
        if not line:
            if data:
                yield name, data if data == "[DONE]" else json.loads(data)
            name, data = "", ""
        elif line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data += line[5:].strip()


def _chat_tools(calls: Any) -> list[Tool]:
    return [Tool(c["id"], c["function"]["name"], json.loads(c["function"]["arguments"] or "{}")) for c in calls or ()]


def _chat_read(body: Any) -> Answer:
    message = body["choices"][0]["message"]
    content = {k: v for k, v in message.items() if k in {"role", "content", "tool_calls"}}
    return Answer(
        message.get("content") or "", _chat_tools(message.get("tool_calls")), body["id"], content, body["usage"]
    )


def _chat_collect(events: list[Event]) -> Answer:
    answer, done = Answer(), False
    calls: dict[int, dict[str, Any]] = {}
    for _, data in events:
        if data == "[DONE]":
            done = True
            continue
        answer.failed |= "error" in data
        answer.usage = data.get("usage") or answer.usage
        answer.id = data.get("id", answer.id)
        for choice in data.get("choices") or ():
            delta = choice["delta"]
            answer.text += delta.get("content") or ""
            for part in delta.get("tool_calls") or ():
                call = calls.setdefault(part["index"], {"type": "function", "function": {"name": "", "arguments": ""}})
                call["id"] = part.get("id") or call["id"]
                call["function"]["name"] += part["function"].get("name") or ""
                call["function"]["arguments"] += part["function"].get("arguments") or ""
    answer.failed |= not done
    if not answer.failed:
        answer.tools = _chat_tools(calls.values())
    answer.content = {"role": "assistant", "content": answer.text or None}
    if calls:
        answer.content["tool_calls"] = list(calls.values())
    return answer


def _messages_read(body: Any) -> Answer:
    tools = [Tool(b["id"], b["name"], b["input"]) for b in body["content"] if b["type"] == "tool_use"]
    text = "".join(b["text"] for b in body["content"] if b["type"] == "text")
    return Answer(text, tools, body["id"], {"role": "assistant", "content": body["content"]}, body["usage"])


_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


def _messages_collect(events: list[Event]) -> Answer:
    blocks: list[dict[str, Any]] = []
    usage: dict[str, Any] = {}
    identity, done = "", False
    for name, data in events:
        if name == "message_start":
            identity = data["message"]["id"]
            usage |= data["message"]["usage"]
        elif name == "content_block_start":
            blocks.append({**data["content_block"], "json": ""})
        elif name == "content_block_delta":
            delta, block = data["delta"], blocks[data["index"]]
            key = _DELTAS.get(delta["type"])
            if key:
                block[key] += delta[key]
            else:
                block["json"] += delta["partial_json"]
        elif name == "message_delta":
            usage |= data["usage"]
        done |= name == "message_stop"
    if not done:
        return Answer(failed=True)
    for block in blocks:
        given = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(given or "{}")
    return _messages_read({"id": identity, "content": blocks, "usage": usage})


def _messages_tokens(usage: Mapping[str, Any]) -> tuple[int, int]:
    kinds = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return sum(usage.get(kind) or 0 for kind in kinds), usage["output_tokens"]


def _responses_read(body: Any) -> Answer:
    items = body["output"]
    tools = [Tool(i["call_id"], i["name"], json.loads(i["arguments"])) for i in items if i["type"] == "function_call"]
    text = "".join(part["text"] for i in items if i["type"] == "message" for part in i["content"])
    return Answer(text, tools, body["id"], items, body["usage"])


def _responses_collect(events: list[Event]) -> Answer:
    name, last = events[-1] if events else ("", {})
    if name not in {"response.completed", "response.incomplete"}:
        return Answer(failed=True)
    return _responses_read(last["response"])


def _gemini_read(body: Any) -> Answer:
    content = body["candidates"][0]["content"]
    calls = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
    tools = [Tool(call.get("id", ""), call["name"], call["args"]) for call in calls]
    text = "".join(part.get("text", "") for part in content["parts"])
    return Answer(text, tools, body["responseId"], content, body["usageMetadata"])


def _gemini_collect(events: list[Event]) -> Answer:
    chunks = [data for _, data in events]
    if not chunks or any("error" in chunk for chunk in chunks):
        return Answer(failed=True)
    if "finishReason" not in chunks[-1]["candidates"][0]:
        return Answer(failed=True)
    parts = [part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]]
    whole = {**chunks[-1], "candidates": [{"content": {"parts": parts, "role": "model"}}]}
    return _gemini_read(whole)


def _gemini_tokens(usage: Mapping[str, Any]) -> tuple[int, int]:
    return usage["promptTokenCount"], usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0)


CHAT = Dialect(_chat_read, _chat_collect, lambda u: (u["prompt_tokens"], u["completion_tokens"]))
MESSAGES = Dialect(_messages_read, _messages_collect, _messages_tokens)
RESPONSES = Dialect(_responses_read, _responses_collect, lambda u: (u["input_tokens"], u["output_tokens"]))
GEMINI = Dialect(_gemini_read, _gemini_collect, _gemini_tokens)
EMBEDDINGS = Dialect(
    lambda body: Answer(usage=body["usage"]), lambda _events: Answer(failed=True), lambda u: (u["prompt_tokens"], 0)
)
