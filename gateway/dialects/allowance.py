"""What a request may make the provider do: how much output, how often, with which tools and which history.

The readers err towards more: where two fields set the same limit, the larger counts; a limit that is no number is none.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.call import Asked, Bounds
from gateway.dialects.asking import MAX_TEXT, integer, member, text
from gateway.dialects.shape import DECODE_FAULTS, Shape

CHAT_LIMITS = ("max_completion_tokens", "max_tokens")
MAX_CHOICES = 10_000  # no API gives more; a larger number is refused by the provider, not multiplied here
LARGEST = 10**12
MAX_STREAMED = 256  # choices of a stream that are told apart
PRICED_BY = (("service_tier", "serviceTier"), ("speed",), ("inference_geo",))

# Tools of a dated or plain type that the provider runs by itself; others of a type are run by the client.
_SERVER_RUN = (
    "web_search", "web_fetch", "code_execution", "tool_search", "mcp", "advisor",
    "file_search", "code_interpreter", "image_generation",
)  # fmt: skip
_GEMINI_CALLS = ("functionDeclarations", "function_declarations")
_number = msgspec.json.Decoder(int | float | str)


class _Named(Struct, gc=False):
    name: Any = None


class _Tool(Struct, gc=False):
    """A tool definition of any dialect."""

    type: Any = None
    name: Any = None
    max_uses: Any = None
    server_label: Any = None
    mcp_server_name: Any = None
    function: _Named | None = None
    custom: _Named | None = None


_tool = Shape(_Tool)
_items: msgspec.json.Decoder[list[Raw]] = msgspec.json.Decoder(list[Raw])
_object: msgspec.json.Decoder[dict[str, Raw]] = msgspec.json.Decoder(dict[str, Raw])
_declared: msgspec.json.Decoder[list[_Named]] = msgspec.json.Decoder(list[_Named])
_members: msgspec.json.Decoder[list[dict[str, Raw]]] = msgspec.json.Decoder(list[dict[str, Raw]])

Declared = tuple[tuple[str, ...], tuple[tuple[str, int], ...]]
"""(names of the tools the client runs, (kind, uses at most or 0) of those the provider runs)."""


def count(raw: Raw | None) -> int | None:
    """A number of tokens or choices, rounded up: some APIs take 1e3, 8.0 and "8" for one. None for anything else."""
    exact = integer(raw)
    if exact is not None or raw is None or len(raw) > 32:
        return exact
    try:
        value = _number.decode(raw)
        value = float(value) if type(value) is str else value
    except (*DECODE_FAULTS, ValueError):
        return None
    assert not isinstance(value, str)
    return math.ceil(value) if 0 <= value <= LARGEST else None


def largest(fields: Mapping[str, Raw], names: Iterable[str]) -> int | None:
    """Of the counts under these names."""
    found = [value for name in names if (value := count(fields.get(name))) is not None]
    return max(found) if found else None


def times(fields: Mapping[str, Raw], *names: str) -> int:
    """How many answers at once."""
    return min(max(largest(fields, names) or 1, 1), MAX_CHOICES)


def members(raw: Raw | None) -> Mapping[str, Raw]:
    """Of an object; none of anything else."""
    if raw is None:
        return {}
    try:
        return _object.decode(raw)
    except DECODE_FAULTS:
        return {}


def prices_by(fields: Mapping[str, Raw]) -> dict[str, str]:
    """What the client asks for that changes the price, under the keys of `Answer.pricing`."""
    found: dict[str, str] = {}
    for names in PRICED_BY:
        value = next((word for name in names if (word := text(fields.get(name)))), "")
        if value:
            found[names[0]] = value[:MAX_TEXT]
    return found


def chat(asked: Asked) -> Bounds:
    """Chat and legacy completions; the latter answer each prompt of a list `n` times, and make `best_of` of each."""
    fields = asked.fields
    choices = min(times(fields, "n", "best_of") * prompts(fields.get("prompt")), MAX_CHOICES)
    tools, server = declared(asked.tools)
    if "web_search_options" in fields:
        server = (*server, ("web_search", 0))
    return Bounds(largest(fields, CHAT_LIMITS), choices, "", server, tools, prices_by(fields))


def streamed(fields: Mapping[str, Raw]) -> int:
    """How many choices a stream of chat or legacy completions carries."""
    return min(times(fields, "n") * prompts(fields.get("prompt")), MAX_STREAMED)


def prompts(raw: Raw | None) -> int:
    """How many prompts: a list of numbers is one, of tokens."""
    if raw is None or bytes(raw)[:1] != b"[":
        return 1
    try:
        found = _items.decode(raw)
    except DECODE_FAULTS:
        return 1
    return 1 if not found or bytes(found[0])[:1] not in (b'"', b"[") else len(found)


def responses(asked: Asked) -> Bounds:
    fields = asked.fields
    tools, server = declared(asked.tools)
    calls = count(fields.get("max_tool_calls"))  # of all tools that the provider runs, together
    if calls is not None and server:
        server = tuple((name, min(uses or calls, calls)) for name, uses in server)
    conversation = fields.get("conversation")
    history = (
        text(fields.get("previous_response_id"))
        or text(conversation)
        or member(conversation, "id")
        or member(fields.get("prompt"), "id")
    )
    limit = largest(fields, ("max_output_tokens",))
    return Bounds(limit, 1, history[:MAX_TEXT], server, tools, prices_by(fields))


def messages(asked: Asked) -> Bounds:
    fields = asked.fields
    tools, server = declared(asked.tools)
    if "mcp_servers" in fields and len(fields["mcp_servers"]) > 4:
        server = (*server, ("mcp", 0))
    history = member(fields.get("thread"), "previous_message_id")
    return Bounds(largest(fields, ("max_tokens",)), 1, history, server, tools, prices_by(fields))


def cohere(asked: Asked) -> Bounds:
    """Connectors are searched by the provider; a conversation may be kept there."""
    fields = asked.fields
    tools, server = declared(asked.tools)
    if "connectors" in fields and len(fields["connectors"]) > 4:
        server = (*server, ("connectors", 0))
    history = text(fields.get("conversation_id"))[:MAX_TEXT]
    limit, choices = largest(fields, ("max_tokens",)), times(fields, "num_generations")
    return Bounds(limit, choices, history, server, tools, prices_by(fields))


def predicted(options: Mapping[str, Raw]) -> int | None:
    """The limit that Ollama's options state. Neither 0 nor anything negative is one."""
    return count(options.get("num_predict")) or None


