"""Index expressions against index arrays that NumPy computes point by point."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import examples, index_values

from jacana.graph.index import (
    Affine,
    Index,
    Lookup,
    Table,
    axes_of,
    axis,
    bounds,
    evaluate,
    flatten,
    from_table,
    identity,
    plain_axis,
    rename,
    shift_axes,
    substitute,
)

SIZES = st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple)


@st.composite
def expressions(draw: Any, sizes: tuple[int, ...], low: int = -9, high: int = 9) -> Index:
    """Any expression over a domain."""
    rank = len(sizes)
    axes = draw(st.lists(st.integers(0, rank - 1), unique=True, max_size=rank)) if rank else []
    if axes and draw(st.booleans()):
        shape = tuple(sizes[a] for a in axes)
        values = draw(st.lists(st.integers(low, high), min_size=math.prod(shape), max_size=math.prod(shape)))
        return from_table(np.array(values, dtype=np.int64).reshape(shape), axes)
    strides = {a: draw(st.integers(-4, 4)) for a in axes}
    return Affine(draw(st.integers(low, high)), tuple(sorted((a, s) for a, s in strides.items() if s)))


@st.composite
def cases(draw: Any) -> tuple[Index, tuple[int, ...]]:
    sizes = draw(SIZES)
    return draw(expressions(sizes)), sizes


def whole(e: Index, sizes: tuple[int, ...]) -> np.ndarray:
    found = evaluate(e, sizes)
    assert found.ndim == len(sizes)
    assert found.dtype == np.int64
    mentioned = axes_of(e)
    assert all(n == sizes[a] if a in mentioned else n == 1 for a, n in enumerate(found.shape))
    return np.broadcast_to(found, sizes)


@examples(200)
@given(cases())
def test_evaluate(case):
    e, sizes = case
    assert np.array_equal(whole(e, sizes), index_values(e, sizes))


@examples(200)
@given(cases())
def test_bounds_are_reached_and_never_passed(case):
    e, sizes = case
    values = index_values(e, sizes)
    assert bounds(e, sizes) == (values.min(), values.max())


@examples(300)
@given(st.data())
def test_substitute_is_evaluation_at_the_substituted_point(data):
    outer_sizes, sizes = data.draw(SIZES), data.draw(SIZES)
    e = data.draw(expressions(outer_sizes))
    # Each axis of the outer domain becomes an expression that stays within it.
    replacement = []
    for n in outer_sizes:
        r = data.draw(expressions(sizes, 0, n - 1))
        if not (bounds(r, sizes)[0] >= 0 and bounds(r, sizes)[1] < n):
            r = from_table(np.broadcast_to(evaluate(r, sizes), sizes) % n, range(len(sizes)))
        replacement.append(r)
    expected = index_values(e, outer_sizes)[tuple(index_values(r, sizes) for r in replacement)]
    found = substitute(e, replacement, sizes)
    assert np.array_equal(whole(found, sizes), np.broadcast_to(expected, sizes))


@examples(100)
@given(st.data())
def test_substitute_crops_the_tables_of_axes_that_became_shorter(data):
    sizes = data.draw(st.lists(st.integers(2, 5), min_size=1, max_size=3).map(tuple))
    e = data.draw(expressions(sizes))
    shorter = tuple(data.draw(st.integers(1, n)) for n in sizes)
    found = substitute(e, identity(len(sizes)), shorter)
    expected = index_values(e, sizes)[tuple(slice(n) for n in shorter)]
    assert np.array_equal(whole(found, shorter) if not _stale(found, shorter) else None, expected)


def _stale(e: Index, sizes: tuple[int, ...]) -> bool:
    return isinstance(e, Lookup) and e.table.values.shape != tuple(sizes[a] for a in e.axes)


@examples(200)
@given(st.data())
def test_from_table_keeps_the_values_and_finds_what_is_affine(data):
    sizes = data.draw(SIZES)
    order = data.draw(st.permutations(range(len(sizes))))
    e = data.draw(expressions(sizes))
    values = index_values(e, sizes).transpose(order)
    found = from_table(values, order)
    assert np.array_equal(whole(found, sizes), index_values(e, sizes))
    if isinstance(e, Affine):
        assert isinstance(found, Affine)
        kept = tuple((a, s) for a, s in e.strides if sizes[a] > 1)
        assert found.strides == kept
    else:
        assert all(sizes[a] > 1 for a in axes_of(found))


@examples(100)
@given(st.data())
def test_rename_and_shift(data):
    sizes = data.draw(SIZES)
    e = data.draw(expressions(sizes))
    names = data.draw(st.permutations(range(len(sizes))))
    renamed = rename(e, dict(enumerate(names)))
    inverse = [names.index(k) for k in range(len(sizes))]
    moved_sizes = tuple(sizes[k] for k in inverse)
    assert np.array_equal(whole(renamed, moved_sizes), index_values(e, sizes).transpose(inverse))
    by = data.draw(st.integers(0, 3))
    shifted = shift_axes(e, by)
    assert np.array_equal(whole(shifted, (2,) * by + sizes)[(0,) * by], index_values(e, sizes))
    if isinstance(renamed, Affine):
        assert list(renamed.strides) == sorted(renamed.strides)


@examples(150)
@given(st.data())
def test_flatten_is_the_position_in_c_order(data):
    sizes = data.draw(SIZES)
    rank = data.draw(st.integers(1, 3))
    shape, indices = [], []
    for _ in range(rank):
        e = data.draw(expressions(sizes))
        low, high = bounds(e, sizes)
        shifted = from_table(np.broadcast_to(evaluate(e, sizes), sizes) - low, range(len(sizes)))
        indices.append(shifted)
        shape.append(high - low + 1 + data.draw(st.integers(0, 2)))
    expected = np.ravel_multi_index(tuple(index_values(e, sizes) for e in indices), tuple(shape))
    assert np.array_equal(whole(flatten(indices, shape, sizes), sizes), expected)


# --- rows -----------------------------------------------------------------------------------------------------------


def test_from_table_of_nothing_and_of_one():
    assert from_table(np.zeros((0,), np.int64), [0]) == Affine(0)
    assert from_table(np.zeros((3, 0), np.int64), [0, 1]) == Affine(0)
    assert from_table(np.array(7), []) == Affine(7)
    assert from_table(np.array([[7]]), [0, 1]) == Affine(7)
    assert from_table(np.full((2, 3), 5), [0, 1]) == Affine(5)


def test_from_table_of_ramps():
    assert from_table(np.arange(4), [2]) == axis(2)
    assert from_table(np.arange(4)[::-1], [0]) == Affine(3, ((0, -1),))
    assert from_table(np.arange(12).reshape(3, 4), [0, 1]) == Affine(0, ((0, 4), (1, 1)))
    assert from_table(np.arange(12).reshape(3, 4).T, [1, 0]) == Affine(0, ((0, 4), (1, 1)))
    assert isinstance(from_table(np.array([0, 1, 3]), [0]), Lookup)
    assert isinstance(from_table(np.array([[0, 1], [1, 3]]), [0, 1]), Lookup)
    assert from_table(np.array([[0, 1], [1, 2]]), [0, 1]) == Affine(0, ((0, 1), (1, 1)))


def test_tables_equal_by_content():
    a, b, c = Table(np.array([1, 2, 5])), Table(np.array([1, 2, 5], dtype=np.int32)), Table(np.array([[1, 2, 5]]))
    assert a == b
    assert hash(a) == hash(b)
    assert a != c
    assert a != Table(np.array([1, 2, 6]))
    assert a != [1, 2, 5]
    assert Lookup(a, (0,)) == Lookup(b, (0,))
    assert len({Lookup(a, (0,)), Lookup(b, (0,)), Lookup(a, (1,))}) == 2


def test_tables_are_read_only_copies():
    source = np.array([1, 2, 5])
    found = Table(source)
    source[0] = 9
    assert found.values.tolist() == [1, 2, 5]
    with pytest.raises(ValueError, match="read-only"):
        found.values[0] = 3


def test_tables_of_another_memory_order_are_the_same():
    values = np.arange(6).reshape(2, 3) ** 2
    assert Table(values) == Table(np.asfortranarray(values)) == Table(np.repeat(values, 2, axis=1)[:, ::2])


def test_plain_axis():
    assert plain_axis(axis(3)) == 3
    for other in (
        Affine(0),
        Affine(1, ((0, 1),)),
        Affine(0, ((0, 2),)),
        Affine(0, ((0, 1), (1, 1))),
        from_table(np.array([0, 1, 3]), [0]),
    ):
        assert plain_axis(other) is None


def test_substituting_axes_that_meet():
    # table[i, j] on the diagonal, and two strides that cancel.
    e = from_table(np.array([[4, 0], [7, 5]]), [0, 1])
    assert np.array_equal(evaluate(substitute(e, [axis(0), axis(0)], (2,)), (2,)), [4, 5])
    assert substitute(Affine(3, ((0, 2), (1, -2))), [axis(0), axis(0)], (4,)) == Affine(3)


def test_substitution_tabulates_only_the_axes_that_take_part():
    e = from_table(np.array([4, 0, 7]), [0])
    found = substitute(e, [Affine(2, ((3, -1),))], (100, 100, 100, 3))
    assert isinstance(found, Lookup)
    assert found.axes == (3,)
    assert found.table.values.tolist() == [7, 0, 4]


def test_large_positions_do_not_overflow():
    e = flatten([axis(0), axis(1)], (2**20, 2**33), (2**20, 2**33))
    assert bounds(e, (2**20, 2**33)) == (0, 2**53 - 1)
