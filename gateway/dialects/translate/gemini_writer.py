"""The neutral form -> requests of Gemini generateContent. The model and whether it streams stand in the path."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any

from gateway.dialects.translate.common import (
    MADE,
    budget_of,
    effort_of,
    merged,
    object_text,
    results_first,
    with_ids,
    words,
)
from gateway.dialects.translate.gemini_reader import NUMBERS, ORIGIN
from gateway.dialects.translate.losses import Losses, Settings
from gateway.dialects.translate.neutral import (
    ASSISTANT,
    SYSTEM,
    VIDEO,
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

# Google's word for a call that was not made by the model it is sent to: the models from 3 on want a signature.
UNSIGNED = "skip_thought_signature_validator"
_BY_BUDGET = re.compile(r"gemini-[12](?!\d)|learnlm|gemma")  # the others think by level
_MODES = {"auto": "AUTO", "any": "ANY", "none": "NONE"}
_MIMES = {
    **{"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif"},
    **{"heic": "image/heic", "heif": "image/heif", "pdf": "application/pdf"},
}
_EXTENSION = re.compile(r"\.([a-zA-Z]{3,4})(?:[?#]|\Z)")


def write(question: Question, losses: Losses) -> dict[str, Any]:
    body: dict[str, Any] = {}
    messages = with_ids(question.messages)
    leading = next((at for at, message in enumerate(messages) if message.role != SYSTEM), len(messages))
    system = [part for message in messages[:leading] for part in _parts(message, question.model, losses)]
    if system:
        body["systemInstruction"] = {"parts": system}
    body["contents"] = [
        said for message in merged(messages[leading:]) if (said := _message(message, question.model, losses))
    ]
    if question.tools:
        body["tools"] = [{"functionDeclarations": [_tool(tool) for tool in question.tools]}]
    settings = Settings(question.settings, losses)
    config = _config(question, settings)
    _calling(body, question, settings)
    settings.end()
    if config:
        body["generationConfig"] = config
    return body


def _config(question: Question, settings: Settings) -> dict[str, Any]:
    config: dict[str, Any] = {}
    names = {neutral: name for name, neutral in NUMBERS.items()}
    names |= {"max_output": "maxOutputTokens", "seed": "seed", "n": "candidateCount"}
    for neutral, name in names.items():
        value = settings.take(neutral)
        if value is not None:
            config[name] = value
    stop = settings.take("stop")
    if stop:
        config["stopSequences"] = list(stop)
    form: Format | None = settings.take("format")
    if form is not None:
        config["responseMimeType"] = "application/json"
        if form.schema is not None:
            config["responseJsonSchema"] = form.schema
    thinking = _thinking(question.model, settings)
    if thinking:
        config["thinkingConfig"] = thinking
    return config


def _thinking(model: str, settings: Settings) -> dict[str, Any]:
    effort, budget, shown = settings.effort(), settings.take("budget"), settings.take("thoughts")
    found: dict[str, Any] = {}
    if shown is not None:
        found["includeThoughts"] = shown
    if _BY_BUDGET.search(model):
        if budget is None and effort is not None:
            budget = budget_of(effort)
        if budget is not None:
            found["thinkingBudget"] = budget
        return found
    if effort is None and budget is not None and budget >= 0:
        effort = effort_of(budget) if budget else "none"
    if effort is not None:
        word = "high" if effort in ("xhigh", "max") else "minimal" if effort == "none" else effort
        found["thinkingLevel"] = word
    return found


# -- contents ---------------------------------------------------------------------------------------------------------


def _message(message: Message, model: str, losses: Losses) -> dict[str, Any] | None:
    if message.role == SYSTEM:
        losses.lose(f"{message.at}.role", "a system message within the conversation")
        return None
    parts = _parts(message, model, losses)
    return {"role": "model" if message.role == ASSISTANT else "user", "parts": parts} if parts else None


def _parts(message: Message, model: str, losses: Losses) -> list[dict[str, Any]]:
    if message.name:
        losses.lose(f"{message.at}.name")
    parts = message.parts if message.role == ASSISTANT else results_first(message.parts)
    found = [said for part in parts if (said := _part(part, losses)) is not None]
    if not _BY_BUDGET.search(model):
        call = next((part for part in found if "functionCall" in part), None)
        if call is not None and "thoughtSignature" not in call:
            call["thoughtSignature"] = UNSIGNED
    return found


def _part(part: Part, losses: Losses) -> dict[str, Any] | None:
    if isinstance(part, Text):
        found: dict[str, Any] = {"text": part.text}
        if part.signature:
            found["thoughtSignature"] = part.signature
        return found if part.text or part.signature else None
    if isinstance(part, Media):
        return _media(part, losses)
    if isinstance(part, Invocation):
        return _call(part, losses)
    if isinstance(part, Returned):
        return _returned(part, losses)
    return _thought(part)


def _thought(part: Thought) -> dict[str, Any] | None:
    """Reasoning that others made says nothing to this API."""
    if part.origin != ORIGIN or not part.signature:
        return None
    return {"text": part.text, "thought": True, "thoughtSignature": part.signature}


def _call(part: Invocation, losses: Losses) -> dict[str, Any]:
    arguments = object_text(part.arguments)
    if arguments is None:
        losses.lose(part.at, "not the text of a JSON object")
    call: dict[str, Any] = {"name": part.name, "args": arguments}
    if part.id and not part.id.startswith(MADE):
        call = {"id": part.id, **call}
    return {"functionCall": call, **({"thoughtSignature": part.signature} if part.signature else {})}


def _returned(part: Returned, losses: Losses) -> dict[str, Any]:
    if not part.name:
        losses.lose(part.at, "the result of a tool that nothing called")
    response: Any = {"error" if part.error else "output": words(part.parts)}
    if part.json:
        response = object_text(part.json)
    found: dict[str, Any] = {"name": part.name, "response": response}
    if part.id and not part.id.startswith(MADE):
        found = {"id": part.id, **found}
    media = [said for one in part.parts if isinstance(one, Media) and (said := _media(one, losses)) is not None]
    if media:
        found["parts"] = media
    return {"functionResponse": found}


def _media(part: Media, losses: Losses) -> dict[str, Any] | None:
    if part.text:
        data = b64encode(part.text.encode("utf-8", "replace")).decode()
        return {"inlineData": {"mimeType": part.mime or "text/plain", "data": data}}
    if part.data and part.mime:
        return {"inlineData": {"mimeType": part.mime, "data": part.data}}
    uri = part.url or (part.file if part.origin == ORIGIN else "")
    extension = _EXTENSION.search(uri)
    mime = part.mime or _MIMES.get(extension[1].lower() if extension else "", "")
    if uri and (mime or part.kind == VIDEO):
        return {"fileData": {"mimeType": mime, "fileUri": uri}}
    losses.lose(part.at, part.mime or part.kind)
    return None


# -- tools ------------------------------------------------------------------------------------------------------------


def _tool(tool: Tool) -> dict[str, Any]:
    found: dict[str, Any] = {"name": tool.name}
    if tool.description:
        found["description"] = tool.description
    if tool.schema is not None:
        found["parametersJsonSchema"] = tool.schema
    return found


def _calling(body: dict[str, Any], question: Question, settings: Settings) -> None:
    """Strict tools are asked for by a mode of all of them, which holds for the others too."""
    if settings.take("parallel") is False and question.tools:
        settings.lose("parallel")
    if not question.tools:
        return
    pick = question.pick or Pick("auto")
    mode = _MODES[pick.mode]
    if pick.mode == "auto" and (pick.names or any(tool.strict for tool in question.tools)):
        mode = "VALIDATED"
    if question.pick is None and mode == "AUTO":
        return
    config: dict[str, Any] = {"mode": mode}
    if pick.names and pick.mode != "none":
        config["allowedFunctionNames"] = list(pick.names)
    body["toolConfig"] = {"functionCallingConfig": config}
