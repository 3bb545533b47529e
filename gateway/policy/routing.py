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

Cost: a third of what a call costs without what is remembered of its scopes; nothing where there are no routes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log
from typing import Protocol

from msgspec import Struct

from gateway.config.schema_routing import By, CanaryTo, Route
from gateway.policy.canary import State, canary_arm, drawn
from gateway.policy.routing_rules import Asking, Choice, Ruled, Target, Way
from gateway.policy.selection_rules import arm_of


class Plan(Struct, frozen=True):
    """Where to go, then where else, and why."""

    targets: tuple[Target, ...]
    rule: int
    why: str  # canary | sticky | only | breaker | weight | priority | latency | cost | headroom |
    # learned | explored | first
    canary: str = ""  # id of a trial under way that this call is watched for
    arm: str = ""  # canary | rest
    returns: bool = False  # its run keeps another target, and comes back to it
    breakpoints: bool | None = None  # what is on trial in place of a target: of both arms
    rungs: tuple[Target, ...] = ()  # of a cascade, from cheap to dear


Learned = Callable[[str, Sequence[str], bool], tuple[Sequence[int], str]]
"""(id of what its rule learns, those that fit, may it take one by chance?) -> (their places in the order to be tried,
why)"""


class World(Protocol):
    """What a decision needs to know beside the call; each is asked only where a rule needs it."""

    @property
    def shut(self) -> Callable[[Target], bool] | None:
        """Is a target left alone for now? None: none is."""
        ...

    @property
    def trials(self) -> Mapping[str, State]:
        """Id of a canary -> how it ended."""
        ...

    @property
    def learned(self) -> Learned | None:
        """None: nothing is learned of any rule."""
        ...

    @property
    def marked(self) -> bool:
        """Does the API of the call cache what is marked, and nothing else?"""
        ...

    def price(self, target: Target, facts: Asking, warm: bool, /) -> int | None:
        """Pico-USD, with its prompt cached or not; None: unknown."""
        ...

    def pace(self, target: Target, now: int, /) -> float:
        """What the first byte took lately, in ns; 0: not known."""
        ...

    def draw(self) -> float:
        """By chance, from 0 to 1."""
        ...

    def kept(self, seconds: float, /) -> str:
        """Name of its run's last target, if that was called within so many seconds."""
        ...

    def room(self, target: Target, facts: Asking, /) -> float:
        """Share left of its rate limits; 0: too little."""
        ...

    def sayable(self, target: Target, /) -> bool:
        """Can its API say what the client asks? Costly."""
        ...


def decide(way: Way, facts: Asking, world: World) -> Plan | None:
    """None: no rule matches, or none of its targets may be used."""
    ruled = way[0] if way and not way[0].bounds else _first(way, facts)
    if ruled is None:
        return None
    canary, taken, running = ruled.rule.canary, False, False
    if canary is not None and (found := _trial(canary, ruled, facts, world)) is not None:
        taken, running = found
        if taken and ruled.trial is not None:
            targets = (ruled.trial.target, *[choice.target for choice in ruled.choices])
            return Plan(targets, ruled.index, "canary", canary.id if running else "", "canary")
    fitting = ruled.choices
    if ruled.lacking or facts.tokens + facts.answer > ruled.context:
        fitting = tuple([choice for choice in fitting if _fits(choice, facts)]) or fitting
    if not fitting:
        return None
    order, why, returns = _ordered(ruled.rule, fitting, facts, world)
    targets = tuple([choice.target for choice in (order if ruled.fluent else _said(order, world))])
    if canary is None or not (running or taken):
        rungs = _rungs(ruled.rule, fitting, facts, world) if ruled.rule.cascade is not None else ()
        return Plan(targets, ruled.index, why, returns=returns, rungs=rungs)
    id, arm = canary.id if running else "", "canary" if taken else "rest"
    return Plan(targets, ruled.index, why, id, arm, returns, canary.breakpoints)


def _first(way: Way, facts: Asking) -> Ruled | None:
    return next((ruled for ruled in way if all([holds(facts) for holds in ruled.bounds])), None)


def _said(order: Sequence[Choice], world: World) -> Sequence[Choice]:
    """From the first on whose API can say what is asked; those behind it are looked at when it is their turn. All of
    them where none can."""
    for index, choice in enumerate(order):
        if choice.fluent or world.sayable(choice.target):
            return order[index:]
    return order


def _rungs(rule: Route, fitting: Sequence[Choice], facts: Asking, world: World) -> tuple[Target, ...]:
    order = fitting if rule.by == "priority" else by_cost(fitting, facts, world)
    return tuple([choice.target for choice in order])


def _trial(canary: CanaryTo, ruled: Ruled, facts: Asking, world: World) -> tuple[bool, bool] | None:
    """(is this call the canary's?, is it still on trial?); None where it was rolled back, or cannot be used now."""
    state = world.trials.get(canary.id, State.RUNNING)
    if state is State.ROLLED_BACK or not _can_be_tried(canary, ruled, world):
        return None
    if state is State.PROMOTED:
        return True, False
    return canary_arm(canary.id, facts.unit, canary.share), True


def _can_be_tried(canary: CanaryTo, ruled: Ruled, world: World) -> bool:
    trial = ruled.trial
    if trial is None:
        return canary.to is None and world.marked
    if world.shut is not None and world.shut(trial.target):
        return False
    return trial.fluent or world.sayable(trial.target)


