"""The counts that limit a run: what is configured for every run, with what was set for this one alone."""

from __future__ import annotations

from gateway.config.schema import Runs
from gateway.spend import Rule, RunLimits, Unit

NO_LIMITS = RunLimits()


def least(*limits: int | None) -> int | None:
    """The tightest; None where there is none."""
    found = None
    for limit in limits:
        if limit is not None and (found is None or limit < found):
            found = limit
    return found


def tightened(runs: Runs, own: RunLimits) -> list[tuple[Unit, Rule, int]]:
    minutes = runs.max_minutes
    limits = (
        (Unit.CALLS, Rule.TOTAL, least(runs.max_calls, own.calls)),
        (Unit.STEPS, Rule.TOTAL, least(runs.max_steps, own.steps)),
        (Unit.TOOLS, Rule.TOTAL, least(runs.max_tools, own.tools)),
        (Unit.SECONDS, Rule.AGE, least(None if minutes is None else int(minutes * 60), own.seconds)),
        (Unit.DEPTH, Rule.LEVEL, least(runs.max_depth, own.depth)),
    )
    return [(unit, rule, most) for unit, rule, most in limits if most is not None]
