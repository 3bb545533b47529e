"""Route: what is chosen is sent, noted, and remembered for the run."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from typing import Any

from gateway.call import Attempt, Call
from gateway.config.schema_routing import CanaryTo, Route, RouteTo
from gateway.pipeline import serve
from gateway.policy.canary import State, canary_arm
from gateway.policy.headroom import Headroom
from gateway.policy.pace import Paces
from gateway.policy.routing_rules import Rules
from gateway.stages.arrive import arrive, new_call
from gateway.stages.attempt import spliced
from gateway.stages.close import close
from gateway.stages.route import Router
from gateway.stages.unpack import unpack
from gateway.testing.doubles import World, ask, at_once, drive

CHAT = "/v1/chat/completions"
BODY = b'{"model": "fast", "messages": []}'


def world(*rules: Route, trials: Mapping[str, State] | None = None, **settings: Any) -> World:
    made = World()
    made.settings = {"router": Router(Rules(rules), lambda: trials or {}, Paces()), **settings}
    return made


def arrived(made: World, body: bytes = BODY, *headers: tuple[bytes, bytes], run: str = "r1", step: int = 1) -> Call:
    settings = dict(made.settings)
    gw = made.gateway()
    made.settings = settings
    call = new_call(ask(f"/run/{run}{CHAT}", body, *headers), gw)
    identify = gw.identity.identify

    def stepped(call: Call) -> Any:
        who, tools = identify(call)
        who.step, who.run_id = step, run
        return who, tools

    made.identity.identify = stepped  # type: ignore[method-assign]
    try:
        at_once(unpack(call, made.down, gw))
        arrive(call, gw)
    finally:
        made.identity.identify = identify  # type: ignore[method-assign]
    return call


def test_the_model_is_spliced_and_the_rule_noted() -> None:
    call = arrived(world(Route(to=("real",), model="fast")))
    assert spliced(call.request.body, call.edits) == b'{"model": "real", "messages": []}'
    assert call.model_sent == "real"
    assert call.notes == {"route": "0", "route_why": "only", "route_to": "openai/real"}


def test_a_call_that_no_rule_is_about_passes_as_it_came() -> None:
    call = arrived(world(Route(to=("real",), model="other")))
    assert (call.edits, call.notes, call.model_sent) == ((), {}, "")


def test_a_rule_holds_for_what_an_alias_leads_to() -> None:
    call = arrived(world(Route(to=("best",), model="middle"), aliases={"fast": ("middle", "")}))
    assert spliced(call.request.body, call.edits) == b'{"model": "best", "messages": []}'
    assert call.notes["alias"] == "fast"


def test_a_compressed_request_is_sent_plain_only_where_it_is_changed() -> None:
    packed, coding = gzip.compress(BODY), (b"Content-Encoding", b"gzip")
    changed = arrived(world(Route(to=("real",))), packed, coding)
    assert spliced(changed.request.body, changed.edits) == b'{"model": "real", "messages": []}'
    same = arrived(world(Route(to=("fast",))), packed, coding)
    assert same.request.body == packed
    assert same.edits == ()


CLAUDE = RouteTo(model="claude", upstream="anthropic")
SEEDED = b'{"model": "fast", "seed": 7, "messages": [{"role": "user", "content": "hi"}]}'


def test_a_target_of_another_api_is_one_where_its_api_can_answer() -> None:
    call = arrived(world(Route(to=(CLAUDE,))))
    assert (call.route.upstream, call.model_sent) == ("anthropic", "claude")
    bare = arrived(world(Route(to=(RouteTo(upstream="anthropic"),))))
    assert (bare.route.upstream, bare.edits) == ("openai", ()), "what is asked for is no model of that API"
    made = world(Route(to=(CLAUDE,)))
    vectors = new_call(ask("/v1/embeddings", b'{"model": "fast", "input": "x"}'), made.gateway())
    arrive(vectors, made.gateway())
    assert vectors.route.upstream == "openai", "and that has no embeddings"


def test_what_an_api_cannot_say_goes_to_the_next_target_of_the_rule() -> None:
    made = world(Route(to=(CLAUDE, "b", RouteTo(model="gem", upstream="gemini"))))
    call = arrived(made, SEEDED)
    assert (call.route.upstream, call.model_sent) == ("openai", "b")
    assert [target.name for target in call.further] == ["gemini/gem"]
    packed = arrived(made, gzip.compress(SEEDED), (b"Content-Encoding", b"gzip"))
    assert packed.route.upstream == "openai"


def test_where_no_target_can_say_it_the_field_is_named() -> None:
    made = world(Route(to=(CLAUDE,)))
    drive(serve(ask(CHAT, SEEDED), made.down, made.gateway()))
    assert made.call.status == 400
    assert b"seed" in made.down.sent
    assert made.upstreams.sent == []


def test_a_compressed_request_is_read_for_another_api() -> None:
    body = SEEDED.replace(b' "seed": 7,', b"")
    made = world(Route(to=(RouteTo(model="fast", upstream="anthropic"),)))
    made.answer(200, ((b"Content-Type", b"application/json"),), [b"{}"])
    drive(serve(ask(CHAT, gzip.compress(body), (b"Content-Encoding", b"gzip")), made.down, made.gateway()))
    assert b"POST /v1/messages" in made.upstreams.sent[0]
    assert b'"hi"' in made.upstreams.sent[0]


def test_a_target_that_is_left_alone_is_passed_over_until_it_is_well() -> None:
    made = world(Route(to=("a", "b")), trials=None)
    assert arrived(made).model_sent == "a"
    made.controls.forced["openai/a"] = "open"
    call = arrived(made, step=2)
    assert (call.model_sent, call.notes["route_why"]) == ("b", "breaker")
    made.controls.forced.clear()
    back = arrived(made, step=3)
    assert (back.model_sent, back.notes["route_why"]) == ("a", "sticky")


def test_a_run_stays_while_it_is_warm() -> None:
    made = world(Route(to=("a", "b"), by="latency"))
    first = arrived(made)
    assert first.model_sent
    for step in (2, 3):
        later = arrived(made, step=step)
        assert (later.model_sent, later.notes["route_why"]) == (first.model_sent, "sticky")
    assert arrived(made, run="r2", step=2).notes["route_why"] == "latency"  # another run has no target yet


def test_the_pace_of_a_target_is_learned() -> None:
    made = world(Route(to=("a", "b"), by="latency", sticky=False))
    gw = made.gateway()
    call = new_call(ask(CHAT, BODY), gw)
    arrive(call, gw)
    slow = call.model_sent
    call.attempts = [Attempt(made.specs["openai"].target, began=0, ended=5_000_000_000, model=slow)]
    close(call, gw)
    again = new_call(ask(CHAT, BODY), gw)
    arrive(again, gw)
    assert again.model_sent != slow


def test_what_answers_say_of_rate_limits_is_heard_and_used() -> None:
    rooms = Headroom()
    rule = Route(to=("a", "b"), by="headroom", sticky=False)
    made = World(auth=((b"authorization", b"Bearer k"),))
    made.settings = {"router": Router(Rules([rule]), dict, Paces(), rooms)}
    kept = dict(made.settings)
    sent: list[str] = []
    for left in (b"500", b"400", b"100", b"300"):
        made.settings = dict(kept)
        limits = ((b"X-RateLimit-Remaining-Tokens", left), (b"X-RateLimit-Limit-Tokens", b"1000"))
        made.answer(200, ((b"Content-Type", b"application/json"), *limits), [b"{}"])
        drive(serve(ask(CHAT, BODY), made.down, made.gateway()))
        sent.append(made.journal.records[-1].model_sent)
    assert sent == ["a", "b", "a", "b"]  # unknown is full; then .5 against .4, and .1 against .4


def test_limits_of_a_clients_own_key_are_nobodys_business() -> None:
    rooms = Headroom()
    made = World()
    made.settings = {"router": Router(Rules([Route(to=("a", "b"), by="headroom")]), dict, Paces(), rooms)}
    made.answer(429, ((b"retry-after", b"9"),), [b"{}"])
    drive(serve(ask(CHAT, BODY), made.down, made.gateway()))
    assert rooms.room("openai/a", 0, made.call.started_at) == 1.0


def test_a_canary_is_noted_for_its_judge() -> None:
    made = world(Route(to=("base",), canary=CanaryTo(id="c", to="fresh", share=0.5)))
    for number in range(20):
        call = arrived(made, run=f"run-{number}")
        arm = canary_arm("c", f"run-{number}", 0.5)
        assert call.model_sent == ("fresh" if arm else "base")
        assert (call.notes["canary"], call.notes["canary_arm"]) == ("c", "canary" if arm else "rest")
    ended = world(Route(to=("base",), canary=CanaryTo(id="c", to="fresh", share=0.5)), trials={"c": State.ROLLED_BACK})
    assert {arrived(ended, run=f"run-{n}").model_sent for n in range(20)} == {"base"}
    assert "canary" not in arrived(ended).notes


def test_what_a_call_needs() -> None:
    rule = Route(to=(RouteTo(model="a", lacks=("tools", "json", "images")), "b"))
    for field in (
        b'"tools": [{"type": "function"}]',
        b'"response_format": {"type": "json_schema"}',
        b'"user": {"type":"image_url"}',
        b'"user": {"type":"input_image","file_id":"f"}',
    ):
        assert arrived(world(rule), BODY[:-1] + b", " + field + b"}").model_sent == "b"
    for field in (b'"response_format": {"type": "text"}', b'"tools": []', b'"tools": null'):
        assert arrived(world(rule), BODY[:-1] + b", " + field + b"}").model_sent == "a"
