"""Requests of OpenAI chat completions -> the neutral form."""

from __future__ import annotations

from typing import Any

from gateway.dialects.translate.common import AUDIO, data_url, put, sign_text
from gateway.dialects.translate.losses import Fields, Losses
from gateway.dialects.translate.neutral import (
    ASSISTANT,
    DOCUMENT,
    IMAGE,
    SYSTEM,
    USER,
    Format,
    Invocation,
    Media,
    Message,
    Part,
    Pick,
    Question,
    Returned,
    Setting,
    Text,
    Thought,
    Tool,
)
from gateway.dialects.translate.neutral import (
    AUDIO as SOUND,
)

ORIGIN = "openai"
NUMBERS = ("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty")
# Bookkeeping of the provider and its cache: they change nothing in the answer.
HINTS = ("metadata", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "prediction")
REASONING = {"anthropic-claude-v1": "anthropic", "google-gemini-v1": "gemini", "openai-responses-v1": "openai"}
_ROLES = {"system": SYSTEM, "developer": SYSTEM, "user": USER, "tool": USER, "assistant": ASSISTANT}
_MODES = {"none": "none", "auto": "auto", "required": "any", "any": "any"}


def read(body: dict[str, Any], losses: Losses) -> Question:
    """Raises BadBody."""
    fields = Fields(body, "", losses)
    settings: dict[str, Setting] = {}
    _sampling(fields, settings)
    _reasoning(fields, settings)
    response_format(fields.within("response_format"), settings)
    options = fields.within("stream_options")
    usage = False
    if options is not None:
        usage = options.flag("include_usage") is True
        options.ignore("include_obfuscation")
        options.end()
    found = Question(
        model=fields.text("model"),
        stream=fields.flag("stream") is True,
        messages=tuple([message for item in fields.each("messages") if (message := _message(item)) is not None]),
        tools=tuple([tool for item in fields.each("tools") if (tool := _tool(item)) is not None]),
        pick=_pick(fields),
        settings=settings,
        usage=usage,
    )
    fields.end()
    return found


def _sampling(fields: Fields, settings: dict[str, Setting]) -> None:
    for name in NUMBERS:
        path = fields.path(name)
        value = fields.number(name)
        put(settings, name, value, path, hint=value == 0 and name.endswith("penalty"))
    for name in ("max_completion_tokens", "max_tokens"):
        if "max_output" not in settings:
            put(settings, "max_output", fields.integer(name), name)
    fields.ignore("max_tokens")
    put(settings, "stop", fields.strings("stop"), "stop")
    put(settings, "seed", fields.integer("seed"), "seed")
    n = fields.integer("n")
    put(settings, "n", n, "n", hint=n == 1)
    put(settings, "logit_bias", fields.mapping("logit_bias") or None, "logit_bias")
    shown = fields.flag("logprobs")
    put(settings, "logprobs", shown, "logprobs", hint=not shown)
    top = fields.integer("top_logprobs")
    put(settings, "top_logprobs", top, "top_logprobs", hint=not top)
    put(settings, "parallel", fields.flag("parallel_tool_calls"), "parallel_tool_calls")
    user = fields.text("user")
    put(settings, "end_user", fields.text("safety_identifier") or user or None, "user", hint=True)
    tier = fields.text("service_tier") or None
    put(settings, "service_tier", tier, "service_tier", hint=tier in ("auto", "default"))
    verbosity = fields.text("verbosity") or None
    put(settings, "verbosity", verbosity, "verbosity", hint=verbosity == "medium")
    for name in HINTS:
        put(settings, name, fields.take(name), name, hint=True)
    if fields.peek("store") is False:
        fields.ignore("store")
    if fields.peek("modalities") == ["text"]:
        fields.ignore("modalities")


def _reasoning(fields: Fields, settings: dict[str, Setting]) -> None:
    """`reasoning_effort`, or OpenRouter's `reasoning`."""
    put(settings, "effort", fields.text("reasoning_effort") or None, "reasoning_effort")
    reasoning = fields.within("reasoning")
    if reasoning is None:
        return
    put(settings, "effort", reasoning.text("effort") or None, "reasoning.effort")
    put(settings, "budget", reasoning.integer("max_tokens"), "reasoning.max_tokens")
    if reasoning.flag("enabled") and "effort" not in settings and "budget" not in settings:
        put(settings, "effort", "medium", "reasoning.enabled")
    reasoning.end()


