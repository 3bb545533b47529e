"""What pools and priorities must also satisfy; part of gateway.config.semantics."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.patterns import covers, matches
from gateway.config.problems import Path, Problem, did_you_mean
from gateway.config.schema import Config
from gateway.config.schema_bulkheads import Bulkhead, Matching
from gateway.config.semantics_routing import pattern

POOLS = 16  # their gauges have a fixed place in the memory of each worker
PATTERNS = ("route", "upstream", "model", "agent", "request_class", "key", "team")


def faults(config: Config) -> Iterator[Problem]:
    """Every rule that these sections break."""
    if len(config.bulkheads) > POOLS:
        yield Problem(("bulkheads",), reason=f"at most {POOLS} pools", hint="`each` makes one pool many")
    pools = list(config.bulkheads.items())
    for index, (name, pool) in enumerate(pools):
        path = ("bulkheads", name)
        yield from _matching(path, pool, config)
        yield from _sizes(path, pool, config)
        before = next((other for other, earlier in pools[:index] if _covers(earlier, pool)), None)
        if before is not None:
            hint = "the first pool that matches counts: put the narrower one first"
            yield Problem(path, reason=f"has no calls: {before} before it matches all of them", hint=hint)
    for index, rule in enumerate(config.priorities):
        path = ("priorities", str(index))
        yield from _matching(path, rule, config)
        if any(_covers(earlier, rule) for earlier in config.priorities[:index]):
            yield Problem(path, reason="is never reached: a rule before it matches all of its calls")


def upstreams(config: Config) -> list[str]:
    """All that calls go to, as records name it."""
    return [*config.upstreams, *(f"tools/{name}" for name in config.tools), *(f"mcp/{name}" for name in config.mcp)]


def _matching(path: Path, one: Matching, config: Config) -> Iterator[Problem]:
    for name in PATTERNS:
        yield from pattern((*path, name), getattr(one, name))
    if not any(matches(one.upstream, name) for name in upstreams(config)):
        hint = did_you_mean(one.upstream, upstreams(config)) or "known: " + ", ".join(upstreams(config))
        yield Problem((*path, "upstream"), reason="matches no upstream, tool or MCP server", hint=hint)


def _sizes(path: Path, pool: Bulkhead, config: Config) -> Iterator[Problem]:
    if pool.max < config.workers:
        hint = f"each of the {config.workers} workers has its share of the places, one at least"
        yield Problem((*path, "max"), reason="is less than `workers`", hint=hint)
    if pool.least > pool.max:
        yield Problem((*path, "least"), reason="is more than `max`")
    elif pool.least > 1 and not pool.adaptive:
        yield Problem((*path, "least"), reason="means nothing without `adaptive`")
    for name in pool.weights:
        if not name.strip():
            yield Problem((*path, "weights"), reason="names nobody")


def _covers(before: Matching, rule: Matching) -> bool:
    return all(covers(getattr(before, name), getattr(rule, name)) for name in PATTERNS)
