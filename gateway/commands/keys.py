"""`tollgate keys`: virtual keys, in the state directory itself, whether or not the gateway runs.

A running gateway takes a change in within a second. A secret is printed once, on standard output and nowhere else.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO, get_args

import msgspec
from msgspec import Struct

from gateway.config import places
from gateway.config.load import load
from gateway.config.semantics import ALLOW_OPEN
from gateway.key import ANY, Key, KeyBudget, Per
from gateway.policy.key_rules import KeyRefused
from gateway.spend import NANO_USD
from gateway.stores.sqlite_keys import SqliteKeyStore

SECOND = 10**9
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"([0-9]{1,6})([smhdw])")
_BUDGET = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(usd|tok)?/(rolling-)?([a-z]+)")
_PERS = get_args(Per)
_OPERATIONS = Key(id="").operations


class NotUnderstood(Exception):
    """A value of the command line; the message says which and why."""


class Shown(Struct, kw_only=True):
    """A key as the command line shows it; `secret` where it was just made."""

    id: str
    name: str
    team: str
    state: str
    prefix: str
    created: str
    expires: str | None
    models: tuple[str, ...]
    upstreams: tuple[str, ...]
    tools: tuple[str, ...]
    operations: tuple[str, ...]
    budgets: tuple[str, ...]
    limits: dict[str, int]
    may_limit_runs: bool
    parent: str
    metadata: dict[str, str]
    secret: str | None = None


def run(
    path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object], given: Mapping[str, Any],
    out: TextIO | None = None,
) -> int:  # fmt: skip
    """Do what `given["action"]` says. Returns the exit status; raises ConfigError and OSError."""
    out = out or sys.stdout
    # without a key the gateway would not listen elsewhere: this is how it gets one
    config = load(path, {**env, ALLOW_OPEN: "1"}, overrides)
    store = SqliteKeyStore(places.keys(config), places.pepper(config), time.time_ns)
    try:
        return _act(store, given, env.get("USER") or f"uid {os.getuid()}", out)
    except (KeyRefused, NotUnderstood) as error:
        print(f"tollgate: {error}", file=sys.stderr)
    except KeyError as error:
        print(f"tollgate: there is no key {error.args[0]}", file=sys.stderr)
    return 1


def _act(store: SqliteKeyStore, given: Mapping[str, Any], who: str, out: TextIO) -> int:
    now = time.time_ns()
    match given["action"]:
        case "create":
            key, secret = store.create(wanted(given, now), who)
        case "rotate":
            key, secret = store.rotate(given["name"], duration(given["overlap"]), who)
        case "disable":
            key, secret = store.disable(given["name"], who, given["reason"]), ""
        case _:
            _list([shown(key, now) for key in store.listed()], out, as_json=given["json"])
            return 0
    view = shown(key, now, secret or None)
    if given["json"]:
        out.write(msgspec.json.encode(view).decode() + "\n")
    elif secret:
        out.write(f"{secret}\n")
        print(f"key {key.name} ({key.prefix}): keep its secret now, it is not shown again", file=sys.stderr)
    else:
        out.write(f"key {key.name} ({key.prefix}) is disabled\n")
    return 0


def wanted(given: Mapping[str, Any], now: int) -> Key:
    """The key that the options of `create` describe. Raises NotUnderstood."""
    return Key(
        id="",
        name=given["name"],
        team=given["team"],
        models=_patterns(given["model"], (ANY,)),
        upstreams=_patterns(given["upstream"], (ANY,)),
        tools=_patterns(given["tool"], (ANY,)),
        operations=_patterns(given["operation"], _OPERATIONS),
        expires_at=moment(given["expires"], now),
        parent=given["parent"],
        metadata=_metadata(given["meta"] or ()),
        budgets=tuple(budget(text) for text in given["budget"] or ()),
        rpm=given["rpm"],
        tpm=given["tpm"],
        concurrency=given["concurrency"],
        burst=given["burst"],
        may_limit_runs=not given["no_run_limits"],
    )


def _patterns(given: Iterable[str] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    """`--tool ""` allows none at all."""
    if given is None:
        return default
    return tuple(part.strip() for text in given for part in text.split(",") if part.strip())


def _metadata(given: Iterable[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise NotUnderstood("--meta: expected NAME=TEXT")
        found[name] = value
    return found


def budget(text: str) -> KeyBudget:
    """`20/month`, `5usd/rolling-day`, `2000000tok/week`. Raises NotUnderstood."""
    match = _BUDGET.fullmatch(text.strip().lower())
    per = match[4] if match is not None else ""
    if match is None or per not in _PERS or (match[2] == "tok" and "." in match[1]):
        raise NotUnderstood(f"--budget: expected an amount and one of {', '.join(_PERS)}, as 20/month or 5000tok/day")
    window: Any = per
    if match[2] == "tok":
        return KeyBudget(tokens=int(match[1]), per=window, rolling=bool(match[3]))
    whole, _, part = match[1].partition(".")
    return KeyBudget(usd=int(whole) * NANO_USD + int(part.ljust(9, "0")), per=window, rolling=bool(match[3]))


def duration(text: str) -> int:
    """`90s`, `30m`, `12h`, `30d`, `2w` in nanoseconds; "0" is none. Raises NotUnderstood."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        if text.strip() == "0":
            return 0
        raise NotUnderstood("expected a time as 90s, 30m, 12h, 30d or 2w")
    return int(match[1]) * _UNITS[match[2]] * SECOND


