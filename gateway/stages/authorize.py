"""Authorize: whose key a call came with, and what that key allows.

`authenticate` stands before the body is read: who has no key costs next to nothing. `authorize` stands behind the
aliases and the identity: only then it is known which model, upstream and tools are asked for.
"""

from __future__ import annotations

from msgspec import structs

from gateway.call import Asked, Bounds, Call
from gateway.errors import Forbidden, Rejected, Unauthorized
from gateway.key import ANY, Key
from gateway.policy.forward import CREDENTIALS, without_key
from gateway.policy.hosted_tools import hosted_tools
from gateway.policy.inline_tools import inline_tools
from gateway.policy.keys import SCHEME, UNKNOWN, may_ask, may_do, may_offer, may_use, permission, presented, usable
from gateway.policy.passes import models_beside
from gateway.policy.tool_rules import refused, sight
from gateway.policy.tool_sessions import check_session
from gateway.ports import Gateway, Spec
from gateway.tool import EXECUTE_TOOL

MODEL_LESS = frozenset(("models", "fetch_response", "count_tokens", EXECUTE_TOOL))


def authenticate(call: Call, gw: Gateway) -> None:
    """Find `call.key`. Raises Unauthorized, and Rejected where the secret would leave the gateway by another way."""
    keys, request = gw.keys, call.request
    secret = request.facts.get("presented")
    if secret is None:  # for equal heads this is found once
        secret = request.facts["presented"] = presented(request.names, request.path)
    if keys is None or not keys.required:
        if secret.startswith(SCHEME):  # of another gateway, or of this one before it lost its keys
            raise Unauthorized(UNKNOWN)
        return
    key = keys.find(secret)
    if key is not None:
        call.who.key_id, call.who.team = key.id, key.team  # for the record, should it be refused
    call.key = usable(key, call.started_at)
    if request.facts.get("placed") is None:
        check_placed(call, secret)
        request.facts["placed"] = True


def check_placed(call: Call, secret: bytes) -> None:
    """The secret must stand where it is taken out before the call is sent on, and nowhere else. Raises Rejected."""
    request = call.request
    if secret in without_key(request.path):
        raise Rejected("a key of this gateway stands in the URL; send it in a header", code="key_misplaced")
    for name, value in request.headers:
        if secret in value and name.lower() not in CREDENTIALS:
            text = name.decode("latin-1")[:100]
            raise Rejected(f"a key of this gateway stands in the header {text}, too", code="key_misplaced")


def authorize(call: Call, gw: Gateway) -> None:
    """Put the key's owner in the place of what the client says, and check its rights. Raises Forbidden."""
    key = call.key
    if key is None:
        return
    who, route = call.who, call.route
    who.key_id, who.team = key.id, key.team
    if key.team:
        who.tenant = key.team
    what = permission(route, call.request.method.decode("latin-1"))
    may_do(key, what, websocket=call.websocket)
    may_go(call, gw.specs.get(route.upstream))
    may_ask(key, (call.asked.model, call.model_sent), needed=what not in MODEL_LESS)
    if call.asked.gated or (ANY in key.tools and ANY in key.models):
        return
    may_declare(key, call.asked, gw.dialects[route.dialect].bounds(route, call.asked))
    if inline := inline_tools(call.asked.messages):
        asked = structs.replace(call.asked, tools=inline)
        may_declare(key, asked, gw.dialects[route.dialect].bounds(route, asked))


def may_declare(key: Key, asked: Asked, bounds: Bounds) -> None:
    """The models that may answer beside the one that is asked, and the tools. Raises Forbidden."""
    for model in (*models_beside(asked.fields), *hosted_tools(asked.tools, 0).models):
        may_ask(key, (model,), needed=True)
    may_offer(key, (*bounds.tools, *(kind for kind, _ in bounds.server_tools)))


def gate(call: Call, gw: Gateway) -> None:
    """A call of a tool behind this gate, or of a server of tools: may it call what it calls, and what may it see?
    Raises Forbidden, UnknownSession, BadBody."""
    asked, route = call.asked, call.route
    spec = gw.specs.get(route.upstream)
    if spec is None or spec.tool is None:
        return
    check_session(call, gw.links)
    if asked.calls:
        call.route = structs.replace(route, operation=EXECUTE_TOOL)
    for use in asked.calls:
        if reason := refused(spec.tool, call.key, spec.name, use.name):
            raise Forbidden(reason, code="tool_not_allowed", param=use.name[:200])
    call.sight = sight(spec.tool, call.key, spec.name)
    asked.plain = call.sight is not None


def may_go(call: Call, spec: Spec | None) -> None:
    """May this call go to this upstream? To be asked anew wherever another one is chosen. Raises Forbidden."""
    key = call.key
    if key is None or spec is None:
        return
    may_use(key, spec.name)
    if spec.tool is None and not spec.auth and not any(name.lower() in CREDENTIALS for name, _ in spec.headers):
        raise Forbidden(
            f"the upstream {spec.name} has no key of its own, and a key of this gateway is never sent on; "
            f"set `upstreams.{spec.name}.key` (any text where it needs none)",
            code="upstream_has_no_key",
        )