def response_format(found: Fields | None, settings: dict[str, Setting]) -> None:
    if found is None:
        return
    kind = found.text("type")
    if kind == "json_object":
        put(settings, "format", Format(), found.at)
    elif kind == "json_schema":
        inner = found.within("json_schema") or found
        put(settings, "format", schema_format(inner), found.at)
        inner.end()
    elif kind != "text":
        found.losses.lose(f"{found.at}.{kind or 'type'}")
    found.end()


def schema_format(inner: Fields) -> Format:
    return Format(
        schema=inner.mapping("schema") or {},
        name=inner.text("name"),
        description=inner.text("description"),
        strict=inner.flag("strict") is True,
    )


# -- messages ---------------------------------------------------------------------------------------------------------


def _message(item: Fields) -> Message | None:
    role = item.text("role")
    known = _ROLES.get(role)
    if known is None:
        item.losses.lose(f"{item.at}.role", role)
        return None
    name = item.text("name")
    parts: list[Part]
    if role == "tool":
        parts = [_returned(item, name)]
        name = ""
    elif known == ASSISTANT:
        parts = _said(item)
    else:
        parts = content(item, "content")
    item.end()
    return Message(known, tuple(parts), name, item.at)


def _returned(item: Fields, name: str) -> Returned:
    id = item.text("tool_call_id")
    parts = [part for part in content(item, "content") if isinstance(part, Text | Media)]
    return Returned(id, name, tuple(parts), at=item.at)


def _said(item: Fields) -> list[Part]:
    parts: list[Part] = [*thoughts(item), *content(item, "content")]
    marks = [part.signature for part in parts if isinstance(part, Thought) and _is_mark(part)]
    parts = [part for part in parts if not (isinstance(part, Thought) and _is_mark(part))]
    for signature in (*marks, google_signature(item)):
        if signature:
            sign_text(parts, signature)
    refusal = item.text("refusal")
    if refusal:
        parts.append(Text(refusal, refusal=True, at=f"{item.at}.refusal"))
    parts += [call for call in (_call(one) for one in item.each("tool_calls")) if call is not None]
    return parts


def _call(item: Fields) -> Invocation | None:
    kind = item.text("type", "function")
    item.ignore("index")
    id = item.text("id")
    function = item.within("function")
    if kind != "function" or function is None:
        item.losses.lose(f"{item.at}.{kind}")
        return None
    signature = google_signature(item)
    item.end()
    found = Invocation(function.text("name"), function.text("arguments"), id, signature, f"{function.at}.arguments")
    function.end()
    return found


def google_signature(item: Fields) -> str:
    """Of a call or a whole message, where Google's own chat API puts it."""
    signature = ""
    extra = item.within("extra_content")
    if extra is not None:
        google = extra.within("google")
        if google is not None:
            signature = google.text("thought_signature")
            google.end()
        extra.end()
    return signature


def _is_mark(thought: Thought) -> bool:
    """Does it sign the text of its message? (see `ChatWriter`)"""
    return thought.origin == "gemini" and bool(thought.signature) and not thought.text


def thoughts(item: Fields) -> list[Part]:
    """`reasoning_details` with their proofs where there are some, else the text alone."""
    text = item.text("reasoning_content")
    text = item.text("reasoning") or text
    found: list[Part] = []
    for detail in item.each("reasoning_details"):
        kind = detail.text("type")
        origin = REASONING.get(detail.text("format"), "anthropic")
        detail.ignore("id", "index", "provider")
        said = detail.text("text") or detail.text("summary")
        found.append(Thought(said, detail.text("signature"), detail.text("data"), origin, detail.at))
        if kind not in ("reasoning.text", "reasoning.encrypted", "reasoning.summary"):
            detail.losses.lose(f"{detail.at}.{kind}")
        detail.end()
    if not found and text:
        found.append(Thought(text, at=f"{item.at}.reasoning_content"))
    return found


def content(item: Fields, name: str) -> list[Part]:
    """A string, or a list of parts."""
    value = item.peek(name)
    if value is None or type(value) is str:
        path = item.path(name)
        item.take(name)
        return [Text(value, at=path)] if value else []
    return [part for one in item.each(name) if (part := _part(one)) is not None]


