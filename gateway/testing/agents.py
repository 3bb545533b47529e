"""Scripted agents, each in the manner of a real one: its dialect, its headers, its tools, its sub-agents.

An agent is a coroutine that plays one run against a base URL and notes what it saw. The model's moves are scripted in
the prompts (`gateway.testing.fake_script`); tools are executed here, in no time or in a drawn one.
"""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from gateway.testing.agent_wire import CHAT, EMBEDDINGS, GEMINI, MESSAGES, RESPONSES, Caller, Log, Seen


@dataclass(slots=True)
class Stage:
    """Where and with what the agents play."""

    session: aiohttp.ClientSession
    url: str
    log: Log
    rng: random.Random
    tool_seconds: float = 0.3  # longest execution of a tool
    admin: str = ""  # URL of the admin port, where agents report how their runs went; "": they do not

    def uuid(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def caller(self, agent: str, run: str, headers: dict[str, str]) -> Caller:
        headers = {**headers, TEAM: SERVING if agent in SERVERS else BUILDING}
        return Caller(self.session, self.url, self.log, who=(agent, run), headers=headers)

    async def work(self) -> None:
        await asyncio.sleep(self.rng.random() * self.tool_seconds)

    async def report(self, run: str, *, well: bool) -> None:
        """What came of a run that did all it could: now and then it did not help."""
        await self._report(run, {"outcome": "success" if well and self.rng.random() < 0.9 else "failure"})

    async def rate(self, run: str) -> None:
        """How well somebody liked its answers."""
        await self._report(run, {"outcome": "score", "value": self.rng.choice((0.5, 0.75, 1, 1))})

    async def _report(self, run: str, report: dict[str, Any]) -> None:
        if self.admin:
            async with self.session.post(f"{self.admin}/api/runs/{run}/outcome", json=report) as answer:
                await answer.read()

    async def look_up(self, path: str, agent: str, run: str) -> None:
        """Ask a tool, through the gateway."""
        headers = {"x-tollgate-run-id": run, "x-tollgate-agent": agent, TEAM: SERVING}
        seen = Seen(agent, run, "")
        self.log.append(seen)
        async with self.session.get(f"{self.url}/tools/{CATALOGUE}{path}", headers=headers) as answer:
            seen.status, seen.call_id = answer.status, answer.headers.get("x-tollgate-request-id", "")
            await answer.read()
        seen.ended = "ok" if seen.status == 200 else "error"


Play = Callable[[Stage], Awaitable[None]]

TEAM = "x-team"
BUILDING, SERVING = "engineering", "support"
SERVERS = frozenset(
    ("support-bot", "embedder", "summariser", "leaver", "stuck", "helpdesk", "clerk")
)  # the second team
FORMS = "forms"  # what the clerk calls its model
CATALOGUE, PRODUCTS = "catalogue", ("/models/gpt-5", "/models/gpt-4o", "/models")  # a tool, and what it is asked for
_FILES = ("app.py", "ledger.py", "README.md", "tests/test_ledger.py", "pyproject.toml")
_CIRCLE = {"run_tests": "FAILED test_rounding: 0.29 != 0.30", "edit": "ledger.py: 1 line changed"}
LEFT_TOKENS = 500  # at most, of an answer that is left, which is charged for all of them
_TOPICS = ("vector clocks", "tail latency", "prompt caching", "write-ahead logs", "backpressure")
_QUESTIONS = (
    "Where is my parcel?",
    "How do I return something?",
    "When will the blue one be back?",
    "Can I pay by invoice?",
)


def _tool(name: str, *arguments: str) -> dict[str, Any]:
    properties = {argument: {"type": "string", "description": f"The {argument}."} for argument in arguments}
    schema = {"type": "object", "properties": properties, "required": list(arguments)}
    return {"name": name, "description": f"{name} for the agent.", "schema": schema}


def _script(*steps: str) -> str:
    return " [[then]] ".join(steps)


def _call(name: str, **arguments: str) -> str:
    return f"[[tool {name} {json.dumps(arguments)}]]"


async def coder(stage: Stage) -> None:
    """Like Claude Code: Messages API, streams, one long cached prompt, tools, now and then a sub-agent."""
    session = stage.uuid()
    person = json.dumps({"device_id": stage.uuid(), "account_uuid": "", "session_id": session})
    headers = {
        "user-agent": "claude-cli/2.1.330 (external, cli)",
        "x-app": "cli",
        "x-api-key": "sk-ant-demo",
        "anthropic-version": "2023-06-01",
        "x-claude-code-session-id": session,
    }
    name = stage.rng.choice(_FILES)
    moves = [
        _call("Read", file_path=name) + _call("Read", file_path="README.md"),
        _call("Edit", file_path=name, change="rename a function"),
        _call("Bash", command="pytest -q"),
    ]
    prompt = f"Tidy up {name}. " + _script(*moves[: stage.rng.randint(1, 3)], "[[tokens 80]]")
    caller = stage.caller("claude-code", session, headers)
    done = await _messages_loop(stage, caller, "claude-sonnet-5", prompt, person)
    if stage.rng.random() < 0.5:
        helper = {**headers, "x-claude-code-agent-id": stage.uuid(), "x-claude-code-parent-agent-id": "main"}
        prompt = "Look for dead code. " + _script(_call("Bash", command="grep -rn TODO"), "[[tokens 30]]")
        await _messages_loop(stage, stage.caller("explorer", session, helper), "claude-haiku-4-5", prompt, person)
    await stage.report(session, well=done)


async def _messages_loop(stage: Stage, caller: Caller, model: str, prompt: str, person: str) -> bool:
    """Whether it came to its end."""
    tools = [_tool("Read", "file_path"), _tool("Edit", "file_path", "change"), _tool("Bash", "command")]
    offered = [{"name": t["name"], "description": t["description"], "input_schema": t["schema"]} for t in tools]
    rules = "You are a careful coding agent. Work in small steps and run the tests. " * 90
    mark = {"cache_control": {"type": "ephemeral"}}
    messages: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
    while True:
        body = {
            "model": model,
            "max_tokens": 4096,
            "system": [{"type": "text", "text": rules, **mark}],
            "tools": offered,
            "messages": messages,
            "metadata": {"user_id": person},
            "stream": True,
        }
        answer = await caller.ask(MESSAGES, "/v1/messages?beta=true", body, stream=True)
        if answer is None or not answer.tools:
            return answer is not None
        await stage.work()
        results = []
        for tool in answer.tools:
            failed = stage.rng.random() < 0.15
            text = "error: no such file" if failed else f"{tool.name} done: " + "x = 1\n" * 40
            result = {"type": "tool_result", "tool_use_id": tool.id, "content": text}
            results.append({**result, "is_error": True} if failed else result)
        messages += [answer.content, {"role": "user", "content": results}]


async def researcher(stage: Stage) -> None:
    """Like Codex: Responses API, streams, the whole input sent again each time, two sub-agents at once."""
    session = stage.uuid()
    topic = stage.rng.choice(_TOPICS)
    plan = _script(_call("web_search", query=topic), "[[think weigh the sources]] [[tokens 60]]")
    await _responses_loop(stage, session, session, f"Plan a report on {topic}. {plan}", "")
    parts = [f"Summarise part {n} of {topic}. " + _script(_call("fetch", url=f"u{n}"), "[[tokens 90]]") for n in (1, 2)]
    await asyncio.gather(*(_responses_loop(stage, session, stage.uuid(), part, session) for part in parts))
    await _responses_loop(stage, session, session, f"Write the report on {topic}. [[tokens 150]]", "")


async def _responses_loop(stage: Stage, session: str, thread: str, prompt: str, parent: str) -> None:
    headers = {
        "user-agent": "codex_exec/0.169.0 (Linux; x86_64) unknown",
        "originator": "codex_exec",
        "authorization": "Bearer sk-demo",
        "session-id": session,
        "thread-id": thread,
    }
    if parent:
        headers |= {"x-codex-parent-thread-id": parent, "x-openai-subagent": "reader"}
    caller = stage.caller("reader" if parent else "codex", session, headers)
    tools = [
        {"type": "function", **t, "parameters": t.pop("schema")}
        for t in (_tool("web_search", "query"), _tool("fetch", "url"))
    ]
    items: list[dict[str, Any]] = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": prompt}]}
    ]
    while True:
        body = {
            "model": "gpt-5-mini" if parent else "gpt-5",
            "instructions": "You research and cite. " * 40,
            "input": items,
            "tools": tools,
            "max_output_tokens": 8192,
            "reasoning": {"effort": "low"},
            "store": False,
            "stream": True,
            "prompt_cache_key": session,
        }
        answer = await caller.ask(RESPONSES, "/v1/responses", body, stream=True)
        if answer is None or not answer.tools:
            return
        await stage.work()
        outputs = [
            {"type": "function_call_output", "call_id": t.id, "output": f"{t.name}: " + "fact. " * 60}
            for t in answer.tools
        ]
        items += [*answer.content, *outputs]


