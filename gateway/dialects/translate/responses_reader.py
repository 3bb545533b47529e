"""Requests of OpenAI Responses -> the neutral form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from gateway.dialects.translate.chat_reader import (
    HINTS,
    ORIGIN,
    allowed,
    document,
    function_tool,
    pick_word,
    picture,
    response_format,
)
from gateway.dialects.translate.common import put, signed, unseal
from gateway.dialects.translate.losses import Fields, Losses
from gateway.dialects.translate.neutral import (
    ASSISTANT,
    SYSTEM,
    USER,
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

_ROLES = {"system": SYSTEM, "developer": SYSTEM, "user": USER, "assistant": ASSISTANT}


def read(body: dict[str, Any], losses: Losses) -> Question:
    """Raises BadBody."""
    fields = Fields(body, "", losses)
    settings: dict[str, Setting] = {}
    _settings(fields, settings)
    _bookkeeping(fields, settings)
    messages: list[Message] = []
    instructions = fields.text("instructions")
    if instructions:
        messages.append(Message(SYSTEM, (Text(instructions, at="instructions"),), at="instructions"))
    messages += _input(fields)
    found = Question(
        model=fields.text("model"),
        stream=fields.flag("stream") is True,
        messages=tuple(messages),
        tools=tuple([tool for item in fields.each("tools") if (tool := _tool(item)) is not None]),
        pick=_pick(fields),
        settings=settings,
    )
    fields.end()
    return found


def _settings(fields: Fields, settings: dict[str, Setting]) -> None:
    put(settings, "max_output", fields.integer("max_output_tokens"), "max_output_tokens")
    for name in ("temperature", "top_p"):
        put(settings, name, fields.number(name), name)
    put(settings, "parallel", fields.flag("parallel_tool_calls"), "parallel_tool_calls")
    tier = fields.text("service_tier") or None
    put(settings, "service_tier", tier, "service_tier", hint=tier in ("auto", "default"))
    reasoning = fields.within("reasoning")
    if reasoning is not None:
        put(settings, "effort", reasoning.text("effort") or None, "reasoning.effort")
        summary = reasoning.text("summary") or reasoning.text("generate_summary")
        put(settings, "thoughts", True if summary else None, "reasoning.summary", hint=True)
        reasoning.end()
    text = fields.within("text")
    if text is not None:
        verbosity = text.text("verbosity") or None
        put(settings, "verbosity", verbosity, "text.verbosity", hint=verbosity == "medium")
        response_format(text.within("format"), settings)
        text.end()


def _bookkeeping(fields: Fields, settings: dict[str, Setting]) -> None:
    user = fields.text("user")
    put(settings, "end_user", fields.text("safety_identifier") or user or None, "user", hint=True)
    for name in HINTS:
        if name != "prediction":
            put(settings, name, fields.take(name), name, hint=True)
    fields.ignore("client_metadata", "max_tool_calls")  # calls of hosted tools, which are refused anyway
    for name in ("store", "background"):
        if fields.peek(name) is False:
            fields.ignore(name)
    if fields.peek("truncation") == "disabled":
        fields.ignore("truncation")
    if fields.peek("top_logprobs") == 0:
        fields.ignore("top_logprobs")
    if fields.peek("include") == ["reasoning.encrypted_content"]:
        fields.ignore("include")
    options = fields.within("stream_options")
    if options is not None:
        options.ignore("include_obfuscation")
        options.end()


# -- input ------------------------------------------------------------------------------------------------------------


def _input(fields: Fields) -> Iterable[Message]:
    if type(fields.peek("input")) is str:
        text = fields.text("input")
        return [Message(USER, (Text(text, at="input"),), at="input")]
    found: list[Message] = []
    for item in fields.each("input"):
        message = _item(item)
        if message is None:
            continue
        if message.role == ASSISTANT and found and found[-1].role == ASSISTANT:  # one turn in several items
            found[-1] = replace(found[-1], parts=(*found[-1].parts, *message.parts))
        else:
            found.append(message)
    return [replace(message, parts=tuple(signed(message.parts, "gemini"))) for message in found]


def _item(item: Fields) -> Message | None:
    kind = item.text("type", "message")
    item.ignore("status", "phase")
    found: Message | None = None
    if kind == "message":
        found = _message(item)
    elif kind == "function_call":
        item.ignore("id")
        path = item.path("arguments")
        call = Invocation(item.text("name"), item.text("arguments"), item.text("call_id"), at=path)
        found = Message(ASSISTANT, (call,), at=item.at)
    elif kind == "function_call_output":
        item.ignore("id")
        parts = [part for part in _content(item, "output") if isinstance(part, Text | Media)]
        found = Message(USER, (Returned(item.text("call_id"), "", tuple(parts), at=item.at),), at=item.at)
    elif kind == "reasoning":
        item.ignore("id")
        found = Message(ASSISTANT, tuple(_thoughts(item)), at=item.at)
    else:
        item.losses.lose(f"{item.at}.{kind}")
        return None
    item.end()
    return found


def _message(item: Fields) -> Message:
    role = item.text("role")
    if role not in _ROLES:
        raise item.bad("role", "user, assistant, system or developer")
    item.ignore("id")
    return Message(_ROLES[role], tuple(_content(item, "content")), at=item.at)


def _thoughts(item: Fields) -> Iterable[Part]:
    """Under seal, the reasoning of another provider; else only OpenAI can read it."""
    sealed = item.text("encrypted_content")
    said = [one.text("text") for name in ("summary", "content") for one in _texts(item, name)]
    known = unseal(sealed) if sealed else None
    if known is not None:
        return [known]
    text = "\n\n".join(said)
    return [Thought(text, data=sealed, origin=ORIGIN if sealed else "", at=item.at)]


def _texts(item: Fields, name: str) -> Iterable[Fields]:
    for one in item.each(name):
        one.ignore("type")
        yield one
        one.end()


def _content(item: Fields, name: str) -> list[Part]:
    if type(item.peek(name)) is str:
        path = item.path(name)
        text = item.text(name)
        return [Text(text, at=path)] if text else []
    return [part for one in item.each(name) if (part := _part(one)) is not None]


def _part(item: Fields) -> Part | None:
    kind = item.text("type")
    item.ignore("prompt_cache_breakpoint")
    found: Part
    if kind in ("input_text", "output_text", "text"):
        item.ignore("logprobs")
        found = Text(item.text("text"), at=item.at)
    elif kind == "refusal":
        found = Text(item.text("refusal"), refusal=True, at=item.at)
    elif kind == "input_image":
        found = picture(item.text("image_url"), item.text("detail"), item.at)
        file = item.text("file_id")
        found = replace(found, file=file, origin=ORIGIN) if file else found
    elif kind == "input_file":
        url = item.text("file_url")
        found = document(item, item.text("file_data"))
        found = replace(found, url=url) if url else found
        item.ignore("detail")
    else:
        item.losses.lose(f"{item.at}.{kind or 'type'}")
        return None
    item.end()
    return found


# -- tools ------------------------------------------------------------------------------------------------------------


def _tool(item: Fields) -> Tool | None:
    kind = item.text("type")
    if kind != "function":
        item.losses.lose(f"{item.at}.{kind or 'type'}")
        return None
    found = function_tool(item)
    if item.peek("defer_loading") is False:
        item.ignore("defer_loading")
    item.end()
    return found


def _pick(fields: Fields) -> Pick | None:
    if type(fields.peek("tool_choice")) is str:
        return pick_word(fields)
    choice = fields.within("tool_choice")
    if choice is None:
        return None
    kind = choice.text("type")
    found: Pick | None = None
    if kind == "function":
        found = Pick("any", (choice.text("name"),), choice.at)
    elif kind == "allowed_tools":
        found = allowed(choice, choice.at)
    else:
        choice.losses.lose(f"{choice.at}.{kind or 'type'}")
        return None
    choice.end()
    return found
