import numpy as np
import onnxruntime
import pytest

from gateway.semantic.onnx import Graph


def run(graph, result, kind, shape, value):
    model = graph.model(("given", value.dtype.name, ["n", 3]), result, kind, shape)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"given": value})[0]


VALUE = np.array([[1, 2, 3], [-4, 5, 600]], np.float32)


def test_a_graph_computes_what_it_says():
    graph = Graph()
    product = graph.step("MatMul", "given", graph.constant(np.arange(6, dtype=np.float32).reshape(3, 2)))
    total = graph.step("ReduceSum", product, graph.constant(np.array([-1], np.int64)), keepdims=0)
    assert run(graph, total, "float32", ["n"], VALUE) == pytest.approx((VALUE @ np.arange(6).reshape(3, 2)).sum(1))


def test_attributes_of_each_kind():
    graph = Graph()
    turned = graph.step("Transpose", "given", perm=[1, 0])
    leaky = graph.step("LeakyRelu", turned, alpha=0.25)
    first, *_ = graph.steps("Split", [leaky], 3, {"axis": 0, "num_outputs": 3})
    assert run(graph, first, "float32", [1, "n"], VALUE).tolist() == [[1.0, -1.0]]


@pytest.mark.parametrize("kind", ["float32", "uint8", "int8", "int32", "int64"])
def test_constants_of_each_kind(kind):
    graph = Graph()
    constant = np.array([1, 127], kind)
    shape = graph.step("Cast", graph.step("Shape", "given"), to=1)
    added = graph.step("Add", graph.step("Cast", graph.constant(constant), to=1), shape)
    assert run(graph, added, "float32", [2], VALUE).tolist() == [3.0, 130.0]


def test_large_and_negative_numbers_survive():
    graph = Graph()
    constant = graph.constant(np.array([-1, 2**40, -(2**62)], np.int64))
    assert run(graph, graph.step("Identity", constant), "int64", [3], VALUE).tolist() == [-1, 2**40, -(2**62)]
    cut = Graph()
    last = cut.step("Gather", "given", cut.constant(np.array(-1, np.int64)), axis=-1)
    assert run(cut, last, "float32", ["n"], VALUE).tolist() == [3.0, 600.0]
