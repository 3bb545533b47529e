import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.semantic import search
from gateway.semantic.search import FEW, Index


def questions(count, seed, dimension=384):
    """Vectors that lie as those of questions do: subjects, questions within them, rewordings of each."""
    draw = np.random.default_rng(seed)
    subjects = draw.standard_normal((60, dimension))
    kernels = subjects[draw.integers(0, 60, count // 10)] + draw.standard_normal((count // 10, dimension))
    spread = draw.uniform(0.1, 0.9, (count, 1))
    found = kernels[draw.integers(0, len(kernels), count)] + spread * draw.standard_normal((count, dimension))
    found = found.astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def filled(vectors, first=0):
    index = Index(vectors.shape[1])
    for number, vector in enumerate(vectors):
        index.add(first + number, vector)
    return index


def trained(index):
    training = index.training()
    training.run()
    index.adopt(training)
    return index


def exactly(vectors, asked, count):
    return np.argsort(-(vectors @ asked), kind="stable")[:count].tolist()


def ids(found):
    return [one.id for one in found]


def test_few_are_found_exactly():
    vectors = questions(600, 1, 32)
    index = filled(vectors)
    for asked in questions(50, 2, 32):
        found = index.near(asked, 8)
        assert ids(found) == exactly(vectors, asked, 8)
        assert [one.cosine for one in found] == pytest.approx(np.sort(vectors @ asked)[::-1][:8])


def test_an_empty_index_and_one_with_less_than_is_asked_for():
    index = Index(4)
    assert index.near(np.ones(4, np.float32), 3) == []
    index.add(7, np.array([1, 0, 0, 0], np.float32))
    assert ids(index.near(np.ones(4, np.float32), 3)) == [7]


def test_the_likely_lists_hold_what_is_alike():
    everything = questions(10_500, 3)
    vectors, asked = everything[:10_000], everything[10_000:]
    index = trained(filled(vectors))
    cosines = asked @ vectors.T
    alike = cosines.max(1) >= 0.8
    best = [index.near(one, 1)[0].id for one in asked[alike]]
    assert alike.sum() > 300
    assert (best == cosines[alike].argmax(1)).mean() >= 0.99


def test_only_a_part_of_many_is_looked_at():
    index = trained(filled(questions(6000, 4, 64)))
    looked = sum(index._lists[home].size for home in index._likely(questions(10, 5, 64)[0]))
    assert 0 < looked < 0.35 * len(index)


def test_what_was_removed_is_not_found_and_what_was_added_is():
    vectors = questions(6000, 6, 64)
    index = trained(filled(vectors))
    for number in range(0, 6000, 2):
        assert index.remove(number)
    assert not index.remove(0)
    assert len(index) == 3000
    for number in range(0, 6000, 2):
        assert number not in index
        assert number not in ids(index.near(vectors[number], 8))
    for number in range(0, 6000, 20):
        index.add(number, vectors[number])
        assert ids(index.near(vectors[number], 1)) == [number]


def test_an_id_has_one_vector():
    index = filled(np.eye(3, dtype=np.float32))
    index.add(0, np.eye(3, dtype=np.float32)[2])
    assert len(index) == 3
    assert index.near(np.eye(3, dtype=np.float32)[0], 1)[0].cosine == 0
    assert index.vector(0).tolist() == [0, 0, 1]


def test_changes_made_while_centres_are_sought_are_not_lost():
    vectors = questions(6300, 7, 64)
    index = filled(vectors[:6000])
    training = index.training()
    for number in range(100):
        index.remove(number)
    for number in range(6000, 6200):
        index.add(number, vectors[number])
    for number in range(200, 300):
        index.add(number, vectors[6000 + number])  # another vector by the same id
    training.run()
    index.adopt(training)
    assert len(index) == 6100
    for number in (0, 99):
        assert number not in index
    for number in (200, 299):
        assert index.vector(number).tolist() == vectors[6000 + number].tolist()
        assert number in ids(index.near(vectors[6000 + number], 2))
    assert ids(index.near(vectors[6100], 1)) == [6100]


def test_it_says_when_new_centres_are_worth_their_cost(monkeypatch):
    monkeypatch.setattr(search, "FEW", 100)
    vectors = questions(500, 8, 16)
    index = filled(vectors[:100])
    assert not index.wanting
    index.add(100, vectors[100])
    assert index.wanting
    trained(index)
    assert not index.wanting
    for number in range(101, 202):
        index.add(number, vectors[number])
    assert index.wanting
    assert FEW == 5000


def test_the_same_vectors_give_the_same_lists():
    vectors = questions(6000, 9, 32)
    one, other = trained(filled(vectors)), trained(filled(vectors))
    assert [list(each.ids[: each.size]) for each in one._lists] == [
        list(each.ids[: each.size]) for each in other._lists
    ]


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_whatever_is_done_to_it_it_finds_what_is_there(data):
    vectors = questions(400, 10, 16)
    index, there = Index(16), {}
    for _ in range(data.draw(st.integers(1, 60))):
        number, row = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 399))
        act = data.draw(st.sampled_from(["add", "add", "add", "remove", "train"]))
        if act == "add":
            index.add(number, vectors[row])
            there[number] = vectors[row]
        elif act == "remove":
            assert index.remove(number) == (there.pop(number, None) is not None)
        elif there:
            trained(index)
    assert len(index) == len(there)
    for number, vector in there.items():
        assert index.vector(number).tolist() == vector.tolist()
        assert index.near(vector, 1)[0].cosine == pytest.approx(1, abs=1e-5)
    assert {one.id for one in index.near(vectors[0], 10**6)} <= there.keys()
