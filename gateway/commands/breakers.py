"""`tollgate breakers`: how breakers stand, and holding one open or closed by hand.

As `tollgate runs` does, it goes through the admin API of the running gateway; what is forced is written into the state
directory where none answers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gateway.commands.client import NoGateway, admin_of
from gateway.commands.runs import whoever
from gateway.config import places
from gateway.config.load import load
from gateway.config.problems import did_you_mean
from gateway.config.schema import Config
from gateway.policy.controls import Decision, Kind, Scope
from gateway.stores.sqlite_controls import SqliteDecisions

KINDS = {"open": Kind.OPEN, "close": Kind.CLOSE, "auto": Kind.AUTO}
STATES = {"open": "open", "close": "closed", "auto": "auto"}
SAID = {"open": "held open", "close": "held closed", "auto": "goes by what it counts"}


def run(path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object], given: Mapping[str, Any]) -> int:
    """Do what `given["action"]` says. Returns the exit status; raises ConfigError, Refused, ControlsUnusable."""
    config = load(path, env, overrides)
    admin = admin_of(config)
    if given["action"] == "list":
        found = admin.ask("GET", "/api/breakers")["breakers"]
        print(msgspec.json.encode(found).decode() if given["json"] else listed(found))
        return 0
    name, action, by = given["name"], given["action"], whoever()
    body = {"name": name, "state": STATES[action], "reason": given["reason"], "by": by}
    try:
        answer = admin.ask("POST", "/api/breakers", body)
    except NoGateway as error:
        decision = Decision(KINDS[action], Scope.UPSTREAM, name, reason=given["reason"], who=by, at=time.time_ns())
        SqliteDecisions(places.controls(config)).record(decision)
        print(f"{name}: {SAID[action]}{doubt(name, config)}; {error}: written to {places.controls(config)}")
        return 0
    late = "" if answer["in_force"] else "; not every worker has taken it in yet"
    print(f"{name}: {SAID[action]}{late}{doubt(name, config)}")
    return 0


def doubt(name: str, config: Config) -> str:
    """What is to be said of a name that nothing in the configuration has: it may be one of another machine's."""
    tools = [f"tools/{tool}" for tool in config.tools] + [f"mcp/{server}" for server in config.mcp]
    known = [*config.upstreams, *tools]
    if name in known or name.partition("/")[0] in config.upstreams:
        return ""
    hint = did_you_mean(name, known)
    return f"; nothing is named so in the configuration{hint and f': {hint}'}"


def listed(found: list[dict[str, Any]]) -> str:
    """For people."""
    return "\n".join(map(_line, found)) or "no breaker has ever opened"


def _line(one: Mapping[str, Any]) -> str:
    held = f", held {one['forced']} by hand" if one["forced"] else ""
    why = f" since {one['since']}: {one['why']}" if one["since"] and one["why"] else ""
    workers = f" in {one['workers']} worker{'' if one['workers'] == 1 else 's'}" if one["workers"] else ""
    return f"{one['name']}: {one['state']}{workers}{held}{why}"
