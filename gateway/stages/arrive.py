"""Arrive: what is asked, by whom. First, because every later stage decides on what is learned here."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, structs

from gateway.call import Asked, Call, Request, Route, Trace, Who
from gateway.errors import Forbidden, GatewayError, LoopDetected, Rejected
from gateway.policy.trace import trace_of
from gateway.policy.trace_ids import run_trace_id
from gateway.policy.web_page import is_foreign
from gateway.ports import Dialect, Gateway
from gateway.stages.authorize import authenticate, authorize, gate
from gateway.stages.translated import may_lead

UNROUTED = Route("other", "opaque", "", "", b"")
NOTHING = Asked()


def new_call(request: Request, gw: Gateway) -> Call:
    """A call of which nothing is known yet but that it is here. Never raises."""
    entropy = gw.random(34).hex()
    now = gw.now()
    trace = Trace(entropy[:32], entropy[32:48])
    if b"traceparent" in request.names:
        trace = trace_of(request.headers, trace.trace_id, trace.span_id)
    return Call(
        id=f"{now // 1_000_000:012x}{entropy[48:]}",
        request=request,
        route=UNROUTED,
        asked=NOTHING,
        who=Who(),
        trace=trace,
        started_at=now,
        began=gw.monotonic(),
        via=gw.instance,
    )


class Look(Struct, frozen=True, eq=False):
    """What the head of a call says, to this gateway. For equal heads it is found once (`Request.facts`)."""

    gw: Gateway
    route: Route
    dialect: Dialect
    websocket: bool
    coded: bool  # the body is compressed


def arrive(call: Call, gw: Gateway) -> None:
    """Route the call, read its body, find out who asks, and note it as in flight. Raises GatewayError."""
    look = look_at(call, gw)
    call.route = look.route
    authenticate(call, gw)
    call.websocket = look.websocket
    plain = readable(call)
    if call.asked is NOTHING:  # it is not long; see stages.unpack
        call.asked = look.dialect.read(look.route, plain)
    if gw.aliases and call.asked.model in gw.aliases:
        call.request = plain  # a compressed body cannot be spliced: it goes on as it was read
        apply_alias(call, gw)
    if call.asked.trace and not call.trace.parent_id:
        call.trace = trace_of(((b"traceparent", call.asked.trace),), call.trace.trace_id, call.trace.span_id)
    call.who, call.tools = gw.identity.identify(call)
    if gw.router is not None:
        gw.router.route(call, plain, gw)
    authorize(call, gw)
    if call.asked.gated:
        gate(call, gw)
    if call.who.run_id and not call.trace.parent_id:
        call.trace.trace_id = run_trace_id(call.who.run_id)  # so that the spans of a run hang together
    call.slot = gw.journal.begin(call)


def look_at(call: Call, gw: Gateway) -> Look:
    """The look of this head, or of an equal one before. Raises what `new_look` raises."""
    facts = call.request.facts
    look: Look | None = facts.get("look")
    if look is None or look.gw is not gw:
        look = facts["look"] = new_look(call, gw)
    return look


def new_look(call: Call, gw: Gateway) -> Look:
    """Raises BadPath, UnknownRoute, Forbidden, LoopDetected."""
    request = call.request
    names = request.names
    locate(call, gw)
    if b"origin" in names:
        admit_page(names[b"origin"], gw)
    if b"via" in names and any(gw.instance in value for name, value in request.headers if name.lower() == b"via"):
        raise LoopDetected("this call already passed this gateway: an upstream points back at it")
    websocket = names.get(b"upgrade", b"").lower() == b"websocket" and asks_to_upgrade(request)
    coded = b"content-encoding" in names and call.route.template != UNROUTED.template  # unknown: nobody's to read
    return Look(gw, call.route, gw.dialects[call.route.dialect], websocket, coded)


def admit_page(origin: bytes, gw: Gateway) -> None:
    """Raises Forbidden. Where a key is asked for, a page that has one was given it."""
    page = origin.decode("latin-1")
    if (gw.keys is None or not gw.keys.required) and is_foreign(page, gw.origins):
        raise Forbidden(
            f"the web page {page[:100]} may not use this gateway, which asks for no key; add it to allowed_origins",
            code="origin_not_allowed",
        )


def locate(call: Call, gw: Gateway) -> None:
    """Find its route; where there is none, at least the dialect to say so in. Raises BadPath or UnknownRoute."""
    request = call.request
    hint = family_of(request.names)
    try:
        call.route = gw.routes.resolve(request.method, request.path, hint)
    except GatewayError:
        call.route = gw.routes.unrouted(request.path, hint)
        raise


def family_of(names: Mapping[bytes, bytes]) -> str:
    """Which API family the headers speak, or "": `anthropic-version` or a key header of its own says so."""
    if b"anthropic-version" in names:
        return "anthropic"
    if b"x-goog-api-key" in names:
        return "gemini"
    return "anthropic" if b"x-api-key" in names and b"authorization" not in names else ""


def asks_to_upgrade(request: Request) -> bool:
    """RFC 6455 4.1: a GET whose Connection header lists `upgrade`; without that, Upgrade means nothing."""
    tokens = request.names.get(b"connection", b"").lower().split(b",")
    return request.method == b"GET" and any(token.strip() == b"upgrade" for token in tokens)


def readable(call: Call) -> Request:
    """The request with its body decoded, for reading only; what is sent stays as it came."""
    return call.plain if call.plain is not None else call.request


def apply_alias(call: Call, gw: Gateway) -> None:
    """The operator gave the model another name: send its real one, perhaps elsewhere (a minimal splice)."""
    model, upstream = gw.aliases[call.asked.model]
    if upstream and not may_lead(call, upstream, gw):
        raise Rejected(
            f"the alias {call.asked.model} leads to {upstream}, which cannot answer what this path asks",
            code="alias_speaks_another_api",
            param="model",
        )
    call.notes = {**call.notes, "alias": call.asked.model}
    route, edits = gw.dialects[call.route.dialect].rename(call.route, call.asked, model)
    call.edits = (*call.edits, *edits)
    call.model_sent = model
    call.route = structs.replace(route, upstream=upstream) if upstream else route
