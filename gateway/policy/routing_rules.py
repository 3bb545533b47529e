"""Which rules may decide about a call, and where they could send it; part of gateway.policy.routing. Pure.

What depends on nothing but who asks for which model by which path is the same for very many calls: it is found out once
(`Way`), and remembered by who asks (stages.route). What is left to look at call by call is what `Asking` names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import force_setattr

from gateway.config.patterns import matches
from gateway.config.schema_routing import Route, RouteTo
from gateway.policy.canary import salt_of
from gateway.policy.model_limits import most
from gateway.policy.selection_rules import terms_of

BYTES_PER_TOKEN = 4
MINUTES = 24 * 60
_MINUTE_NS = 60 * 10**9


class Facts(Struct, frozen=True):
    """What rules look at."""

    model: str  # as asked for
    sent: str  # as an alias has it
    route: str
    upstream: str
    agent: str = ""
    agent_version: str = ""
    key: tuple[str, str] = ("", "")  # id, name
    team: str = ""
    request_class: str = ""
    size: int = 0  # bytes of the request
    answer: int = 0  # tokens that it asks for at most; 0: not said
    needs: frozenset[str] = frozenset()  # as `lacks` names it
    names: Mapping[bytes, bytes] = {}
    now: int = 0  # ns since the epoch
    unit: str = ""  # the run, or the call itself where it has none
    free: bool = True  # the first step of a run, or a sub-agent's

    @property
    def tokens(self) -> int:
        return self.size // BYTES_PER_TOKEN


class Asking(Protocol):
    """Of `Facts`, what differs between calls of the same scopes."""

    @property
    def tokens(self) -> int: ...
    @property
    def answer(self) -> int: ...
    @property
    def needs(self) -> frozenset[str]: ...
    @property
    def names(self) -> Mapping[bytes, bytes]: ...
    @property
    def now(self) -> int: ...
    @property
    def unit(self) -> str: ...
    @property
    def free(self) -> bool: ...


class Land(Protocol):
    """What there is to know of upstreams, for calls of the same scopes."""

    def usable(self, upstream: str) -> bool:
        """May they go there at all?"""
        ...

    def kin(self, upstream: str) -> bool:
        """Does it speak the API of where they were going?"""
        ...

    def fluent(self, upstream: str) -> bool:
        """Can its API say all that they may ask?"""
        ...


class Target(Struct, frozen=True):
    """A place to go: a model at an upstream."""

    model: str
    upstream: str
    name: str = ""

    def __post_init__(self) -> None:
        force_setattr(self, "name", f"{self.upstream}/{self.model}")


class Choice(Struct, frozen=True, eq=False):
    """A target of a rule, as it is for calls of the same scopes."""

    to: RouteTo
    target: Target
    weight: float
    salt: bytes  # of what it draws for each run
    context: float  # tokens of a request and its answer
    fluent: bool  # see Land


Bounds = tuple[Callable[[Asking], bool], ...]


class Ruled(Struct, frozen=True, eq=False):
    """A rule, as it is for calls of the same scopes."""

    index: int
    rule: Route
    bounds: Bounds  # what else must hold
    choices: tuple[Choice, ...]  # that may be used
    trial: Choice | None  # of its canary, where that is a target and may be used
    lacking: bool  # one of them lacks something
    context: float  # the least of theirs
    fluent: bool  # all of them are


Way = tuple[Ruled, ...]
"""The rules that may decide about calls of the same scopes; all but the last have bounds."""


class Rules:
    """The rules of one configuration."""

    def __init__(self, rules: Sequence[Route]) -> None:
        self._rules = tuple([(rule, bounds_of(rule)) for rule in rules])
        self.terms = tuple([terms_of(rule) for rule in rules])  # of what is learned of each
        self.cascades = tuple([rule.cascade for rule in rules])
        self.look_for_images = any("images" in as_target(to).lacks for rule in rules for to in rule.to)
        self.look_back = any(rule.sticky and rule.by != "weight" for rule in rules)  # to where a run went before
        self.look_for_quick = any(rule.by == "latency" for rule in rules)

    def way(self, facts: Facts, land: Land) -> Way:
        """Of `facts` nothing is looked at that `Asking` names."""
        found: list[Ruled] = []
        for index, (rule, bounds) in enumerate(self._rules):
            if _scopes_match(rule, facts):
                found.append(_ruled(index, rule, bounds, facts, land))
                if not bounds:
                    break
        return tuple(found)


def _scopes_match(rule: Route, facts: Facts) -> bool:
    return (
        (matches(rule.model, facts.model) or matches(rule.model, facts.sent))
        and matches(rule.route, facts.route)
        and matches(rule.upstream, facts.upstream)
        and matches(rule.agent, facts.agent)
        and matches(rule.agent_version, facts.agent_version)
        and any(matches(rule.key, name) for name in facts.key)
        and matches(rule.team, facts.team)
        and matches(rule.request_class, facts.request_class)
    )


def bounds_of(rule: Route) -> Bounds:
    """What a rule asks of single calls."""
    found: list[Callable[[Asking], bool]] = []
    tools, least, largest, hours = rule.tools, rule.min_tokens, rule.max_tokens, rule.hours
    if tools is not None:
        found.append(lambda facts: tools == ("tools" in facts.needs))
    if least is not None:
        found.append(lambda facts: facts.tokens >= least)
    if largest is not None:
        found.append(lambda facts: facts.tokens <= largest)
    found += [_says(name.lower().encode(), pattern) for name, pattern in rule.headers.items()]
    if hours is not None:
        found.append(lambda facts: within(hours, facts.now))
    return tuple(found)


def _says(name: bytes, pattern: str) -> Callable[[Asking], bool]:
    def says(facts: Asking) -> bool:
        value = facts.names.get(name)
        return value is not None and matches(pattern, value.decode("latin-1"))

    return says


def within(hours: str, now: int) -> bool:
    """Is it between these times of the day (UTC)? The first may be later than the second: over midnight."""
    first, last = (int(text[:2]) * 60 + int(text[3:]) for text in hours.split("-"))
    minute = now // _MINUTE_NS % MINUTES
    return first <= minute < last if first <= last else minute >= first or minute < last


def _ruled(index: int, rule: Route, bounds: Bounds, facts: Facts, land: Land) -> Ruled:
    choices = tuple([_choice(to, facts, land) for to in map(as_target, rule.to) if _usable(to, facts, land)])
    trial = as_target(rule.canary.to) if rule.canary is not None and rule.canary.to is not None else None
    return Ruled(
        index,
        rule,
        bounds,
        choices,
        _choice(trial, facts, land) if trial is not None and _usable(trial, facts, land) else None,
        any([choice.to.lacks for choice in choices]),
        min([choice.context for choice in choices], default=math.inf),
        all([choice.fluent for choice in choices]),
    )


def _choice(to: RouteTo, facts: Facts, land: Land) -> Choice:
    target = Target(to.model or facts.sent, to.upstream or facts.upstream)
    context: float | None = to.context
    if context is None:
        known = most(target.model)
        context = known.context if known is not None else math.inf
    return Choice(to, target, to.weight, salt_of(target.name), context, land.fluent(target.upstream))


def as_target(to: RouteTo | str) -> RouteTo:
    return RouteTo(model=to) if isinstance(to, str) else to


def _usable(to: RouteTo, facts: Facts, land: Land) -> bool:
    """A model that is not named is one of the API that the call was going to."""
    upstream = to.upstream or facts.upstream
    return land.usable(upstream) and (to.model is not None or upstream == facts.upstream or land.kin(upstream))
