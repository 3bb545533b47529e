"""The fake Gemini API: generateContent, streamGenerateContent (SSE and array), embeddings, countTokens."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.testing.fake_errors import Facts, consider, error_event, refusal
from gateway.testing.fake_openai_chat import arguments, vector
from gateway.testing.fake_script import Ask, Reply, Turn, transcript
from gateway.testing.fake_tokens import count, tokens
from gateway.testing.fake_world import Frame, Headers, Ids, Incoming, Wire, World, dump, pretty, sse, text_of

_HEADERS: Headers = [
    ("vary", "Origin"),
    ("vary", "X-Origin"),
    ("vary", "Referer"),
    ("x-xss-protection", "0"),
    ("x-frame-options", "SAMEORIGIN"),
    ("x-content-type-options", "nosniff"),
    ("x-gemini-service-tier", "standard"),
]
_JSON: Headers = [("content-type", "application/json; charset=UTF-8"), *_HEADERS]


def _get(mapping: Any, *names: str) -> Any:
    """The first of the names that is there: the API takes camelCase and snake_case."""
    found = (mapping[name] for name in names if isinstance(mapping, Mapping) and name in mapping)
    return next(found, None)


def turns_of(contents: Any) -> list[Turn]:
    turns = []
    for content in contents if isinstance(contents, list) else [contents]:
        if isinstance(content, str):
            turns.append(Turn("user", content))
            continue
        parts = _get(content, "parts") or []
        turn = Turn("assistant" if content.get("role") == "model" else "user", text_of(parts))
        turn.calls = sum(_get(p, "functionCall", "function_call") is not None for p in parts)
        answers = [a for p in parts if (a := _get(p, "functionResponse", "function_response")) is not None]
        turn.results = tuple(dump(answer.get("response")).decode() for answer in answers)
        turns.append(turn)
    return turns


def ask_of(request: Incoming, model: str) -> Ask:
    body = request.body
    config = _get(body, "generationConfig", "generation_config") or {}
    declared = [
        function
        for tool in body.get("tools") or ()
        for function in _get(tool, "functionDeclarations", "function_declarations") or ()
    ]
    calling = _get(_get(body, "toolConfig", "tool_config"), "functionCallingConfig", "function_calling_config")
    mode = str(_get(calling, "mode") or "AUTO")
    system = _get(body, "systemInstruction", "system_instruction")
    parts = [("system", text_of(_get(system, "parts")))]
    parts += [(turn.role, turn.text + "".join(turn.results)) for turn in turns_of(body.get("contents"))]
    json_wanted = _get(config, "responseMimeType", "response_mime_type") == "application/json"
    schema = _get(config, "responseJsonSchema", "response_json_schema", "responseSchema", "response_schema")
    return Ask(
        dialect="gemini",
        model=model,
        turns=turns_of(body.get("contents")),
        prompt=dump(body.get("tools") or "").decode() + transcript(parts),
        tools={str(f["name"]): _get(f, "parametersJsonSchema", "parameters") or {} for f in declared},
        tool_choice={"ANY": "required", "NONE": "none"}.get(mode.upper(), "auto"),
        schema=schema or ({"type": "object"} if json_wanted else None),
        max_tokens=_get(config, "maxOutputTokens", "max_output_tokens"),
        thinking=bool(_get(_get(config, "thinkingConfig", "thinking_config"), "includeThoughts", "include_thoughts")),
        headers=request.headers,
    )


def _usage(world: World, ask: Ask, reply: Reply) -> dict[str, Any]:
    prompt = count(ask.prompt)
    output = count(reply.text) + sum(count(arguments(c)) + count(c.name) + 2 for c in reply.calls)
    thoughts = count(reply.thinking)
    spent: dict[str, Any] = {"promptTokenCount": prompt, "candidatesTokenCount": output}
    spent["totalTokenCount"] = prompt + output + thoughts
    if cached := min(prompt, world.prefixes.match(ask.model, ask.prompt)):
        spent["cachedContentTokenCount"] = cached
    spent["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": prompt}]
    if thoughts:
        spent["thoughtsTokenCount"] = thoughts
    return spent


def generate(world: World, request: Incoming, model: str, *, stream: bool) -> Wire:
    if not isinstance(request.body, dict) or not request.body.get("contents"):
        detail = "* GenerateContentRequest.contents: contents is not specified\n"
        return refusal("gemini", "invalid", Facts(detail=detail), Ids(random.Random(0)))
    ask = ask_of(request, model)
    reply, ids, refused = consider(world, request, ask)
    as_sse = request.query.get("alt") == "sse"
    if refused:
        if stream and not as_sse:
            refused.body = b"[" + refused.body.rstrip() + b"\n]\n"
        return refused
    spent = _usage(world, ask, reply)
    tail = {"modelVersion": model, "responseId": ids.letters(22)}
    wire = Wire(200, list(_HEADERS), tokens=spent["candidatesTokenCount"], wait=reply.wait, fault=reply.fault)
    if not stream:
        wire.headers = list(_JSON)
        wire.body = pretty({"candidates": [_candidate([*_parts(reply)], reply)], "usageMetadata": spent, **tail})
        return wire
    chunks = list(_chunks(reply, spent, tail))
    if as_sse:
        wire.frames = [Frame(sse(None, dump(chunk), b"\r\n"), weight) for chunk, weight in chunks]
        wire.broken = lambda _sequence: error_event("gemini", "503", Facts(model), ids)
    else:
        wire.headers = list(_JSON)
        opened = [b"[" if number == 0 else b",\r\n" for number in range(len(chunks))]
        texts = [mark + pretty(chunk).rstrip() for mark, (chunk, _) in zip(opened, chunks, strict=True)]
        wire.frames = [*(Frame(text, weight) for text, (_, weight) in zip(texts, chunks, strict=True)), Frame(b"]\r\n")]
    return wire


def _candidate(parts: list[dict[str, Any]], reply: Reply | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if reply is not None:
        candidate["finishReason"] = {"length": "MAX_TOKENS"}.get(reply.stop, "STOP")
    return candidate


def _parts(reply: Reply) -> Iterator[dict[str, Any]]:
    if reply.thinking:
        yield {"text": reply.thinking, "thought": True}
    if reply.text or not reply.calls:
        yield {"text": reply.text}
    for call in reply.calls:
        yield {"functionCall": {"name": call.name, "args": call.arguments, **({"id": call.id} if call.id else {})}}


def _chunks(reply: Reply, spent: dict[str, Any], tail: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
    """Bigger pieces than elsewhere, each with the usage so far."""
    parts: list[tuple[dict[str, Any], int]] = []
    for text, mark in ((reply.thinking, {"thought": True}), (reply.text, {})):
        pieces = tokens(text)
        for start in range(0, len(pieces), 12):
            group = pieces[start : start + 12]
            parts.append(({"text": "".join(group), **mark}, len(group)))
    parts += [(part, 8) for part in _parts(Reply(calls=reply.calls)) if "functionCall" in part]
    seen = 0
    for number, (part, weight) in enumerate(parts or [({"text": ""}, 0)]):
        last = number >= len(parts) - 1
        seen += weight
        early = {"promptTokenCount": spent["promptTokenCount"], "totalTokenCount": spent["promptTokenCount"] + seen}
        candidate = _candidate([part], reply if last else None)
        yield {"candidates": [candidate], "usageMetadata": spent if last else early, **tail}, weight


def count_tokens(_world: World, request: Incoming, model: str) -> Wire:
    if model.startswith("no-such"):
        return refusal("gemini", "model", Facts(model), Ids(random.Random(0)))
    inner = _get(request.body, "generateContentRequest") or request.body
    total = count(ask_of(Incoming("POST", "", {}, {}, inner), model).prompt)
    details = [{"modality": "TEXT", "tokenCount": total}]
    return Wire(200, list(_JSON), pretty({"totalTokens": total, "promptTokensDetails": details}))


def embed(world: World, request: Incoming, model: str, *, batch: bool) -> Wire:
    requests = request.body.get("requests", []) if batch else [request.body]
    texts = [text_of(_get(_get(one, "content"), "parts")) for one in requests]
    ask = Ask("gemini", model, [Turn("user", "".join(texts))], "".join(texts), headers=request.headers)
    reply, _, refused = consider(world, request, ask)
    if refused:
        return refused
    size = int(_get(requests[0], "outputDimensionality", "output_dimensionality") or 3072) if requests else 0
    values = [{"values": vector(f"{world.seed}/{text}", size)} for text in texts]
    answer = {"embeddings": values} if batch else {"embedding": values[0]}
    return Wire(200, list(_JSON), pretty(answer), wait=reply.wait, fault=reply.fault)