async def support_bot(stage: Stage) -> None:
    """A bot on the openai SDK: Chat Completions, its run and name in the URL, tools, every other answer streamed."""
    ticket = f"ticket-{stage.rng.randrange(10**6)}"
    headers = {"user-agent": "OpenAI/Python 3.54.0", "authorization": "Bearer sk-demo"}
    caller = stage.caller("support-bot", ticket, headers)
    tools = [
        {
            "type": "function",
            "function": {"name": t["name"], "description": t["description"], "parameters": t["schema"]},
        }
        for t in (_tool("lookup_order", "order"), _tool("refund", "order"))
    ]
    asks = _script(_call("lookup_order", order=ticket), _call("refund", order=ticket), "[[tokens 40]]")
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You are the support bot of a small shop. Be brief and kind."},
        {"role": "user", "content": f"Where is my parcel? {asks}"},
    ]
    path, turn = f"/run/{ticket}/agent/support-bot/v1/chat/completions", 0
    while True:
        body: dict[str, Any] = {"model": "gpt-4o-mini", "messages": messages, "tools": tools, "max_tokens": 400}
        if stream := turn % 2 == 1:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        answer = await caller.ask(CHAT, path, body, stream=stream)
        turn += 1
        if answer is None or not answer.tools:
            await stage.report(ticket, well=answer is not None)
            return
        await stage.work()
        messages.append(answer.content)
        messages += [{"role": "tool", "tool_call_id": t.id, "content": f"{t.name}: ok"} for t in answer.tools]


