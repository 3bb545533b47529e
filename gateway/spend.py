"""The vocabulary of budgets and limits: what a call asks for before it may go, and what it is charged afterwards.

Rules
1. Money is whole nano-USD, rounded up when it is asked for and when it is charged: a double holds them exactly up to
   nine million dollars, so SQLite, Redis and Lua count alike. Tokens and calls are whole numbers.
2. What is counted together is an *account*. Its name says scope, value, unit and window, so that a new window is a
   new account and a changed limit is the same one: no reload loses what is spent.
3. A *hold* is what one operation (an attempt of a call) has reserved, in all accounts at once or in none; settled once.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from msgspec import Struct

NANO_USD = 10**9
PICO_PER_NANO = 1000


class Unit(enum.StrEnum):
    USD = "usd"  # nano-USD
    TOKENS = "tokens"  # input and output
    CALLS = "calls"
    TOOLS = "tools"  # tool results a run has brought
    STEPS = "steps"
    CONCURRENCY = "concurrency"  # calls under way
    SECONDS = "seconds"  # since the account was first asked
    DEPTH = "depth"  # of sub-agents


class Rule(enum.StrEnum):
    """How an account says no."""

    TOTAL = "total"  # spent + reserved + amount <= limit
    ROLLING = "rolling"  # the same, counting what was spent in the last `period` nanoseconds
    RATE = "rate"  # GCRA: `limit` per `period`, `burst` at once
    SLOTS = "slots"  # reserved + amount <= limit; nothing stays when it is settled
    AGE = "age"  # the first demand was at most `limit` seconds ago
    LEVEL = "level"  # amount <= limit; nothing is counted


class Demand(Struct, frozen=True, array_like=True, gc=False):
    """What an operation needs of one account."""

    account: str  # "team:payments|usd|day|2026-11-27": what is counted together
    rule: Rule
    unit: Unit
    amount: int  # the worst case
    limit: int  # in force now
    since: int = 0  # of a calendar window, ns since the epoch
    until: int = 0  # its end; 0: for life
    period: int = 0  # ROLLING, RATE: ns
    burst: int = 0  # RATE: how much may come at once; 0: `limit`
    label: str = ""  # for people: "team payments, per day"


class Level(Struct, frozen=True, array_like=True, gc=False):
    """How an account stands, the hold just made included."""

    account: str
    limit: int
    spent: int
    reserved: int
    resets_at: int = 0  # ns since the epoch; 0: never by itself


class Standing(Struct, frozen=True, gc=False):
    """One account as people look at it."""

    account: str
    rule: Rule
    unit: Unit
    limit: int  # as last asked for
    spent: int
    reserved: int
    resets_at: int
    since: int = 0
    until: int = 0
    at: int = 0  # of the last change, ns since the epoch
    label: str = ""


class Adjustment(Struct, frozen=True, gc=False):
    """What a person booked by hand."""

    id: str
    at: int  # ns since the epoch
    account: str
    delta: int
    reason: str
    who: str


class Grant(Struct, frozen=True, array_like=True):
    """The hold stands; one level for each demand, in their order."""

    op: str
    levels: Sequence[Level] = ()
    at: int = 0  # the clock of the store, ns since the epoch


class Refusal(Struct, frozen=True, array_like=True):
    """Nothing was reserved. `index`: of the first demand that does not fit; `level`: how its account stands."""

    op: str
    index: int
    level: Level
    available: Sequence[int] = ()  # of each demand's account: how much would still fit now (never below 0)
    retry_after: int = 0  # ns until this may change by itself; 0: it does not
    pending: bool = False  # it would fit if what others have reserved were free: waiting may help
    at: int = 0


class RunLimits(Struct, frozen=True, array_like=True, gc=False):
    """What a person set for one run; None: nothing. It tightens what is configured, it never loosens it."""

    usd: int | None = None  # nano-USD
    calls: int | None = None
    steps: int | None = None
    tools: int | None = None
    seconds: int | None = None  # from the first call of the run
    depth: int | None = None


class Charge(Struct, frozen=True, array_like=True, gc=False):
    """What an operation really used, by unit; units that are missing cost nothing, SLOTS are given back anyway."""

    usd: int = 0
    tokens: int = 0
    calls: int = 1
    tools: int = 0
    steps: int = 0

    def of(self, unit: Unit) -> int:
        return getattr(self, unit, 0)


class Hold(Struct, gc=False):
    """What a call holds while it is under way; carried by the call, settled in `close`."""

    op: str
    usd: int = 0  # nano-USD; what is charged where the true cost is never known
    tokens: int = 0
    tools: int = 0
    steps: int = 0
    output: int = 0  # tokens of output after which a stream is stopped; 0: its own limit holds it
    remaining: int = -1  # nano-USD that the tightest budget still has beside this hold; -1: no budget in money
    run_spent: int = -1  # nano-USD that its run had spent before; -1: not counted
    demands: Sequence[Demand] = ()  # what was asked for it,
    levels: Sequence[Level] = ()  # and how those accounts stood then
