"""What is the matter with the gateway now, as far as it knows by itself: a list for people, the worst first. Pure.

These are no alerts: nothing is kept, counted or sent. What is told here ends with its cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct, field

from gateway.policy.spend_pace import Burn, Sums

NEARLY = 0.8  # of a budget
LAG_SECONDS = 5.0
LAG_GRAVE_SECONDS = 60.0
CRITICAL, WARNING, INFO = "critical", "warning", "info"
RANK = {CRITICAL: 0, WARNING: 1, INFO: 2}


class Condition(Struct, frozen=True):
    """`kind` is stable, `subject` is what it is about ("" of the gateway itself), `text` says it in words."""

    kind: str
    severity: str
    subject: str
    text: str
    since: int = 0  # ns since the epoch; 0: not known
    run: str = ""


class Broken(Struct, frozen=True):
    """A breaker that is not closed, or held by hand."""

    name: str
    state: str
    forced: str
    why: str
    since: int


class Used(Struct, frozen=True):
    """A budget: what is used, with what is reserved, of its limit, as a share."""

    account: str
    share: float
    text: str


class Stopped(Struct, frozen=True):
    scope: str
    value: str
    text: str
    at: int


class Facts(Struct, frozen=True):
    """All that is looked at."""

    workers_ready: int
    workers: int
    draining: bool = False
    ledger: bool = True
    lag_seconds: float = 0.0
    lost: int = 0  # records that could not be written
    reload_ok: bool = True
    reload_message: str = ""
    needs_restart: tuple[str, ...] = ()
    breakers: Sequence[Broken] = ()
    budgets: Sequence[Used] = ()
    stopped: Sequence[Stopped] = ()
    hour: Sums = field(default_factory=Sums)  # the last one
    burns: Sequence[Burn] = ()


def conditions(facts: Facts) -> list[Condition]:
    """The gravest first; in each grade those of the gateway itself, then the latest."""
    found = [condition for part in _PARTS for condition in part(facts)]
    return sorted(found, key=lambda one: (RANK[one.severity], bool(one.subject), -one.since))


def _processes(facts: Facts) -> Iterator[Condition]:
    if facts.draining:
        yield Condition("draining", WARNING, "", "The gateway is ending: it takes no new calls.")
    elif not facts.workers_ready:
        yield Condition("no_worker", CRITICAL, "", "No worker takes calls.")
    elif facts.workers_ready < facts.workers:
        yield Condition("workers_missing", WARNING, "", f"{facts.workers_ready} of {facts.workers} workers take calls.")


def _records(facts: Facts) -> Iterator[Condition]:
    if not facts.ledger:
        yield Condition("ledger_unavailable", CRITICAL, "", "The ledger cannot be written: what is shown is old.")
    if facts.lag_seconds >= LAG_SECONDS:
        grade = CRITICAL if facts.lag_seconds >= LAG_GRAVE_SECONDS else WARNING
        yield Condition(
            "journal_lag", grade, "", f"Records are read {facts.lag_seconds:.0f} s after they were written."
        )
    if facts.lost:
        yield Condition(
            "journal_lost", CRITICAL, "", f"{facts.lost} records are lost: the journal could not be written."
        )


def _configuration(facts: Facts) -> Iterator[Condition]:
    if not facts.reload_ok:
        text = "The changed configuration was refused; the one before is in force"
        yield Condition("reload_failed", WARNING, "", f"{text}: {facts.reload_message or 'see the log'}")
    if facts.needs_restart:
        yield Condition(
            "needs_restart", INFO, "", f"Changed, and in force after a restart: {', '.join(facts.needs_restart)}."
        )


def _breakers(facts: Facts) -> Iterator[Condition]:
    for one in facts.breakers:
        if one.forced:
            grade = WARNING if one.forced == "open" else INFO
            yield Condition("breaker_held", grade, one.name, f"Held {one.forced} by hand.", one.since)
        elif one.state != "closed":
            grade = CRITICAL if one.state == "open" else WARNING
            state = "Open" if one.state == "open" else "Being probed"
            yield Condition("breaker_open", grade, one.name, f"{state}: {one.why or 'it failed'}.", one.since)


def _budgets(facts: Facts) -> Iterator[Condition]:
    for one in facts.budgets:
        if one.share >= 1:
            yield Condition("budget_spent", CRITICAL, one.account, f"Used up: {one.text}.")
        elif one.share >= NEARLY:
            yield Condition("budget_low", WARNING, one.account, f"{one.share:.0%} used: {one.text}.")


def _stopped(facts: Facts) -> Iterator[Condition]:
    for one in facts.stopped:
        run = one.value if one.scope == "run" else ""
        yield Condition("stopped", INFO, f"{one.scope} {one.value}", one.text, one.at, run)


def _spending(facts: Facts) -> Iterator[Condition]:
    if facts.hour.unknown:
        text = (
            f"{facts.hour.unknown} calls of the last hour cost something that nobody knows: their models have no price."
        )
        yield Condition("price_unknown", WARNING, "", text)
    for burn in facts.burns:
        if burn.firing:
            grade = CRITICAL if burn.severity == "page" else WARNING
            text = f"Models fail {burn.rate:.0f} times as often as the objective allows."
            yield Condition("slo_burn", grade, "", text)
            break


_PARTS: tuple[Callable[[Facts], Iterator[Condition]], ...] = (
    _processes,
    _records,
    _configuration,
    _breakers,
    _budgets,
    _stopped,
    _spending,
)
