"""A whole answer in the other of its two shapes: JSON as the stream that the API would have sent, and the reverse.

Each function is given a body that came whole (see policy.cache_rules) and gives what the API's own clients put together
to the same answer: text, tool calls, reasoning, finish reasons, usage; members that are not known here are kept where
they stand. None where the body is not what it should be: then there is no stored answer in that shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from gateway.dialects.finish import chat, event
from gateway.dialects.shape import DECODE_FAULTS
from gateway.dialects.sse import Splitter

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode
_FAULTS = (*DECODE_FAULTS, KeyError, TypeError, AttributeError, ValueError, IndexError)
_JOINED = frozenset(("content", "refusal", "reasoning_content", "reasoning", "arguments", "input", "text", "summary"))
_SET_ONCE = frozenset(("id", "name", "type", "role", "format"))
_STREAMED = frozenset(("choices", "obfuscation"))  # of a chunk: not said of the answer as a whole
_TOLD = frozenset(("type", "delta", "usage"))  # the rest of a `message_delta` is told of the message
_WRITTEN = {
    "function_call": ("response.function_call_arguments", "arguments"),
    "custom_tool_call": ("response.custom_tool_call_input", "input"),
}
"""Items of the Responses API that the model writes: their events, and what of them comes in pieces."""
PIECE = 64  # characters of an event of text

T = TypeVar("T")


def attempted(make: Callable[[], T]) -> T | None:
    """None for a body of another form than the API's."""
    try:
        return make()
    except _FAULTS:
        return None


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The JSON of every event. Raises msgspec.DecodeError."""
    splitter = Splitter()
    found = [*splitter.feed(body), *splitter.end()]
    return [_decode(data) for _, data in found if data and data != b"[DONE]"]


def pieces(text: str) -> Iterable[str]:
    return (text[at : at + PIECE] for at in range(0, len(text), PIECE))


# --- OpenAI chat and legacy completions ------------------------------------------------------------------------------


def chat_stream(body: bytes, *, legacy: bool, usage: bool) -> bytes:
    """`usage`: the client asked for it. Raises what `attempted` knows."""
    answer = _decode(body)
    head = {name: value for name, value in answer.items() if name not in ("choices", "usage")}
    if not legacy:
        head["object"] = "chat.completion.chunk"
    more: dict[str, Any] = {"usage": None} if usage else {}
    out: list[bytes] = []
    for choice in answer["choices"]:
        outside = {name: value for name, value in choice.items() if name not in ("message", "text", "finish_reason")}
        parts: list[dict[str, Any]]
        if legacy:
            parts = [{"text": text} for text in pieces(choice["text"])]
        else:
            parts = [{"delta": delta} for delta in deltas(choice["message"])]
        for at, part in enumerate(parts):
            said = outside if at == 0 else {"index": choice["index"]}
            out.append(event({**head, "choices": [{**said, **part, "finish_reason": None}], **more}, named=False))
        empty: dict[str, Any] = {"text": ""} if legacy else {"delta": {}}
        last = {"index": choice["index"], **empty, "finish_reason": choice["finish_reason"]}
        out.append(event({**head, "choices": [last], **more}, named=False))
    if usage:
        out.append(event({**head, "choices": [], "usage": answer["usage"]}, named=False))
    return b"".join(out) + chat(head, (), None, legacy=legacy)


def deltas(message: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """A message in the pieces of a stream: the role and what is not text first."""
    texts = {name: value for name, value in message.items() if name in _JOINED and isinstance(value, str)}
    calls = message.get("tool_calls") or ()
    first = {name: value for name, value in message.items() if name not in texts and name != "tool_calls"}
    yield {**first, "content": ""} if "content" in texts else first
    for name in ("reasoning_content", "reasoning", "content", "refusal"):
        yield from ({name: piece} for piece in pieces(texts.get(name, "")))
    for index, call in enumerate(calls):
        yield {"tool_calls": [{**call, "index": index}]}


def chat_document(body: bytes, *, legacy: bool) -> bytes:
    """Raises what `attempted` knows."""
    answer: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in events_of(body):
        for name, value in chunk.items():
            if name not in _STREAMED and (value is not None or name not in answer):
                answer[name] = value
        for part in chunk.get("choices") or ():
            choice = choices.setdefault(part["index"], {"index": part["index"], "message": {}, "text": ""})
            _join_choice(choice, part)
    done = [_finished(choices[index], legacy=legacy) for index in sorted(choices)]
    if not done or any(choice["finish_reason"] is None for choice in done):
        raise ValueError("a choice without its end")
    if not legacy:
        answer["object"] = "chat.completion"
    return _encode({**answer, "choices": done})


def _join_choice(choice: dict[str, Any], part: dict[str, Any]) -> None:
    for name, value in part.items():
        if name == "delta":
            _join_message(choice["message"], value or {})
        elif name == "text":
            choice["text"] += value or ""
        elif name == "logprobs" and isinstance(value, dict) and isinstance(choice.get("logprobs"), dict):
            known = choice["logprobs"]
            for kind, items in value.items():
                known[kind] = [*(known.get(kind) or ()), *items] if isinstance(items, list) else items
        elif value is not None or name not in choice:
            choice[name] = value


def _join_message(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            calls = message.setdefault("tool_calls", {})
            for position, call in enumerate(value or ()):
                _join(calls.setdefault(call.get("index", position), {}), call)
        elif name == "function_call" and isinstance(value, dict):
            _join(message.setdefault("function_call", {}), value)
        else:
            _join(message, {name: value})


def _join(known: dict[str, Any], more: dict[str, Any]) -> None:
    """Raises ValueError for a text that comes in pieces of which it is not known how they belong together."""
    for name, value in more.items():
        before = known.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            _join(before, value)
        elif isinstance(value, str) and isinstance(before, str) and name in _JOINED:
            known[name] = before + value
        elif isinstance(value, list) and isinstance(before, list):
            _join_items(before, value)
        elif isinstance(value, str) and before and name not in _SET_ONCE:
            if value:
                raise ValueError(f"an unknown text in pieces: {name}")
        elif value is not None and not (name in _SET_ONCE and before):
            known[name] = dict(value) if isinstance(value, dict) else value
        elif name not in known:
            known[name] = value


def _join_items(known: list[Any], more: list[Any]) -> None:
    """Items that state an index go on with the one that has the same; all others are new."""
    for item in more:
        index = item.get("index") if isinstance(item, dict) else None
        same = [one for one in known if index is not None and isinstance(one, dict) and one.get("index") == index]
        if same:
            _join(same[0], item)
        else:
            known.append(dict(item) if isinstance(item, dict) else item)


def _finished(choice: dict[str, Any], *, legacy: bool) -> dict[str, Any]:
    choice = {"finish_reason": None, **choice}
    message, text = choice.pop("message"), choice.pop("text")
    if legacy:
        return {**choice, "text": text}
    calls = message.pop("tool_calls", None)
    if calls:
        message["tool_calls"] = [
            {name: value for name, value in calls[index].items() if name != "index"} for index in sorted(calls)
        ]
    content = message.pop("content", None)
    whole = {"role": "assistant", "content": None if calls and not content else content, **message}
    return {**choice, "message": whole}


# --- Anthropic -------------------------------------------------------------------------------------------------------


def message_stream(body: bytes) -> bytes:
    """Raises what `attempted` knows."""
    answer = _decode(body)
    usage = answer["usage"]
    begun = {
        **answer,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**usage, "output_tokens": 1},
    }
    out = [event({"type": "message_start", "message": begun})]
    for index, block in enumerate(answer["content"]):
        out += _block_events(index, block)
    ended = {"stop_reason": answer["stop_reason"], "stop_sequence": answer.get("stop_sequence")}
    out.append(event({"type": "message_delta", "delta": ended, "usage": usage}))
    return b"".join((*out, event({"type": "message_stop"})))


def _block_events(index: int, block: dict[str, Any]) -> Iterable[bytes]:
    start, changes = dict(block), []
    if block["type"] == "text":
        start["text"] = ""
        changes = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
        if isinstance(block.get("citations"), list):
            start["citations"] = []
            changes += [{"type": "citations_delta", "citation": citation} for citation in block["citations"]]
    elif block["type"] == "thinking":
        start |= {"thinking": "", "signature": ""}
        changes = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
        changes.append({"type": "signature_delta", "signature": block.get("signature", "")})
    elif "input" in block:
        start["input"] = {}
        changes = [{"type": "input_json_delta", "partial_json": _encode(block["input"]).decode()}]
    yield event({"type": "content_block_start", "index": index, "content_block": start})
    for change in changes:
        yield event({"type": "content_block_delta", "index": index, "delta": change})
    yield event({"type": "content_block_stop", "index": index})


def message_document(body: bytes) -> bytes:
    """Raises what `attempted` knows."""
    message: dict[str, Any] = {}
    blocks: dict[int, dict[str, Any]] = {}
    inputs: dict[int, str] = {}
    for one in events_of(body):
        kind = one.get("type")
        if kind == "message_start":
            message = dict(one["message"])
        elif kind == "content_block_start":
            blocks[one["index"]] = dict(one["content_block"])
        elif kind == "content_block_delta":
            _change(one["index"], one["delta"], blocks, inputs)
        elif kind == "message_delta":
            message |= one["delta"] | {name: value for name, value in one.items() if name not in _TOLD}
            stated = {name: value for name, value in (one.get("usage") or {}).items() if value is not None}
            message["usage"] = {**message["usage"], **stated}
    for index, text in inputs.items():
        blocks[index]["input"] = msgspec.json.decode(text) if text else {}
    if not message.get("stop_reason"):
        raise ValueError("a message without its end")
    return _encode({**message, "content": [blocks[index] for index in sorted(blocks)]})


def _change(index: int, delta: dict[str, Any], blocks: dict[int, dict[str, Any]], inputs: dict[int, str]) -> None:
    block, kind = blocks[index], delta["type"]
    if kind == "text_delta":
        block["text"] += delta["text"]
    elif kind == "thinking_delta":
        block["thinking"] += delta["thinking"]
    elif kind == "signature_delta":
        block["signature"] = delta["signature"]
    elif kind == "citations_delta":
        block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
    elif kind == "input_json_delta":
        inputs[index] = inputs.get(index, "") + delta["partial_json"]
    else:
        raise ValueError(f"an unknown change: {kind}")


# --- OpenAI Responses ------------------------------------------------------------------------------------------------


def response_stream(body: bytes) -> bytes:
    """Raises what `attempted` knows."""
    answer = _decode(body)
    output = answer["output"]
    begun = {**answer, "status": "in_progress", "output": [], "usage": None, "completed_at": None}
    found: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(output):
        found += _item_events(index, item)
    found.append({"type": "response.completed", "response": answer})
    return b"".join([event({**one, "sequence_number": at}) for at, one in enumerate(found)])


def _item_events(index: int, item: dict[str, Any]) -> Iterable[dict[str, Any]]:
    at = {"output_index": index}
    start = dict(item)
    if "status" in item:
        start["status"] = "in_progress"
    kind, where = item["type"], {**at, "item_id": item.get("id", "")}
    inner: Iterable[dict[str, Any]] = ()
    if kind == "message":
        start["content"] = []
        inner = _content_events(where, item["content"])
    elif kind == "reasoning":
        start |= {name: [] for name in ("summary", "content") if isinstance(item.get(name), list)}
        inner = _reasoning_events(where, item)
    elif kind in _WRITTEN:
        name, field = _WRITTEN[kind]
        start[field] = ""
        inner = _text_events(name, where, field, item[field])
    yield {"type": "response.output_item.added", **at, "item": start}
    yield from inner
    yield {"type": "response.output_item.done", **at, "item": item}


def _content_events(at: dict[str, Any], content: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for index, part in enumerate(content):
        where = {**at, "content_index": index}
        field = "refusal" if part["type"] == "refusal" else "text"
        start = {**part, field: "", **{name: [] for name in ("annotations", "logprobs") if part.get(name)}}
        yield {"type": "response.content_part.added", **where, "part": start}
        yield from _part_events(where, part, field)
        yield {"type": "response.content_part.done", **where, "part": part}


def _part_events(at: dict[str, Any], part: dict[str, Any], field: str) -> Iterable[dict[str, Any]]:
    name = f"response.{part['type']}"
    if part["type"] != "output_text":
        yield from _text_events(name, at, field, part[field])
        return
    *told, done = _text_events(name, at, field, part[field])
    yield from ({**one, "logprobs": []} for one in told)
    for index, annotation in enumerate(part.get("annotations") or ()):
        yield {"type": f"{name}.annotation.added", **at, "annotation_index": index, "annotation": annotation}
    yield {**done, "logprobs": part.get("logprobs") or []}


def _reasoning_events(at: dict[str, Any], item: dict[str, Any]) -> Iterable[dict[str, Any]]:
    name = "response.reasoning_summary"
    for index, part in enumerate(item.get("summary") or ()):
        where = {**at, "summary_index": index}
        yield {"type": f"{name}_part.added", **where, "part": {**part, "text": ""}}
        yield from _text_events(f"{name}_text", where, "text", part["text"])
        yield {"type": f"{name}_part.done", **where, "part": part}
    yield from _content_events(at, item.get("content") or [])


def _text_events(name: str, at: dict[str, Any], field: str, text: str) -> Iterable[dict[str, Any]]:
    yield from ({"type": f"{name}.delta", **at, "delta": piece} for piece in pieces(text))
    yield {"type": f"{name}.done", **at, field: text}


def response_document(body: bytes) -> bytes:
    """The last event holds all of it. Raises what `attempted` knows."""
    last = events_of(body)[-1]
    if last["type"] != "response.completed":
        raise ValueError("a response without its end")
    return _encode(last["response"])
