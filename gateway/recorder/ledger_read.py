"""The reading side of the ledger: queries for the API, each bounded in time, beside the writer and never in its way.

Pages go from the newest to the oldest by (start, id), which no later insert changes: whatever was there when the first
page was read appears on exactly one page.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from gateway.errors import LedgerUnavailable
from gateway.recorder.ledger import VERSION
from gateway.recorder.ledger_sql import SELECT_BREAKERS, SELECT_META

QUERY_SECONDS = 5.0
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_CHECK_EVERY = 20_000  # virtual machine instructions between two looks at the clock

Rows = list[sqlite3.Row]
Cursor = tuple[int, str]  # (start, id) of the last row of a page


class QueryTimeout(LedgerUnavailable):
    code = "query_timeout"


class CallFilter(Struct, frozen=True):
    """None: any. `since` (inclusive) and `until` (exclusive) bound the start, ns since the epoch."""

    run: str | None = None
    agent: str | None = None
    tenant: str | None = None
    model: str | None = None  # requested or used
    outcome: str | None = None
    since: int | None = None
    until: int | None = None


class RunFilter(Struct, frozen=True):
    """The same for runs: of the agent any call may be; `outcome` is the reported one, or "none"."""

    agent: str | None = None
    tenant: str | None = None
    model: str | None = None
    outcome: str | None = None
    since: int | None = None
    until: int | None = None
    search: str | None = None  # lower case: somewhere in the id, the agent or the tenant


# Every condition in two spellings: the first can use an index, the second (unary plus) leaves the choice to another.
_CALL_TERMS: Final[Mapping[str, tuple[str, str]]] = {
    "run": ("run = (SELECT n FROM runs WHERE run_id = :run)", "run = (SELECT n FROM runs WHERE run_id = :run)"),
    "agent": ("agent = :agent", "+agent = :agent"),
    "requested": ("model_requested = :model", "+model_requested = :model"),
    "used": (
        "model_used = :model AND model_used <> model_requested",
        "+model_used = :model AND +model_used <> model_requested",
    ),
    "outcome": ("outcome = :outcome", "+outcome = :outcome"),
    "not_ok": ("outcome = :outcome AND outcome <> 'ok'", "+outcome = :outcome"),
    "tenant": ("tenant = :tenant", "+tenant = :tenant"),
}
_TIME_TERMS: Final[Mapping[str, str]] = {
    "since": "started_at >= :since",
    "until": "started_at < :until",
    "cursor": "started_at <= :at AND (started_at < :at OR id < :id)",
}
_RUN_TERMS: Final[Mapping[str, str]] = {
    "agent": "EXISTS (SELECT 1 FROM calls c WHERE c.run = r.n AND +c.agent = :agent)",
    "model": ("EXISTS (SELECT 1 FROM calls c WHERE c.run = r.n AND :model IN (c.model_requested, c.model_used))"),
    "tenant": "r.tenant = :tenant",
    "outcome": "ifnull(v.kind, 'none') = :outcome",
    "since": "first_at >= :since",
    "until": "first_at < :until",
    "search": (
        "(instr(lower(r.run_id), :search) OR instr(lower(r.agent), :search) OR instr(lower(r.tenant), :search))"
    ),
    "cursor": "first_at <= :at AND (first_at < :at OR r.run_id < :id)",
}
_SELECT_CALLS: Final = "SELECT * FROM calls WHERE "
_CALL_ORDER: Final = " ORDER BY started_at DESC, id DESC LIMIT :limit"
_SELECT_RUNS: Final = (
    "SELECT r.*, v.id AS outcome_id, v.at AS outcome_at, v.kind AS outcome_kind, v.value AS outcome_value, "
    "v.note AS outcome_note FROM runs r LEFT JOIN verdicts v USING (run_id) WHERE "
)
_RUN_ORDER: Final = " ORDER BY first_at DESC, r.run_id DESC LIMIT :limit"
_DEAREST_FIRST: Final = " ORDER BY r.cost DESC, first_at DESC, r.run_id DESC LIMIT :limit"

_HAS_META: Final = "SELECT count(*) FROM sqlite_schema WHERE name = 'meta'"
_CALL: Final = "SELECT * FROM calls WHERE id = ?"
_RUN: Final = _SELECT_RUNS + "r.run_id = ?"
_AGENTS: Final = """
SELECT DISTINCT agent FROM calls WHERE run = (SELECT n FROM runs WHERE run_id = ?) ORDER BY agent LIMIT 100
"""
_OUTCOMES: Final = "SELECT * FROM outcomes WHERE run_id = ? ORDER BY at, id LIMIT 1000"
_OUTCOME: Final = "SELECT 1 FROM outcomes WHERE id = ?"
_RUN_CALLS: Final = """
SELECT * FROM calls WHERE run = (SELECT n FROM runs WHERE run_id = ?) ORDER BY started_at, id LIMIT ?
"""
_RUN_TOOLS: Final = """
SELECT * FROM tools WHERE run = (SELECT n FROM runs WHERE run_id = ?) ORDER BY started_at, call_id, n LIMIT ?
"""
_RUN_STEPS: Final = """
SELECT agent, step, max(parent_agent) AS parent_agent, max(agent_version) AS agent_version,
    min(started_at) AS first_at, max(started_at + duration_ns) AS last_at,
    count(*) AS calls, sum(outcome NOT IN ('ok', 'cancelled')) AS errors,
    ifnull(sum(input_tokens), 0) AS input_tokens, ifnull(sum(output_tokens), 0) AS output_tokens,
    ifnull(sum(cache_read_tokens), 0) AS cache_read_tokens, ifnull(sum(cache_write_tokens), 0) AS cache_write_tokens,
    ifnull(sum(reasoning_tokens), 0) AS reasoning_tokens, ifnull(sum(cost), 0) AS cost, count(cost) AS priced,
    sum(cost_unknown) AS cost_unknown, sum(tool_calls) AS tool_calls, sum(tool_errors) AS tool_errors
