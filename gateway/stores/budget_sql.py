"""The statements of the budgets' file. Every value is a parameter; no statement is ever put together from data."""

from __future__ import annotations

from typing import Final

VERSION: Final = 1

SCHEMA: Final = (
    """
    CREATE TABLE clock (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        now INTEGER NOT NULL,    -- ns since the epoch: the latest time that any worker has seen
        mono INTEGER NOT NULL,   -- monotonic ns at that moment
        epoch INTEGER NOT NULL,  -- raised whenever a hold is changed by another worker than its owner
        freed INTEGER NOT NULL   -- raised whenever something was given back
    )
    """,
    "INSERT INTO clock VALUES (1, 0, 0, 0, 0)",
    """
    CREATE TABLE accounts (
        name TEXT PRIMARY KEY,
        spent INTEGER NOT NULL,     -- nano-USD, tokens, calls: as `unit` says
        reserved INTEGER NOT NULL,
        level INTEGER NOT NULL,     -- rule rate: units x microseconds in the bucket
        first INTEGER NOT NULL,     -- rule age: ns since the epoch
        at INTEGER NOT NULL,        -- of the last change
        slots BLOB,                 -- rule rolling: msgpack [[slot, spent], ...]
        rule TEXT NOT NULL,
        unit TEXT NOT NULL,
        "limit" INTEGER NOT NULL,   -- as last asked for
        since INTEGER NOT NULL,
        until INTEGER NOT NULL,
        period INTEGER NOT NULL,
        burst INTEGER NOT NULL,
        label TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE holds (
        op TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        at INTEGER NOT NULL,
        state INTEGER NOT NULL,  -- policy.book.State
        parts BLOB NOT NULL      -- msgpack [[account, reserved], ...]
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE owners (
        owner TEXT PRIMARY KEY,
        alive_until INTEGER NOT NULL,  -- monotonic ns of this machine
        lease INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE adjustments (
        id TEXT PRIMARY KEY,
        at INTEGER NOT NULL,
        account TEXT NOT NULL,
        delta INTEGER NOT NULL,
        reason TEXT NOT NULL,
        who TEXT NOT NULL
    ) WITHOUT ROWID
    """,
)

GET_CLOCK: Final = "SELECT now, mono, epoch, freed FROM clock"
SET_CLOCK: Final = "UPDATE clock SET now = ?, mono = ?, epoch = ?, freed = ? WHERE id = 1"
GET_FREED: Final = "SELECT freed FROM clock"

GET_ACCOUNT: Final = "SELECT * FROM accounts WHERE name = ?"
UPDATE_ACCOUNT: Final = (
    "UPDATE accounts SET spent = ?, reserved = ?, level = ?, first = ?, at = ?, slots = ? WHERE name = ?"
)
REPLACE_ACCOUNT: Final = "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
ACCOUNTS_UNDER: Final = """
SELECT * FROM accounts WHERE name >= ? AND name < ? AND (until = 0 OR until > ?) ORDER BY name LIMIT ?
"""
# All but those of runs, which are many: what lies before them, and what lies behind.
ACCOUNTS_IN_MONEY: Final = """
SELECT * FROM accounts WHERE name < 'run:' AND unit = 'usd' AND (until = 0 OR until > ?1)
UNION ALL
SELECT * FROM accounts WHERE name >= 'run;' AND unit = 'usd' AND (until = 0 OR until > ?1)
ORDER BY name LIMIT ?2
"""

GET_HOLD: Final = "SELECT op, owner, at, state, parts FROM holds WHERE op = ?"
HOLDS_OF: Final = "SELECT op, owner, at, state, parts FROM holds WHERE owner = ? AND state = 0"
INSERT_HOLD: Final = "INSERT INTO holds VALUES (?, ?, ?, ?, ?)"
REPLACE_HOLD: Final = "INSERT OR REPLACE INTO holds VALUES (?, ?, ?, ?, ?)"
DELETE_HOLD: Final = "DELETE FROM holds WHERE op = ?"
FORGET_HOLDS: Final = "DELETE FROM holds WHERE state <> 0 AND at < ?"

RENEW: Final = "INSERT OR REPLACE INTO owners VALUES (?, ?, ?)"
# Dead, or of a time before this machine was started: then its lease would end later than one that begins now.
DEAD: Final = "SELECT owner FROM owners WHERE owner <> ?1 AND (alive_until < ?2 OR alive_until > ?2 + lease)"
DELETE_OWNER: Final = "DELETE FROM owners WHERE owner = ?"

ADD_ADJUSTMENT: Final = "INSERT OR IGNORE INTO adjustments VALUES (?, ?, ?, ?, ?, ?)"
ADJUSTMENTS: Final = "SELECT id, at, account, delta, reason, who FROM adjustments ORDER BY at DESC, id LIMIT ?"

NTH_ACCOUNT: Final = "SELECT name FROM accounts WHERE name > ? ORDER BY name LIMIT 1 OFFSET ?"
# Windows that ended a day (and twice their length) ago and were not asked since; runs nobody heard of for long; and
# what has emptied by itself. A life account of anything but a run is never forgotten.
FORGET_ACCOUNTS: Final = """
DELETE FROM accounts WHERE name > ?1 AND name <= ?2 AND reserved = 0 AND (
    (until > 0 AND max(until, at) + max(86400000000000, 2 * (until - since)) < ?3)
    OR (at < ?4 AND (name GLOB 'run:*' OR rule IN ('rolling', 'rate', 'slots')))
)
"""
