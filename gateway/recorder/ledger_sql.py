"""The statements that write the ledger. Every value is a parameter; no statement is ever put together from data."""

from __future__ import annotations

from typing import Final

INSERT_CALL: Final = (
    "INSERT INTO calls VALUES "
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
    "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

INSERT_TOOL: Final = "INSERT OR REPLACE INTO tools VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

SELECT_RUN_NUMBER: Final = "SELECT n FROM runs WHERE run_id = ?"
SELECT_LAST_RUN_NUMBER: Final = "SELECT ifnull(max(n), 0) FROM runs"

INSERT_RUN: Final = "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

# `last` and the sums of a run that is there; indexed columns are left alone.
ADD_TO_RUN: Final = """
UPDATE runs SET
    last_at = max(last_at, ?2),
    calls = calls + ?3,
    errors = errors + ?4,
    input_tokens = input_tokens + ?5,
    output_tokens = output_tokens + ?6,
    cache_read_tokens = cache_read_tokens + ?7,
    cache_write_tokens = cache_write_tokens + ?8,
    reasoning_tokens = reasoning_tokens + ?9,
    cost = cost + ?10,
    priced = priced + ?11,
    cost_unknown = cost_unknown + ?12,
    tool_calls = tool_calls + ?13,
    tool_errors = tool_errors + ?14,
    steps = max(steps, ?15)
WHERE n = ?1
"""

# The earliest call gives a run its start and its names.
BEGIN_RUN_EARLIER: Final = """
UPDATE runs SET first_at = ?2, first_id = ?3, tenant = ?4, agent = ?5, source = ?6
WHERE n = ?1 AND (first_at, first_id) > (?2, ?3)
"""

# The same totals from scratch, for a run of which a call was replaced.
TOTAL_RUN: Final = """
INSERT INTO runs
SELECT run, run_id,
    (SELECT started_at FROM calls f WHERE f.run = c.run ORDER BY started_at, id LIMIT 1),
    (SELECT id FROM calls f WHERE f.run = c.run ORDER BY started_at, id LIMIT 1),
    max(started_at + duration_ns),
    (SELECT tenant FROM calls f WHERE f.run = c.run ORDER BY started_at, id LIMIT 1),
    (SELECT agent FROM calls f WHERE f.run = c.run ORDER BY started_at, id LIMIT 1),
    (SELECT run_source FROM calls f WHERE f.run = c.run ORDER BY started_at, id LIMIT 1),
    count(*), sum(outcome NOT IN ('ok', 'cancelled')),
    ifnull(sum(input_tokens), 0), ifnull(sum(output_tokens), 0), ifnull(sum(cache_read_tokens), 0),
    ifnull(sum(cache_write_tokens), 0), ifnull(sum(reasoning_tokens), 0),
    ifnull(sum(cost), 0), count(cost), sum(cost_unknown), sum(tool_calls), sum(tool_errors), max(step)
FROM calls c WHERE run = ? GROUP BY run
"""

SELECT_CALL: Final = "SELECT * FROM calls WHERE id = ?"
DELETE_CALL: Final = "DELETE FROM calls WHERE id = ?"
DELETE_CALL_TOOLS: Final = "DELETE FROM tools WHERE run = ? AND call_id = ?"
DELETE_RUN: Final = "DELETE FROM runs WHERE n = ?"

# Of two outcomes (or events) of one id the greater stays, whichever came first.
INSERT_OUTCOME: Final = """
INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET run_id = excluded.run_id, at = excluded.at, kind = excluded.kind,
    value = excluded.value, note = excluded.note
WHERE (excluded.at, excluded.run_id, excluded.kind, ifnull(excluded.value, 0), excluded.note)
    > (at, run_id, kind, ifnull(value, 0), note)
"""

INSERT_VERDICT: Final = """
INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (run_id) DO UPDATE SET id = excluded.id, at = excluded.at, kind = excluded.kind,
    value = excluded.value, note = excluded.note
WHERE (excluded.at, excluded.id, excluded.kind, ifnull(excluded.value, 0), excluded.note)
    > (at, id, kind, ifnull(value, 0), note)
"""

INSERT_EVENT: Final = """
INSERT INTO events VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET at = excluded.at, kind = excluded.kind, worker = excluded.worker,
    detail = excluded.detail
WHERE (excluded.at, excluded.kind, excluded.worker, excluded.detail) > (at, kind, worker, detail)
"""

SELECT_POSITIONS: Final = "SELECT segment, offset FROM positions WHERE reader = ?"
UPSERT_POSITION: Final = """
INSERT INTO positions VALUES (?, ?, ?) ON CONFLICT (reader, segment) DO UPDATE SET offset = excluded.offset
"""
SELECT_SEGMENTS: Final = "SELECT DISTINCT segment FROM positions"
DELETE_POSITIONS: Final = "DELETE FROM positions WHERE segment = ?"

SELECT_META: Final = "SELECT value FROM meta WHERE key = ?"
INSERT_META: Final = "INSERT INTO meta VALUES (?, ?)"
HAS_TABLES: Final = "SELECT count(*) FROM sqlite_schema"

# Whole runs leave the ledger, never parts of one: its totals stay the sums of its calls.
SELECT_OLD_RUNS: Final = "SELECT n, run_id FROM runs WHERE first_at < ? AND last_at < ? ORDER BY first_at LIMIT ?"
SELECT_OLDEST_RUN: Final = "SELECT first_at FROM runs ORDER BY first_at LIMIT 1 OFFSET ?"
DELETE_RUN_CALLS: Final = "DELETE FROM calls WHERE run = ?"
DELETE_RUN_TOOLS: Final = "DELETE FROM tools WHERE run = ?"
DELETE_RUN_OUTCOMES: Final = "DELETE FROM outcomes WHERE run_id = ?"
DELETE_RUN_VERDICT: Final = "DELETE FROM verdicts WHERE run_id = ?"
DELETE_OLD_LONERS: Final = """
DELETE FROM calls WHERE rowid IN (SELECT rowid FROM calls WHERE run IS NULL AND started_at < ? LIMIT ?)
"""
DELETE_OLD_LONER_TOOLS: Final = "DELETE FROM tools WHERE run = 0 AND started_at < ?"
SELECT_BREAKERS: Final = """
SELECT at, kind, worker, detail FROM events WHERE kind IN ('breaker', 'breakers_reset')
ORDER BY at DESC, id DESC LIMIT ?
"""
DELETE_OLD_EVENTS: Final = "DELETE FROM events WHERE at < ?"
