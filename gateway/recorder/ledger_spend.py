"""What calls cost by the minute, and what changed: the queries behind the live figures, on top of the ledger's reader.

Rows of `calls` are numbered as they come in; so what is new since a look is a range of numbers, whenever it began.
A call that is written anew gets another number: whoever adds up must begin anew from time to time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.recorder.ledger_read import LedgerReader, Rows

# Of the availability of models: what clients did wrong, what limits refused as they should and what was left is none of
# it; what broke, a provider's 5xx and a gateway without a place for the call (503) are faults.
_SUMS: Final = """
    count(*) AS calls, sum(outcome = 'refused') AS refused,
    sum(outcome IN ('ok', 'failed', 'truncated', 'error', 'abandoned')
        OR (outcome IN ('upstream_error', 'refused') AND status >= 500)) AS judged,
    sum(outcome IN ('failed', 'truncated', 'error', 'abandoned')
        OR (outcome IN ('upstream_error', 'refused') AND status >= 500)) AS faults,
    ifnull(sum(cost), 0) AS cost, count(cost) AS priced, sum(cost_unknown) AS unknown,
    ifnull(sum(input_tokens), 0) AS input_tokens, ifnull(sum(output_tokens), 0) AS output_tokens,
    ifnull(sum(cache_read_tokens), 0) AS cache_read_tokens,
    sum(usage_source = 'cached') AS from_cache, sum(tool_calls) AS tool_calls
FROM calls WHERE
"""
_MINUTE: Final = "SELECT started_at / 60000000000 AS minute," + _SUMS
_MODEL: Final = "iif(model_used <> '', model_used, model_requested)"
_NAMED: Final = "SELECT tenant, agent, " + _MODEL + " AS model," + _SUMS
_AT_TIME: Final = "started_at >= :since AND started_at < :until AND +rowid <= :upto"
_AT_ROW: Final = "rowid > :after AND rowid <= :upto AND +started_at >= :since"
_BY_MINUTE, _BY_NAME = " GROUP BY 1", " GROUP BY 1, 2, 3"
_LAST: Final = "SELECT ifnull(max(rowid), 0) AS n FROM calls"
_MINUTES_AT_TIME: Final = _MINUTE + _AT_TIME + _BY_MINUTE
_MINUTES_AT_ROW: Final = _MINUTE + _AT_ROW + _BY_MINUTE
_NAMES_AT_TIME: Final = _NAMED + _AT_TIME + _BY_NAME
_NAMES_AT_ROW: Final = _NAMED + _AT_ROW + _BY_NAME
_DAY: Final = """
SELECT ifnull(sum(cost), 0) AS cost, count(cost) AS priced, ifnull(sum(cost_unknown), 0) AS unknown, count(*) AS calls
FROM calls WHERE started_at >= :since AND started_at < :until
"""
_ONE_AT_TIME: Final[Mapping[str, str]] = {
    "agent": "SELECT agent AS name," + _SUMS + _AT_TIME + " GROUP BY 1",
    "model": "SELECT " + _MODEL + " AS name," + _SUMS + _AT_TIME + " GROUP BY 1",
    "tenant": "SELECT tenant AS name," + _SUMS + _AT_TIME + " GROUP BY 1",
}
# The plus keeps it to the new rows: the index of times would be searched from the oldest call on.
_EARLIEST: Final = "SELECT min(+started_at) AS at FROM calls WHERE rowid > :after AND rowid <= :upto"
_CHANGED: Final = """
SELECT DISTINCT run_id FROM calls WHERE rowid > :after AND rowid <= :upto AND run IS NOT NULL LIMIT :limit
"""
_STOPPED: Final = """
SELECT run_id, agent, error_code, max(started_at) AS at, detail FROM calls
WHERE outcome = 'refused' AND outcome <> 'ok' AND started_at >= :since
    AND error_code IN ('run_stopped', 'budget_exceeded') AND run_id <> ''
GROUP BY run_id ORDER BY at DESC LIMIT :limit
"""


class SpendReader:
    """Methods raise LedgerUnavailable, QueryTimeout among them. Times are ns since the epoch."""

    def __init__(self, reader: LedgerReader) -> None:
        self._reader = reader

    def last(self) -> int:
        """The number of the row that came in last; 0: none."""
        return int(self._ask(_LAST, {})[0]["n"])

    def minutes(self, since: int, until: int, upto: int) -> Rows:
        """Sums by minute of the calls begun in that time, up to a row."""
        return self._ask(_MINUTES_AT_TIME, {"since": since, "until": until, "upto": upto})

    def names(self, since: int, until: int, upto: int) -> Rows:
        """The same by tenant, agent and model."""
        return self._ask(_NAMES_AT_TIME, {"since": since, "until": until, "upto": upto})

    def named(self, by: str, since: int, until: int, upto: int) -> Rows:
        """The same by `name`: the agent, the model or the tenant alone."""
        return self._ask(_ONE_AT_TIME[by], {"since": since, "until": until, "upto": upto})

    def new_minutes(self, after: int, upto: int, since: int) -> Rows:
        """Sums by minute of the rows that came in between, of calls begun since then."""
        return self._ask(_MINUTES_AT_ROW, {"after": after, "upto": upto, "since": since})

    def new_names(self, after: int, upto: int, since: int) -> Rows:
        """The same by tenant, agent and model."""
        return self._ask(_NAMES_AT_ROW, {"after": after, "upto": upto, "since": since})

    def day(self, since: int, until: int) -> tuple[int, int, int, int]:
        """(pico-USD, calls with a known cost, calls with an unknown one, calls) of a time that is over."""
        (row,) = self._ask(_DAY, {"since": since, "until": until})
        return row["cost"], row["priced"], row["unknown"], row["calls"]

    def earliest(self, after: int, upto: int) -> int | None:
        """When the earliest began of the calls that came in between; None: there are none."""
        at: int | None = self._ask(_EARLIEST, {"after": after, "upto": upto})[0]["at"]
        return at

    def changed(self, after: int, upto: int, limit: int) -> list[str]:
        """Ids of the runs that these rows belong to."""
        found = self._ask(_CHANGED, {"after": after, "upto": upto, "limit": limit})
        return [row["run_id"] for row in found]

    def stopped(self, since: int, limit: int) -> Rows:
        """Runs that were refused as stopped or as over a budget, each with its latest refusal; the latest first."""
        return self._ask(_STOPPED, {"since": since, "limit": limit})

    def _ask(self, statement: str, values: Mapping[str, Any] | Sequence[Any]) -> Rows:
        return self._reader.query(statement, values)
