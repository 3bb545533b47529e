"""The metrics projection: records in, /metrics out.

Counted here and not in the client library: a record touches some thirty series, and at 10,000 records a second only
plain additions are cheap enough. See metrics_text for how they are written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec
from msgspec import Struct

from gateway import __version__
from gateway.call import ToolCall
from gateway.config.schema import Telemetry
from gateway.journal.record import CallRecord, EventRecord, OutcomeRecord, Record
from gateway.recorder import breaker_gauges, metrics_pools
from gateway.recorder.breaker_gauges import Ajar, OpenBreakers
from gateway.recorder.drops import Drops
from gateway.recorder.facts import tool_result
from gateway.recorder.metrics_calls import Calls, Models
from gateway.recorder.metrics_exposition import Exposition
from gateway.recorder.metrics_matcher import MATCHER_EVENTS, count_event
from gateway.recorder.metrics_runs import Run, Runs
from gateway.recorder.metrics_store import Gauge, Point, Saved, Store
from gateway.recorder.names import GAUGES, NS

_TOOL_SERVER = "client"  # executed by the agent itself, as seen in LLM traffic
_RELOAD = "tollgate_config_last_reload_success"
_RELOAD_AT = "tollgate_config_last_reload_success_timestamp_seconds"


_COUNTED = {
    "records_lost": "tollgate_journal_lost_records",
    "holds_expired": "tollgate_budget_holds_expired",
    "settles_lost": "tollgate_budget_settles_lost",
    "cache_writes_lost": "tollgate_cache_writes_lost",
}
"""Kinds of events that say how many."""


class Snapshot(Struct):
    """What survives a restart of the recorder."""

    started_ns: int
    cells: dict[str, list[Saved]]
    runs: dict[str, Run]
    watermark: int
    reload: dict[str, float]
    ajar: Ajar = []  # breakers that are not closed


class Reading(Struct):
    """The metrics of one moment."""

    points: dict[str, list[Point]]
    gauges: dict[str, Gauge]
    started_ns: int  # since when the counters count


class MetricsProjection:
    """Counts records.

    `gauges` is asked at every scrape for values that are not in the records, by metric name; `clock` gives seconds
    since the epoch; `models` are the configured names (aliases, price overrides) and `knows(provider, model)` asks the
    price data: other models are counted as `other`. `apply` and the readers may run in different threads.
    """

    def __init__(
        self,
        config: Telemetry,
        gauges: Callable[[], Mapping[str, Gauge]],
        clock: Callable[[], float],
        *,
        drops: Drops | None = None,
        models: Collection[str] = (),
        knows: Callable[[str, str], bool] | None = None,
        run_idle_seconds: float = 3600,
    ) -> None:
        self._lock = threading.Lock()
        self._gauges = gauges
        self._clock = clock
        self._drops = drops or Drops()
        self._dropped_before: dict[tuple[str, str], int] = {}
        self._store = Store(config.label_limit)
        self._calls = Calls(self._store, Models(models, knows, config.label_limit))
        self._runs = Runs(self._store, run_idle_seconds)
        self._breakers = OpenBreakers(config.label_limit)
        self._started_ns = int(clock() * NS)
        self._applied_at = clock()
        self._reload: dict[str, float] = {}
        self._every_trace = True
        for name in ("tollgate_worker_deaths", "tollgate_cache_matcher_deaths", *_COUNTED.values()):
            self._store.add(name, (), 0)

    def apply(self, batch: Sequence[Record]) -> None:
        with self._lock:
            for record in batch:
                if isinstance(record, CallRecord):
                    cells = self._calls.observe(record)
                    if self._every_trace:
                        self._calls.exemplify(record, cells)
                    self._runs.observe(record)
                    if record.notes:
                        metrics_pools.observe(self._store, record)
                    for tool in record.tools:
                        self._tool(tool, record)
                elif isinstance(record, OutcomeRecord):
                    self._runs.report(record)
                else:
                    self._event(record)
            self._applied_at = self._clock()
            self._runs.expire(self._runs.watermark)

    def only_given_exemplars(self) -> Callable[[CallRecord], None]:
        """From now on exemplars are the calls given to the returned function: those whose traces are kept."""
        self._every_trace = False
        return self._exemplify

    def _exemplify(self, record: CallRecord) -> None:
        with self._lock:
            self._calls.exemplify(record)

    def close(self, timeout: float) -> None:
        """Nothing is held back; what was counted is kept by `snapshot`."""

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """(body, content type) for a scrape; `accept` is its Accept header."""
        reading = self.read()
        return Exposition(reading.points, reading.gauges, __version__).render(accept)

    def read(self) -> Reading:
        """A consistent copy of everything. Raises KeyError for a gauge that has no name in the table."""
        gauges: dict[str, Gauge] = dict(self._gauges())
        if unknown := gauges.keys() - GAUGES:
            raise KeyError(f"no such gauge: {', '.join(sorted(unknown))}")
        with self._lock:
            self._runs.expire(self._runs.watermark + int((self._clock() - self._applied_at) * NS))
            self._count_drops()
            if ajar := self._breakers.read():
                gauges["tollgate_breaker_open"] = ajar
            gauges = {**self._reload, **self._runs.gauges(), **gauges}
            return Reading(self._store.copy(), gauges, self._started_ns)

    def counted(self, name: str) -> dict[tuple[str, ...], int]:
        """What a counter stands at, by the values of its labels."""
        with self._lock:
            return {labels: cell.value for labels, cell in self._store.counters[name].cells.items()}

    def snapshot(self) -> bytes:
        """Everything counted so far, for `restore` in the next process."""
        with self._lock:
            self._count_drops()
            runs, ajar = self._runs, self._breakers.save()
            state = Snapshot(self._started_ns, self._store.save(), runs.open, runs.watermark, self._reload, ajar)
            return msgspec.msgpack.encode(state)

    def restore(self, data: bytes) -> None:
        """Go on from a snapshot. Raises msgspec.MsgspecError (ValidationError, DecodeError) for what is not one."""
        state = msgspec.msgpack.decode(data, type=Snapshot)
        with self._lock:
            self._started_ns = state.started_ns
            self._store.load(state.cells)
            self._runs.open = {**state.runs, **self._runs.open}
            self._runs.watermark = max(self._runs.watermark, state.watermark)
            self._reload = {**state.reload, **self._reload}
            self._breakers.load(state.ajar)

    def _count_drops(self) -> None:
        for key, count in self._drops.counts().items():
            self._store.add("tollgate_telemetry_dropped", key, count - self._dropped_before.get(key, 0))
            self._dropped_before[key] = count

    def _tool(self, tool: ToolCall, record: CallRecord) -> None:
        name, server = tool.name, tool.server or _TOOL_SERVER
        result = tool_result(tool, record)
        self._store.add("tollgate_tool_calls", (server, name, result))
        if tool.cached:
            return  # nothing ran: it says nothing about the tool
        self._store.observe("tollgate_tool_duration_seconds", (server, name), tool.duration_ns)
        if tool.cost:
            self._store.add("tollgate_tool_cost_usd", (server, name), tool.cost)
        labels = (name, "tool_error" if result == "error" else "")
        self._store.observe("gen_ai_execute_tool_duration_seconds", labels, tool.duration_ns)

    def _shrunk(self, detail: Mapping[str, object]) -> None:
        for cache in ("answers", "links"):
            given = detail.get(cache, 0)
            if isinstance(given, int) and given:
                self._store.add("tollgate_cache_memory_dropped_bytes", (cache,), given)

    def _event(self, record: EventRecord) -> None:
        if record.kind in breaker_gauges.EVENTS:
            self._breakers.see(record)
        if record.kind == "reload" or (record.kind == "start" and not self._reload):
            self._reload = {_RELOAD: 1.0, _RELOAD_AT: record.at / NS}
        elif record.kind == "reload_failed":
            self._reload[_RELOAD] = 0.0
        elif record.kind == "worker_died":
            self._store.add("tollgate_worker_deaths", ())
        elif record.kind == "breaker":
            detail = record.detail
            self._store.add("tollgate_breaker_changes", (str(detail.get("breaker", "")), str(detail.get("state", ""))))
        elif record.kind == "caches_shrunk":
            self._shrunk(record.detail)
        elif record.kind in MATCHER_EVENTS:
            count_event(self._store, record)
        elif record.kind in _COUNTED:
            count = record.detail.get("count", 0)
            self._store.add(_COUNTED[record.kind], (), count if isinstance(count, int) else 0)
