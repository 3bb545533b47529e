"""Gauges of the cache of similar questions: asked of the matcher at a scrape.

Series are bounded: the busiest `limit` scopes have series of their own. A ratio of several scopes together would say
nothing of any of them, so the others have none; `/api/cache/semantic` shows them all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.recorder.facts import tidy
from gateway.recorder.metrics_store import VALUE_LIMIT, Gauge, Labels

KEPT_SECONDS = 2.0


class Scope(Protocol):
    """What is shown of a scope; see gateway.ports.ScopeState."""

    @property
    def scope(self) -> str: ...
    @property
    def target(self) -> float: ...
    @property
    def verified(self) -> int: ...
    @property
    def share(self) -> float: ...
    @property
    def lower(self) -> float: ...
    @property
    def upper(self) -> float: ...
    @property
    def cut(self) -> float: ...
    @property
    def labels(self) -> int: ...
    @property
    def tripped(self) -> bool: ...


class State(Protocol):
    @property
    def embedder(self) -> str: ...
    @property
    def entries(self) -> int: ...
    @property
    def scopes(self) -> Sequence[Scope]: ...


class MatcherGauges:
    """`state` asks the matcher, and raises OSError while it is away. For any thread."""

    def __init__(self, state: Callable[[], State], clock: Callable[[], float]) -> None:
        self._state = state
        self._clock = clock
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._found: State | None = None

    def read(self, expected: bool, limit: int) -> dict[str, Gauge]:
        """`expected`: should there be one?"""
        if not expected:
            return {}
        with self._lock:
            if self._clock() - self._read_at > KEPT_SECONDS:
                try:
                    self._found = self._state()
                except OSError:
                    self._found = None
                self._read_at = self._clock()
            return gauges_of(self._found, limit)


def gauges_of(state: State | None, limit: int) -> dict[str, Gauge]:
    if state is None:
        return {"tollgate_cache_matcher_up": 0.0, "tollgate_cache_embedder_up": 0.0}
    busiest = sorted(state.scopes, key=_labels, reverse=True)[:limit]
    shown: list[tuple[Labels, Scope]] = [((tidy(scope.scope, VALUE_LIMIT),), scope) for scope in busiest]
    judged = [(labels, scope) for labels, scope in shown if scope.verified]
    return {
        "tollgate_cache_matcher_up": 1.0,
        "tollgate_cache_embedder_up": float(bool(state.embedder)),
        "tollgate_cache_questions": float(state.entries),
        "tollgate_cache_false_hit_ratio": {labels: scope.share for labels, scope in judged},
        "tollgate_cache_false_hit_ratio_lower": {labels: scope.lower for labels, scope in judged},
        "tollgate_cache_false_hit_ratio_upper": {labels: scope.upper for labels, scope in judged},
        "tollgate_cache_false_hit_target": {labels: scope.target for labels, scope in shown},
        "tollgate_cache_cut": {labels: scope.cut for labels, scope in shown},
        "tollgate_cache_breaker_open": {labels: float(scope.tripped) for labels, scope in shown},
    }


def _labels(scope: Scope) -> int:
    return scope.labels
