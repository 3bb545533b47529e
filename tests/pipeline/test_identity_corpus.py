"""Runs and steps over a scripted corpus: parallel conversations of every kind of client, several workers, one table.

Truth comes from the scripts; what is measured is every pair of calls: were two calls of one run put into one run
(recall), and do two calls of one found run truly belong together (precision)?
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gateway.call import Call
from gateway.config.schema import Identity
from gateway.dialects.items import read_item
from gateway.policy.identity import Resolver
from gateway.stores.shared_table import SharedTable
from gateway.testing import wire
from gateway.testing.calls import arrive, settle
from gateway.testing.wire import Client, Form, Model, Reply, Sent, Turn

SECOND = 10**9
START = 1_790_000_000 * SECOND
WORKERS = 3
ROUNDS = 3
CHAT = "/v1/chat/completions"
HELPFUL = "You are a careful research assistant. Use tools where they help."
OPENAI, ANTHROPIC_UA = "AsyncOpenAI/Python 3.54.0", "Anthropic/Python 2.12.0"


def prompts(random: Random | None = None) -> Iterator[str]:
    """What a user types; without randomness everybody types the same."""
    for n in count():
        yield f"Please look into topic {random.randrange(10**9) if random else n} for me."


@dataclass
class Script:
    """One kind of client: `make` gives the conversations that run in parallel, each with its model."""

    name: str
    make: Callable[[Random], list[tuple[Client, Model]]]
    failures: float = 0.0


@dataclass
class Tally:
    """Truth against findings."""

    calls: list[tuple[str, str]] = field(default_factory=list)  # (true run, found run)
    wrong_steps: Counter[str] = field(default_factory=Counter)
    sources: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    agents: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    results: int = 0  # sent for the first time
    paired: int = 0
    mistaken: int = 0

    def figures(self) -> tuple[float, float]:
        """(precision, recall) over pairs of calls."""

        def pairs(groups: Counter[Any]) -> int:
            return sum(n * (n - 1) // 2 for n in groups.values())

        both = pairs(Counter(self.calls))
        true, found = pairs(Counter(run for run, _ in self.calls)), pairs(Counter(run for _, run in self.calls))
        return both / max(found, 1), both / max(true, 1)


class World:
    """Clients, workers and time. Calls overlap: each is identified when it arrives and learned when it is answered."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.random = Random(seed)
        ids = count()
        self.tables = [SharedTable(directory / "links", 262_144) for _ in range(WORKERS)]
        self.workers = [
            Resolver(Identity(), table, lambda: f"run-{next(ids)}", b"secret", read_item) for table in self.tables
        ]
        self.tally = Tally()
        self.numbers = count()
        self.steps: Counter[tuple[str, str]] = Counter()

    def play(self, conversations: list[tuple[Script, tuple[Client, Model]]], start: int) -> None:
        events: list[tuple[int, int, Callable[[int], None]]] = []
        order = count()

        def at(when: int, what: Callable[[int], None]) -> None:
            heapq.heappush(events, (when, next(order), what))

        def ask(script: Script, client: Client, model: Model) -> Callable[[int], None]:
            def run(now: int) -> None:
                worker = self.random.choice(self.workers)
                sent = client.ask()
                call = arrive(sent, now, next(self.numbers))
                call.who, call.tools = worker.identify(call)
                self.note(script, sent, call)
                took = self.random.randrange(SECOND // 10, 5 * SECOND)
                fails = self.random.random() < script.failures
                reply = Reply(status=self.random.choice((429, 500, 503))) if fails else model.answer()

                def done(then: int) -> None:
                    settle(call, reply, took)
                    worker.learn(call)
                    client.hear(reply)
                    if client.left > 0:
                        at(then + self.random.randrange(SECOND // 100, 3 * SECOND), ask(script, client, model))

                at(now + took, done)

            return run

        for script, (client, model) in conversations:
            at(start + self.random.randrange(20 * SECOND), ask(script, client, model))
        while events:
            when, _, what = heapq.heappop(events)
            what(when)

    def note(self, script: Script, sent: Sent, call: Call) -> None:
        tally, truth = self.tally, sent.truth
        tally.calls.append((truth.run, call.who.run_id))
        self.steps[truth.run, truth.thread] += not truth.again
        tally.wrong_steps[script.name] += call.who.step != self.steps[truth.run, truth.thread]
        tally.sources[script.name][call.who.run_source] += 1
        tally.agents[truth.run, truth.thread].add(call.who.agent)
        expected = Counter(use.name for use in sent.results)
        paired = Counter(tool.name for tool in call.tools)
        tally.results += expected.total()
        tally.paired += (expected & paired).total()
        tally.mistaken += (paired - expected).total()


# -- the clients


def parallel(
    form: Form,
    ids: Callable[[Random, int], str],
    user_agent: str,
    *,
    runs: int = 12,
    same_prompts: bool = False,
    model: type[Model] = Model,
    **options: Any,
) -> Callable[[Random], list[tuple[Client, Model]]]:
    """Equal clients side by side that say nothing about themselves."""

    def make(random: Random) -> list[tuple[Client, Model]]:
        made = []
        for n in range(runs):
            asked = prompts(None if same_prompts else random)
            headers = wire.bearer("sk-one", user_agent)
            run = f"{form.path}{random.random()}{n}"
            client = Client(
                form, headers, random, run=run, calls=random.randrange(3, 9), system=HELPFUL, prompts=asked, **options
            )
            made.append((client, model(random, ids)))
        return made

    return make


def stating(
    form: Form,
    more: Callable[[str], list[tuple[str, str]]],
    extra: Callable[[str], dict[str, Any]] = lambda run: {},
    prefix: str = "",
) -> Callable[[Random], list[tuple[Client, Model]]]:
    """Clients that state their run in one of the ways there are, all with the same prompts."""

    def make(random: Random) -> list[tuple[Client, Model]]:
        made = []
        for _ in range(6):
            run = wire.new_uuid(random)
            client = Client(
                form, wire.bearer("sk-one", OPENAI, *more(run)), random, run=run, calls=5, system=HELPFUL,
                prompts=prompts(), extra=extra(run), path_prefix=prefix.format(run=run),
            )  # fmt: skip
            made.append((client, Model(random, wire.counted_ids)))
        return made

    return make


def window(turns: list[Turn]) -> list[Turn]:
    """A sliding window: only the last two exchanges are sent."""
    return turns if len(turns) <= 5 else turns[-5:] if turns[-5].reply is None else turns[-4:]


def summarised(turns: list[Turn]) -> list[Turn]:
    """Compaction: a summary stands for all but the last exchange."""
    return turns if len(turns) <= 5 else [Turn(text="Summary: we have looked into it."), *turns[-2:]]


def trimmed(turns: list[Turn]) -> list[Turn]:
    """A framework that tidies up white space of what lies behind."""
    return [
        Turn(reply=Reply(" ".join(turn.reply.text.split()), turn.reply.uses, turn.reply.id)) if turn.reply else turn
        for turn in turns
    ]


class Thinking(Model):
    """An open model that thinks aloud in its answers."""

    def answer(self) -> Reply:
        reply = super().answer()
        return Reply(f"<think>\n{self.random.random()} or so.\n</think>\n\n{reply.text}", reply.uses, reply.id)


def thoughtless(turns: list[Turn]) -> list[Turn]:
    """A client that sends no thoughts back."""
    return [
        Turn(reply=Reply(turn.reply.text.rpartition("</think>")[2].strip(), turn.reply.uses)) if turn.reply else turn
        for turn in turns
    ]


def clock(system: str, turns: list[Turn]) -> dict[str, Any]:
    """A prompt that says what time it is."""
    return wire.chat(f"It is 2026-11-22 10:{len(turns):02}:07. {system}", turns)


def retrieved(system: str, turns: list[Turn]) -> dict[str, Any]:
    """Documents stand in the last user message only; the history keeps the bare questions."""
    body = wire.chat(system, turns)
    if body["messages"][-1]["role"] == "user":
        body["messages"][-1]["content"] += " Use these documents: " + "lorem ipsum " * 20
    return body


def shifting(system: str, turns: list[Turn]) -> dict[str, Any]:
    """Only the marked message is written in blocks; all others are strings."""
    body = wire.anthropic(system, turns)
    for message in body["messages"][:-1]:
        if len(message["content"]) == 1 and message["content"][0]["type"] == "text":
            message["content"] = message["content"][0]["text"]
    return body


def swapping(system: str, turns: list[Turn]) -> dict[str, Any]:
    """Every call goes to another model."""
    return {**wire.chat(system, turns), "model": f"model-{len(turns) % 3}"}


class Canned(Model):
    """A server that says the same to everybody, as fakes do."""

    def answer(self) -> Reply:
        text = "This is what the server says to everybody, whatever the question was, at some length. " * 2
        return Reply(text=text, id="chatcmpl-1")


def canned(random: Random) -> list[tuple[Client, Model]]:
    made: list[tuple[Client, Model]] = []
    for _ in range(40):
        client = Client(
            wire.CHAT, wire.bearer("sk-one", OPENAI), random, run=f"canned {random.random()}", calls=5,
            system=HELPFUL, prompts=prompts(random),
        )  # fmt: skip
        made.append((client, Canned(random, wire.openai_ids)))
    return made


def claude_code(random: Random) -> list[tuple[Client, Model]]:
    """Sessions with parallel sub-agents of one type and auxiliary calls; all share the session id."""
    made: list[tuple[Client, Model]] = []
    for _ in range(4):
        session = wire.new_uuid(random)
        user = json.dumps({"device_id": "d" * 8, "account_uuid": "", "session_id": session})
        base = [
            ("x-api-key", "sk-ant"),
            ("User-Agent", "claude-cli/2.1.197 (external, sdk-cli)"),
            ("X-Claude-Code-Session-Id", session),
            ("x-app", "cli"),
        ]
        for number in range(4):
            agent = f"agent-{number}"
            more = [("x-claude-code-agent-id", agent), ("x-claude-code-agent-type", "Explore")] if number else []
            headers = [(name.encode(), value.encode()) for name, value in (*base, *more)]
            client = Client(
                wire.ANTHROPIC, headers, random, run=session, thread=agent if number else "main", calls=6,
                system="You are Claude Code.", prompts=prompts(), extra={"metadata": {"user_id": user}},
            )  # fmt: skip
            made.append((client, Model(random, wire.anthropic_ids)))
    return made


def codex(random: Random) -> list[tuple[Client, Model]]:
    made: list[tuple[Client, Model]] = []
    for _ in range(4):
        session = wire.new_uuid(random)
        for number in range(3):
            thread = session if number == 0 else wire.new_uuid(random)
            more = [("session-id", session), ("thread-id", thread), ("originator", "codex_exec")]
            if number:
                more += [("x-codex-parent-thread-id", session), ("x-openai-subagent", "review")]
            client = Client(
                wire.RESPONSES, wire.bearer("sk-one", "codex_exec/0.169.0 (Debian)", *more), random, run=session,
                thread=thread, calls=5, system="You are Codex.", prompts=prompts(), counts_retries=False,
                extra={"prompt_cache_key": session},
            )  # fmt: skip
            made.append((client, Model(random, wire.openai_ids)))
    return made


def opencode(random: Random) -> list[tuple[Client, Model]]:
    made: list[tuple[Client, Model]] = []
    for _ in range(4):
        root = f"ses_{random.getrandbits(80):x}"
        for number in range(3):
            session = root if number == 0 else f"ses_{random.getrandbits(80):x}"
            more = [("x-session-id", session), ("x-session-affinity", session)]
            more += [("x-parent-session-id", root)] if number else []
            client = Client(
                wire.CHAT, wire.bearer("sk-one", "opencode/1.18.33 ai-sdk/6.0", *more), random, run=root,
                thread=session, calls=5, system="You are opencode.", prompts=prompts(), counts_retries=False,
            )  # fmt: skip
            made.append((client, Model(random, wire.openai_ids)))
    return made


def tenants(random: Random) -> list[tuple[Client, Model]]:
    """Two customers with the same prompts, whose servers give the same answers and ids."""
    made: list[tuple[Client, Model]] = []
    for key in ("sk-one", "sk-two"):
        same = Random(7)
        client = Client(
            wire.CHAT, wire.bearer(key, OPENAI), random, run=f"tenant {key} {random.random()}", calls=8,
            system=HELPFUL, prompts=prompts(),
        )  # fmt: skip
        made.append((client, Model(same, wire.openai_ids)))
    return made


def traced(random: Random) -> list[tuple[Client, Model]]:
    """Three unrelated questions of one agent within its trace."""
    made: list[tuple[Client, Model]] = []
    for _ in range(6):
        run = f"{random.getrandbits(128):032x}"
        for _ in range(3):
            parent = ("traceparent", f"00-{run}-{random.getrandbits(64):016x}-03")
            client = Client(
                wire.CHAT, wire.bearer("sk-one", OPENAI, parent), random, run=run, calls=1, prompts=prompts(random)
            )
            made.append((client, Model(random, wire.openai_ids)))
    return made


def equal_answers(random: Random) -> list[tuple[Client, Model]]:
    """The hard case: equal prompts and byte-identical answers, in processes of their own."""
    return [
        (
            Client(
                wire.CHAT, wire.bearer("sk-one", OPENAI), random, run=f"equal {random.random()}", calls=6,
                system=HELPFUL, prompts=prompts(), address=f"127.0.0.1:{30_000 + n}",
            ),
            Model(Random(11), wire.counted_ids),
        )
        for n in range(12)
    ]  # fmt: skip


def _header(name: str) -> Callable[[str], list[tuple[str, str]]]:
    return lambda run: [(name, run)]


def _json_header(name: str, key: str) -> Callable[[str], list[tuple[str, str]]]:
    return lambda run: [(name, json.dumps({key: run, "team": "x"}))]


def _nothing(_: str) -> list[tuple[str, str]]:
    return []


SCRIPTS = [
    Script("chat with tools", parallel(wire.CHAT, wire.openai_ids, OPENAI)),
    Script("chat, same prompts", parallel(wire.CHAT, wire.openai_ids, OPENAI, same_prompts=True)),
    Script("chat, counted ids", parallel(wire.CHAT, wire.counted_ids, "Agents/Python 0.24.0", same_prompts=True)),
    Script("chat, short ids", parallel(wire.CHAT, wire.mistral_ids, "pydantic-ai/2.68.0", same_prompts=True)),
    Script("chat, retries", parallel(wire.CHAT, wire.openai_ids, OPENAI, same_prompts=True), failures=0.25),
    Script(
        "chat, uncounted retries",
        parallel(wire.CHAT, wire.openai_ids, "ai/6.0.326", counts_retries=False),
        failures=0.2,
    ),
    Script("anthropic", parallel(wire.ANTHROPIC, wire.anthropic_ids, ANTHROPIC_UA, same_prompts=True)),
    Script("anthropic, retries", parallel(wire.ANTHROPIC, wire.anthropic_ids, ANTHROPIC_UA), failures=0.2),
    Script("responses, whole input", parallel(wire.RESPONSES, wire.openai_ids, OPENAI, same_prompts=True)),
    Script("responses, chained", parallel(wire.CHAINED, wire.openai_ids, "Agents/Python 0.24.0", same_prompts=True)),
    Script("gemini", parallel(wire.GEMINI, wire.no_ids, "google-genai-sdk/3.4.0 gl-python/3.11", counts_retries=False)),
    Script("gemini, retries", parallel(wire.GEMINI, wire.no_ids, "google-genai-sdk/3.4.0", counts_retries=False), 0.2),
    Script("window", parallel(wire.CHAT, wire.openai_ids, OPENAI, edit=window)),
    Script("window, anthropic", parallel(wire.ANTHROPIC, wire.anthropic_ids, ANTHROPIC_UA, edit=window)),
    Script("compaction", parallel(wire.CHAT, wire.openai_ids, OPENAI, edit=summarised)),
    Script("trimmed", parallel(wire.CHAT, wire.openai_ids, OPENAI, edit=trimmed)),
    Script("thoughts left out", parallel(wire.CHAT, wire.counted_ids, OPENAI, model=Thinking, edit=thoughtless)),
    Script("thoughts kept", parallel(wire.CHAT, wire.openai_ids, OPENAI, model=Thinking, same_prompts=True)),
    Script("clock in the prompt", parallel(Form(CHAT, clock), wire.counted_ids, OPENAI)),
    Script("retrieval", parallel(Form(CHAT, retrieved), wire.openai_ids, OPENAI)),
    Script("shifting blocks", parallel(Form("/v1/messages", shifting), wire.anthropic_ids, ANTHROPIC_UA)),
    Script("swapping models", parallel(Form(CHAT, swapping), wire.counted_ids, OPENAI, same_prompts=True)),
    Script("canned answers", canned),
    Script("claude code", claude_code, failures=0.1),
    Script("codex", codex),
    Script("opencode", opencode),
    Script("tenants", tenants),
    Script("traced", traced),
    Script("equal answers", equal_answers),
    Script("url", stating(wire.CHAT, _nothing, prefix="/run/{run}")),
    Script("own header", stating(wire.CHAT, _header("x-tollgate-run-id"), ), failures=0.2),
    Script("baggage", stating(wire.CHAT, lambda run: [("baggage", f"a=b,gen_ai.conversation.id={run}")])),
    Script("langfuse", stating(wire.CHAT, lambda run: [("baggage", f"langfuse_session_id={run}")])),
    Script(
        "langgraph",
        stating(wire.CHAT, lambda run: [("baggage", f"langsmith-metadata=%7B%22thread_id%22%3A%22{run}%22%7D")]),
    ),
    Script("litellm", stating(wire.CHAT, _header("x-litellm-session-id"))),
    Script("portkey", stating(wire.CHAT, _header("x-portkey-trace-id"))),
    Script("portkey metadata", stating(wire.CHAT, _json_header("x-portkey-metadata", "session_id"))),
    Script("helicone", stating(wire.CHAT, _header("Helicone-Session-Id"))),
    Script("cloudflare", stating(wire.CHAT, _json_header("cf-aig-metadata", "conversation_id"))),
    Script("bedrock", stating(wire.CHAT, _json_header("X-Amzn-Bedrock-Request-Metadata", "sessionId"))),
    Script("bifrost", stating(wire.CHAT, _header("x-bf-dim-session-id"))),
    Script("any vendor", stating(wire.CHAT, _header("x-acme-session-id"))),
    Script("a2a", stating(wire.CHAT, _header("a2a-context-id"))),
    Script("mcp", stating(wire.CHAT, _header("Mcp-Session-Id"))),
    Script("conversation", stating(wire.RESPONSES, _nothing, lambda run: {"conversation": {"id": run}})),
    Script("metadata", stating(wire.CHAT, _nothing, lambda run: {"metadata": {"thread_id": run}})),
    Script("litellm body", stating(wire.CHAT, _nothing, lambda run: {"litellm_session_id": run})),
    Script(
        "claude code, old form",
        stating(
            wire.ANTHROPIC, _nothing, lambda run: {"metadata": {"user_id": f"user_0af_account__session_{run}"}}
        ),
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("links"), seed=20_26)
    for number in range(ROUNDS):
        everybody = [(script, one) for script in SCRIPTS for one in script.make(Random(f"{number}{script.name}"))]
        world.play(everybody, START + number * 600 * SECOND)
    return world


def test_runs_are_grouped_right(world: World) -> None:
    precision, recall = world.tally.figures()
    print(f"\n{len(world.tally.calls)} calls: precision {precision:.5f}, recall {recall:.5f}")
    for script in SCRIPTS:
        sources = dict(world.tally.sources[script.name])
        print(f"{script.name:26} wrong steps {world.tally.wrong_steps[script.name]:3} {sources}")
    assert precision >= 0.999
    assert recall >= 0.99


def test_steps_are_counted_right(world: World) -> None:
    """A client that rewrites its history may, behind a short answer, begin a new run; nobody else may."""
    wrong = +world.tally.wrong_steps
    assert wrong.keys() <= {"compaction", "retrieval", "shifting blocks", "window", "window, anthropic"}, wrong
    assert wrong.total() <= len(world.tally.calls) // 300


def test_tool_results_are_paired_once_and_with_their_calls(world: World) -> None:
    tally = world.tally
    print(f"\n{tally.paired} of {tally.results} tool results paired, {tally.mistaken} mistaken")
    assert tally.mistaken == 0
    assert tally.paired >= 0.99 * tally.results


def test_an_agent_keeps_its_name(world: World) -> None:
    assert {agent: names for agent, names in world.tally.agents.items() if len(names) != 1} == {}
