"""Sums over workers, the worst of their lags, and what the supervisor said last."""

from gateway.process.control import Status
from gateway.recorder.process_gauges import configured, workers


def test_workers_are_summed_and_the_worst_lag_counts() -> None:
    one = {
        "breakers_open": 1.0,
        "descriptors_used_ratio": 0.4,
        "inflight_requests": 3.0,
        "event_loop_lag_seconds": 0.2,
        "journal_lost_pending": 1.0,
    }
    two = {"breakers_open": 2.0, "inflight_requests": 4.0, "event_loop_lag_seconds": 0.1}
    assert workers([one, two]) == {
        "tollgate_breakers_open": 3.0,
        "tollgate_descriptors_used_ratio": 0.4,
        "tollgate_inflight_requests": 7.0,
        "tollgate_event_loop_lag_seconds": 0.2,
        "tollgate_journal_lost_pending": 1.0,
    }
    assert set(workers([]).values()) == {0}


def test_nothing_is_claimed_before_the_supervisor_has_spoken() -> None:
    assert configured(None) == {}


def test_a_reload_that_failed_is_told() -> None:
    status = Status(
        started_at=1,
        draining=False,
        workers=(),
        generation=2,
        configured_at=5_000_000_000,
        reload_ok=False,
        reloaded_at=9,
    )
    assert configured(status) == {
        "tollgate_config_last_reload_success": 0.0,
        "tollgate_config_last_reload_success_timestamp_seconds": 5.0,
    }
