"""Where alerts go: the configuration of Alertmanager.

Rules
1. Who has to act now (`page`) gets it at once and again each hour; a `ticket` once a day; `info` once, in bunches.
2. One fault is one message: alerts of one name about one provider, tenant, agent or budget stand together.
3. What follows from something else is held back: what one gateway says while it is away (everything, where there is
   none), a provider's errors while its breaker is open, the ticket of a goal that is being paged for, the lower steps
   of a budget. Never what another gateway says, or another provider does.
4. The dead man's switch gets the watchdog each minute; nothing holds it back.
"""

from __future__ import annotations

from typing import Any

WEBHOOKS = "http://127.0.0.1:9099"

_WATCHDOG = 'alertname="TollgateWatchdog"'
_LOWER = "TollgateBudgetHalfSpent|TollgateBudgetNearlySpent|TollgateBudgetRunsOut"
_BUDGET = ("job", "instance", "budget")
_OTHERS = ['alertname=~"Tollgate.*"', 'alertname!~"TollgateDown|TollgateAbsent|.*Watchdog"']
_GROUP = ["alertname", "provider", "tenant", "agent", "budget", "tool", "slo"]


def configuration(webhooks: str = WEBHOOKS) -> dict[str, Any]:
    """`webhooks`: what receives all of them, at a path of each."""
    return {
        "global": {"resolve_timeout": "5m"},
        "route": {
            "receiver": "tickets",
            "group_by": _GROUP,
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "1d",
            "routes": [
                {
                    "receiver": "dead-man",
                    "matchers": [_WATCHDOG],
                    "group_by": ["alertname"],
                    "group_wait": "0s",
                    "group_interval": "1m",
                    "repeat_interval": "50s",
                },
                {
                    "receiver": "pager",
                    "matchers": ['severity="page"'],
                    "group_wait": "5s",
                    "group_interval": "1m",
                    "repeat_interval": "1h",
                    "continue": True,
                },
                {"receiver": "finance", "matchers": ['team="finops"', 'severity=~"page|ticket"']},
                {"receiver": "tickets", "matchers": ['severity=~"page|ticket"']},
                {
                    "receiver": "news",
                    "matchers": ['severity="info"'],
                    "group_by": ["alertname"],
                    "group_wait": "10m",
                    "group_interval": "1h",
                    "repeat_interval": "5d",
                },
            ],
        },
        "inhibit_rules": [
            _inhibit(['alertname="TollgateAbsent"'], _OTHERS),
            _inhibit(['alertname="TollgateDown"'], _OTHERS, "job", "instance"),
            _inhibit(['alertname="TollgateBreakerOpen"'],
                     ['alertname=~"TollgateErrorSpike|TollgateProviderRateLimited"'], "provider"),
            _inhibit(['alertname="TollgateBreakerOpen"', 'breaker!~"(tools|mcp)/.*"'],
                     ['alertname="TollgateFallbacks"']),
            _inhibit(['sloth_severity="page"'], ['sloth_severity="ticket"'], "sloth_id"),
            _inhibit(['alertname="TollgateBudgetExhausted"'], [f'alertname=~"{_LOWER}"'], *_BUDGET),
            _inhibit(['alertname="TollgateBudgetNearlySpent"'], ['alertname="TollgateBudgetHalfSpent"'], *_BUDGET),
        ],
        "receivers": [
            {"name": name, "webhook_configs": [{"url": f"{webhooks}/{name}", "send_resolved": name != "dead-man"}]}
            for name in ("pager", "tickets", "finance", "news", "dead-man")
        ],
    }  # fmt: skip


def _inhibit(source: list[str], target: list[str], *equal: str) -> dict[str, Any]:
    rule: dict[str, Any] = {"source_matchers": source, "target_matchers": target}
    return {**rule, "equal": list(equal)} if equal else rule


ROUTES = (
    ({"alertname": "TollgateWatchdog", "severity": "none"}, ("dead-man",)),
    ({"alertname": "TollgateDown", "severity": "page", "team": "platform"}, ("pager", "tickets")),
    ({"alertname": "TollgateBudgetExhausted", "severity": "page", "team": "finops"}, ("pager", "finance")),
    ({"alertname": "TollgateCostAnomaly", "severity": "ticket", "team": "finops"}, ("finance",)),
    ({"alertname": "TollgateToolFailing", "severity": "ticket", "team": "platform"}, ("tickets",)),
    ({"alertname": "TollgateBudgetHalfSpent", "severity": "info", "team": "finops"}, ("news",)),
    ({"alertname": "SomethingElse"}, ("tickets",)),
)
"""What must go where; held against `amtool config routes test`."""
