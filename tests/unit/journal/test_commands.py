from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.call import Money
from gateway.config.schema import Journal
from gateway.errors import UpstreamTimeout
from gateway.journal import commands
from gateway.journal.append import JournalWriter
from gateway.journal.record import OutcomeRecord
from gateway.journal.segment import listing


@pytest.fixture
def filled(journal: Path, make_call: Any) -> Path:
    writer = JournalWriter(journal, "w0", Journal(), worker=0, capture="full")
    writer.append(make_call("a"), -1)
    unpriced = make_call("b", money=Money(status="no_price"), fault=UpstreamTimeout("no\nanswer"), status=504)
    unpriced.who.run_id = "run-2"
    writer.append(unpriced, -1)
    writer.append_record(OutcomeRecord("o", 5, "run-2", "success", note="fine"))
    writer.append_event("reload", generation=2)
    writer.close()
    return journal


def cat(directory: Path, **options: Any) -> list[str]:
    out = io.StringIO()
    assert commands.cat(directory, out=out, **options) == 0
    return out.getvalue().splitlines()


def test_cat_for_people(filled: Path) -> None:
    lines = cat(filled)
    assert len(lines) == 4
    call = next(line for line in lines if line.endswith(" a"))
    assert " ok 200 gpt-4o-mini-2024-07-18 agent=coder run=run-1 100+20 tokens $0.000000 9.1ms a" in call
    failed = next(line for line in lines if "upstream_timeout" in line)
    assert "failed 504" in failed
    assert "$?" in failed  # unknown is not zero
    assert failed.endswith("upstream_timeout: no answer")
    assert any(line.endswith('success {"run_id":"run-2","note":"fine"}') for line in lines)


def test_cat_of_one_run(filled: Path) -> None:
    assert len(cat(filled, run="run-2")) == 2
    assert cat(filled, run="run-3") == []


def test_cat_as_json(filled: Path) -> None:
    records = {record["id"]: record for record in map(json.loads, cat(filled, json=True))}
    assert records["a"]["record"] == "call"
    assert records["a"]["usage"]["input_tokens"] == 100
    assert records["a"]["attempts"][0]["address"] == "api.openai.com"
    assert records["a"]["cost_usd"] == 1_234 / 10**12
    assert records["a"]["input_content"] == '{"model":"gpt-4o-mini"}'
    assert records["b"]["cost_usd"] is None
    assert records["o"]["record"] == "outcome"


def test_cat_follows_until_interrupted(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = []

    def sleep(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) == 2:
            raise KeyboardInterrupt
        JournalWriter(filled, "rec", Journal()).append_event("later")

    monkeypatch.setattr(commands.time, "sleep", sleep)  # type: ignore[attr-defined]
    assert [line for line in cat(filled, follow=True) if " later " in line]
    assert len(rounds) == 2


def test_cat_of_a_closed_pipe_ends_quietly(filled: Path) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    assert commands.cat(filled, out=Closed()) == 0


def test_verify(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.verify(filled) == 0
    said = capsys.readouterr().out
    assert "w0-00000001.tgj  4 records" in said
    assert "2 call, 1 event, 1 outcome (1 failed, 1 ok)" in said
    assert said.endswith("ok\n")


def test_verify_finds_damage_duplicates_and_gaps(
    filled: Path, capsys: pytest.CaptureFixture[str], make_call: Any
) -> None:
    for _ in range(3):
        writer = JournalWriter(filled, "w0", Journal(), worker=0)
        writer.append(make_call("a"), -1)
        writer.close()
    second, third = listing(filled)[1:3]
    third.path.unlink()
    data = bytearray(second.path.read_bytes())
    data[-3] ^= 1
    second.path.write_bytes(bytes(data) + second.path.read_bytes()[64:])
    assert commands.verify(filled, json=True) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["duplicates"] == 1
    assert report["missing"] == ["w0-00000003.tgj"]
    assert [segment["corrupt"] for segment in report["segments"]] == [0, 1, 0]
    assert commands.verify(filled) == 1
    said = capsys.readouterr().out
    assert "missing: w0-00000003.tgj" in said
    assert "1 damaged places" in said
    assert said.endswith("DAMAGED\n")
