"""Stored Jacobians: canonical CSR, exact counts of entries on shapes that are not square, formats that agree."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from support import (
    EXECUTORS,
    F4,
    F8,
    Array,
    close,
    concatenate,
    examples,
    execute,
    interpret,
    matmul,
    matvec,
    op,
    programs,
    ramp,
    table,
    take_slice,
    take_table,
    total,
)

from jacana.differentiate import dense_jacobians, eliminate, sparse_jacobian
from jacana.errors import InvalidInputError
from jacana.graph import build
from jacana.graph.index import Affine
from jacana.graph.node import Node, new_input
from jacana.graph.ops.elementwise import CastParams
from jacana.graph.ops.reduction import AxesParams, AxisParams
from jacana.structure import SPARSE_FORMATS, blocks_node, diagonal_terms, gram_terms, sparse_plan, transposed

ORDERS = ("forward", "reverse", "cost", "auto")
Build = Callable[[Node], Node]


def constant(*shape: int, seed: int = 0) -> Node:
    return build.constant_array(np.random.default_rng(seed).uniform(0.5, 1.5, size=shape))


def laplacian(x: Node) -> Node:
    n = x.shape[0]
    return take_slice(x, 0, 2, n - 2) - 2.0 * take_slice(x, 0, 1, n - 2) + take_slice(x, 0, 0, n - 2)


def two_dimensional(x: Node) -> Node:
    """The stencil of five points on a grid, zero outside."""
    rows, columns = x.shape
    padded = build.assembled([(x, (ramp(0, 1, 1), ramp(1, 1, 1)))], (rows + 2, columns + 2), F8, disjoint=True)

    def shifted(i: int, j: int) -> Node:
        return build.index_node(padded, x.shape, [ramp(0, 1, 1 + i), ramp(1, 1, 1 + j)])

    return shifted(-1, 0) + shifted(1, 0) + shifted(0, -1) + shifted(0, 1) - 4.0 * x * x


def adjacency(edges: list[tuple[int, int]], points: int) -> Build:
    """A loop over edges: gather both ends, a force, scatter it back with both signs."""

    def forces(x: Node) -> Node:
        a, b = (take_table(x, 0, [e[k] for e in edges]) for k in (0, 1))
        force = op("sin", a - b)
        rows = [(table([e[k] for e in edges], 0),) for k in (0, 1)]
        return build.assembled([(force, rows[0]), (-force, rows[1])], (points,), F8, disjoint=False)

    return forces


EDGES = [(0, 1), (1, 2), (1, 2), (4, 0), (3, 3)]


class Case(NamedTuple):
    shape: tuple[int, ...]
    build: Build
    nnz: int


CASES = {
    "elementwise": Case((2, 3), lambda x: op("sin", x) * x, 6),
    "elementwise of two elements": Case((2, 3), lambda x: x * take_slice(x, 1, 2, 3, -1), 6 + 4),
    "zero derivative": Case((2, 3), lambda x: op("floor", x) + op("sign", x), 0),
    "beside a zero derivative": Case((2, 3), lambda x: op("floor", x) * x, 6),
    "stencil": Case((7,), laplacian, 3 * 5),
    "stencil of a function": Case((7,), lambda x: laplacian(op("exp", x)) + take_slice(x, 0, 1, 5), 3 * 5),
    "grid": Case((3, 4), two_dimensional, 12 + 2 * (2 * 4 + 3 * 3)),
    "matrix times vector": Case((3,), lambda x: matvec(constant(2, 3), x), 6),
    "matrix times matrix": Case((3, 2), lambda x: matmul(constant(4, 3), x), 4 * 2 * 3),
    "matrix squared": Case((3, 3), lambda x: matmul(x, x), 9 * 5),
    "gram matrix": Case((2, 3), lambda x: matmul(x, build.transpose(x, (1, 0))), 3 * (2 + 2 * 2)),
    "outer product": Case((3,), lambda x: build.contract_labels([(x, (0,)), (x, (1,))], (3, 3), (0, 1)), 3 + 2 * 6),
    "gather": Case((4, 2), lambda x: take_table(x, 0, [3, 0, 3]), 6),
    "gather of a product": Case((4,), lambda x: take_table(x, 0, [3, 0, 3]) * take_table(x, 0, [1, 0, 2]), 2 + 1 + 2),
    "scatter with duplicates": Case(
        (5,), lambda x: build.assembled([(x * x, (table([2, 0, 2, 2, 1], 0),))], (3,), F8, disjoint=False), 5
    ),
    "forces on a graph": Case((5,), adjacency(EDGES, 5), 3 + 3 + 2 + 1 + 2),
    "cumulated sums": Case((2, 4), lambda x: op("cumsum", x, params=AxisParams(1)), 2 * 10),
    "cumulated sums down": Case((3, 2), lambda x: op("cumsum", x * x, params=AxisParams(0)), 2 * 6),
    "sum of an axis": Case((2, 3), lambda x: build.sum_axes(x, (0,)), 6),
    "sum of everything": Case((2, 3), total, 6),
    "product of an axis": Case((2, 3), lambda x: op("prod", x, params=AxesParams((1,))), 6),
    "maximum of an axis": Case((2, 3), lambda x: op("max", x, params=AxesParams((0,))), 6),
    "norm of an axis": Case((2, 3), lambda x: op("norm", x, params=AxesParams((1,))), 6),
    "softmax": Case(
        (2, 3),
        lambda x: op("exp", x) / build.broadcast_axes(build.sum_axes(op("exp", x), (1,)), (2, 3), (0,)),
        2 * 9,
    ),
    "batch of a small net": Case(
        (4, 3), lambda x: op("tanh", matmul(op("tanh", matmul(x, constant(3, 5))), constant(5, 2))), 4 * 6
    ),
    "batch of inverses": Case((2, 3, 3), lambda x: op("inv", x), 2 * 81),
    "determinants": Case((2, 3, 3), lambda x: op("det", x), 2 * 9),
    "transpose": Case((2, 3), lambda x: build.transpose(x, (1, 0)), 6),
    "reshape": Case((4, 3), lambda x: build.movement_reshape(x, (2, 6)), 12),
    "reshape there and back": Case(
        (4, 6), lambda x: build.movement_reshape(build.movement_reshape(x, (3, 8)), (4, 6)), 24
    ),
    "concatenation": Case((2, 3), lambda x: concatenate([x, take_slice(x, 0, 1, 1), x * 2.0], 0), 15),
    "padding": Case((2, 3), lambda x: build.assembled([(x, (ramp(0, 1, 1), ramp(1)))], (4, 3), F8, disjoint=True), 6),
    "broadcast": Case((3,), lambda x: build.broadcast_to(x, (2, 3)), 6),
    "diagonal of a matrix": Case((3, 4), lambda x: build.index_node(x, (3,), [ramp(0), ramp(0)]), 3),
    "matrix with a diagonal": Case(
        (3,), lambda x: build.assembled([(x, (ramp(0), ramp(0)))], (3, 4), F8, disjoint=True), 3
    ),
    "one place": Case((2, 3), lambda x: build.index_node(x, (), [Affine(1), Affine(2)]), 1),
    "conversion": Case((2, 3), lambda x: op("cast", x, params=CastParams(F4)), 6),
    "branch": Case((2, 3), lambda x: op("select", x > 1.0, op("log", x), x * x), 6),
    "empty": Case((0, 3), lambda x: x * x, 0),
    "sum over nothing": Case((0, 3), lambda x: build.sum_axes(x * x, (0,)), 0),
    "nothing of something": Case((2, 3), lambda x: build.index_node(x, (0, 3), [ramp(0), ramp(1)]), 0),
    "scalar": Case((), lambda x: op("sin", x), 1),
}


def point(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Well away from kinks, ties and singular matrices."""
    rng = np.random.default_rng(seed)
    value = np.asarray(rng.permutation(np.linspace(0.4, 1.7, max(1, math.prod(shape)))))[: math.prod(shape)].reshape(
        shape
    )
    if len(shape) == 3:
        value = value + 2.0 * np.eye(shape[-1])
    return np.asarray(value)


