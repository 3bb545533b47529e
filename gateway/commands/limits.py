"""`tollgate limits`: limit a scope while the gateway runs, beside what is configured.

As `tollgate runs` does, it goes through the admin API of the running gateway, and writes into the state directory where
none answers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from gateway.commands.client import NoGateway, admin_of
from gateway.commands.keys import NotUnderstood, budget
from gateway.commands.runs import whoever
from gateway.config import places
from gateway.config.load import load
from gateway.config.schema import Config
from gateway.policy.controls import Cap, Caps, Decision, Kind, Scope, Standing
from gateway.spend import NANO_USD
from gateway.stores.sqlite_controls import SqliteDecisions

_COUNTS = ("rpm", "tpm", "concurrency", "burst")


def run(path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object], given: Mapping[str, Any]) -> int:
    """Do what `given["action"]` says. Returns the exit status; raises ConfigError, Refused, ControlsUnusable."""
    config = load(path, env, overrides)
    if given["action"] == "list":
        print(listed(SqliteDecisions(places.controls(config)).capped(), as_json=given["json"]))
        return 0
    try:
        caps = wanted(given) if given["action"] == "set" else None
        subject = subject_of(given["scope"], given["value"])
    except NotUnderstood as error:
        print(f"tollgate: {error}", file=sys.stderr)
        return 1
    return _decide(config, subject, caps, given["reason"])


def wanted(given: Mapping[str, Any]) -> Caps:
    """What the options of `set` describe. Raises NotUnderstood."""
    budgets = [
        Cap(one.usd, one.tokens, one.per, one.rolling and one.per != "life", given["on_exceed"])
        for one in map(budget, given["budget"] or ())
    ]
    counts = {name: given[name] for name in _COUNTS}
    if any(count is not None and count < 1 for count in counts.values()):
        raise NotUnderstood("limits are whole numbers from 1 on")
    if any(amount < 1 for cap in budgets for amount in (cap.usd, cap.tokens) if amount is not None):
        raise NotUnderstood("--budget: an amount of nothing")
    if not budgets and all(counts[name] is None for name in _COUNTS if name != "burst"):
        raise NotUnderstood("nothing is limited: give --budget, --rpm, --tpm or --concurrency")
    return Caps(tuple(budgets), **counts)


def subject_of(scope: str, value: str) -> tuple[Scope, str]:
    """Raises NotUnderstood."""
    if scope == "global" and value != "*":
        raise NotUnderstood("global has no names")
    return Scope(scope), value


def listed(standings: Sequence[Standing], *, as_json: bool) -> str:
    if as_json:
        shown = [{"scope": one.scope, "value": one.value, "limits": told(one.caps or Caps())} for one in standings]
        return msgspec.json.encode(shown).decode()
    lines = [f"{one.scope} {one.value}: {', '.join(told(one.caps or Caps()))}" for one in standings]
    return "\n".join(lines) or "no limits are set here"


def told(caps: Caps) -> list[str]:
    """For people."""
    found = []
    for cap in caps.budgets:
        usd = [] if cap.usd is None else [f"${cap.usd / NANO_USD:.9f}".rstrip("0").rstrip(".")]
        tokens = [] if cap.tokens is None else [f"{cap.tokens} tokens"]
        window = "for life" if cap.per == "life" else f"per {'rolling ' if cap.rolling else ''}{cap.per}"
        found.append(f"{' and '.join(usd + tokens)} {window} ({cap.on_exceed})")
    return found + [f"{getattr(caps, name)} {name}" for name in _COUNTS if getattr(caps, name) is not None]


def _decide(config: Config, subject: tuple[Scope, str], caps: Caps | None, reason: str) -> int:
    scope, value = subject
    by, place = whoever(), f"/api/limits/{scope}/{quote(value, safe='')}"
    what = f"{scope} {value}: {', '.join(told(caps)) if caps is not None else 'what was set is taken away'}"
    admin = admin_of(config)
    try:
        if caps is None:
            answer = admin.ask("DELETE", f"{place}?{urlencode({'reason': reason, 'by': by})}")
        else:
            answer = admin.ask("PUT", place, {**_body(caps), "reason": reason, "by": by})
    except NoGateway as error:
        decision = Decision(Kind.CAP, scope, value, reason=reason, who=by, at=time.time_ns(), caps=caps)
        SqliteDecisions(places.controls(config)).record(decision)
        print(f"{what}; {error}: written to {places.controls(config)}")
        return 0
    print(what if answer["in_force"] else f"{what}; not every worker has taken it in yet")
    return 0


def _body(caps: Caps) -> dict[str, Any]:
    budgets = [
        {
            "usd": None if cap.usd is None else cap.usd / NANO_USD,
            **{name: getattr(cap, name) for name in ("tokens", "per", "rolling", "on_exceed")},
        }
        for cap in caps.budgets
    ]
    return {"budgets": budgets, **{name: getattr(caps, name) for name in _COUNTS}}
