"""What a provider's prompt cache did for a conversation, and what it would have done for a stable prefix.

`Provider` caches prefixes item by item, as providers do: what it reads hangs on nothing but the requests it has seen.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from gateway.call import Answer, Attempt, Call, Money, Request, Target, Trace, Usage, UsageSource, Who
from gateway.dialects.registry import DIALECTS
from gateway.errors import BadBody
from gateway.policy.prompt_cache import PromptCacheHealth
from gateway.policy.prompt_cache_chain import MESSAGES, State, place, state_of
from gateway.stores.local_table import LocalTable
from gateway.testing import cassettes
from gateway.testing.calls import ROUTES, MemoryLinks
from tests.bench.bodies import CodingAgent

START = 1_790_000_000 * 10**9
SECOND = 10**9
PATHS = {
    "anthropic": "/v1/messages",
    "openai_chat": "/v1/chat/completions",
    "openai_responses": "/v1/responses",
}
IN, READ, WRITE, HOUR = 3_000_000, 300_000, 3_750_000, 6_000_000  # pico-USD per token


class Linear:
    """`ports.Prices`: a rate for each kind of token."""

    version = "linear"

    def __init__(self, read: int = READ) -> None:
        self.read = read

    def price(self, provider: str, model: str, usage: Usage, at: float, context: Any = None) -> Money:
        if model == "unpriced":
            return Money(None, {}, "", "no_price")
        hour = int(usage.detail.get("cache_write_1h_tokens", 0))
        fresh = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
        write = usage.cache_write_tokens - hour
        return Money(fresh * IN + usage.cache_read_tokens * self.read + write * WRITE + hour * HOUR, {}, "", "priced")

    def knows(self, provider: str, model: str) -> bool:
        return True


class Provider:
    """A prompt cache of whole items. `marks`: it writes what it is given; else it caches by itself, in steps of 128."""

    def __init__(self, marks: bool) -> None:
        self.marks = marks
        self.known: set[str] = set()

    def usage(self, body: dict[str, Any]) -> Usage:
        prefix, total, read = json.dumps([body["model"], body.get("tool_choice"), body.get("thinking")]), 0, 0
        fresh = []
        items = [*body.get("tools", []), *_listed(body.get("system")), *(body.get("messages") or body.get("input"))]
        for item in items:
            prefix += json.dumps(item)
            total += len(json.dumps(item)) // 4
            fresh.append(prefix)
            if prefix in self.known:
                read = total
        self.known.update(fresh)
        if self.marks:
            return Usage(total + 3, 10, read, total - read)
        read = read // 128 * 128 if read >= 1024 else 0
        return Usage(total + 3, 10, read)

    def forget(self) -> None:
        self.known.clear()


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


ATTEMPT = Attempt(Target("up", "acme", "up", 443, True, b""), 0, status=200, sent=True)


def arrived(path: str, raw: bytes, now: int = START, number: int = 0) -> Call:
    request = Request(b"POST", path.encode(), [], raw)
    route = ROUTES.resolve(b"POST", path.encode(), "")
    asked = DIALECTS[route.dialect].read(route, request)
    return Call(f"call-{number}", request, route, asked, Who(), Trace(), now, began=1, attempts=[ATTEMPT])


class Talk:
    """One client with its provider behind the gateway."""

    def __init__(self, dialect: str = "anthropic", *, prices: Linear | None = None, links: Any = None, run: str = "r"):
        self.dialect, self.run = dialect, run
        self.links = links if links is not None else MemoryLinks()
        self.provider = Provider(dialect == "anthropic")
        self.health = PromptCacheHealth(self.links, prices or Linear(), {"anthropic"})
        self.now = START
        self.number = 0

    def call(self, body: dict[str, Any], *, usage: Usage | None = None, after: float = 5, took: float = 1, **more: Any):
        self.now += int(after * SECOND)
        self.number += 1
        call = arrived(PATHS[self.dialect], json.dumps(body).encode(), self.now, self.number)
        call.who = Who(run_id=self.run, agent="coder")
        call.upstream_first_byte = call.ended = call.began + int(took * SECOND)
        call.answer = Answer(
            model=body["model"], usage=usage or self.provider.usage(body), usage_source=UsageSource.PROVIDER
        )
        for name, value in more.items():
            setattr(call, name, value)
        self.health.learn(call)
        return call.prompt_cache


def text(seed: object, size: int = 1500) -> str:
    return (f"{seed} " * size)[:size]


def body(turns: int = 1, **more: Any) -> dict[str, Any]:
    """Tools, system blocks and messages of an agent that has taken so many turns."""
    messages = [{"role": "user", "content": text("task", 6000)}]
    for turn in range(1, turns):
        messages.append({"role": "assistant", "content": [{"type": "text", "text": text(f"answer {turn}", 700)}]})
        messages.append({"role": "user", "content": [{"type": "text", "text": text(f"result {turn}", 900)}]})
    return {
        "model": "m",
        "max_tokens": 100,
        "tools": [{"name": f"t{n}", "description": text(n, 800), "input_schema": {}} for n in range(5)],
        "system": [{"type": "text", "text": text(f"system {n}", 2000)} for n in range(3)],
        "messages": messages,
        **more,
    }


def chat(turns: int = 1, system: str = "be brief", **more: Any) -> dict[str, Any]:
    plain = body(turns)
    head = [{"role": "system", "content": text(system, 4000)}]
    return {"model": "m", "tools": plain["tools"], "messages": [*head, *plain["messages"]], **more}


# -- stable conversations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dialect", "make"), [("anthropic", body), ("openai_chat", chat)])
def test_a_conversation_that_only_grows_reads_all_it_could(dialect, make):
    talk = Talk(dialect)
    assert talk.call(make(1)) is None  # the first call can hit nothing
    for turns in range(2, 40):
        health = talk.call(make(turns))
        assert health.readable >= 1024
        assert health.read > health.readable - 128
        assert (health.lost_tokens, health.lost, health.cause, health.part, health.hint) == (0, 0, "", "", "")


def test_short_prompts_are_nobodys_to_cache():
    talk = Talk()
    for turns in (1, 2, 3):
        assert talk.call({"model": "m", "messages": [{"role": "user", "content": "hi"}] * turns}) is None
    assert talk.links.values == {}


def test_marks_move_along_and_change_nothing():
    talk = Talk()

    def marked(turns):
        made = body(turns)
        made["messages"][-1] = copy.deepcopy(made["messages"][-1])
        last = made["messages"][-1]
        if isinstance(last["content"], str):
            last["content"] = [{"type": "text", "text": last["content"]}]
        last["content"][-1]["cache_control"] = {"type": "ephemeral"}
        return made

    for turns in range(1, 9):
        usage = Usage(10_000 + 500 * turns, 10, 9_500 + 500 * (turns - 1), 500)
        talk.call(marked(turns), usage=usage)
    talk.call(marked(9), usage=Usage(15_000, 10, 0, 15_000))
    health = talk.call(marked(10), usage=Usage(15_500, 10, 0, 15_500))
    assert (health.cause, health.part) == ("provider", "")  # nothing parted, though every mark has moved


# -- one thing changed --------------------------------------------------------------------------------------------


def changed(made: dict[str, Any], part: str, index: int) -> None:
    """One item, at its place."""
    target = {"tool": made["tools"], "system": made.get("system"), "message": made["messages"]}[part]
    target[index] = copy.deepcopy(target[index])
    key = {"tool": "description", "system": "text", "message": "content"}[part]
    value = target[index][key]
    target[index][key] = "now! " + value if isinstance(value, str) else [{"type": "text", "text": "now!"}, *value]


@pytest.mark.parametrize(
    ("part", "index", "said"),
    [("tool", 0, "tool definition 0"), ("tool", 4, "tool definition 4"), ("system", 2, "system block 2"),
     ("message", 0, "message 0"), ("message", 3, "message 3"), ("message", 6, "message 6")],
)  # fmt: skip
def test_what_changed_first_is_named(part, index, said):
    talk = Talk()
    talk.call(body(3))
    first = talk.call(body(4))
    made = body(5)
    changed(made, part, index)
    health = talk.call(made)
    assert (health.part, health.index, health.cause, health.hint) == (part, index, "changed", f"{said} changed")
    assert health.readable == first.input - 3
    assert health.lost_tokens == health.readable - health.read
    assert health.lost == health.lost_tokens * (WRITE - READ)


def test_what_changes_on_every_call_is_told_so():
    talk = Talk()
    hints = []
    for turns in range(1, 5):
        made = body(turns)
        made["system"][2] = {"type": "text", "text": f"It is {turns} o'clock. {text('clock')}"}
        health = talk.call(made)
        hints.append(health.hint if health else None)
    assert hints == [None, "system block 2 changed", *["system block 2 changes on every call"] * 2]


def test_the_system_prompt_of_a_chat_is_one_of_its_messages():
    talk = Talk("openai_chat")
    talk.call(chat(2))
    health = talk.call(chat(3, system="it is noon"))
    assert (health.part, health.index, health.cause) == ("system", 0, "changed")
    assert health.lost == health.lost_tokens * (IN - READ)  # nothing is written there: it was billed afresh


def test_tools_in_another_order():
    talk = Talk()
    talk.call(body(2))
    made = body(3)
    made["tools"][1:4] = reversed(made["tools"][1:4])
    health = talk.call(made)
    assert (health.part, health.index, health.cause) == ("tool", 1, "reordered")
    assert health.hint == "tool definition 1 was put in another order"


def test_tools_added_and_taken_away():
    talk = Talk()
    talk.call(body(2))
    made = body(3)
    made["tools"].insert(2, {"name": "more", "input_schema": {}})
    health = talk.call(made)
    assert (health.part, health.index, health.cause) == ("tool", 2, "inserted")
    made["tools"].append({"name": "last", "input_schema": {}})
    health = talk.call({**made, "messages": body(4)["messages"]})
    assert (health.part, health.index, health.cause) == ("tool", 6, "inserted")
    health = talk.call({**made, "tools": made["tools"][:3], "messages": body(5)["messages"]})
    assert (health.part, health.index, health.cause) == ("tool", 3, "shortened")


def test_messages_left_out_and_put_in():
    talk = Talk()
    talk.call(body(6))
    made = body(7)
    del made["messages"][3:5]
    health = talk.call(made)
    assert (health.part, health.index, health.cause) == ("message", 3, "shortened")
    made["messages"].insert(2, {"role": "user", "content": text("reminder")})
    health = talk.call(made)
    assert (health.part, health.index, health.cause) == ("message", 2, "inserted")


def test_a_window_that_slides_over_the_messages_is_seen():
    talk = Talk()
    talk.call(body(6))
    for turns in (7, 8, 9):
        made = body(turns)
        made["messages"] = made["messages"][2 * (turns - 6) :]
        health = talk.call(made)
        assert (health.part, health.index, health.cause) == ("message", 0, "shortened")
    assert health.hint == "message 0 is dropped on every call"


def test_an_opening_message_that_changes_is_seen():
    talk = Talk()
    for turns in range(2, 6):
        made = body(turns)
        made["messages"][0] = {"role": "user", "content": f"{turns} o'clock " + text("task", 6000)}
        health = talk.call(made)
    assert (health.part, health.index, health.hint) == ("message", 0, "message 0 changes on every call")


@pytest.mark.parametrize(
    ("more", "part", "said"),
    [({"model": "other"}, "model", "the model or its upstream changed"),
     ({"tool_choice": {"type": "any"}}, "tool_choice", "tool_choice changed"),
     ({"thinking": {"type": "adaptive"}}, "thinking", "the reasoning asked for changed")],
)  # fmt: skip
def test_fields_that_cost_the_cache(more, part, said):
    talk = Talk()
    talk.call(body(2))
    health = talk.call(body(3, **more))
    assert (health.part, health.index, health.cause, health.hint) == (part, -1, part, said)


def test_a_field_that_changes_without_a_loss_is_no_finding():
    talk = Talk()
    talk.call(body(2))
    health = talk.call(body(3, tool_choice={"type": "any"}), usage=Usage(20_000, 10, 19_000, 900))
    assert (health.part, health.lost) == ("", 0)


def test_a_change_behind_all_that_was_cached_is_not_blamed():
    """Only the tools are marked; the messages may change as they like."""
    talk = Talk()
    usage = Usage(9000, 10, 0, 1100)
    talk.call(body(4), usage=usage)
    made = body(5)
    changed(made, "message", 5)
    health = talk.call(made, usage=Usage(9500, 10, 0, 1100))
    assert (health.cause, health.part, health.readable) == ("provider", "", 1100)


# -- time ---------------------------------------------------------------------------------------------------------


def test_five_minutes_are_the_time_to_live():
    talk = Talk()
    talk.call(body(2))
    assert talk.call(body(3), after=299).cause == ""
    talk.provider.forget()
    health = talk.call(body(4), after=302)
    assert (health.cause, health.part, health.read) == ("ttl", "", 0)
    assert health.hint == "301 s passed since the call before; what is cached is kept for 300 s"
    assert health.lost == health.readable * (WRITE - READ)


def test_what_is_written_for_an_hour_lives_an_hour_and_is_dearer():
    talk = Talk()
    hour = Usage(9000, 10, 0, 8000, detail={"cache_write_1h_tokens": 8000.0})
    talk.call(body(2), usage=hour)
    assert talk.call(body(3), usage=Usage(9400, 10, 8000), after=3000).cause == ""
    health = talk.call(body(4), usage=hour, after=3000)
    assert health.cause == "provider"  # still within the hour that the reading renewed
    assert health.lost == 8000 * (HOUR - READ)
    assert talk.call(body(5), usage=hour, after=3700).cause == "ttl"


def test_a_prefix_that_changed_while_time_ran_out_would_not_have_been_read_either():
    talk = Talk()
    talk.call(body(3))
    made = body(4)
    changed(made, "system", 0)
    talk.provider.forget()
    health = talk.call(made, after=1000)
    assert (health.cause, health.part) == ("ttl", "")
    made = body(5)
    changed(made, "system", 0)
    assert talk.call(made).cause == ""  # and is what the next is held against


def test_what_the_provider_lost_is_told_as_such():
    talk = Talk()
    talk.call(body(2))
    talk.provider.forget()
    health = talk.call(body(3))
    assert (health.cause, health.part) == ("provider", "")
    assert health.lost == health.lost_tokens * (WRITE - READ)


def test_calls_that_overlap_cannot_read_from_one_another():
    talk = Talk()
    talk.call(body(2), took=60)
    assert talk.call(body(3), usage=Usage(9000, 10, 0, 9000), after=5) is None


# -- no fact, no finding ------------------------------------------------------------------------------------------


def test_estimated_usage_says_nothing():
    talk = Talk()
    talk.call(body(2))
    answer = Answer(model="m", usage=Usage(9000, 10), usage_source=UsageSource.ESTIMATED)
    assert talk.call(body(3), answer=answer) is None
    assert talk.call(body(4)).cause == ""


def test_an_answer_that_was_not_asked_of_the_provider_says_nothing():
    talk = Talk()
    talk.call(body(2))
    before = dict(talk.links.values)
    assert talk.call(body(3), attempts=[]) is None
    assert talk.links.values == before


def test_without_a_cheaper_read_nothing_is_lost():
    talk = Talk("openai_chat", prices=Linear(read=IN))
    talk.call(chat(2))
    talk.provider.forget()
    assert talk.call(chat(3)) is None


def test_an_unknown_price_is_never_zero():
    talk = Talk()
    talk.call(body(2, model="unpriced"))
    made = body(3, model="unpriced")
    changed(made, "tool", 1)
    health = talk.call(made)
    assert (health.lost, health.cause) == (None, "changed")
    assert health.lost_tokens > 0


def test_a_conversation_without_marks_is_told_what_they_would_save():
    talk = Talk()
    talk.call(body(2), usage=Usage(5000, 10))
    health = talk.call(body(3), usage=Usage(5400, 10))
    assert (health.cause, health.part, health.lost_tokens) == ("unmarked", "", 5000)
    assert health.lost == 5400 * IN - (5000 * READ + 400 * WRITE)
    assert "no cache_control" in health.hint
    made = body(4)
    made["tools"][0]["cache_control"] = {"type": "ephemeral"}
    assert talk.call(made, usage=Usage(5800, 10)) is None  # marked, but too little for this model
    assert talk.call(body(5), usage=Usage(6000, 10), notes={"cache_marks": "3"}) is None


def test_conversations_of_one_agent_are_kept_apart():
    talk = Talk()
    title = {"model": "small", "messages": [{"role": "user", "content": text("title", 5000)}]}
    for turns in range(1, 6):
        assert getattr(talk.call(body(turns)), "cause", "") == ""
        assert getattr(talk.call(title), "cause", "") == ""


def test_state_of_another_version_is_none():
    assert state_of(b"") is None
    assert state_of(b"\xff" * 60) is None
    assert state_of(State(at=7, messages=3, chain=b"abcdef").pack()) == State(at=7, messages=3, chain=b"abcdef")


@pytest.mark.parametrize("lost", [b"H", b"B", b"T"])
def test_what_was_forgotten_is_no_finding(lost):
    talk = Talk()
    talk.call(body(3))
    for key in [key for key in talk.links.values if key[11:12] == lost]:
        del talk.links.values[key]
    health = talk.call(body(4))
    assert health is None or health.cause == ""


# -- invariants ---------------------------------------------------------------------------------------------------


@st.composite
def talks(draw):
    """A dialect, and the numbers of turns of its calls, growing."""
    steps = draw(st.lists(st.integers(1, 30), min_size=2, max_size=8))
    turns = [sum(steps[:n]) for n in range(1, len(steps) + 1)]
    return draw(st.sampled_from(["anthropic", "openai_chat"])), turns


@settings(max_examples=60, deadline=None)
@given(talks(), st.booleans())
def test_a_stable_growing_conversation_never_churns(talk_turns, lossy):
    """Whatever the provider loses: no change is ever seen where there was none."""
    dialect, turns = talk_turns
    talk = Talk(dialect)
    for number, count in enumerate(turns):
        if lossy and number % 2:
            talk.provider.forget()
        health = talk.call((body if dialect == "anthropic" else chat)(count))
        if health is not None:
            assert health.part == ""
            assert health.cause in ("", "provider")


STEPS = st.tuples(
    st.integers(-1, 3),  # further turns
    st.sampled_from([5.0, 5.0, 5.0, 0.0, -2.0, 400.0]),  # seconds since the call before
    st.sampled_from(["", "", "", "", "forgets", "thinks", "another prompt", "an hour"]),
)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(["anthropic", "openai_chat"]), st.lists(STEPS, min_size=2, max_size=12))
def test_the_short_way_of_ordinary_calls_comes_to_the_same(dialect, steps):
    short, long = Talk(dialect), Talk(dialect)
    long.health._gone_on = lambda value, call, usage: None
    make, turns = (body if dialect == "anthropic" else chat), 1
    for more, after, event in steps:
        turns = max(1, turns + more)
        made = make(turns, **({"thinking": {"type": "enabled"}} if event == "thinks" else {}))
        if event == "another prompt":
            made["tools"] = made["tools"][1:]
        for talk in (short, long):
            if event == "forgets":
                talk.provider.forget()
        usage = short.provider.usage(made)
        if event == "an hour":
            usage = structs.replace(usage, detail={"cache_write_1h_tokens": 10})
        assert short.call(made, usage=usage, after=after) == long.call(made, usage=usage, after=after)
        assert short.links.values == long.links.values


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_one_changed_block_is_found_at_its_place(data):
    turns = data.draw(st.integers(2, 60))
    grown = turns + data.draw(st.integers(0, 3))
    part = data.draw(st.sampled_from(["tool", "system", "message"]))
    index = data.draw(st.integers(0, {"tool": 4, "system": 2, "message": 2 * turns - 2}[part]))
    talk = Talk()
    for count in sorted(data.draw(st.sets(st.integers(1, turns), max_size=3)) | {turns}):
        talk.call(body(count))
    made = body(grown)
    changed(made, part, index)
    health = talk.call(made)
    assert (health.part, health.index, health.cause) == (part, index, "changed")


def test_messages_are_found_far_behind_and_the_end_of_the_chain_is_quiet():
    talk = Talk(links=LocalTable(10_000))
    talk.call(body(150))
    talk.call(body(200))
    made = body(201)
    changed(made, "message", 391)
    assert talk.call(made).index == 391
    made = body(330)
    talk.call(made)
    made = body(331)
    changed(made, "message", MESSAGES + 50)
    health = talk.call(made)
    assert (health.part, health.cause) == ("", "provider")  # beyond what is remembered: not told rather than wrong


@given(st.lists(st.integers(0, 9), max_size=12), st.lists(st.integers(0, 9), max_size=12), st.booleans())
def test_two_lists_part_at_the_first_difference(old, new, growing):
    found = place(old, new, growing=growing)
    same = new[: len(old)] == old if growing else new == old
    assert (found is None) == same
    if found is not None:
        at = found[0]
        assert old[:at] == new[:at]
        assert at == min(len(old), len(new)) or old[at] != new[at]


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("messages", [b'"x"', b'[1,null,"a"]', b"[]", b"[[]]", b'{"role":[]}'])
def test_nothing_raises_on_the_odd_bodies_that_pass_a_dialect(dialect, messages):
    field = b"input" if dialect == "openai_responses" else b"messages"
    raw = b'{"model":"m","%b":%b,"tools":7,"system":{},"tool_choice":[]}' % (field, messages)
    talk = Talk(dialect)
    for number in range(2):
        call = arrived(PATHS[dialect], raw, START + number * 400 * SECOND)
        call.who = Who(run_id="r")
        call.answer = Answer(model="m", usage=Usage(5000, 1), usage_source=UsageSource.PROVIDER)
        talk.health.learn(call)


# -- recorded and lifelike traffic --------------------------------------------------------------------------------

CASSETTES = Path(__file__).parents[2] / "golden" / "cassettes"
WROTE, READ_IT = "messages-json-200-b738719de4.json", "messages-json-200-8fda01f9c5.json"  # one question, sent twice


def recorded(talk: Talk, name: str, *, after: float = 60, edit: tuple[bytes, bytes] = (b"", b"")):
    """A recorded exchange with its provider's own usage, read by the real meter; `edit` changes its request."""
    exchange = cassettes.load(CASSETTES / "anthropic" / name)
    talk.now += int(after * SECOND)
    call = arrived("/v1/messages", exchange.request_body.replace(*edit) if edit[0] else exchange.request_body, talk.now)
    call.who = Who(run_id="recorded")
    call.upstream_first_byte = call.began + SECOND
    meter = DIALECTS[call.route.dialect].meter(call.route, call.asked, exchange.status, b"application/json")
    meter.feed(exchange.body)
    call.answer = meter.end()
    call.answer.usage_source = UsageSource.PROVIDER
    talk.health.learn(call)
    return call.prompt_cache


