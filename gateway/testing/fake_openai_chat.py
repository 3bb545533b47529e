"""The fake Chat Completions API, legacy completions, embeddings, moderations and model lists."""

from __future__ import annotations

import base64
import random
import struct
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from gateway.testing.fake_errors import Facts, consider, error_event, refusal
from gateway.testing.fake_script import Ask, Reply, ToolAnswer, Turn, transcript
from gateway.testing.fake_tokens import count, tokens
from gateway.testing.fake_world import Frame, Headers, Ids, Incoming, Wire, World, dump, sse, text_of

FINGERPRINT = "fp_29330a9688"


def headers(ids: Ids, model: str = "") -> Headers:
    named = [("openai-model", model)] if model else []
    return [
        *named,
        ("openai-organization", "org-fake"),
        ("openai-processing-ms", str(ids.rng.randint(40, 900))),
        ("openai-version", "2020-10-01"),
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-limit-tokens", "2000000"),
        ("x-ratelimit-remaining-requests", str(9999 - ids.rng.randint(0, 90))),
        ("x-ratelimit-remaining-tokens", str(1999999 - ids.rng.randint(0, 9000))),
        ("x-ratelimit-reset-requests", "6ms"),
        ("x-ratelimit-reset-tokens", "0s"),
        ("x-request-id", "req_" + ids.hex(32)),
    ]


def turns_of(messages: Any) -> list[Turn]:
    turns: list[Turn] = []
    for message in messages if isinstance(messages, list) else ():
        role, text = message.get("role"), text_of(message.get("content"))
        if role == "assistant":
            turns.append(Turn("assistant", text, len(message.get("tool_calls") or ())))
        elif role == "tool":
            if not (turns and turns[-1].results):
                turns.append(Turn("user"))
            turns[-1].results += (text,)
        elif role == "user":
            turns.append(Turn("user", text))
    return turns


def ask_of(request: Incoming) -> Ask:
    body = request.body
    messages = body.get("messages") or []
    functions = [t.get(t.get("type", "function"), {}) for t in body.get("tools") or ()]
    choice = body.get("tool_choice", "auto")
    format_ = body.get("response_format") or {}
    schema = (format_.get("json_schema") or {}).get("schema")
    parts = [(str(m.get("role")), text_of(m.get("content")) + _calls_text(m)) for m in messages]
    return Ask(
        dialect="openai",
        model=str(body.get("model", "")),
        turns=turns_of(messages),
        prompt=dump(body.get("tools") or "").decode() + transcript(parts),
        tools={str(f.get("name")): f.get("parameters", {}) for f in functions},
        tool_choice=choice if isinstance(choice, str) else str((choice.get("function") or {}).get("name", "required")),
        schema={"type": "object"} if schema is None and format_.get("type") == "json_object" else schema,
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        thinking=body.get("reasoning_effort") not in {None, "none", "minimal"},
        stream=bool(body.get("stream")),
        headers=request.headers,
    )


def _calls_text(message: Mapping[str, Any]) -> str:
    calls = message.get("tool_calls")
    return dump(calls).decode() if calls else ""


