"""Cheaper: change a call so that it costs less, by minimal splices: another model, less reasoning, a shorter answer. A
compressed body cannot be spliced: it goes on as it was read."""

from __future__ import annotations

from gateway.call import Call
from gateway.errors import Rejected
from gateway.policy.keys import uses
from gateway.policy.splices import merged
from gateway.ports import Gateway
from gateway.stages.arrive import readable
from gateway.stages.translated import may_lead


def note(call: Call, decision: str, **more: str) -> None:
    """What was decided about its budget, for record and metric; the last decision stands."""
    call.notes = {**call.notes, "budget": decision, **more}


def cap(call: Call, gw: Gateway, most: int) -> bool:
    """At most so many tokens of each answer. False where the request cannot say so."""
    call.request = readable(call)
    edits = gw.dialects[call.route.dialect].cap_output(call.route, call.asked, call.request.body, most, call.model_sent)
    if edits is None:
        return False
    if edits:
        call.edits = merged((*call.edits, *edits))
    return True


def cheaper(call: Call, gw: Gateway, model: str | None, effort: str | None, max_tokens: int | None) -> int | None:
    """Apply one step down. Returns the ceiling of the answer that is now in force, None where none was set."""
    if call.asked.calls:
        return None  # a tool has no model, effort or length
    call.request = readable(call)
    dialect = gw.dialects[call.route.dialect]
    if model is not None:
        rename(call, gw, model)
    if effort is not None:
        edits = dialect.lower_effort(call.route, call.asked, call.request.body, effort, call.model_sent)
        call.edits = merged((*call.edits, *edits))
    if max_tokens is not None and cap(call, gw, max_tokens):
        return max_tokens
    return None


def rename(call: Call, gw: Gateway, name: str) -> None:
    """Ask for another model, by its name or an alias; not where the call's key may not use the upstream it leads to.
    Raises Rejected where that cannot answer this path, not even in translation."""
    model, upstream = gw.aliases.get(name, (name, ""))
    if upstream and not may_lead(call, upstream, gw):
        raise Rejected(
            f"{name} leads to {upstream}, which cannot answer what this path asks", code="alias_speaks_another_api"
        )
    if upstream and call.key is not None and not uses(call.key, upstream):
        return
    if model != (call.model_sent or call.asked.model):
        retarget(call, gw, model, upstream)


def retarget(call: Call, gw: Gateway, model: str, upstream: str) -> None:
    """Send the call as one of this model to this upstream ("": where it was going), if it names its model at all."""
    route = call.route
    if model != (call.model_sent or call.asked.model):
        route, edits = gw.dialects[route.dialect].rename(route, call.asked, model)
        if not edits and route is call.route:
            return  # it names its model elsewhere: in messages that are still to come, for one
        call.request = readable(call)
        call.edits = merged((*call.edits, *edits)) if call.edits else edits
        call.model_sent = model
    call.route = route.at(upstream) if upstream and upstream != route.upstream else route
