"""What the cache must also satisfy; part of gateway.config.semantics."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gateway.config.problems import Problem, did_you_mean
from gateway.config.schema import Cache, CacheRule, Config
from gateway.config.schema_semantic import ModelAt, SemanticRule
from gateway.config.semantics_limits import not_redis

MATCH_CHARS = 200
PATTERNS = ("route", "upstream", "model", "agent", "tenant")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110, 5.6.2
TELLING = frozenset(
    {"authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "anthropic-beta", "anthropic-version"}
    | {"openai-beta", "openai-organization", "openai-project", "content-encoding", "x-amz-security-token"}
)
"""Headers that say who asks or what is asked for: never left out of a key."""


def faults(config: Config) -> Iterator[Problem]:
    """Every rule that the section about the cache breaks."""
    cache = config.cache
    yield from _store(config)
    yield from _headers(cache)
    yield from _rules("exact", cache.exact.rules)
    yield from _rules("semantic", cache.semantic.rules)
    yield from _models(config)
    if cache.entry_bytes > cache.tenant_bytes:
        yield Problem(("cache", "entry_bytes"), reason="must fit into what one tenant may keep (`tenant_bytes`)")
    if not cache.version.isprintable():
        yield Problem(("cache", "version"), reason="must be printable characters")


def _store(config: Config) -> Iterator[Problem]:
    cache = config.cache
    if cache.redis is not None and (reason := not_redis(cache.redis)):
        yield Problem(("cache", "redis"), reason=reason)
    elif cache.store == "redis" and cache.redis is None and config.spending.redis is None:
        yield Problem(("cache", "store"), reason="there is no Redis", hint="set `cache.redis` or `spending.redis`")


def _headers(cache: Cache) -> Iterator[Problem]:
    for index, name in enumerate(cache.ignore_headers):
        path = ("cache", "ignore_headers", str(index))
        if not _TOKEN.match(name):
            yield Problem(path, reason="not a header name")
        elif name.lower() in TELLING:
            yield Problem(path, reason="this header says who asks or what is asked for, so answers hang on it")


def _models(config: Config) -> Iterator[Problem]:
    """The models that the semantic cache itself asks."""
    semantic = config.cache.semantic
    for name, stated in (("embedder", semantic.embedder), ("judge", semantic.judge)):
        if not isinstance(stated, ModelAt):
            continue
        path = ("cache", "semantic", name)
        upstream = config.upstreams.get(stated.upstream)
        if upstream is None:
            hint = did_you_mean(stated.upstream, config.upstreams)
            yield Problem((*path, "upstream"), reason="is no upstream of this configuration", hint=hint)
        elif upstream.dialect != "openai":
            yield Problem((*path, "upstream"), reason="must speak the API of OpenAI (`dialect: openai`)")
        elif upstream.key is None:
            yield Problem((*path, "upstream"), reason="has no `key`: it is asked without any client")
        if not stated.model or not stated.model.isprintable():
            yield Problem((*path, "model"), reason="must be the name of a model")


def _rules(section: str, rules: Sequence[CacheRule | SemanticRule]) -> Iterator[Problem]:
    seen: set[tuple[str, ...]] = set()
    for index, rule in enumerate(rules):
        path = ("cache", section, "rules", str(index))
        patterns = tuple(getattr(rule, name) for name in PATTERNS)
        for name, pattern in zip(PATTERNS, patterns, strict=True):
            if not pattern or len(pattern) > MATCH_CHARS or not pattern.isprintable() or pattern != pattern.strip():
                reason = f"must be 1 to {MATCH_CHARS} printable characters without space around them"
                yield Problem((*path, name), reason=reason)
            elif "**" in pattern:
                yield Problem((*path, name), reason="one * already stands for any characters")
        if patterns in seen:
            yield Problem(path, reason="a rule before it has the same patterns, so it is never reached")
        seen.add(patterns)