def usage(world: World, ask: Ask, reply: Reply, choices: int) -> dict[str, Any]:
    prompt = count(ask.prompt) + 3
    reasoning = count(reply.thinking)
    output = count(reply.text) + reasoning + sum(count(arguments(c)) + count(c.name) + 4 for c in reply.calls)
    cached = world.prefixes.match(ask.model, ask.prompt)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output * choices,
        "total_tokens": prompt + output * choices,
        "prompt_tokens_details": {"cached_tokens": min(cached, prompt), "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning * choices,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def arguments(call: ToolAnswer) -> str:
    return call.arguments if isinstance(call.arguments, str) else dump(call.arguments).decode()


def finish(reply: Reply) -> str:
    return {"tool": "tool_calls"}.get(reply.stop, reply.stop)


def check(request: Incoming, *required: str) -> Facts | None:
    """What is wrong with the body, if anything."""
    if not isinstance(request.body, dict):
        return Facts(detail="We could not parse the JSON body of your request.")
    for name in required:
        if request.body.get(name) in (None, "", []):
            return Facts(detail=f"Missing required parameter: '{name}'.", param=name)
    return None


def chat(world: World, request: Incoming) -> Wire:
    if wrong := check(request, "model", "messages"):
        return refusal("openai", "invalid", wrong, Ids(random.Random(0)))
    ask = ask_of(request)
    reply, ids, refused = consider(world, request, ask)
    if refused:
        return refused
    for call in reply.calls:
        call.id = call.id or ids.openai("call_")
    body, choices = request.body, int(request.body.get("n") or 1)
    shared = {
        "id": ids.openai("chatcmpl-"),
        "object": "chat.completion",
        "created": int(world.clock()),
        "model": ask.model,
        "service_tier": _tier(body),
        "system_fingerprint": FINGERPRINT,
    }
    spent = usage(world, ask, reply, choices)
    wire = Wire(200, headers(ids, ask.model), tokens=spent["completion_tokens"], wait=reply.wait, fault=reply.fault)
    if ask.stream:
        wire.frames = list(_frames(shared, reply, spent, body, ids))
        wire.broken = lambda sequence: error_event("openai", "503", Facts(ask.model), ids, sequence)
    else:
        entries = [_choice(index, reply) for index in range(choices)]
        wire.body = dump({**shared, "choices": entries, "usage": spent})
        wire.headers.insert(0, ("content-type", "application/json"))
    return wire


def _tier(body: Mapping[str, Any]) -> str:
    asked = body.get("service_tier")
    return asked if asked in {"flex", "priority"} else "default"


def _choice(index: int, reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None, "annotations": []}
    if reply.calls:
        message["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": arguments(c)}}
            for c in reply.calls
        ]
    elif not reply.text:
        message["content"] = ""
    return {"index": index, "message": message, "logprobs": None, "finish_reason": finish(reply)}


def _frames(
    shared: dict[str, Any], reply: Reply, spent: dict[str, Any], body: Mapping[str, Any], ids: Ids
) -> Iterator[Frame]:
    options = body.get("stream_options") or {}
    with_usage = bool(options.get("include_usage"))
    veiled = options.get("include_obfuscation", True)
    shared = {**shared, "object": "chat.completion.chunk"}

    def chunk(index: int, delta: dict[str, Any], weight: int, reason: str | None = None) -> Frame:
        entry = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        data = {**shared, "choices": [entry], **({"usage": None} if with_usage else {})}
        if veiled:
            data["obfuscation"] = ids.letters(ids.rng.randint(1, 16))
        return Frame(sse(None, dump(data)), weight)

    for index in range(int(body.get("n") or 1)):
        chunked = partial(chunk, index)
        first: dict[str, Any] = {"role": "assistant", "content": "" if reply.text else None, "refusal": None}
        yield chunked(first, count(reply.thinking))
        for piece in tokens(reply.text):
            yield chunked({"content": piece}, 1)
        for position, call in enumerate(reply.calls):
            opening = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
            yield chunked({"tool_calls": [{"index": position, **opening}]}, 4)
            for piece in tokens(arguments(call)):
                yield chunked({"tool_calls": [{"index": position, "function": {"arguments": piece}}]}, 1)
        yield chunked({}, 0, finish(reply))
    if with_usage:
        last = {**shared, "choices": [], "usage": spent}
        yield Frame(sse(None, dump({**last, "obfuscation": ids.letters(8)} if veiled else last)))
    yield Frame(b"data: [DONE]\n\n")


