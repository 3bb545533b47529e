"""Probe: a call that finds out whether an upstream is well again, and does not wait for that; see stages.race.

Rules
1. Where a call is the probe of a half-open breaker and may go elsewhere too, the next target is asked beside it, after
   `patience`. Where that one fails, the next; where none is left, or what it may cost is not granted, the call waits.
2. So an upstream that stalls costs its callers nothing: the probe goes on behind its call, for its breaker alone.
"""

from __future__ import annotations

from gateway.call import Call
from gateway.ports import Downstream, Exchange, Gateway
from gateway.stages.attempt import attempt
from gateway.stages.lanes import Lane
from gateway.stages.race import Aside, Race, Rivals, may_race


class Probes:
    """Those of one configuration. `patience`: seconds before the next target is asked beside one."""

    def __init__(self, patience: float, aside: Aside) -> None:
        self._patience, self._aside = patience, aside

    async def attempt(self, call: Call, rivals: Rivals, down: Downstream, gw: Gateway) -> Exchange:
        """As stages.attempt; perhaps of another target than asked, with the call made one that went there."""
        if not rivals.open or not may_race(call, gw):
            return await attempt(call, down, gw)
        return await ProbeRace(self._aside, call, rivals, down, gw).run(self._patience)


class ProbeRace(Race):
    name = "probe"
    elsewhere = True

    def failed(self, other: Lane) -> None:
        verdict = other.verdict(self._gw)
        self.lose(other, verdict)
        self._other = None
        if verdict is None:
            self.alone("failed")  # by no fault of its target, which could be aimed at again and again
        else:
            self.begin()
