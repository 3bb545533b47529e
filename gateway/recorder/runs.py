"""Totals of runs: sums, minima and maxima only, so that neither order nor the borders of batches can matter."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.call import Outcome, Usage, UsageSource
from gateway.journal.record import CallRecord

GOOD = frozenset({Outcome.OK, Outcome.CANCELLED})
"""Outcomes that are not errors: a client that leaves is not one."""

_PRODUCED = frozenset({Outcome.OK, Outcome.TRUNCATED, Outcome.CANCELLED})


def used(r: CallRecord) -> Usage | None:
    """The tokens that a provider worked for: those of an answer given before were counted then."""
    return None if r.usage_source == UsageSource.CACHED else r.usage


def unknown_cost(r: CallRecord) -> bool:
    """Did this call cost something, and nobody knows how much?

    Not so where nothing was consumed: operations without tokens, refusals, and errors the provider answered with.
    """
    if r.cost is not None or r.cost_status == "free":
        return False
    if r.cost_status == "no_price" or r.outcome == Outcome.ABANDONED:
        return True
    return bool(r.operation) and r.outcome in _PRODUCED


class Totals:
    """What some calls of one run add to its row."""

    __slots__ = (
        "agent", "cache_read", "cache_write", "calls", "cost", "errors", "first_at", "first_id", "input", "last_at",
        "output", "priced", "reasoning", "source", "steps", "tenant", "tool_calls", "tool_errors", "unknown",
    )  # fmt: skip

    def __init__(self, r: CallRecord) -> None:
        self.first_at, self.first_id = r.started_at, r.id
        self.tenant, self.agent, self.source = r.tenant, r.agent, r.run_source
        self.last_at = r.started_at + r.duration_ns
        self.steps = r.step
        self.calls = self.errors = self.priced = self.cost = self.unknown = self.tool_calls = self.tool_errors = 0
        self.input = self.output = self.cache_read = self.cache_write = self.reasoning = 0

    def add(self, r: CallRecord) -> None:
        if r.started_at < self.first_at or (r.started_at == self.first_at and r.id < self.first_id):
            self.first_at, self.first_id = r.started_at, r.id
            self.tenant, self.agent, self.source = r.tenant, r.agent, r.run_source
        end = r.started_at + r.duration_ns
        self.last_at = max(self.last_at, end)
        self.steps = max(self.steps, r.step)
        self.calls += 1
        if r.outcome not in GOOD:
            self.errors += 1
        usage = used(r)
        if usage is not None:
            self.input += usage.input_tokens
            self.output += usage.output_tokens
            self.cache_read += usage.cache_read_tokens
            self.cache_write += usage.cache_write_tokens
            self.reasoning += usage.reasoning_tokens
        if r.cost is not None:
            self.priced += 1
            self.cost += r.cost
        elif unknown_cost(r):
            self.unknown += 1
        if r.tools:
            self.tool_calls += len(r.tools)
            self.tool_errors += sum(t.is_error for t in r.tools)

    def row(self, n: int, run_id: str) -> tuple[str | int, ...]:
        """In the order of the columns of `runs`."""
        return (n, run_id, *self.first()[:2], self.last_at, self.tenant, self.agent, self.source, *self.sums())

    def first(self) -> tuple[str | int, ...]:
        return self.first_at, self.first_id, self.tenant, self.agent, self.source

    def sums(self) -> tuple[int, ...]:
        return (
            self.calls, self.errors, self.input, self.output, self.cache_read, self.cache_write, self.reasoning,
            self.cost, self.priced, self.unknown, self.tool_calls, self.tool_errors, self.steps,
        )  # fmt: skip


def fold(records: Iterable[CallRecord]) -> dict[str, Totals]:
    """Totals by run; calls that belong to no run are left out."""
    runs: dict[str, Totals] = {}
    for r in records:
        if not r.run_id:
            continue
        totals = runs.get(r.run_id)
        if totals is None:
            totals = runs[r.run_id] = Totals(r)
        totals.add(r)
    return runs
