"""Whose key a call came with, what that key allows, and that the secret stays here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from gateway.call import Call
from gateway.errors import Forbidden, GatewayError, Rejected, Unauthorized
from gateway.key import Key
from gateway.policy.forward import request_head
from gateway.policy.keys import Ring, digest_of
from gateway.stages.arrive import apply_alias, locate, new_call
from gateway.stages.authorize import authenticate, authorize, may_go
from gateway.testing.doubles import World, ask

CHAT = "/v1/chat/completions"
PEPPER = bytes(32)
SECRET = b"tg-0123abcd-" + b"S" * 43
BEARER = (b"Authorization", b"Bearer " + SECRET)
AUTH = ((b"authorization", b"Bearer upstream-key"),)
QUESTION = b'{"model":"gpt-4o","messages":[]}'


def ring(*more: Key, **fields: Any) -> Ring:
    found = Ring(PEPPER)
    key = Key(id="0123abcd", name="ci", team="core", digest=digest_of(SECRET, PEPPER))
    found.take([structs.replace(key, **fields), *more])
    return found


def passed(
    *headers: tuple[bytes, bytes],
    path: str = CHAT,
    body: bytes = QUESTION,
    keys: Ring | None = None,
    method: bytes = b"POST",
    facts: dict[str, Any] | None = None,
    world: World | None = None,
    **spec: Any,
) -> Call:
    """A call that went through both halves, as `arrive` calls them."""
    world = world or World(**{"auth": AUTH, **spec})
    world.settings["keys"] = keys if keys is not None else ring()
    gw = world.gateway()
    request = ask(path, body, *headers, method=method)
    if facts is not None:
        request.facts = facts
    call = new_call(request, gw)
    locate(call, gw)
    authenticate(call, gw)
    call.asked = gw.dialects[call.route.dialect].read(call.route, request)
    if call.asked.model in gw.aliases:
        apply_alias(call, gw)
    call.who, call.tools = gw.identity.identify(call)
    authorize(call, gw)
    return call


def refused(*headers: tuple[bytes, bytes], **more: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        passed(*headers, **more)
    return caught.value


@pytest.mark.parametrize(
    ("path", "header"),
    [
        (CHAT, BEARER),
        (CHAT, (b"api-key", SECRET)),
        ("/v1/messages", (b"x-api-key", SECRET)),
        ("/v1beta/models/gemini-2.5-flash:generateContent", (b"x-goog-api-key", SECRET)),
        (f"/v1beta/models/gemini-2.5-flash:generateContent?key={SECRET.decode()}&alt=sse", (b"X-Nothing", b"1")),
    ],
)
def test_the_owner_of_the_key_takes_the_place_of_what_the_client_says(path: str, header: tuple[bytes, bytes]) -> None:
    call = passed(header, path=path)
    assert (call.who.key_id, call.who.team, call.who.tenant) == ("0123abcd", "core", "core")
    assert call.key is not None
    assert call.key.name == "ci"


def test_a_key_of_no_team_leaves_the_tenant_as_it_is() -> None:
    call = passed(BEARER, keys=ring(team=""))
    assert (call.who.tenant, call.who.team, call.who.key_id) == ("default", "", "0123abcd")


def test_without_any_key_configured_everybody_may_call_as_before() -> None:
    for keys in (None, Ring(PEPPER)):
        world = World()
        world.settings["keys"] = keys
        gw = world.gateway()
        call = new_call(ask(CHAT, QUESTION, (b"Authorization", b"Bearer sk-own")), gw)
        locate(call, gw)
        authenticate(call, gw)
        authorize(call, gw)
        assert call.key is None
        assert call.who.key_id == ""


def test_a_key_of_ours_is_not_sent_on_even_where_none_is_needed() -> None:
    """The keys are gone, or it is another gateway's: passing it through would give it to the provider."""
    fault = refused(BEARER, keys=Ring(PEPPER))
    assert isinstance(fault, Unauthorized)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((b"Authorization", b""),),
        ((b"Authorization", b"Bearer"),),
        ((b"Authorization", b"Basic dXNlcjpwYXNz"),),
        ((b"Authorization", b"Bearer sk-proj-0123456789"),),
        ((b"Authorization", b"Bearer tg-"),),
        ((b"Authorization", b"Bearer tg-0123abcd-"),),
        ((b"Authorization", b"Bearer " + SECRET[:-1]),),
        ((b"Authorization", b"Bearer " + SECRET + b"x"),),
        ((b"Authorization", b"Bearer tg-zzzzzzzz-" + SECRET[12:]),),
        ((b"x-api-key", b"\xff\xfe"),),
    ],
)
def test_everything_that_is_no_secret_is_answered_alike(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    world = World()
    fault, nothing = refused(*headers), refused()
    answers = [world.dialects["openai_chat"].refusal(one, "r", stream=False) for one in (fault, nothing)]
    assert answers[0] == answers[1]
    assert answers[0].status == 401
    assert json.loads(answers[0].body)["error"]["code"] == "unauthorized"


def test_only_the_owner_learns_that_a_key_is_disabled_or_expired() -> None:
    for fields, code in (({"disabled_at": 5}, "key_disabled"), ({"expires_at": 5}, "key_expired")):
        fault = refused(BEARER, keys=ring(**fields))
        assert (fault.status, fault.code) == (401, code)
        wrong = (b"Authorization", b"Bearer " + SECRET[:-1] + b"x")
        assert refused(wrong, keys=ring(**fields)).code == "unauthorized"


def test_no_refusal_says_the_secret() -> None:
    cases: list[dict[str, Any]] = [
        {"keys": ring(disabled_at=5)},
        {"keys": ring(models=("x",))},
        {"keys": ring(operations=())},
        {"auth": ()},
        {"path": f"{CHAT}?token={SECRET.decode()}"},
    ]
    for case in cases:
        fault = refused(BEARER, **case)
        assert SECRET[12:].decode() not in fault.message
        assert SECRET[12:].decode() not in repr(fault)


# -- the secret stays here ------------------------------------------------------------------------------------------


def sent(call: Call, **spec: Any) -> bytes:
    world = World(**{"auth": AUTH, **spec})
    return request_head(call, world.specs[call.route.upstream], 5)


def test_the_key_of_the_upstream_takes_its_place() -> None:
    call = passed(BEARER, (b"x-api-key", SECRET), (b"Api-Key", b"other"), (b"X-Team", b"a"))
    head = sent(call)
    assert b"authorization: Bearer upstream-key\r\n" in head
    assert b"X-Team: a" in head
    assert SECRET not in head
    assert b"other" not in head


def test_a_key_in_the_query_is_taken_out() -> None:
    path = f"/v1beta/models/gemini-2.5-flash:generateContent?key={SECRET.decode()}&alt=sse"
    head = sent(passed(path=path))
    assert SECRET not in head
    assert b":generateContent?alt=sse HTTP/1.1" in head


def test_a_key_among_configured_headers_serves_too() -> None:
    own = {"auth": (), "headers": ((b"X-Api-Key", b"upstream-key"),)}
    head = sent(passed(BEARER, **own), **own)
    assert b"X-Api-Key: upstream-key" in head
    assert SECRET not in head, "although the upstream's key goes by another header"


def test_an_upstream_without_a_key_of_its_own_is_refused() -> None:
    fault = refused(BEARER, auth=())
    assert isinstance(fault, Forbidden)
    assert fault.code == "upstream_has_no_key"
    assert "upstreams.openai.key" in fault.message
    fault = refused(BEARER, auth=(), headers=((b"X-Org", b"1"),))
    assert fault.code == "upstream_has_no_key"


def test_wherever_else_a_call_may_go_is_asked_anew() -> None:
    call = passed(BEARER, keys=ring(upstreams=("openai",)))
    world = World(auth=AUTH)
    may_go(call, world.specs["openai"])
    with pytest.raises(Forbidden) as caught:
        may_go(call, world.specs["anthropic"])
    assert caught.value.code == "upstream_not_allowed"
    with pytest.raises(Forbidden):
        may_go(call, World().specs["openai"])
    may_go(new_call(ask(CHAT), world.gateway()), World().specs["openai"])


@pytest.mark.parametrize(
    ("path", "header"),
    [
        (f"{CHAT}?api_key={SECRET.decode()}", (b"X-Nothing", b"1")),
        (f"{CHAT}?%6bey={SECRET.decode()}", (b"X-Nothing", b"1")),
        (CHAT, (b"Cookie", b"session=" + SECRET)),
        (CHAT, (b"Sec-WebSocket-Protocol", b"realtime, openai-insecure-api-key." + SECRET)),
        (CHAT, (b"X-Custom", SECRET)),
    ],
)
def test_a_secret_that_stands_elsewhere_too_is_refused(path: str, header: tuple[bytes, bytes]) -> None:
    fault = refused(BEARER, header, path=path)
    assert isinstance(fault, Rejected)
    assert fault.code == "key_misplaced"


def test_equal_heads_are_searched_once_and_checked_each_time() -> None:
    facts: dict[str, Any] = {}
    keys = ring()
    assert passed(BEARER, keys=keys, facts=facts).key is not None
    assert facts["placed"]
    assert passed(BEARER, keys=keys, facts=facts).key is not None
    keys.take([])
    assert refused(BEARER, keys=keys, facts=facts).code == "unauthorized"


# -- rights ---------------------------------------------------------------------------------------------------------

TOOLS = b'{"model":"gpt-4o","messages":[],"tools":[%b]}'
READ = b'{"type":"function","function":{"name":"read_file"}}'
DELETE = b'{"type":"function","function":{"name":"delete_all"}}'


@pytest.mark.parametrize(
    ("fields", "more", "code"),
    [
        ({"models": ("claude-*",)}, {}, "model_not_allowed"),
        ({"models": ("gpt-*",)}, {"body": b'{"messages":[]}'}, "model_not_allowed"),
        ({"models": ()}, {}, "model_not_allowed"),
        ({"upstreams": ("anthropic",)}, {}, "upstream_not_allowed"),
        ({"operations": ("embeddings",)}, {}, "operation_not_allowed"),
        ({"tools": ("read_*",)}, {"body": TOOLS % (READ + b"," + DELETE)}, "tool_not_allowed"),
        ({"tools": ()}, {"body": TOOLS % READ}, "tool_not_allowed"),
        ({}, {"path": "/v1/files"}, "operation_not_allowed"),
        ({}, {"path": "/v1/messages/batches"}, "operation_not_allowed"),
        ({"models": ("gpt-*",)}, {"path": "/v1/files"}, "operation_not_allowed"),
    ],
)
def test_what_a_key_does_not_allow(fields: dict[str, Any], more: dict[str, Any], code: str) -> None:
    fault = refused(BEARER, keys=ring(**fields), **more)
    assert (fault.status, fault.code) == (403, code)


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({"models": ("gpt-*",), "upstreams": ("openai",), "operations": ("chat",)}, {}),
        ({"tools": ("read_*",)}, {"body": TOOLS % READ}),
        ({"tools": ("read_*",)}, {}),
        ({"models": ("gpt-*",)}, {"path": "/v1/models", "method": b"GET", "body": b""}),
        ({"models": ("gpt-*",)}, {"path": "/v1/responses/r1", "method": b"GET", "body": b""}),
        ({"operations": ("chat", "other")}, {"path": "/v1/files"}),
    ],
)
def test_what_a_key_allows(fields: dict[str, Any], more: dict[str, Any]) -> None:
    assert passed(BEARER, keys=ring(**fields), **more).key is not None


