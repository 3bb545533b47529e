"""What is said to the script and what it answers, as msgpack; see lua/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from gateway.spend import Demand, Grant, Level, Refusal, Rule
from gateway.stores.spent_parts import Row

Standing = tuple[int, int, int]  # spent, reserved, resets (microseconds)


class Granted(Struct, frozen=True, array_like=True, tag="g"):
    levels: tuple[Standing, ...]


class Refused(Struct, frozen=True, array_like=True, tag="n"):
    index: int
    level: Standing
    available: tuple[int, ...]
    retry_after: int
    pending: bool
    freed: int  # as Freed.count


class Done(Struct, frozen=True, array_like=True, tag="f"):
    pass


class Settled(Struct, frozen=True, array_like=True, tag="d"):
    credits: tuple[Row, ...]


class Ticked(Struct, frozen=True, array_like=True, tag="t"):
    rows: tuple[Row, ...]  # what dead workers were charged
    members: tuple[str, ...]
    expired: int = 0  # holds of dead workers that were seen to


class Freed(Struct, frozen=True, array_like=True, tag="v"):
    count: int


class Adjusted(Struct, frozen=True, array_like=True, tag="a"):
    counts: bool  # False: not an account that counts amounts
    row: Row
    limit: int
    spent: int
    reserved: int


class Held(Struct, frozen=True, array_like=True, tag="k"):
    ops: tuple[str, ...]


class Joined(Struct, frozen=True, array_like=True, tag="j"):
    epoch: str
    phase: str  # "L" while learning, "O" open
    eviction: str  # policy that may throw accounts away; "": none


Result = Granted | Refused | Done | Settled | Ticked | Freed | Adjusted | Held | Joined


class Reply(Struct, frozen=True, array_like=True):
    status: str  # "ok", or "epoch": nothing of the batch was applied
    at: int  # microseconds of the server's clock
    results: tuple[Result, ...]


pack = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Reply).decode


def entry(*parts: Any) -> msgspec.Raw:
    """One entry of a batch, packed. Raises OverflowError for numbers of more than 64 bits."""
    return msgspec.Raw(pack(parts))


def batch(epoch: str, worker: str, entries: Sequence[msgspec.Raw]) -> bytes:
    return pack((epoch, worker, entries))


def decode(data: bytes) -> Reply:
    """Raises msgspec.MsgspecError."""
    return _decode(data)


def described(demand: Demand) -> list[Any]:
    """What an account is, for people: for an entry "m"."""
    window = (demand.since, demand.until, demand.period, demand.burst)
    return [(demand.account, (demand.rule, demand.unit, demand.limit, *window, demand.label))]


def grant_of(op: str, demands: Sequence[Demand], granted: Granted, at: int) -> Grant:
    levels = [level_of(demand, standing) for demand, standing in zip(demands, granted.levels, strict=True)]
    return Grant(op, levels, at * 1000)


def refusal_of(op: str, demands: Sequence[Demand], refused: Refused, at: int) -> Refusal:
    level = level_of(demands[refused.index], refused.level)
    return Refusal(op, refused.index, level, refused.available, refused.retry_after, refused.pending, at * 1000)


def level_of(demand: Demand, standing: Standing) -> Level:
    spent, reserved, resets = standing
    until = demand.until if demand.rule is Rule.TOTAL or demand.rule is Rule.SLOTS else resets * 1000
    return Level(demand.account, demand.limit, spent, reserved, until)