async def helpdesk(stage: Stage) -> None:
    """A form on a web page: people ask, word for word, what others asked before, and often send it twice."""
    run = f"visit-{stage.rng.randrange(10**6)}"
    headers = {"user-agent": "OpenAI/Python 3.54.0", "authorization": "Bearer sk-demo"}
    caller = stage.caller("helpdesk", run, {**headers, "x-tollgate-run-id": run, "x-tollgate-agent": "helpdesk"})
    rules = {"role": "system", "content": "You answer for a small shop, briefly and kindly. " * 20}
    question = {"role": "user", "content": stage.rng.choice(_QUESTIONS)}
    for _ in range(2):
        body = {"model": "gpt-4o", "messages": [rules, question], "max_tokens": 400}
        await caller.ask(CHAT, "/v1/chat/completions", body)
        await stage.work()
    await stage.rate(run)


async def clerk(stage: Stage) -> None:
    """A job that looks a product up, at a price, and fills forms: a cheap model first, a dear one where it cannot."""
    run = f"form-{stage.rng.randrange(10**6)}"
    headers = {"user-agent": "OpenAI/Python 3.54.0", "authorization": "Bearer sk-demo", "x-tollgate-agent": "clerk"}
    caller = stage.caller("clerk", run, {**headers, "x-tollgate-run-id": run})
    await stage.look_up(stage.rng.choice(PRODUCTS), "clerk", run)
    properties = {"product": {"type": "string"}, "number": {"type": "integer"}}
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "order", "strict": True, "schema": schema}}
    for _ in range(2):
        unclear = " [[say It does not say.]]" if stage.rng.random() < 0.2 else ""
        letter = {"role": "user", "content": f"Fill in the order of letter {stage.rng.random()}.{unclear}"}
        body = {"model": FORMS, "messages": [letter], "max_tokens": 400, "response_format": form}
        await caller.ask(CHAT, "/v1/chat/completions", body)
        await stage.work()
    await stage.report(run, well=True)


async def embedder(stage: Stage) -> None:
    """A batch job: a few embedding calls in parallel, all of one run."""
    run = f"batch-{stage.rng.randrange(10**6)}"
    headers = {"user-agent": "OpenAI/Python 3.54.0", "authorization": "Bearer sk-demo"}
    headers |= {"x-tollgate-run-id": run, "x-tollgate-agent": "embedder"}
    caller = stage.caller("embedder", run, headers)
    texts = [f"Document {n} about {stage.rng.choice(_TOPICS)}. " * 8 for n in range(24)]
    bodies = [
        {"model": "text-embedding-3-small", "input": texts[at : at + 8], "encoding_format": "base64"}
        for at in range(0, len(texts), 8)
    ]
    await asyncio.gather(*(caller.ask(EMBEDDINGS, "/v1/embeddings", body) for body in bodies))


