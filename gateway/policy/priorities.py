"""Priorities: which call goes first where not all can go. Pure.

The first rule that matches says how urgent a call is; else the metadata of its key (`priority: batch`); else it is
interactive. Its client may say less in a header, never more; only where there are no keys it is believed.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.call import Call
from gateway.config.schema_bulkheads import PriorityRule
from gateway.policy.bulkhead import BATCH, INTERACTIVE, Priority
from gateway.policy.matching import FirstMatch

HEADER = b"x-tollgate-priority"
METADATA = "priority"
RETRIED = (b"x-stainless-retry-count", b"x-retry-count")
NAMED = {priority.name.lower(): priority for priority in Priority}
_STATED = {name.encode(): priority for name, priority in NAMED.items()}


class Priorities:
    """The rules of one configuration."""

    def __init__(self, rules: Sequence[PriorityRule]) -> None:
        self._first = FirstMatch(rules) if rules else None
        self._of = tuple([NAMED[rule.priority] for rule in rules])

    def of(self, call: Call) -> Priority:
        return self.stated(call, self.usual(call))

    def usual(self, call: Call) -> Priority:
        """Of a call that says nothing itself: the same for all of its scopes and its key."""
        at, key = self._first.at(call) if self._first is not None else -1, call.key
        if at >= 0:
            return self._of[at]
        if key is not None and METADATA in key.metadata:
            return NAMED.get(key.metadata[METADATA].lower(), INTERACTIVE)
        return INTERACTIVE

    def stated(self, call: Call, usual: Priority) -> Priority:
        """With what it says itself."""
        if call.request.checks:
            return BATCH  # of the gateway's own making
        stated = call.request.names.get(HEADER)
        wanted = _STATED.get(stated.strip().lower()) if stated is not None else None
        if wanted is None:
            return usual
        return wanted if call.key is None else max(wanted, usual)


def is_again(call: Call) -> bool:
    """Does its client say that it sent the call before?"""
    names = call.request.names
    return any([names.get(name, b"0").strip() not in (b"", b"0") for name in RETRIED])