def test_a_recorded_question_asked_twice_was_read_from_the_cache():
    talk = Talk()
    assert recorded(talk, WROTE) is None
    health = recorded(talk, READ_IT)
    assert (health.readable, health.read, health.lost, health.cause) == (1733, 1733, 0, "")


def test_recorded_misses_are_told_apart():
    talk = Talk()
    recorded(talk, READ_IT)
    health = recorded(talk, WROTE)  # the provider wrote the same 1733 tokens again
    assert (health.cause, health.lost) == ("provider", 1733 * (WRITE - READ))
    assert recorded(talk, WROTE, after=400).cause == "ttl"
    health = recorded(talk, WROTE, edit=(b"You are an AI assistant", b"It is noon. You are an AI assistant"))
    assert (health.cause, health.part, health.index) == ("changed", "system", 0)


def test_every_recorded_exchange_can_be_asked_again():
    """All dialects and shapes of bodies that were recorded: the same request again never parts from itself."""
    seen = 0
    for path in sorted(CASSETTES.glob("*/*.json")):
        exchange = cassettes.load(path)
        for dialect, target in PATHS.items():
            if exchange.target.partition("?")[0].endswith(target.removeprefix("/v1")):
                try:
                    calls = [arrived(target, exchange.request_body, START + n * 10 * SECOND, n) for n in range(2)]
                except BadBody:
                    continue
                talk = Talk(dialect)
                for call in calls:
                    call.who = Who(run_id=path.name)
                    usage = Usage(9000, 9, 0, 8000 if dialect == "anthropic" else 0)
                    call.answer = Answer(model="m", usage=usage, usage_source=UsageSource.PROVIDER)
                    talk.health.learn(call)
                health = calls[1].prompt_cache
                if health is not None:
                    seen += 1
                    assert (health.cause, health.part) == ("provider", ""), path.name
    assert seen > 140


