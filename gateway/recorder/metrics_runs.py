"""Metrics of runs as a whole: steps, cost and outcome, counted when a run ends.

Rules
1. A run ends when its outcome is reported, or when it had no call for `idle` seconds, or when `LIMIT` younger runs
   push it out; it is counted once.
2. Calls after a reported outcome still add their cost to that outcome; a second report changes nothing here (a counter
   cannot go back; the ledger has the last one).
3. Time is that of the records, so that a rebuild gives the same; between records it goes on with the clock.
"""

from __future__ import annotations

from msgspec import Struct

from gateway.journal.record import CallRecord, OutcomeRecord
from gateway.recorder.metrics_store import Gauge, Store
from gateway.recorder.names import METRICS, NS, PICO

LIMIT = 50_000
NONE = "none"
_SCORE_SCALE = METRICS["tollgate_run_score"].scale
_SCORE_MAX = 1e9


class Run(Struct, array_like=True, gc=False):
    """Totals of one run so far."""

    agent: str
    last: int  # ns since the epoch
    steps: int = 0
    cost: int = 0  # pico-USD
    outcome: str = ""


class Runs:
    """Keeps the open runs, oldest first."""

    def __init__(self, store: Store, idle_seconds: float, limit: int = LIMIT) -> None:
        self.open: dict[str, Run] = {}
        self._store = store
        self._idle = int(idle_seconds * NS)
        self._limit = limit
        self.watermark = 0

    def observe(self, r: CallRecord) -> None:
        if not r.run_id:
            return
        at = r.started_at + r.duration_ns
        self.watermark = max(self.watermark, at)
        run = self.open.pop(r.run_id, None)
        if run is None:
            run = Run(r.agent, at)
            if len(self.open) >= self._limit:
                self._end(self.open.pop(next(iter(self.open))), NONE)
        elif not run.agent:
            run.agent = r.agent
        self.open[r.run_id] = run
        run.last = at
        run.steps += 1
        if r.cost:
            run.cost += r.cost
            if run.outcome:
                self._store.add("tollgate_run_cost_usd", (run.agent, run.outcome), r.cost)

    def report(self, record: OutcomeRecord) -> None:
        self.watermark = max(self.watermark, record.at)
        run = self.open.get(record.run_id)
        if run is None:
            run = self.open[record.run_id] = Run("", record.at)
        if run.outcome:
            return
        self._end(run, record.kind)
        value = record.value
        if value is not None and -_SCORE_MAX < value < _SCORE_MAX:
            self._store.observe("tollgate_run_score", (run.agent,), round(value * _SCORE_SCALE))

    def gauges(self) -> dict[str, Gauge]:
        """How many are open, and the most that one of them has cost and done."""
        runs = self.open.values()
        return {
            "tollgate_active_runs": float(len(runs)),
            "tollgate_active_run_cost_usd": max((run.cost for run in runs), default=0) / PICO,
            "tollgate_active_run_steps": float(max((run.steps for run in runs), default=0)),
        }

    def expire(self, now: int) -> None:
        """End the runs that were idle at `now` (ns since the epoch)."""
        while self.open:
            run_id = next(iter(self.open))
            run = self.open[run_id]
            if run.last > now - self._idle:
                return
            del self.open[run_id]
            self._end(run, NONE)

    def _end(self, run: Run, outcome: str) -> None:
        if run.outcome:
            return  # counted when it was reported
        run.outcome = outcome
        self._store.add("tollgate_runs", (run.agent, outcome))
        self._store.add("tollgate_run_cost_usd", (run.agent, outcome), run.cost)
        self._store.observe("tollgate_agent_steps", (run.agent,), run.steps)
        self._store.observe("tollgate_conversation_cost_usd", (run.agent,), run.cost)
