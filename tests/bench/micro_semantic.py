"""`python -m tests.bench.micro_semantic [--rounds N]`: milliseconds of one core for each part of a semantic lookup.

`embed`: a question by the built-in embedder, where it is installed. `search`: the eight nearest of so many questions,
generated as subjects, questions and rewordings; with the share of the nearest that was found where it is alike by .8
and more. `verify`: what guards and verifier make of eight neighbours. Median and 90th percentile of CPU time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.policy.semantic_scope import NEIGHBOURS, Entry, Near, Scope
from gateway.policy.semantic_text import Said
from gateway.ports_semantic import Vectors
from gateway.semantic import parts
from gateway.semantic.minilm import DIMENSION, MiniLM
from gateway.semantic.search import Index

import numpy as np  # isort: skip - after gateway.semantic, which says how many threads

SIZES = (1000, 5000, 20_000, 100_000)
ROUNDS = 300
BOUND_MS = 1.0  # of a search among 100,000
QUESTIONS = (
    "How do I find out who teaches the course on {} this year?",
    "Is there a lab for {}, and do I need it?",
    "Which course on {} is the easiest one to begin with?",
    "Can I take {} without having passed the one before?",
)
THINGS = ("databases", "medieval history", "organic chemistry", "jazz", "compilers", "ethics", "botany", "statistics")


def vectors(count: int, seed: int) -> Vectors:
    draw = np.random.default_rng(seed)
    subjects = draw.standard_normal((60, DIMENSION), np.float32)
    kernels = subjects[draw.integers(0, 60, count // 10)] + draw.standard_normal((count // 10, DIMENSION), np.float32)
    found = draw.standard_normal((count, DIMENSION), np.float32)
    found *= draw.uniform(0.1, 0.9, (count, 1)).astype(np.float32)
    found += kernels[draw.integers(0, len(kernels), count)]
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def timed(work: Sequence[Callable[[], object]]) -> str:
    took = []
    for one in work:
        began = time.thread_time_ns()
        one()
        took.append((time.thread_time_ns() - began) / 1e6)
    return f"{statistics.median(took):7.3f} {statistics.quantiles(took, n=10)[-1]:7.3f}"


def search(size: int, rounds: int) -> str:
    everything = vectors(size + rounds, 1)
    index, asked = Index(DIMENSION), everything[size:]
    for number, vector in enumerate(everything[:size]):
        index.add(number, vector)
    if index.wanting:
        training = index.training()
        training.run()
        index.adopt(training)
    alike = best = 0
    for one in asked:
        cosines = everything[:size] @ one
        if cosines.max() >= 0.8:
            alike += 1
            best += index.near(one, 1)[0].id == cosines.argmax()
    took = timed([lambda one=one: index.near(one, NEIGHBOURS) for one in asked])  # type: ignore[misc]
    return f"{took}   recall {best / max(1, alike):.3f} of {alike}"


def verify(rounds: int) -> str:
    texts = [way.format(thing) for thing in THINGS for way in QUESTIONS]
    entries = [Entry(number, Said(text), number) for number, text in enumerate(texts)]
    scope = Scope(0.01)
    for entry in entries:
        scope.rarity.add(entry.said)

    def lookup(number: int) -> None:
        near = [Near(entries[(number + step) % len(entries)], 0.95 - step / 50) for step in range(NEIGHBOURS)]
        scope.decide(Said(texts[number % len(texts)]), near, 0.5)

    return timed([lambda number=number: lookup(number) for number in range(rounds)])  # type: ignore[misc]


def embed(rounds: int) -> str:
    if parts.missing():
        return f"not installed: {parts.advice(parts.missing())}"
    texts = [way.format(thing) for thing in THINGS for way in QUESTIONS]
    with tempfile.TemporaryDirectory() as directory:
        embedder = MiniLM(Path(directory))
        return timed([lambda at=at: embedder.embed([texts[at % len(texts)]]) for at in range(rounds)])  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    print(f"                 median    p90   (ms; bound {BOUND_MS:g} for a search among 100,000)")
    print(f"embed           {embed(rounds)}")
    for size in SIZES:
        print(f"search {size:7}  {search(size, rounds)}")
    print(f"verify          {verify(rounds)}")


if __name__ == "__main__":
    main()
