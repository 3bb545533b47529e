"""A canary: a share of new runs takes another model, upstream or prompt-cache policy, and is watched. Pure.

Rules
1. A run keeps its arm: `canary_arm` is a hash of the canary's id and of the run, the same on all machines. Runs under
   way when the canary begins take their arm with their next call.
2. Five signs are watched (`SIGNS`): a failed call, a slow one, a dear run, a failed tool, a run reported as failed.
   Each run counts once for each. Slow and dear are what few of *all* earlier calls and runs were, of both arms: that
   threshold knows nothing of the arm, as canary_evidence needs.
3. Rolled back once the evidence that the canary is worse reaches 1 / `alpha`. Promoted once enough of its runs were
   seen, the evidence that its calls do not fail more often reaches `PROMOTE`, and no sign leans against it. Held
   otherwise, for ever if need be: then a person decides.
4. Promoted and rolled back are for good: it never flaps. A new try is a new canary, with another id.
5. Every decision carries the evidence it was taken on (`Decision`).
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict, deque
from enum import StrEnum
from hashlib import blake2b

from msgspec import Struct

from gateway.policy.canary_evidence import NotWorse, Worse

SIGNS = ("error", "slow", "dear", "tool_error", "outcome")
PARTS = (0.6, 0.1, 0.1, 0.1, 0.1)  # of the capital bet on each
PROMOTE = 20.0
LEANING = 3.0  # a sign of so much evidence against the canary keeps it from being promoted
RUNS = 50_000  # remembered
SAMPLE = 512  # calls, and runs, that say what is slow and dear
LEAST = 100  # of them, before anything is
_SLOW, _DEAR = 0.95, 0.9


class State(StrEnum):
    RUNNING = "running"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


class Plan(Struct, frozen=True):
    """What the operator asked for. `share` of new runs; see the rules."""

    id: str
    share: float
    alpha: float = 0.01
    least_runs: int = 200  # of the canary, before it can be promoted
    ratio: float = 2.0  # failures so many times as common must be ruled out,
    rate: float = 0.02  # or a share of its runs that fail


class Seen(Struct, frozen=True):
    """One call of a run that was given an arm, when it has ended."""

    run: str
    canary: bool
    error: bool = False
    latency: int = -1  # ns to the first content; -1: there was none
    cost: int = 0  # pico-USD
    tool_error: bool = False


class Decision(Struct, frozen=True):
    """For the record: what was decided, and on what."""

    canary: str
    state: State
    reason: str
    runs: tuple[int, int]  # of the canary, of the rest
    calls: tuple[int, int]
    evidence: dict[str, float]  # that it is worse, by sign; "all": their mean
    counts: dict[str, tuple[int, int]]  # runs that showed a sign: of the canary, of the rest
    not_worse: float


def canary_arm(id: str, run: str, share: float) -> bool:
    """Whether a run is of the canary."""
    return place(id, run) < share


def place(salt: str, run: str) -> float:
    """Where a run stands between 0 and 1, evenly."""
    return int.from_bytes(blake2b(run.encode(errors="replace"), key=salt.encode()[:64], digest_size=6).digest()) / 2**48


class Usual:
    """What the largest values of the latest are; exact, over `SAMPLE` of them."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._order: deque[int] = deque()
        self._sorted: list[int] = []

    def exceeds(self, value: int) -> bool:
        count = len(self._sorted)
        return count >= LEAST and value > self._sorted[int(self._share * count)]

    def take(self, value: int) -> None:
        if len(self._order) == SAMPLE:
            del self._sorted[_index(self._sorted, self._order.popleft())]
        self._order.append(value)
        insort(self._sorted, value)


def _index(values: list[int], value: int) -> int:
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if values[middle] < value else (low, middle)
    return low


class _Run(Struct):
    canary: bool
    cost: int = 0
    signs: int = 0  # bits, as in SIGNS


class Canary:
    """One canary and what was seen of it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.state = State.RUNNING
        self.decision: Decision | None = None
        self.worse = tuple([Worse() for _ in SIGNS])
        self.not_worse = NotWorse(plan.ratio, plan.rate)
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._counted = [0, 0]  # runs of the rest, of the canary
        self._calls = [0, 0]
        self._young: deque[_Run] = deque()  # the latest, whose cost still grows
        self._latency, self._cost = Usual(_SLOW), Usual(_DEAR)

    def see(self, seen: Seen) -> Decision | None:
        """A call has ended; the decision, where that was the last piece of evidence needed."""
        if self.state is not State.RUNNING:
            return None
        known = len(self._runs)
        run = self._run(seen.run, seen.canary)
        news = len(self._runs) != known
        self._calls[seen.canary] += 1
        run.cost += seen.cost
        slow = seen.latency >= 0 and self._latency.exceeds(seen.latency)
        if seen.latency >= 0:
            self._latency.take(seen.latency)
        shown = (seen.error, slow, self._cost.exceeds(run.cost), seen.tool_error)
        for index, bad in enumerate(shown):
            news = (bad and self._mark(run, index)) or news
        return self._decide() if news else None

    def report(self, run: str, failed: bool) -> Decision | None:
        """What a run achieved."""
        known = self._runs.get(run)
        if self.state is not State.RUNNING or known is None or not failed:
            return None
        return self._decide() if self._mark(known, SIGNS.index("outcome")) else None

    def _run(self, id: str, canary: bool) -> _Run:
        run = self._runs.get(id)
        if run is None:
            run = self._runs[id] = _Run(canary)
            self._counted[canary] += 1
            if canary:
                self.not_worse.begin()
            if len(self._runs) > RUNS:
                self._runs.popitem(last=False)
            self._young.append(run)
            if len(self._young) > LEAST:
                self._cost.take(self._young.popleft().cost)
        return run

    def _mark(self, run: _Run, index: int) -> bool:
        """Whether this is news: a run counts once for each sign."""
        bit = 1 << index
        if run.signs & bit:
            return False
        run.signs |= bit
        self.worse[index].see(run.canary, self.plan.share)
        if index == 0:
            self.not_worse.see(run.canary, self.plan.share)
        return True

    @property
    def evidence(self) -> float:
        """That the canary is worse, of all signs together: an e-process."""
        return sum([part * worse.value for part, worse in zip(PARTS, self.worse, strict=True)])

    def _decide(self) -> Decision | None:
        if self.evidence >= 1 / self.plan.alpha:
            heaviest = max(range(len(SIGNS)), key=lambda index: PARTS[index] * self.worse[index].value)
            return self._end(State.ROLLED_BACK, f"{SIGNS[heaviest]}: worse than what it would replace")
        enough = self._counted[1] >= self.plan.least_runs and self.not_worse.value >= PROMOTE
        if enough and all(worse.value < LEANING for worse in self.worse):
            return self._end(State.PROMOTED, "not worse than what it replaces")
        return None

    def _end(self, state: State, reason: str) -> Decision:
        self.state = state
        self.decision = self.standing(reason)
        return self.decision

    def standing(self, reason: str = "") -> Decision:
        """Where it stands, with its evidence."""
        return Decision(
            self.plan.id,
            self.state,
            reason,
            (self._counted[1], self._counted[0]),
            (self._calls[1], self._calls[0]),
            {"all": self.evidence, **{sign: worse.value for sign, worse in zip(SIGNS, self.worse, strict=True)}},
            {sign: (worse.canary, worse.rest) for sign, worse in zip(SIGNS, self.worse, strict=True)},
            self.not_worse.value,
        )
