"""Peek: the beginning of a stream, before its first meaningful event. What is held here can still be taken back.

Rules
1. Comments, pings, empty events and those that only say who is going to answer are held until something is said. With
   what comes after HOLD_SECONDS, or above PEEK_LIMIT bytes, they are committed, and pass: clients and proxies on the
   way shall not give up. Who is going to answer passes after BEGUN_SECONDS: a failure that the upstream knows of then
   follows at once. Committed or not, only content ends the time to the first content.
2. Where nothing at all comes, the gateway pings in the words of the dialect (`timeouts.ping`), between two events, and
   only behind the upstream's own head: a ping commits a status, and that must be the one the upstream gave.
3. Where a fallback or a dearer model may still follow, none of it happens: what is committed cannot be taken back.
"""

from __future__ import annotations

from typing import Protocol

from gateway.call import Call
from gateway.ports import Downstream, Exchange, Gateway, Meter

PEEK_LIMIT = 65_536
HOLD_SECONDS = 3.0
BEGUN_SECONDS = 0.02
BLANK = (b"\n\n", b"\r\n\r\n", b"\r\r")


class Beginning(Protocol):
    """What this needs of stages.pump.Passage."""

    call: Call
    down: Downstream
    exchange: Exchange
    gw: Gateway
    held: bytes  # came, and is not passed on yet
    interruptible: bool
    meter: Meter

    @property
    def holds(self) -> bool: ...

    async def take(self, data: bytes) -> bytes: ...

    def commit(self, data: bytes) -> None: ...


async def peek(passage: Beginning) -> bool:
    """Read until something was said, good or bad; what of it is not passed on yet is in `held`. False where the body
    ended before. Raises UpstreamFault, ClientGone."""
    call, down, meter, exchange = passage.call, passage.down, passage.meter, passage.exchange
    began, again = passage.gw.monotonic(), passage.holds or (call.trial is not None and call.trial.open)
    waits, ping = call.attempts[-1].waits, b""
    if waits is not None and waits.ping is not None and passage.interruptible and not again:
        ping = passage.gw.dialects[call.route.dialect].ping
    last = b"\n\n"
    if meter.started or meter.failed:  # it was seen before, by stages.lanes, and put back
        passage.held += await passage.take(await exchange.read())
    while not (meter.started or meter.failed):
        begun = meter.begun and not (again or call.committed)
        within = BEGUN_SECONDS if begun else waits.ping if ping and waits else None
        data = await (exchange.read_within(within) if within else exchange.read())
        if data is None and begun:
            pass  # what is held goes on
        elif data is None:
            passage.held += ping if last.endswith(BLANK) else b""
        elif not data:
            return False
        else:
            passage.held += await passage.take(data)
            last = data[-4:] if len(data) > 3 else last[-3:] + data
        if meter.started or meter.failed:
            break
        waited = (passage.gw.monotonic() - began) / 1e9
        if call.committed:
            down.write(passage.held)
        elif data is None or len(passage.held) > PEEK_LIMIT or (waited > HOLD_SECONDS and not again):
            call.early = True
            passage.commit(passage.held)
        else:
            continue
        passage.held = b""
    exchange.heard()
    return True
