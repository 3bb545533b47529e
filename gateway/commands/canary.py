"""`tollgate canary status`: how each canary stands, and on what evidence. From the file that the recorder writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from msgspec import structs

from gateway.config import places
from gateway.config.load import load
from gateway.policy.canary import SIGNS, Decision
from gateway.stores.sqlite_canaries import SqliteCanaries


def status(path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object], *, as_json: bool) -> int:
    """Raises ConfigError, CanariesUnusable."""
    config = load(path, env, overrides)
    found = SqliteCanaries(places.canaries(config)).standings()
    if as_json:
        print(json.dumps([{**structs.asdict(standing), "at": at} for standing, at in found], indent=2))
        return 0
    shares = {rule.canary.id: rule.canary.share for rule in config.routes if rule.canary is not None}
    for standing, at in found:
        print("\n".join(lines(standing, at, shares.get(standing.canary))))
    waiting = sorted(set(shares) - {standing.canary for standing, _ in found})
    for id in waiting:
        print(f"{id}: no calls yet")
    if not found and not waiting:
        print("no canary is configured, and none was before")
    return 0


def lines(standing: Decision, at: int, share: float | None) -> Iterator[str]:
    when = datetime.fromtimestamp(at // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    state = standing.state.replace("_", " ")
    gone = "" if share is not None else "; no longer configured"
    yield f"{standing.canary}: {state}{f': {standing.reason}' if standing.reason else ''} ({when}{gone})"
    yield f"  runs: {standing.runs[0]} of the canary, {standing.runs[1]} of the rest"
    yield f"  calls: {standing.calls[0]} of the canary, {standing.calls[1]} of the rest"
    for sign in SIGNS:
        canary, rest = standing.counts[sign]
        yield f"  {sign}: {canary} runs of the canary, {rest} of the rest; evidence {number(standing, sign)}"
    yield f"  evidence that it is worse, all together: {number(standing, 'all')}"
    yield f"  evidence that it is not worse: {standing.not_worse:.3g}"


def number(standing: Decision, sign: str) -> str:
    return f"{standing.evidence[sign]:.3g}"
