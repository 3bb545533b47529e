"""Which breakers are not closed, from what workers write: by name, for the alert that names them."""

from __future__ import annotations

from gateway.config.schema import Telemetry
from gateway.journal.record import EventRecord
from gateway.recorder.breaker_gauges import OpenBreakers
from gateway.recorder.metrics import MetricsProjection
from gateway.recorder.metrics_store import Labels


def changed(breaker: str, state: str, worker: int = 0) -> EventRecord:
    return EventRecord("e", 0, "breaker", worker, {"breaker": breaker, "state": state, "why": "", "seconds": 5.0})


def told(kind: str, worker: int = 0) -> EventRecord:
    return EventRecord("e", 0, kind, worker, {})


def read(*events: EventRecord, limit: int = 100) -> dict[Labels, float]:
    found = OpenBreakers(limit)
    for event in events:
        found.see(event)
    return found.read()


def test_workers_are_counted_by_name() -> None:
    events = [changed("openai", "open"), changed("openai", "open", 1), changed("openai/gpt-4o", "open")]
    assert read(*events) == {("openai",): 2, ("openai/gpt-4o",): 1}
    assert read(*events, changed("openai", "half_open"), changed("openai", "closed", 1)) == {
        ("openai",): 1,
        ("openai/gpt-4o",): 1,
    }
    assert read(*events, *[changed(name, "closed", at) for name in ("openai", "openai/gpt-4o") for at in (0, 1)]) == {}


def test_who_counts_anew_has_none_open() -> None:
    events = [changed("openai", "open"), changed("openai", "open", 1)]
    assert read(*events, told("breakers_reset", 1)) == {("openai",): 1}
    assert read(*events, told("start", -1)) == {}


def test_names_from_clients_are_bounded() -> None:
    found = read(*[changed(f"openai/m{n}", "open") for n in range(10)], limit=3)
    assert found == {("openai/m0",): 1, ("openai/m1",): 1, ("openai/m2",): 1, ("__other__",): 7}


def projection() -> MetricsProjection:
    return MetricsProjection(Telemetry(), dict, lambda: 0.0)


def test_they_are_exposed_and_outlive_a_restart_of_the_recorder() -> None:
    metrics, again = projection(), projection()
    metrics.apply([changed("openai", "open"), changed("openai/gpt-4o", "open"), changed("openai", "closed")])
    again.restore(metrics.snapshot())
    for one in (metrics, again):
        text = one.render()[0].decode()
        assert 'tollgate_breaker_open{breaker="openai/gpt-4o"} 1.0' in text
        assert 'tollgate_breaker_open{breaker="openai"}' not in text
    again.apply([changed("openai/gpt-4o", "closed")])
    assert "tollgate_breaker_open{" not in again.render()[0].decode()
