"""`python -m tests.bench.redraws [--seeds 1-40] [--questions 8000]`: the verifier on streams that were drawn anew.

The stream of tests/golden/semcache is taken apart: which questions there are, in which words, with which values of
their slots. Of these each seed draws another stream: what is asked most often differs (Zipf .8 over the questions, 1
over up to 40 sets of values of each), the words are drawn evenly. A line for each stream, and what came of all.
`two answers`: exact hits whose text was another question's, too, when it was stored; no cache could tell.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from gateway.policy.semantic_scope import Scope
from gateway.semantic.minilm import MiniLM
from gateway.semantic.replay import Asked, Ours, Played

import numpy as np  # isort: skip - after gateway.semantic, which says how many threads

STREAM = Path(__file__).parents[1] / "golden" / "semcache" / "advising.jsonl.gz"
TARGET = 0.01
LEAST_HITS = 0.60
MOST_VALUES = 40  # sets of values that a question is asked with
_AT_ONCE = 50


class Kind(Struct):
    """One question: its wordings, with `{slot}` for values."""

    name: str
    slots: tuple[str, ...]
    ways: list[str]


def taken_apart() -> tuple[list[Kind], dict[str, list[str]]]:
    """The questions, and by kind of slot the values that were seen."""
    kinds: dict[str, Kind] = {}
    values: dict[str, dict[str, None]] = {}
    for line in gzip.decompress(STREAM.read_bytes()).splitlines():
        row = json.loads(line)
        name, _, stated = row["class"].partition("|")
        slots = dict(slot.split("=", 1) for slot in stated.split(";") if slot)
        way = row["text"].replace("{", "{{").replace("}", "}}")
        found = {}
        for slot, value in sorted(slots.items(), key=lambda item: -len(item[1])):
            place = re.search(rf"(?<![\w{{]){re.escape(value)}(?![\w}}])", way, re.IGNORECASE)
            if place is not None:
                found[slot] = place[0]
                way = f"{way[: place.start()]}{{{slot}}}{way[place.end() :]}"
        if len(found) == len(slots):  # else a value stands there in other words
            named = tuple(sorted(slots))
            kind = kinds.setdefault(" ".join((name, *named)), Kind(" ".join((name, *named)), named, []))
            kind.ways += [way] if way not in kind.ways else []
            for slot, value in found.items():
                values.setdefault(slot.rstrip("0123456789"), {})[value] = None
    return list(kinds.values()), {slot: list(seen) for slot, seen in values.items()}


def drawn(seed: int, count: int) -> Iterator[Asked]:
    draw = random.Random(seed)
    kinds, values = taken_apart()
    draw.shuffle(kinds)
    shares = [1 / place**0.8 for place in range(1, len(kinds) + 1)]
    filled: dict[str, list[dict[str, str]]] = {}
    for kind in kinds:
        tries = [{slot: draw.choice(values[slot.rstrip("0123456789")]) for slot in kind.slots} for _ in range(400)]
        filled[kind.name] = list({json.dumps(one): one for one in tries}.values())[:MOST_VALUES]
    for _ in range(count):
        (kind,) = draw.choices(kinds, shares)
        sets = filled[kind.name]
        (chosen,) = draw.choices(sets, [1 / place for place in range(1, len(sets) + 1)])
        yield Asked(draw.choice(kind.ways).format(**chosen), json.dumps([kind.name, chosen]).lower())


def played(stream: list[Asked], embedder: MiniLM, known: dict[str, np.ndarray]) -> Played:
    new = [text for text in dict.fromkeys([one.text for one in stream]) if text not in known]
    for start in range(0, len(new), _AT_ONCE):
        some = new[start : start + _AT_ONCE]
        known.update(zip(some, embedder.embed(some), strict=True))
    return Ours(stream, np.stack([known[one.text] for one in stream]), Scope(TARGET)).run()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.redraws", description=__doc__)
    parser.add_argument("--seeds", default="1-40", metavar="A-B")
    parser.add_argument("--questions", type=int, default=8000, metavar="N", help="of each stream (%(default)s)")
    given = parser.parse_args()
    first, _, last = given.seeds.partition("-")
    results = []
    with tempfile.TemporaryDirectory() as directory:
        embedder, known = MiniLM(Path(directory)), dict[str, np.ndarray]()
        for seed in range(int(first), int(last or first) + 1):
            one = played(list(drawn(seed, given.questions)), embedder, known)
            results.append(one)
            print(
                f"{seed:3}  hit rate {one.hits / one.asked:.3f}  similar {one.similar / one.asked:.3f}  "
                f"wrong of hits {one.wrong / one.hits:.2%}  two answers {one.stale / one.hits:.2%}",
                flush=True,
            )
    rates = [one.hits / one.asked for one in results]
    wrong = [one.wrong / one.hits for one in results]
    every = [one.wrong_hits / one.hits for one in results]
    print(f"hit rate {statistics.mean(rates):.3f} ({min(rates):.3f} to {max(rates):.3f})")
    for name, shares in (("by similarity", wrong), ("with two answers", every)):
        good = [rate >= LEAST_HITS and share <= TARGET for rate, share in zip(rates, shares, strict=True)]
        print(
            f"wrong of hits, {name}: {statistics.mean(shares):.2%} ({min(shares):.2%} to {max(shares):.2%}); "
            f"{sum(good)} of {len(good)} streams keep both bars"
        )


if __name__ == "__main__":
    main()
