"""Shed: send calls away while this worker has more to do than it can, those that matter least first. See
policy.overload."""

from __future__ import annotations

from gateway.call import Call
from gateway.errors import Overloaded
from gateway.policy.overload import PRIORITY, SHED, Overload
from gateway.policy.priorities import Priorities, is_again


class Shedder:
    """Implements ports.Shedder."""

    def __init__(self, overload: Overload, priorities: Priorities) -> None:
        self._overload, self._priorities = overload, priorities

    def check(self, call: Call) -> None:
        overload = self._overload
        if not overload.level:
            return
        priority = self._priorities.of(call)
        if overload.sheds(priority, again=is_again(call)):
            call.notes = {**call.notes, SHED: overload.cause, PRIORITY: priority.name.lower()}
            raise Overloaded("The gateway has more to do than it can.", retry_after=1 << (overload.level - 1))
