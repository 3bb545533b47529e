"""`tollgate route status`: what was learned of the targets of each rule that learns. From the recorder's file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from msgspec import structs

from gateway.config import places
from gateway.config.load import load
from gateway.policy.selection_standing import ScopeStanding
from gateway.stores.sqlite_learned import SqliteLearned


def status(path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object], *, as_json: bool) -> int:
    """Raises ConfigError, LearnedUnusable."""
    config = load(path, env, overrides)
    found = SqliteLearned(places.learned(config)).standings()
    if as_json:
        rows = [
            {**structs.asdict(one), "arms": [structs.asdict(arm) for arm in one.arms], "at": at} for one, at in found
        ]
        print(json.dumps(rows, indent=2))
        return 0
    ids = {rule.learn.id for rule in config.routes if rule.learn is not None}
    for standing, at in found:
        print("\n".join(lines(standing, at, configured=standing.scope.partition("|")[0] in ids)))
    waiting = sorted(ids - {standing.scope.partition("|")[0] for standing, _ in found})
    for id in waiting:
        print(f"{id}: no calls yet")
    if not found and not waiting:
        print("no rule learns, and none did before")
    return 0


def lines(standing: ScopeStanding, at: int, *, configured: bool) -> Iterator[str]:
    when = datetime.fromtimestamp(at // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    gone = "" if configured else "; no longer configured"
    state = "chooses by what was learned" if standing.ready else "too few labels to choose by"
    yield f"{standing.scope}: {state}: {standing.labels:g} labels, {standing.enough} are needed ({when}{gone})"
    goal = ", ".join([f"{name} {value:g}" for name, value in standing.goal.items()])
    yield f"  goal: {goal}"
    for arm in standing.arms:
        score = "no score yet" if arm.score is None else f"mean score {arm.score:.3f}"
        cost = "no price" if arm.cost is None else f"{arm.cost:.6f} USD a call"
        withheld = f", {arm.withheld:.1%} withheld" if arm.withheld else ""
        yield f"  {arm.target}: {arm.labels:g} labels, {score}, {cost}, {arm.calls} calls{withheld}"
    if standing.quality is not None and standing.cost is not None:
        shares = f"{standing.quality:.1%} of the quality of {standing.best} at {standing.cost:.1%} of its cost"
        yield f"  expected: {shares} (weight of cost {standing.weight:.3g})"
    if standing.why:
        yield "  calls by reason: " + ", ".join([f"{why} {count}" for why, count in sorted(standing.why.items())])
    if standing.fault:
        yield f"  the labelled file cannot be used: {standing.fault}"
