"""Splices that make a request cheaper: a lower limit of output, less reasoning, another model.

Rules
1. Nothing is ever raised, and only the bytes of the value in question change; what is missing is written behind the
   first brace of its object.
2. No edit is made of a body that is not the text that was read (it was sent compressed).
3. The edits of different purposes overlap only where they replace the same value: see `policy.splices`.
4. A value that no reader takes for a number sets no limit for us: it is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from gateway.call import Asked, Edit, Route
from gateway.dialects.allowance import CHAT_LIMITS, count
from gateway.dialects.asking import text
from gateway.dialects.body import Span, nested, object_at
from gateway.dialects.shape import NULL

Fields = Mapping[str, Raw]
Spans = Mapping[str, Span]
Edits = tuple[Edit, ...]

NEW_LIMIT = re.compile(r"(?:^|/)(?:o[1-9]|gpt-[5-9]|codex)")  # OpenAI's reasoning models refuse `max_tokens`
COMPLETION_DEFAULT = 16  # tokens a legacy completion has when it does not say (API reference of OpenAI)
LEAST_THINKING = 1024  # smallest `budget_tokens` that Anthropic takes

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_RANK = {effort: rank for rank, effort in enumerate(EFFORTS)}
# Tokens of thinking that stand for an effort where the API wants tokens: Google's own table for its OpenAI endpoint.
BUDGETS = {"none": 1024, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576}
_MINIMAL = re.compile(r"(?:^|/)gpt-5(?![.\d])(?!.*(?:codex|pro|chat))")  # the models that know `minimal`
_FIXED = re.compile(r"gpt-5-pro|o\d-pro|gpt-5\.\d-pro")  # their efforts cannot be lowered as others can


def is_the_text(asked: Asked, body: bytes) -> bool:
    """Is this the text that was read? By its last value, which stands where it was found."""
    if not asked.spans:
        text = body.strip()
        return text[:1] == b"{" and not text[1:-1].strip()
    key, (start, end) = list(asked.spans.items())[-1]
    return body[start:end] == bytes(asked.fields[key])


def added(opening: int, name: str, value: bytes, fields: Fields) -> Edit:
    """A new first member of the object whose brace stands at `opening`."""
    return Edit(opening + 1, opening + 1, b'"%b":%b%b' % (name.encode(), value, b"," if fields else b""))


def within(raw: Raw, ceiling: int) -> bool:
    value = count(raw)
    return value is not None and value <= ceiling


def stated(fields: Fields, names: tuple[str, ...]) -> list[str]:
    """Those of the names that hold something else than null."""
    return [name for name in names if name in fields and fields[name] != NULL]


def cap(fields: Fields, spans: Spans, names: tuple[str, ...], ceiling: int) -> Edits | None:
    """Lower every stated limit of an object; None where none is stated."""
    known = stated(fields, names)
    if not known:
        return None
    return tuple(Edit(*spans[name], b"%d" % ceiling) for name in known if not within(fields[name], ceiling))


def set_limit(fields: Fields, spans: Spans, name: str, ceiling: int, opening: int) -> Edits:
    """State a limit that is null or missing."""
    if name in fields:
        return (Edit(*spans[name], b"%d" % ceiling),)
    return (added(opening, name, b"%d" % ceiling, fields),)


def cap_flat(asked: Asked, body: bytes, ceiling: int, names: tuple[str, ...], name: str) -> Edits | None:
    """Of a limit at the top level; `name` is written where none of the `names` is stated."""
    if not is_the_text(asked, body):
        return None
    edits = cap(asked.fields, asked.spans, names, ceiling)
    if edits is None:
        return set_limit(asked.fields, asked.spans, name, ceiling, body.index(b"{"))
    return edits


def cap_chat(asked: Asked, body: bytes, ceiling: int, model: str) -> Edits | None:
    name = "max_completion_tokens" if NEW_LIMIT.search(model) else "max_tokens"
    return cap_flat(asked, body, ceiling, CHAT_LIMITS, name)


def cap_completion(asked: Asked, body: bytes, ceiling: int) -> Edits | None:
    """Where the client sets no limit the API has a small one of its own: that must not be raised either."""
    if not stated(asked.fields, ("max_tokens",)):
        ceiling = min(ceiling, COMPLETION_DEFAULT)
    return cap_flat(asked, body, ceiling, ("max_tokens",), "max_tokens")


def cap_messages(asked: Asked, body: bytes, ceiling: int) -> Edits | None:
    """Anthropic wants `budget_tokens` of thinking below `max_tokens`, and at least 1024: both are lowered, thinking to
    half of the ceiling. None where the ceiling leaves no room for the least thinking.

    A budget that was not below (interleaved thinking) may stay. None, too, where a fallback has a limit of its own.
    """
    if "fallbacks" in asked.fields and limited_apart(asked.fields["fallbacks"]):
        return None
    edits = cap_flat(asked, body, ceiling, ("max_tokens",), "max_tokens")
    span = asked.spans.get("thinking")
    if not edits or span is None or body[span[0]] != 0x7B:
        return edits
    fields, spans = nested(body, span, "thinking")
    budget, limit = count(fields.get("budget_tokens")), count(asked.fields.get("max_tokens"))
    if budget is None or budget < ceiling or (limit is not None and budget >= limit):
        return edits
    if ceiling <= LEAST_THINKING:
        return None
    least = max(ceiling // 2, LEAST_THINKING)
    return (*edits, Edit(*spans["budget_tokens"], b"%d" % least))


def limited_apart(fallbacks: Raw) -> bool:
    entries = msgspec.json.decode(fallbacks)
    return isinstance(entries, list) and any(isinstance(one, dict) and "max_tokens" in one for one in entries)


def gemini_config(asked: Asked) -> str:
    """The name under which the body holds its generation config, or would."""
    return "generation_config" if "generation_config" in asked.fields else "generationConfig"


def cap_gemini(asked: Asked, body: bytes, ceiling: int) -> Edits | None:
    return cap_nested(asked, body, ceiling, gemini_config(asked), ("maxOutputTokens", "max_output_tokens"))


def cap_nested(asked: Asked, body: bytes, ceiling: int, name: str, names: tuple[str, ...]) -> Edits | None:
    """Of a limit in the object called `name`, under one of the `names`: the first is written where none is there."""
    if not is_the_text(asked, body):
        return None
    span = asked.spans.get(name)
    alone = b'{"%b":%d}' % (names[0].encode(), ceiling)
    if span is None:
        return (added(body.index(b"{"), name, alone, asked.fields),)
    if asked.fields[name] == NULL:
        return (Edit(*span, alone),)
    if body[span[0]] != 0x7B:
        return None
    fields, spans = nested(body, span, name)
    edits = cap(fields, spans, names, ceiling)
    if edits is not None:
        return edits
    known = next((one for one in names if one in fields), names[0])
    return set_limit(fields, spans, known, ceiling, span[0])


def cap_ollama(asked: Asked, body: bytes, ceiling: int) -> Edits | None:
    """`num_predict`, of which 0 would be no limit at all."""
    if ceiling < 1 or not is_the_text(asked, body):
        return None
    limit = b'{"num_predict":%d}' % ceiling
    span = asked.spans.get("options")
    if span is None:
        return (added(body.index(b"{"), "options", limit, asked.fields),)
    if asked.fields["options"] == NULL:
        return (Edit(*span, limit),)
    if body[span[0]] != 0x7B:
        return None
    fields, spans = nested(body, span, "options")
    if "num_predict" in fields and count(fields["num_predict"]) == 0:
        return (Edit(*spans["num_predict"], b"%d" % ceiling),)
    edits = cap(fields, spans, ("num_predict",), ceiling)
    return set_limit(fields, spans, "num_predict", ceiling, span[0]) if edits is None else edits


# -- reasoning ------------------------------------------------------------------------------------------------------


def lower_word(raw: Raw | None, span: Span | None, effort: str) -> Edits:
    """An effort as a word, in the case in which it is written."""
    word = text(raw)
    rank = _RANK.get(word.lower())
    if span is None or rank is None or rank <= _RANK[effort]:
        return ()
    return (Edit(*span, b'"%b"' % (effort.upper() if word.isupper() else effort).encode()),)


def lower_number(raw: Raw | None, span: Span | None, most: int) -> Edits:
    """A budget in tokens; negative means that the model decides, which may be any number."""
    if span is None or raw is None or raw == NULL:
        return ()
    return () if within(raw, most) else (Edit(*span, b"%d" % most),)


def inside(asked: Asked, body: bytes, name: str) -> tuple[Fields, Spans]:
    """An object at the top level of the body; nothing where there is none."""
    return object_at(body, asked.spans, name)


def openai_effort(effort: str, model: str) -> str:
    """What the model knows: `minimal` is one family's alone; "" where nothing lower is known to it."""
    if _FIXED.search(model):
        return ""
    return "low" if effort in ("none", "minimal") and not _MINIMAL.search(model) else effort


