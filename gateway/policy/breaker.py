"""Breaker: whether an upstream that fails is asked at all. Pure: the clock and chance are handed in.

              opens: too many failures, or slow ones         asked again after a while
    CLOSED ─────────────────────────────────────────▶ OPEN ────────────────────────────▶ HALF OPEN
      ▲                                                 ▲      one probe at a time            │
      └──── the probes went well ───────────────────────┼─────────────────────────────────────┤
                                                        └──── one of them did not ────────────┘

Rules
1. An outcome is a success, a failure, slow (a success that took too long), or neither: a client that left, a 4xx of the
   caller's making, a limit of ours. What is neither changes nothing, and gives a probe's place back.
2. It opens where the share of failures in the window, or that of slow calls, is reached by at least `volume` calls,
   after so many failures in a row, or at once where the upstream asks to be left alone for a second or more. For how
   long is doubled each time, and at least what the upstream asked for.
3. Half open, as many calls as there are probes are let through, one at a time; all others are turned away. So many in a
   row must go well.
4. What others found is taken over (`adopt`), where it is newer than what was found here: that it is open, and for how
   long; or that it has healed, so that it is probed here at once.
5. Outcomes of calls that began before the last change of state are dropped: late failures do not keep it open.
6. A probe that nobody waits for is slow when it takes several times as long as answers usually do (`bound`).
"""

from __future__ import annotations

import enum

from msgspec import Struct

NANO = 10**9
BUCKETS = 10
PROBE_SECONDS = 900  # a probe that is not heard of for so long has lost its place
PART = 0.1  # of the newest in what answers usually take
SLOWER = 5  # times as long as usual is slow, for a probe


