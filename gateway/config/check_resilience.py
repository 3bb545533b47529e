"""What `tollgate check` says of upstreams that fail: which rules hold for which calls, and which never can."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.check_cache import ROUTES
from gateway.config.patterns import covers, matches
from gateway.config.problems import Path, Problem, did_you_mean
from gateway.config.schema import Config, TimeoutRule, Timeouts
from gateway.config.semantics_resilience import PATTERNS, Rule


def resilience(config: Config) -> list[str]:
    """One line for each rule: for whom it is, and what it does."""
    return [f"timeouts.{at}: {whose(rule)}: {_times(rule)}" for at, rule in enumerate(config.timeouts)]


def doubts(config: Config) -> Iterator[Problem]:
    """Rules that match nothing, or that those before leave nothing for."""
    for index, rule in enumerate(config.timeouts):
        path = ("timeouts", str(index))
        yield from unmatched(path, rule, config)
        stated = _stated(rule)
        if any(_covers(before, rule) and stated <= _stated(before) for before in config.timeouts[:index]):
            yield Problem(path, reason="changes nothing: a rule before it matches the same calls and states the same")


def whose(rule: Rule) -> str:
    said = [f"{name} {getattr(rule, name)}" for name in PATTERNS if getattr(rule, name) != "*"]
    return ", ".join(said) or "all calls"


def unmatched(path: Path, rule: Rule, config: Config) -> Iterator[Problem]:
    if not any(matches(rule.route, known) for known in ROUTES):
        hint = did_you_mean(rule.route, ROUTES) or "known: " + ", ".join(ROUTES[:5])
        yield Problem((*path, "route"), reason="matches no route of a model", hint=hint)
    if not any(matches(rule.upstream, name) for name in config.upstreams):
        hint = did_you_mean(rule.upstream, config.upstreams)
        yield Problem((*path, "upstream"), reason="matches no upstream", hint=hint)


def _covers(before: Rule, rule: Rule) -> bool:
    return all(covers(getattr(before, name), getattr(rule, name)) for name in PATTERNS)


def _stated(rule: TimeoutRule) -> set[str]:
    return {name for name in Timeouts.__struct_fields__ if getattr(rule, name) is not None}


def _times(rule: TimeoutRule) -> str:
    return ", ".join(
        f"{name} {getattr(rule, name):g} s" for name in Timeouts.__struct_fields__ if name in _stated(rule)
    )
