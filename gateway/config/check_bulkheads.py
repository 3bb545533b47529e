"""What `tollgate check` says of pools and priorities: who is in which, and what matches nobody."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.check_cache import routes_of
from gateway.config.patterns import matches
from gateway.config.problems import Path, Problem, did_you_mean
from gateway.config.roster import Roster
from gateway.config.schema import Config
from gateway.config.schema_bulkheads import Bulkhead, Matching
from gateway.config.semantics_bulkheads import PATTERNS

TOOL_ROUTES = ("/tools/{tool}", "/mcp/{server}")


def bulkheads(config: Config) -> list[str]:
    """One line for each pool and rule."""
    lines = [f"bulkheads.{name}: {whose(pool)}: {_sizes(pool, config)}" for name, pool in config.bulkheads.items()]
    lines += [f"priorities.{at}: {whose(rule)}: {rule.priority}" for at, rule in enumerate(config.priorities)]
    marks = []
    if config.overload.lag_seconds is not None:
        marks.append(f"the loop is {config.overload.lag_seconds:g} s late")
    if config.overload.memory_bytes is not None:
        marks.append(f"a worker has {config.overload.memory_bytes / 1e6:.0f} MB")
    return [*lines, f"overload: batch calls are refused from where {' or '.join(marks)}"] if marks else lines


def unmatched(config: Config, roster: Roster) -> Iterator[Problem]:
    """Pools and rules for keys or teams that are not there."""
    teams = {config.identity.tenant, *roster.teams}
    for path, rule in _rules(config):
        if rule.key != "*" and not any(matches(rule.key, name) for name in roster.keys):
            hint = did_you_mean(rule.key, sorted(roster.keys)) or "see `tollgate keys list`"
            yield Problem((*path, "key"), reason="matches no key", hint=hint)
        stated = config.identity.tenant_header is not None  # clients say their own
        if rule.team != "*" and not stated and not any(matches(rule.team, name) for name in teams):
            hint = did_you_mean(rule.team, sorted(teams)) or "known: " + ", ".join(sorted(teams))
            yield Problem((*path, "team"), reason="matches no team", hint=hint)
    for name, pool in config.bulkheads.items():
        for weighed in pool.weights.keys() - roster.keys - teams if config.identity.tenant_header is None else ():
            yield Problem(("bulkheads", name, "weights", weighed), reason="no key and no team has this name")


def doubts(config: Config) -> Iterator[Problem]:
    """Pools and rules for routes that are none of a model or a tool."""
    known = (*routes_of(config), *TOOL_ROUTES)
    for path, rule in _rules(config):
        if not any(matches(rule.route, route) for route in known):
            hint = did_you_mean(rule.route, known) or "known: " + ", ".join(known[:5])
            yield Problem((*path, "route"), reason="matches no route of a model or a tool", hint=hint)


def _rules(config: Config) -> Iterator[tuple[Path, Matching]]:
    yield from ((("bulkheads", name), pool) for name, pool in config.bulkheads.items())
    yield from ((("priorities", str(at)), rule) for at, rule in enumerate(config.priorities))


def whose(rule: Matching) -> str:
    said = [f"{name} {getattr(rule, name)}" for name in PATTERNS if getattr(rule, name) != "*"]
    return ", ".join(said) or "all calls"


def _sizes(pool: Bulkhead, config: Config) -> str:
    low = f"{pool.least} to " if pool.adaptive else ""
    text = f"{low}{pool.max} at once" + (f" for each {pool.each}" if pool.each else "")
    if config.workers > 1:
        text += f" ({pool.max // config.workers} in each worker)"
    waiting = f", {pool.queue} wait for up to {pool.wait:g} s" if pool.queue else ", none waits"
    return text + waiting + (f", batch in {pool.batch:.0%} of the places" if pool.batch < 1 else "")
