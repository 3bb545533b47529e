"""Refuse: tell the client, in its dialect, that the gateway could not or would not answer; also in mid-stream."""

from __future__ import annotations

import http

from gateway.call import Call
from gateway.errors import ClientGone, GatewayError
from gateway.policy.forward import rendered
from gateway.ports import Downstream, Gateway
from gateway.spend import Hold
from gateway.stages.ending import ABORT, Ending
from gateway.stages.translated import interruption

EVENTS = b"text/event-stream"
FINAL = 402  # of a budget or a run: nothing is gained by asking again


def refuse(call: Call, fault: GatewayError, down: Downstream, gw: Gateway) -> Ending:
    """Prepare the end of a failed call; what it returns is sent after the record is written."""
    dialect = gw.dialects[call.route.dialect]
    if isinstance(fault, ClientGone) or down.gone:
        return ABORT
    if call.promised and not call.committed:  # a stream of which nothing was said yet
        call.committed = True
        unheard = dialect.meter(call.route, call.asked, call.status, EVENTS)
        return Ending(dialect.interruption(fault, unheard, call.id), complete=False)
    if call.committed:
        if call.meter is None or not call.interruptible:
            return ABORT  # half a document, a stated length, compressed bytes: only the cut connection can say so
        return Ending(interruption(call, fault, gw), complete=False)
    final = fault.status == FINAL and call.asked.stream
    answer = dialect.last_word(fault, call.id, call.request.names) if final else None
    answer = answer or dialect.refusal(fault, call.id, stream=call.asked.stream, route=call.route, asked=call.asked)
    call.status = answer.status
    return whole(down, answer.status, rendered(answer.headers) + own_lines(call), answer.body)


def whole(down: Downstream, status: int, block: bytes, body: bytes) -> Ending:
    """An answer that the gateway made, of known length."""
    down.start(status, reason_of(status), b"%bcontent-length: %d\r\n" % (block, len(body)), len(body))
    return Ending(body, complete=True)


def own_lines(call: Call) -> bytes:
    """The x-tollgate-* header lines that are known before the answer is."""
    lines = f"x-tollgate-request-id: {call.id}\r\n"
    if call.who.run_id:
        lines += f"x-tollgate-run-id: {call.who.run_id}\r\n"
    if call.attempts:
        lines += f"x-tollgate-upstream: {call.route.upstream}\r\nx-tollgate-attempts: {len(call.attempts)}\r\n"
    lines += call.lines
    if call.check is not None and call.check.verdicts:
        lines += f"x-tollgate-cascade: {', '.join(call.check.verdicts)}\r\n"
    if call.hold is not None:
        lines += money_lines(call.hold)
    return lines.encode("latin-1", "replace")


def money_lines(hold: Hold) -> str:
    """What the tightest budget still has, this call held, and what its run had spent before it; whole micro-USD."""
    lines = ""
    if hold.remaining >= 0:
        lines = f"x-tollgate-budget-remaining-usd: {hold.remaining // 1000 / 1e6:.6f}\r\n"
    if hold.run_spent >= 0:
        lines += f"x-tollgate-run-cost-usd: {-(-hold.run_spent // 1000) / 1e6:.6f}\r\n"
    return lines


def reason_of(status: int) -> bytes:
    try:
        return http.HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Overloaded" if status == 529 else b"Error"
