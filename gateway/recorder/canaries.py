"""Judges canaries by the records of their calls, where all of them pass: see gateway.policy.canary.

A projection of the journal that keeps its state, as metrics do. While the recorder is down nothing is decided, and
calls go on as they went; it then reads what it has missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from gateway.call import Outcome
from gateway.config.schema import Config
from gateway.journal.record import CallRecord, OutcomeRecord, Record
from gateway.policy.canary import Canary, Decision, Memory, Plan, Seen, State
from gateway.recorder.facts import OVERTAKEN

EVENTS = {State.PROMOTED: "canary_promoted", State.ROLLED_BACK: "canary_rolled_back"}
FAILED = frozenset((Outcome.UPSTREAM_ERROR, Outcome.FAILED, Outcome.TRUNCATED))
CALLERS = range(400, 500)  # statuses of the caller's making, but for those that say how the target is
TARGETS = frozenset((404, 408, 409, 429))  # an unknown model, too slow, in conflict, too much


def plans_of(config: Config) -> list[Plan]:
    """The canaries of a configuration."""
    found = [rule.canary for rule in config.routes if rule.canary is not None]
    return [Plan(one.id, one.share, one.alpha, one.least_runs, one.ratio, one.rate) for one in found]


class Store(Protocol):
    def save(self, canaries: Mapping[str, Canary], reached: Mapping[str, int], at: int) -> None: ...

    def decide(self, decision: Decision, at: int) -> None: ...


class CanaryJudge:
    """`told`: what is called with each decision. `plans`: of the configuration in force."""

    def __init__(
        self,
        store: Store,
        memories: Mapping[str, Memory],
        told: Callable[[Decision], None],
        now: Callable[[], int],
        failed: Callable[[str, str, OSError], None],
    ) -> None:
        self._store, self._told, self._now, self._failed = store, told, now, failed
        self._memories = dict(memories)
        self._canaries: dict[str, Canary] = {}

    def configure(self, plans: Iterable[Plan]) -> None:
        """Watch these from now on; what was seen of them before is not forgotten."""
        self._memories |= {id: canary.memory for id, canary in self._canaries.items()}
        self._canaries = {plan.id: Canary(plan, self._memories.get(plan.id)) for plan in plans}

    def apply(self, batch: Sequence[Record]) -> None:
        canaries = self._canaries
        if not canaries:
            return
        for record in batch:
            if isinstance(record, CallRecord):
                canary = canaries.get(record.notes.get("canary", ""))
                # What was refused, or answered from the cache, says nothing of the target.
                if canary is not None and record.attempts and (decision := canary.see(seen(record))) is not None:
                    self._end(decision)
            elif isinstance(record, OutcomeRecord):
                for canary in canaries.values():
                    if (decision := canary.report(record.run_id, record.kind == "failure")) is not None:
                        self._end(decision)

    def keep(self, reached: Mapping[str, int]) -> None:
        """Write down what is known, as of a position in the journal."""
        if not self._canaries:
            return
        try:
            self._store.save(self._canaries, reached, self._now())
        except OSError as error:
            self._failed("what canaries have shown cannot be written%s: %s", "", error)

    def close(self, timeout: float) -> None:
        """Nothing is held back."""

    def _end(self, decision: Decision) -> None:
        try:
            self._store.decide(decision, self._now())
        except OSError as error:
            self._failed("the end of the canary %s cannot be written: %s", decision.canary, error)
        self._told(decision)


def seen(record: CallRecord) -> Seen:
    """What a call shows of its target."""
    failed = record.outcome in FAILED and not _of_callers(record.status)
    attempts = [one for one in record.attempts if one.error_code != OVERTAKEN]  # that says nothing
    if len(attempts) > 1:  # rescued by a retry or by another target, which must not hide how this one is
        first = attempts[0]
        failed = failed or bool(first.error_code) or (first.status >= 400 and not _of_callers(first.status))
    return Seen(
        run=record.run_id or record.id,
        canary=record.notes.get("canary_arm") == "canary",
        error=failed,
        latency=record.ttft_ns if record.outcome == Outcome.OK else -1,
        cost=record.cost or 0,
        tool_error=any(tool.is_error for tool in record.tools),
    )


def _of_callers(status: int) -> bool:
    return status in CALLERS and status not in TARGETS