def check_csr(matrix: Any, shape: tuple[int, int], nnz: int) -> None:
    assert isinstance(matrix, scipy.sparse.csr_array)
    assert matrix.shape == shape
    assert matrix.nnz == nnz
    assert matrix.indptr[0] == 0
    assert matrix.indptr[-1] == nnz
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32
    for k in range(shape[0]):
        assert np.all(np.diff(matrix.indices[matrix.indptr[k] : matrix.indptr[k + 1]]) > 0)
    again = scipy.sparse.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=shape)
    again.check_format(full_check=True)
    assert again.has_canonical_format
    for part in (matrix.indices, matrix.indptr):
        with pytest.raises(ValueError, match="read-only"):
            part[...] = 0


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", CASES)
def test_csr_is_canonical_and_stores_what_it_must(name, order):
    case = CASES[name]
    x = new_input(case.shape, F8)
    y = case.build(x)
    plan = sparse_jacobian(y, x, order)
    assert plan.nnz == case.nnz
    assert plan.shape == (y.size, x.size)
    value = point(case.shape)
    (whole,) = dense_jacobians([y], [x], order)[0]
    dense, data = interpret([whole, plan.data], {x: value})
    matrix = plan.make(data)
    check_csr(matrix, plan.shape, case.nnz)
    close(matrix.toarray(), dense.reshape(plan.shape), 1e-14)
    assert np.array_equal(matrix.indices, plan.indices)
    assert np.array_equal(matrix.indptr, plan.indptr)
    # Counted on the numbers: nothing different from zero is missing.
    assert np.count_nonzero(dense) <= case.nnz