def completions(world: World, request: Incoming) -> Wire:
    """The legacy text completion API."""
    if wrong := check(request, "model", "prompt"):
        return refusal("openai", "invalid", wrong, Ids(random.Random(0)))
    body = request.body
    prompt = text_of(body["prompt"])
    ask = Ask("openai", str(body["model"]), [Turn("user", prompt)], prompt, max_tokens=body.get("max_tokens") or 16)
    ask.headers, ask.stream = request.headers, bool(body.get("stream"))
    reply, ids, refused = consider(world, request, ask)
    if refused:
        return refused
    used = {"prompt_tokens": count(prompt), "completion_tokens": count(reply.text)}
    used["total_tokens"] = sum(used.values())
    shared = {"id": ids.openai("cmpl-"), "object": "text_completion", "created": int(world.clock()), "model": ask.model}
    wire = Wire(200, headers(ids, ask.model), tokens=used["completion_tokens"], wait=reply.wait, fault=reply.fault)
    if not ask.stream:
        choice = {"text": reply.text, "index": 0, "logprobs": None, "finish_reason": finish(reply)}
        wire.body = dump({**shared, "choices": [choice], "usage": used})
        wire.headers.insert(0, ("content-type", "application/json"))
        return wire
    with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    null = {"usage": None} if with_usage else {}
    steps = [(piece, None) for piece in tokens(reply.text)] + [("", finish(reply))]
    frames = []
    for piece, reason in steps:
        choice = {"text": piece, "index": 0, "logprobs": None, "finish_reason": reason}
        frames.append(Frame(sse(None, dump({**shared, "choices": [choice], **null})), 1))
    if with_usage:
        frames.append(Frame(sse(None, dump({**shared, "choices": [], "usage": used}))))
    wire.frames = [*frames, Frame(b"data: [DONE]\n\n")]
    wire.broken = lambda sequence: error_event("openai", "503", Facts(ask.model), ids, sequence)
    return wire


def vector(seed: str, size: int) -> list[float]:
    """A unit vector that depends on nothing but the text."""
    rng = random.Random(seed)
    raw = [rng.gauss(0, 1) for _ in range(size)]
    norm = sum(x * x for x in raw) ** 0.5
    return [struct.unpack("<f", struct.pack("<f", x / norm))[0] for x in raw]


def embeddings(world: World, request: Incoming) -> Wire:
    if wrong := check(request, "model", "input"):
        return refusal("openai", "invalid", wrong, Ids(random.Random(0)))
    body = request.body
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    if inputs and isinstance(inputs[0], int):
        inputs = [inputs]
    texts = [text if isinstance(text, str) else " ".join(map(str, text)) for text in inputs]
    ask = Ask("openai", str(body["model"]), [Turn("user", "".join(texts))], "".join(texts), headers=request.headers)
    reply, ids, refused = consider(world, request, ask)
    if refused:
        return refused
    size = int(body.get("dimensions") or (3072 if "large" in ask.model else 1536))
    packed = body.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(texts):
        values = vector(f"{world.seed}/{text}", size)
        coded = base64.b64encode(struct.pack(f"<{size}f", *values)).decode() if packed else values
        data.append({"object": "embedding", "index": index, "embedding": coded})
    spent = sum(count(text) if isinstance(raw, str) else len(raw) for text, raw in zip(texts, inputs, strict=True))
    answer = {"object": "list", "data": data, "model": ask.model}
    wire = Wire(200, [("content-type", "application/json"), *headers(ids, ask.model)], wait=reply.wait)
    wire.body = dump({**answer, "usage": {"prompt_tokens": spent, "total_tokens": spent}})
    wire.fault = reply.fault
    return wire


def moderations(_world: World, request: Incoming) -> Wire:
    if wrong := check(request, "input"):
        return refusal("openai", "invalid", wrong, Ids(random.Random(0)))
    ids = Ids(random.Random(text_of(request.body["input"])))
    names = ("harassment", "hate", "illicit", "self-harm", "sexual", "violence")
    result = {"flagged": False, "categories": dict.fromkeys(names, False), "category_scores": dict.fromkeys(names, 0.0)}
    body = {
        "id": ids.openai("modr-"),
        "model": request.body.get("model", "omni-moderation-latest"),
        "results": [result],
    }
    return Wire(200, [("content-type", "application/json"), *headers(ids)], dump(body))
