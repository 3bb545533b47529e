"""The fake Messages API: answers, streams with pings and thinking, prompt caching, count_tokens."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.testing.fake_errors import Facts, consider, error_event, refusal
from gateway.testing.fake_openai_chat import arguments
from gateway.testing.fake_script import Ask, Reply, Turn, transcript
from gateway.testing.fake_tokens import count, tokens
from gateway.testing.fake_world import Frame, Headers, Ids, Incoming, Wire, World, dump, sse, text_of


def headers(ids: Ids) -> Headers:
    limits: Headers = []
    for name, limit in (("requests", 4000), ("tokens", 2_000_000), ("input-tokens", 2_000_000)):
        left = limit - ids.rng.randint(0, limit // 100)
        limits.append((f"anthropic-ratelimit-{name}-limit", str(limit)))
        limits.append((f"anthropic-ratelimit-{name}-remaining", str(left)))
        limits.append((f"anthropic-ratelimit-{name}-reset", "2026-01-01T00:00:00Z"))
    organization = ("anthropic-organization-id", "00000000-0000-4000-8000-000000000000")
    return [*limits, ("request-id", ids.anthropic("req_")), organization]


def turns_of(messages: Any) -> list[Turn]:
    turns = []
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content")
        blocks = content if isinstance(content, list) else []
        turn = Turn(str(message.get("role")), text_of(content))
        turn.calls = sum(block.get("type") == "tool_use" for block in blocks)
        results = [block for block in blocks if block.get("type") == "tool_result"]
        turn.results = tuple(text_of(block.get("content")) for block in results)
        turn.errors = sum(bool(block.get("is_error")) for block in results)
        turns.append(turn)
    return turns


def ask_of(request: Incoming) -> Ask:
    body = request.body
    choice = body.get("tool_choice") or {}
    kind = str(choice.get("type", "auto"))
    kind = {"any": "required", "tool": str(choice.get("name"))}.get(kind, kind)
    output = body.get("output_config") or {}
    format_ = output.get("format") or body.get("output_format") or {}
    parts = [("system", text_of(body.get("system")))]
    parts += [(str(m.get("role")), _message_text(m.get("content"))) for m in body.get("messages") or ()]
    return Ask(
        dialect="anthropic",
        model=str(body.get("model", "")),
        turns=turns_of(body.get("messages")),
        prompt=dump(body.get("tools") or "").decode() + transcript(parts),
        tools={str(t.get("name")): t["input_schema"] for t in body.get("tools") or () if "input_schema" in t},
        tool_choice=kind,
        schema=format_.get("schema"),
        max_tokens=body.get("max_tokens"),
        thinking=(body.get("thinking") or {}).get("type") in {"enabled", "adaptive"},
        stream=bool(body.get("stream")),
        headers=request.headers,
    )


def _message_text(content: Any) -> str:
    if not isinstance(content, list):
        return text_of(content)
    return "".join(_block_text(block) for block in content)


def _block_text(block: Mapping[str, Any]) -> str:
    if block.get("type") == "tool_use":
        return f"{block.get('name')}{dump(block.get('input')).decode()}"
    return text_of(block.get("content")) if block.get("type") == "tool_result" else text_of([block])


def _blocks(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The prompt in the order of caching (tools, system, messages) as (text, ttl of its mark or "")."""
    for tool in body.get("tools") or ():
        yield dump({k: v for k, v in tool.items() if k != "cache_control"}).decode(), _ttl(tool)
    system = body.get("system") or []
    for block in [{"text": system}] if isinstance(system, str) else system:
        yield text_of([block]), _ttl(block)
    for message in body.get("messages") or ():
        content = message.get("content")
        for block in [{"text": content}] if isinstance(content, str) else content or ():
            yield f"<{message.get('role')}>{_block_text(block)}\n", _ttl(block)


def _ttl(block: Mapping[str, Any]) -> str:
    control = block.get("cache_control")
    return str(control.get("ttl", "5m")) if isinstance(control, Mapping) else ""


def usage(world: World, ask: Ask, reply: Reply, body: Mapping[str, Any]) -> dict[str, Any]:
    read, written = world.breakpoints.match(ask.model, list(_blocks(body)))
    total = max(count(ask.prompt) + 7, read + sum(written.values()) + 1)
    output = count(reply.text) + count(reply.thinking)
    output += sum(count(arguments(c)) + count(c.name) + 12 for c in reply.calls)
    return {
        "input_tokens": total - read - sum(written.values()),
        "cache_creation_input_tokens": sum(written.values()),
        "cache_read_input_tokens": read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": written.get("5m", 0),
            "ephemeral_1h_input_tokens": written.get("1h", 0),
        },
        "output_tokens": max(1, output),
        "service_tier": "standard",
        "inference_geo": "not_available",
    }


