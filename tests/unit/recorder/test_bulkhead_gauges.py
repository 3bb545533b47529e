"""Pools and overload in metrics: sums over workers, and what calls say of their waits."""

from __future__ import annotations

from gateway.config.schema import Telemetry
from gateway.recorder.bulkhead_gauges import workers
from gateway.recorder.metrics import MetricsProjection
from gateway.recorder.names import NS
from gateway.testing.telemetry_records import call


def test_workers_are_summed_and_the_worst_level_counts() -> None:
    one = {"pool0_in_flight": 3.0, "pool1_waiting": 1.0, "pool1_limit": 10.0, "overload_level": 1.0}
    two = {"pool0_in_flight": 4.0, "pool1_limit": 10.0, "overload_level": 3.0}
    assert workers([one, two], ("agents", "tools")) == {
        "tollgate_overload_level": 3.0,
        "tollgate_bulkhead_in_flight": {("agents",): 7.0, ("tools",): 0.0},
        "tollgate_bulkhead_waiting": {("agents",): 0.0, ("tools",): 1.0},
        "tollgate_bulkhead_limit": {("agents",): 0.0, ("tools",): 20.0},
    }
    assert workers([], ()) == {"tollgate_overload_level": 0.0}


def test_what_calls_say() -> None:
    metrics = MetricsProjection(Telemetry(), dict, lambda: 0.0)
    metrics.apply(
        [
            call(notes={"bulkhead": "tools", "bulkhead_waited_ns": str(2 * NS)}),
            call(notes={"bulkhead": "tools", "bulkhead_waited_ns": "0", "bulkhead_refused": "bulkhead_full"}),
            call(notes={"shed": "lag", "priority": "batch"}),
            call(notes={"alias": "x"}),
        ]
    )
    text = metrics.render()[0].decode()
    assert 'tollgate_bulkhead_wait_seconds_sum{pool="tools"} 2' in text
    assert 'tollgate_bulkhead_wait_seconds_count{pool="tools"} 2' in text
    assert 'tollgate_bulkhead_refused_total{pool="tools",reason="bulkhead_full"} 1' in text
    assert 'tollgate_shed_total{cause="lag",priority="batch"} 1' in text
