"""Requests of Gemini generateContent -> the neutral form. Names may be written in camel case or with underscores."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from gateway.dialects.translate.common import image_type, json_text, put, unseal
from gateway.dialects.translate.losses import Fields, Losses
from gateway.dialects.translate.neutral import (
    ASSISTANT,
    AUDIO,
    DOCUMENT,
    IMAGE,
    SYSTEM,
    USER,
    VIDEO,
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
from gateway.dialects.translate.schemas import camel, json_schema
from gateway.errors import BadBody

ORIGIN = "gemini"
NUMBERS = {
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
}
_ROLES = {"user": USER, "model": ASSISTANT, "function": USER, "tool": USER, "": USER}
_MODES = {"AUTO": "auto", "ANY": "any", "NONE": "none", "VALIDATED": "auto", "MODE_UNSPECIFIED": "auto"}
_OPEN = ("BLOCK_NONE", "OFF", "HARM_BLOCK_THRESHOLD_UNSPECIFIED")


class ProtoFields(Fields):
    """The names of the JSON of Protocol Buffers. Raises BadBody where both forms of a name are there."""

    __slots__ = ()

    def named(self, value: dict[str, Any]) -> dict[str, tuple[str, Any]]:
        found: dict[str, tuple[str, Any]] = {}
        for written, member in value.items():
            name = camel(written)
            if name in found:
                path = f"{self.at}.{written}" if self.at else written
                raise BadBody(f"The field '{path}' appears more than once.", code="duplicate_key", param=path)
            if member is not None:
                found[name] = (written, member)
        return found

    def each(self, name: str) -> Iterator[Fields]:
        """A single object may stand for a list of one, as it does in Google's own examples."""
        value = self.peek(name)
        if type(value) is not dict:
            return super().each(name)
        path = self.path(name)
        self.take(name)
        return iter((type(self)(value, path, self.losses),))


def read(body: dict[str, Any], losses: Losses, *, model: str, stream: bool) -> Question:
    """`model` and `stream` stand in the path. Raises BadBody."""
    fields = ProtoFields(body, "", losses)
    settings: dict[str, Setting] = {}
    fields.ignore("model", "labels")
    _safety(fields)
    config = fields.within("generationConfig")
    if config is not None:
        _sampling(config, settings)
        _thinking(config.within("thinkingConfig"), settings)
        _format(config, settings)
        config.end()
    messages = []
    system = fields.within("systemInstruction")
    if system is not None:
        messages.append(Message(SYSTEM, tuple(_parts(system)), at=system.at))
        system.ignore("role")
        system.end()
    messages += [message for item in fields.each("contents") if (message := _message(item)) is not None]
    tools = tuple(_tools(fields))
    found = Question(model, stream, tuple(messages), tools, _pick(fields.within("toolConfig")), settings)
    fields.end()
    return _strict(found)


def _safety(fields: Fields) -> None:
    """A filter that is switched off says nothing to those who have none."""
    path, kept = fields.path("safetySettings"), []
    for item in fields.each("safetySettings"):
        kept.append(item.text("threshold") in _OPEN)
        item.ignore("category", "method")
        item.end()
    if not all(kept):
        fields.losses.lose(path)


def _sampling(config: Fields, settings: dict[str, Setting]) -> None:
    for name, neutral in NUMBERS.items():
        path = config.path(name)
        value = config.number(name)
        put(settings, neutral, value, path, hint=value == 0 and name.endswith("Penalty"))
    path = config.path("maxOutputTokens")
    put(settings, "max_output", config.integer("maxOutputTokens"), path)
    path = config.path("stopSequences")
    put(settings, "stop", config.strings("stopSequences"), path)
    path = config.path("seed")
    put(settings, "seed", config.integer("seed"), path)
    path = config.path("candidateCount")
    n = config.integer("candidateCount")
    put(settings, "n", n, path, hint=n == 1)
    if config.peek("responseLogprobs") is False:
        config.ignore("responseLogprobs")
    modes = config.peek("responseModalities")
    if modes in (["TEXT"], ["Text"], ["text"]):
        config.ignore("responseModalities")


def _thinking(found: Fields | None, settings: dict[str, Setting]) -> None:
    if found is None:
        return
    path = found.path("thinkingBudget")
    put(settings, "budget", found.integer("thinkingBudget"), path)
    path = found.path("thinkingLevel")
    level = found.text("thinkingLevel")
    put(settings, "effort", level.lower() if level not in ("", "THINKING_LEVEL_UNSPECIFIED") else None, path)
    path = found.path("includeThoughts")
    put(settings, "thoughts", found.flag("includeThoughts"), path, hint=True)
    found.end()


def _format(config: Fields, settings: dict[str, Setting]) -> None:
    path = config.path("responseMimeType")
    kind = config.text("responseMimeType")
    schema = config.mapping("responseJsonSchema")
    own = config.mapping("responseSchema")
    if own is not None and schema is None:
        schema = json_schema(own)
    if kind not in ("", "text/plain", "application/json"):
        config.losses.lose(path, kind)
    elif kind == "application/json" or schema is not None:
        put(settings, "format", Format(schema), path)


