"""Gauges of the cache, and what calls say of it."""

from __future__ import annotations

import pytest

from gateway.call import Usage
from gateway.config.schema import Telemetry
from gateway.policy.cached import Contents
from gateway.recorder.cache_gauges import read, workers
from gateway.recorder.ledger_rows import call_row, decode_detail
from gateway.recorder.metrics import MetricsProjection
from gateway.recorder.runs import fold, used
from gateway.testing.records import call_record


def unusable(now: int) -> Contents:
    raise OSError("damaged")


def test_gauges_are_there_where_there_is_a_cache() -> None:
    assert read(lambda now: None, 1) == {}
    assert read(unusable, 1) == {}
    assert read(lambda now: Contents(now, 7), 3) == {"tollgate_cache_entries": 3.0, "tollgate_cache_bytes": 7.0}


def test_workers_say_whether_they_can_use_the_store() -> None:
    assert workers([{}, {"else": 1.0}]) == {}
    one, other = {"cache_store_available": 1.0}, {"cache_store_available": 0.0}
    assert workers([one, {}, other]) == {"tollgate_cache_store_available": 0.0}
    assert workers([one, one]) == {"tollgate_cache_store_available": 1.0}


def test_tokens_of_an_answer_given_again_were_counted_when_it_was_paid_for() -> None:
    usage = Usage(100, 50, detail={"input_audio_tokens": 1.0})
    hit = call_record(
        usage=usage, usage_source="cached", cost=0, cost_components={}, cost_status="free", attempts=(), cache="exact",
        cache_age_ns=5 * 10**9, cache_entry="e", saved=10**9, run_id="r",
    )  # fmt: skip
    assert used(hit) is None
    totals = fold([hit])["r"]
    assert (totals.calls, totals.input, totals.output, totals.cost, totals.priced) == (1, 0, 0, 0, 1)
    row = call_row(hit, 1)
    detail = decode_detail(row[-2])
    assert (detail.usage, detail.cache, detail.saved, detail.cache_entry) == ({}, "exact", 10**9, "e")
    assert "cached" in row


@pytest.mark.parametrize(
    ("cache", "result", "reason"),
    [
        ("exact", "hit", "exact_cache"),
        ("joined", "joined", "single_flight"),
        ("miss", "miss", ""),
        ("bypass", "bypass", ""),
    ],
)
def test_metrics_of_calls(cache: str, result: str, reason: str) -> None:
    metrics = MetricsProjection(Telemetry(), dict, lambda: 0.0)
    source = "cached" if reason else "provider"
    records = [
        call_record(
            id=f"c{number}", usage=Usage(100, 50), usage_source=source, cache=cache, saved=10**12 if reason else 0
        )
        for number in range(2)
    ]
    metrics.apply(records)
    text = metrics.render()[0].decode()
    assert f'tollgate_cache_lookups_total{{result="{result}",tier="exact"}} 2.0' in text
    saved = [line for line in text.splitlines() if line.startswith("tollgate_cost_saved_usd_total{")]
    assert saved == ([f'tollgate_cost_saved_usd_total{{reason="{reason}"}} 2.0'] if reason else [])
    tokens = [
        line for line in text.splitlines() if line.startswith("tollgate_tokens_total{") and 'type="input"' in line
    ]
    assert [line.rpartition(" ")[2] for line in tokens] == ([] if reason else ["200.0"])