def lower_openai(asked: Asked, body: bytes, effort: str, model: str) -> Edits:
    """`reasoning_effort` of chat completions, `reasoning.effort` of responses (and of chat at some providers)."""
    known = openai_effort(effort, model)
    if not known or not is_the_text(asked, body):
        return ()
    fields, spans = inside(asked, body, "reasoning")
    return (
        *lower_word(asked.fields.get("reasoning_effort"), asked.spans.get("reasoning_effort"), known),
        *lower_word(fields.get("effort"), spans.get("effort"), known),
    )


def lower_cohere(asked: Asked, body: bytes, effort: str) -> Edits:
    """`thinking.token_budget`; without one, thinking has no bound."""
    if not is_the_text(asked, body):
        return ()
    thinking, where = inside(asked, body, "thinking")
    if text(thinking.get("type")) == "disabled" or not thinking:
        return ()
    name, most = "token_budget", BUDGETS[effort]
    if name in thinking and thinking[name] != NULL:
        return lower_number(thinking[name], where[name], most)
    return set_limit(thinking, where, name, most, asked.spans["thinking"][0])


def lower_ollama(asked: Asked, body: bytes, effort: str) -> Edits:
    """`think` as a word, the lowest of which is `low`."""
    if not is_the_text(asked, body):
        return ()
    word = "low" if effort in ("none", "minimal") else effort
    return lower_word(asked.fields.get("think"), asked.spans.get("think"), word)


