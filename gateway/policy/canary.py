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

from bisect import bisect_left, insort
from enum import StrEnum
from hashlib import blake2b

from msgspec import Struct, field

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

    def facts(self) -> dict[str, str | int | float]:
        """All of it, flat."""
        return {
            "canary": self.canary,
            "reason": self.reason,
            "runs": self.runs[0],
            "runs_rest": self.runs[1],
            "calls": self.calls[0],
            "calls_rest": self.calls[1],
            "not_worse": round(self.not_worse, 4),
            **{f"evidence_{sign}": round(value, 4) for sign, value in self.evidence.items()},
            **{sign: canary for sign, (canary, _) in self.counts.items()},
            **{f"{sign}_rest": rest for sign, (_, rest) in self.counts.items()},
        }


def canary_arm(id: str, run: str, share: float) -> bool:
    """Whether a run is of the canary."""
    return place(id, run) < share


def place(salt: str, run: str) -> float:
    """Where a run stands between 0 and 1, evenly."""
    return drawn(salt_of(salt), run.encode(errors="replace"))


def salt_of(name: str) -> bytes:
    return name.encode()[:64]


def drawn(salt: bytes, run: bytes) -> float:
    """The same, of what is encoded."""
    return int.from_bytes(blake2b(run, key=salt, digest_size=6).digest()) / 2**48


class Usual(Struct):
    """What the largest values of the latest are; exact, over `SAMPLE` of them."""

    share: float
    order: list[int] = []
    ranked: list[int] = []

    def exceeds(self, value: int) -> bool:
        count = len(self.ranked)
        return count >= LEAST and value > self.ranked[int(self.share * count)]

    def take(self, value: int) -> None:
        if len(self.order) == SAMPLE:
            del self.ranked[bisect_left(self.ranked, self.order.pop(0))]
        self.order.append(value)
        insort(self.ranked, value)


class Run(Struct, array_like=True):
    canary: bool
    cost: int = 0
    signs: int = 0  # bits, as in SIGNS


class Memory(Struct):
    """All that is known of a canary, so that a restart loses nothing."""

    not_worse: NotWorse
    worse: list[Worse] = field(default_factory=lambda: [Worse() for _ in SIGNS])
    state: State = State.RUNNING
    decision: Decision | None = None
    runs: dict[str, Run] = {}  # the latest, in the order of their first call
    young: list[str] = []  # the latest of them, whose cost still grows
    counted: list[int] = field(default_factory=lambda: [0, 0])  # runs of the rest, of the canary
    calls: list[int] = field(default_factory=lambda: [0, 0])
    latency: Usual = field(default_factory=lambda: Usual(_SLOW))
    cost: Usual = field(default_factory=lambda: Usual(_DEAR))


class Canary:
    """One canary and what was seen of it."""

    def __init__(self, plan: Plan, memory: Memory | None = None) -> None:
        self.plan = plan
        self.memory = memory or Memory(NotWorse(plan.ratio, plan.rate))

    @property
    def state(self) -> State:
        return self.memory.state

    @property
    def decision(self) -> Decision | None:
        return self.memory.decision

    def see(self, seen: Seen) -> Decision | None:
        """A call has ended; the decision, where that was the last piece of evidence needed."""
        memory = self.memory
        if memory.state is not State.RUNNING:
            return None
        run, news = self._run(seen.run, seen.canary)
        memory.calls[run.canary] += 1
        run.cost += seen.cost
        slow = seen.latency >= 0 and memory.latency.exceeds(seen.latency)
        if seen.latency >= 0:
            memory.latency.take(seen.latency)
        shown = (seen.error, slow, memory.cost.exceeds(run.cost), seen.tool_error)
        for index, bad in enumerate(shown):
            news = (bad and self._mark(run, index)) or news
        return self._decide() if news else None

    def report(self, run: str, failed: bool) -> Decision | None:
        """What a run achieved."""
        known = self.memory.runs.get(run)
        if self.state is not State.RUNNING or known is None or not failed:
            return None
        return self._decide() if self._mark(known, SIGNS.index("outcome")) else None

    def _run(self, id: str, canary: bool) -> tuple[Run, bool]:
        """(the run, is it new?)"""
        memory = self.memory
        run = memory.runs.get(id)
        if run is not None:
            return run, False
        run = memory.runs[id] = Run(canary)
        memory.counted[canary] += 1
        if canary:
            memory.not_worse.begin()
        memory.young.append(id)
        if len(memory.young) > LEAST:
            memory.cost.take(memory.runs[memory.young.pop(0)].cost)
        if len(memory.runs) > RUNS:
            del memory.runs[next(iter(memory.runs))]
        return run, True

    def _mark(self, run: Run, index: int) -> bool:
        """Whether this is news: a run counts once for each sign."""
        bit = 1 << index
        if run.signs & bit:
            return False
        run.signs |= bit
        self.memory.worse[index].see(run.canary, self.plan.share)
        if index == 0:
            self.memory.not_worse.see(run.canary, self.plan.share)
        return True

    @property
    def evidence(self) -> float:
        """That the canary is worse, of all signs together: an e-process."""
        return sum([part * worse.value for part, worse in zip(PARTS, self.memory.worse, strict=True)])

    def _decide(self) -> Decision | None:
        memory = self.memory
        if self.evidence >= 1 / self.plan.alpha:
            heaviest = max(range(len(SIGNS)), key=lambda index: PARTS[index] * memory.worse[index].value)
            return self._end(State.ROLLED_BACK, f"{SIGNS[heaviest]}: worse than what it would replace")
        enough = memory.counted[1] >= self.plan.least_runs and memory.not_worse.value >= PROMOTE
        if enough and all(worse.value < LEANING for worse in memory.worse):
            return self._end(State.PROMOTED, "not worse than what it replaces")
        return None

    def _end(self, state: State, reason: str) -> Decision:
        self.memory.state = state
        self.memory.decision = self.standing(reason)
        return self.memory.decision

    def standing(self, reason: str = "") -> Decision:
        """Where it stands, with its evidence."""
        memory = self.memory
        return Decision(
            self.plan.id,
            memory.state,
            reason,
            (memory.counted[1], memory.counted[0]),
            (memory.calls[1], memory.calls[0]),
            {"all": self.evidence, **{sign: worse.value for sign, worse in zip(SIGNS, memory.worse, strict=True)}},
            {sign: (worse.canary, worse.rest) for sign, worse in zip(SIGNS, memory.worse, strict=True)},
            memory.not_worse.value,
        )
