from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.call import CacheHealth, ToolCall
from gateway.journal.record import EventRecord, OutcomeRecord
from gateway.policy.trace_ids import run_trace_id
from gateway.recorder.drops import Drops
from gateway.recorder.logs import Clock, LogProjection
from gateway.recorder.logs_line import FIELD_LIMIT, LINE_LIMIT
from gateway.recorder.logs_writer import FileSink, StdoutSink, Writer
from gateway.testing.telemetry_records import T0, call, streamed


class Memory:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        self.closed = True


def lines(*records: object) -> list[dict[str, object]]:
    sink, drops = Memory(), Drops()
    logs = LogProjection(sink, drops)
    logs.apply(records)  # type: ignore[arg-type]
    logs.close(30)
    assert sink.closed
    assert drops.counts() == {}
    assert sink.data.count(b"\n") == len(records)
    return [json.loads(line) for line in sink.data.splitlines()]


# -- lines -------------------------------------------------------------------------------------------------------------


def test_the_line_of_a_call() -> None:
    (line,) = lines(streamed(tools=(ToolCall("c0", "f", T0, 1),), sdk_retry=1))
    assert line == {
        "ts": "2026-09-21T14:13:21.500000Z",
        "level": "info",
        "event": "llm.call",
        "trace_id": run_trace_id("run-1"),
        "span_id": "b7ad6b7169203331",
        "trace_flags": 1,
        "request_id": "01K7Z0000000000000000CALL1",
        "method": "POST",
        "route": "/v1/chat/completions",
        "operation": "chat",
        "dialect": "openai_chat",
        "tenant": "acme",
        "agent": "researcher",
        "agent_source": "header",
        "agent_version": "2",
        "run_id": "run-1",
        "run_source": "header",
        "step": 1,
        "upstream": "openai",
        "provider": "openai",
        "server_address": "api.openai.com",
        "model_requested": "gpt-4o",
        "model_used": "gpt-4o-2024-08-06",
        "stream": True,
        "attempts": 1,
        "status": 200,
        "outcome": "ok",
        "input_tokens": 1000,
        "output_tokens": 200,
        "cache_read_tokens": 600,
        "cache_write_tokens": 0,
        "reasoning_tokens": 50,
        "usage_source": "provider",
        "cost_usd": 0.00375,
        "cost_status": "priced",
        "price_version": "genai-prices 0.2.3",
        "latency_ms": 1500.0,
        "ttft_ms": 300.0,
        "overhead_ms": 0.18,
        "finish_reasons": ["tool_calls"],
        "tool_names": ["get_weather"],
        "tool_results": 1,
        "request_bytes": 2048,
        "response_bytes": 900,
        "client_address": "127.0.0.1",
        "user_agent": "OpenAI/Python 3.54.0",
        "client_retry": 1,
        "worker": 0,
    }


