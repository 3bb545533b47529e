"""Embeddings of an upstream that speaks OpenAI's /embeddings: the body to send, and what came back. Values only."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import msgspec
import numpy as np
from msgspec import Struct

from gateway.errors import BadAnswer
from gateway.ports_semantic import Vectors

MOST_DIMENSIONS = 16_384


class _Item(Struct):
    index: int
    embedding: list[float] | str  # the text is base64 of float32, little endian


class _Usage(Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Answer(Struct):
    data: list[_Item]
    usage: _Usage | None = None


class Embedded(Struct, frozen=True):
    vectors: Vectors  # one row of length 1 per text
    tokens: int | None  # that are paid for; None: not stated


_decoder = msgspec.json.Decoder(_Answer)


def question(model: str, texts: Sequence[str], dimensions: int | None = None) -> bytes:
    """The body of a request."""
    body = {"model": model, "input": list(texts), "encoding_format": "float"}
    return msgspec.json.encode(body if dimensions is None else {**body, "dimensions": dimensions})


def answer(body: bytes, count: int, dimension: int | None = None) -> Embedded:
    """What the upstream said of `count` texts. Raises BadAnswer where that is not `count` usable vectors."""
    try:
        said = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadAnswer(f"embeddings: {error}") from error
    if sorted([item.index for item in said.data]) != list(range(count)):
        raise BadAnswer(f"embeddings: {len(said.data)} vectors for {count} texts, or twice for one")
    rows = [_row(item.embedding) for item in sorted(said.data, key=_index)]
    sizes = {len(row) for row in rows}
    if len(sizes) > 1 or not sizes <= {dimension or max(sizes, default=0)} or 0 in sizes:
        raise BadAnswer(f"embeddings: vectors of {sorted(sizes)} numbers, expected {dimension or 'one size'}")
    vectors = np.array(rows, np.float32).reshape(count, max(sizes, default=dimension or 0))
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise BadAnswer("embeddings: a vector without a direction")
    tokens = said.usage.prompt_tokens if said.usage else None
    if tokens is None and said.usage:
        tokens = said.usage.total_tokens
    return Embedded((vectors / lengths).astype(np.float32), tokens)


def _index(item: _Item) -> int:
    return item.index


def _row(embedding: list[float] | str) -> Sequence[float]:
    if not isinstance(embedding, str):
        found: Sequence[float] = embedding
    else:
        try:
            found = np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").tolist()
        except (binascii.Error, ValueError) as error:
            raise BadAnswer(f"embeddings: {error}") from error
    if len(found) > MOST_DIMENSIONS:
        raise BadAnswer(f"embeddings: a vector of {len(found)} numbers, at most {MOST_DIMENSIONS}")
    return found
