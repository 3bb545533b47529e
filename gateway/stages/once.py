"""Once: one attempt of a call, from the request sent to the end of its answer."""

from __future__ import annotations

from gateway.call import Call
from gateway.ports import Downstream, Exchange, Gateway
from gateway.stages.attempt import attempt
from gateway.stages.ending import Ending
from gateway.stages.pump import pump
from gateway.stages.tunnel import tunnel


async def once(call: Call, down: Downstream, gw: Gateway) -> Ending:
    """Raises UpstreamFault, ClientGone."""
    return await passed(call, await attempt(call, down, gw), down, gw)  # until the head of an answer


async def passed(call: Call, exchange: Exchange, down: Downstream, gw: Gateway) -> Ending:
    """Pass on an answer whose head is there. Raises UpstreamFault, ClientGone."""
    if exchange.status == 101:
        return await tunnel(call, exchange, down, gw)  # WebSocket: frame by frame
    return await pump(call, exchange, down, gw)  # upstream -> meter -> client
