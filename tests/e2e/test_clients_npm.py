"""Command line agents in headless mode, straight against the fake provider and through the gateway.

`tests/e2e/install_clients.sh` installs them. Each runs in a home of its own, without updates and telemetry; whatever
it tries to reach but the loopback goes to a proxy that is not there.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway
from gateway.testing.twice import Played, Twice
from tests.e2e.conftest import upstreams

BIN = Path(__file__).parents[2] / ".clients" / "node_modules" / ".bin"
SECONDS = 100
DONE = "All finished, the marker was printed."
COMMAND = "echo marker-$((40+2))"


@dataclass(slots=True)
class Ended:
    status: int
    out: str
    err: str

    def lines(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]


@dataclass(slots=True)
class Home:
    """A home and a working directory for one client."""

    home: Path
    work: Path
    env: dict[str, str] = field(default_factory=dict)

    def run(self, name: str, *arguments: str, given: str = "") -> Ended:
        program = BIN / name
        if not program.exists():
            pytest.skip(f"{name} is not installed: run tests/e2e/install_clients.sh")
        nowhere = "http://127.0.0.1:9"
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "LANG": "C.UTF-8",
            "HTTP_PROXY": nowhere,
            "HTTPS_PROXY": nowhere,
            "NO_PROXY": "127.0.0.1,localhost",
            **self.env,
        }
        done = subprocess.run(
            [program, *arguments],
            env=env,
            cwd=self.work,
            input=given,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def make_home(tmp_path: Path) -> Callable[[], Home]:
    count = iter(range(100))

    def make() -> Home:
        base = tmp_path / str(next(count))
        home, work = base / "home", base / "work"
        home.mkdir(parents=True)
        work.mkdir()
        return Home(home, work)

    return make


@pytest.fixture(params=["direct", "gateway"])
def play(
    request: pytest.FixtureRequest, twice: Twice
) -> Callable[[Callable[[str], Ended]], tuple[Ended, Played | None]]:
    """Play a client on one of the two ways; records only where a gateway makes them."""

    def way(scenario: Callable[[str], Ended]) -> tuple[Ended, Played | None]:
        if request.param == "gateway":
            played = twice.through(scenario)
            return played.result, played
        twice.fake.reset(twice.salt)
        return scenario(twice.fake.url), None

    return way


Play = Callable[[Callable[[str], Ended]], tuple[Ended, Played | None]]
MakeHome = Callable[[], Home]


def script(tool: str, **arguments: Any) -> str:
    return f"Run it, please. [[tool {tool} {json.dumps(arguments)}]] [[then]] [[say {DONE}]]"


def assert_metered(played: Played, model: str) -> None:
    for call in played.calls:
        assert (call["model_requested"], call["outcome"], call["status"]) == (model, "ok", 200)
        assert call["usage_source"] == "provider"
        assert call["cost_usd"] > 0


def main_loop(played: Played) -> list[dict[str, Any]]:
    """The calls that carry the conversation, not the ones a client makes beside it (titles, summaries)."""
    return [call for call in played.calls if call["tool_uses"] or call["tools"]]


def claude(make_home: MakeHome, url: str, prompt: str, *more: str) -> Ended:
    place = make_home()
    place.env = {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "sk-ant-e2e-dummy",
        "ANTHROPIC_MODEL": "claude-sonnet-5",
        "CLAUDE_CONFIG_DIR": str(place.home / ".claude"),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_TELEMETRY": "1",
        "IS_SANDBOX": "1",
    }
    return place.run("claude", "-p", prompt, "--output-format", "json", "--allowedTools", "Bash,Agent,Task", *more)


def test_claude_code(make_home: MakeHome, play: Play) -> None:
    ended, played = play(lambda url: claude(make_home, url, script("Bash", command=COMMAND, description="Print")))
    assert ended.status == 0, ended.err
    (report,) = ended.lines()
    assert (report["result"], report["is_error"], report["num_turns"]) == (DONE, False, 2)
    if played is None:
        return
    assert b"marker-42" in played.requests[-1].body
    assert played.run() == report["session_id"]
    assert {call["run_source"] for call in played.calls} == {"vendor"}
    assert_metered(played, "claude-sonnet-5")
    first, second = main_loop(played)
    assert (first["step"], second["step"]) == (1, 2)
    assert [use["name"] for use in first["tool_uses"]] == ["Bash"]
    assert [(tool["name"], tool["exact"], tool["is_error"]) for tool in second["tools"]] == [("Bash", True, False)]
    assert first["request_class"] == "main"
    used = report["usage"]
    wanted = used["input_tokens"] + used["cache_creation_input_tokens"] + used["cache_read_input_tokens"]
    assert sum(call["usage"]["input_tokens"] for call in (first, second)) == wanted
    assert sum(call["usage"]["output_tokens"] for call in (first, second)) == used["output_tokens"]


def test_claude_code_with_a_sub_agent(make_home: MakeHome, play: Play) -> None:
    inner = f"[[tool Bash {json.dumps({'command': COMMAND, 'description': 'Print'})}]] [[then]] [[say Sub-agent done.]]"
    task = {"description": "Print", "prompt": f"Print it. {inner}", "subagent_type": "general-purpose"}
    ended, played = play(lambda url: claude(make_home, url, script("Agent", run_in_background=False, **task)))
    assert ended.status == 0, ended.err
    (report,) = ended.lines()
    assert report["result"] == DONE
    if played is None:
        return
    assert played.run() == report["session_id"]
    agents = {call["agent"] for call in played.calls}
    assert len(agents) == 2
    parents = {call["parent_agent"] for call in played.calls if call["request_class"] == "subagent"}
    assert parents
    assert parents <= agents
    assert_metered(played, "claude-sonnet-5")


def test_claude_code_survives_an_overloaded_provider(make_home: MakeHome, play: Play) -> None:
    prompt = f"Go on. [[fault 529 times=1 retry_after=1]] [[say {DONE}]]"
    ended, played = play(lambda url: claude(make_home, url, prompt))
    assert ended.status == 0, ended.err
    assert ended.lines()[0]["result"] == DONE
    if played is not None:
        assert [call["status"] for call in played.calls][:2] == [529, 200]
        assert played.run() == ended.lines()[0]["session_id"]


def codex(make_home: MakeHome, url: str, prompt: str) -> Ended:
    place = make_home()
    settings = place.home / ".codex"
    settings.mkdir()
    (settings / "config.toml").write_text(
        f"""
