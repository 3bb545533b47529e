"""`tollgate cache eval` and `tollgate cache embedder`, with an embedder that counts words."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gateway import cli
from gateway.commands import cache_eval, cache_stream
from gateway.commands.cache_stream import Recorded, judged, labelled
from gateway.errors import Rejected
from gateway.ports_semantic import Vectors
from gateway.semantic import parts
from gateway.testing.records import call_record

THINGS = ("barn", "tower", "bridge", "mill", "castle", "temple")
WAYS = ("who built the {}", "by whom was the {} built", "tell me who built the {}")


class Words:
    """Texts with the same words are near."""

    name, dimension = "words", 256

    def __init__(self, _: Path | None = None) -> None:
        pass

    def embed(self, texts: Sequence[str]) -> Vectors:
        found = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                found[row, zlib.crc32(word.encode()) % self.dimension] += 1
        return found / np.linalg.norm(found, axis=1, keepdims=True)  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(cache_eval, "MiniLM", Words)
    monkeypatch.setattr(parts, "require", lambda: tmp_path)


def rows(count: int) -> list[dict[str, str]]:
    draw = random.Random(1)
    found = []
    for _ in range(count):
        thing = draw.choice(THINGS)
        found.append({"text": draw.choice(WAYS).format(thing), "class": thing})
    return found


def write(path: Path, *, count: int = 200) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
    return path


def test_the_table_has_a_row_for_each_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "eval", str(write(tmp_path / "s.jsonl"))]) == 0
    out, progress = capsys.readouterr()
    lines = {line[:26].strip(): line[26:].split() for line in out.splitlines()[2:-1]}
    assert list(lines) == [
        *("exact only", "cosine >= 0.80", "cosine >= 0.85", "cosine >= 0.90", "cosine >= 0.95"),
        "verifier, 0.01 tolerated",
    ]
    texts = len({row["text"] for row in rows(200)})
    assert lines["exact only"][:3] == [f"{1 - texts / 200:.1%}", "0.0%", "0"]
    assert "18 texts to embed" in progress or "texts to embed: 18" in progress
    assert "verifier, 0.01 tolerated: 200" in progress


def test_questions_that_the_gateway_leaves_alone_are_asked_afresh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"what is the price of a red barn {when}" for when in ("today", "now", "here")] * 2 + ["the barn"]
    lines = [json.dumps({"text": text, "class": text}) for text in texts]
    path = tmp_path / "s.jsonl"
    path.write_text("\n".join(lines))
    assert cli.main(["cache", "eval", str(path)]) == 0
    out = capsys.readouterr().out
    name = "verifier, 0.01 tolerated"
    assert f"{name}: what was compared does not show that few enough are wrong" in out
    assert out.endswith("; for 3 questions no similar one is looked for (few_words 1, time 2)\n")
    (line,) = [line for line in out.splitlines() if line.startswith(f"{name}  ")]
    assert line[26:].split()[:2] == ["42.9%", "0.0%"], "equal ones are answered all the same"
    path.with_name("tollgate.yaml").write_text("cache: {semantic: {time_words: true}}\n")
    assert cli.main(["cache", "eval", str(path), "--config", str(path.with_name("tollgate.yaml"))]) == 0
    assert capsys.readouterr().out.endswith("; for 1 questions no similar one is looked for (few_words 1)\n")


def test_a_wrong_hit_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = [{"text": "the cost of a red barn", "class": "1"}, {"text": "the cost of a red mill", "class": "2"}]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, two)))
    assert cli.main(["cache", "eval", str(tmp_path / "s.jsonl")]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("cosine >= 0.80")]
    assert line[26:].split() == ["50.0%", "50.0%", "1", "100.00%", "20.65%", "-", "100.00%", "100.00%"]


def test_it_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "eval", str(write(tmp_path / "s.jsonl")), "--plot", "p.svg", "--target", "0.02"]) == 0
    svg = (tmp_path / "p.svg").read_text()
    assert svg.startswith("<svg")
    assert all(f">{label}<" in svg for label in ("0.80", "0.95", "1.0%", "2.0%", "4.0%"))
    assert "verifier, 0.04 tolerated" in capsys.readouterr().out


def test_compressed_lines_are_read(tmp_path: Path) -> None:
    plain = write(tmp_path / "s.jsonl", count=5)
    (tmp_path / "s.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert labelled(tmp_path / "s.jsonl.gz") == labelled(plain)
    assert [one.answer for one in labelled(plain)] == [row["class"] for row in rows(5)]


def test_what_other_programs_write_is_read(tmp_path: Path) -> None:
    """A byte order mark, lines that end as on Windows, classes that are numbers."""
    rows = b'\xef\xbb\xbf{"text": "a", "class": 7}\r\n{"class": "7", "more": [], "text": "b"}\r\n'
    (tmp_path / "s.jsonl").write_bytes(rows)
    assert [(one.text, one.answer) for one in labelled(tmp_path / "s.jsonl")] == [("a", "7"), ("b", "7")]


def test_a_compressed_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a", "class": "b"}\n')[:-12])
    with pytest.raises(Rejected, match=r"s\.jsonl\.gz: "):
        labelled(tmp_path / "s.jsonl.gz")


@pytest.mark.parametrize("target", ["0", "1", "1.5", "-0.1", "nan"])
def test_a_target_that_is_no_share_is_refused(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["cache", "eval", "s.jsonl", f"--target={target}"])
    assert "is no share" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["{", '{"text": "a"}', '{"text": 1, "class": "b"}', '"a"', ""])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "s.jsonl").write_text('{"text": "a", "class": "b"}\n' + line + "\n")
    with pytest.raises(Rejected, match=r"s\.jsonl:2: .*expected"):
        labelled(tmp_path / "s.jsonl")


def test_a_file_that_is_not_there_or_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "eval", "nowhere.jsonl"]) == 1
    (tmp_path / "s.jsonl").write_text("")
    assert cli.main(["cache", "eval", "s.jsonl"]) == 1
    assert "s.jsonl: no questions" in capsys.readouterr().err


def test_answers_that_say_the_same_are_one() -> None:
    calls = [
        Recorded("a", "It was built by Bob.", "p"),
        Recorded("b", "it was built by bob", "p"),
        Recorded("c", "It was built in 1901.", "q"),
        Recorded("d", "It was built in 1902.", "q"),
        Recorded("e", "it was certainly built by Bob.", "q"),
    ]
    found, unknown = judged(calls, Words())
    assert [one.answer for one in found] == ["0", "0", "1", "2", "3"]
    assert [one.part for one in found] == ["p", "p", "q", "q", "q"]
    assert unknown == 1


CHAT = {"model": "m", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]}
SAID = {"choices": [{"message": {"role": "assistant", "content": "Bob."}, "finish_reason": "stop"}]}


def call(asked: object, said: object, **more: object) -> Recorded | None:
    record = call_record(input_content=json.dumps(asked).encode(), output_content=json.dumps(said).encode(), **more)
    return cache_stream._recorded(record)


def test_a_recorded_call_is_its_last_question_and_its_answer() -> None:
    found = call(CHAT, SAID)
    assert found is not None
    assert (found.text, found.answer, found.before) == ("Who?", "Bob.", False)
    turns = [*CHAT["messages"], {"role": "assistant", "content": "Bob."}, {"role": "user", "content": "Who is he?"}]  # type: ignore[misc]
    found = call({**CHAT, "messages": turns}, SAID)
    assert found is not None
    assert (found.text, found.before) == ("Who is he?", True)
    assert [one.before for one in judged([found], Words())[0]] == [True]


def test_what_stands_before_the_question_parts_calls() -> None:
    other = {**CHAT, "messages": [{"role": "system", "content": "Be long."}, CHAT["messages"][1]]}  # type: ignore[index]
    again = {**CHAT, "messages": [CHAT["messages"][0], {"role": "user", "content": "Where?"}]}  # type: ignore[index]
    places = [getattr(call(body, SAID), "part", None) for body in (CHAT, again, other)]
    assert places[0] == places[1] != places[2]
    assert getattr(call(CHAT, SAID, tenant="else"), "part", None) != places[0]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, SAID),
        (CHAT, {}),
        (CHAT, {"choices": [SAID["choices"][0], SAID["choices"][0]]}),
        ({"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Bo"}]}, SAID),
        ({"messages": [{"role": "tool", "tool_call_id": "t", "content": "5"}]}, SAID),
        (CHAT, {"choices": [{"message": {"role": "assistant", "tool_calls": [{"id": "t", "function": {}}]}}]}),
    ],
)
def test_what_is_no_question_and_answer_in_text_is_left_out(asked: object, said: object) -> None:
    assert call(asked, said) is None


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(parts, "find_spec", lambda _: None)
    assert cli.main(["cache", "eval", "s.jsonl"]) == 1
    assert "pip install --no-deps" in capsys.readouterr().err
    assert cli.main(["cache", "embedder"]) == 1
    assert "not installed" in capsys.readouterr().out
