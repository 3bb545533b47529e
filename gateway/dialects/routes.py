"""What a path means, decided on the raw path alone: no decoding, no normalising.

Rules
1. What is routed is what is sent: dot segments (also `..;x`), `//`, `%2e`, `%2f`, `%5c`, letters, digits, `-` and `_`
   in percent-encoding, backslashes, fragments and anything outside printable ASCII are refused, so that no hop can read
   the path differently. A slash at the end changes no meaning, for many servers overlook it.
2. `/run/{run_id}`, `/agent/{name}`, `/version/{version}` (of the agent) and `/budget/{usd}` may stand before any route,
   in any order, and are taken off.
3. A first segment that names a configured upstream is taken off and selects it; otherwise the route's API family does.
4. Under a known upstream every path passes; those without a known meaning are opaque (no tokens).
5. `/tools/{name}` and `/mcp/{name}` lead to what is configured under these names; see gateway.dialects.tool_paths.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from gateway.call import Route
from gateway.dialects import tool_paths
from gateway.dialects.tool_paths import MCP, TOOLS, Door
from gateway.errors import BadPath, UnknownRoute

_ENCODED = rb"%(?:2[def]|3[0-9]|[46][1-9a-f]|[57][0-9a]|5[cf])"  # - . / digits, letters, backslash and _
_UNSAFE = re.compile(rb"//|/\.{1,2}(?:[/;]|$)|[^!-~]|[\\#]|" + _ENCODED, re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")

CACHED_TARGET = 256  # longer targets are not worth the memory
UNROUTED = Route("other", "opaque", "", "", b"")


class Known(Struct, frozen=True):
    """One line of the route table: a pattern of the path behind the version prefix, and what it means."""

    pattern: re.Pattern[str]
    template: str
    dialect: str
    operation: str  # for POST; other methods fetch or delete and carry no tokens of their own
    fetch: str = ""  # operation of GET


def _known(pattern: str, template: str, dialect: str, operation: str, fetch: str = "") -> Known:
    return Known(re.compile(pattern), template, dialect, operation, fetch)


def _gemini(verb: str, operation: str) -> Known:
    return _known(rf"(?:.+/)?models/[^/:]+:{verb}", f"/v1beta/models/{{model}}:{verb}", "gemini", operation)


_ID = r"[^/]+"
OPENAI = (
    _known(r"(?:.+/)?chat/completions", "/v1/chat/completions", "openai_chat", "chat"),
    _known(r"(?:.+/)?completions", "/v1/completions", "openai_completions", "text_completion"),
    _known(r"(?:.+/)?responses", "/v1/responses", "openai_responses", "chat", "chat"),
    _known(r"(?:.+/)?responses/compact", "/v1/responses/compact", "openai_responses", "chat"),
    _known(r"(?:.+/)?responses/input_tokens", "/v1/responses/input_tokens", "openai_responses", ""),
    _known(rf"(?:.+/)?responses/{_ID}/cancel", "/v1/responses/{id}/cancel", "openai_responses", "fetch_response"),
    _known(rf"(?:.+/)?responses/{_ID}/input_items", "/v1/responses/{id}/input_items", "openai_responses", ""),
    _known(rf"(?:.+/)?responses/{_ID}", "/v1/responses/{id}", "openai_responses", "", "fetch_response"),
    _known(r"(?:.+/)?embeddings", "/v1/embeddings", "openai_embeddings", "embeddings"),
    _known(r"(?:.+/)?realtime", "/v1/realtime", "openai_responses", "", "chat"),
    _known(rf"models(?:/{_ID})*", "/v1/models", "opaque", ""),
)
# What other providers offer in OpenAI's API beside their own. The template is one that no other upstream is asked by.
_COMPATIBLE = (
    _known(r"(?:openai/)?chat/completions", "/openai/chat/completions", "openai_chat", "chat"),
    _known(r"(?:openai/)?embeddings", "/openai/embeddings", "openai_embeddings", "embeddings"),
)
_VERTEX = r"(?:projects/.+/)?publishers/anthropic/models/"
ANTHROPIC = (
    _known(r"messages", "/v1/messages", "anthropic", "chat"),
    _known(rf"{_VERTEX}count-tokens:rawPredict", "/v1/messages/count_tokens", "anthropic", ""),
    _known(rf"{_VERTEX}[^/:]+:(?:rawPredict|streamRawPredict)", "/v1/models/{model}:rawPredict", "anthropic", "chat"),
    _known(r"messages/count_tokens", "/v1/messages/count_tokens", "anthropic", ""),
    _known(r"messages/batches(?:/.*)?", "/v1/messages/batches", "anthropic", ""),
    _known(rf"models(?:/{_ID})*", "/v1/models", "anthropic", ""),
    *_COMPATIBLE,
)
GEMINI = (
    _gemini("generateContent", "generate_content"),
    _gemini("streamGenerateContent", "generate_content"),
    _gemini("embedContent", "embeddings"),
    _gemini("batchEmbedContents", "embeddings"),
    _gemini("countTokens", ""),
    _known(rf"models(?:/{_ID})*", "/v1beta/models", "gemini", ""),
    *_COMPATIBLE,
)
_MODEL = "/model/{modelId}"
BEDROCK = (
    _known(rf"model/{_ID}/converse", f"{_MODEL}/converse", "bedrock_converse", "chat"),
    _known(rf"model/{_ID}/converse-stream", f"{_MODEL}/converse-stream", "bedrock_converse", "chat"),
    _known(r"model/[^/]*embed[^/]*/invoke", f"{_MODEL}/invoke", "bedrock_invoke", "embeddings"),
    _known(r"model/[^/]*rerank[^/]*/invoke", f"{_MODEL}/invoke", "bedrock_invoke", "rerank"),
    _known(rf"model/{_ID}/invoke", f"{_MODEL}/invoke", "bedrock_invoke", "chat"),
    _known(rf"model/{_ID}/invoke-with-response-stream", f"{_MODEL}/invoke", "bedrock_invoke", "chat"),
    _known(rf"model/{_ID}/count-tokens", f"{_MODEL}/count-tokens", "bedrock_invoke", ""),
)
COHERE = (
    _known(r"(?:.+/)?v1/chat", "/v1/chat", "cohere", "chat"),  # before what holds for v2 and without a version
    _known(r"(?:.+/)?chat", "/v2/chat", "cohere", "chat"),
    _known(r"(?:.+/)?generate", "/v1/generate", "cohere", "text_completion"),
    _known(r"(?:.+/)?embed", "/v2/embed", "cohere", "embeddings"),
    _known(r"(?:.+/)?rerank", "/v2/rerank", "cohere", "rerank"),
    _known(rf"models(?:/{_ID})*", "/v1/models", "cohere", ""),
    *_COMPATIBLE,
)
OLLAMA = (
    _known(r"(?:.+/)?api/chat", "/api/chat", "ollama", "chat"),
    _known(r"(?:.+/)?api/generate", "/api/generate", "ollama", "generate_content"),  # in the model's own template
    _known(r"(?:.+/)?api/embed(?:dings)?", "/api/embed", "ollama", "embeddings"),
    _known(r"(?:.+/)?api/tags", "/api/tags", "ollama", ""),
    _known(r"(?:.+/)?api/show", "/api/show", "ollama", ""),
    _known(rf"models(?:/{_ID})*", "/v1/models", "ollama", ""),
    *_COMPATIBLE,
    _known(r"completions", "/openai/completions", "openai_completions", "text_completion"),
    _known(r"responses", "/openai/responses", "openai_responses", "chat"),
)
FAMILIES: Mapping[str, tuple[Known, ...]] = {
    "openai": OPENAI,
    "anthropic": ANTHROPIC,
    "gemini": GEMINI,
    "bedrock": BEDROCK,
    "cohere": COHERE,
    "ollama": OLLAMA,
    "opaque": (),
}
_OTHER_DIALECT = {family: family for family in FAMILIES} | {"openai": "opaque", "bedrock": "bedrock_invoke"}
PREFIXES = ("run", "agent", "version", "budget")
_OF_TOOLS = {TOOLS: "tool", MCP: "mcp"}  # first segment -> dialect
_VERSION = re.compile(r"/(?:[^?]*/)?v\d+(?:alpha|beta)?\d*/")


class Table:
    """The routes of one configuration: upstream name -> API family, and which upstream serves a family by default.

    `doors` lead to tools and MCP servers, by ("tools" or "mcp", name).
    """

    def __init__(
        self, families: Mapping[str, str], doors: Mapping[tuple[str, str], Door] = MappingProxyType({})
    ) -> None:
        self.families = dict(families)
        self.doors = dict(doors)
        self.default: dict[str, str] = {}
        for name, family in families.items():
            self.default.setdefault(family, name)
            if name == family:
                self.default[family] = name  # the upstream that bears the family's name serves it
        self._resolve = lru_cache(maxsize=4096)(self._resolve_uncached)

    def resolve(self, method: bytes, target: bytes, family_hint: str) -> Route:
        """Raises BadPath or UnknownRoute. `family_hint`: the API family the headers speak, or ""."""
        resolve = self._resolve if len(target) <= CACHED_TARGET else self._resolve_uncached
        return resolve(method, target, family_hint)

    def unrouted(self, target: bytes, family_hint: str) -> Route:
        """For a path that was refused: no route, but the dialect that its client probably speaks."""
        path = target.partition(b"?")[0].decode("latin-1")
        if (kind := next((part for part in path.split("/") if part in _OF_TOOLS), "")) and self.doors:
            return Route("other", _OF_TOOLS[kind], "", "", b"")
        named = [self.families[part] for part in path.split("/") if part in self.families]
        spoken = [family for prefix, family in _FAMILY_BY_PREFIX if family and prefix in path]
        family = next(iter(named + spoken), family_hint or "openai")
        return Route("other", _OTHER_DIALECT[family], "", "", b"")

    def _resolve_uncached(self, method: bytes, target: bytes, family_hint: str) -> Route:
        path, mark, query = target.partition(b"?")
        if _UNSAFE.search(path) is not None:
            what = "dot segments, empty segments and encoded letters, digits or slashes"
            raise BadPath(f"the path is ambiguous: {what} are refused")
        text, said = _take_prefixes(path.decode("ascii"))
        run, agent, version = said.get("run", ""), said.get("agent", ""), said.get("version", "")
        own = (run, agent, version, said.get("budget", "").encode())
        first, _, rest = text[1:].partition("/")
        if first in _OF_TOOLS and self.doors:
            found = tool_paths.route(self.doors, method.decode("latin-1"), text, mark + query)
            return replace(found, run_id=run, agent=agent, agent_version=version, budget=own[3])
        upstream, family = "", ""
        if first in self.families:
            upstream, family, text = first, self.families[first], "/" + rest
        else:
            family = _family_of(text, family_hint)
            upstream = self.default.get(family, "")
        if not upstream:
            raise UnknownRoute(f"no upstream serves {text}")
        sent = text.encode() + mark + query
        for known, subject in _candidates(FAMILIES[family], text):
            if known.pattern.fullmatch(subject):
                operation = known.operation if method == b"POST" else known.fetch if method == b"GET" else ""
                return Route(known.template, known.dialect, operation, upstream, sent, *own)
        return Route("other", _OTHER_DIALECT[family], "", upstream, sent, *own)


def _candidates(table: tuple[Known, ...], text: str) -> list[tuple[Known, str]]:
    """Each line with the whole path, and with the part of it behind a version prefix."""
    text = text.removesuffix("/")
    match = _VERSION.match(text)
    tails = {text[1:], text[match.end() :] if match else text[1:]}
    return [(known, tail) for known in table for tail in tails]


def _take_prefixes(text: str) -> tuple[str, dict[str, str]]:
    """The path behind /run/, /agent/, /version/ and /budget/, in any order, and what each of them says."""
    said: dict[str, str] = {}
    for _ in PREFIXES:
        kind, _, rest = text[1:].partition("/")
        if kind not in PREFIXES:
            break
        value, slash, rest = rest.partition("/")
        if _NAME.fullmatch(value) is None:
            raise BadPath(f"/{kind}/ must be followed by a name of letters, digits and ._:@-")
        if kind in said:
            raise BadPath(f"/{kind}/ stands twice")
        said[kind] = value
        text = "/" + rest if slash else "/"
    return text, said


_FAMILY_BY_PREFIX = (
    ("/v1/messages", "anthropic"),
    ("/v1beta/", "gemini"),
    ("/v1alpha/", "gemini"),
    ("/upload/v1beta/", "gemini"),
    ("/model/", "bedrock"),
    ("/v2/", "cohere"),
    ("/api/", "ollama"),
    ("/v1/models/", ""),  # by hint
    ("/v1/", ""),
)


def _family_of(text: str, hint: str) -> str:
    """The API family of an unprefixed path. Raises UnknownRoute."""
    if text.startswith("/v1/models/") and ":" in text:
        return "gemini"
    for prefix, family in _FAMILY_BY_PREFIX:
        if text.startswith(prefix):
            return family or _hinted(text, hint)
    raise UnknownRoute(f"unknown route {text[:200]}")


def _hinted(text: str, hint: str) -> str:
    """Paths that both OpenAI and Anthropic have (models, files) follow what the headers speak."""
    spoken_by_openai_alone = any(known.pattern.fullmatch(text[4:].removesuffix("/")) for known in OPENAI[:-1])
    return "openai" if spoken_by_openai_alone or not hint else hint


def family_of_headers(names: Mapping[bytes, bytes]) -> str:
    """The API family a client's headers speak (PROTOCOLS: /v1/models has two shapes); "" when they do not say."""
    if b"anthropic-version" in names or (b"x-api-key" in names and b"authorization" not in names):
        return "anthropic"
    if b"x-goog-api-key" in names:
        return "gemini"
    return ""
