"""What the notes of a call add to the metrics: where its rule sent it, and what was not tried again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.recorder.metrics_store import Store


def observe(store: Store, label: Callable[[str, str], str], provider: str, notes: Mapping[str, str]) -> None:
    """`label(provider, model)`: the model as a label value."""
    if "retry_withheld" in notes:
        store.add("tollgate_retries_withheld", (notes["retry_withheld"],))
    if "route" in notes:
        upstream, _, model = notes.get("route_to", "").partition("/")
        target = f"{upstream}/{label(provider, model)}"
        store.add("tollgate_routed_calls", (notes["route"], target, notes.get("route_why", "")))
