from __future__ import annotations

import os
from pathlib import Path

from gateway.process.watch import FileWatch


def polls(watch: FileWatch, count: int = 3) -> list[bool]:
    return [watch.changed() for _ in range(count)]


def test_a_rewrite_counts_once_it_has_settled(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("a")
    watch = FileWatch([path])
    assert polls(watch) == [False] * 3
    path.write_text("b")
    assert polls(watch) == [False, True, False]


def test_a_file_that_is_still_being_written_waits(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("")
    watch = FileWatch([path])
    for n in range(5):
        path.write_text("x" * (n + 1))
        assert watch.changed() is False
    assert polls(watch) == [True, False, False]


def test_the_same_bytes_are_no_change(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("a")
    watch = FileWatch([path])
    (tmp_path / "new").write_text("a")
    (tmp_path / "new").rename(path)
    os.utime(path, (1, 1))
    assert polls(watch) == [False] * 3


def test_a_change_taken_back_in_time_is_none(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("a")
    watch = FileWatch([path])
    path.write_text("b")
    assert watch.changed() is False
    path.write_text("a")
    assert polls(watch) == [False] * 3


def test_replaced_links_of_links(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    (tmp_path / "data").symlink_to("one")
    (tmp_path / "f").symlink_to("data/f")
    watch = FileWatch([tmp_path / "f"])
    (tmp_path / "swap").symlink_to("two")
    (tmp_path / "swap").rename(tmp_path / "data")
    assert polls(watch) == [False, True, False]


def test_coming_and_going(tmp_path: Path) -> None:
    path = tmp_path / "f"
    watch = FileWatch([path])
    assert polls(watch) == [False] * 3
    path.write_text("a")
    assert polls(watch) == [False, True, False]
    path.unlink()
    assert polls(watch) == [False, True, False]


def test_what_is_watched_can_change(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("a")
    two.write_text("a")
    watch = FileWatch([one])
    watch.watch([two])
    one.write_text("b")
    assert polls(watch) == [False] * 3
    two.write_text("b")
    assert polls(watch) == [False, True, False]


def test_a_change_while_the_files_are_read_is_not_missed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("a")
    watch = FileWatch([path])
    path.write_text("b")
    assert polls(watch) == [False, True, False]
    read = watch.snapshot()
    path.write_text("c")  # after "b" was read, before it is in force
    watch.watch([path], read)
    assert True in polls(watch)
