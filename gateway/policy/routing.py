"""Where a call goes that several targets could answer. Pure: time, chance and what was measured are handed in.

Rules
1. The first rule whose patterns all match decides; without one the call goes where it was going.
2. Hard filters come first: APIs that cannot answer, upstreams that the key may not use, a context that is too
   short, a capability that is known to be missing. Where none is left, all that may be used are. An API that cannot say
   what the client asks is none either, unless all are: then the refusal names the field.
3. A run keeps its target while the provider's prompt cache is warm, so that neither that nor encrypted reasoning is
   lost. The first step of a run and those of sub-agents are free; so is, by cost, a call that is cheaper elsewhere
   even without that cache. By weight, a run keeps its target for good: its place comes from a hash.
4. Then `by`: weight; priority, as listed; latency, the better of two drawn by chance, by what the first byte took
   lately (Mitzenmacher 2001, the power of two choices); cost, the cheapest for such a call, unknown prices last;
   headroom, the largest share left of its provider's rate limits, and a run leaves a target that has none;
   learned, the highest expected score less the weighted cost (policy.selection), a run moving only where that is
   cheaper than to stay.
5. What its breaker leaves alone stands behind the others, also where a run keeps it: the run comes back. A canary that
   is left alone is no canary meanwhile, for neither arm.
6. The plan names the rest of the targets, too, in the order in which they are tried, and for a cascade all of them from
   cheap to dear: as listed, or by cost.

Cost: about 20 us for a call; nothing where there are no routes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from gateway.config.patterns import matches
from gateway.config.schema_routing import By, CanaryTo, Route, RouteTo
from gateway.policy.canary import State, canary_arm, place
from gateway.policy.model_limits import most
from gateway.policy.selection_rules import arm_of, terms_of

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


class Target(Struct, frozen=True):
    """A place to go: a model at an upstream."""

    model: str
    upstream: str

    @property
    def name(self) -> str:
        return f"{self.upstream}/{self.model}"


class Plan(Struct, frozen=True):
    """Where to go, then where else, and why."""

    targets: tuple[Target, ...]
    rule: int
    why: str  # canary | sticky | only | breaker | weight | priority | latency | cost | headroom |
    # learned | explored | first
    canary: str = ""  # id of a trial under way that this call is watched for
    arm: str = ""  # canary | rest
    returns: bool = False  # its run keeps another target, and comes back to it
    rungs: tuple[Target, ...] = ()  # of a cascade, from cheap to dear


Learned = Callable[[str, Sequence[str], bool], tuple[Sequence[int], str]]
"""(id of what its rule learns, those that fit, may it take one by chance?) -> (their places in the order to be tried,
why)"""


class World(Struct, frozen=True):
    """What a decision needs to know beside the call."""

    usable: Callable[[str], bool]  # may the call go to this upstream at all?
    price: Callable[[Target, Facts, bool], int | None]  # pico-USD, with its prompt cached or not; None: unknown
    pace: Callable[[Target, int], float]  # what the first byte took lately, in ns; 0: not known
    draw: Callable[[], float]  # by chance, from 0 to 1
    kept: Callable[[float], str]  # name of its run's last target, if that was called within so many seconds
    trials: Mapping[str, State]  # id of a canary -> how it ended
    shut: Callable[[Target], bool] | None = None  # is it left alone for now? None: none is
    room: Callable[[Target, Facts], float] = lambda target, facts: 1.0  # share left of its rate limits; 0: too little
    kin: Callable[[str], bool] = lambda upstream: True  # does it speak the API of where the call was going?
    sayable: Callable[[Target], bool] = lambda target: True  # can its API say what the client asks? Costly
    learned: Learned | None = None  # None: nothing is learned of any rule


def rule_of(rules: Sequence[Route], facts: Facts) -> int:
    """The first rule that matches; -1: none."""
    for index, rule in enumerate(rules):
        if _scopes_match(rule, facts) and _bounds_match(rule, facts):
            return index
    return -1


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


def _bounds_match(rule: Route, facts: Facts) -> bool:
    if rule.tools is not None and rule.tools != ("tools" in facts.needs):
        return False
    if rule.min_tokens is not None and facts.tokens < rule.min_tokens:
        return False
    if rule.max_tokens is not None and facts.tokens > rule.max_tokens:
        return False
    for name, pattern in rule.headers.items():
        value = facts.names.get(name.lower().encode())
        if value is None or not matches(pattern, value.decode("latin-1")):
            return False
    return rule.hours is None or within(rule.hours, facts.now)


def within(hours: str, now: int) -> bool:
    """Is it between these times of the day (UTC)? The first may be later than the second: over midnight."""
    first, last = (int(text[:2]) * 60 + int(text[3:]) for text in hours.split("-"))
    minute = now // _MINUTE_NS % MINUTES
    return first <= minute < last if first <= last else minute >= first or minute < last


class Rules:
    """The rules of one configuration."""

    def __init__(self, rules: Sequence[Route]) -> None:
        self._rules = tuple(rules)
        self.terms = tuple([terms_of(rule) for rule in self._rules])  # of what is learned of each
        self.cascades = tuple([rule.cascade for rule in self._rules])
        self.look_for_images = any("images" in as_target(to).lacks for rule in rules for to in rule.to)

    def plan(self, facts: Facts, world: World) -> Plan | None:
        return plan(self._rules, facts, world)


def plan(rules: Sequence[Route], facts: Facts, world: World) -> Plan | None:
    """None: no rule matches, or none of its targets may be used."""
    index = rule_of(rules, facts)
    if index < 0:
        return None
    rule = rules[index]
    allowed = [to for to in map(as_target, rule.to) if _usable(to, facts, world)]
    canary, running = rule.canary, False
    if canary is not None and (found := _trial(canary, facts, world)) is not None:
        taken, running = found
        if taken:
            rest = tuple([at(to, facts) for to in allowed])
            first = at(as_target(canary.to), facts)
            return Plan((first, *rest), index, "canary", canary.id if running else "", "canary")
    fitting = [to for to in allowed if _fits(to, facts)] or allowed
    if not fitting:
        return None
    targets, why, returns = _ordered(rule, fitting, facts, world)
    targets = _said(targets, world)
    if canary is None or not running:
        rungs = _rungs(rule, fitting, facts, world) if rule.cascade is not None else ()
        return Plan(targets, index, why, returns=returns, rungs=rungs)
    return Plan(targets, index, why, canary.id, "rest", returns)


def _said(targets: tuple[Target, ...], world: World) -> tuple[Target, ...]:
    """From the first on whose API can say what is asked; those behind it are looked at when it is their turn. All of
    them where none can."""
    for index, target in enumerate(targets):
        if world.sayable(target):
            return targets[index:]
    return targets


def _rungs(rule: Route, fitting: Sequence[RouteTo], facts: Facts, world: World) -> tuple[Target, ...]:
    targets = [at(to, facts) for to in fitting]
    return tuple(targets if rule.by == "priority" else by_cost(targets, facts, world))


def as_target(to: RouteTo | str) -> RouteTo:
    return RouteTo(model=to) if isinstance(to, str) else to


def at(to: RouteTo, facts: Facts) -> Target:
    return Target(to.model or facts.sent, to.upstream or facts.upstream)


def _trial(canary: CanaryTo, facts: Facts, world: World) -> tuple[bool, bool] | None:
    """(is this call the canary's?, is it still on trial?); None where it was rolled back, or cannot be used now."""
    state = world.trials.get(canary.id, State.RUNNING)
    first = at(as_target(canary.to), facts)
    if state is State.ROLLED_BACK or not _usable(as_target(canary.to), facts, world):
        return None
    if (world.shut is not None and world.shut(first)) or not world.sayable(first):
        return None
    if state is State.PROMOTED:
        return True, False
    return canary_arm(canary.id, facts.unit, canary.share), True


def _usable(to: RouteTo, facts: Facts, world: World) -> bool:
    """A model that is not named is one of the API that the call was going to."""
    upstream = to.upstream or facts.upstream
    return world.usable(upstream) and (to.model is not None or upstream == facts.upstream or world.kin(upstream))


def _fits(to: RouteTo, facts: Facts) -> bool:
    """Can it take this call, as far as is known?"""
    if facts.needs and not facts.needs.isdisjoint(to.lacks):
        return False
    context = to.context
    if context is None:
        known = most(to.model or facts.sent)
        context = known.context if known is not None else None
    return context is None or facts.tokens + facts.answer <= context


def _ordered(
    rule: Route, fitting: Sequence[RouteTo], facts: Facts, world: World
) -> tuple[tuple[Target, ...], str, bool]:
    """The targets, why the first is it, and whether the run keeps another one that is left alone for now."""
    targets = [at(to, facts) for to in fitting]
    if len(targets) == 1:
        return tuple(targets), "only", False
    shut = [target for target in targets if world.shut(target)] if world.shut is not None else []
    if len(shut) == len(targets):
        shut = []  # a call that may fail is better than one that does
    order, why = _chosen(rule, fitting, targets, facts, world)
    if not shut:
        return tuple(order), why, False
    returns = why == "sticky" and order[0] in shut
    if returns:
        order, why = _by(rule, fitting, targets, facts, world)
    why = "breaker" if returns or order[0] in shut else why
    return (*[target for target in order if target not in shut], *shut), why, returns


def _chosen(
    rule: Route, fitting: Sequence[RouteTo], targets: list[Target], facts: Facts, world: World
) -> tuple[list[Target], str]:
    """Their order, whether any of them is left alone or not, and why."""
    if rule.by == "weight":
        unit = facts.unit if rule.sticky else str(world.draw())
        return by_weight(fitting, targets, unit), "weight"
    if rule.sticky and not facts.free and (name := world.kept(rule.warm)):
        kept = [target for target in targets if target.name == name]
        if kept:
            stays = [*kept, *[target for target in targets if target.name != name]]
            if not _moves(rule.by, kept[0], targets, facts, world):
                return stays, "sticky"
            if rule.by == "learned":
                found, why = _by(rule, fitting, targets, facts, world)
                moves = found[0] != kept[0] and _saves(kept[0], (found[0],), facts, world)
                return (found, why) if moves else (stays, "sticky")
    return _by(rule, fitting, targets, facts, world)


def _by(
    rule: Route, fitting: Sequence[RouteTo], targets: list[Target], facts: Facts, world: World
) -> tuple[list[Target], str]:
    if rule.by == "learned":
        return _as_learned(rule, fitting, targets, facts, world)
    order: Mapping[By, Callable[[], list[Target]]] = {
        "priority": lambda: targets,
        "latency": lambda: by_latency(targets, facts.now, world),
        "cost": lambda: by_cost(targets, facts, world),
        "headroom": lambda: sorted(targets, key=lambda target: -world.room(target, facts)),
    }
    return order[rule.by](), rule.by


def _moves(by: By, kept: Target, targets: Sequence[Target], facts: Facts, world: World) -> bool:
    """Does a run leave its target, though it is warm?"""
    if by == "headroom":
        return world.room(kept, facts) <= 0
    return by in ("cost", "learned") and _saves(kept, targets, facts, world)


def _as_learned(
    rule: Route, fitting: Sequence[RouteTo], targets: list[Target], facts: Facts, world: World
) -> tuple[list[Target], str]:
    """Among those that are not left alone; the others stand behind them."""
    if world.learned is None or rule.learn is None:
        return targets, "first"
    places = range(len(targets))
    left = [place for place in places if world.shut is None or not world.shut(targets[place])] or list(places)
    found, why = world.learned(rule.learn.id, [arm_of(fitting[place]) for place in left], facts.free)
    order = [left[place] for place in found]
    return [targets[place] for place in (*order, *[place for place in places if place not in left])], why


def _saves(kept: Target, targets: Sequence[Target], facts: Facts, world: World) -> bool:
    """Is this call cheaper elsewhere, though its prompt is cached where it was?"""
    warm = world.price(kept, facts, True)
    cold = [world.price(target, facts, False) for target in targets if target != kept]
    known = [price for price in cold if price is not None]
    return warm is not None and bool(known) and min(known) < warm


def by_weight(choices: Sequence[RouteTo], targets: Sequence[Target], unit: str) -> list[Target]:
    """Weighted rendezvous hashing (Thaler and Ravishankar 1998): each target draws a number of its own for this unit,
    the least after division by its weight wins. So runs move only to or from a target that comes or goes."""
    drawn = [-math.log(place(t.name, unit) or 1e-15) / to.weight for to, t in zip(choices, targets, strict=True)]
    return [targets[index] for index in sorted(range(len(targets)), key=lambda index: drawn[index])]


def by_latency(targets: Sequence[Target], now: int, world: World) -> list[Target]:
    """The quicker of two drawn by chance, then the others from quick to slow."""
    first = int(world.draw() * len(targets)) % len(targets)
    second = (first + 1 + int(world.draw() * (len(targets) - 1)) % (len(targets) - 1)) % len(targets)
    winner = min((first, second), key=lambda index: world.pace(targets[index], now))
    rest = sorted([t for i, t in enumerate(targets) if i != winner], key=lambda target: world.pace(target, now))
    return [targets[winner], *rest]


def by_cost(targets: Sequence[Target], facts: Facts, world: World) -> list[Target]:
    """From cheap to dear; of equal ones as listed."""
    prices = [world.price(target, facts, False) for target in targets]
    order = sorted(range(len(targets)), key=lambda index: (prices[index] is None, prices[index] or 0))
    return [targets[index] for index in order]
