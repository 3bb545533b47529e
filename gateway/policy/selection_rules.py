"""What a rule that learns needs of its configuration: names of its targets, scopes, and who may have which. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from gateway.call import Call
from gateway.config.patterns import any_matches
from gateway.config.schema_routing import Learn, Route, RouteTo
from gateway.policy.selection import Choice, Goal, Model
from gateway.policy.selection_features import Features

QUALITY = 0.97  # the goal where none is stated


class Arm(Struct, frozen=True):
    """One target as the rule states it, wherever the call was going: so it is the same for all calls."""

    name: str
    model: str | None
    upstream: str | None


class Terms(Struct, frozen=True):
    learn: Learn
    arms: tuple[Arm, ...]  # the operator's first choice first
    cascade: bool = False  # where an answer is withheld, the next dearer one is asked

    def scope(self, call: Call) -> str:
        """What is learned of one is not used for another."""
        id, per, key = self.learn.id, self.learn.per, call.key
        if per == "rule":
            return id
        if per == "agent":
            return f"{id}|{call.who.agent}"
        if key is None:
            return f"{id}|"
        return f"{id}|{key.team if per == 'team' else key.id}"

    def arm_at(self, call: Call, model: str, upstream: str) -> str:
        """Which of them a call is sent to that was going elsewhere; "": none, as that of a canary."""
        sent, here = call.model_sent or call.asked.model, call.route.upstream
        for arm in self.arms:
            if (arm.model or sent, arm.upstream or here) == (model, upstream):
                return arm.name
        return ""

    def permitted(self, call: Call, names: Collection[str]) -> list[str]:
        """Those that its key may ask for by their own names, unless it may ask for what the client did; all, where none
        is: to refuse is the matter of a later stage."""
        key = call.key
        if key is None or any_matches(key.models, call.asked.model):
            return list(names)
        sent = call.model_sent or call.asked.model
        return [
            arm.name for arm in self.arms if arm.name in names and any_matches(key.models, arm.model or sent)
        ] or list(names)

    def choose(
        self, model: Model | None, seen: Features, allowed: Sequence[str], draw: float, *, explores: bool
    ) -> Choice:
        """`model`: of the scope, None where nothing was learned of it yet. `allowed` is not empty."""
        if model is None or any([name not in model.arms for name in allowed]):
            model = Model(tuple([arm.name for arm in self.arms]), ())
        return model.choose(seen, allowed, draw, self.learn.explore if explores else 0.0)


def terms_of(rule: Route) -> Terms | None:
    """None: nothing is learned of it."""
    if rule.learn is None:
        return None
    arms = tuple([Arm(arm_of(to), *_named(to)) for to in rule.to])
    return Terms(rule.learn, arms, rule.cascade is not None)


def arm_of(to: RouteTo | str) -> str:
    model, upstream = _named(to)
    return f"{upstream}/{model}" if upstream and model else upstream or model or ""


def _named(to: RouteTo | str) -> tuple[str | None, str | None]:
    return (to, None) if isinstance(to, str) else (to.model, to.upstream)


def goal_of(learn: Learn, share: float | None = None) -> Goal:
    """`share`: of the best single target's cost, that a budget leaves room for."""
    cost = min([one for one in (learn.cost, share) if one is not None], default=None)
    stated = learn.quality is not None or learn.cost is not None or learn.usd_per_day is not None
    return Goal(learn.quality if stated else QUALITY, cost)


def stated_goal(learn: Learn) -> Mapping[str, float]:
    """For people."""
    goal = {"quality": learn.quality, "cost": learn.cost, "usd_per_day": learn.usd_per_day}
    return {name: value for name, value in goal.items() if value is not None} or {"quality": QUALITY}
