"""What an alert is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BUILD = "tollgate_build_info"


@dataclass(frozen=True)
class Links:
    """Bases of the links in alerts; the defaults are those of compose.yaml, where Prometheus serves the runbook."""

    runbook: str = "http://127.0.0.1:9090/user/RUNBOOK.md"
    grafana: str = "http://127.0.0.1:3000"


@dataclass(frozen=True)
class Alert:
    """`look` and `do` are its section of the runbook; `hold`: for how long it goes on firing after its cause."""

    name: str
    expr: str
    wait: str
    severity: str  # page, ticket, info; none: the dead man's
    team: str
    board: str  # uid of a dashboard, without its prefix
    summary: str
    description: str
    look: str
    do: str
    hold: str = ""

    def rule(self, links: Links) -> dict[str, Any]:
        rule: dict[str, Any] = {"alert": self.name, "expr": self.expr}
        if self.wait:
            rule["for"] = self.wait
        if self.hold:
            rule["keep_firing_for"] = self.hold
        rule["labels"] = {"severity": self.severity, "team": self.team}
        rule["annotations"] = {
            "summary": self.summary,
            "description": self.description,
            "runbook_url": f"{links.runbook}#{self.name.lower()}",
            "dashboard_url": f"{links.grafana}/d/tollgate-{self.board}",
        }
        return rule


def grew(series: str, window: str, *by: str, above: int) -> str:
    """Counters that went up by more in the window, also those that began in it: a counter is born with its first event,
    and `increase` does not see that one. A gateway that was not scraped before the window says nothing new."""
    born = f"({series} > 0 unless {series} offset {window}) and on (job, instance) {BUILD} offset {window}"
    group = ", ".join(("job", "instance", *by))
    return f"sum by ({group}) (increase({series}[{window}]) > 0 or {born}) > {above}"


def share(part: str, whole: str, window: str, least: int, above: float, *by: str) -> str:
    """Share of `part` in `whole` above a bound, where there were at least so many of the whole."""
    group = f"sum by ({', '.join(by)})" if by else "sum"
    every = f"{group} (increase({whole}[{window}]))"
    return f"{group} (increase({part}[{window}])) / ({every} >= {least}) > {above:g}"
