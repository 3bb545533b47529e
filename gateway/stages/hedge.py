"""Hedge: a second attempt beside one whose first content is late; see stages.race.

Rules
1. Late is later than most (`quantile`) of the latest answers of this target, once there are enough of them.
2. Only for a share of an upstream's calls; each call earns that share of a hedge.
3. The second attempt goes to the next target that is well, else once more to the same one.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from gateway.call import Call
from gateway.policy.latest import Delays
from gateway.policy.retry import RetryBudget
from gateway.ports import Downstream, Exchange, Gateway
from gateway.stages.attempt import attempt
from gateway.stages.lanes import Lane
from gateway.stages.race import Aside, Race, Rivals, may_race


class Manner(Struct, frozen=True):
    """When hedges are made; see config.Hedging."""

    share: float = 0.05
    quantile: float = 0.95
    sample: int = 20
    least: float = 0.05
    concerns: Callable[[Call], bool] = lambda call: True


class Hedges:
    """The hedges of one configuration."""

    def __init__(self, manner: Manner, aside: Aside) -> None:
        self.manner, self.aside = manner, aside
        self._delays = Delays()
        self._shares: dict[str, RetryBudget] = {}  # by upstream

    async def attempt(self, call: Call, rivals: Rivals, down: Downstream, gw: Gateway) -> Exchange:
        """As stages.attempt; perhaps of another target than asked, with the call made one that went there."""
        if call.asked.gated or not may_race(call, gw) or not self.manner.concerns(call):
            return await attempt(call, down, gw)
        share = self.share(call.route.upstream)
        if not call.attempts:
            share.earn()
        late = self._delays.quantile(key_of(call), self.manner.quantile, self.manner.sample, gw.monotonic())
        if late is None or not share.whole:
            return await attempt(call, down, gw)
        return await HedgeRace(self, call, rivals, down, gw).run(max(late / 1e9, self.manner.least))

    def share(self, upstream: str) -> RetryBudget:
        known = self._shares.get(upstream)
        if known is None:
            known = self._shares[upstream] = RetryBudget(self.manner.share, reserve=0.0)
        return known

    def learn(self, call: Call, now: int) -> None:
        """After the end: what the first content of a call took that was one attempt."""
        if len(call.attempts) != 1 or call.early or not call.first_byte or not 200 <= call.status < 300:
            return
        said = call.first_byte if call.asked.stream else call.upstream_first_byte
        self.heard(key_of(call), said - call.attempts[0].began, now)

    def heard(self, key: tuple[str, str, bool], took: int, now: int) -> None:
        """What the first content of an attempt took, or has taken so far; ns."""
        self._delays.add(key, took, now)


def key_of(call: Call) -> tuple[str, str, bool]:
    return call.route.upstream, call.model_sent or call.asked.model, call.asked.stream


class HedgeRace(Race):
    name = "hedge"

    def __init__(self, hedges: Hedges, call: Call, rivals: Rivals, down: Downstream, gw: Gateway) -> None:
        super().__init__(hedges.aside, call, rivals, down, gw)
        self._hedges, self._key = hedges, key_of(call)

    def late(self) -> None:
        if self._first.done:
            return
        if self._hedges.share(self._key[0]).spend():
            self.begin()
        else:
            self.alone("capped")

    def learn(self, winner: Lane) -> None:
        """Of the first, where there was another: alone it is learned when the call has ended. What was broken off
        would have taken longer than it did, and it took longer than most: it stands for that."""
        first, now = self._first, self._gw.monotonic()
        if self._other is None or self._other.void or not first.own:
            return
        if first.said or winner is not first:
            self._hedges.heard(self._key, (first.said or now) - first.own[0].began, now)
