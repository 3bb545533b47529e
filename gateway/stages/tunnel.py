"""Tunnel: a WebSocket, relayed frame by frame as it is, and metered where usage events pass."""

from __future__ import annotations

from gateway.call import Call
from gateway.errors import ClientGone, UpstreamFault
from gateway.policy.forward import HOP_BY_HOP, header
from gateway.ports import Downstream, Exchange, Gateway
from gateway.stages.ending import Ending
from gateway.stages.refuse import own_headers

_SWITCH = HOP_BY_HOP - {b"connection", b"upgrade"}


async def tunnel(call: Call, exchange: Exchange, down: Downstream, gw: Gateway) -> Ending:
    """Relay until either side ends; either may."""
    tap = gw.dialects[call.route.dialect].tap(header(exchange.headers, b"sec-websocket-extensions"))
    send = exchange.upgraded(down.hold)
    call.committed, call.status = True, 101
    call.first_byte = gw.monotonic()
    kept = [item for item in exchange.headers if item[0].lower() not in _SWITCH]
    down.start(101, exchange.reason, [*kept, *own_headers(call)], None)

    def from_client(data: bytes) -> None:
        tap.feed(True, data)
        send(data)

    down.upgrade(from_client)
    call.meter = tap
    try:
        while data := await exchange.read():
            call.response_bytes += len(data)
            tap.feed(False, data)
            down.write(data)
            if down.paused or down.gone:
                await down.drained()
    except UpstreamFault as fault:
        call.fault = fault
    except ClientGone:
        pass  # closing a socket is how its conversation ends
    finally:
        call.upstream_last_byte = gw.monotonic()
        exchange.close()
    return Ending(b"", complete=False)
