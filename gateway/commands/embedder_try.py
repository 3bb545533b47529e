"""`tollgate cache embedder`, where all its parts are there: make it ready and try it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from gateway.config import places
from gateway.config.load import load
from gateway.semantic.minilm import MiniLM

_TRIED = "How do I find out how long a question takes?"
_TIMES = 50


def prepare(path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object]) -> int:
    """Print what it is and how long a text takes. Raises ConfigError, EmbedderUnavailable, OSError."""
    directory = places.embedder(load(path, env, overrides))
    embedder = MiniLM(directory)
    took = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        embedder.embed([_TRIED])
        took.append(time.perf_counter() - began)
    print(f"{embedder.name}, {embedder.dimension} numbers per text, in {directory}")
    print(f"{sorted(took)[_TIMES // 2] * 1000:.1f} ms for a question of ten words")
    return 0