def _part(item: Fields) -> Part | None:
    kind = item.text("type")
    cache = mark(item)
    found: Part | None = None
    if kind == "text":
        found = Text(item.text("text"), cache, at=item.at)
    elif kind == "refusal":
        found = Text(item.text("refusal"), refusal=True, at=item.at)
    elif kind == "image_url":
        found = _image(item, cache)
    elif kind == "input_audio":
        found = _audio(item)
    elif kind == "file":
        found = _file(item, cache)
    else:
        item.losses.lose(f"{item.at}.{kind or 'type'}")
        return None
    item.end()
    return found


def mark(item: Fields) -> str:
    """The mark of a prompt cache: its time to live."""
    found = item.within("cache_control")
    if found is None:
        return ""
    found.ignore("type")
    ttl = found.text("ttl", "5m")
    found.end()
    return ttl


def _image(item: Fields, cache: str) -> Part:
    if type(item.peek("image_url")) is str:  # Mistral's form
        return picture(item.text("image_url"), "", item.at, cache)
    inner = item.within("image_url")
    if inner is None:
        raise item.bad("image_url", "an object")
    detail = inner.text("detail")
    found = picture(inner.text("url"), detail, inner.at, cache)
    inner.end()
    return found


def picture(url: str, detail: str, at: str, cache: str = "") -> Media:
    inline = data_url(url)
    mime, data = inline or ("", "")
    known = "" if detail == "auto" else detail
    return Media(IMAGE, mime, data, "" if inline else url, detail=known, cache=cache, at=at)


def _audio(item: Fields) -> Part:
    inner = item.within("input_audio")
    if inner is None:
        raise item.bad("input_audio", "an object")
    form = inner.text("format")
    found = Media(SOUND, AUDIO.get(form, f"audio/{form}"), inner.text("data"), at=inner.at)
    inner.end()
    return found


def _file(item: Fields, cache: str) -> Part:
    inner = item.within("file")
    if inner is None:
        raise item.bad("file", "an object")
    found = document(inner, inner.text("file_data"), cache)
    inner.end()
    return found


def document(inner: Fields, data: str, cache: str = "") -> Media:
    name, file = inner.text("filename"), inner.text("file_id")
    inline = data_url(data)
    mime, plain = inline or ("application/pdf", data)
    kind = IMAGE if mime.startswith("image/") else DOCUMENT
    return Media(kind, mime, plain, file=file, name=name, origin=ORIGIN, cache=cache, at=inner.at)


# -- tools ------------------------------------------------------------------------------------------------------------


def _tool(item: Fields) -> Tool | None:
    kind = item.text("type", "function")
    cache = mark(item)
    function = item.within("function")
    if kind != "function" or function is None:
        item.losses.lose(f"{item.at}.{kind}")
        return None
    found = function_tool(function, cache)
    function.end()
    item.end()
    return found


def function_tool(function: Fields, cache: str = "") -> Tool:
    return Tool(
        name=function.text("name"),
        description=function.text("description"),
        schema=function.mapping("parameters"),
        strict=function.flag("strict") is True,
        cache=cache,
        at=function.at,
    )


def _pick(fields: Fields) -> Pick | None:
    if type(fields.peek("tool_choice")) is str:
        return pick_word(fields)
    choice = fields.within("tool_choice")
    if choice is None:
        return None
    kind = choice.text("type", "function")
    inner = choice.within(kind)
    found: Pick | None = None
    if kind == "function" and inner is not None:
        found = Pick("any", (inner.text("name"),), choice.at)
    elif kind == "allowed_tools" and inner is not None:
        found = allowed(inner, choice.at)
    else:
        choice.losses.lose(f"{choice.at}.{kind}")
        return None
    inner.end()
    choice.end()
    return found


def pick_word(fields: Fields) -> Pick | None:
    word = fields.text("tool_choice")
    if word not in _MODES:
        raise fields.bad("tool_choice", "none, auto or required")
    return Pick(_MODES[word], at="tool_choice")


def allowed(inner: Fields, at: str) -> Pick:
    mode = _MODES.get(inner.text("mode", "auto"), "auto")
    names = []
    for one in inner.each("tools"):
        if one.text("type", "function") != "function":
            one.losses.lose(f"{one.at}.type")
            continue
        function = one.within("function") or one
        names.append(function.text("name"))
        function.end()
        one.end()
    return Pick(mode, tuple(names), at)