def _wrong(request: Incoming, *required: str) -> str:
    if not isinstance(request.body, dict):
        return "The request body is not valid JSON"
    if "anthropic-version" not in request.headers:
        return "anthropic-version: header is required"
    missing = next((name for name in required if request.body.get(name) in (None, "")), None)
    if missing:
        return f"{missing}: Field required"
    return "" if request.body["messages"] else "messages: at least one message is required"


def messages(world: World, request: Incoming) -> Wire:
    if wrong := _wrong(request, "model", "messages", "max_tokens"):
        return refusal("anthropic", "invalid", Facts(detail=wrong), Ids(random.Random(wrong)))
    ask = ask_of(request)
    reply, ids, refused = consider(world, request, ask)
    if refused:
        return refused
    for call in reply.calls:
        call.id = call.id or ids.anthropic("toolu_")
    spent = usage(world, ask, reply, request.body)
    message: dict[str, Any] = {
        "model": ask.model,
        "id": ids.anthropic("msg_"),
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }
    wire = Wire(200, headers(ids), tokens=spent["output_tokens"], wait=reply.wait, fault=reply.fault)
    if ask.stream:
        wire.frames = list(_frames(message, reply, spent, ids))
        wire.broken = lambda _sequence: error_event("anthropic", "529", Facts(ask.model), ids)
    else:
        content = [*_content(reply, ids)]
        wire.body = dump({**message, "content": content, "stop_reason": _stop(reply), "usage": spent})
        wire.headers.insert(0, ("content-type", "application/json"))
    return wire


def _stop(reply: Reply) -> str:
    return {"tool": "tool_use", "length": "max_tokens"}.get(reply.stop, "end_turn")


def _signature(reply: Reply, ids: Ids) -> str:
    return base64.b64encode(ids.letters(120 + len(reply.thinking) // 4).encode()).decode()


def _content(reply: Reply, ids: Ids) -> Iterator[dict[str, Any]]:
    if reply.thinking:
        yield {"type": "thinking", "thinking": reply.thinking, "signature": _signature(reply, ids)}
    if reply.text:
        yield {"type": "text", "text": reply.text}
    for call in reply.calls:
        yield {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}


def _event(name: str, ids: Ids, weight: int = 0, **fields: Any) -> Frame:
    # The real API pads its events with spaces; a relay must not care, and must not drop them.
    data = dump({"type": name, **fields})
    return Frame(sse(name, data[:-1] + b" " * ids.rng.randint(0, 15) + b"}"), weight)


def _frames(message: dict[str, Any], reply: Reply, spent: dict[str, Any], ids: Ids) -> Iterator[Frame]:
    begun = {**message, "usage": {**spent, "output_tokens": 1}}
    yield _event("message_start", ids, message=begun)
    pinged = False
    for index, (opening, deltas) in enumerate(_stream_blocks(reply, ids)):
        yield _event("content_block_start", ids, index=index, content_block=opening)
        for number, delta in enumerate(deltas):
            yield _event(
                "content_block_delta", ids, 0 if delta["type"] == "signature_delta" else 1, index=index, delta=delta
            )
            if number == 1 and not pinged:
                pinged = True
                yield Frame(b'event: ping\ndata: {"type": "ping"}\n\n')
        yield _event("content_block_stop", ids, index=index)
    final = {k: v for k, v in spent.items() if k.endswith("_tokens")}
    yield _event("message_delta", ids, delta={"stop_reason": _stop(reply), "stop_sequence": None}, usage=final)
    yield _event("message_stop", ids)


def _stream_blocks(reply: Reply, ids: Ids) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each content block as its opening and its deltas."""
    if reply.thinking:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in tokens(reply.thinking)]
        deltas.append({"type": "signature_delta", "signature": _signature(reply, ids)})
        yield {"type": "thinking", "thinking": "", "signature": ""}, deltas
    if reply.text:
        yield {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in tokens(reply.text)]
    for call in reply.calls:
        pieces = ["", *tokens(arguments(call))]
        opening = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        yield opening, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]


def count_tokens(_world: World, request: Incoming) -> Wire:
    ids = Ids(random.Random(repr(request.body)))
    if wrong := _wrong(request, "model", "messages"):
        return refusal("anthropic", "invalid", Facts(detail=wrong), ids)
    body = dump({"input_tokens": count(ask_of(request).prompt) + 7})
    return Wire(200, [("content-type", "application/json"), ("request-id", ids.anthropic("req_"))], body)
