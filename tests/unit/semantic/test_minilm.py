import math
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from gateway.errors import EmbedderUnavailable
from gateway.semantic import minilm, parts
from gateway.semantic.minilm import DIMENSION, MiniLM, tensors
from gateway.semantic.wordpiece import WordPiece
from tests.unit.semantic.weights import needs_weights

pytestmark = needs_weights

TEXTS = [
    "That is a happy person",
    "That is a very happy person",
    "Today is a sunny day",
    "How do I unblock my card?",
    "x",
    "",
    "the lecture on distributed systems " * 12,
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("embedder")


@pytest.fixture(scope="module")
def embedder(directory):
    return MiniLM(directory)


def reference(texts):
    """The model as its paper has it, in 32 bits."""
    place = parts.require()
    weights = tensors((place / "model.safetensors").read_bytes())
    pieces = WordPiece.read(place / "vocab.txt")
    rows = []
    for text in texts:
        numbers = pieces.numbers(text, minilm.MOST_PIECES)
        state = weights["embeddings.word_embeddings.weight"][numbers]
        state = state + weights["embeddings.position_embeddings.weight"][: len(numbers)]
        state = normal(state + weights["embeddings.token_type_embeddings.weight"][0], weights, "embeddings.LayerNorm")
        for layer in range(6):
            state = layer_of(state, weights, f"encoder.layer.{layer}.")
        mean = state.mean(0)
        rows.append(mean / np.linalg.norm(mean))
    return np.array(rows)


def layer_of(state, weights, prefix):
    def dense(value, name):
        return value @ weights[f"{prefix}{name}.weight"].T + weights[f"{prefix}{name}.bias"]

    heads = [dense(state, f"attention.self.{name}").reshape(-1, 12, 32) for name in ("query", "key", "value")]
    query, key, value = [one.transpose(1, 0, 2) for one in heads]
    alike = np.exp(query @ key.transpose(0, 2, 1) / math.sqrt(32))
    mixed = (alike / alike.sum(-1, keepdims=True) @ value).transpose(1, 0, 2).reshape(-1, DIMENSION)
    state = normal(state + dense(mixed, "attention.output.dense"), weights, f"{prefix}attention.output.LayerNorm")
    inner = dense(state, "intermediate.dense")
    inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    return normal(state + dense(inner, "output.dense"), weights, f"{prefix}output.LayerNorm")


def normal(state, weights, name):
    centred = state - state.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def test_vectors_are_those_of_the_model_but_for_rounding(embedder):
    cosines = (embedder.embed(TEXTS) * reference(TEXTS)).sum(1)
    assert cosines.min() > 0.97
    assert cosines.mean() > 0.98


def test_vectors_have_length_one_and_the_stated_size(embedder):
    found = embedder.embed(TEXTS)
    assert found.shape == (len(TEXTS), embedder.dimension)
    assert found.dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert embedder.embed([]).shape == (0, embedder.dimension)


def test_a_vector_depends_on_its_own_text_alone(embedder):
    together = embedder.embed(TEXTS)
    assert all((embedder.embed([text])[0] == row).all() for text, row in zip(TEXTS, together, strict=True))


def test_like_texts_are_near(embedder):
    same, alike, other = embedder.embed(TEXTS[:3]) @ embedder.embed(TEXTS[:1])[0]
    assert same == pytest.approx(1, abs=1e-5)
    assert same > alike > 0.9 > 0.5 > other


def test_it_is_written_once_and_found_again(embedder, directory):
    (path,) = directory.iterdir()
    before = path.stat()
    assert before.st_size < 25e6
    assert (MiniLM(directory).embed(TEXTS[:1]) == embedder.embed(TEXTS[:1])).all()
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("keep", [0, 1_000_000])
def test_a_damaged_one_is_written_again(embedder, directory, tmp_path, keep):
    (path,) = directory.iterdir()
    (tmp_path / path.name).write_bytes(path.read_bytes()[:keep])
    assert (MiniLM(tmp_path).embed(TEXTS[:1]) == embedder.embed(TEXTS[:1])).all()
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_where_it_cannot_be_written_nothing_is_left_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        MiniLM(tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_weights_are_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    with pytest.raises(EmbedderUnavailable, match="not what was published"):
        minilm.write(tmp_path / "model.safetensors", tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_it_starts_no_threads(directory):
    code = f"""
import os, pathlib
from gateway.semantic.minilm import MiniLM
def threads(): return len(os.listdir("/proc/self/task"))
before = threads()
MiniLM(pathlib.Path({str(directory)!r})).embed(["a text"] * 20)
print(before, threads())
"""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=100)
    before, after = done.stdout.split()
    assert before == after, done.stderr


def test_several_threads_may_each_have_their_own(directory, embedder):
    found = []
    threads = [threading.Thread(target=lambda: found.append(MiniLM(directory).embed(TEXTS))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((one == embedder.embed(TEXTS)).all() for one in found)
    assert len(found) == 2