def lower_messages(asked: Asked, body: bytes, effort: str) -> Edits:
    """`thinking.budget_tokens` and `output_config.effort`, whose lowest word is `low`."""
    if not is_the_text(asked, body):
        return ()
    thinking, where = inside(asked, body, "thinking")
    config, places = inside(asked, body, "output_config")
    word = "low" if effort in ("none", "minimal") else effort
    return (
        *lower_number(thinking.get("budget_tokens"), where.get("budget_tokens"), BUDGETS[effort]),
        *lower_word(config.get("effort"), places.get("effort"), word),
    )


def lower_gemini(asked: Asked, body: bytes, effort: str, model: str) -> Edits:
    """`thinkingBudget` or `thinkingLevel`; the pro models know no level between low and high."""
    if not is_the_text(asked, body):
        return ()
    spans = inside(asked, body, gemini_config(asked))[1]
    for name in ("thinkingConfig", "thinking_config"):
        span = spans.get(name)
        if span is not None and body[span[0]] == 0x7B:
            config, where = nested(body, span, name)
            word = "low" if effort in ("none", "minimal") or "-pro" in model else effort
            edits: Edits = ()
            for key in ("thinkingBudget", "thinking_budget"):
                edits += lower_number(config.get(key), where.get(key), BUDGETS[effort])
            for key in ("thinkingLevel", "thinking_level"):
                edits += lower_word(config.get(key), where.get(key), word)
            return edits
    return ()


# -- the model ------------------------------------------------------------------------------------------------------


def rename_in_body(asked: Asked, model: str, prefix: str = "") -> Edits:
    span = asked.spans.get("model")
    return () if span is None else (Edit(*span, msgspec.json.encode(prefix + model)),)


def rename_in_path(route: Route, asked: Asked, model: str) -> tuple[Route, Edits]:
    """Gemini, and Claude at Vertex, name the model in the path; where the body repeats it, there too."""
    path, mark, query = route.path.partition(b"?")
    head, found, last = path.rpartition(b"odels/")
    if not found:
        return route, ()
    sent = b"%bodels/%b:%b%b%b" % (head, quote(model, safe="/@").encode(), last.partition(b":")[2], mark, query)
    prefix = "models/" if text(asked.fields.get("model")).startswith("models/") else ""
    return replace(route, path=sent), rename_in_body(asked, model, prefix)
