"""Questions by partition, and which of them are nearest."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from gateway.matcher.shelf import Question, Shelf

SIZE = 16


def question(id: int, partition: bytes = b"p", tenant: str = "t", **more: Any) -> Question:
    key = id.to_bytes(32, "big")
    return Question(**{
        "id": id, "partition": partition, "scope": "s", "tenant": tenant, "text": str(id), "key": key, "group": id,
        "created": id, "cost": 1, **more,
    })  # fmt: skip


def vector(seed: int) -> Any:
    found = np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
    return found / np.linalg.norm(found)


def test_the_nearest_come_first_and_only_those_of_the_partition() -> None:
    shelf = Shelf(1000)
    for id in range(1, 200):
        shelf.add(question(id, b"p" if id % 2 else b"q"), vector(id))
    asked = vector(0)
    found = shelf.near(b"p", asked, 8)
    exact = sorted([(float(vector(id) @ asked), id) for id in range(1, 200, 2)], reverse=True)[:8]
    assert [one.id for one, _ in found] == [id for _, id in exact]
    assert [cosine for _, cosine in found] == pytest.approx([cosine for cosine, _ in exact], abs=1e-6)
    assert shelf.near(b"nobody", asked, 8) == ()
    assert b"p" in shelf
    assert b"nobody" not in shelf


def test_it_is_right_after_any_adding_and_removing() -> None:
    shelf, draw = Shelf(10_000), random.Random(3)
    kept: dict[int, bytes] = {}
    for id in range(1, 600):
        if kept and draw.random() < 0.4:
            gone = draw.choice(list(kept))
            shelf.remove(gone)
            del kept[gone]
        part = draw.choice((b"p", b"q", b"r"))
        shelf.add(question(id, part), vector(id))
        kept[id] = part
        if id % 50 == 0:
            for partition in (b"p", b"q", b"r"):
                found = {one.id for one, _ in shelf.near(partition, vector(0), 10_000)}
                assert found == {id for id, where in kept.items() if where == partition}
    assert len(shelf) == len(kept)
    for id in list(kept):
        shelf.remove(id)
        shelf.remove(id)
    assert (len(shelf), b"p" in shelf) == (0, False)


def test_an_answer_of_the_same_key_takes_the_place_of_the_former() -> None:
    shelf = Shelf(10)
    shelf.add(question(1), vector(1))
    assert shelf.add(question(2, key=(1).to_bytes(32, "big")), vector(2)) == [1]
    assert len(shelf) == 1
    found = shelf.of_key((1).to_bytes(32, "big"))
    assert found is not None
    assert found.id == 2


def test_who_has_most_loses_its_oldest_and_nobody_else_any() -> None:
    shelf = Shelf(100)
    for id in range(1, 11):
        shelf.add(question(id, tenant="small", partition=b"s"), vector(id))
    gone = [id for number in range(100, 1000) for id in shelf.add(question(number, tenant="big"), vector(number))]
    assert gone == list(range(100, 910))
    assert len(shelf) == 100
    assert len(shelf.near(b"s", vector(0), 100)) == 10


def test_what_is_older_is_found_and_all_can_be_cleared() -> None:
    shelf = Shelf(100)
    for id in range(1, 11):
        shelf.add(question(id), vector(id))
    assert sorted(shelf.older(4)) == [1, 2, 3]
    shelf.clear()
    assert (len(shelf), list(shelf)) == (0, [])