class State(enum.StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Outcome(enum.Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    SLOW = "slow"
    NEITHER = "neither"


class Terms(Struct, frozen=True):
    """When it opens; see config.Breakers. Times in ns."""

    window: int = 30 * NANO
    volume: int = 20
    failures: float = 0.5  # share of the calls in the window
    slow: float = 1.0  # the same of slow calls; 1: never
    consecutive: int = 5  # 0: never
    pause: int = 5 * NANO
    longest: int = 60 * NANO
    probes: int = 1

    def tenth(self, now: int) -> int:
        """In which tenth of a window a moment lies."""
        return now * BUCKETS // self.window


class Permit(Struct, frozen=True):
    """A call may go; what became of it is to be told with this."""

    era: int  # counts the changes of state
    probe: bool = False


class Change(Struct, frozen=True):
    """A change of state, for those who look on."""

    state: State
    why: str
    until: int = 0  # when an open one is asked again


class Breaker:
    """One cell: an upstream, a model at an upstream, or a tool."""

    __slots__ = (
        *("_bad", "_begun", "_good", "_in_a_row", "_opened", "_pass", "_probe_at", "_proven", "_slow", "_terms"),
        *("_usual", "era", "state", "turned", "until", "why"),
    )

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.state = State.CLOSED
        self.era = 0
        self._pass = Permit(0)  # of a closed one: the same for every call
        self.until = 0
        self.turned = 0  # when its state changed
        self.why = ""
        self._opened = 0  # times in a row without a recovery
        self._in_a_row = 0
        self._probe_at = 0  # of the one under way; 0: none is
        self._proven = 0
        self._usual = [0.0, 0.0]  # ns to the first content: of whole answers, of streams; 0: not known
        self._clear(0)

    def _clear(self, slot: int) -> None:
        """Counts of each tenth of the window, from that of `slot` on."""
        self._good, self._bad, self._slow = [0] * BUCKETS, [0] * BUCKETS, [0] * BUCKETS
        self._begun = slot

    def admit(self, now: int) -> Permit | None:
        """May a call go? None: no."""
        if self.state is State.CLOSED:
            return self._pass
        if self.state is State.OPEN:
            if now < self.until:
                return None
            self._turn(State.HALF_OPEN, "its time is over", now)
        if self._probe_at and now - self._probe_at < PROBE_SECONDS * NANO:
            return None
        self._probe_at = now or 1
        return Permit(self.era, probe=True)

    def refuses(self, now: int) -> bool:
        """Would `admit` let nothing through? Asked where there is a choice; changes nothing."""
        if self.state is State.CLOSED:
            return False
        if self.state is State.OPEN:
            return now < self.until
        return bool(self._probe_at) and now - self._probe_at < PROBE_SECONDS * NANO

    def went_well(self, permit: Permit, tenth: int) -> bool:
        """`report` of a success of a closed one, where nothing changes by it: what nearly all calls have to tell.
        `tenth`: see Terms. False: it is for `report`."""
        if permit is not self._pass:
            return False
        if tenth != self._begun:
            self._move(tenth)
        self._good[tenth % BUCKETS] += 1
        self._in_a_row = 0
        return True

    def report(self, permit: Permit, outcome: Outcome, now: int, wait: int = 0) -> Change | None:
        """What became of a call. `wait`: for how long the upstream asked to be left alone, ns."""
        if permit.era != self.era:
            return None
        if permit.probe:
            self._probe_at = 0
            return self._probed(outcome, now, wait)
        if outcome is Outcome.NEITHER:
            return None
        slot = self._slot(now)
        if outcome is Outcome.FAILURE:
            self._bad[slot] += 1
            self._in_a_row += 1
            if wait >= NANO:
                return self._open("it asked to be left alone", now, wait)
        else:
            (self._slow if outcome is Outcome.SLOW else self._good)[slot] += 1
            self._in_a_row = 0
            if outcome is Outcome.SUCCESS:
                return None
        why = self._broken()
        return self._open(why, now, wait) if why else None

    def _probed(self, outcome: Outcome, now: int, wait: int) -> Change | None:
        if outcome is Outcome.NEITHER:
            return None
        if outcome is not Outcome.SUCCESS:
            return self._open("a probe failed" if outcome is Outcome.FAILURE else "a probe was slow", now, wait)
        self._proven += 1
        if self._proven < self._terms.probes:
            return None
        self._opened = 0
        self._clear(0)
        return self._turn(State.CLOSED, "probes went well", now)

    def learn(self, took: int, *, stream: bool) -> None:
        """What an answer took; ns."""
        usual = self._usual[stream]
        self._usual[stream] = usual + PART * (took - usual) if usual else took

    def bound(self, *, stream: bool) -> int:
        """For how long a probe may take that nobody waits for; ns. Where nothing is known, more each time."""
        usual, terms = self._usual[stream], self._terms
        if usual:
            return max(terms.pause, int(SLOWER * usual))
        return min(PROBE_SECONDS * NANO, terms.longest << min(max(0, self._opened - 1), 20))

    def adopt(self, *, opened: bool, until: int, at: int, now: int) -> Change | None:
        """Another one of this name was opened, or healed, `at` a time of this clock, perhaps before it began."""
        if self.turned and at <= self.turned:
            return None
        if opened and self.state is State.CLOSED and until > now:
            self.until = min(until, now + self._terms.longest)
            self._clear(0)
            return self._turn(State.OPEN, "others found it failing", now)
        if not opened and self.state is State.OPEN:
            self.until = now
        return None

    def _broken(self) -> str:
        terms = self._terms
        if terms.consecutive and self._in_a_row >= terms.consecutive:
            return f"{self._in_a_row} failures in a row"
        bad, slow = sum(self._bad), sum(self._slow)
        total = bad + slow + sum(self._good)
        if total < terms.volume:
            return ""
        if bad >= terms.failures * total:
            return f"{bad} of {total} calls failed"
        if terms.slow < 1 and slow + bad >= terms.slow * total:
            return f"{slow + bad} of {total} calls were slow or failed"
        return ""

    def _open(self, why: str, now: int, wait: int) -> Change:
        pause = min(self._terms.longest, self._terms.pause << min(self._opened, 20))
        self._opened += 1
        self.until = now + max(pause, min(wait, self._terms.longest))
        self._clear(0)
        return self._turn(State.OPEN, why, now)

    def _turn(self, state: State, why: str, now: int) -> Change:
        self.state, self.why, self.turned = state, why, now
        self.era += 1
        self._pass = Permit(self.era)
        self._in_a_row = self._probe_at = self._proven = 0
        return Change(state, why, self.until if state is State.OPEN else 0)

    def _slot(self, now: int) -> int:
        """The place of the present tenth; what has left the window is forgotten."""
        at = self._terms.tenth(now)
        if at != self._begun:
            self._move(at)
        return at % BUCKETS

    def _move(self, at: int) -> None:
        gone = at - self._begun
        if gone >= BUCKETS or gone < 0:
            self._clear(at)
        else:
            for past in range(self._begun + 1, at + 1):
                place = past % BUCKETS
                self._good[place] = self._bad[place] = self._slow[place] = 0
            self._begun = at
