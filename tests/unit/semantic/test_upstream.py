import base64
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadAnswer
from gateway.semantic.upstream import MOST_DIMENSIONS, answer, question


def said(*items, **more):
    return json.dumps({"object": "list", "data": list(items), **more}).encode()


def item(index, embedding):
    return {"object": "embedding", "index": index, "embedding": embedding}


def test_the_request_is_openais():
    assert json.loads(question("m", ["a", "ü"])) == {"model": "m", "input": ["a", "ü"], "encoding_format": "float"}
    assert json.loads(question("m", ["a"], 256))["dimensions"] == 256


def test_vectors_come_in_the_order_of_their_texts_with_length_one():
    found = answer(said(item(1, [0, 3, 4]), item(0, [2, 0, 0]), usage={"prompt_tokens": 7, "total_tokens": 8}), 2)
    assert found.vectors == pytest.approx(np.array([[1, 0, 0], [0, 0.6, 0.8]]))
    assert found.vectors.dtype == np.float32
    assert found.tokens == 7


def test_base64_is_read():
    packed = base64.b64encode(struct.pack("<2f", 3, 4)).decode()
    assert answer(said(item(0, packed)), 1).vectors == pytest.approx(np.array([[0.6, 0.8]]))


def test_tokens_that_are_not_stated_are_unknown():
    assert answer(said(item(0, [1])), 1).tokens is None
    assert answer(said(item(0, [1]), usage={"total_tokens": 4}), 1).tokens == 4
    assert answer(said(item(0, [1]), usage={}), 1).tokens is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"error": {"message": "no"}}',
        said(),
        said(item(0, [1, 0]), item(0, [0, 1])),
        said(item(0, [1, 0]), item(2, [0, 1])),
        said(item(0, [1, 0]), item(1, [1])),
        said(item(0, []), item(1, [])),
        said(item(0, [0, 0]), item(1, [1, 0])),
        said(item(0, [1e300, 0]), item(1, [1, 0])),
        said(item(0, "!!!!"), item(1, "AAAA")),
        said(item(0, "AAA="), item(1, "AAA=")),
        said(item(0, [None, 0]), item(1, [1, 0])),
        said(item(0, [1] * (MOST_DIMENSIONS + 1)), item(1, [1])),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_is_no_answer_is_refused(body):
    with pytest.raises(BadAnswer, match="embeddings"):
        answer(body, 2)


def test_another_size_than_before_is_refused():
    assert answer(said(item(0, [1, 0])), 1, 2).vectors.shape == (1, 2)
    with pytest.raises(BadAnswer, match="expected 3"):
        answer(said(item(0, [1, 0])), 1, 3)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=8).filter(lambda row: max(map(abs, row)) > 1e-3))
def test_every_vector_keeps_its_direction(row):
    (found,) = answer(said(item(0, row)), 1).vectors
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
    assert found @ np.array(row) == pytest.approx(np.linalg.norm(row), rel=1e-4)
