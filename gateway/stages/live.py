"""Live: the calls under way in this worker, and how a kill reaches them.

A call that is told to end does so where it waits: on the upstream, on its client. Where it waits for something else
(or is told between two waits) it is told again at the next tick, until it has ended.
"""

from __future__ import annotations

from gateway.call import Call
from gateway.errors import RunStopped
from gateway.ports import Controls, Downstream, Gateway


class Live:
    """Implements ports.Live. Adding and removing are one operation on a dict each."""

    def __init__(self) -> None:
        self._calls: dict[str, tuple[Call, Downstream]] = {}
        self._stopping: dict[str, str] = {}  # call id -> why; told, not ended yet

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Call, down: Downstream) -> None:
        self._calls[call.id] = (call, down)

    def remove(self, call: Call) -> None:
        self._calls.pop(call.id, None)

    def sweep(self, controls: Controls) -> int:
        """Interrupt every call that is stopped by now; returns how many those are."""
        self._stopping.clear()
        if controls.stops:
            for id, (call, _) in self._calls.items():
                why = controls.stopped(call)
                if why is not None:
                    self._stopping[id] = why
        return self.insist()

    def insist(self) -> int:
        """Tell those that still have not ended again."""
        for id, why in list(self._stopping.items()):
            entry = self._calls.get(id)
            if entry is None:
                del self._stopping[id]
            else:
                entry[1].interrupt(RunStopped(why))
        return len(self._stopping)


def enter(call: Call, down: Downstream, gw: Gateway) -> None:
    """From here on the call can be stopped. Raises RunStopped where it already is."""
    gw.live.add(call, down)
    if gw.controls.stops:
        why = gw.controls.stopped(call)
        if why is not None:
            raise RunStopped(why)
