"""The fake's WebSockets: /v1/responses and a minimal /v1/realtime (text and function calls)."""

from __future__ import annotations

import random
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from typing import Any

import msgspec
from aiohttp import WSMessage, WSMsgType

from gateway.testing.fake_errors import consider
from gateway.testing.fake_openai_responses import ask_of, output_items, prepare, usage
from gateway.testing.fake_tokens import tokens
from gateway.testing.fake_world import Ids, Incoming, Wire, World, text_of

Say = Callable[[Any], Awaitable[None]]


def _error(body: bytes, status: int) -> dict[str, Any]:
    return {"type": "error", "status": status, **msgspec.json.decode(body)}


def _parsed(text: str) -> dict[str, Any]:
    message = msgspec.json.decode(text)
    if not isinstance(message, dict):
        raise msgspec.ValidationError("not an object")
    return message


async def responses(world: World, request: Incoming, socket: AsyncIterable[WSMessage], say: Say) -> None:
    """One `response.create` message in, the events of a stream out, each as one message."""
    async for message in socket:
        if message.type != WSMsgType.TEXT:
            continue
        body = _parsed(message.data)
        if body.pop("type", "") != "response.create":
            await say({"type": "error", "status": 400, "error": {"type": "invalid_request_error", "code": None}})
            continue
        warm_up = body.pop("generate", True) is False
        made = prepare(world, Incoming("POST", request.path, {}, request.headers, {**body, "stream": True}))
        if isinstance(made, Wire):
            await say(_error(made.body, made.status))
            continue
        events = [made.events[0], made.events[-1]] if warm_up else made.events
        for _, event in events:
            await say(event)


class Realtime:
    """One session: a conversation of items, and responses to it."""

    def __init__(self, world: World, request: Incoming) -> None:
        self._world, self._request = world, request
        self._model = request.query.get("model", "gpt-realtime")
        self._ids = Ids(random.Random(f"{world.seed}/{self._model}"))
        self._items: list[dict[str, Any]] = []
        self._session: dict[str, Any] = {
            "type": "realtime",
            "object": "realtime.session",
            "id": "sess_" + self._ids.letters(21),
            "model": self._model,
            "output_modalities": ["text"],
            "instructions": "",
            "tools": [],
            "tool_choice": "auto",
        }

    async def run(self, socket: AsyncIterable[WSMessage], say: Say) -> None:
        await say(self._stamped({"type": "session.created", "session": self._session}))
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                for event in self._answers(_parsed(message.data)):
                    await say(event)

    def _stamped(self, event: dict[str, Any]) -> dict[str, Any]:
        return {"type": event["type"], "event_id": "event_" + self._ids.letters(21), **event}

    def _answers(self, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        kind = message.get("type")
        if kind == "session.update":
            self._session |= message.get("session") or {}
            yield self._stamped({"type": "session.updated", "session": self._session})
        elif kind == "conversation.item.create":
            item = {"id": "item_" + self._ids.letters(21), "object": "realtime.item", **message.get("item", {})}
            self._items.append(item)
            for name in ("added", "done"):
                yield self._stamped({"type": f"conversation.item.{name}", "item": item})
        elif kind == "response.create":
            yield from self._respond(message.get("response") or {})
        else:
            error = {"type": "invalid_request_error", "code": "invalid_value", "message": f"Invalid value: {kind!r}."}
            yield self._stamped({"type": "error", "error": {**error, "param": "type", "event_id": None}})

    def _respond(self, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
        settings = {**self._session, **options}
        body = {"model": self._model, "input": self._items, **{k: settings[k] for k in ("tools", "tool_choice")}}
        incoming = Incoming("POST", "/v1/realtime", {}, self._request.headers, body)
        ask = ask_of(self._world, incoming)
        reply, ids, refused = consider(self._world, incoming, ask)
        if refused:
            error = {**msgspec.json.decode(refused.body)["error"], "event_id": None}
            yield self._stamped({"type": "error", "error": error})
            return
        items = output_items(reply, body, ids)
        response: dict[str, Any] = {
            "object": "realtime.response",
            "id": "resp_" + ids.letters(21),
            "status": "in_progress",
        }
        yield self._stamped({"type": "response.created", "response": {**response, "output": [], "usage": None}})
        for index, item in enumerate(items):
            yield from map(self._stamped, _item_events(item, response["id"], index))
        self._items += items
        spent = self._usage(usage(self._world, ask, reply))
        done = {**response, "status": "completed", "output": items, "usage": spent}
        yield self._stamped({"type": "response.done", "response": done})

    def _usage(self, spent: dict[str, Any]) -> dict[str, Any]:
        cached = spent["input_tokens_details"]["cached_tokens"]
        return {
            "total_tokens": spent["total_tokens"],
            "input_tokens": spent["input_tokens"],
            "output_tokens": spent["output_tokens"],
            "input_token_details": {"text_tokens": spent["input_tokens"], "audio_tokens": 0, "cached_tokens": cached},
            "output_token_details": {"text_tokens": spent["output_tokens"], "audio_tokens": 0},
        }


def _item_events(item: dict[str, Any], response_id: str, index: int) -> Iterator[dict[str, Any]]:
    where = {"response_id": response_id, "output_index": index}
    yield {"type": "response.output_item.added", **where, "item": {**item, "status": "in_progress"}}
    inner = {**where, "item_id": item["id"]}
    if "arguments" in item:
        for piece in tokens(item["arguments"]):
            yield {
                "type": "response.function_call_arguments.delta",
                **inner,
                "call_id": item["call_id"],
                "delta": piece,
            }
        done = {"call_id": item["call_id"], "name": item["name"], "arguments": item["arguments"]}
        yield {"type": "response.function_call_arguments.done", **inner, **done}
    else:
        inner |= {"content_index": 0}
        text = text_of(item.get("content"))
        for piece in tokens(text):
            yield {"type": "response.output_text.delta", **inner, "delta": piece}
        yield {"type": "response.output_text.done", **inner, "text": text}
    yield {"type": "response.output_item.done", **where, "item": item}
