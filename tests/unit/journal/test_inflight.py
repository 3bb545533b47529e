from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.call import Asked, Who
from gateway.journal.inflight import PAGE, SLOT, SLOTS_MAX, InFlight, parse, read_gauges

TOKEN = b"12345678"


def left_in(table: InFlight) -> list[str]:
    assert table.path is not None
    left = parse(table.path.read_bytes())
    assert left is not None
    return [intent.id for intent in left.intents]


def test_a_call_is_there_from_begin_to_clear(tables: Path, make_call: Any) -> None:
    table = InFlight(tables, "w3", TOKEN, worker=3, now=7)
    call = make_call("a")
    slot = table.begin(call)
    assert table.path is not None
    left = parse(table.path.read_bytes())
    assert left is not None
    assert (left.writer, left.worker, left.created, left.token) == ("w3", 3, 7, TOKEN)
    (intent,) = left.intents
    assert (intent.id, intent.started_at, intent.method, intent.route) == (
        "a",
        call.started_at,
        "POST",
        call.route.template,
    )
    assert (intent.tenant, intent.agent, intent.run_id, intent.step) == ("acme", "coder", "run-1", 2)
    assert (intent.dialect, intent.upstream, intent.model) == ("openai_chat", "openai", "gpt-4o-mini")
    assert (intent.trace_id, intent.span_id, intent.parent_span_id) == ("a" * 32, "b" * 16, "c" * 16)
    table.clear(slot)
    assert left_in(table) == []
    table.close()
    assert list(tables.iterdir()) == []


def test_slots_are_used_again_and_grow_as_needed(tables: Path, make_call: Any) -> None:
    table = InFlight(tables, "w0", TOKEN, slots=4)
    slots = [table.begin(make_call(f"a{n}")) for n in range(10)]
    assert len(set(slots)) == 10
    assert sorted(left_in(table)) == sorted(f"a{n}" for n in range(10))
    for slot in slots[:9]:
        table.clear(slot)
    assert left_in(table) == ["a9"]
    again = [table.begin(make_call(f"b{n}")) for n in range(9)]
    assert max(again) < 16
    assert len(table) == 10
    assert table.overflows == 0


def test_a_table_that_cannot_grow_counts(tables: Path, make_call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table = InFlight(tables, "w0", TOKEN, slots=2)

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    slots = [table.begin(make_call(f"a{n}")) for n in range(4)]
    assert slots[2:] == [-1, -1]
    assert table.overflows == 2
    assert table.gauges.get("inflight_overflows") == 2
    table.clear(-1)
    table.clear(slots[0])
    assert table.begin(make_call("b")) == slots[0]


def test_the_table_is_bounded(tables: Path) -> None:
    table = InFlight(tables, "w0", TOKEN, slots=SLOTS_MAX)
    for _ in range(SLOTS_MAX):
        assert table.put(b"x") >= 0
    assert table.put(b"x") == -1


@pytest.mark.parametrize(
    "changes",
    [
        {"asked": Asked(model="m" * 5000)},
        {"asked": Asked(model="\N{GRINNING FACE}" * 500), "who": Who(run_id="\N{GRINNING FACE}" * 500)},
        {"asked": Asked(model="\ud800" * 500)},
        {"who": Who(tenant="t" * 900, agent="a" * 900, run_id="r" * 900)},
    ],
)
def test_whatever_is_too_long_keeps_the_id(tables: Path, make_call: Any, changes: dict[str, Any]) -> None:
    table = InFlight(tables, "w0", TOKEN)
    table.begin(make_call("i" * 64, **changes))
    assert left_in(table) == ["i" * 64]


def test_the_space_is_there_from_the_start(tables: Path) -> None:
    table = InFlight(tables, "w0", TOKEN, slots=100)
    assert table.path is not None
    assert table.path.stat().st_size == PAGE + 100 * SLOT
    assert table.path.stat().st_blocks * 512 >= PAGE + 100 * SLOT


def test_a_half_written_slot_is_free(tables: Path, make_call: Any) -> None:
    table = InFlight(tables, "w0", TOKEN)
    slot = table.begin(make_call("a"))
    assert table.path is not None
    with table.path.open("r+b") as file:
        file.seek(PAGE + slot * SLOT + 20)
        file.write(b"\xff\xff")
    assert left_in(table) == []


def test_gauges(tables: Path) -> None:
    first, second = InFlight(tables, "w0", TOKEN), InFlight(tables, "w1", b"87654321")
    first.gauges.set("connections", 3)
    first.gauges.set("loop_lag_seconds", 0.25)
    first.gauges.set("connections", 4)
    first.gauges.add("seen")
    first.gauges.add("seen", 2)
    assert first.gauges.get("seen") == 3
    assert first.gauges.get("never") == 0
    assert read_gauges(tables) == {"w0": {"connections": 4, "loop_lag_seconds": 0.25, "seen": 3}, "w1": {}}
    second.close()
    assert list(read_gauges(tables)) == ["w0"]


def test_gauges_have_bounds(tables: Path) -> None:
    table = InFlight(tables, "w0", TOKEN)
    for n in range(96):
        table.gauges.set(f"g{n}", n)
    with pytest.raises(ValueError, match="no place"):
        table.gauges.set("one_more", 1)
    with pytest.raises(ValueError, match="no place"):
        InFlight.anonymous("w0", TOKEN).gauges.set("n" * 33, 1)
    assert read_gauges(tables)["w0"] == {f"g{n}": n for n in range(96)}


def test_gauges_of_the_dead_are_left_out(tables: Path) -> None:
    table = InFlight(tables, "w0", TOKEN)
    copy = tables / "w9-1-00.mm"
    assert table.path is not None
    copy.write_bytes(table.path.read_bytes())  # nobody holds it
    assert list(read_gauges(tables)) == ["w0"]


def test_an_anonymous_table_only_counts(make_call: Any) -> None:
    table = InFlight.anonymous("w0", TOKEN)
    assert table.begin(make_call()) == -1
    table.clear(-1)
    table.gauges.set("x", 1)
    table.close()
    table.close()


def test_what_is_left_in_it_keeps_the_file(tables: Path, make_call: Any) -> None:
    table = InFlight(tables, "w0", TOKEN)
    table.begin(make_call("a"))
    table.close()
    assert left_in(table) == ["a"]


@pytest.mark.parametrize("data", [b"", b"x" * PAGE, b"TGI\r\n\x1a\n\x00" + b"\xff" * PAGE])
def test_other_files_are_no_tables(data: bytes) -> None:
    assert parse(data) is None


def test_a_file_of_another_user_hides_no_other(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, living = InFlight(tables, "w0", TOKEN), InFlight(tables, "w1", b"87654321")
    living.gauges.set("seen", 1)
    real = open

    def open_(path: Any, *rest: Any, **options: Any) -> Any:
        if path == left.path:
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **options)

    monkeypatch.setattr("builtins.open", open_)
    assert read_gauges(tables) == {"w1": {"seen": 1}}
