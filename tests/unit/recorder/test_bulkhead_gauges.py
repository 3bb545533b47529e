"""Pools and overload in metrics: sums over workers, and what calls say of their waits."""

from __future__ import annotations

from gateway.config.schema import Telemetry
from gateway.config.semantics_bulkheads import POOLS
from gateway.journal.inflight import InFlight
from gateway.policy.pools import FIGURES
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


def test_there_is_room_for_the_gauges_of_all_pools_beside_the_others() -> None:
    writer = InFlight.anonymous("w0", b"12345678")
    for at in range(40):
        writer.gauges.set(f"another_{at}", 1)
    for at in range(POOLS):
        for figure in FIGURES:
            writer.gauges.set(f"pool{at}_{figure}", 100_000)
    writer.close()
