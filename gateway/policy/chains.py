"""Chains: where a call goes on when it failed. Pure; chance is handed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from gateway.call import Call
from gateway.config.patterns import matches
from gateway.config.schema import Fallback
from gateway.config.schema import Goal as Configured


class Goal(Struct, frozen=True):
    """One target; "" where it stays as it was."""

    upstream: str = ""
    model: str = ""


class Chains:
    """The configured chains; asked only for calls that failed, and for streams that have not begun yet."""

    def __init__(self, rules: Sequence[Fallback]) -> None:
        self._rules = tuple(rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def goals(self, call: Call, upstream: str, trouble: str, chance: Callable[[], float]) -> list[Goal]:
        """The chain of a call for a kind of trouble. `upstream`: the first one; `chance`: draws from [0, 1)."""
        models = (call.model_sent, call.asked.model) if call.model_sent else (call.asked.model,)
        for rule in self._rules:
            if (
                trouble in rule.on
                and matches(rule.upstream, upstream)
                and matches(rule.route, call.route.template)
                and matches(rule.agent, call.who.agent)
                and any([matches(rule.model, model) for model in models])
            ):
                return _ordered(rule, chance)
        return []


def _ordered(rule: Fallback, chance: Callable[[], float]) -> list[Goal]:
    left = [Configured(upstream=entry) if isinstance(entry, str) else entry for entry in rule.to]
    found: list[Goal] = []
    while left:
        at = 0 if rule.order == "listed" else _drawn([goal.weight for goal in left], chance())
        goal = left.pop(at)
        found.append(Goal(goal.upstream or "", goal.model or ""))
    return found


def _drawn(weights: Sequence[float], chance: float) -> int:
    """The place of a weight, each with its share of the chance."""
    point = chance * sum(weights)
    for at, weight in enumerate(weights):
        point -= weight
        if point < 0:
            return at
    return len(weights) - 1