# -- contents ---------------------------------------------------------------------------------------------------------


def _message(item: Fields) -> Message | None:
    role = item.text("role")
    if role not in _ROLES:
        raise item.bad("role", "user or model")
    parts = tuple(_parts(item))
    item.end()
    return Message(_ROLES[role], parts, at=item.at)


def _parts(item: Fields) -> Iterator[Part]:
    for one in item.each("parts"):
        found = _part(one)
        if found is not None:
            yield found
        one.end()


def _part(item: Fields) -> Part | None:
    signature = item.text("thoughtSignature")
    thought = item.flag("thought") is True
    if item.has("text"):
        text = item.text("text")
        return _thought(text, signature, item) if thought else Text(text, signature=signature, at=item.at)
    if item.has("functionCall"):
        return _call(item.within("functionCall"), signature)
    if item.has("functionResponse"):
        return _returned(item.within("functionResponse"))
    for name in ("inlineData", "fileData"):
        if item.has(name):
            return _media(item.within(name))
    if signature:
        return Thought("", signature, "", ORIGIN, item.at)
    return None


def _thought(text: str, signature: str, item: Fields) -> Part:
    """The signatures of other providers come back in the base64 in which they were given."""
    try:
        known = unseal(b64decode(signature, validate=True).decode("ascii"))
    except ValueError:
        known = None
    if known is not None:
        return replace(known, text=text, at=item.at)
    return Thought(text, signature, "", ORIGIN if signature else "", item.at)


def _call(found: Fields | None, signature: str) -> Part | None:
    if found is None:
        return None
    path = found.path("args")
    arguments = json_text(found.mapping("args") or {})
    part = Invocation(found.text("name"), arguments, found.text("id"), signature, path)
    found.end()
    return part


def _returned(found: Fields | None) -> Part | None:
    """`output` and `error` are the keys that the API itself knows; any other object is a result as a whole."""
    if found is None:
        return None
    response = found.mapping("response") or {}
    media = tuple([part for one in _parts(found) if isinstance(part := one, Media)])
    id, name = found.text("id"), found.text("name")
    found.end()
    for key in ("output", "error"):
        if response.keys() == {key} and type(response[key]) is str:
            text = (Text(response[key], at=found.at),) if response[key] else ()
            return Returned(id, name, (*text, *media), error=key == "error", at=found.at)
    return Returned(id, name, media, json_text(response), at=found.at)


def _media(found: Fields | None) -> Part | None:
    if found is None:
        return None
    mime, name = image_type(found.text("mimeType")), found.text("displayName")
    data, uri = plain_base64(found.text("data")), found.text("fileUri")
    found.end()
    plain = _plain(mime, data)
    if plain:
        return Media(DOCUMENT, mime, text=plain, name=name, at=found.at)
    kind = kind_of(mime)
    own = "" if uri.startswith(("http://", "https://")) and "generativelanguage" not in uri else uri
    return Media(kind, mime, data, "" if own else uri, own, name=name, origin=ORIGIN, at=found.at)


def _plain(mime: str, data: str) -> str:
    """The words of a text, for APIs that have texts as documents; "" where it is none."""
    if mime != "text/plain" or not data:
        return ""
    try:
        return b64decode(data, validate=True).decode()
    except ValueError:
        return ""


def plain_base64(text: str) -> str:
    """Protocol Buffers' JSON takes the alphabet of URLs, and no padding, too; others do not."""
    text = text.replace("-", "+").replace("_", "/")
    return text + "=" * (-len(text) % 4)


def kind_of(mime: str) -> str:
    return {"image": IMAGE, "audio": AUDIO, "video": VIDEO}.get(mime.partition("/")[0], DOCUMENT)


# -- tools ------------------------------------------------------------------------------------------------------------


def _tools(fields: Fields) -> Iterator[Tool]:
    for item in fields.each("tools"):
        for one in item.each("functionDeclarations"):
            schema = one.mapping("parametersJsonSchema")
            own = one.mapping("parameters")
            if own is not None and schema is None:
                schema = json_schema(own)
            yield Tool(one.text("name"), one.text("description"), schema, at=one.at)
            if one.peek("behavior") in ("BLOCKING", "UNSPECIFIED"):
                one.ignore("behavior")
            one.ignore("response", "responseJsonSchema")  # describe the result to nobody but the programmer
            one.end()
        item.end()


def _pick(found: Fields | None) -> Pick | None:
    if found is None:
        return None
    calling = found.within("functionCallingConfig")
    pick: Pick | None = None
    if calling is not None:
        mode = calling.text("mode", "AUTO").upper()
        if mode not in _MODES:
            raise calling.bad("mode", "AUTO, ANY, NONE or VALIDATED")
        pick = Pick(_MODES[mode], calling.strings("allowedFunctionNames"), calling.at, mode == "VALIDATED")
        calling.end()
    found.end()
    return pick


def _strict(question: Question) -> Question:
    """`VALIDATED` is said once for all tools; elsewhere each tool says it."""
    if question.pick is None or not question.pick.validated:
        return question
    tools = tuple([replace(tool, strict=True) for tool in question.tools])
    return replace(question, tools=tools, pick=replace(question.pick, validated=False))