def test_a_session_of_a_coding_agent():
    """60 tools, hundreds of messages, its marks on the last two turns: it grows, is compacted, and loses a tool."""
    whole = CodingAgent().body()
    talk = Talk()

    def at(count: int, **more: Any) -> dict[str, Any]:
        messages = copy.deepcopy(whole["messages"][:count])
        for message in [message for message in messages if message["role"] == "user"][-2:]:
            message["content"][-1]["cache_control"] = {"type": "ephemeral"}
        return {**whole, "messages": messages, **more}

    def ask(made: dict[str, Any]):
        return talk.call(made, usage=talk.provider.usage(without_marks(made)))

    count = len(whole["messages"]) - 1  # the last message is another one than the next call would show
    healths = [ask(at(n)) for n in range(1, count, 2)]
    assert healths[0] is None
    assert {(health.cause, health.lost) for health in healths[1:]} == {("", 0)}
    health = ask(at(count, tools=whole["tools"][:40] + whole["tools"][41:]))
    assert (health.part, health.index, health.cause) == ("tool", 40, "shortened")
    ask(at(count))
    summary = [{"role": "user", "content": "What happened so far: " + text("summary", 6000)}]
    kept = at(count)["messages"][-5:]
    health = ask({**whole, "messages": summary + kept})
    assert (health.part, health.index) == ("message", 0)


def without_marks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_marks(item) for key, item in value.items() if key != "cache_control"}
    return [without_marks(item) for item in value] if isinstance(value, list) else value
