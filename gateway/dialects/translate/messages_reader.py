"""Requests of Anthropic messages -> the neutral form."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from gateway.dialects.translate.common import json_text, put, signed, unseal
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

ORIGIN = "anthropic"
_MODES = {"auto": "auto", "any": "any", "tool": "any", "none": "none"}
_ROLES = {"user": USER, "assistant": ASSISTANT, "system": SYSTEM}


def read(body: dict[str, Any], losses: Losses) -> Question:
    """Raises BadBody."""
    fields = Fields(body, "", losses)
    settings: dict[str, Setting] = {}
    _sampling(fields, settings)
    _thinking(fields.within("thinking"), settings)
    _format(fields.within("output_format"), settings)  # its name before `output_config` had it
    config = fields.within("output_config")
    if config is not None:
        put(settings, "effort", config.text("effort") or None, config.path("effort"))
        _format(config.within("format"), settings)
        config.end()
    system = _content(fields, "system")
    messages = [Message(SYSTEM, tuple(system), at="system")] if system else []
    messages += [message for item in fields.each("messages") if (message := _message(item)) is not None]
    found = Question(
        model=fields.text("model"),
        stream=fields.flag("stream") is True,
        messages=tuple(messages),
        tools=tuple([tool for item in fields.each("tools") if (tool := _tool(item)) is not None]),
        pick=_pick(fields.within("tool_choice"), settings),
        settings=settings,
    )
    fields.end()
    return found


def _sampling(fields: Fields, settings: dict[str, Setting]) -> None:
    put(settings, "max_output", fields.integer("max_tokens"), "max_tokens")
    for name in ("temperature", "top_p", "top_k"):
        put(settings, name, fields.number(name), name)
    put(settings, "stop", fields.strings("stop_sequences"), "stop_sequences")
    metadata = fields.within("metadata")
    if metadata is not None:
        put(settings, "end_user", metadata.text("user_id") or None, "metadata.user_id", hint=True)
        metadata.end()
    fields.ignore("service_tier", "cache_control")  # which capacity is billed, and what may be cached
    if fields.peek("speed") == "standard":
        fields.ignore("speed")


def _thinking(found: Fields | None, settings: dict[str, Setting]) -> None:
    """`disabled` is what others do unless they are asked."""
    if found is None:
        return
    kind = found.text("type")
    budget = found.integer("budget_tokens")
    if kind == "enabled":
        put(settings, "budget", budget, f"{found.at}.budget_tokens")
    elif kind == "adaptive":
        put(settings, "budget", -1, found.at)
    elif kind != "disabled":
        found.losses.lose(f"{found.at}.{kind or 'type'}")
    display = found.text("display") or None
    put(settings, "thoughts", None if display is None else display != "omitted", f"{found.at}.display", hint=True)
    found.end()


def _format(found: Fields | None, settings: dict[str, Setting]) -> None:
    if found is None:
        return
    if found.text("type") == "json_schema":
        put(settings, "format", Format(found.mapping("schema") or {}), found.at)
    else:
        found.losses.lose(f"{found.at}.type")
    found.end()


# -- messages ---------------------------------------------------------------------------------------------------------


def _message(item: Fields) -> Message | None:
    role = item.text("role")
    if role not in _ROLES:
        raise item.bad("role", "user or assistant")
    parts = signed(_content(item, "content"), "gemini")
    item.end()
    return Message(_ROLES[role], tuple(parts), at=item.at)


def _content(item: Fields, name: str) -> list[Part]:
    value = item.peek(name)
    if value is None or type(value) is str:
        path = item.path(name)
        item.take(name)
        return [Text(value, at=path)] if value else []
    return [part for one in item.each(name) if (part := _part(one)) is not None]


def _part(item: Fields) -> Part | None:
    kind = item.text("type")
    cache = _mark(item)
    reader = _PARTS.get(kind)
    if reader is None:
        item.losses.lose(f"{item.at}.{kind or 'type'}")
        return None
    found = reader(item, cache)
    item.end()
    return found


def _mark(item: Fields) -> str:
    found = item.within("cache_control")
    if found is None:
        return ""
    found.ignore("type")
    ttl = found.text("ttl", "5m")
    found.end()
    return ttl


def _text(item: Fields, cache: str) -> Part:
    return Text(item.text("text"), cache, at=item.at)


def _image(item: Fields, cache: str) -> Part | None:
    return _media(item, IMAGE, cache)


def _document(item: Fields, cache: str) -> Part | None:
    cited = item.within("citations")
    if cited is not None and cited.peek("enabled") is True:
        cited.lose("enabled")
    return _media(item, DOCUMENT, cache)


def _media(item: Fields, kind: str, cache: str) -> Part | None:
    name = item.text("title")
    source = item.within("source")
    if source is None:
        raise item.bad("source", "an object")
    form = source.text("type")
    mime, data, url = source.text("media_type"), source.text("data"), source.text("url")
    if form not in ("base64", "url", "text"):
        source.losses.lose(f"{source.at}.{form or 'type'}")
        return None
    source.end()
    plain = form == "text"
    default = "application/pdf" if kind == DOCUMENT else ""
    return Media(
        kind,
        mime=mime or default,
        data="" if plain else data,
        text=data if plain else "",
        url=url,
        name=name,
        cache=cache,
        at=source.at,
    )


def _call(item: Fields, cache: str) -> Part:
    path = item.path("input")
    caller = item.within("caller")
    if caller is not None:
        if caller.peek("type") == "direct":
            caller.ignore("type")
        caller.end()
    arguments = json_text(item.mapping("input") or {})
    return Invocation(item.text("name"), arguments, item.text("id"), at=path)


def _returned(item: Fields, cache: str) -> Part:
    id, error = item.text("tool_use_id"), item.flag("is_error") is True
    parts = [part for part in _content(item, "content") if isinstance(part, Text | Media)]
    return Returned(id, "", tuple(parts), error=error, cache=cache, at=item.at)


def _thought(item: Fields, cache: str) -> Part:
    text, signature = item.text("thinking"), item.text("signature")
    known = unseal(signature)
    if known is not None:
        return replace(known, text=text, at=item.at)
    return Thought(text, signature, "", ORIGIN if signature else "", item.at)


def _sealed(item: Fields, cache: str) -> Part:
    data = item.text("data")
    return unseal(data) or Thought(data=data, origin=ORIGIN, at=item.at)


_PARTS = {
    "text": _text,
    "image": _image,
    "document": _document,
    "tool_use": _call,
    "tool_result": _returned,
    "thinking": _thought,
    "redacted_thinking": _sealed,
}


# -- tools ------------------------------------------------------------------------------------------------------------


def _tool(item: Fields) -> Tool | None:
    kind = item.text("type", "custom")
    if kind != "custom":
        item.losses.lose(f"{item.at}.{kind}")
        return None
    item.ignore("eager_input_streaming")
    if item.peek("defer_loading") is False:
        item.ignore("defer_loading")
    if item.peek("allowed_callers") == ["direct"]:
        item.ignore("allowed_callers")
    found = Tool(
        name=item.text("name"),
        description=item.text("description"),
        schema=item.mapping("input_schema"),
        strict=item.flag("strict") is True,
        cache=_mark(item),
        at=item.at,
    )
    item.end()
    return found


def _pick(found: Fields | None, settings: dict[str, Setting]) -> Pick | None:
    if found is None:
        return None
    mode = _MODES.get(found.text("type"))
    if mode is None:
        raise found.bad("type", "auto, any, tool or none")
    name = found.text("name")
    path = found.path("disable_parallel_tool_use")
    serial = found.flag("disable_parallel_tool_use")
    put(settings, "parallel", None if serial is None else not serial, path)
    found.end()
    return Pick(mode, (name,) if name else (), found.at)
