"""Reading and writing with every kind of key, against NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_helpers import check

from jacana.graph.index import Affine
from jacana.record import Variable, as_node, record
from jacana.record.movement import runs

X = np.arange(60.0).reshape(3, 4, 5) / 7.0
MASK1 = np.array([True, False, True])
MASK2 = np.arange(12).reshape(3, 4) % 3 == 1
MASK3 = np.arange(60).reshape(3, 4, 5) % 7 == 0

KEYS = [
    0, -1, (1, 2), (1, 2, 3), (-1, -2, -3), np.int64(2), (np.int8(1), 0),
    slice(None), slice(1, None), slice(None, None, -1), slice(2, 0, -1), slice(0, 0), slice(5, 9), slice(None, None, 2),
    (slice(None), slice(1, 3)), (slice(None), slice(None, None, -2), slice(4, 1, -1)), (0, slice(None), 2),
    Ellipsis, (Ellipsis, 0), (0, Ellipsis), (slice(1), Ellipsis, slice(2)), (Ellipsis, None), None, (None, 0, None),
    (slice(None), None, 1), (1, 2, 3, Ellipsis), (), ((),),
    [0, 2], np.array([2, 0, 0, -1]), np.array([[0, 1], [2, -3]]), (slice(None), [1, 3]),
    (slice(None), slice(None), [0]),
    ([0, 1], [1, 2]), ([0, 1], [1, 2], [3, 4]), ([[0], [1]], [1, 2]), (slice(None), [0, 1], [1, 2]),
    ([0, 1], slice(None), [1, 2]), ([0, 1], slice(1, 3), 2), (0, slice(None), [1, 2]), (0, [1, 2]), ([1, 2], 0),
    (0, [1, 2], slice(None)), (slice(None), 0, [1, 2]), ([0, 2], None, [1, 2]), (None, [0, 2]), ([0, 2], Ellipsis, 1),
    (Ellipsis, [0, 2]), (Ellipsis, [0, 2], 1), (slice(None), [[0, 1], [2, 3]]), (1, [[0, 1], [2, 3]], 2),
    np.array([], dtype=int), (slice(None), np.array([], dtype=int)), [],
    MASK1, MASK2, MASK3, (MASK1, 1), (MASK1, slice(None), [1]), (slice(None), MASK2[0]), (MASK2, 2), (0, MASK3[0]),
    (MASK1, [1, 2]), (MASK2, slice(1, 3)), (MASK1, None), np.zeros(3, bool), MASK1.tolist(),
    np.array(1), (np.array(1), [0, 1]),
    True, False, (True, 0), np.arange(3), (np.arange(3)[:, None], np.arange(4)[None, ::-1]),
    np.ix_([0, 2], [1, 3], [0, 4]), (np.array([1, 2], dtype=np.uint8), slice(None), np.array([0, 1], dtype=np.int32)),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_reading(key):
    check(lambda x: x[key], X, constant=X[key].size == 0)
    check(lambda x: (x * 2)[key] + 1.0, X, constant=X[key].size == 0)


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_writing(key):
    def assign(x, v):
        y = np.array(x * 2.0)
        y[key] = v
        return y

    def add(x, v):
        y = np.array(x * 2.0)
        y[key] += v
        return y

    shape = X[key].shape
    check(assign, X, np.full(shape, 3.0) + np.arange(X[key].size).reshape(shape))
    check(assign, X, np.array(5.0))
    check(add, X, np.array(5.0))
    check(lambda x: assign(x, 1.5), X)
    check(lambda v: assign(X, v), np.array(5.0), constant=X[key].size == 0)
    check(lambda v: add(np.ones((3, 4, 5)), v), np.array(5.0), constant=X[key].size == 0)


BAD = [3, -4, (0, 0, 0, 0), [0, 3], (0, [4]), np.zeros(4, bool), np.zeros((3, 5), bool), 1.5, "a", ([0, 1], [0, 1, 2])]


@pytest.mark.parametrize("key", BAD, ids=str)
def test_errors_are_numpys_own(key):
    with pytest.raises(IndexError) as expected:
        X[key]
    with pytest.raises(IndexError) as got:
        record(lambda x: x[key], [X])
    assert str(got.value) == str(expected.value)
    with pytest.raises(IndexError):
        record(lambda x: (x * 2).__setitem__(key, 1.0), [X])


def test_slices_stay_affine_and_arithmetic_tables_become_affine():
    found = []

    def f(x):
        for y in (x[1:, ::-1], x[[0, 1, 2], 1], x[np.arange(2)], x[::2, None], x[np.array([True, False, True])]):
            found.append(as_node(y).params.indices)
        return x[0]

    record(f, [X[..., 0]])
    assert all(isinstance(e, Affine) for indices in found for e in indices)


def test_an_index_of_an_index_is_one_node():
    recording = record(lambda x: x[1:][::-1].T[2], [X[..., 0]])
    assert recording.result.node.inputs == recording.inputs


def slices(n):
    bound = st.one_of(st.none(), st.integers(-n - 1, n + 1))
    return st.builds(slice, bound, bound, st.sampled_from([None, 1, 2, -1, -2, 3]))


@st.composite
def keys(draw, shape):
    """A random key, basic and advanced parts mixed."""
    length = draw(st.integers(1, 3))
    items = [
        draw(st.one_of(st.just(Ellipsis), st.just([0]), slices(n), st.integers(-n, n - 1))) for n in shape[:length]
    ]
    shared = draw(st.sampled_from([(2,), (2, 2), (1,), (3, 1)]))
    for k in range(length):
        if draw(st.booleans()):
            numbers = draw(st.lists(st.integers(-shape[k], shape[k] - 1), min_size=9, max_size=9))
            items[k] = np.resize(np.array(numbers), shared)
    seen = False
    for k, item in enumerate(items):
        if item is Ellipsis:
            if seen:
                items[k] = slice(None)
            seen = True
    if draw(st.booleans()):
        items.insert(draw(st.integers(0, len(items))), None)
    return tuple(items)


@settings(max_examples=300, deadline=None)
@given(keys((3, 4, 5)))
def test_random_keys(key):
    try:
        expected = X[key]
    except IndexError:
        with pytest.raises(IndexError):
            record(lambda x: x[key], [X])
        return
    check(lambda x: x[key], X, constant=expected.size == 0)

    def assign(x, v):
        y = x + 1.0
        y[key] = v
        return y

    check(assign, X, np.arange(float(np.size(expected))).reshape(np.shape(expected)))


def test_variables_in_keys_are_guarded():
    def f(x):
        k = np.argmax(x)
        order = np.argsort(x)
        return x[k], x[order], x[k:], x[[k, 0]], x[x.astype(int)]

    r = check(f, np.array([0.3, 1.7, 0.2]), others=[np.array([0.35, 1.8, 0.1])])
    assert r.guards


def test_float_variables_are_no_index():
    with pytest.raises((TypeError, IndexError)):
        record(lambda x: x[x], [np.array([0.0, 1.0])])
    with pytest.raises((TypeError, IndexError)):
        record(lambda x: x[x[0] :], [np.array([0.0, 1.0])])


def test_boolean_mask_from_the_arguments():
    r = check(lambda x: x[x > 0.5] * 2, np.array([0.1, 0.7, 0.9]), others=[np.array([0.2, 0.8, 0.6])])
    assert len(r.guards) == 1
    r = check(lambda x: x[np.nonzero(x > 0.5)], np.array([0.1, 0.7, 0.9]), others=[np.array([0.2, 0.8, 0.6])])
    assert len(r.guards) == 1


def test_writing_a_number_through_a_recorded_mask_needs_no_guard():
    def f(x):
        y = x * 3.0
        y[x < 0.5] = 0.0
        y[x > 0.8] = x[0]
        return y

    r = check(f, np.array([0.1, 0.7, 0.9]), others=[np.array([0.9, 0.4, 0.6])])
    assert not r.guards

    def g(x):
        y = x * 1.0
        y[x[:, 0] > 0.5] = -1.0
        return y

    r = check(g, np.array([[0.1, 0.7], [0.9, 0.2]]), others=[np.array([[0.9, 0.7], [0.1, 0.2]])])
    assert not r.guards


def test_define_by_run_indexing():
    x = Variable(X)
    assert np.array_equal(x[1, ::2].data, X[1, ::2])
    assert isinstance(x[0, 0, 0], Variable)
    assert len(x) == 3
    with pytest.raises(TypeError, match="0-d"):
        iter(x[0, 0, 0])


def test_positions_are_cut_into_pieces_of_constant_step():
    assert runs([]) == []
    assert runs(np.roll(np.arange(10**6), 2)) == [(10**6 - 2, 1, 2), (0, 1, 10**6 - 2)]
    rng = np.random.default_rng(0)
    for _ in range(500):
        table = rng.integers(0, 3, rng.integers(1, 9))
        pieces = runs(table)
        assert [first + k * step for first, step, length in pieces for k in range(length)] == table.tolist()
        starts = np.cumsum([0, *(length for _, _, length in pieces)])
        for (first, step, length), end in zip(pieces[:-1], starts[1:-1], strict=True):
            assert length > 1 or step == 1
            assert table[end] != first + step * length or length == 1  # none could have gone on
