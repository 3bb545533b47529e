"""The part of a worker's composition root that has to do with where calls go."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.call import Request
from gateway.config import places
from gateway.config.schema import Config
from gateway.dialects.checkable import Checkable
from gateway.dialects.items import read_item
from gateway.policy.canary import State
from gateway.policy.headroom import Headroom
from gateway.policy.pace import Paces
from gateway.policy.routing_rules import Rules
from gateway.stages.cascade import Cascades
from gateway.stages.learned import LearnedChoice
from gateway.stages.route import Router
from gateway.stores.sqlite_canaries import WatchedCanaries
from gateway.stores.sqlite_learned import WatchedLearned


class Crossroads:
    """What a worker keeps for all its configurations: how quick targets were, what is left of their rate limits, how
    canaries ended, and what was learned. `shadow`: sends a request behind the client's back."""

    def __init__(self, shadow: Callable[[Request], bool] = lambda request: False) -> None:
        self._shadow = shadow
        self._paces = Paces()
        self._rooms = Headroom()
        self._canaries: WatchedCanaries | None = None
        self._learned: WatchedLearned | None = None

    def router(self, config: Config) -> Router | None:
        """None where there are no routes."""
        if not config.routes:
            return None
        if self._canaries is None and any(rule.canary is not None for rule in config.routes):
            self._canaries = WatchedCanaries(places.canaries(config))
        watched = self._canaries
        trials: Callable[[], Mapping[str, State]] = lambda: watched.ended if watched is not None else {}  # noqa: E731
        rules = Rules(config.routes)
        rooms = self._rooms if any(rule.by == "headroom" for rule in config.routes) else None
        cascades = Cascades(rules.cascades, Checkable()) if any(rules.cascades) else None
        return Router(rules, trials, self._paces, rooms, self._choice(config, rules), cascades=cascades)

    def _choice(self, config: Config, rules: Rules) -> LearnedChoice | None:
        """None where no rule learns."""
        if not any(rules.terms):
            return None
        known = self._learned = self._learned or WatchedLearned(places.learned(config))
        return LearnedChoice(rules.terms, lambda: known.models, read_item, self._shadow)

    def tick(self) -> None:
        for watched in (self._canaries, self._learned):
            if watched is not None:
                watched.refresh()

    def close(self) -> None:
        for watched in (self._canaries, self._learned):
            if watched is not None:
                watched.close()