model = "gpt-5"
model_provider = "gate"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false

[model_providers.gate]
name = "gate"
base_url = "{url}/v1"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
request_max_retries = 2

[analytics]
enabled = false
"""
    )
    place.env = {"CODEX_HOME": str(settings), "OPENAI_API_KEY": "sk-e2e-dummy"}
    return place.run("codex", "exec", "--skip-git-repo-check", "--json", prompt)


def test_codex(make_home: MakeHome, play: Play) -> None:
    ended, played = play(lambda url: codex(make_home, url, script("exec_command", cmd=COMMAND)))
    assert ended.status == 0, ended.err
    events = ended.lines()
    done = [event["item"] for event in events if event["type"] == "item.completed"]
    assert [item["text"] for item in done if item["type"] == "agent_message"] == [DONE]
    (command,) = [item for item in done if item["type"] == "command_execution"]
    assert (command["aggregated_output"], command["exit_code"]) == ("marker-42\n", 0)
    if played is None:
        return
    thread = next(event["thread_id"] for event in events if event["type"] == "thread.started")
    assert played.run() == thread
    assert {call["run_source"] for call in played.calls} == {"vendor"}
    assert_metered(played, "gpt-5")
    first, second = main_loop(played)
    assert (first["step"], second["step"]) == (1, 2)
    assert [tool["name"] for tool in second["tools"]] == ["exec_command"]
    used = next(event["usage"] for event in events if event["type"] == "turn.completed")
    assert sum(call["usage"]["input_tokens"] for call in played.calls) == used["input_tokens"]
    assert sum(call["usage"]["cache_read_tokens"] for call in played.calls) == used["cached_input_tokens"]
    assert sum(call["usage"]["output_tokens"] for call in played.calls) == used["output_tokens"]


def test_codex_tries_a_cut_stream_again(make_home: MakeHome, play: Play) -> None:
    prompt = f"Go on. [[fault eof after=6 times=1]] [[say {DONE}]]"
    ended, played = play(lambda url: codex(make_home, url, prompt))
    assert ended.status == 0, ended.err
    done = [event["item"] for event in ended.lines() if event["type"] == "item.completed"]
    assert [item["text"] for item in done if item["type"] == "agent_message"][-1] == DONE
    if played is not None:
        assert [call["outcome"] for call in played.calls] == ["truncated", "ok"]
        assert played.run()


def opencode(make_home: MakeHome, url: str, prompt: str) -> Ended:
    place = make_home()
    models = {"gpt-4o": {"name": "GPT-4o"}, "gpt-4o-mini": {"name": "GPT-4o mini"}}
    options = {"baseURL": f"{url}/v1", "apiKey": "sk-e2e-dummy"}
    settings = {
        "autoupdate": False,
        "share": "disabled",
        "model": "gate/gpt-4o",
        "small_model": "gate/gpt-4o-mini",
        "permission": {"bash": "allow"},
        "provider": {
            "gate": {"npm": "@ai-sdk/openai-compatible", "name": "gate", "options": options, "models": models}
        },
    }
    (place.work / "opencode.json").write_text(json.dumps(settings))
    switches = ("AUTOUPDATE", "DEFAULT_PLUGINS", "LSP_DOWNLOAD", "MODELS_FETCH")
    place.env = {f"OPENCODE_DISABLE_{switch}": "1" for switch in switches}
    return place.run("opencode", "run", given=prompt)  # as an argument its quotes would not survive


def test_opencode(make_home: MakeHome, play: Play) -> None:
    ended, played = play(lambda url: opencode(make_home, url, script("bash", command=COMMAND, description="Print")))
    assert ended.status == 0, ended.err
    assert ended.out.strip() == DONE
    assert "marker-42" in ended.err
    if played is None:
        return
    session = played.requests[0].header("x-session-id")
    assert played.run() == session
    assert {call["run_source"] for call in played.calls} == {"vendor"}
    first, second = main_loop(played)
    assert first["step"] < second["step"]
    assert [tool["name"] for tool in second["tools"]] == ["bash"]
    for call in played.calls:
        assert (call["outcome"], call["usage_source"]) == ("ok", "provider")
        assert call["model_requested"] in {"gpt-4o", "gpt-4o-mini"}
        assert call["cost_usd"] > 0


CLIENTS: dict[str, Callable[[MakeHome, str, str], Ended]] = {"claude": claude, "codex": codex, "opencode": opencode}


@pytest.fixture
def broke(fake: FakeUpstream) -> Iterator[RunningGateway]:
    """A gateway whose runs may spend a hundred-thousandth of a dollar."""
    with RunningGateway(upstreams(fake.url), runs={"budget_usd": 0.00001}) as running:
        yield running


@pytest.mark.parametrize("name", CLIENTS)
def test_a_spent_budget_ends_an_agent_at_once(name: str, make_home: MakeHome, broke: RunningGateway) -> None:
    """A refusal for its budget is not tried again: the agent ends with the reason, and nothing reaches the provider."""
    ended = CLIENTS[name](make_home, broke.url, f"Say it. [[say {DONE}]]")
    said = ended.out + ended.err
    assert DONE not in ended.out
    assert "budget" in said or "quota" in said.lower(), said[-2000:]
    calls = [call for call in broke.calls(1) if call["outcome"] == "refused"]
    asked = [call for call in calls if call["error"]["code"] == "budget_exceeded"]
    assert 1 <= len(asked) <= (1 if name == "codex" else 4), [
        (call["route"], call["model_requested"]) for call in calls
    ]
    assert not [call for call in broke.calls(1) if call["cost_usd"]]
