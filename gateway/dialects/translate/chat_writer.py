"""The neutral form -> requests of OpenAI chat completions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gateway.dialects.lowering import NEW_LIMIT, openai_effort
from gateway.dialects.translate.chat_reader import HINTS, NUMBERS, ORIGIN
from gateway.dialects.translate.common import FORMATS, effort_of, with_ids, words
from gateway.dialects.translate.losses import Losses, Settings
from gateway.dialects.translate.neutral import (
    ASSISTANT,
    AUDIO,
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

PLAIN = (
    *(*NUMBERS, "seed", "n", "logit_bias", "logprobs", "top_logprobs", "service_tier", "verbosity"),
    *[name for name in HINTS if name != "metadata"],  # which OpenAI refuses where nothing is stored
)
_SILENT = re.compile(r"(?:^|/)(?:gpt-(?!oss)|chatgpt|codex|o[1-9])")  # OpenAI's own: they refuse reasoning of others
FAILED_RESULT = "Error: "  # chat has no other word for a tool that failed
_MODES = {"auto": "auto", "none": "none", "any": "required"}


def write(question: Question, losses: Losses, *, usage: bool) -> dict[str, Any]:
    """`usage`: ask a stream for it."""
    body: dict[str, Any] = {"model": question.model}
    messages: list[dict[str, Any]] = []
    for message in with_ids(question.messages):
        messages += _message(message, question.model, losses)
    body["messages"] = messages
    if question.tools:
        body["tools"] = [_tool(tool) for tool in question.tools]
    if question.pick is not None and question.tools:
        body["tool_choice"] = _pick(question.pick)
    settings = Settings(question.settings, losses)
    _settings(body, question, settings)
    settings.end()
    if question.stream:
        body["stream"] = True
        if usage:
            body["stream_options"] = {"include_usage": True}
    return body


def _settings(body: dict[str, Any], question: Question, settings: Settings) -> None:
    limit = settings.take("max_output")
    if limit is not None:
        body["max_completion_tokens" if NEW_LIMIT.search(question.model) else "max_tokens"] = limit
    for name in PLAIN:
        value = settings.take(name)
        if value is not None:
            body[name] = value
    stop = settings.take("stop")
    if stop:
        body["stop"] = list(stop)
    parallel = settings.take("parallel")
    if parallel is not None and question.tools:
        body["parallel_tool_calls"] = parallel
    user = settings.take("end_user")
    if user:
        body["user"] = user
    form: Format | None = settings.take("format")
    if form is not None:
        body["response_format"] = _format(form)
    effort = _effort(question.model, settings)
    if effort:
        body["reasoning_effort"] = effort


def _effort(model: str, settings: Settings) -> str | None:
    effort: str | None = settings.take("effort")
    budget: int | None = settings.take("budget")
    if effort is None and budget is not None and budget >= 0:
        effort = effort_of(budget) if budget else _no_effort(model)
    if effort == "max" and _SILENT.search(model):
        effort = "xhigh"  # the most that OpenAI has a word for
    return effort


def _no_effort(model: str) -> str:
    """What asks this model to think as little as it can; "" where it never does, or nothing else, and has no word."""
    if NEW_LIMIT.search(model) or "gpt-oss" in model:
        return openai_effort("minimal", model)
    return "" if _SILENT.search(model) else "none"


def _format(form: Format) -> dict[str, Any]:
    if form.schema is None:
        return {"type": "json_object"}
    inner: dict[str, Any] = {"name": form.name or "answer", "schema": form.schema, "strict": form.strict}
    if form.description:
        inner["description"] = form.description
    return {"type": "json_schema", "json_schema": inner}


# -- messages ---------------------------------------------------------------------------------------------------------


def _message(message: Message, model: str, losses: Losses) -> list[dict[str, Any]]:
    if message.role == ASSISTANT:
        return [_named(message, _assistant(message, model, losses))]
    found = [_returned(part, losses) for part in message.parts if isinstance(part, Returned)]
    rest = [part for part in message.parts if not isinstance(part, Returned)]
    if rest or not found:
        role = "system" if message.role == SYSTEM else "user"
        found.append(_named(message, {"role": role, "content": _content(rest, losses)}))
    return found


def _named(message: Message, said: dict[str, Any]) -> dict[str, Any]:
    return {**said, "name": message.name} if message.name else said


def _returned(part: Returned, losses: Losses) -> dict[str, Any]:
    for inner in part.parts:
        if isinstance(inner, Media):
            losses.lose(inner.at, f"{inner.kind} in the result of a tool")
    said = part.json or words(part.parts)
    if part.error and not said.startswith(FAILED_RESULT):
        said = FAILED_RESULT + said
    return {"role": "tool", "tool_call_id": part.id, "content": said}


def _assistant(message: Message, model: str, losses: Losses) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant"}
    texts = [part for part in message.parts if isinstance(part, Text | Media)]
    said["content"] = _content(texts, losses) if texts else None
    thought = "".join([part.text for part in message.parts if isinstance(part, Thought) and not part.origin])
    if thought and not _SILENT.search(model):
        said["reasoning_content"] = thought
    calls = [_call(part) for part in message.parts if isinstance(part, Invocation)]
    if calls:
        said["tool_calls"] = calls
    elif not texts:
        said["content"] = ""
    return said


def _call(part: Invocation) -> dict[str, Any]:
    found: dict[str, Any] = {"id": part.id, "type": "function"}
    found["function"] = {"name": part.name, "arguments": part.arguments or "{}"}
    return found


def _content(parts: Sequence[Part], losses: Losses) -> str | list[dict[str, Any]]:
    parts = [part for part in parts if not isinstance(part, Text) or part.text]  # an empty one may bear a signature
    if all(isinstance(part, Text) and not part.refusal for part in parts) and len(parts) < 2:
        return words(parts)
    return [found for part in parts if (found := _part(part, losses)) is not None]


def _part(part: Part, losses: Losses) -> dict[str, Any] | None:
    if isinstance(part, Text):
        return {"type": "refusal", "refusal": part.text} if part.refusal else {"type": "text", "text": part.text}
    if isinstance(part, Media):
        found = _media(part)
        if found is None:
            losses.lose(part.at, part.mime or part.kind)
        return found
    return None


def _media(part: Media) -> dict[str, Any] | None:
    if part.kind == IMAGE and (part.data or part.url):
        url = part.url or f"data:{part.mime};base64,{part.data}"
        return {"type": "image_url", "image_url": {"url": url, **({"detail": part.detail} if part.detail else {})}}
    if part.kind == AUDIO and part.data and part.mime in FORMATS:
        return {"type": "input_audio", "input_audio": {"data": part.data, "format": FORMATS[part.mime]}}
    if part.file and part.origin == ORIGIN:
        return {"type": "file", "file": {"file_id": part.file}}
    if part.kind == DOCUMENT and part.data and part.mime == "application/pdf":
        data = f"data:{part.mime};base64,{part.data}"
        return {"type": "file", "file": {"filename": part.name or "document.pdf", "file_data": data}}
    return None


# -- tools ------------------------------------------------------------------------------------------------------------


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = tool.schema if tool.schema is not None else {"type": "object", "properties": {}}
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _pick(pick: Pick) -> Any:
    if not pick.names or pick.mode == "none":
        return _MODES[pick.mode]
    if pick.mode == "any" and len(pick.names) == 1:
        return {"type": "function", "function": {"name": pick.names[0]}}
    tools = [{"type": "function", "function": {"name": name}} for name in pick.names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": _MODES[pick.mode], "tools": tools}}
