"""The neutral form -> requests of Anthropic messages."""

from __future__ import annotations

import re
from typing import Any

from gateway.dialects.lowering import LEAST_THINKING
from gateway.dialects.translate.common import budget_of, effort_of, merged, object_text, results_first, with_ids
from gateway.dialects.translate.losses import Losses, Settings
from gateway.dialects.translate.messages_reader import ORIGIN
from gateway.dialects.translate.neutral import (
    ASSISTANT,
    DOCUMENT,
    IMAGE,
    SYSTEM,
    Format,
    Invocation,
    Media,
    Message,
    Part,
    Pick,
    Question,
    Returned,
    Text,
    Thought,
    Tool,
)

DEFAULT_MAX_TOKENS = 8192  # the API wants a number; where the client sets none and nobody knows the model's
_OLD = re.compile(r"claude-(?:[a-z]+-)?(?:[123](?!\d)|4(?:[-.@](?:[0-5](?!\d)|20)|$))")  # think by budget
_BOTH = re.compile(r"claude-[a-z]+-4[-.]6(?!\d)")  # by budget, too
_IMAGES = frozenset(("image/png", "image/jpeg", "image/gif", "image/webp"))


def write(question: Question, losses: Losses, *, max_tokens: int = 0) -> dict[str, Any]:
    """`max_tokens`: what the model makes at most, where it is known."""
    body: dict[str, Any] = {"model": question.model}
    settings = Settings(question.settings, losses)
    _sampling(body, settings)
    limit = settings.take("max_output")
    thinking = _think(body, question.model, limit, settings)
    body["max_tokens"] = limit if limit is not None else max_tokens or DEFAULT_MAX_TOKENS + thinking
    _format(body, settings)
    messages = with_ids(question.messages)
    leading = next((at for at, message in enumerate(messages) if message.role != SYSTEM), len(messages))
    system = [block for message in messages[:leading] for block in _blocks(message, losses)]
    if system:
        body["system"] = system
    body["messages"] = [said for message in merged(messages[leading:]) if (said := _message(message, losses))]
    if thinking and not _led_by_thought(body["messages"]):
        del body["thinking"]
        settings.lose(_field(settings), "the call of a tool came back without the reasoning that led to it")
    if question.tools:
        body["tools"] = [_tool(tool) for tool in question.tools]
    _pick(body, question, settings)
    settings.end()
    if question.stream:
        body["stream"] = True
    return body


def _sampling(body: dict[str, Any], settings: Settings) -> None:
    heat = settings.take("temperature")
    if heat is not None and heat > 1:
        settings.lose("temperature", "above 1")
    elif heat is not None:
        body["temperature"] = heat
    for name in ("top_p", "top_k"):
        value = settings.take(name)
        if value is not None:
            body[name] = int(value) if name == "top_k" else value
    stop = settings.take("stop")
    if stop:
        body["stop_sequences"] = list(stop)
    user = settings.take("end_user")
    if user:
        body["metadata"] = {"user_id": user}


def _think(body: dict[str, Any], model: str, limit: int | None, settings: Settings) -> int:
    """How much is to be thought, in the words of the model's generation. Returns the tokens that takes."""
    field = _field(settings)
    effort, budget, shown = settings.effort(), settings.take("budget"), settings.take("thoughts")
    if (effort is None and budget is None) or (budget is None and effort == "none") or budget == 0:
        return 0
    old = _OLD.search(model) is not None
    if not old and not (_BOTH.search(model) and budget is not None and budget > 0):
        body["thinking"] = {"type": "adaptive"}
        if effort is not None or (budget is not None and budget > 0):
            word = effort or effort_of(budget)
            body["output_config"] = {"effort": "low" if word == "minimal" else word}
        if shown is not None:
            body["thinking"]["display"] = "summarized" if shown else "omitted"
        return 0
    tokens = budget if budget is not None and budget > 0 else budget_of(effort or "medium")
    tokens = max(tokens, LEAST_THINKING)
    if limit is not None and tokens >= limit:
        tokens = max(limit // 2, LEAST_THINKING)
        if tokens >= limit:
            settings.lose(field, "the limit of output leaves no room for it")
            return 0
    body["thinking"] = {"type": "enabled", "budget_tokens": tokens}
    return tokens


def _field(settings: Settings) -> str:
    return "budget" if settings.has("budget") else "effort"


def _led_by_thought(messages: list[dict[str, Any]]) -> bool:
    """Models that think by budget go on with a tool's result only where the call came with their own thinking."""
    if len(messages) < 2 or not any(block["type"] == "tool_result" for block in messages[-1]["content"]):
        return True
    return messages[-2]["content"][0]["type"] in ("thinking", "redacted_thinking")


def _format(body: dict[str, Any], settings: Settings) -> None:
    form: Format | None = settings.take("format")
    if form is None:
        return
    if form.schema is None:
        settings.lose("format", "JSON without a schema")
        return
    config = body.setdefault("output_config", {})
    config["format"] = {"type": "json_schema", "schema": form.schema}


# -- messages ---------------------------------------------------------------------------------------------------------


def _message(message: Message, losses: Losses) -> dict[str, Any] | None:
    if message.name:
        losses.lose(f"{message.at}.name")
    blocks = _blocks(message, losses)
    return {"role": message.role, "content": blocks} if blocks else None


def _blocks(message: Message, losses: Losses) -> list[dict[str, Any]]:
    if message.role == SYSTEM and message.name:
        losses.lose(f"{message.at}.name")
    parts = message.parts if message.role == ASSISTANT else results_first(message.parts)
    return [block for part in parts if (block := _block(part, losses)) is not None]


def _block(part: Part, losses: Losses) -> dict[str, Any] | None:
    if isinstance(part, Text):
        return _marked({"type": "text", "text": part.text}, part.cache) if part.text else None
    if isinstance(part, Media):
        return _media(part, losses)
    if isinstance(part, Invocation):
        arguments = object_text(part.arguments)
        if arguments is None:
            losses.lose(part.at, "not the text of a JSON object")
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments}
    if isinstance(part, Returned):
        return _returned(part, losses)
    return _thought(part)


