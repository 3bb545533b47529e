"""Scripted runs of agents with tools: honest ones that look like loops, and runaways. For tests of loop breakers.

A script yields moves; a `Conversation` writes each as the next request of its API, with the whole history in it or a
window of it. Nothing here does I/O; randomness is handed in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from gateway.call import Call, Who
from gateway.testing.calls import arrive
from gateway.testing.wire import Sent, Truth


@dataclass(slots=True)
class Act:
    """A tool call and its result."""

    name: str
    arguments: dict[str, Any]
    result: str
    failed: bool = False


@dataclass(slots=True)
class Move:
    """An answer of the model, and what came back: the results of its tools, or what the user said to it."""

    acts: list[Act] = field(default_factory=list)
    text: str = ""
    user: str = ""


Script = Callable[[Random], Iterator[Move]]
Writer = Callable[[Move, list[str]], list[dict[str, Any]]]


def _chat(move: Move, ids: list[str]) -> list[dict[str, Any]]:
    calls = [
        {"id": i, "type": "function", "function": {"name": act.name, "arguments": json.dumps(act.arguments)}}
        for i, act in zip(ids, move.acts, strict=True)
    ]
    answer = {"role": "assistant", "content": move.text or None, **({"tool_calls": calls} if calls else {})}
    results = [
        {"role": "tool", "tool_call_id": i, "content": act.result} for i, act in zip(ids, move.acts, strict=True)
    ]
    return [answer, *(results or [{"role": "user", "content": move.user}])]


def _anthropic(move: Move, ids: list[str]) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = [{"type": "text", "text": move.text}] if move.text else []
    content += [
        {"type": "tool_use", "id": i, "name": act.name, "input": act.arguments}
        for i, act in zip(ids, move.acts, strict=True)
    ]
    back = [
        {"type": "tool_result", "tool_use_id": i, "content": act.result, **({"is_error": True} if act.failed else {})}
        for i, act in zip(ids, move.acts, strict=True)
    ] or [{"type": "text", "text": move.user}]
    return [{"role": "assistant", "content": content}, {"role": "user", "content": back}]


def _responses(move: Move, ids: list[str]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = [{"type": "reasoning", "id": "rs", "summary": []}]
    if move.text:
        content = [{"type": "output_text", "text": move.text, "annotations": []}]
        items.append({"type": "message", "role": "assistant", "content": content})
    pairs = list(zip(ids, move.acts, strict=True))
    items += [
        {"type": "function_call", "call_id": i, "name": act.name, "arguments": json.dumps(act.arguments)}
        for i, act in pairs
    ]
    back = [{"type": "function_call_output", "call_id": i, "output": act.result} for i, act in pairs]
    return [*items, *(back or [{"role": "user", "content": move.user}])]


def _gemini(move: Move, _: list[str]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"text": move.text}] if move.text else []
    parts += [{"functionCall": {"name": act.name, "args": act.arguments}} for act in move.acts]
    back: list[dict[str, Any]] = [
        {"functionResponse": {"name": act.name, "response": {"error" if act.failed else "result": act.result}}}
        for act in move.acts
    ] or [{"text": move.user}]
    return [{"role": "model", "parts": parts}, {"role": "user", "parts": back}]


FORMS: dict[str, tuple[str, str, Writer]] = {  # dialect -> (path, field of the items, writer)
    "openai_chat": ("/v1/chat/completions", "messages", _chat),
    "anthropic": ("/v1/messages", "messages", _anthropic),
    "openai_responses": ("/v1/responses", "input", _responses),
    "gemini": ("/v1beta/models/gemini-2.5-flash:generateContent", "contents", _gemini),
}


class Conversation:
    """One agent's requests in the form of its API. `window`: only so many of the last items are sent; 0: all. `calls`:
    the number of its first tool call, which stands in the ids."""

    def __init__(
        self, dialect: str, run: str, *, prompt: str = "Do the task.", agent: str = "a", window: int = 0, calls: int = 0
    ):
        self.path, self._field, self._write = FORMS[dialect]
        self._head: list[str] = []
        first: dict[str, Any] = {"role": "user", "content": prompt}
        if dialect == "openai_chat":
            self._head = ['{"role":"system","content":"You are careful."}']
        elif dialect == "gemini":
            first = {"role": "user", "parts": [{"text": prompt}]}
        self._items = [_text(first)]
        self._window, self._ids = window, count(calls)
        self.run, self.agent, self.step = run, agent, 1

    def call(self, now: int, number: int) -> Call:
        """The request as it is now, identified."""
        items = self._items[-self._window :] if self._window else self._items
        body = f'{{"model":"m","max_tokens":9,"{self._field}":[{",".join([*self._head, *items])}]}}'
        call = arrive(Sent(self.path, [], body.encode(), "127.0.0.1:9", Truth("", "", False), []), now, number)
        call.who = Who(run_id=self.run, agent=self.agent, step=self.step)
        return call

    def take(self, move: Move) -> None:
        ids = [f"call_{next(self._ids):06}" for _ in move.acts]
        self._items += [_text(item) for item in self._write(move, ids)]
        self.step += 1


def _text(item: dict[str, Any]) -> str:
    return json.dumps(item, separators=(",", ":"))


# -- honest runs

_WORDS = (
    *(
        "ledger",
        "parser",
        "server",
        "router",
        "cache",
        "budget",
        "stream",
        "window",
        "retry",
        "meter",
        "table",
        "index",
    ),
    *("token", "price", "journal", "record", "schema", "config", "upload", "client", "thread", "signal", "filter"),
)
TESTS = Act("bash", {"command": "pytest -q"}, "")


def prose(random: Random, words: int = 40) -> str:
    return " ".join(random.choices(_WORDS, k=words)) + f" {random.randrange(10**6)}"


def _tests(random: Random, failing: int) -> Act:
    names = "".join(f"FAILED tests/test_{random.choice(_WORDS)}.py::test_{n}\n" for n in range(failing))
    text = f"{names}{failing} failed, {40 - failing} passed in {random.random():.2f}s"
    return Act("bash", {"command": "pytest -q"}, f"Exit code: 1\n{text}" if failing else text, bool(failing))


def coder(random: Random) -> Iterator[Move]:
    """Reads, edits (which answers `ok`, always), runs the same test command after each edit; reads some files again."""
    files = [f"src/{word}.py" for word in random.sample(_WORDS, 8)]
    versions = dict.fromkeys(files, 0)
    failing = random.randint(1, 6)

    def read(name: str) -> Act:
        return Act("read", {"path": name}, f"# {name} version {versions[name]}\n" + "x = 1\n" * 20)

    yield Move([Act("bash", {"command": "git status"}, "nothing to commit")], "Let me look.")
    yield Move([read(name) for name in files[: random.randint(1, 4)]])
    for _ in range(random.randint(4, 25)):
        name = random.choice(files)
        if random.random() < 0.5:
            yield Move([read(name)])
        versions[name] += 1
        yield Move([Act("edit", {"path": name, "old": prose(random, 5), "new": prose(random, 5)}, "ok")], "Next.")
        failing = max(0, failing + random.choice((-1, -1, 0, 0, 0, 1)))
        yield Move([_tests(random, failing)])
        if not failing and random.random() < 0.4:
            break
    yield Move(text=prose(random), user=f"Thanks, now {prose(random, 6)}")


def stuck_then_solved(random: Random) -> Iterator[Move]:
    """The same failing test, word for word, while edit after edit is tried: hard work, no loop."""
    failure = Act("bash", {"command": "pytest -q"}, "Exit code: 1\nFAILED test_a\n1 failed, 3 passed in 0.12s", True)
    for _ in range(random.randint(3, 8)):
        yield Move([Act("edit", {"path": "a.py", "new": prose(random, 9)}, "ok")])
        yield Move([failure])
    yield Move([Act("bash", {"command": "pytest -q"}, "4 passed in 0.10s")])


def poller(random: Random) -> Iterator[Move]:
    """Waits for jobs: the same status up to four times, or a progress that moves."""
    for _ in range(random.randint(1, 5)):
        job = random.randrange(10**6)
        ask = {"id": f"job-{job}"}
        yield Move([Act("start_job", {"kind": prose(random, 2)}, f"started job-{job}")])
        if random.random() < 0.5:
            for _ in range(random.randint(1, 4)):
                yield Move([Act("job_status", ask, "running")])
        else:
            for percent in range(10, 100, random.randint(9, 30)):
                yield Move([Act("job_status", ask, f"running, {percent} %")])
        yield Move([Act("job_status", ask, f"done: {prose(random, 8)}")])


def sleeper(random: Random) -> Iterator[Move]:
    """Polls with a pause between, as a tool call of its own."""
    ask = {"id": f"job-{random.randrange(10**6)}"}
    for _ in range(random.randint(1, 4)):
        yield Move([Act("job_status", ask, "running")])
        yield Move([Act("bash", {"command": "sleep 30"}, "")])
    yield Move([Act("job_status", ask, f"done: {prose(random, 8)}")])


def paginator(random: Random) -> Iterator[Move]:
    """Page after page of a listing; the last ones may be empty."""
    for page in range(random.randint(5, 40)):
        yield Move([Act("list_orders", {"page": page, "size": 50}, prose(random))])
    for page in range(40, 40 + random.randint(1, 3)):
        yield Move([Act("list_orders", {"page": page, "size": 50}, "[]")])


def flaky(random: Random) -> Iterator[Move]:
    """A fifth of all calls time out; they are made again, up to three times, before the agent goes on without."""
    for n in range(random.randint(4, 16)):
        ask = {"url": f"https://example.com/{random.choice(_WORDS)}/{n}"}
        for _ in range(3):
            if random.random() >= 0.2:
                yield Move([Act("fetch", ask, prose(random))])
                break
            yield Move([Act("fetch", ask, "Error: timed out after 30 s", True)])


def prober(random: Random) -> Iterator[Move]:
    """Looks for a file in places where it is not, then finds it."""
    for word in random.sample(_WORDS, random.randint(2, 8)):
        yield Move([Act("read", {"path": f"{word}.toml"}, f"Error: no such file: {word}.toml", True)])
    yield Move([Act("read", {"path": "pyproject.toml"}, prose(random))])


def writer(random: Random) -> Iterator[Move]:
    """Writes many records; each is answered `ok`."""
    for _ in range(random.randint(10, 40)):
        yield Move([Act("insert", {"row": {"name": prose(random, 2), "n": random.randrange(99)}}, "ok")])


def talker(random: Random) -> Iterator[Move]:
    """A person who says "continue" again and again to a story, which goes on."""
    for _ in range(random.randint(3, 25)):
        yield Move(text=_story(random), user=random.choice(("continue", "continue", "go on")))


def _story(random: Random) -> str:
    return " ".join("".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=random.randint(3, 9))) for _ in range(60))


def researcher(random: Random) -> Iterator[Move]:
    """Parallel searches and fetches; sometimes a page it has already read."""
    pages = {f"https://{random.choice(_WORDS)}.example/{n}": prose(random) for n in range(12)}
    for _ in range(random.randint(6, 25)):
        acts = [Act("search", {"query": prose(random, 3)}, prose(random, 20)) for _ in range(random.randint(0, 2))]
        acts += [Act("fetch", {"url": url}, pages[url]) for url in random.sample(sorted(pages), random.randint(1, 2))]
        yield Move(acts, text=prose(random, 6))


def forgetful(random: Random) -> Iterator[Move]:
    """Loses its context every now and then, and reads again, one by one, the files it works on."""
    files = [f"src/{word}.py" for word in random.sample(_WORDS, random.randint(2, 7))]
    for _ in range(random.randint(1, 5)):
        for name in files:
            yield Move([Act("read", {"path": name}, f"# {name}\n" + "x = 1\n" * 20)])
        for _ in range(random.randint(1, 8)):
            yield Move([Act("note", {"text": prose(random, 8)}, "noted")])


def marathon(random: Random) -> Iterator[Move]:
    """Tasks of all kinds, one after the other."""
    for script in random.choices((coder, poller, sleeper, paginator, flaky, prober, researcher, forgetful), k=5):
        yield from script(random)


HONEST: dict[str, Script] = {
    "coder": coder,
    "stuck, then solved": stuck_then_solved,
    "poller": poller,
    "poller that sleeps": sleeper,
    "paginator": paginator,
    "flaky tool": flaky,
    "prober": prober,
    "writer": writer,
    "talker": talker,
    "researcher": researcher,
    "forgetful": forgetful,
    "marathon": marathon,
}

# -- runaways: none of them ends


def same_call(random: Random) -> Iterator[Move]:
    while True:
        yield Move([Act("search", {"query": "weather"}, "no results")], text=prose(random, 5))


def same_call_with_clock(random: Random) -> Iterator[Move]:
    for n in count():
        yield Move([Act("get_status", {"verbose": True}, f"up since {n} s")])


def back_and_forth(random: Random) -> Iterator[Move]:
    while True:
        yield Move([Act("open", {"tab": 1}, "tab 1")])
        yield Move([Act("open", {"tab": 2}, "tab 2")])


def four_steps(random: Random) -> Iterator[Move]:
    while True:
        for name in ("plan", "assign", "review", "reject"):
            yield Move([Act(name, {"task": "report"}, f"{name} done")])


def failing_tool(random: Random) -> Iterator[Move]:
    while True:
        yield Move([Act("deploy", {"target": "prod"}, "Error: permission denied", True)])


def failing_with_other_arguments(random: Random) -> Iterator[Move]:
    while True:
        yield Move([Act("sql", {"query": prose(random, 6)}, "Error: connection refused on port 5432", True)])


def error_ping_pong(random: Random) -> Iterator[Move]:
    while True:
        yield Move([Act("apply_patch", {"patch": prose(random, 6)}, "Error: hunk 1 does not apply", True)])
        yield Move([Act("edit", {"old": prose(random, 4)}, "Error: text not found", True)])


def polling_with_other_arguments(random: Random) -> Iterator[Move]:
    for n in count(1):
        yield Move([Act("job_status", {"id": "job-1", "attempt": n, "at": 1_700_000_000 + n}, "pending")])


def reading_again(random: Random) -> Iterator[Move]:
    files = [f"{word}.py" for word in random.sample(_WORDS, 6)]
    while True:
        for name in random.sample(files, len(files)):
            yield Move([Act("read", {"path": name}, f"# {name}\n" + "x = 1\n" * 20)], text=prose(random, 5))


_SAID = (
    *("the task is", "now", "complete", "and every", "requested file", "has been", "updated", "as described"),
    *("earlier in", "this conversation", "please review", "the changes", "before merging"),
)


def rewording(random: Random) -> Iterator[Move]:
    """Asked to go on, it says in other words that it is done."""
    while True:
        words = list(_SAID)
        for _ in range(3):
            at = random.randrange(len(words) - 1)
            words[at], words[at + 1] = words[at + 1], words[at]
        yield Move(text=" ".join([random.choice(("Well,", "Indeed:", "Again,")), *words]), user="Please continue.")


def same_answer(random: Random) -> Iterator[Move]:
    while True:
        yield Move(text="I am done.", user="Are you done? If not, go on.")


RUNAWAYS: dict[str, Script] = {
    "same call for ever": same_call,
    "same call, its result tells the time": same_call_with_clock,
    "A-B-A-B": back_and_forth,
    "A-B-C-D": four_steps,
    "failing tool, same arguments": failing_tool,
    "failing tool, other arguments": failing_with_other_arguments,
    "two tools failing in turn": error_ping_pong,
    "polling with changing arguments": polling_with_other_arguments,
    "reading the same six files": reading_again,
    "rewording the same answer": rewording,
    "saying the same": same_answer,
}
