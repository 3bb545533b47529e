"""The request bodies of the benchmark. The same bytes every time.

A text of eight `@` is replaced by the load generator with digits that differ from call to call: a new conversation
where it stands in the first message, a new turn of the same conversation where it stands in the last.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

NOTES = (
    "You are an operations agent. Read the incident notes and answer in one sentence. A dependency of the checkout "
    "service times out for about two percent of calls, retries double the load, and the queue in front of the payment "
    "worker grows. The on-call engineer wants to know which pattern keeps the rest of the system alive while the "
    "dependency recovers, what it costs in failed requests, and how to see it in a dashboard. "
)
NOTES = (NOTES + NOTES)[:830]
USAGE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
UNIQUE = "@@@@@@@@"
AGENT_BYTES = 300_000
WORDS = (
    *("the", "a", "of", "to", "in", "is", "that", "for", "not", "with", "as", "by", "on", "from", "parse", "request"),
    *("response", "handler", "cache", "retry", "token", "stream", "buffer", "test", "file", "path", "error", "value"),
    *("index", "return", "await", "async", "class", "module", "import", "config", "budget", "journal", "record"),
    *("worker", "pool"),
)


def chat(text: str = NOTES, **more: Any) -> dict[str, Any]:
    """About 1 KB: what a small agent asks of an OpenAI-like API."""
    return {
        "model": "gpt-4o-mini",
        "messages": [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": text}],
        "temperature": 0.2,
        "max_tokens": 128,
        "user": "agent-7",
        **more,
    }


class CodingAgent:
    """A long session of a command line coding agent: system blocks, 60 tools, turns of thoughts, tools and results."""

    TOOLS = 60

    def __init__(self) -> None:
        self.random = random.Random(7)

    def body(self) -> dict[str, Any]:
        messages: list[dict[str, Any]] = [{"role": "user", "content": [block(self.prose(1200))]}]
        body = {
            "model": "claude-sonnet-4-5-20250929",
            "max_tokens": 32_000,
            "system": [
                block("You are Claude Code, Anthropic's official CLI for Claude.", cached=True),
                block(self.prose(14_000), cached=True),
            ],
            "tools": [self.tool(number) for number in range(self.TOOLS)],
            "messages": messages,
            "metadata": {"user_id": f"user_{self.hex(64)}_account__session_{self.uuid()}"},
            "temperature": 1,
        }
        size = len(compact(body))
        while size < AGENT_BYTES:
            turn = self.turn(len(messages))
            messages += turn
            size += len(compact(turn))
        messages[-1]["content"][-1] = block(f"Go on; change {UNIQUE} too.", cached=True)
        return body

    def turn(self, number: int) -> list[dict[str, Any]]:
        identifier = f"toolu_01{self.hex(22)}"
        name = self.random.choice(("Read", "Edit", "Bash", "Grep"))
        path = f"/home/dev/project/src/{self.random.choice(WORDS)}_{number}.py"
        said: list[dict[str, Any]] = [block(self.prose(180))]
        if number % 6 == 1:
            said.insert(0, {"type": "thinking", "thinking": self.prose(600), "signature": self.hex(400)})
        said.append({"type": "tool_use", "id": identifier, "name": name, "input": self.arguments(name, path)})
        size = int(self.random.paretovariate(1.5) * 500)
        found = {"type": "tool_result", "tool_use_id": identifier, "content": self.code(min(size, 6_000))}
        return [
            {"role": "assistant", "content": said},
            {
                "role": "user",
                "content": [found, block("<system-reminder>The list of tasks is empty.</system-reminder>")],
            },
        ]

    def arguments(self, name: str, path: str) -> dict[str, Any]:
        if name == "Edit":
            return {"file_path": path, "old_string": self.code(200), "new_string": self.code(260)}
        if name == "Bash":
            return {"command": f"python -m pytest -q {path}", "description": "Run the tests", "timeout": 120_000}
        return {"pattern": "def ", "path": path} if name == "Grep" else {"file_path": path, "offset": 1, "limit": 200}

    def tool(self, number: int) -> dict[str, Any]:
        name = (
            ("Read", "Edit", "Bash", "Grep")[number] if number < 4 else f"mcp__server{number % 7}__{WORDS[number % 40]}"
        )
        fields = {
            f"{self.random.choice(WORDS)}_{place}": {
                "type": self.random.choice(("string", "integer", "boolean")),
                "description": self.prose(90),
            }
            for place in range(4)
        }
        schema = {"type": "object", "properties": fields, "required": list(fields)[:2], "additionalProperties": False}
        return {"name": name, "description": self.prose(700), "input_schema": schema}

    def prose(self, size: int) -> str:
        words: list[str] = []
        while size > 0:
            word = self.random.choice(WORDS)
            words.append(word)
            size -= len(word) + 1
            if len(words) % 14 == 0:
                words[-1] += self.random.choice((".\n", ". ", " — ", ":\n- "))
        return " ".join(words)

    def code(self, size: int) -> str:
        lines: list[str] = []
        while size > 0:
            first, second, third = self.random.choices(WORDS, k=3)
            line = f'{len(lines) + 1:6}→    {first}_{second} = self.{third}("{second}", {first}[{size}])  # {third}'
            lines.append(line)
            size -= len(line)
        return "\n".join(lines)

    def hex(self, digits: int) -> str:
        return f"{self.random.getrandbits(4 * digits):0{digits}x}"

    def uuid(self) -> str:
        text = self.hex(32)
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def block(text: str, *, cached: bool = False) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "text", "text": text}
    return made | {"cache_control": {"type": "ephemeral"}} if cached else made


def compact(value: Any) -> bytes:
    """As JavaScript clients write it: no spaces, text as UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def bodies() -> dict[str, bytes]:
    """Name -> body."""
    return {
        "chat": json.dumps(chat()).encode(),
        "chat_new": json.dumps(chat(f"Incident {UNIQUE}. {NOTES[:812]}")).encode(),
        "chat_stream": json.dumps(chat(**USAGE)).encode(),
        "chat_stream_bare": json.dumps(chat(stream=True)).encode(),
        "chat_paced": json.dumps(chat(user="mock-paced", **USAGE)).encode(),
        "agent": compact(CodingAgent().body()),
    }


def write(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, body in bodies().items():
        (directory / f"{name}.json").write_bytes(body)