async def summariser(stage: Stage) -> None:
    """A job on google-genai: two turns of one conversation, streamed."""
    headers = {
        "x-goog-api-key": "demo",
        "x-goog-api-client": "google-genai-sdk/2.34.0 gl-python/3.11",
        "user-agent": "google-genai-sdk/2.34.0",
    }
    caller = stage.caller("summariser", stage.uuid(), headers)
    contents: list[dict[str, Any]] = []
    for ask in (f"Summarise {stage.rng.choice(_TOPICS)} {stage.rng.random()}.", "Shorter, please."):
        contents.append({"role": "user", "parts": [{"text": ask}]})
        path = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
        body = {"contents": contents, "generationConfig": {"maxOutputTokens": 1024}}
        answer = await caller.ask(GEMINI, path, body, stream=True)
        if answer is None:
            return
        contents.append(answer.content)


async def leaver(stage: Stage) -> None:
    """A user who closes the window in the middle of an answer."""
    headers = {"user-agent": "OpenAI/Python 3.54.0", "authorization": "Bearer sk-demo", "x-tollgate-agent": "leaver"}
    caller = stage.caller("leaver", stage.uuid(), headers)
    story = {"role": "user", "content": f"Tell me a long story, number {stage.rng.random()}. [[tokens 400]]"}
    body = {"model": "gpt-4o", "max_tokens": LEFT_TOKENS, "messages": [story], "stream": True}
    await caller.ask(CHAT, "/v1/chat/completions", body, stream=True, leave_after=stage.rng.randint(5, 40))


async def lost(stage: Stage) -> None:
    """A misconfigured client: a model that does not exist."""
    headers = {"user-agent": "OpenAI/Python 3.54.0", "authorization": "Bearer sk-demo", "x-tollgate-agent": "lost"}
    body = {"model": "no-such-model", "messages": [{"role": "user", "content": f"Anyone there? {stage.rng.random()}"}]}
    await stage.caller("lost", stage.uuid(), headers).ask(CHAT, "/v1/chat/completions", body)


async def runaway(stage: Stage) -> None:
    """An agent that runs its tests, edits a file and runs them again, for ever: whatever it does, they fail alike."""
    headers = {"x-api-key": "sk-ant-demo", "anthropic-version": "2023-06-01", "x-tollgate-agent": "runaway"}
    caller = stage.caller("runaway", stage.uuid(), headers)
    tools = [_tool("run_tests", "path"), _tool("edit", "path", "change")]
    offered = [{"name": t["name"], "description": t["description"], "input_schema": t["schema"]} for t in tools]
    circle = (_call("run_tests", path="tests"), _call("edit", path="ledger.py", change="round down"))
    prompt = f"Make the tests of branch {stage.rng.random()} pass. " + _script(*circle * 16)
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    body = {"model": "claude-opus-4-1", "max_tokens": 256, "tools": offered, "messages": messages}
    while not caller.refused:
        answer = await caller.ask(MESSAGES, "/v1/messages", body)
        if answer is None:
            continue  # it never gives up
        if not answer.tools:
            return
        told = {name: f"{text} (after {len(messages)} s)" for name, text in _CIRCLE.items()}  # never quite the same
        results = [{"type": "tool_result", "tool_use_id": t.id, "content": told[t.name]} for t in answer.tools]
        messages += [answer.content, {"role": "user", "content": results}]


async def stuck(stage: Stage) -> None:
    """A bot that looks the same order up again and again, and is told the same each time."""
    run = f"order-{stage.rng.randrange(10**6)}"
    headers = {"user-agent": "OpenAI/Python 3.54.0", "authorization": "Bearer sk-demo", "x-tollgate-agent": "stuck"}
    caller = stage.caller("stuck", run, {**headers, "x-tollgate-run-id": run})
    schema = _tool("lookup_order", "order")
    function = {"name": schema["name"], "description": schema["description"], "parameters": schema["schema"]}
    prompt = f"Where is {run}? " + _script(*[_call("lookup_order", order=run)] * 24)
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    body = {"model": "gpt-4o-mini", "max_tokens": 200, "messages": messages}
    body["tools"] = [{"type": "function", "function": function}]
    while not caller.refused:
        answer = await caller.ask(CHAT, "/v1/chat/completions", body)
        if answer is None:
            continue  # it never gives up
        if not answer.tools:
            return
        await stage.work()
        results = [{"role": "tool", "tool_call_id": t.id, "content": "not found"} for t in answer.tools]
        messages += [answer.content, *results]


CAST: dict[str, Play] = {
    "coder": coder,
    "researcher": researcher,
    "support bot": support_bot,
    "helpdesk": helpdesk,
    "clerk": clerk,
    "embedder": embedder,
    "summariser": summariser,
    "leaver": leaver,
    "lost": lost,
    "runaway": runaway,
    "stuck": stuck,
}
