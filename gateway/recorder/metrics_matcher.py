"""What the matcher writes to the journal, counted: verdicts, the breaker, what people say, what embeddings cost."""

from __future__ import annotations

from gateway.journal.record import EventRecord
from gateway.recorder.metrics_store import Store

MATCHER_EVENTS = frozenset(
    ("cache_verified", "cache_breaker", "cache_feedback", "cache_embedded", "cache_judged", "matcher_died")
)


def count_event(store: Store, record: EventRecord) -> None:
    detail = record.detail
    scope, verdict = str(detail.get("scope", "")), "right" if detail.get("right") else "wrong"
    match record.kind:
        case "cache_verified":
            store.add("tollgate_cache_verified", (scope, verdict))
        case "cache_feedback":
            store.add("tollgate_cache_feedback", (scope, verdict))
        case "cache_breaker" if detail.get("open"):
            store.add("tollgate_cache_breaker_trips", (scope,))
        case "matcher_died":
            store.add("tollgate_cache_matcher_deaths", ())
        case "cache_embedded":
            store.add("tollgate_cache_embedded", (), _whole(detail.get("texts")))
            store.add("tollgate_cache_embedder_cost_usd", (), max(0, _whole(detail.get("cost"))))
        case "cache_judged":
            store.add("tollgate_cache_judged", (str(detail.get("verdict", "")),))
            store.add("tollgate_cache_judge_cost_usd", (), max(0, _whole(detail.get("cost"))))


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