@pytest.mark.parametrize("name", CASES)
def test_executors_store_the_same(name):
    case = CASES[name]
    x = new_input(case.shape, F8)
    y = case.build(x)
    plan = sparse_jacobian(y, x)
    (whole,) = dense_jacobians([y], [x])[0]
    value = point(case.shape, 3)
    expected = interpret([y, whole, plan.data], {x: value})
    for executor in EXECUTORS:
        for one, other in zip(execute(executor, [y, whole, plan.data], {x: value}), expected, strict=True):
            # the reference keeps float64 where a conversion to float32 was asked for
            close(one, other, 1e-13 if y.dtype == F8 else 1e-6, executor)


def assert_same(found: Any, expected: Array, format: str) -> None:
    assert found.format == format
    assert found.shape == expected.shape
    close(found.toarray(), expected, 1e-13, format)


@pytest.mark.parametrize("name", CASES)
def test_every_format_is_the_same_matrix(name):
    case = CASES[name]
    x = new_input(case.shape, F8)
    y = case.build(x)
    value = point(case.shape, 5)
    (whole,) = dense_jacobians([y], [x])[0]
    (terms,) = eliminate([y], [x]).terms[0]
    plans = {format: sparse_plan(terms, y.shape, x.shape, F8, format) for format in SPARSE_FORMATS}
    nodes = [whole, *(plan.data for plan in plans.values())]
    for executor in EXECUTORS:
        dense, *stored = execute(executor, nodes, {x: value})
        for (format, plan), data in zip(plans.items(), stored, strict=True):
            assert plan.nnz == case.nnz
            matrix = plan.make(data)
            assert_same(matrix, dense.reshape(y.size, x.size), format)
            assert matrix.data.dtype == F8
            # What SciPy makes of it is what it makes of any other matrix.
            close((matrix @ np.eye(x.size)), dense.reshape(y.size, x.size), 1e-13)


