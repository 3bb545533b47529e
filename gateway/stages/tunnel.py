"""Tunnel: a WebSocket, relayed frame by frame as it is, and metered where usage events pass.

A session is admitted with what one answer of the largest size may cost. When its answers together have come to that, it
is ended behind the last of them: who connects again is admitted anew, to what its budgets have left by then. So it is
before a message that asks for another model than the session was admitted for goes on, and where its run is stopped.
"""

from __future__ import annotations

from gateway.call import Call
from gateway.errors import BudgetExceeded, ClientGone, RunStopped, UpstreamFault
from gateway.policy.account_names import parse
from gateway.policy.ceiling import model_of
from gateway.ports import Downstream, Exchange, Gateway, Used
from gateway.spend import PICO_PER_NANO, Hold, Unit
from gateway.stages.account import added, priced
from gateway.stages.cheaper import note
from gateway.stages.ending import Ending
from gateway.stages.refuse import own_lines

STRAYED = (
    "This session was admitted for {} by its budgets; connect with `?model=` for another model,"
    " and send messages of at most 16 MiB."
)
SPENT = "This session has come to what was reserved for it in its budgets; connect again to go on."


def is_spent(call: Call, used: Used, gw: Gateway) -> bool:
    """Have the answers of a session come to what is held for it?"""
    hold = call.hold
    if hold is None or not hold.output:
        return False
    usages = [used.usage, *(part[0] for part in used.parts)]
    if sum([usage.input_tokens + usage.output_tokens for usage in usages]) >= hold.output:
        return True
    models = (used.model, model_of(call))
    at, provider = call.started_at / 1e9, call.attempts[-1].target.provider
    money = priced(gw, provider, models, (used.usage, used.pricing), at)
    for usage, model, context in used.parts:
        money = added(money, priced(gw, provider, (model, *models), (usage, context), at))
    return money.total is not None and 0 < hold.usd * PICO_PER_NANO <= money.total


def by_model(hold: Hold) -> bool:
    """Does what was held hang on the model?"""
    return any([one.unit in (Unit.USD, Unit.TOKENS) or parse(one.account).scope == "model" for one in hold.demands])


async def tunnel(call: Call, exchange: Exchange, down: Downstream, gw: Gateway) -> Ending:
    """Relay until either side ends; either may."""
    try:
        tap = gw.dialects[call.route.dialect].tap(exchange.names.get(b"sec-websocket-extensions", b""))
        send = exchange.upgraded(down.hold)
        call.committed, call.status = True, 101
        call.first_byte = gw.monotonic()
        down.start(101, exchange.reason, exchange.block + own_lines(call), None)

        admitted = model_of(call) if call.hold is not None and by_model(call.hold) else ""

        def from_client(data: bytes) -> None:
            tap.feed(True, data)
            if admitted and tap.strays(admitted):
                tap.withheld()
                down.interrupt(BudgetExceeded(STRAYED.format(admitted)))
            else:
                send(data)

        down.upgrade(from_client)
        call.meter = tap
        while data := await exchange.read():
            call.response_bytes += len(data)
            tap.feed(False, data)
            down.write(data)
            used = tap.used()
            if used is not None and is_spent(call, used, gw):
                raise BudgetExceeded(SPENT)
            if down.paused or down.gone:
                await down.drained()
    except (BudgetExceeded, RunStopped) as fault:
        call.fault = fault
        note(call, "stopped")
        return Ending(tap.close(fault, call.id), complete=False)
    except UpstreamFault as fault:
        call.fault = fault
    except ClientGone:
        pass  # closing a socket is how its conversation ends
    finally:
        call.upstream_last_byte = gw.monotonic()
        exchange.close()
    return Ending(b"", complete=False)
