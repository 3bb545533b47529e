"""`tollgate cache eval`: what the semantic cache would have made of a stream of questions, beside fixed thresholds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from msgspec import Struct

from gateway.commands.cache_stream import judged, labelled, recorded
from gateway.config import places
from gateway.config.load import load
from gateway.errors import Rejected
from gateway.policy.semantic_evidence import wilson
from gateway.policy.semantic_rules import unsure
from gateway.policy.semantic_scope import Scope
from gateway.ports_semantic import Vectors
from gateway.semantic.minilm import MiniLM
from gateway.semantic.plot import Line, Point, draw
from gateway.semantic.replay import Asked, Ours, Played, Progress, fixed

THRESHOLDS = (0.80, 0.85, 0.90, 0.95)
PLOTTED = (0.5, 1.0, 2.0)  # multiples of the target that are drawn
_AT_ONCE = 50
_EVERY = 0.5  # seconds between two words on the progress


class Options(Struct, frozen=True):
    """What the command line says."""

    stream: Path
    target: float  # tolerated share of wrong hits
    seed: int
    plot: Path | None


class Shown:
    """Progress on standard error: in one line of a terminal, else a line for each step begun."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._terminal = sys.stderr.isatty()
        self._next = 0.0

    def step(self, what: str, total: int) -> Progress:
        if not self._terminal:
            print(f"{what}: {total}", file=sys.stderr)

        def progress(done: int) -> None:
            if self._terminal and (done + 1 == total or self._clock() >= self._next):
                self._next = self._clock() + _EVERY
                print(f"\r\x1b[K{what}: {done + 1} of {total}", end="", file=sys.stderr, flush=True)

        return progress

    def end(self) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def run(path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object], options: Options) -> int:
    """Print a table, and draw it where asked to. Raises ConfigError, Rejected, EmbedderUnavailable, OSError."""
    config = load(path, env, overrides)
    embedder = MiniLM(places.embedder(config))
    shown = Shown()
    stream = _stream(options.stream, embedder)
    if not stream:
        raise Rejected(f"{options.stream}: no questions")
    vectors = _embedded(stream, embedder, shown)
    total = len(stream)
    rows = [("exact only", fixed(stream, vectors, 2.0))]
    for least in THRESHOLDS:
        name = f"cosine >= {least:.2f}"
        rows.append((name, fixed(stream, vectors, least, shown.step(name, total))))
    unsuited = partial(_unsuited, time_words=config.cache.semantic.time_words)
    multiples = PLOTTED if options.plot else (1.0,)
    ours = []
    for multiple in multiples:
        target = options.target * multiple
        name = f"verifier, {target:.3g} tolerated"
        verifier = Ours(stream, vectors, Scope(target), options.seed, unsuited=unsuited)
        ours.append((name, verifier.run(shown.step(name, total))))
    shown.end()
    _print(options, total, [*rows, *ours])
    if options.plot:
        options.plot.write_text(_drawn(options, rows, ours))
    return 0


def _stream(path: Path, embedder: MiniLM) -> list[Asked]:
    if not path.is_dir():
        return labelled(path)
    calls = list(recorded(path))
    usable = [call for call in calls if call is not None]
    stream, unknown = judged(usable, embedder)
    print(
        f"{len(usable)} of {len(calls)} calls are one question and one answer in text; "
        f"{unknown} comparisons of answers were left open and count as different"
    )
    return stream


def _unsuited(one: Asked, *, time_words: bool) -> str:
    return unsure(one.text, before=one.before, time_words=time_words)


def _embedded(stream: Sequence[Asked], embedder: MiniLM, shown: Shown) -> Vectors:
    texts = list(dict.fromkeys([one.text for one in stream]))
    progress = shown.step("texts to embed", len(texts))
    rows = []
    for start in range(0, len(texts), _AT_ONCE):
        rows.append(embedder.embed(texts[start : start + _AT_ONCE]))
        progress(min(start + _AT_ONCE, len(texts)) - 1)
    place = {text: number for number, text in enumerate(texts)}
    found: Vectors = np.concatenate(rows)[[place[one.text] for one in stream]]
    return found


def _print(options: Options, total: int, rows: Sequence[tuple[str, Played]]) -> None:
    print(f"{total} questions of {options.stream}, in their order, with a cache that starts empty")
    print(f"{'':26}{'hit rate':>9}{'similar':>9}{'wrong':>7}{'of hits':>9}{'95 % interval':>17}{'of similar':>12}")
    for name, played in rows:
        between = wilson(played.wrong_hits, played.hits)
        interval = f"{between.lower:.2%} - {between.upper:.2%}" if played.hits else "-"
        print(
            f"{name:26}{played.hits / total:9.1%}{played.similar / total:9.1%}{played.wrong_hits:7}"
            f"{_share(played.wrong_hits, played.hits):>9}{interval:>17}{_share(played.wrong, played.similar):>12}"
        )
    name, last = rows[-1]
    print(f"{name}: {_said(last)}")


def _said(played: Played) -> str:
    """What the gateway itself would say of its verifier."""
    if played.similar:
        lower, upper = played.interval.lower, played.interval.upper
        said = (
            f"{played.shadowed} of its {played.similar} similar hits were verified, by which the gateway itself would "
            f"say that {lower:.2%} to {upper:.2%} of them are wrong"
        )
    else:
        said = "what was compared does not show that few enough are wrong, so nothing was given by similarity"
    if not played.apart:
        return said
    reasons = ", ".join([f"{why} {count}" for why, count in sorted(played.apart.items())])
    return f"{said}; for {sum(played.apart.values())} questions no similar one is looked for ({reasons})"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "-"


def _drawn(options: Options, rows: Sequence[tuple[str, Played]], ours: Sequence[tuple[str, Played]]) -> str:
    def point(label: str, played: Played) -> Point:
        return Point(label, played.wrong_hits / max(1, played.hits), played.hits / played.asked)

    verifier = [
        point(f"{options.target * multiple:.1%}", played) for multiple, (_, played) in zip(PLOTTED, ours, strict=True)
    ]
    thresholds = [point(f"{least:.2f}", played) for least, (_, played) in zip(THRESHOLDS, rows[1:], strict=True)]
    lines = [
        Line("cosine from a threshold on", thresholds),
        Line("verifier, by tolerated share", verifier),
        Line("exact only", [point("", rows[0][1])]),
    ]
    return draw(f"{options.stream.name}: {len(verifier)} targets against fixed thresholds", lines)
