"""The spans above the calls of a run: one for the run, one for each sub-agent in it.

Rules
1. A run gets spans once a call of it was kept that does not stand in a trace of its caller.
2. They are exported once, when the outcome is reported, when no call came for `idle` seconds, or at the end of the
   process. Their ids are derived from the run, so that calls exported long before hang below them.
3. Bounded: `LIMIT` runs, the oldest leave first; `AGENTS` sub-agents per run, the calls of others hang below the run.
"""

from __future__ import annotations

from msgspec import Struct
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, Status, StatusCode

from gateway.call import PICO_USD
from gateway.journal.record import CallRecord, OutcomeRecord
from gateway.policy.trace_ids import agent_span_id, run_trace_id
from gateway.recorder.facts import tidy
from gateway.recorder.names import NS
from gateway.recorder.names_span import Span
from gateway.recorder.traces_conventions import PLAIN, Conventions
from gateway.recorder.traces_spans import SCOPE, Attributes, context

LIMIT = 10_000
AGENTS = 64


class AgentSpan(Struct):
    """What is known of one agent in a run so far; the run itself is the agent under the name ""."""

    agent: str
    version: str
    parent: str  # name of the agent above
    start: int  # ns since the epoch
    last: int
    calls: int = 0
    cost: int = 0


class RunTrace(Struct):
    run_id: str
    source: str
    conversation_id: str
    agents: dict[str, AgentSpan]
    last: int = 0
    outcome: str = ""


class RunTraces:
    """Follows the runs whose traces are kept. Not locked: the projection is."""

    def __init__(self, idle_seconds: float, limit: int = LIMIT) -> None:
        self._open: dict[str, RunTrace] = {}  # the one without a call for longest first
        self._done: dict[str, None] = {}  # exported, so that they are not again
        self._idle = int(idle_seconds * NS)
        self._limit = limit

    def keep(self, r: CallRecord) -> RunTrace | None:
        """A call of this run is exported. Returns an older run that must be exported to make room."""
        if not r.run_id or r.parent_span_id or r.run_id in self._open or r.run_id in self._done:
            return None
        pushed = self._finish(next(iter(self._open))) if len(self._open) >= self._limit else None
        self._open[r.run_id] = RunTrace(r.run_id, r.run_source, r.conversation_id, {})
        return pushed

    def observe(self, r: CallRecord) -> None:
        """Any call that has ended; those of runs that are not kept pass."""
        if r.run_id not in self._open or r.parent_span_id:
            return
        run = self._open.pop(r.run_id)
        self._open[r.run_id] = run  # the youngest again
        end = r.started_at + r.duration_ns
        run.last = max(run.last, end)
        self._extend(run, "", r, end)
        if r.parent_agent and r.agent and (r.agent in run.agents or len(run.agents) <= AGENTS):
            self._extend(run, r.agent, r, end)

    def report(self, record: OutcomeRecord) -> RunTrace | None:
        """The run whose outcome this is, to be exported."""
        if record.run_id not in self._open:
            return None
        run = self._finish(record.run_id)
        run.outcome = record.kind
        return run

    def idle(self, now: int) -> list[RunTrace]:
        """The runs that had no call for the idle time at `now` (ns since the epoch), to be exported."""
        found = []
        while self._open and next(iter(self._open.values())).last <= now - self._idle:
            found.append(self._finish(next(iter(self._open))))
        return found

    def rest(self) -> list[RunTrace]:
        return [self._finish(run_id) for run_id in list(self._open)]

    def _finish(self, run_id: str) -> RunTrace:
        self._done[run_id] = None
        if len(self._done) > self._limit:
            del self._done[next(iter(self._done))]
        return self._open.pop(run_id)

    @staticmethod
    def _extend(run: RunTrace, name: str, r: CallRecord, end: int) -> None:
        span = run.agents.get(name)
        if span is None:
            span = AgentSpan(r.agent, r.agent_version, r.parent_agent, r.started_at, end)
            run.agents[name] = span
        if not name and not r.parent_agent and r.agent:
            span.agent, span.version = r.agent, r.agent_version
        span.start = min(span.start, r.started_at)
        span.last = max(span.last, end)
        span.calls += 1
        span.cost += r.cost or 0


def run_spans(run: RunTrace, resource: Resource, also: Conventions = PLAIN) -> list[ReadableSpan]:
    """The root and the sub-agents of a run."""
    trace_id = run_trace_id(run.run_id)
    made = []
    for name, seen in run.agents.items():
        above = agent_span_id(run.run_id, seen.parent if seen.parent in run.agents and seen.parent != name else "")
        agent = tidy(seen.agent)
        attributes: Attributes = {
            Span.OPERATION: "invoke_agent",
            Span.RUN: tidy(run.run_id),
            Span.RUN_SOURCE: run.source,
            Span.RUN_CALLS: seen.calls,
            Span.RUN_COST: seen.cost / PICO_USD,
        }
        stated = {
            Span.AGENT_NAME: agent,
            Span.AGENT_VERSION: tidy(seen.version),
            Span.CONVERSATION: run.conversation_id,
        }
        if not name:
            stated[Span.RUN_OUTCOME] = run.outcome
        attributes |= {key: tidy(value) for key, value in stated.items() if value}
        attributes |= also.kind("AGENT", run.conversation_id)
        failed = not name and run.outcome == "failure"
        made.append(
            ReadableSpan(
                name=f"invoke_agent {agent}".rstrip(),
                context=context(trace_id, agent_span_id(run.run_id, name)),
                parent=context(trace_id, above) if name else None,
                resource=resource,
                attributes=attributes,
                kind=SpanKind.INTERNAL,
                status=Status(StatusCode.ERROR) if failed else Status(StatusCode.UNSET),
                start_time=seen.start,
                end_time=seen.last,
                instrumentation_scope=SCOPE,
            )
        )
    return made
