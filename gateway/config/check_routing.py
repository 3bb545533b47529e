"""What `tollgate check` says of routes: which calls go where, and which rules can never be reached."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.check_resilience import unmatched
from gateway.config.patterns import covers
from gateway.config.problems import Problem
from gateway.config.schema import Config
from gateway.config.schema_routing import CanaryTo, Route, RouteTo
from gateway.config.semantics_routing import PATTERNS

_HOW = {
    "weight": "by weight",
    "priority": "the first that fits",
    "latency": "the quicker",
    "cost": "the cheaper",
    "headroom": "the one with more of its rate limits left",
    "learned": "as learned",
}


def routing(config: Config) -> list[str]:
    """One line for each rule: for whom it is, and where that goes."""
    return [f"routes.{at}: {whose(rule)}: {where(rule)}" for at, rule in enumerate(config.routes)]


def whose(rule: Route) -> str:
    said = [f"{name} {getattr(rule, name)}" for name in PATTERNS if getattr(rule, name) != "*"]
    said += [f"{name}: {pattern}" for name, pattern in rule.headers.items()]
    if rule.min_tokens is not None or rule.max_tokens is not None:
        most = f" to {rule.max_tokens}" if rule.max_tokens is not None else " or more"
        said.append(f"{rule.min_tokens or 0}{most} tokens")
    if rule.tools is not None:
        said.append("with tools" if rule.tools else "without tools")
    if rule.hours is not None:
        said.append(f"{rule.hours} UTC")
    return ", ".join(said) or "all calls"


def where(rule: Route) -> str:
    total = sum(to.weight if isinstance(to, RouteTo) else 1 for to in rule.to)
    names = [
        f"{name_of(to)} {(to.weight if isinstance(to, RouteTo) else 1) / total:.0%}"
        if rule.by == "weight" and len(rule.to) > 1
        else name_of(to)
        for to in rule.to
    ]
    text = ", ".join(names) + (f" ({_HOW[rule.by]})" if len(names) > 1 else "")
    if rule.sticky and len(names) > 1:
        text += ", each run with one" + ("" if rule.by == "weight" else f" while it is warm ({rule.warm:g} s)")
    if rule.cascade is not None:
        most = rule.cascade.hold_bytes
        text += f"; an answer that has not the form demanded is withheld (up to {most} bytes), and the next is asked"
    if rule.canary is not None:
        text += f"; canary {rule.canary.id}: {rule.canary.share:.0%} of the runs {on_trial(rule.canary)}"
    return text


def name_of(to: RouteTo | str) -> str:
    if isinstance(to, str):
        return to
    return " at ".join(part for part in (to.model or "the same model", to.upstream) if part)


def doubts(config: Config) -> Iterator[Problem]:
    """Rules that match nothing, or that those before leave nothing for."""
    for index, rule in enumerate(config.routes):
        path = ("routes", str(index))
        yield from unmatched(path, rule, config)
        if any(_covers(before, rule) for before in config.routes[:index]):
            yield Problem(path, reason="is never reached: a rule before it matches all of its calls")


def _covers(before: Route, rule: Route) -> bool:
    if before.headers or before.tools is not None or before.hours or before.min_tokens or before.max_tokens:
        return False
    return all(covers(getattr(before, name), getattr(rule, name)) for name in PATTERNS)


def on_trial(canary: CanaryTo) -> str:
    """What its runs get that the others do not."""
    if canary.to is not None:
        return f"to {name_of(canary.to)}"
    return "with breakpoints" if canary.breakpoints else "without breakpoints"
