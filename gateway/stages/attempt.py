"""Attempt: send the call upstream, wait for the head of an answer. Up to here everything may still be tried again."""

from __future__ import annotations

import math
from functools import partial

from msgspec import structs

from gateway.call import Attempt, Call, Edit
from gateway.errors import BadAnswer, ClientGone, GatewayError, UnknownRoute, UpstreamReset
from gateway.policy.forward import other_head, request_head
from gateway.policy.prompt_cache import MARKED_NOTE, is_worth_marks
from gateway.policy.splices import merged
from gateway.policy.tool_sessions import note_session
from gateway.ports import Downstream, Exchange, Gateway, Spec
from gateway.stages.translated import answered, ask, is_translated

ERROR_BODY_LIMIT = 65_536
STALE_NS = 1_000_000_000
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"PUT", b"DELETE"))


async def attempt(call: Call, down: Downstream, gw: Gateway) -> Exchange:
    """Raises UpstreamFault or ClientGone."""
    spec = gw.specs.get(call.route.upstream)
    if spec is None:
        raise UnknownRoute(f"no upstream is named {call.route.upstream}")
    if not is_translated(call, spec, gw):  # edits of the client's words say nothing there
        if gw.mark_prefixes if call.marks is None else call.marks:
            mark_prefix(call, gw)
        inject_usage(call, spec, gw)
    try:
        exchange = await send(call, spec, down, gw)
    except UpstreamReset as fault:
        if not was_stale(call.attempts[-1], fault) or not may_resend(call, spec):
            raise
        exchange = await send(call, spec, down, gw, fresh=True)
    if call.asked.injected and exchange.status in (400, 422):
        return await without_injection(call, spec, exchange, down, gw)
    return exchange


def inject_usage(call: Call, spec: Spec, gw: Gateway) -> None:
    """Ask for usage in a stream that would not carry it; taken out again on the way back (see pump)."""
    if not call.asked.stream or not spec.inject_usage or spec.name in gw.learned.refuses_injection:
        return
    edit = gw.dialects[call.route.dialect].inject_usage(call.route, call.asked, call.request.body)
    if edit is not None:
        call.edits = (*call.edits, structs.replace(edit, silent=True))
        call.asked.injected = True


def mark_prefix(call: Call, gw: Gateway) -> None:
    """Ask for the caching of what is stable in the prompt, where the client itself asked for none."""
    body = call.request.body
    edits = gw.dialects[call.route.dialect].mark_prefix(call.route, call.asked, body) if is_worth_marks(body) else ()
    if edits:
        call.edits = (*call.edits, *[structs.replace(edit, silent=True) for edit in edits])
        call.notes = {**call.notes, MARKED_NOTE: str(sum(b"cache_control" in edit.text for edit in edits))}


def was_stale(attempt: Attempt, fault: UpstreamReset) -> bool:
    """Did the upstream close a kept connection just as it was used again? Then it has not read the request, as far as
    anybody can tell, and it is sent once more (as Go's net/http does, whatever the method). The sign: the connection
    was kept, it ended before a byte of an answer, and at once."""
    return attempt.reused and fault.code == UpstreamReset.code and attempt.ended - attempt.began < STALE_NS


def may_resend(call: Call, spec: Spec) -> bool:
    """A tool may do something each time it is asked, unless its operator says that it does not, or HTTP does (RFC 9110
    9.2.2). What calls no tool only asks."""
    return not call.asked.calls or call.request.method in IDEMPOTENT or (spec.tool is not None and spec.tool.resend)


def is_repeatable(call: Call, gw: Gateway) -> bool:
    """Can the call not be done twice by another attempt, or is no harm in it?"""
    spec = gw.specs[call.route.upstream]
    if len(call.attempts) == call.booked or not call.attempts[-1].sent:
        return True
    if call.websocket:
        return False
    if spec.tool is not None:
        return may_resend(call, spec)
    return bool(call.route.operation) or call.request.method in IDEMPOTENT


async def send(call: Call, spec: Spec, down: Downstream, gw: Gateway, *, fresh: bool = False) -> Exchange:
    body = spliced(call.request.body, call.edits) if call.edits else call.request.body
    question = ask(call, spec, body, gw)
    if question is None:
        head = request_head(call, spec, len(body), upgrade=call.websocket)
    else:
        body = question.body
        head = other_head(call, spec, question.path, question.headers, len(body))
    this = Attempt(spec.target, gw.monotonic(), model=call.model_sent or call.asked.model)
    if gw.waits is not None and spec.tool is None:
        this.waits = gw.waits(call)
    call.attempts = [*call.attempts, this]
    try:
        patience = partial(head_patience, call, spec) if spec.drain or call.fill is not None else None
        exchange = await gw.upstreams.open(this, head, body, down, patience=patience, fresh=fresh)
        if exchange.status == 101 and not call.websocket:
            exchange.close()
            raise BadAnswer("the upstream switched to a protocol that nobody asked for")
    except GatewayError as fault:
        this.fault = fault
        if down.gone and not isinstance(fault, ClientGone):
            raise ClientGone() from None  # it was waited for only to learn what it costs
        raise
    finally:
        this.ended = gw.monotonic()
    this.status = exchange.status
    call.upstream_first_byte = this.ended
    if gw.router is not None:
        gw.router.hear(call, exchange, gw)
    if spec.tool is not None:
        call.stated = exchange.names
        note_session(call, gw.links)
    return exchange if question is None else answered(call, question, exchange, gw)


def head_patience(call: Call, spec: Spec) -> float:
    """Seconds to wait for the head of an answer whose client has left: for others, or to learn what it costs."""
    if call.fill is not None and call.fill.followed:
        return math.inf
    return spec.drain_seconds if spec.drain else 0.0


def spliced(body: bytes, edits: tuple[Edit, ...]) -> bytes:
    """Apply edits (see `merged`); all other bytes stay as they are."""
    if len(edits) == 1:
        (edit,) = edits
        return b"".join((body[: edit.start], edit.text, body[edit.end :]))
    parts: list[bytes] = []
    at = 0
    for edit in merged(edits):
        parts += (body[at : edit.start], edit.text)
        at = edit.end
    parts.append(body[at:])
    return b"".join(parts)


async def without_injection(call: Call, spec: Spec, exchange: Exchange, down: Downstream, gw: Gateway) -> Exchange:
    """The upstream refused a call that we had changed: if it refused our change, learn that and send the original."""
    body = b""
    try:
        while len(body) <= ERROR_BODY_LIMIT and (piece := await exchange.read()):
            body += piece
        if not gw.dialects[call.route.dialect].rejects_injection(exchange.status, body):
            exchange.unread(body)
            return exchange
    except BaseException:
        exchange.close()
        raise
    exchange.close()
    gw.learned.refuses_injection.add(spec.name)
    call.asked.injected = False
    call.edits = call.edits[:-1]
    return await send(call, spec, down, gw)
