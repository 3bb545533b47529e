"""The nearest vectors by cosine: among all of them while they are few, among the likeliest lists when they are many.

Theory of operation
* Vectors have length one; what is nearest has the largest inner product. Up to `FEW` all are multiplied.
* More are kept in lists, each around a centre found by k-means on the sphere (an inverted file: Sivic and Zisserman
  2003). A question looks into the lists whose centres are nearest. What is alike by .8 and more is nearly always in
  one of them; what is farther may be missed, and is of no use here.
* Vectors come and go at any time; each goes to the list of its nearest centre. When they have become many times what
  the centres were found from, `wanting` says so, and the caller decides when: `training()` is a copy to work on,
  wherever; its `run()` takes seconds; `adopt()` takes the outcome with what has changed meanwhile. There is no thread
  and no clock in here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gateway.ports_semantic import Vectors

FEW = 5_000
_LISTS_PER_ROOT = 1.6  # lists for the square root of the number of vectors
_PROBED = 10  # lists that a question looks into
_AGAIN = 2.0  # growth after which centres are to be found anew
_SAMPLE_PER_LIST, _ROUNDS = 40, 8
_CHUNK = 4_096  # vectors that are assigned at once
_LEAST = 8  # places of a new list


class Found(Struct, frozen=True, gc=False):
    id: int
    cosine: float


class _List:
    """Some vectors in one block, with room to grow."""

    __slots__ = ("ids", "size", "vectors")

    def __init__(self, ids: NDArray[np.int64], vectors: Vectors) -> None:
        self.ids, self.vectors, self.size = ids, vectors, len(ids)

    def add(self, number: int, vector: Vectors) -> int:
        if self.size == len(self.ids):
            more = max(_LEAST, self.size // 2)
            self.ids = np.concatenate([self.ids, np.zeros(more, np.int64)])
            self.vectors = np.concatenate([self.vectors, np.zeros((more, self.vectors.shape[1]), np.float32)])
        self.ids[self.size], self.vectors[self.size] = number, vector
        self.size += 1
        return self.size - 1

    def remove(self, row: int) -> int:
        """Returns the id of the vector that took its place, its own if none did."""
        last = self.size - 1
        moved = int(self.ids[last])
        self.ids[row], self.vectors[row] = self.ids[last], self.vectors[last]
        self.size = last
        return moved


class Training:
    """A copy of an index to find centres for. `run` may be called in any thread."""

    def __init__(self, ids: NDArray[np.int64], vectors: Vectors) -> None:
        self.ids, self.vectors = ids, vectors
        self.centres: Vectors | None = None
        self.lists: list[_List] = []

    def run(self) -> None:
        count = max(1, round(_LISTS_PER_ROOT * math.sqrt(len(self.ids))))
        centres = _centres(self.vectors, count)
        homes = np.concatenate(
            [
                (self.vectors[start : start + _CHUNK] @ centres.T).argmax(1)
                for start in range(0, len(self.vectors), _CHUNK)
            ]
        )
        order = np.argsort(homes, kind="stable")
        edges = np.searchsorted(homes[order], np.arange(len(centres) + 1))
        for start, end in pairwise(edges.tolist()):
            rows = order[start:end]
            self.lists.append(_List(self.ids[rows], self.vectors[rows]))
        self.centres = centres


def _centres(vectors: Vectors, count: int) -> Vectors:
    """By k-means on the sphere from evenly spread vectors: the same vectors give the same centres."""
    step = max(1, len(vectors) // (count * _SAMPLE_PER_LIST))
    sample = vectors[::step]
    centres = sample[np.linspace(0, len(sample) - 1, count).astype(np.int64)].copy()
    for _ in range(_ROUNDS):
        homes = (sample @ centres.T).argmax(1)
        order = np.argsort(homes, kind="stable")
        filled, starts = np.unique(homes[order], return_index=True)
        centres[filled] = np.add.reduceat(sample[order], starts, axis=0)
        centres[filled] /= np.maximum(np.linalg.norm(centres[filled], axis=1, keepdims=True), 1e-12)
    return centres


class Index:
    """Vectors by number. Not for several threads at once."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._centres: Vectors | None = None
        self._lists = [_List(np.zeros(0, np.int64), np.zeros((0, dimension), np.float32))]
        self._at: dict[int, tuple[int, int]] = {}  # id -> list, row
        self._trained = 0  # vectors that the centres were found from

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, number: int) -> bool:
        return number in self._at

    def add(self, number: int, vector: Vectors) -> None:
        """In place of what has this number."""
        self.remove(number)
        home = 0 if self._centres is None else int((self._centres @ vector).argmax())
        self._at[number] = (home, self._lists[home].add(number, vector))

    def remove(self, number: int) -> bool:
        place = self._at.pop(number, None)
        if place is None:
            return False
        home, row = place
        moved = self._lists[home].remove(row)
        if moved != number:
            self._at[moved] = place
        return True

    def vector(self, number: int) -> Vectors:
        home, row = self._at[number]
        found: Vectors = self._lists[home].vectors[row]
        return found

    def near(self, vector: Vectors, count: int) -> list[Found]:
        """At most `count`, nearest first."""
        ids, cosines = [], []
        for home in self._likely(vector):
            one = self._lists[home]
            if one.size:
                ids.append(one.ids[: one.size])
                cosines.append(one.vectors[: one.size] @ vector)
        if not ids:
            return []
        every, numbers = np.concatenate(cosines), np.concatenate(ids)
        best = np.argpartition(every, -count)[-count:] if count < len(every) else np.arange(len(every))
        found = [Found(int(numbers[row]), float(every[row])) for row in best]
        return sorted(found, key=_order)

    def _likely(self, vector: Vectors) -> Sequence[int]:
        if self._centres is None:
            return (0,)
        if len(self._centres) <= _PROBED:
            return range(len(self._centres))
        found: list[int] = np.argpartition(self._centres @ vector, -_PROBED)[-_PROBED:].tolist()
        return found

    # -- finding centres --------------------------------------------------------------------------------------------

    @property
    def wanting(self) -> bool:
        """Are new centres worth their cost?"""
        return len(self) > FEW and len(self) >= _AGAIN * self._trained

    def training(self) -> Training:
        return Training(
            np.concatenate([one.ids[: one.size] for one in self._lists]),
            np.concatenate([one.vectors[: one.size] for one in self._lists]),
        )

    def adopt(self, done: Training) -> None:
        """Take the centres found, and bring what was added, removed or replaced since the copy was made."""
        before, lists = self._at, self._lists
        self._centres, self._lists, self._trained = done.centres, done.lists, len(done.ids)
        self._at = {
            int(number): (home, row)
            for home, one in enumerate(self._lists)
            for row, number in enumerate(one.ids.tolist())
        }
        for number in [number for number in self._at if number not in before]:
            self.remove(number)
        for number, (home, row) in before.items():
            vector = lists[home].vectors[row]
            if number not in self._at or not np.array_equal(self.vector(number), vector):
                self.add(number, vector)


def _order(one: Found) -> tuple[float, int]:
    return -one.cosine, one.id
