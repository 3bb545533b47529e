"""The fake Responses API: JSON and SSE, stored conversations, background, cancel, compact, token counts."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.testing.fake_errors import Facts, consider, error_event, refusal
from gateway.testing.fake_openai_chat import arguments, check, headers
from gateway.testing.fake_script import Ask, Reply, ToolAnswer, Turn, transcript
from gateway.testing.fake_tokens import count, tokens
from gateway.testing.fake_world import Frame, Ids, Incoming, Stored, Wire, World, dump, sse, text_of

Event = tuple[str, dict[str, Any]]

_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}


def items_of(value: Any) -> list[dict[str, Any]]:
    """Input as a list of items: a string is one user message."""
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": value}]}]
    return [{"type": "message", **item} if "role" in item else item for item in value or ()]


def turns_of(items: list[dict[str, Any]]) -> list[Turn]:
    turns: list[Turn] = []
    for item in items:
        kind = str(item.get("type"))
        if kind.endswith("_call") and "call_id" in item:
            if not (turns and turns[-1].role == "assistant" and turns[-1].calls):
                turns.append(Turn("assistant"))
            turns[-1].calls += 1
        elif kind.endswith("_call_output"):
            if not (turns and turns[-1].results):
                turns.append(Turn("user"))
            turns[-1].results += (text_of(item.get("output")),)
        elif kind == "message" and item.get("role") in {"user", "assistant"}:
            turns.append(Turn(str(item["role"]), text_of(item.get("content"))))
    return turns


def _item_text(item: Mapping[str, Any]) -> tuple[str, str]:
    if item.get("type") == "message":
        return str(item.get("role")), text_of(item.get("content"))
    return str(item.get("type")), dump({k: v for k, v in item.items() if k not in {"type", "id", "status"}}).decode()


def history_of(world: World, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    before = world.stored.get(str(body.get("previous_response_id")))
    return [*(before.history if before else ()), *items_of(body.get("input"))]


def ask_of(world: World, request: Incoming) -> Ask:
    body = request.body
    items = history_of(world, body)
    format_ = (body.get("text") or {}).get("format") or {}
    choice = body.get("tool_choice", "auto")
    functions = {str(tool["name"]): tool.get("parameters", {}) for tool in _flat(body.get("tools"))}
    return Ask(
        dialect="openai.responses",
        model=str(body.get("model", "")),
        turns=turns_of(items),
        prompt=dump(body.get("tools") or "").decode()
        + transcript([("system", text_of(body.get("instructions"))), *(_item_text(item) for item in items)]),
        tools=functions,
        tool_choice=choice if isinstance(choice, str) else str(choice.get("name", "required")),
        schema=format_.get("schema") or ({"type": "object"} if format_.get("type") == "json_object" else None),
        max_tokens=body.get("max_output_tokens"),
        thinking=(body.get("reasoning") or {}).get("effort") not in {None, "none", "minimal"},
        stream=bool(body.get("stream")),
        headers=request.headers,
    )


def _flat(tools: Any) -> Iterator[Mapping[str, Any]]:
    """Function and custom tools, also those inside a namespace."""
    for tool in tools or ():
        if tool.get("type") == "namespace":
            yield from _flat(tool.get("tools"))
        elif "name" in tool:
            yield tool


def usage(world: World, ask: Ask, reply: Reply) -> dict[str, Any]:
    prompt = count(ask.prompt) + 3
    reasoning = count(reply.thinking)
    output = count(reply.text) + reasoning + sum(count(arguments(c)) + count(c.name) + 4 for c in reply.calls)
    cached = min(prompt, world.prefixes.match(ask.model, ask.prompt))
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": prompt + output,
    }


def output_items(reply: Reply, body: Mapping[str, Any], ids: Ids) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if reply.thinking:
        summary = [{"type": "summary_text", "text": reply.thinking}]
        item = {"id": ids.item("rs_"), "type": "reasoning", "summary": summary}
        if "reasoning.encrypted_content" in (body.get("include") or ()):
            item["encrypted_content"] = "gAAAAAB" + base64.urlsafe_b64encode(ids.letters(180).encode()).decode()
        items.append(item)
    if reply.text or not reply.calls:
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": reply.text}
        message = {"id": ids.item("msg_"), "type": "message", "status": "completed", "content": [part]}
        items.append({**message, "role": "assistant"})
    custom = {str(tool["name"]) for tool in _flat(body.get("tools")) if tool.get("type") == "custom"}
    return items + [_call_item(call, ids, custom=call.name in custom) for call in reply.calls]


def _call_item(call: ToolAnswer, ids: Ids, *, custom: bool) -> dict[str, Any]:
    call.id = call.id or ids.openai("call_")
    if custom:
        text = call.arguments if isinstance(call.arguments, str) else dump(call.arguments).decode()
        kind = {"id": ids.item("ctc_"), "type": "custom_tool_call", "status": "completed", "input": text}
    else:
        kind = {"id": ids.item("fc_"), "type": "function_call", "status": "completed", "arguments": arguments(call)}
    return {**kind, "call_id": call.id, "name": call.name}


class Prepared:
    """One response, made whole: as an object, as events, and ready to be stored."""

    def __init__(self, world: World, request: Incoming, ask: Ask, reply: Reply, ids: Ids) -> None:
        body = request.body
        self.reply, self.ids = reply, ids
        items = output_items(reply, body, ids)
        self.base: dict[str, Any] = {
            "id": ids.item("resp_"),
            "object": "response",
            "created_at": int(world.clock()),
            "status": "in_progress",
            "background": bool(body.get("background")),
            "error": None,
            "incomplete_details": None,
            **{name: body.get(name, default) for name, default in _ECHOED.items()},
            "model": ask.model,
            "output": [],
            "usage": None,
        }
        cut = reply.stop == "length"
        self.final: dict[str, Any] = {
            **self.base,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": items,
            "usage": usage(world, ask, reply),
        }
        self.events = list(_events(self.base, self.final, ids))
        if body.get("store", True) is not False:
            given = items_of(body.get("input"))
            listed = [{"id": item.get("id") or ids.item("msg_"), **item} for item in given]
            stored = Stored(self.final, listed, [*history_of(world, body), *items], self.events)
            if self.base["background"]:
                stored.response = {**self.base, "status": "queued"}
                stored.final, stored.due = self.final, world.clock() + world.background_seconds
            world.store(stored)


def _events(base: dict[str, Any], final: dict[str, Any], ids: Ids) -> Iterator[Event]:
    for sequence, (name, fields) in enumerate(_bare_events(base, final)):
        event = {"type": name, "sequence_number": sequence, **fields}
        if name.endswith(".delta"):
            event["obfuscation"] = ids.letters(ids.rng.randint(1, 16))
        yield name, event


def _bare_events(base: dict[str, Any], final: dict[str, Any]) -> Iterator[Event]:
    yield "response.created", {"response": base}
    yield "response.in_progress", {"response": base}
    for index, item in enumerate(final["output"]):
        opened: dict[str, Any] = {key: [] for key in ("summary", "content") if key in item}
        opened |= {key: "" for key in ("arguments", "input") if key in item}
        status = {"status": "in_progress"} if "status" in item else {}
        yield "response.output_item.added", {"output_index": index, "item": {**item, **opened, **status}}
        yield from _item_events(item, {"item_id": item["id"], "output_index": index})
        yield "response.output_item.done", {"output_index": index, "item": item}
    yield f"response.{final['status']}", {"response": final}


def _item_events(item: Mapping[str, Any], where: dict[str, Any]) -> Iterator[Event]:
    if item["type"] == "reasoning":
        where, text = {**where, "summary_index": 0}, item["summary"][0]["text"]
        yield "response.reasoning_summary_part.added", {**where, "part": {"type": "summary_text", "text": ""}}
        for piece in tokens(text):
            yield "response.reasoning_summary_text.delta", {**where, "delta": piece}
        yield "response.reasoning_summary_text.done", {**where, "text": text}
        yield "response.reasoning_summary_part.done", {**where, "part": item["summary"][0]}
    elif item["type"] == "message":
        where, part = {**where, "content_index": 0}, item["content"][0]
        yield "response.content_part.added", {**where, "part": {**part, "text": ""}}
        for piece in tokens(part["text"]):
            yield "response.output_text.delta", {**where, "delta": piece, "logprobs": []}
        yield "response.output_text.done", {**where, "text": part["text"], "logprobs": []}
        yield "response.content_part.done", {**where, "part": part}
    else:
        kind, key = ("custom_tool_call_input", "input") if "input" in item else ("function_call_arguments", "arguments")
        for piece in tokens(item[key]):
            yield f"response.{kind}.delta", {**where, "delta": piece}
        yield f"response.{kind}.done", {**where, key: item[key], **({} if "input" in item else {"name": item["name"]})}


def frames(events: list[Event]) -> list[Frame]:
    return [Frame(sse(name, dump(event)), int(name.endswith(".delta"))) for name, event in events]


def prepare(world: World, request: Incoming) -> Prepared | Wire:
    """The response to a request, or the error that stands in its place."""
    if wrong := check(request, "model", "input"):
        return refusal("openai", "invalid", wrong, Ids(random.Random(0)))
    before = request.body.get("previous_response_id")
    if before and before not in world.stored:
        detail = f"Previous response with id '{before}' not found."
        missing = Facts(detail=detail, param="previous_response_id")
        return refusal("openai", "invalid", missing, Ids(random.Random(0)))
    ask = ask_of(world, request)
    reply, ids, refused = consider(world, request, ask)
    return refused or Prepared(world, request, ask, reply, ids)


def create(world: World, request: Incoming) -> Wire:
    made = prepare(world, request)
    if isinstance(made, Wire):
        return made
    ids, reply = made.ids, made.reply
    spent = made.final["usage"]["output_tokens"]
    wire = Wire(200, headers(ids), tokens=spent, wait=reply.wait, fault=reply.fault)
    if request.body.get("stream"):
        facts = Facts(made.final["model"])
        wire.frames = frames(made.events)
        wire.broken = lambda sequence: error_event("openai.responses", "503", facts, ids, sequence)
        return wire
    wire.headers.insert(0, ("content-type", "application/json"))
    if made.base["background"]:
        wire.body, wire.tokens = dump({**made.base, "status": "queued"}), 0
    else:
        wire.body = dump(made.final)
    return wire