def _fits(choice: Choice, facts: Asking) -> bool:
    """Can it take this call, as far as is known?"""
    if choice.to.lacks and not facts.needs.isdisjoint(choice.to.lacks):
        return False
    return facts.tokens + facts.answer <= choice.context


def _ordered(rule: Route, fitting: Sequence[Choice], facts: Asking, world: World) -> tuple[Sequence[Choice], str, bool]:
    """The targets, why the first is it, and whether the run keeps another one that is left alone for now."""
    if len(fitting) == 1:
        return fitting, "only", False
    order, why = _chosen(rule, fitting, facts, world)
    left_alone = world.shut
    if left_alone is None:
        return order, why, False
    shut = [choice for choice in fitting if left_alone(choice.target)]
    if not shut or len(shut) == len(fitting):
        return order, why, False  # a call that may fail is better than one that does
    returns = why == "sticky" and order[0] in shut
    if returns:
        order, why = _by(rule, fitting, facts, world)
    why = "breaker" if returns or order[0] in shut else why
    return (*[choice for choice in order if choice not in shut], *shut), why, returns


def _chosen(rule: Route, fitting: Sequence[Choice], facts: Asking, world: World) -> tuple[Sequence[Choice], str]:
    """Their order, whether any of them is left alone or not, and why."""
    if rule.by == "weight":
        return by_weight(fitting, facts.unit if rule.sticky else str(world.draw())), "weight"
    if rule.sticky and not facts.free and (name := world.kept(rule.warm)):
        kept = next((choice for choice in fitting if choice.target.name == name), None)
        if kept is not None:
            stays = (kept, *[choice for choice in fitting if choice is not kept])
            if not _moves(rule.by, kept, fitting, facts, world):
                return stays, "sticky"
            if rule.by == "learned":
                found, why = _by(rule, fitting, facts, world)
                moves = found[0] is not kept and _saves(kept, (found[0],), facts, world)
                return (found, why) if moves else (stays, "sticky")
    return _by(rule, fitting, facts, world)


def _by(rule: Route, fitting: Sequence[Choice], facts: Asking, world: World) -> tuple[Sequence[Choice], str]:
    by = rule.by
    if by == "learned":
        return _as_learned(rule, fitting, facts, world)
    if by == "latency":
        return by_latency(fitting, facts.now, world), by
    if by == "cost":
        return by_cost(fitting, facts, world), by
    if by == "headroom":
        return sorted(fitting, key=lambda choice: -world.room(choice.target, facts)), by
    return fitting, by


def _moves(by: By, kept: Choice, fitting: Sequence[Choice], facts: Asking, world: World) -> bool:
    """Does a run leave its target, though it is warm?"""
    if by == "headroom":
        return world.room(kept.target, facts) <= 0
    return by in ("cost", "learned") and _saves(kept, fitting, facts, world)


def _as_learned(rule: Route, fitting: Sequence[Choice], facts: Asking, world: World) -> tuple[Sequence[Choice], str]:
    """Among those that are not left alone; the others stand behind them."""
    learned, shut = world.learned, world.shut
    if learned is None or rule.learn is None:
        return fitting, "first"
    left = [choice for choice in fitting if shut is None or not shut(choice.target)] or fitting
    found, why = learned(rule.learn.id, [arm_of(choice.to) for choice in left], facts.free)
    return (*[left[place] for place in found], *[choice for choice in fitting if choice not in left]), why


def _saves(kept: Choice, fitting: Sequence[Choice], facts: Asking, world: World) -> bool:
    """Is this call cheaper elsewhere, though its prompt is cached where it was?"""
    warm = world.price(kept.target, facts, True)
    cold = [world.price(choice.target, facts, False) for choice in fitting if choice is not kept]
    known = [price for price in cold if price is not None]
    return warm is not None and bool(known) and min(known) < warm


def by_weight(fitting: Sequence[Choice], unit: str) -> Sequence[Choice]:
    """Weighted rendezvous hashing (Thaler and Ravishankar 1998): each target draws a number of its own for this unit,
    the least after division by its weight wins. So runs move only to or from a target that comes or goes."""
    run = unit.encode(errors="replace")
    lots = [-log(drawn(choice.salt, run) or 1e-15) / choice.weight for choice in fitting]
    return [fitting[place] for place in sorted(range(len(lots)), key=lots.__getitem__)]


def by_latency(fitting: Sequence[Choice], now: int, world: World) -> Sequence[Choice]:
    """The quicker of two drawn by chance, then the others from quick to slow."""
    count, paces = len(fitting), [world.pace(choice.target, now) for choice in fitting]
    if count == 2 and paces[0] != paces[1]:  # there is nothing to be drawn
        return fitting if paces[0] < paces[1] else fitting[::-1]
    first = int(world.draw() * count) % count
    second = (first + 1 + int(world.draw() * (count - 1)) % (count - 1)) % count
    winner = second if paces[second] < paces[first] else first
    rest = sorted([place for place in range(count) if place != winner], key=paces.__getitem__)
    return [fitting[winner], *[fitting[place] for place in rest]]


def by_cost(fitting: Sequence[Choice], facts: Asking, world: World) -> Sequence[Choice]:
    """From cheap to dear; of equal ones as listed."""
    prices = [world.price(choice.target, facts, False) for choice in fitting]
    order = sorted(range(len(fitting)), key=lambda place: (prices[place] is None, prices[place] or 0))
    return [fitting[place] for place in order]