def test_the_tool_that_is_not_allowed_is_named() -> None:
    assert "delete_all" in refused(BEARER, keys=ring(tools=("read_*",)), body=TOOLS % DELETE).message


def test_tools_that_the_provider_runs_are_tools_too() -> None:
    tool = b'{"type":"web_search_20250305","name":"web_search"}'
    body = b'{"model":"claude-x","max_tokens":1,"messages":[],"tools":[%b]}' % tool
    fault = refused(BEARER, keys=ring(tools=("read_*",)), path="/v1/messages", body=body)
    assert fault.code == "tool_not_allowed"
    assert passed(BEARER, keys=ring(tools=("web_search*",)), path="/v1/messages", body=body).key is not None


def messages_body(**more: Any) -> bytes:
    return json.dumps({"model": "gpt-4o", "max_tokens": 1, "messages": [], **more}).encode()


ADVISOR = {"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-4-1"}


@pytest.mark.parametrize(
    "more",
    [
        {"models": ["gpt-4o", "gpt-5"]},
        {"fallbacks": ["gpt-5"]},
        {"fallbacks": [{"model": "gpt-4o-mini"}, {"model": "claude-opus-4-1", "max_tokens": 9}]},
        {"fallbacks": [{"gpt-4o": ["gpt-5"]}]},
        {"fallbacks": "default"},
        {"tools": [ADVISOR]},
        {"messages": [{"role": "user", "content": [
            {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": ADVISOR}}]}]},
    ],
)  # fmt: skip
def test_models_that_may_answer_in_its_place_must_be_allowed_too(more: dict[str, Any]) -> None:
    body = messages_body(**more)
    fault = refused(BEARER, keys=ring(models=("gpt-4o*",)), path="/v1/messages", body=body)
    assert (fault.status, fault.code) == (403, "model_not_allowed")
    assert passed(BEARER, keys=ring(), path="/v1/messages", body=body).key is not None


def test_models_that_may_answer_in_its_place_may_be_allowed() -> None:
    body = messages_body(models=["gpt-4o-mini"], fallbacks=[{"model": "gpt-4o-2024-08-06"}])
    assert passed(BEARER, keys=ring(models=("gpt-4o*",)), body=body).key is not None


SEARCH = {"type": "web_search_20250305", "name": "web_search"}


@pytest.mark.parametrize(
    ("path", "item"),
    [
        ("/v1/messages", {"role": "user", "content": [
            {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {"name": "delete_all"}}}]}),
        ("/v1/messages", {"role": "user", "content": [
            {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": SEARCH}}]}),
        ("/v1/responses", {"type": "additional_tools", "tools": [{"type": "function", "name": "delete_all"}]}),
    ],
)  # fmt: skip
def test_tools_declared_in_the_midst_of_messages_must_be_allowed(path: str, item: dict[str, Any]) -> None:
    name = "input" if path.endswith("responses") else "messages"
    for text in (messages_body(**{name: [item]}), messages_body(**{name: [item]}).replace(b"_tool", b"\\u005ftool")):
        fault = refused(BEARER, keys=ring(tools=("read_*",)), path=path, body=text)
        assert (fault.status, fault.code) == (403, "tool_not_allowed")
    assert passed(BEARER, keys=ring(), path=path, body=text).key is not None


def test_an_alias_is_allowed_by_its_name_or_by_what_it_stands_for() -> None:
    for models in (("fast",), ("gpt-4o-mini",)):
        world = World(auth=AUTH)
        world.settings["aliases"] = {"fast": ("gpt-4o-mini", "")}
        body = b'{"model":"fast","messages":[]}'
        assert passed(BEARER, keys=ring(models=models), body=body, world=world).model_sent == "gpt-4o-mini"
    world = World(auth=AUTH)
    world.settings["aliases"] = {"fast": ("gpt-4o-mini", "")}
    assert refused(BEARER, keys=ring(models=("gpt-4",)), body=b'{"model":"fast","messages":[]}', world=world)
