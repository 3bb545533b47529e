"""Which pool or priority rule a call falls under: the first whose patterns all match. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from gateway.call import Call
from gateway.config.patterns import matches
from gateway.config.schema_bulkheads import Matching

REMEMBERED = 2048  # combinations of scopes whose rule is known
R = TypeVar("R", bound=Matching)


class FirstMatch(Generic[R]):
    """`at` says which of the rules: -1 where none matches. About 0.8 us for scopes seen before."""

    def __init__(self, rules: Sequence[R]) -> None:
        self.rules = tuple(rules)
        self._known: dict[tuple[str, ...], int] = {}

    def at(self, call: Call) -> int:
        who, route, key, asked = call.who, call.route, call.key, call.asked.model
        scopes = (
            *(route.template, route.upstream, asked, call.model_sent, who.agent, who.request_class),
            *((key.id, key.name, key.team) if key is not None else ("", "", who.tenant)),
        )
        found = self._known.get(scopes)
        if found is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            found = next((at for at, rule in enumerate(self.rules) if holds(rule, *scopes)), -1)
            self._known[scopes] = found
        return found


def holds(rule: Matching, *scopes: str) -> bool:
    """`scopes`: route, upstream, model asked for, model sent ("": the same), agent, class, key by id and by name, team;
    one of the models and one of the names is enough."""
    route, upstream, asked, sent, agent, request_class, key_id, key_name, team = scopes
    return (
        matches(rule.route, route)
        and matches(rule.upstream, upstream)
        and (matches(rule.model, asked) or (bool(sent) and matches(rule.model, sent)))
        and matches(rule.agent, agent)
        and matches(rule.request_class, request_class)
        and (matches(rule.key, key_id) or matches(rule.key, key_name))
        and matches(rule.team, team)
    )
