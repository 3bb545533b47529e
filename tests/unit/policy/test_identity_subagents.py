"""Agents and their sub-agents: names, parents, steps of their own, one run."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from gateway.call import Who
from gateway.config.schema import Identity
from gateway.dialects.items import read_item
from gateway.policy.identity import Resolver
from gateway.testing.calls import MemoryLinks, arrive, settle
from gateway.testing.wire import Reply, Sent, Truth

START = 1_790_000_000 * 10**9
SESSION = "0b1c2d3e-4f50-4a61-8b72-9c83ad94be05"


class Gate:
    def __init__(self) -> None:
        ids = itertools.count(1)
        self.resolver = Resolver(Identity(), MemoryLinks(), lambda: f"run-{next(ids)}", b"secret", read_item)
        self.numbers = itertools.count()

    def ask(self, headers: dict[str, str], body: dict[str, Any] | None = None, answer: str = "Hi") -> Who:
        number = next(self.numbers)
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        content = json.dumps(body or {"messages": [{"role": "user", "content": "hello"}]}).encode()
        call = arrive(Sent("/v1/messages", raw, content, "", Truth("", "", False), []), START + number, number)
        call.who, call.tools = self.resolver.identify(call)
        settle(call, Reply(answer), 1)
        self.resolver.learn(call)
        return call.who


@pytest.fixture
def gate() -> Gate:
    return Gate()


CLAUDE = {"User-Agent": "claude-cli/2.1.197 (external, cli)", "X-Claude-Code-Session-Id": SESSION}


def test_claude_code(gate: Gate) -> None:
    main = gate.ask(CLAUDE)
    assert (main.agent, main.agent_version, main.run_id, main.conversation_id) == (
        *("claude-code", "2.1.197"),
        *(SESSION, SESSION),
    )
    assert (main.step, main.parent_agent, main.request_class, main.run_source) == (1, "", "", "vendor")
    one = {"x-claude-code-agent-id": "a1", "x-claude-code-agent-type": "Explore"}
    two = {"x-claude-code-agent-id": "a2", "x-claude-code-agent-type": "Explore"}
    below = {"x-claude-code-agent-id": "a3", "x-claude-code-parent-agent-id": "a1"}
    found = [gate.ask({**CLAUDE, **more}) for more in (one, two, one, below)]
    assert [(who.agent, who.parent_agent, who.step) for who in found] == [
        ("claude-code/Explore", "claude-code", 1),
        ("claude-code/Explore", "claude-code", 1),
        ("claude-code/Explore", "claude-code", 2),
        ("claude-code/subagent", "claude-code/Explore", 1),
    ]
    assert {who.run_id for who in found} == {SESSION}
    assert {who.request_class for who in found} == {"subagent"}
    assert gate.ask(CLAUDE).step == 2


def test_claude_code_says_what_a_call_is_for(gate: Gate) -> None:
    assert gate.ask({**CLAUDE, "x-claude-code-request-class": "auxiliary"}).request_class == "auxiliary"
    assert gate.ask({**CLAUDE, "x-claude-code-compaction": "1"}).request_class == "compaction"
    assert gate.ask({**CLAUDE, "x-claude-code-compaction": "false"}).request_class == ""


def test_codex(gate: Gate) -> None:
    codex = {"User-Agent": "codex_cli_rs/0.169.0 (Debian)", "originator": "codex_cli_rs", "session-id": SESSION}
    root = gate.ask({**codex, "thread-id": SESSION})
    child = gate.ask({**codex, "thread-id": "t-2", "x-codex-parent-thread-id": SESSION, "x-openai-subagent": "review"})
    turn = json.dumps({"agent_name": "/".join(("", "root", "scout")), "thread_id": "t-3"})
    third = gate.ask({**codex, "x-codex-turn-metadata": turn, "x-codex-parent-thread-id": "t-2"})
    assert [(who.agent, who.parent_agent, who.step, who.run_id) for who in (root, child, third)] == [
        ("codex", "", 1, SESSION),
        ("codex/review", "codex", 1, SESSION),
        ("codex/scout", "codex/review", 1, SESSION),
    ]
    assert gate.ask({**codex, "thread-id": SESSION}).step == 2


def test_opencode(gate: Gate) -> None:
    agent = {"User-Agent": "opencode/1.18.33"}
    root = gate.ask({**agent, "x-session-id": "ses_root"})
    child = gate.ask({**agent, "x-session-id": "ses_child", "x-parent-session-id": "ses_root"})
    grandchild = gate.ask({**agent, "x-session-id": "ses_grand", "x-parent-session-id": "ses_child"})
    assert {who.run_id for who in (root, child, grandchild)} == {"ses_root"}
    assert [who.conversation_id for who in (root, child, grandchild)] == ["ses_root", "ses_child", "ses_grand"]
    assert [(who.agent, who.parent_agent, who.step) for who in (root, child, grandchild)] == [
        ("opencode", "", 1),
        ("opencode/subagent", "opencode", 1),
        ("opencode/subagent", "opencode/subagent", 1),
    ]


def test_stated_agents_of_one_run_count_their_own_steps(gate: Gate) -> None:
    run = {"x-tollgate-run-id": "job-7"}
    steps = [gate.ask({**run, "x-tollgate-agent": name}).step for name in ("boss", "scout", "scout", "boss")]
    assert steps == [1, 1, 2, 2]
    stated = gate.ask({**run, "x-tollgate-agent": "boss", "x-tollgate-step": "40", "x-tollgate-parent-agent": "me"})
    assert (stated.step, stated.parent_agent, stated.agent_source) == (40, "me", "header")
    assert gate.ask({**run, "x-tollgate-agent": "boss"}).step == 4
    assert gate.ask({**run, "x-tollgate-step": "many"}).step == 1


def test_an_agent_without_a_name_is_guessed_and_keeps_it(gate: Gate) -> None:
    sdk = {"User-Agent": "Anthropic/Python 2.12.0", "x-stainless-retry-count": "0"}
    first = gate.ask(sdk, {"system": "You plan.", "messages": [{"role": "user", "content": "a"}]}, "Plan")
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Plan"}]
    same = gate.ask(sdk, {"system": "You plan.", "messages": [*messages, {"role": "user", "content": "b"}]}, "B")
    assert same.agent == first.agent
    assert (first.agent_source, same.agent_source) == ("guess", "run")
    handed = gate.ask(sdk, {"system": "You write.", "messages": [*messages, {"role": "user", "content": "c"}]})
    assert handed.run_id == first.run_id, "a handoff stays in the run"
    assert handed.agent != first.agent, "but is another agent"


def test_a_name_that_was_stated_once_holds_for_the_conversation(gate: Gate) -> None:
    sdk = {"User-Agent": "Anthropic/Python 2.12.0", "x-stainless-retry-count": "0"}
    gate.ask({**sdk, "x-tollgate-agent": "scout"}, {"messages": [{"role": "user", "content": "a"}]}, "Plan")
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Plan"}]
    again = gate.ask(sdk, {"messages": [*messages, {"role": "user", "content": "b"}]})
    assert (again.agent, again.agent_source, again.step) == ("scout", "run", 2)


def test_depth_is_one_more_than_that_of_the_parent(gate: Gate) -> None:
    def ask(agent: str, parent: str = "") -> int:
        more = {"x-claude-code-agent-id": agent} | ({"x-claude-code-parent-agent-id": parent} if parent else {})
        return gate.ask({**CLAUDE, **more}).depth

    assert gate.ask(CLAUDE).depth == 0
    assert [ask("a1"), ask("a2", "a1"), ask("a3", "a2"), ask("a4", "a1"), ask("a2", "a1")] == [1, 2, 3, 2, 2]
    assert ask("b1", "never seen") == 1
    assert ask("c1", "c1") == 1, "its own parent"
    assert gate.ask({**CLAUDE, "X-Claude-Code-Session-Id": SESSION[::-1], "x-claude-code-agent-id": "a2"}).depth == 1


def test_depth_has_an_end(gate: Gate) -> None:
    """Two agents that call each other their parent go round: depth grows, as far as it can."""
    depths = []
    for turn in range(300):
        headers = {"x-claude-code-agent-id": "ab"[turn % 2], "x-claude-code-parent-agent-id": "ba"[turn % 2]}
        depths.append(gate.ask({**CLAUDE, **headers}).depth)
    assert depths[:3] == [1, 2, 3]
    assert depths[-1] == 255