FROM calls WHERE run = (SELECT n FROM runs WHERE run_id = ?) GROUP BY agent, step ORDER BY agent, step
"""
_PROMPT_CACHE: Final = """
SELECT agent, json_extract(detail, '$.prompt_cache[5]') AS cause, json_extract(detail, '$.prompt_cache[6]') AS part,
    json_extract(detail, '$.prompt_cache[7]') AS place, max(json_extract(detail, '$.prompt_cache[8]')) AS hint,
    count(*) AS calls, sum(json_extract(detail, '$.prompt_cache[0]')) AS readable,
    sum(json_extract(detail, '$.prompt_cache[1]')) AS read, sum(json_extract(detail, '$.prompt_cache[2]')) AS input,
    sum(json_extract(detail, '$.prompt_cache[3]')) AS lost_tokens,
    sum(json_extract(detail, '$.prompt_cache[4]')) AS lost,
    sum(json_extract(detail, '$.prompt_cache[4]') IS NULL) AS unknown
FROM calls WHERE run = (SELECT n FROM runs WHERE run_id = ?) AND json_extract(detail, '$.prompt_cache') IS NOT NULL
GROUP BY 1, 2, 3, 4 ORDER BY agent
"""
# Sums over many runs may outgrow 64 bits of pico-USD: they are taken in two parts.
_BY_OUTCOME: Final = """
SELECT r.tenant, r.agent, v.kind, count(*) AS runs, sum(r.calls) AS calls,
    sum(r.cost / 1000000) AS cost_micro, sum(r.cost % 1000000) AS cost_rest,
    sum(r.cost_unknown) AS cost_unknown, sum(r.priced) AS priced,
    sum(v.value) AS value_sum, count(v.value) AS value_count
FROM verdicts v JOIN runs r USING (run_id)
WHERE r.first_at >= :since AND r.first_at < :until
    AND (:tenant IS NULL OR r.tenant = :tenant) AND (:agent IS NULL OR r.agent = :agent)