def moment(text: str, now: int) -> int:
    """A time from now on, or RFC 3339, in ns since the epoch; "" is never (0). Raises NotUnderstood."""
    if not text:
        return 0
    if _DURATION.fullmatch(text.strip().lower()):
        return now + duration(text)
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        raise NotUnderstood("--expires: expected 30d, 12h or 2027-01-31T00:00:00Z") from None
    return int((at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)).timestamp()) * SECOND


def shown(key: Key, now: int, secret: str | None = None) -> Shown:
    """What may be seen of a key; its digests may not."""
    limits = {name: getattr(key, name) for name in ("rpm", "tpm", "concurrency", "burst")}
    return Shown(
        id=key.id,
        name=key.name,
        team=key.team,
        state=state(key, now),
        prefix=key.prefix,
        created=_time(key.created_at),
        expires=_time(key.expires_at) if key.expires_at else None,
        models=key.models,
        upstreams=key.upstreams,
        tools=key.tools,
        operations=key.operations,
        budgets=tuple(map(_budget, key.budgets)),
        limits={name: limit for name, limit in limits.items() if limit is not None},
        may_limit_runs=key.may_limit_runs,
        parent=key.parent,
        metadata=key.metadata,
        secret=secret,
    )


def state(key: Key, now: int) -> str:
    if key.disabled_at:
        return "disabled"
    return "expired" if key.expires_at and key.expires_at <= now else "active"


def _budget(budget: KeyBudget) -> str:
    parts = [f"{budget.usd / NANO_USD:.9f}".rstrip("0").rstrip(".") + " USD"] if budget.usd is not None else []
    parts += [f"{budget.tokens} tokens"] if budget.tokens is not None else []
    return f"{' and '.join(parts)} per {'rolling ' if budget.rolling else ''}{budget.per}"


def _time(ns: int) -> str:
    return dt.datetime.fromtimestamp(ns // SECOND, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _list(keys: list[Shown], out: TextIO, *, as_json: bool) -> None:
    if as_json:
        out.write(msgspec.json.encode(keys).decode() + "\n")
        return
    rows = [("NAME", "PREFIX", "TEAM", "STATE", "EXPIRES", "MODELS", "BUDGETS")]
    for key in keys:
        models, budgets = ",".join(key.models) or "none", ", ".join(key.budgets) or "-"
        rows.append((key.name, key.prefix, key.team or "-", key.state, key.expires or "never", models, budgets))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        out.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