@examples(40)
@given(programs(), st.sampled_from(SPARSE_FORMATS))
def test_formats_of_random_programs(program, format):
    y, x = program.outputs[0], program.inputs[0]
    (terms,) = eliminate([y], [x]).terms[0]
    plan = sparse_plan(terms, y.shape, x.shape, F8, format)
    (whole,) = dense_jacobians([y], [x])[0]
    dense, data = interpret([whole, plan.data], program.known)
    assert_same(plan.make(data), dense.reshape(y.size, x.size), format)


@examples(40)
@given(programs())
def test_transpose_gram_and_diagonal_of_random_programs(program):
    y, x = program.outputs[0], program.inputs[0]
    (terms,) = eliminate([y], [x]).terms[0]
    (whole,) = dense_jacobians([y], [x])[0]
    flipped = sparse_plan(transposed(terms), x.shape, y.shape, F8)
    gram = sparse_plan(gram_terms([[terms]])[0][0], x.shape, x.shape, F8)
    dense, one, two = interpret([whole, flipped.data, gram.data], program.known)
    j = dense.reshape(y.size, x.size)
    close(flipped.make(one).toarray(), j.T, 1e-12)
    close(gram.make(two).toarray(), j.T @ j, 1e-12)
    if y.shape == x.shape:
        diagonal = sparse_plan(diagonal_terms(terms, x.shape), (), x.shape, F8)
        (values,) = interpret([diagonal.data], program.known)
        close(diagonal.make(values).toarray().ravel(), np.diag(j), 1e-12)


def test_blocks_of_a_batch():
    x = new_input((4, 3), F8)
    y = op("tanh", matmul(x * x, constant(3, 2)))
    (terms,) = eliminate([y], [x]).terms[0]
    node = blocks_node(terms, y.shape, x.shape, F8)
    assert node.shape == (4, 2, 3)
    (whole,) = dense_jacobians([y], [x])[0]
    for executor in EXECUTORS:
        blocks, dense = execute(executor, [node, whole], {x: point((4, 3))})
        for b in range(4):
            close(blocks[b], dense[b, :, b, :], 1e-14)


def test_blocks_of_no_batch_are_refused():
    x = new_input((4, 3), F8)
    y = take_slice(x, 0, 3, 4, -1) * x
    (terms,) = eliminate([y], [x]).terms[0]
    with pytest.raises(InvalidInputError, match="sample 0 of the result depends on sample 3"):
        blocks_node(terms, y.shape, x.shape, F8)


def test_a_million_rows_cost_no_more_than_their_entries():
    n = 1_000_000
    x = new_input((n,), F8)
    y = op("sin", laplacian(x))
    plan = sparse_jacobian(y, x)
    assert plan.nnz == 3 * (n - 2)
    assert plan.indices.dtype == np.int32
    assert np.array_equal(plan.indices[-3:], [n - 3, n - 2, n - 1])


def test_values_are_written_where_a_row_wants_them():
    # Columns of one row come from three terms in falling order: the values must follow the sorted columns.
    x = new_input((5,), F8)
    y = take_slice(x, 0, 4, 3, -1) * 100.0 + take_slice(x, 0, 1, 3) * 10.0 + take_slice(x, 0, 0, 3)
    plan = sparse_jacobian(y, x)
    expected = np.zeros((3, 5))
    for i in range(3):
        expected[i, 4 - i] += 100
        expected[i, i + 1] += 10
        expected[i, i] += 1
    for executor in EXECUTORS:
        (data,) = execute(executor, [plan.data], {x: np.zeros(5)})
        assert np.array_equal(plan.make(data).toarray(), expected)
    assert plan.nnz == 8  # one entry of row 1 and one of row 2 are the sum of two terms


def test_a_matrix_of_scipy_shares_nothing_that_can_be_written():
    x = new_input((6,), F8)
    plan = sparse_jacobian(laplacian(op("exp", x)), x)
    one = plan.make(np.ones(plan.nnz))
    two = plan.make(np.zeros(plan.nnz))
    one *= 3.0
    assert two.data.max() == 0
    assert (one + two).nnz == plan.nnz
    assert one.sum() == 3.0 * plan.nnz
    assert one.T.tocsr().shape == (6, 4)
