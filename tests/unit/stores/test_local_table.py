"""The in-process table behaves as the shared one does, and stays within its bound."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.stores.local_table import ENTRY_BYTES, LocalTable
from gateway.stores.shared_table import SharedTable


def test_what_was_put_is_found_and_replaced() -> None:
    table = LocalTable(8)
    table.put(b"a", b"1")
    assert table.get(b"a") == b"1"
    table.put(b"a", b"2")
    assert table.get(b"a") == b"2"
    assert table.get(b"b") is None


def test_what_was_put_again_is_forgotten_later() -> None:
    table = LocalTable(2)
    for key in (b"a", b"b", b"a", b"c"):
        table.put(key, b"1")
    assert (table.get(b"a"), table.get(b"b"), table.get(b"c")) == (b"1", None, b"1")


@given(st.lists(st.integers(0, 10_000), max_size=400), st.integers(2, 50))
def test_bounded_and_the_latest_are_kept(keys: list[int], entries: int) -> None:
    table = LocalTable(entries)
    for key in keys:
        table.put(str(key).encode(), b"v")
        assert len(table) <= entries
    for key in keys[-entries:]:
        assert table.get(str(key).encode()) == b"v"


@given(st.lists(st.tuples(st.sampled_from([b"k" * 16, b"l" * 16]), st.binary(max_size=5)), max_size=30))
def test_update_does_what_the_shared_table_does(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bytes, bytes]]
) -> None:
    path: Path = tmp_path_factory.mktemp("links") / "links"
    local, shared = LocalTable(1000), SharedTable(path, 64)
    for key, data in steps:
        for table in (local, shared):
            table.update(key, lambda old, data=data: None if data == b"" else (old or b"")[-20:] + data)
    for key in (b"k" * 16, b"l" * 16):
        assert local.get(key) == shared.get(key)
    shared.close()


def test_a_value_over_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="200 is the limit"):
        LocalTable(4).put(b"k", b"x" * 201)


def test_the_oldest_give_way_and_some_always_stay() -> None:
    table = LocalTable(80)
    for number in range(80):
        table.put(b"%d" % number, b"v")
    held = table.held
    assert (held, table.full) == (80 * ENTRY_BYTES, 80 * ENTRY_BYTES)
    assert table.give_way(held // 2) == held // 2
    assert (table.get(b"39"), table.get(b"40")) == (None, b"v")
    table.put(b"new", b"v")
    assert len(table) == 40
    table.give_way(0)
    assert len(table) == 10
    assert table.get(b"new") == b"v"
    table.give_way(None)
    for number in range(200):
        table.put(b"%d" % number, b"v")
    assert len(table) == 80


def test_what_an_entry_is_reckoned_to_take_is_what_it_takes() -> None:
    """Measured by the allocator of Python, which takes no more than it is asked for but for rounding."""
    table = LocalTable(20_000)
    tracemalloc.start()
    try:
        for number in range(20_000):
            table.put(b"%016d" % number, b"x" * (number % 100))
        taken = tracemalloc.get_traced_memory()[0] / 20_000
    finally:
        tracemalloc.stop()
    assert 0.5 * ENTRY_BYTES < taken < 2 * ENTRY_BYTES
