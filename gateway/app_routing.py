"""The part of a worker's composition root that has to do with where calls go."""

from __future__ import annotations

from gateway.config import places
from gateway.config.schema import Config
from gateway.policy.headroom import Headroom
from gateway.policy.pace import Paces
from gateway.policy.routing import Rules
from gateway.stages.route import Router
from gateway.stores.sqlite_canaries import WatchedCanaries


class Crossroads:
    """What a worker keeps for all its configurations: how quick targets were, what is left of their rate limits, and
    how canaries ended."""

    def __init__(self) -> None:
        self._paces = Paces()
        self._rooms = Headroom()
        self._canaries: WatchedCanaries | None = None

    def router(self, config: Config) -> Router | None:
        """None where there are no routes."""
        if not config.routes:
            return None
        if self._canaries is None and any(rule.canary is not None for rule in config.routes):
            self._canaries = WatchedCanaries(places.canaries(config))
        watched = self._canaries
        rooms = self._rooms if any(rule.by == "headroom" for rule in config.routes) else None
        return Router(Rules(config.routes), lambda: watched.ended if watched is not None else {}, self._paces, rooms)

    def tick(self) -> None:
        if self._canaries is not None:
            self._canaries.refresh()

    def close(self) -> None:
        if self._canaries is not None:
            self._canaries.close()
