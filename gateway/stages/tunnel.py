"""Tunnel: a WebSocket, relayed frame by frame as it is, and metered where usage events pass."""

from __future__ import annotations

from gateway.call import Call
from gateway.errors import ClientGone, UpstreamFault
from gateway.ports import Downstream, Exchange, Gateway
from gateway.stages.ending import Ending
from gateway.stages.refuse import own_lines


async def tunnel(call: Call, exchange: Exchange, down: Downstream, gw: Gateway) -> Ending:
    """Relay until either side ends; either may."""
    try:
        tap = gw.dialects[call.route.dialect].tap(exchange.names.get(b"sec-websocket-extensions", b""))
        send = exchange.upgraded(down.hold)
        call.committed, call.status = True, 101
        call.first_byte = gw.monotonic()
        down.start(101, exchange.reason, exchange.block + own_lines(call), None)

        def from_client(data: bytes) -> None:
            tap.feed(True, data)
            send(data)

        down.upgrade(from_client)
        call.meter = tap
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
