"""What providers do by themselves inside of one call, and bill: searches, fetches, code, remote tools, other models.

What such a tool brings is no part of the request, so its input has no bound that could be proved. Each use is held to
bring `PER_USE` tokens, and every use makes the model read all of it again, as providers count it. Uses are counted by
`max_uses` (of a tool) or `max_tool_calls` (of the request) where stated, else as `USES`.

Pictures that are drawn on the way and containers that code runs in are billed beside the tokens, and no answer says how
much: they count by OpenAI's price list, https://platform.openai.com/docs/pricing, read in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

USES = 10
PER_USE = 8_000  # tokens that a use brings
PROMPT = 4_000  # tokens that declaring such a tool costs
PICTURE = 400_000_000_000  # pico-USD: a large one of high quality, and the pictures that it is made from
CONTAINERS = {"1g": 30_000_000_000, "4g": 120_000_000_000, "16g": 480_000_000_000, "64g": 1_920_000_000_000}
DRAWN, RUN = "image_generations", "code_containers"  # how often, in the detail of a usage
CLIENT_PROMPT = 1_600  # of tools that the provider defines and the client runs

_RUN_BY_CLIENT = re.compile(r"(?:bash|text_editor|str_replace|computer|memory|local_shell|shell|apply_patch)")
_DECLARATIONS = frozenset({"functionDeclarations", "function_declarations", "toolSpec", "cachePoint"})
_AGENTIC = re.compile(r"compound|sonar|deep-research|search-(?:preview|api)|:online")
FIELDS = frozenset(
    {"connectors", "mcp_servers", "web_search_options", "plugins", "search_parameters", "search_settings"}
)


class Hosted(Struct, frozen=True, gc=False):
    uses: int = 0
    prompt: int = 0  # tokens
    models: tuple[str, ...] = ()  # others that may be asked
    pictures: int = 0  # of the uses, those that may draw one
    container: int = 0  # pico-USD of the containers

    def tokens(self, base: int) -> int:
        """Input tokens in all, of a request that has `base` by itself."""
        uses = self.uses
        return (base + self.prompt) * (uses + 1) + PER_USE * uses * (uses + 1) // 2

    def __add__(self, other: Hosted) -> Hosted:
        return Hosted(*(getattr(self, name) + getattr(other, name) for name in self.__struct_fields__))

    def at_most(self, uses: int) -> Hosted:
        pictures = min(self.pictures, uses)
        return Hosted(min(self.uses, uses), self.prompt, self.models, pictures, self.container if uses else 0)

    @property
    def beside(self) -> int:
        """pico-USD that it costs at most beside its tokens."""
        return self.pictures * PICTURE + self.container


NONE = Hosted()


def hosted_tools(tools: bytes, uses: int) -> Hosted:
    """What the tool definitions of a request let the provider do. `uses`: of a tool that states no limit."""
    try:
        value = msgspec.json.decode(tools) if tools else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Hosted(uses, PROMPT)
    entries = [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, dict)]
    return sum((_tool(entry, uses) for entry in entries), NONE)


def _tool(entry: Mapping[str, Any], uses: int) -> Hosted:
    kind = entry.get("type")
    if kind is None and ("name" in entry or not entry.keys() - _DECLARATIONS):
        return NONE
    if kind in ("function", "custom", "namespace"):
        return NONE
    if isinstance(kind, str) and _RUN_BY_CLIENT.match(kind) and not _in_container(entry):
        return Hosted(0, CLIENT_PROMPT)
    inner = entry.get("parameters")
    places: list[Mapping[str, Any]] = [entry, inner] if isinstance(inner, dict) else [entry]
    stated = [place["max_uses"] for place in places if type(place.get("max_uses")) is int and place["max_uses"] >= 0]
    models = tuple(place["model"] for place in places if isinstance(place.get("model"), str))
    most = stated[0] if stated else uses
    pictures = most if kind == "image_generation" else 0
    runs = kind == "code_interpreter" or _in_container(entry)
    return Hosted(most, PROMPT, models, pictures, _container(entry) if runs else 0)


def of_stored_prompt(uses: int) -> Hosted:
    """What a prompt that the provider keeps may let it do: the request does not show its tools."""
    return Hosted(uses, PROMPT, container=CONTAINERS["1g"])


def _in_container(entry: Mapping[str, Any]) -> bool:
    """Is it a shell that the provider runs?"""
    where = entry.get("environment")
    return isinstance(where, dict) and where.get("type") != "local"


def _container(entry: Mapping[str, Any]) -> int:
    """What the container of this tool costs; one that the request names is paid for already."""
    container = entry.get("container") or entry.get("environment")
    if isinstance(container, str) or (isinstance(container, dict) and "container_id" in container):
        return 0
    memory = container.get("memory_limit") if isinstance(container, dict) else None
    return CONTAINERS["1g"] if memory is None else CONTAINERS.get(str(memory), CONTAINERS["64g"])


def taken(tools: bytes, detail: Mapping[str, float]) -> int:
    """pico-USD that an answer with this detail of its usage cost beside its tokens."""
    if DRAWN not in detail and RUN not in detail:
        return 0
    container = 0
    if RUN in detail:  # a tool that the request does not show is one of a stored prompt
        container = hosted_tools(tools, 0).container if b"code_interpreter" in tools else CONTAINERS["1g"]
    return int(detail.get(DRAWN, 0)) * PICTURE + container


def by_itself(model: str, fields: Collection[str], uses: int) -> int:
    """Uses of tools that no tool definition speaks of: of models that search, and of fields that make them."""
    found = uses if searches(model) else 0
    if not FIELDS.isdisjoint(fields):
        found += uses * len(FIELDS.intersection(fields))
    return found


@lru_cache(maxsize=1024)
def searches(model: str) -> bool:
    return _AGENTIC.search(model) is not None
