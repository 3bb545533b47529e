"""What `tollgate check` says of upstreams that fail: which rules hold for which calls, and which never can."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.check_cache import routes_of
from gateway.config.patterns import covers, matches
from gateway.config.problems import Path, Problem, did_you_mean
from gateway.config.schema import Config, Fallback, TimeoutRule, Timeouts
from gateway.config.schema_resilience import Breakers
from gateway.config.schema_routing import Route
from gateway.config.semantics_resilience import PATTERNS, Rule, goal_of


def resilience(config: Config) -> list[str]:
    """One line for each rule: for whom it is, and what it does."""
    lines = [f"timeouts.{at}: {whose(rule)}: {_times(rule)}" for at, rule in enumerate(config.timeouts)]
    lines += [f"fallbacks.{at}: {whose(rule)}: {_chain(rule)}" for at, rule in enumerate(config.fallbacks)]
    retries = config.retries
    if retries.attempts > 1 and retries != type(retries)():
        whom = "all clients" if retries.with_sdk else "clients that do not retry by themselves"
        lines.append(f"retries: of {whom}: up to {retries.attempts - 1}, {retries.budget:.0%} of an upstream's calls")
    hedging = config.hedging
    if hedging.enabled:
        lines.append(
            f"hedging: {whose(hedging)}: a second attempt where {hedging.quantile:.0%} of the answers came sooner, "
            f"for {hedging.share:.0%} of an upstream's calls at most"
        )
    breakers = config.breakers
    if breaking(config):
        rows = f", {breakers.consecutive} in a row" if breakers.consecutive else ""
        last = "refused" if breakers.refuse else "sent all the same"
        lines.append(
            f"breakers: open at {breakers.failure_rate:.0%} of {breakers.volume} calls in {breakers.window:g} s{rows}, "
            f"for {breakers.pause:g} to {breakers.longest:g} s; calls without another target are {last}"
        )
    return lines


def breaking(config: Config) -> bool:
    """Are failures counted at all? Who says how, or what to refuse, means it."""
    said = config.breakers
    if said.enabled is not None:
        return said.enabled
    return said != Breakers() or bool(config.fallbacks) or any(len(rule.to) > 1 for rule in config.routes)


def doubts(config: Config) -> Iterator[Problem]:
    """Rules that match nothing, or that those before leave nothing for."""
    for index, rule in enumerate(config.timeouts):
        path = ("timeouts", str(index))
        yield from unmatched(path, rule, config)
        stated = _stated(rule)
        if any(_covers(before, rule) and stated <= _stated(before) for before in config.timeouts[:index]):
            yield Problem(path, reason="changes nothing: a rule before it matches the same calls and states the same")
    if config.hedging.enabled:
        yield from unmatched(("hedging",), config.hedging, config)
    for index, fallback in enumerate(config.fallbacks):
        path = ("fallbacks", str(index))
        yield from unmatched(path, fallback, config)
        earlier = config.fallbacks[:index]
        if all(any(kind in before.on and _covers(before, fallback) for before in earlier) for kind in fallback.on):
            yield Problem(path, reason="is never reached: a rule before it is for the same calls and trouble")
        for at, entry in enumerate(fallback.to):
            name = goal_of(entry).upstream
            if name is not None and config.upstreams[name].key is None and not _is_first(name, fallback):
                reason = f"{name} has no key of its own and is asked without one: the client's stays where it is"
                yield Problem((*path, "to", str(at)), reason=reason, hint=f"set `upstreams.{name}.key`")


def whose(rule: Rule) -> str:
    said = [f"{name} {getattr(rule, name)}" for name in PATTERNS if getattr(rule, name) != "*"]
    return ", ".join(said) or "all calls"


def unmatched(path: Path, rule: Rule | Route, config: Config) -> Iterator[Problem]:
    known = routes_of(config)
    if not any(matches(rule.route, route) for route in known):
        hint = did_you_mean(rule.route, known) or "known: " + ", ".join(known[:5])
        yield Problem((*path, "route"), reason="matches no route of a model", hint=hint)
    if not any(matches(rule.upstream, name) for name in config.upstreams):
        hint = did_you_mean(rule.upstream, config.upstreams)
        yield Problem((*path, "upstream"), reason="matches no upstream", hint=hint)


def _is_first(name: str, fallback: Fallback) -> bool:
    return fallback.upstream == name


def _chain(rule: Fallback) -> str:
    goals = [goal_of(entry) for entry in rule.to]
    names = [" ".join(filter(None, (goal.upstream, goal.model and f"as {goal.model}"))) for goal in goals]
    return f"on {', '.join(rule.on)}: {(' then ' if rule.order == 'listed' else ' or ').join(names)}"


def _covers(before: Rule, rule: Rule) -> bool:
    return all(covers(getattr(before, name), getattr(rule, name)) for name in PATTERNS)


def _stated(rule: TimeoutRule) -> set[str]:
    return {name for name in Timeouts.__struct_fields__ if getattr(rule, name) is not None}


def _times(rule: TimeoutRule) -> str:
    return ", ".join(
        f"{name} {getattr(rule, name):g} s" for name in Timeouts.__struct_fields__ if name in _stated(rule)
    )
