"""The questions that have an answer, by partition, each with its vector: which of them are nearest to a new one?

Most partitions hold a few questions, some very many: each has an index of its own. No tenant displaces another: where
there are too many, the tenant with most of them loses its oldest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from msgspec import Struct

from gateway.ports_semantic import Vectors
from gateway.semantic.search import Index


class Question(Struct, frozen=True):
    """One that was answered. Its answer is on disk (gateway.matcher.memory)."""

    id: int
    partition: bytes
    scope: str
    tenant: str
    text: str
    key: bytes  # of the answer in the exact cache
    group: int  # questions with the same one have answers that mean the same
    created: int  # ns since the epoch
    cost: int  # pico-USD of the answer


class Shelf:
    """`most`: questions in all."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._parts: dict[bytes, Index] = {}
        self._by_id: dict[int, Question] = {}
        self._by_key: dict[bytes, int] = {}
        self._tenants: dict[str, OrderedDict[int, None]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Question]:
        return iter(self._by_id.values())

    def __contains__(self, partition: bytes) -> bool:
        return partition in self._parts

    def get(self, id: int) -> Question | None:
        return self._by_id.get(id)

    def of_key(self, key: bytes) -> Question | None:
        id = self._by_key.get(key)
        return None if id is None else self._by_id[id]

    def count(self, scope: str) -> int:
        return sum([question.scope == scope for question in self._by_id.values()])

    def add(self, question: Question, vector: Vectors) -> list[int]:
        """In the place of another of the same key. Returns the ids of those that had to go."""
        gone = []
        old = self._by_key.get(question.key)
        if old is not None:
            self.remove(old)
            gone.append(old)
        index = self._parts.get(question.partition)
        if index is None:
            index = self._parts[question.partition] = Index(len(vector))
        index.add(question.id, vector)
        self._by_id[question.id] = question
        self._by_key[question.key] = question.id
        self._tenants.setdefault(question.tenant, OrderedDict())[question.id] = None
        while len(self._by_id) > self.most:
            largest = max(self._tenants.values(), key=len)
            oldest = next(iter(largest))
            self.remove(oldest)
            gone.append(oldest)
        return gone

    def remove(self, id: int) -> None:
        question = self._by_id.pop(id, None)
        if question is None:
            return
        if self._by_key.get(question.key) == id:
            del self._by_key[question.key]
        index = self._parts[question.partition]
        index.remove(id)
        if not len(index):
            del self._parts[question.partition]
        kept = self._tenants[question.tenant]
        kept.pop(id, None)
        if not kept:
            del self._tenants[question.tenant]

    def clear(self) -> None:
        self._parts.clear()
        self._by_id.clear()
        self._by_key.clear()
        self._tenants.clear()

    def near(self, partition: bytes, vector: Vectors, most: int) -> Sequence[tuple[Question, float]]:
        """Nearest first, each with its cosine."""
        index = self._parts.get(partition)
        return () if index is None else [(self._by_id[found.id], found.cosine) for found in index.near(vector, most)]

    def wanting(self) -> Index | None:
        """One that has grown so much that it should be put in order anew."""
        return next((index for index in self._parts.values() if index.wanting), None)

    def older(self, created: int) -> list[int]:
        """Those from before."""
        return [id for id, question in self._by_id.items() if question.created < created]