def _thought(part: Thought) -> dict[str, Any] | None:
    """Only what the provider itself signed; it refuses other reasoning."""
    if part.origin != ORIGIN:
        return None
    if part.data:
        return {"type": "redacted_thinking", "data": part.data}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature} if part.signature else None


def _returned(part: Returned, losses: Losses) -> dict[str, Any]:
    said: dict[str, Any] = {"type": "tool_result", "tool_use_id": part.id}
    if part.json:
        said["content"] = part.json
    else:
        inner = [block for one in part.parts if (block := _block(one, losses)) is not None]
        if inner:
            said["content"] = inner
    if part.error:
        said["is_error"] = True
    return _marked(said, part.cache)


def _media(part: Media, losses: Losses) -> dict[str, Any] | None:
    source: dict[str, Any] | None = None
    if part.text or (part.mime == "text/plain" and not part.data and not part.url):
        source = {"type": "text", "media_type": "text/plain", "data": part.text}
    elif _is_fetched(part):
        source = {"type": "url", "url": part.url}
    elif part.data and (part.mime in _IMAGES or part.mime == "application/pdf"):
        source = {"type": "base64", "media_type": part.mime, "data": part.data}
    if source is None:
        losses.lose(part.at, part.mime or part.kind)
        return None
    block: dict[str, Any] = {"type": part.kind if part.kind == IMAGE else DOCUMENT, "source": source}
    if part.name and block["type"] == DOCUMENT:
        block["title"] = part.name
    return _marked(block, part.cache)


def _is_fetched(part: Media) -> bool:
    """Does the API fetch it? Images, and of documents PDF only."""
    if not part.url.startswith(("http://", "https://")):
        return False
    return part.kind == IMAGE or (part.kind == DOCUMENT and part.mime == "application/pdf")


def _marked(block: dict[str, Any], cache: str) -> dict[str, Any]:
    if cache:
        block["cache_control"] = {"type": "ephemeral", **({"ttl": cache} if cache != "5m" else {})}
    return block


# -- tools ------------------------------------------------------------------------------------------------------------


def _tool(tool: Tool) -> dict[str, Any]:
    found: dict[str, Any] = {"name": tool.name}
    if tool.description:
        found["description"] = tool.description
    found["input_schema"] = {"type": "object", **(tool.schema or {"properties": {}})}
    if tool.strict:
        found["strict"] = True
    return _marked(found, tool.cache)


def _pick(body: dict[str, Any], question: Question, settings: Settings) -> None:
    parallel = settings.take("parallel")
    if not question.tools:
        return
    pick = question.pick or Pick("auto")
    choice: dict[str, Any] = {"type": pick.mode}
    if pick.names and pick.mode != "none":
        if pick.mode == "any" and len(pick.names) == 1:
            choice = {"type": "tool", "name": pick.names[0]}
        else:
            settings.losses.lose(pick.at, "a choice of some tools")
    if parallel is False and pick.mode != "none":
        choice["disable_parallel_tool_use"] = True
    if question.pick is not None or parallel is False:
        body["tool_choice"] = choice
