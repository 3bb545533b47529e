"""What `tollgate run` tells its command, and what it prints."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.commands import run as module
from gateway.commands.run import DUMMY, Limits, NotInForce, child_env, duration, impose, settled, text, usd
from gateway.commands.runs_options import is_name
from gateway.config.schema import Config, Upstream


def upstream(dialect: Any, key: str | None = None) -> Upstream:
    return Upstream(dialect=dialect, url="https://x.example", key=key)


REPORT: dict[str, Any] = {
    "id": "r1",
    "calls": 1234,
    "refused": 2,
    "errors": 2,
    "usage": {
        "input_tokens": 12345,
        "output_tokens": 678,
        "cache_read_tokens": 8000,
        "cache_write_tokens": 0,
        "reasoning_tokens": 0,
    },
    "cost_usd": 1.5,
    "unknown_cost_calls": 0,
    "tool_calls": 7,
    "tool_errors": 1,
    "saved_usd": 0.0123,
    "duration_ms": 1.0,
    "stopped": {"code": "run_stopped", "message": "it loops"},
    "complete": True,
}


class FakeAdmin:
    """Answers in order; the last one for ever."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, Any]] = []

    def ask(self, method: str, path: str, body: object = None) -> Any:
        self.asked.append((method, path, body))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_the_summary_is_complete_and_neat() -> None:
    shown = text(REPORT, ["claude", "-p", "do it"], Limits(budget_usd=2, max_calls=2000, max_tools=9), 133.2)
    assert shown == (
        "tollgate: run r1: claude -p 'do it'\n"
        "  cost     $1.50 of $2.00\n"
        "  calls    1,234 of 2,000 (2 refused)\n"
        "  tokens   12,345 in, 678 out; 8,000 of the input from the cache\n"
        "  tools    7 of 9 (1 failed)\n"
        "  saved    $0.0123 by prompt caching\n"
        "  took     2 min 13 s\n"
        "  stopped  run_stopped: it loops\n"
    )


def test_the_summary_says_what_it_does_not_know() -> None:
    report = {
        **REPORT,
        "cost_usd": None,
        "unknown_cost_calls": 3,
        "complete": False,
        "stopped": None,
        "saved_usd": -0.1,
    }
    shown = text(report, ["x"], Limits(), 0.05)
    assert "  cost     unknown\n" in shown
    assert "  note     the ledger lags behind" in shown
    assert "saved" not in shown
    assert "stopped" not in shown
    assert "$1.50, and 3 calls of unknown cost" in text({**report, "cost_usd": 1.5}, ["x"], Limits(), 1)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (59.4, "59.4 s"), (61, "1 min 1 s"), (3600, "1 h 0 min 0 s"), (7384, "2 h 3 min 4 s")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(0, "$0.00"), (2, "$2.00"), (0.5, "$0.50"), (0.01234, "$0.0123"), (4e-6, "< $0.0001"), (1234.567, "$1,234.57")],
)
def test_amounts(amount: float, shown: str) -> None:
    assert usd(amount) == shown


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("a", True),
        ("nightly-42:x@y.z", True),
        ("", False),
        ("-a", False),
        ("a/b", False),
        ("a" * 129, False),
        ("a\n", False),
    ],
)
def test_names_of_runs(name: str, good: bool) -> None:
    assert is_name(name) is good


def test_the_environment_of_the_command() -> None:
    env = {"PATH": "/bin", "OPENAI_BASE_URL": "https://elsewhere", "no_proxy": "127.0.0.1"}
    child = child_env(env, "http://127.0.0.1:9", "r1", "bot", Config())
    base = "http://127.0.0.1:9/run/r1/agent/bot"
    assert child == {
        "PATH": "/bin",
        "OPENAI_BASE_URL": f"{base}/v1",
        "OPENAI_API_BASE": f"{base}/v1",
        "ANTHROPIC_BASE_URL": base,
        "GOOGLE_GEMINI_BASE_URL": base,
        "TOLLGATE_RUN_ID": "r1",
        "no_proxy": "127.0.0.1",
        "NO_PROXY": "127.0.0.1",
    }
    assert env["OPENAI_BASE_URL"] == "https://elsewhere"


def test_apis_of_which_there_may_be_no_upstream_are_found_by_its_name() -> None:
    names = {"near": "ollama", "far": "ollama", "words": "cohere"}
    config = Config(upstreams={name: upstream(dialect, "k") for name, dialect in names.items()})
    child = child_env({"OLLAMA_HOST": "elsewhere"}, "http://127.0.0.1:9", "r", "", config)
    assert child["OLLAMA_HOST"] == "http://127.0.0.1:9/run/r/near"
    assert (child["CO_API_URL"], child["CO_API_KEY"]) == ("http://127.0.0.1:9/run/r/words", DUMMY)


def test_dummy_keys_only_where_the_gateway_has_its_own_and_nobody_else_has() -> None:
    config = Config(
        upstreams={"a": upstream("openai", "sk"), "b": upstream("anthropic", "sk"), "c": upstream("gemini")}
    )
    child = child_env({"ANTHROPIC_AUTH_TOKEN": "mine"}, "http://[::1]:9", "r", "", config)
    assert child["OPENAI_API_KEY"] == DUMMY
    assert "ANTHROPIC_API_KEY" not in child
    assert "GEMINI_API_KEY" not in child
    assert child["NO_PROXY"] == "::1"


def test_limits_are_imposed_before_anything_runs() -> None:
    admin = FakeAdmin({"in_force": False}, {"in_force": True})
    impose(admin, "a b", Limits(budget_usd=2, max_depth=0))  # type: ignore[arg-type]
    asked = ("PUT", "/api/runs/a%20b/limits", {"budget_usd": 2, "max_depth": 0, "by": "tollgate run"})
    assert admin.asked == [asked, asked]
    none = FakeAdmin({})
    impose(none, "r", Limits())  # type: ignore[arg-type]
    assert none.asked == []
    with pytest.raises(NotInForce):
        impose(FakeAdmin({"in_force": False}), "r", Limits(max_calls=1))  # type: ignore[arg-type]


def test_the_end_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    first, second = {"calls": 1, "complete": True}, {"calls": 2, "complete": True}
    admin = FakeAdmin(first, second, second)
    assert settled(admin, "r") == second  # type: ignore[arg-type]
    assert len(admin.asked) == 3
    late = {"calls": 1, "complete": False}
    assert settled(FakeAdmin(late), "r") == late  # type: ignore[arg-type]
    assert 3 < clock[0] < 5
