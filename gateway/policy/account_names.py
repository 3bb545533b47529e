"""How the name of an account is made of its parts, in `policy.limits`, and what it says, for people. Pure.

[key:NAME/]SCOPE[:VALUE]|UNIT|PER[|WINDOW]       "team:payments|usd|day|2026-11-27", "global|tokens|hour|rolling"
[key:NAME/]SCOPE[:VALUE]|calls|rate              also tokens; "...|concurrency"
"""

from __future__ import annotations

from msgspec import Struct

ROLLING = "rolling"
LONGEST = 200  # characters of a value that are kept in a name


class Account(Struct, frozen=True):
    """The parts of a name; "" where there is none."""

    scope: str
    value: str = ""  # "" also for calls of which that scope is not known
    unit: str = ""
    per: str = ""  # minute, hour, ... or life; "rate"
    window: str = ""  # the calendar's, or "rolling"
    within: str | None = None  # the key to which the limit belongs, where it is one of another scope

    @property
    def budget(self) -> str:
        """The same for all its windows: what a series of a metric is."""
        prefix = f"key:{_written(self.within)}/" if self.within is not None else ""
        who = self.scope if self.scope == "global" else f"{self.scope}:{_written(self.value)}"
        return "|".join(
            part for part in (f"{prefix}{who}", self.unit, self.per, ROLLING * (self.window == ROLLING)) if part
        )


def parse(account: str) -> Account:
    """Never fails: of a name that is none, all of it is the scope."""
    who, *rest = account.split("|")
    outer, slash, inner = who.rpartition("/")
    scope, _, value = inner.partition(":")
    unit, per, window = (*rest, "", "", "")[:3]
    within = _read(outer.partition(":")[2]) if slash else None
    return Account(scope, _read(value), unit, per, window, within)


def named(value: str) -> str:
    """A value as part of a name: what separates the parts is written otherwise."""
    return _written(value[:LONGEST])


def _read(text: str) -> str:
    return text.replace("%2F", "/").replace("%7C", "|").replace("%25", "%") if "%" in text else text


def _written(text: str) -> str:
    return text.replace("%", "%25").replace("|", "%7C").replace("/", "%2F")
