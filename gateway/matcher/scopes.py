"""The scopes that the matcher has in mind, each with its evidence and its counts; the others are on disk."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from gateway.matcher.memory import Memory
from gateway.policy.semantic_learner import sigmoid
from gateway.policy.semantic_scope import Scope
from gateway.ports import Topic

MOST = 512  # in memory
MOST_OF_TENANT = 64
EVERY = 2 * 10**9  # ns between two writings of a scope; of a large one as many times more as it has
LARGE = 65_536  # bytes
UNREACHABLE = 2.0  # the cut of a scope that serves nothing

_encode = msgspec.msgpack.Encoder().encode
_log = logging.getLogger("tollgate.matcher")


class Counts(Struct):
    """Money in pico-USD."""

    hits: int = 0
    would: int = 0  # hits that a scope would have given while it only learned
    saved: int = 0
    checks: int = 0  # hits that were asked upstream once more
    shadow_cost: int = 0  # of those
    reported: int = 0
    serves: bool = False  # as it was last asked for


_counts = msgspec.msgpack.Decoder(Counts).decode


class Studied:
    """A scope as the matcher keeps it."""

    __slots__ = ("changed", "counts", "name", "pause", "scope", "tenant", "written")

    def __init__(self, name: str, tenant: str, scope: Scope, counts: Counts) -> None:
        self.name, self.tenant, self.scope, self.counts = name, tenant, scope, counts
        self.changed = False
        self.written = 0  # ns since the epoch
        self.pause = EVERY

    @property
    def learning(self) -> bool:
        """Is there not enough evidence to serve anything?"""
        return math.isinf(self.scope.cut)

    @property
    def lower(self) -> float:
        return self.scope.interval.lower

    @property
    def cut(self) -> float:
        """As a chance."""
        return UNREACHABLE if self.learning else sigmoid(self.scope.cut)


class Scopes:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._known: OrderedDict[str, Studied] = OrderedDict()

    def of(self, topic: Topic, now: int) -> Studied:
        """The scope of a topic, with what is wanted of it."""
        studied = self._known.get(topic.scope)
        if studied is None:
            studied = self._read(topic.scope, topic.tenant, topic.target, topic.sample)
            self._make_room(topic.tenant, now)
            self._known[topic.scope] = studied
        self._known.move_to_end(topic.scope)
        studied.counts.serves = topic.serve
        studied.scope.sample = topic.sample
        if studied.scope.target != topic.target:  # what was earned for another target is chosen anew
            studied.scope.retarget(topic.target)
            studied.changed = True
        return studied

    def known(self, name: str, now: int) -> Studied | None:
        """By its name; from disk, where it is only there."""
        studied = self._known.get(name)
        if studied is None:
            tenants = dict(self._memory.scopes())
            if name not in tenants:
                return None
            studied = self._read(name, tenants[name], 0.01, 0.04)
            self._make_room(studied.tenant, now)
            self._known[name] = studied
        return studied

    def all(self) -> Iterator[Studied]:
        yield from self._known.values()

    def load(self, now: int) -> None:
        """Those that were used last."""
        for name, _ in reversed(self._memory.scopes()[:MOST]):
            self.known(name, now)

    def keep(self, now: int) -> None:
        """Write down all that changed."""
        for studied in self._known.values():
            if studied.changed:
                self.write(studied, now)

    def keep_next(self, now: int) -> None:
        """Write down the one that changed and was not written for longest, if that is long enough ago: writing takes
        milliseconds, and calls wait meanwhile."""
        due = [one for one in self._known.values() if one.changed and now - one.written >= one.pause]
        if due:
            self.write(min(due, key=_written), now)

    def _read(self, name: str, tenant: str, target: float, sample: float) -> Studied:
        found = self._memory.scope(name)
        if found is not None:
            try:
                scope = Scope.load(found[0])
            except ValueError as error:
                _log.warning("what scope %s had learned cannot be read: it learns anew: %s", name, error)
                return Studied(name, tenant, Scope(target, sample), Counts())
            try:
                counts = _counts(found[1])
            except msgspec.MsgspecError:
                counts = Counts()
            return Studied(name, tenant, scope, counts)
        return Studied(name, tenant, Scope(target, sample), Counts())

    def _make_room(self, tenant: str, now: int) -> None:
        mine = [name for name, one in self._known.items() if one.tenant == tenant]
        name = mine[0] if len(mine) >= MOST_OF_TENANT else next(iter(self._known)) if len(self._known) >= MOST else ""
        if name:
            studied = self._known.pop(name)
            if studied.changed:
                self.write(studied, now)

    def write(self, studied: Studied, now: int) -> None:
        studied.changed, studied.written = False, now
        state, counts = studied.scope.dump(), _encode(studied.counts)
        studied.pause = EVERY * max(1, len(state) // LARGE)
        self._memory.keep(studied.name, studied.tenant, now, state, counts)


def _written(studied: Studied) -> int:
    return studied.written
