"""Writes ONNX models: the few messages of onnx.proto3 that a graph needs, as protocol buffers on the wire.

The `onnx` package does this too, and would be needed for nothing else. Numbers of fields and kinds are those of
onnx.proto3 (IR version 9).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_IR_VERSION, _OPSET = 9, 20
_KINDS = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7}
_VARINT, _BYTES, _FIXED32 = 0, 2, 5
_FLOAT, _INT, _INTS = 1, 2, 7  # kinds of attributes


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _blob(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | _BYTES) + _varint(len(data)) + data


def _attribute(name: str, value: float | int | Sequence[int]) -> bytes:
    if isinstance(value, float):
        return _blob(1, name) + _varint(2 << 3 | _FIXED32) + struct.pack("<f", value) + _number(20, _FLOAT)
    if isinstance(value, int):
        return _blob(1, name) + _number(3, value) + _number(20, _INT)
    return _blob(1, name) + b"".join([_number(8, one) for one in value]) + _number(20, _INTS)


def _shaped(name: str, kind: str, shape: Sequence[int | str]) -> bytes:
    sizes = [_number(1, size) if isinstance(size, int) else _blob(2, size) for size in shape]
    tensor = _number(1, _KINDS[kind]) + _blob(2, b"".join([_blob(1, size) for size in sizes]))
    return _blob(1, name) + _blob(2, _blob(1, tensor))


class Graph:
    """Each step is added in order and returns the name of what it computes."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []

    def constant(self, value: NDArray[np.generic]) -> str:
        name = f"c{len(self._constants)}"
        sizes = b"".join([_number(1, size) for size in value.shape])
        data = np.ascontiguousarray(value).tobytes()
        self._constants.append(sizes + _number(2, _KINDS[value.dtype.name]) + _blob(8, name) + _blob(9, data))
        return name

    def step(self, kind: str, *given: str, **attributes: float | int | Sequence[int]) -> str:
        return self.steps(kind, given, 1, attributes)[0]

    def steps(
        self, kind: str, given: Sequence[str], results: int, attributes: dict[str, float | int | Sequence[int]]
    ) -> list[str]:
        """A step with several results."""
        place = len(self._nodes)
        found = [f"n{place}_{number}" for number in range(results)]
        node = b"".join([_blob(1, name) for name in given]) + b"".join([_blob(2, name) for name in found])
        node += _blob(3, f"n{place}") + _blob(4, kind)
        self._nodes.append(node + b"".join([_blob(5, _attribute(*item)) for item in attributes.items()]))
        return found

    def model(
        self, given: tuple[str, str, Sequence[int | str]], result: str, kind: str, shape: Sequence[int | str]
    ) -> bytes:
        """The file. `given`: name, kind and shape of what goes in."""
        graph = b"".join([_blob(1, node) for node in self._nodes]) + _blob(2, "graph")
        graph += b"".join([_blob(5, constant) for constant in self._constants])
        graph += _blob(11, _shaped(*given)) + _blob(12, _shaped(result, kind, shape))
        return _number(1, _IR_VERSION) + _blob(7, graph) + _blob(8, _blob(1, "") + _number(2, _OPSET))
