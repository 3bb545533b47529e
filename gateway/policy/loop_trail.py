"""What is remembered of an agent's last steps, in at most 200 bytes: so that any worker can go on with it. Pure.

Theory of operation
* A step is two numbers of 16 bits: what was done (the set of its tool calls, or what the user said) and what came of it
  (the set of results, or the answer). Chance makes two different steps equal once in four thousand million pairs, and
  every signal needs several such coincidences.
* *News* is what comes from outside the model: a tool result that no such call brought before, a user's message not seen
  before. What the model says of its own is none (data processing: words computed from the context add nothing to what
  the context says about the world).
* A *streak* counts how often one tool failed in one way since it last worked, and how much of that since the last news.
"""

from __future__ import annotations

from struct import Struct as Layout
from struct import error as LayoutError

from msgspec import Struct

LIMIT = 200  # bytes of a value of ports.Links
STEPS = 32  # of a ring, at most: config.Loops.window
STREAKS = 4
ASIDE = 16  # steps in a row of others that ask the same, before they are taken for this one's
_VERSION = 2
_HEAD = Layout("<BIHIBBIBB")  # version, key, steps, last, aside, stale, news, steps in the ring, streaks
_STEP = Layout("<HH")  # brought, done
_THING = Layout("<H")
_STREAK = Layout("<HHBBB")
_MOST = 255


class Mark(Struct, frozen=True, gc=False):
    """One step, folded. `done` is odd where tools were called, even where only words were exchanged, 0 unknown."""

    done: int
    brought: int
    news: tuple[int, ...] = ()  # 16 bits for each thing that came from outside and is no failure
    failures: tuple[tuple[int, int], ...] = ()  # (tool, how it failed), 16 bits each
    worked: tuple[int, ...] = ()  # tools that did


class Streak(Struct, gc=False):
    tool: int
    how: int
    count: int = 0
    dry: int = 0  # of these: since the last news
    at: int = 0  # number of the step, modulo 256


class Trail(Struct, gc=False):
    """`ring` holds the last steps, four bytes each, the newest at the end; `seen` what came from outside, two bytes
    each, what was seen last at the end. Both stay bytes as long as nothing is to be judged: most steps are news."""

    key: int = 0  # of the newest step
    steps: int = 0  # so far, modulo 65536
    last: int = 0  # of the item that ended the newest step
    aside: int = 0  # steps since then that did not follow on it
    stale: int = 0  # steps since the last news, 255 at most
    fresh: int = 0  # bit n: the step n before the newest brought news
    ring: bytes = b""
    seen: bytes = b""
    streaks: tuple[Streak, ...] = ()

    @property
    def entries(self) -> tuple[int, ...]:
        """The last steps as done << 16 | brought."""
        return _WORDS[len(self.ring) // _STEP.size].unpack(self.ring)

    def knows(self, thing: int) -> bool:
        return _place(self.seen, _THING.pack(thing)) >= 0

    def is_aside(self, before: int) -> bool:
        """Is it another agent's step, which began with the same words? It does not follow on the newest one. An agent
        that rewrites its history, or goes on where this one ended, counts after a while all the same."""
        return 0 != before != self.last != 0 and self.aside < ASIDE

    def push(self, mark: Mark, key: int, window: int, last: int = 0, before: int = 0) -> None:
        """Add a step."""
        if before == self.last:
            self.aside = 0
        self.key, self.last = key, last
        self.steps = (self.steps + 1) & 0xFFFF
        fresh = self._learn(mark.news)
        failing = bool(mark.failures) and self._learn(tuple([tool ^ how for tool, how in mark.failures]))
        self.stale = 0 if fresh or failing else min(self.stale + 1, _MOST)
        self.fresh = (self.fresh << 1 | fresh) & 0xFFFF_FFFF
        window = min(window, STEPS)
        self.ring = (self.ring + _STEP.pack(mark.brought, mark.done))[-_STEP.size * window :]
        if self.streaks or mark.failures:
            self._tally(mark, fresh, window)

    def _learn(self, things: tuple[int, ...]) -> bool:
        """Was any of them new?"""
        seen, fresh = self.seen, False
        for thing in things:
            text = _THING.pack(thing)
            at = _place(seen, text)
            if at < 0:
                fresh = True
                seen += text
            else:
                seen = seen[:at] + seen[at + 2 :] + text
        self.seen = seen
        return fresh

    def _tally(self, mark: Mark, fresh: bool, window: int) -> None:
        at = self.steps & _MOST
        kept = [s for s in self.streaks if s.tool not in mark.worked and (at - s.at) & _MOST < window]
        if fresh:
            for streak in kept:
                streak.dry = 0
        for tool, how in mark.failures:
            streak = next((s for s in kept if s.tool == tool and s.how == how), None) or Streak(tool, how)
            kept = [s for s in kept if s is not streak]
            streak.count, streak.dry, streak.at = min(streak.count + 1, _MOST), min(streak.dry + 1, _MOST), at
            kept.append(streak)
        self.streaks = tuple(kept[-STREAKS:])

    def pack(self) -> bytes:
        """What has been seen gives way to the rest."""
        ring, streaks, seen = self.ring, self.streaks, self.seen
        tail = b"".join([_STREAK.pack(s.tool, s.how, s.count, s.dry, s.at) for s in streaks]) if streaks else b""
        steps = len(ring) // _STEP.size
        head = _HEAD.pack(
            _VERSION, self.key, self.steps, self.last, self.aside, self.stale, self.fresh, steps, len(streaks)
        )
        room = (LIMIT - _HEAD.size - len(ring) - len(tail)) // 2 * 2
        return b"%b%b%b%b" % (head, ring, tail, seen if len(seen) <= room else seen[-room:])


def unpack(value: bytes | None) -> Trail:
    """A fresh trail for None and for what is no trail of this version."""
    if not value:
        return Trail()
    try:
        version, key, steps, last, aside, stale, fresh, length, failing = _HEAD.unpack_from(value)
        at = _HEAD.size + _STEP.size * length
        end = at + _STREAK.size * failing
        if version != _VERSION or length > STEPS or failing > STREAKS or len(value) < end or (len(value) - end) % 2:
            return Trail()
        streaks: tuple[Streak, ...] = ()
        if failing:
            streaks = tuple([Streak(*fields) for fields in _STREAK.iter_unpack(value[at:end])])
    except LayoutError:
        return Trail()
    return Trail(key, steps, last, aside, stale, fresh, value[_HEAD.size : at], value[end:], streaks)


def _place(seen: bytes, text: bytes) -> int:
    """Offset of a thing, or -1."""
    at = seen.find(text)
    while at >= 0 and at % 2:
        at = seen.find(text, at + 1)
    return at


_WORDS = [Layout(f"<{length}I") for length in range(STEPS + 1)]
