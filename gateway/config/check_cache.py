"""What `tollgate check` says of the cache: which calls it may answer, and which rules can never hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gateway.config import places
from gateway.config.patterns import any_matches, covers, matches, plainly
from gateway.config.problems import Problem, did_you_mean
from gateway.config.schema import CacheRule, Config, McpServer, Tool
from gateway.config.schema_semantic import SemanticRule
from gateway.config.semantics_cache import PATTERNS

ROUTES = (
    *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/messages"),
    *(f"/v1beta/models/{{model}}:{verb}" for verb in ("generateContent", "streamGenerateContent")),
    *(f"/v1beta/models/{{model}}:{verb}" for verb in ("embedContent", "batchEmbedContents")),
    *("/openai/chat/completions", "/openai/embeddings", "/v1/models/{model}:rawPredict"),
)
"""The routes whose answers can be cached, as records have them."""
OF_DIALECT: Mapping[str, tuple[str, ...]] = {
    "bedrock": tuple(f"/model/{{modelId}}/{verb}" for verb in ("converse", "converse-stream", "invoke")),
    "cohere": ("/v1/chat", "/v2/chat", "/v1/generate", "/v2/embed"),
    "ollama": ("/api/chat", "/api/generate", "/api/embed", "/openai/completions", "/openai/responses"),
}
"""And those that only upstreams of a dialect have."""
_SAMPLED = {
    "none": "only where temperature is 0 or there is a seed",
    "unstated": "unless a temperature above 0 is stated without a seed",
    "all": "sampled ones, too",
}


def routes_of(config: Config) -> tuple[str, ...]:
    """Those that the upstreams of a configuration can have."""
    spoken = {upstream.dialect for upstream in config.upstreams.values()}
    return (*ROUTES, *(route for dialect, routes in OF_DIALECT.items() if dialect in spoken for route in routes))


def active(config: Config) -> bool:
    """Can any answer of a model be cached?"""
    exact = config.cache.exact
    return exact.enabled or any(rule.enabled for rule in exact.rules)


def of_tools(config: Config) -> bool:
    """Can any output of a tool be cached?"""
    entries: tuple[Tool | McpServer, ...] = (*config.tools.values(), *config.mcp.values())
    return any(entry.cache is not None for entry in entries)


def caching(config: Config) -> list[str]:
    """One line for each rule: what will be cached, and for how long; and where that is kept."""
    found = [*_of_models(config), *_of_tools(config)]
    return [*found, _where(config)] if found else []


def _of_tools(config: Config) -> Iterator[str]:
    for name, tool in config.tools.items():
        if tool.cache is not None:
            said = [f"{pattern} {_seconds(ttl)}" for pattern, ttl in tool.cache.paths.items()]
            most = ", whatever the tool says of no-cache and max-age" if tool.cache.override else ""
            yield f"tools.{name}.cache: {', '.join([*said, f'other paths {_seconds(tool.cache.ttl)}'])}{most}"
    for name, server in config.mcp.items():
        if server.cache is not None:
            said = [f"{pattern} {_seconds(ttl)}" for pattern, ttl in server.cache.tools.items()]
            whose = "for all sessions of a client" if server.cache.shared else "for each session by itself"
            yield f"mcp.{name}.cache: {', '.join(said)}, {whose}"


def _seconds(ttl: float) -> str:
    return f"for {ttl:g} s" if ttl else "not"


def _of_models(config: Config) -> list[str]:
    if not active(config):
        return []
    exact = config.cache.exact
    lines = [f"cache.exact.rules.{at}: {whose(rule)}: {_what(rule, config)}" for at, rule in enumerate(exact.rules)]
    others = "all other calls" if exact.rules else "all calls"
    return [*lines, f"cache.exact: {others}: {_what(CacheRule(enabled=exact.enabled), config)}"]


def doubts(config: Config) -> Iterator[Problem]:
    """Rules that match nothing, or that one before them leaves nothing for; a Redis that is not used."""
    if config.cache.redis is not None and config.cache.store != "redis":
        hint = "set `cache.store: redis`"
        yield Problem(("cache", "redis"), reason="is not used: answers are kept in a file", hint=hint)
    yield from _unusable(config)
    yield from unreached(config, "exact", config.cache.exact.rules)


def unreached(config: Config, section: str, rules: Sequence[CacheRule | SemanticRule]) -> Iterator[Problem]:
    known = routes_of(config)
    for index, rule in enumerate(rules):
        path = ("cache", section, "rules", str(index))
        if not any(matches(rule.route, route) for route in known):
            hint = did_you_mean(rule.route, known) or "known: " + ", ".join(known[:5])
            yield Problem((*path, "route"), reason="matches no route whose answers can be cached", hint=hint)
        if not any(matches(rule.upstream, name) for name in config.upstreams):
            hint = did_you_mean(rule.upstream, config.upstreams)
            yield Problem((*path, "upstream"), reason="matches no upstream", hint=hint)
        for before in rules[:index]:
            if all(covers(getattr(before, name), getattr(rule, name)) for name in PATTERNS):
                yield Problem(path, reason="is never reached: a rule before it matches the same calls")
                break


def _unusable(config: Config) -> Iterator[Problem]:
    """Tools that are to be cached and may not be called."""
    for name, server in config.mcp.items():
        for tool in server.cache.tools if server.cache is not None else ():
            if "*" not in tool and not _callable(server, tool):
                yield Problem(("mcp", name, "cache", "tools", tool), reason="this tool may not be called at all")


def _where(config: Config) -> str:
    cache = config.cache
    url = places.cache_redis(config)
    place = "a file of this machine" if url is None else f"Redis at {url.rpartition('@')[2].rpartition('://')[2]}"
    one = "equal calls at once go upstream one by one"
    if cache.single_flight:
        one = "equal calls at once are one, on " + ("this machine" if url is None else "all machines that share it")
    return f"cache: kept in {place}, up to {cache.tenant_bytes} bytes for each tenant; {one}"


def _callable(server: McpServer, tool: str) -> bool:
    denied = any_matches(map(plainly, server.deny), plainly(tool))
    return any_matches(server.allow, tool) and not denied


def whose(rule: CacheRule | SemanticRule) -> str:
    said = [f"{name} {getattr(rule, name)}" for name in PATTERNS if getattr(rule, name) != "*"]
    return ", ".join(said) or "all calls"


def _what(rule: CacheRule, config: Config) -> str:
    exact = config.cache.exact
    if not rule.enabled:
        return "not cached"
    tools = exact.tools if rule.tools is None else rule.tools
    kinds = "with tool calls" if tools else "without tool calls"
    return f"cached for {rule.ttl or exact.ttl:g} s, {kinds}, {_SAMPLED[rule.sampled or exact.sampled]}"