GROUP BY r.tenant, r.agent, v.kind ORDER BY r.tenant, r.agent, v.kind
"""
# Distinct models by hopping through an index, each with the provider that served it last.
_MODELS: Final = """
WITH RECURSIVE m (model) AS (
    SELECT min(model_requested) FROM calls
    UNION ALL
    SELECT (SELECT min(model_requested) FROM calls WHERE model_requested > m.model) FROM m WHERE m.model IS NOT NULL
)
SELECT model,
    (SELECT provider FROM calls WHERE model_requested = m.model ORDER BY started_at DESC LIMIT 1) AS provider
FROM m WHERE model <> '' LIMIT ?
"""


class LedgerReader:
    """Queries. One instance serves any number of threads, each with a connection of its own.

    Methods raise LedgerUnavailable, QueryTimeout among them; `damaged` is told where the file cannot be read.
    """

    def __init__(
        self,
        path: Path,
        *,
        damaged: Callable[[], None] = lambda: None,
        seconds: float = QUERY_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._damaged = damaged
        self._seconds = seconds
        self._monotonic = monotonic
        self._local = threading.local()
        self._closed = False

    def close(self) -> None:
        """Cut what still runs; nothing is answered any more."""
        self._closed = True

    def calls(self, where: CallFilter, limit: int, after: Cursor | None = None) -> Rows:
        """The newest `limit` calls that match, after (that is: older than) the cursor."""
        values = _values(where, limit, after)
        texts = [_call_query(where, after, names) for names in _spellings(where)]
        rows = self._all(texts, values)
        if len(texts) > 1:
            rows = sorted(rows, key=lambda row: (row["started_at"], row["id"]), reverse=True)
        return rows[:limit]

    def breakers(self, limit: int) -> Rows:
        """Changes of state of breakers, and when workers began to count anew; the latest first."""
        return self._rows(SELECT_BREAKERS, (limit,))

    def call(self, id: str) -> sqlite3.Row | None:
        return next(iter(self._rows(_CALL, (id,))), None)

    def runs(self, where: RunFilter, limit: int, after: Cursor | None = None, *, dearest: bool = False) -> Rows:
        """The `limit` runs begun last (or the dearest) that match, each with its reported outcome (or nulls)."""
        terms = [_RUN_TERMS[name] for name, value in _given(where, after).items() if value is not None]
        order = _DEAREST_FIRST if dearest else _RUN_ORDER
        return self._rows(_SELECT_RUNS + (" AND ".join(terms) or "1") + order, _values(where, limit, after))

    def run(self, id: str) -> sqlite3.Row | None:
        return next(iter(self._rows(_RUN, (id,))), None)

    def agents(self, run_id: str) -> list[str]:
        return [row["agent"] for row in self._rows(_AGENTS, (run_id,))]

    def outcomes(self, run_id: str) -> Rows:
        """Everything reported about a run, oldest first."""
        return self._rows(_OUTCOMES, (run_id,))

    def has_outcome(self, id: str) -> bool:
        return bool(self._rows(_OUTCOME, (id,)))

    def steps(self, run_id: str) -> Rows:
        """Totals by agent and step: they sum up to the totals of the run."""
        return self._rows(_RUN_STEPS, (run_id,))

    def prompt_cache(self, run_id: str) -> Rows:
        """Calls that could have hit their provider's cache, by agent and by what was lost where."""
        return self._rows(_PROMPT_CACHE, (run_id,))

    def run_calls(self, run_id: str, limit: int) -> Rows:
        return self._rows(_RUN_CALLS, (run_id, limit))

    def run_tools(self, run_id: str, limit: int) -> Rows:
        return self._rows(_RUN_TOOLS, (run_id, limit))

    def by_outcome(self, where: RunFilter) -> Rows:
        """Runs with a reported outcome and what they cost, by tenant, agent and kind of outcome."""
        return self._rows(
            _BY_OUTCOME,
            {
                "since": where.since if where.since is not None else -(2**63),
                "until": where.until if where.until is not None else 2**63 - 1,
                "tenant": where.tenant,
                "agent": where.agent,
            },
        )

    def models(self, limit: int) -> list[tuple[str, str]]:
        """(provider, model) of what was asked for, by model."""
        return [(row["provider"], row["model"]) for row in self._rows(_MODELS, (limit,))]

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """All queries of this thread inside see one state of the ledger."""
        db = self._connection()
        with self._faults():
            db.execute("BEGIN")
        try:
            yield
        finally:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")

    def query(self, statement: str, values: Sequence[Any] | Mapping[str, Any]) -> Rows:
        """Of a constant statement that reads; see ledger_spend."""
        return self._rows(statement, values)

    def _all(self, queries: Sequence[str], values: Mapping[str, Any]) -> Rows:
        return [row for query in queries for row in self._rows(query, values)]

    def _rows(self, query: str, values: Sequence[Any] | Mapping[str, Any]) -> Rows:
        db = self._connection()
        deadline = self._monotonic() + self._seconds
        db.set_progress_handler(lambda: self._closed or self._monotonic() > deadline, _CHECK_EVERY)
        with self._faults():
            return db.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as e:
            if getattr(e, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
                raise QueryTimeout(f"the query took more than {self._seconds:g} s; narrow it down") from e
            self._disconnect()
            if getattr(e, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
                self._damaged()
            raise LedgerUnavailable(str(e)) from e

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection; a new one where the file is another by now."""
        try:
            status = self._path.stat()
        except OSError as e:
            self._disconnect()
            raise LedgerUnavailable("there is no ledger yet") from e
        file = (status.st_dev, status.st_ino)
        if getattr(self._local, "file", None) != file:
            self._disconnect()
            with self._faults():
                db = self._local.db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
                db.row_factory = sqlite3.Row
                for pragma in ("PRAGMA query_only = ON", "PRAGMA busy_timeout = 500", "PRAGMA cache_size = -8192"):
                    db.execute(pragma)
                if not _ours(db):
                    self._disconnect()
                    raise LedgerUnavailable("the ledger is being made")
            self._local.file = file
        found: sqlite3.Connection = self._local.db
        return found

    def _disconnect(self) -> None:
        db = getattr(self._local, "db", None)
        self._local.db = self._local.file = None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()


def _ours(db: sqlite3.Connection) -> bool:
    if not db.execute(_HAS_META).fetchone()[0]:
        return False
    row = db.execute(SELECT_META, ("version",)).fetchone()
    return row is not None and row[0] == VERSION


def _spellings(where: CallFilter) -> list[list[str]]:
    """The terms of one query, or of two where the model may be the requested or the used one; most selective first."""
    names = [name for name in ("run", "agent") if getattr(where, name) is not None]
    rest = []
    if where.outcome is not None:
        rest.append("outcome" if where.outcome == "ok" else "not_ok")
    if where.tenant is not None:
        rest.append("tenant")
    if where.model is None:
        return [names + rest]
    return [[*names, which, *rest] for which in ("requested", "used")]


def _call_query(where: CallFilter, after: Cursor | None, names: Sequence[str]) -> str:
    terms = [_CALL_TERMS[name][min(index, 1)] for index, name in enumerate(names)]
    given = {"since": where.since, "until": where.until, "cursor": after}
    terms += [_TIME_TERMS[name] for name, value in given.items() if value is not None]
    return _SELECT_CALLS + (" AND ".join(terms) or "1") + _CALL_ORDER


def _given(where: RunFilter, after: Cursor | None) -> dict[str, object]:
    return {name: getattr(where, name) for name in RunFilter.__struct_fields__} | {"cursor": after}


def _values(where: CallFilter | RunFilter, limit: int, after: Cursor | None) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(where, name) for name in where.__struct_fields__}
    at, id = after or (None, None)
    return values | {"limit": limit, "at": at, "id": id}