def ollama(asked: Asked) -> Bounds:
    fields = asked.fields
    tools, server = declared(asked.tools)
    return Bounds(predicted(members(fields.get("options"))), 1, "", server, tools, prices_by(fields))


def gemini(asked: Asked) -> Bounds:
    fields = asked.fields
    config = members(fields.get("generationConfig") or fields.get("generation_config"))
    tools, server = declared_to_gemini(asked.tools)
    history = text(fields.get("cachedContent")) or text(fields.get("cached_content"))
    return Bounds(
        largest(config, ("maxOutputTokens", "max_output_tokens")),
        times(config, "candidateCount", "candidate_count"),
        history[:MAX_TEXT],
        server,
        tools,
        prices_by(fields),
    )


@functools.lru_cache(maxsize=32)  # agents declare the same tools in every turn
def declared(raw: bytes) -> Declared:
    """What an array of tool definitions holds."""
    if not raw:
        return (), ()
    try:
        found = _tool.many.decode(raw)
    except DECODE_FAULTS:
        return (), ()
    names: list[str] = []
    server: list[tuple[str, int]] = []
    for tool in found:
        kind = tool.type if type(tool.type) is str else ""
        run = next((name for name in _SERVER_RUN if kind.startswith(name)), "")
        if run:
            uses = tool.max_uses if type(tool.max_uses) is int and tool.max_uses > 0 else 0
            server.append((run, uses))
            continue
        inner = tool.function or tool.custom
        name = tool.name if type(tool.name) is str else inner.name if inner is not None else kind
        if type(name) is str and name:
            names.append(name[:MAX_TEXT])
    return tuple(names), tuple(server)


@functools.lru_cache(maxsize=32)
def declared_to_gemini(raw: bytes) -> Declared:
    """Of Gemini's tools: each object declares functions, or switches something of the provider's on by its key."""
    if not raw:
        return (), ()
    try:
        found = _members.decode(raw)
    except DECODE_FAULTS:
        return (), ()
    names: list[str] = []
    server: list[tuple[str, int]] = []
    for tool in found:
        for key, value in tool.items():
            if key in _GEMINI_CALLS:
                names += _declared_names(value)
            else:
                server.append((_snake(key), 0))
    return tuple(names), tuple(server)


@functools.lru_cache(maxsize=32)
def declared_to_bedrock(raw: bytes) -> Declared:
    """Of the tools of Converse: `toolSpec` is the client's, `systemTool` the provider's."""
    if not raw:
        return (), ()
    try:
        found = _members.decode(raw)
    except DECODE_FAULTS:
        return (), ()
    names = [member(tool.get("toolSpec"), "name") for tool in found]
    server = [member(tool.get("systemTool"), "name") for tool in found]
    return tuple(filter(None, names)), tuple([(name, 0) for name in server if name])


def _declared_names(raw: Raw) -> list[str]:
    try:
        return [one.name[:MAX_TEXT] for one in _declared.decode(raw) if type(one.name) is str]
    except DECODE_FAULTS:
        return []


def _snake(key: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in key)[:MAX_TEXT]