def test_unknown_is_absent_and_zero_is_not() -> None:
    unknown, free = lines(
        call(usage=None, usage_source="none", cost=None, cost_status="no_usage", ttft_ns=-1, run_id=""),
        call(cost=0, cost_components={}, cost_status="free", ttft_ns=0),
    )
    assert not {"cost_usd", "input_tokens", "ttft_ms", "run_id"} & set(unknown)
    assert unknown["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert free["cost_usd"] == 0
    assert free["ttft_ms"] == 0


@pytest.mark.parametrize(
    ("changes", "level", "error"),
    [
        ({"outcome": "cancelled", "error_code": "client_gone"}, "info", None),
        ({"outcome": "upstream_error", "status": 404, "error_type": "not_found"}, "warning", "not_found"),
        ({"outcome": "upstream_error", "status": 503}, "error", "http_503"),
        ({"outcome": "refused", "status": 401, "error_code": "unauthorized"}, "warning", "unauthorized"),
        ({"outcome": "failed", "status": 502, "error_code": "upstream_reset"}, "error", "upstream_reset"),
        ({"outcome": "abandoned", "status": 0}, "error", "abandoned"),
    ],
)
def test_levels(changes: dict[str, object], level: str, error: str | None) -> None:
    (line,) = lines(call(**changes))
    assert (line["level"], line.get("error_type")) == (level, error)


def test_outcomes_and_events_have_lines_too() -> None:
    outcome, reload, died = lines(
        OutcomeRecord("o", T0, "run-1", "score", 0.5, "good"),
        EventRecord("e", T0, "reload"),
        EventRecord("e", T0, "worker_died", 2, {"signal": 9, "reason": "x\x1b[0m"}),
    )
    assert outcome == {"ts": "2026-09-21T14:13:20.000000Z", "level": "info", "event": "run.outcome", "run_id": "run-1",
                       "outcome": "score", "value": 0.5, "note": "good"}  # fmt: skip
    assert (reload["level"], reload["event"]) == ("info", "gateway.reload")
    assert (died["level"], died["worker"], died["detail"]) == ("error", 2, {"signal": 9, "reason": "x [0m"})


def test_a_call_without_an_operation_is_plain_http() -> None:
    assert lines(call(operation=""))[0]["event"] == "http.call"


NASTY = 'a\nb\r\tc\x1b[31m\x00\x7f\x9b\u2028\u202e\u2066"\\ü'


def test_nothing_in_a_line_moves_a_terminal_or_starts_another_line() -> None:
    sink = Memory()
    logs = LogProjection(sink, Drops())
    logs.apply([call(agent=NASTY, error_message=NASTY, model_requested=NASTY, tool_uses=(), finish_reasons=(NASTY,))])
    logs.close(30)
    text = sink.data.decode()
    assert text.count("\n") == 1
    line = json.loads(text)
    for value in (line["agent"], line["error_message"], line["model_requested"], *line["finish_reasons"]):
        assert not [c for c in value if ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c in "\u2028\u202e\u2066"]
        assert value.startswith("a b")
        assert value.endswith('"\\ü')


def test_harmless_text_stays_as_it_is() -> None:
    text = 'C:\\new\\table "quoted" ünïcödé 日本語'
    assert lines(call(agent=text))[0]["agent"] == text


def test_captured_content_keeps_its_lines() -> None:
    (line,) = lines(call(input_content=b'{"a":\n1}\x1b', output_content="data: ü\n\n".encode() + b"\xff"))
    assert line["input_content"] == '{"a":\n1} '
    assert line["output_content"] == "data: ü\n\n\ufffd"


def test_a_monstrous_field_is_cut() -> None:
    (line,) = lines(call(model_requested="m" * 10**6, finish_reasons=("x",) * 10**4))
    assert line["model_requested"] == "m" * FIELD_LIMIT
    assert len(json.dumps(line)) < LINE_LIMIT


@settings(deadline=None, max_examples=60)
@given(st.text(), st.dictionaries(st.text(), st.text() | st.floats() | st.booleans(), max_size=3), st.binary())
def test_any_text_gives_one_line_of_json(text: str, detail: dict[str, object], content: bytes) -> None:
    lines(call(agent=text, end_user=text, input_content=content), EventRecord("e", T0, text, detail=detail))  # type: ignore


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_time_has_a_text(ns: int) -> None:
    assert len(Clock().format(ns)) == len("2026-09-21T14:13:21.500000Z")


def test_a_second_is_formatted_once() -> None:
    clock = Clock()
    assert [clock.format(T0 + n * 10**9 + 1000) for n in (0, 1, 0)] == [
        "2026-09-21T14:13:20.000001Z", "2026-09-21T14:13:21.000001Z", "2026-09-21T14:13:20.000001Z"]  # fmt: skip
    for n in range(10_000):
        clock.format(T0 + n * 10**9)
    assert len(clock._seconds) <= 256


# -- writing -----------------------------------------------------------------------------------------------------------


def test_a_pipe_that_nobody_reads_costs_lines_and_nothing_else() -> None:
    reader, writer = os.pipe()
    drops = Drops()
    logs = LogProjection(StdoutSink(writer), drops, buffer_bytes=100_000)
    total = 3000  # about three megabytes: far more than pipe and buffer hold
    for _ in range(total):
        logs.apply([call()])
    dropped = drops.counts()[("logs", "buffer_full")]
    assert 0 < dropped < total
    closing = threading.Thread(target=logs.close, args=(0.1,))
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
    lost = sum(drops.counts().values())
    got = bytearray()
    os.set_blocking(reader, False)
    while logs._writer._thread.is_alive() or not got.endswith(b"\n"):
        try:
            got += os.read(reader, 1 << 20)
        except BlockingIOError:
            logs._writer._thread.join(0.01)
    assert got.count(b"\n") == total - lost
    os.close(reader)
    os.close(writer)


def test_a_reader_that_left_is_counted() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    drops = Drops()
    logs = LogProjection(StdoutSink(writer), drops)
    logs.apply([call(), call()])
    logs.close(30)
    assert drops.counts() == {("logs", "write_failed"): 2}
    os.close(writer)


def test_a_rotated_file_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "calls.log"
    sink = FileSink(str(path))
    sink.write(b"one\n")
    path.rename(tmp_path / "calls.log.1")
    sink.write(b"two\n")
    path.unlink()
    sink.write(b"three\n")
    sink.write(b"four\n")
    sink.close()
    assert (tmp_path / "calls.log.1").read_bytes() == b"one\n"
    assert path.read_bytes() == b"three\nfour\n"
    assert path.stat().st_mode & 0o077 == 0o040


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "calls.log"
    for _ in range(2):
        logs = LogProjection(str(path), Drops())
        logs.apply([call()])
        logs.close(30)
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 2


def test_a_folder_that_is_missing_costs_lines_until_it_is_there(tmp_path: Path) -> None:
    drops = Drops()
    logs = LogProjection(str(tmp_path / "logs" / "calls.log"), drops)
    logs.apply([call()])
    while not drops.counts():
        logs._writer._thread.join(0.01)
    (tmp_path / "logs").mkdir()
    logs.apply([call()])
    logs.close(30)
    assert drops.counts() == {("logs", "write_failed"): 1}
    assert len((tmp_path / "logs" / "calls.log").read_text().splitlines()) == 1


def test_after_a_torn_write_the_next_line_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up in the middle of a line."""
    sink = FileSink(str(tmp_path / "calls.log"))
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) == 9:
            return real(fd, data[:4])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        sink.write(b'{"a": 1}\n')
    monkeypatch.undo()
    sink.write(b'{"b": 2}\n')
    sink.close()
    assert (tmp_path / "calls.log").read_bytes() == b'{"a"\n{"b": 2}\n'


def test_what_is_left_at_the_end_is_counted() -> None:
    class Stuck(Memory):
        def __init__(self) -> None:
            super().__init__()
            self.entered, self.gate = threading.Event(), threading.Event()

        def write(self, data: bytes) -> None:
            self.entered.set()
            self.gate.wait(30)

    sink, drops = Stuck(), Drops()
    writer = Writer(sink, drops, 1000)
    writer.start()
    assert writer.offer(b"a\n", 1)
    assert sink.entered.wait(30)
    assert writer.offer(b"b\nc\n", 2)
    writer.close(0.05)
    assert drops.counts() == {("logs", "shutdown"): 2}
    sink.gate.set()
    writer._thread.join(30)


def test_budgets_and_signs_of_a_runaway_are_in_the_line() -> None:
    notes = {"loop": "cycle", "loop_action": "stop"}
    account = "run:r|usd|life"
    (line,) = lines(call(budget="refused", budget_account=account, key_id="key_1", depth=1, notes=notes))
    told = ("key_id", "depth", "budget", "budget_account", "budget_reserved_usd", "loop", "loop_action")
    assert [line[name] for name in told] == ["key_1", 1, "refused", account, 0.0, "cycle", "stop"]
    assert "budget_remaining_usd" not in line
    (line,) = lines(call(budget="granted", reserved=2_000_000, remaining=0))
    assert (line["budget_reserved_usd"], line["budget_remaining_usd"]) == (0.002, 0.0)
    (line,) = lines(call(prompt_cache=CacheHealth(9, 1, 9, 8, 2 * 10**12, "ttl", "", -1, "301 s passed")))
    assert (line["cache_hint"], line["cache_lost_usd"]) == ("301 s passed", 2.0)
    (line,) = lines(call())
    assert not {"cache_hint", "cache_lost_usd"} & line.keys()
    assert not {"budget", "budget_reserved_usd", "loop", "key_id", "depth"} & line.keys()
