"""The built-in embedder: all-MiniLM-L6-v2 with weights of 8 bits, run by onnxruntime in the thread that asks.

Theory of operation
* The weights come as safetensors (an index in JSON, then numbers). From them a graph is written once, in the state
  directory, under a name that changes with whatever changes vectors. It is written beside and moved into place, so
  that processes that start at once do no harm, and one that is damaged is written again.
* Weights are rounded to 7 of the 8 bits, each column by its own scale: processors without VNNI add pairs of products
  of 8 bits in 16, which overflow with all 8 (so vectors would differ from machine to machine). Activations are
  rounded as they come (DynamicQuantizeLinear).
* Texts are computed one by one: rounding goes by the largest activation of what is computed together, and a vector
  shall depend on its own text alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, InvalidProtobuf

from gateway.errors import EmbedderUnavailable
from gateway.ports_semantic import Vectors
from gateway.semantic import parts
from gateway.semantic.onnx import Graph
from gateway.semantic.wordpiece import WordPiece

NAME = "all-minilm-l6-v2/int8/1"
DIMENSION = 384
MOST_PIECES = 256  # of a text; what comes later is not seen
_LAYERS, _HEADS = 6, 12
_EPSILON = 1e-12
_LEVELS = 63.0  # of a weight to each side
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of model.safetensors as published

Floats = NDArray[np.float32]


class MiniLM:
    """Opens, and where needed writes, its graph in `directory`. Raises EmbedderUnavailable, OSError."""

    name = NAME
    dimension = DIMENSION

    def __init__(self, directory: Path) -> None:
        source = parts.require()
        self._pieces = WordPiece.read(source / "vocab.txt")
        path = directory / f"{NAME.replace('/', '-')}.onnx"
        if not path.exists():
            write(source / "model.safetensors", path)
        try:
            self._session = _open(path)
        except EmbedderUnavailable:  # cut short by a full disk, or an older format
            write(source / "model.safetensors", path)
            self._session = _open(path)

    def embed(self, texts: Sequence[str]) -> Vectors:
        found = np.empty((len(texts), DIMENSION), np.float32)
        for row, text in enumerate(texts):
            numbers = np.array([self._pieces.numbers(text, MOST_PIECES)], np.int64)
            found[row] = self._session.run(None, {"pieces": numbers})[0][0]
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        return found


def _open(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the thread that asks, and no other
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf) as error:
        raise EmbedderUnavailable(f"{path}: {error}") from error


def write(source: Path, path: Path) -> None:
    """The graph of these weights."""
    data = source.read_bytes()
    if hashlib.sha256(data).hexdigest() != _SHA256:
        raise EmbedderUnavailable(f"{source} is not what was published as all-MiniLM-L6-v2: it is not used")
    model = graph(tensors(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(model)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise


def tensors(data: bytes) -> dict[str, Floats]:
    """What a safetensors file holds, as far as it is float32."""
    (size,) = struct.unpack_from("<Q", data)
    start = 8 + size
    found = {}
    for name, entry in json.loads(data[8:start]).items():
        if entry.get("dtype") == "F32":
            begin, end = entry["data_offsets"]
            found[name] = np.frombuffer(data[start + begin : start + end], np.float32).reshape(entry["shape"])
    return found


def graph(weights: Mapping[str, Floats]) -> bytes:
    """Pieces (1, n) to the mean of the last layer (1, 384)."""
    net = _Net(weights)
    state = net.embedded("pieces")
    for layer in range(_LAYERS):
        prefix = f"encoder.layer.{layer}."
        state = net.normal(prefix + "attention.output.LayerNorm", net.step("Add", net.attention(prefix, state), state))
        inner = net.step("Gelu", net.linear(state, [prefix + "intermediate.dense"]))
        state = net.normal(
            prefix + "output.LayerNorm", net.step("Add", net.linear(inner, [prefix + "output.dense"]), state)
        )
    mean = net.step("ReduceMean", state, net.integers(1), keepdims=0)
    return net.model(("pieces", "int64", [1, "n"]), mean, "float32", [1, DIMENSION])


class _Net(Graph):
    """The parts of a BERT model."""

    def __init__(self, weights: Mapping[str, Floats]) -> None:
        super().__init__()
        self._weights = weights

    def embedded(self, pieces: str) -> str:
        """The vectors of pieces and of their places."""
        table, scales = rounded(self._weights["embeddings.word_embeddings.weight"].T)
        rows = self.step("Cast", self.step("Gather", self.constant(table.T), pieces), to=1)
        state = self.step("Mul", rows, self.step("Gather", self.constant(scales.reshape(-1, 1)), pieces))
        places = self._weights["embeddings.position_embeddings.weight"]
        places = places + self._weights["embeddings.token_type_embeddings.weight"][0]
        zero, length = self.integers(0), self.step("Shape", pieces, start=1)
        first = self.step("Slice", self.constant(places), zero, length, zero)
        return self.normal("embeddings.LayerNorm", self.step("Add", state, first))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def normal(self, name: str, state: str) -> str:
        scale, shift = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return self.step(
            "LayerNormalization", state, self.constant(scale), self.constant(shift), axis=-1, epsilon=_EPSILON
        )

    def linear(self, state: str, names: Sequence[str]) -> str:
        """The outcomes of several layers side by side, by one multiplication of integers."""
        weights, scales = rounded(np.concatenate([self._weights[f"{name}.weight"] for name in names]).T)
        bias = np.concatenate([self._weights[f"{name}.bias"] for name in names])
        given, scale, zero = self.steps("DynamicQuantizeLinear", [state], 3, {})
        zeros = np.zeros(len(scales), np.int8)
        product = self.step("MatMulInteger", given, self.constant(weights), zero, self.constant(zeros))
        scaled = self.step("Mul", self.step("Cast", product, to=1), self.step("Mul", scale, self.constant(scales)))
        return self.step("Add", scaled, self.constant(bias))

    def attention(self, prefix: str, state: str) -> str:
        width = DIMENSION // _HEADS
        asked = self.linear(state, [f"{prefix}attention.self.{name}" for name in ("query", "key", "value")])
        heads = self.step("Reshape", asked, self.integers(0, 0, 3 * _HEADS, width))
        heads = self.step("Transpose", heads, perm=[0, 2, 1, 3])
        query, key, value = self.steps("Split", [heads], 3, {"axis": 1, "num_outputs": 3})
        alike = self.step("MatMul", query, self.step("Transpose", key, perm=[0, 1, 3, 2]))
        alike = self.step("Mul", alike, self.constant(np.array(1 / math.sqrt(width), np.float32)))
        mixed = self.step("MatMul", self.step("Softmax", alike, axis=-1), value)
        joined = self.step("Reshape", self.step("Transpose", mixed, perm=[0, 2, 1, 3]), self.integers(0, 0, DIMENSION))
        return self.linear(joined, [f"{prefix}attention.output.dense"])


def rounded(weights: Floats) -> tuple[NDArray[np.int8], Floats]:
    """As integers with a scale for each column."""
    scales = np.maximum(np.abs(weights).max(axis=0), 1e-12) / np.float32(_LEVELS)
    return np.rint(weights / scales).astype(np.int8), scales.astype(np.float32)
