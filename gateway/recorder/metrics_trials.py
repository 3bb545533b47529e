"""What the attempts of a call add to the metrics, and what its notes say of them: where a rule sent it, what was not
tried again, and what was tried beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gateway.journal.record import AttemptRecord
from gateway.recorder.facts import OVERTAKEN, UNVERIFIED, attempt_result
from gateway.recorder.metrics_store import Store

RACES = (  # see stages.race
    ("tollgate_hedges", "hedge", "hedge_from", "hedge_to"),
    ("tollgate_probes_beside", "probe", "probe_from", "probe_to"),
)


def attempts(store: Store, models: tuple[str, str], made: Sequence[AttemptRecord]) -> None:
    """`models`: asked for and billed, as label values."""
    asked, billed = models
    previous, where = "", ""
    for attempt in made:
        beside = attempt.error_code == OVERTAKEN  # no attempt follows it, one ran with it
        if previous and not beside and previous != UNVERIFIED:
            store.add("tollgate_retries", (previous,))
            if attempt.upstream != where:
                store.add("tollgate_fallbacks", (where, attempt.upstream, previous))
        result, provider = attempt_result(attempt), attempt.provider or attempt.upstream
        if not beside:
            previous, where = result, attempt.upstream
        store.add("tollgate_upstream_attempts", (provider, asked, result))
        if attempt.cost:
            how = attempt.error_code if attempt.error_code in (OVERTAKEN, UNVERIFIED) else "retried"
            store.add("tollgate_cost_wasted_usd", (provider, billed, how), attempt.cost)


def notes(
    store: Store,
    label: Callable[[str, str], str],
    provider: str,
    noted: Mapping[str, str],
    made: Sequence[AttemptRecord],
) -> None:
    """`label(provider, model)`: the model as a label value."""
    if "retry_withheld" in noted:
        store.add("tollgate_retries_withheld", (noted["retry_withheld"],))
    for metric, race, here, there in RACES:
        if race in noted:
            store.add(metric, (noted.get(here, ""), noted.get(there, ""), noted[race]))
    if "route" in noted:
        upstream, _, model = noted.get("route_to", "").partition("/")
        target = f"{upstream}/{label(provider, model)}"
        store.add("tollgate_routed_calls", (noted["route"], target, noted.get("route_why", "")))
        if "cascade" in noted:
            cascade(store, label, noted, made)


def cascade(
    store: Store, label: Callable[[str, str], str], noted: Mapping[str, str], made: Sequence[AttemptRecord]
) -> None:
    """The answers of a call that were checked: those that were withheld, and the one that was passed on."""
    withheld = [attempt for attempt in made if attempt.error_code == UNVERIFIED]
    for at, verdict in enumerate(noted["cascade"].split(",")):
        then = "escalated" if at < len(withheld) else "passed"
        one = withheld[at] if at < len(withheld) else made[-1]
        target = f"{one.upstream}/{label(one.provider, one.model)}"
        store.add("tollgate_cascade_answers", (noted["route"], target, verdict, then))
