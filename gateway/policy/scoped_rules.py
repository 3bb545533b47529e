"""Which rule of a configuration holds for a call: the first whose patterns match all that the call is. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from gateway.call import Call
from gateway.config.patterns import matches
from gateway.config.schema import CacheRule
from gateway.config.schema_semantic import SemanticRule

REMEMBERED = 2048  # combinations of scopes whose rule is known

R = TypeVar("R", bound=CacheRule | SemanticRule)
T = TypeVar("T")


class ScopedRules(Generic[R, T]):
    """`others`: what holds where none of `rules` does; `terms`: what a rule says, made once for each combination."""

    def __init__(self, rules: Sequence[R], others: R, terms: Callable[[R], T]) -> None:
        self._rules = rules
        self._others = others
        self._terms = terms
        self._known: dict[tuple[str, ...], T] = {}

    def of(self, call: Call) -> T:
        who, route, asked = call.who, call.route, call.asked.model
        scopes = (route.template, route.upstream, asked, call.model_sent or asked, who.agent, who.tenant)
        found = self._known.get(scopes)
        if found is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            rule = next((rule for rule in self._rules if holds(rule, *scopes)), self._others)
            found = self._known[scopes] = self._terms(rule)
        return found


def holds(rule: CacheRule | SemanticRule, *scopes: str) -> bool:
    """`scopes`: route, upstream, the model asked for, the model sent, agent, tenant; one of the models is enough."""
    patterns = (rule.route, rule.upstream, rule.model, rule.model, rule.agent, rule.tenant)
    hold = [matches(pattern, value) for pattern, value in zip(patterns, scopes, strict=True)]
    return all(hold[:2]) and any(hold[2:4]) and all(hold[4:])
