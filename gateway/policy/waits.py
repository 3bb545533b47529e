"""Waits: how long each part of a call's way may take, by upstream, model, route and agent.

The first rule that matches and states a timeout decides it; else the upstream's own does; where that is the default, a
model known to think for longer than others has longer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import structs

from gateway.call import Call, Waits
from gateway.config.defaults import SLOW_MODELS, SLOW_SECONDS
from gateway.config.patterns import any_matches, matches
from gateway.config.schema import TimeoutRule, Timeouts

REMEMBERED = 1024
NAMES = ("connect", "first_byte", "first_content", "idle", "total", "ping")
_USUAL = Timeouts()


class WaitRules:
    """`usual`: the timeouts of each upstream. What was found is remembered: about 0.4 us a call."""

    def __init__(self, rules: Sequence[TimeoutRule], usual: Mapping[str, Timeouts]) -> None:
        self._rules = tuple(rules)
        self._usual = usual
        self._known: dict[tuple[str, str, str, str, str], Waits] = {}

    def waits(self, call: Call) -> Waits:
        route = call.route
        key = (route.upstream, call.asked.model, call.model_sent, route.template, call.who.agent)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            found = self._known[key] = self._found(*key)
        return found

    def _found(self, upstream: str, asked: str, sent: str, route: str, agent: str) -> Waits:
        models = (sent, asked) if sent else (asked,)
        usual = self._usual.get(upstream, _USUAL)
        values = {name: getattr(usual, name) for name in NAMES}
        if any([any_matches(SLOW_MODELS, model) for model in models]):
            for name in ("first_byte", "first_content"):
                if values[name] == getattr(_USUAL, name):
                    values[name] = SLOW_SECONDS
        for rule in reversed(self._rules):
            known = matches(rule.upstream, upstream) and matches(rule.route, route) and matches(rule.agent, agent)
            if known and any([matches(rule.model, model) for model in models]):
                values |= {name: getattr(rule, name) for name in NAMES if getattr(rule, name) is not None}
        waits = Waits(**values)
        least = max(waits.first_byte, waits.first_content)
        return structs.replace(waits, total=max(waits.total, least)) if usual.total == _USUAL.total else waits
