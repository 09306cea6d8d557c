"""Elimination in every order, on random programs and on particular ones, against differences and one another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import scipy.sparse
from hypothesis import assume, given
from hypothesis import strategies as st
from support import (
    EXECUTORS,
    F4,
    F8,
    KinkError,
    RandomProgram,
    close,
    concatenate,
    differences,
    examples,
    execute,
    interpret,
    matmul,
    matvec,
    op,
    programs,
    take_slice,
    take_table,
    total,
)

import jacana as jc
from jacana.differentiate import dense_jacobians, derivatives, eliminate, jvp_nodes, sparse_jacobian, vjp_nodes
from jacana.errors import InvalidInputError
from jacana.graph import build
from jacana.graph.node import Node, new_input
from jacana.structure import SparsePlan

ORDERS = ("forward", "reverse", "cost", "auto")


def matrix(plan: SparsePlan, data: np.ndarray) -> np.ndarray:
    return scipy.sparse.csr_array((data, plan.indices, plan.indptr), shape=plan.shape).toarray()


def check_canonical(plan: SparsePlan) -> None:
    """Rows in order, columns rising strictly within each row, index arrays nobody can write into."""
    rows, columns = plan.shape
    assert plan.indptr.shape == (rows + 1,)
    assert plan.indptr[0] == 0
    assert plan.indptr[-1] == plan.nnz == len(plan.indices) == plan.data.size
    assert np.all(np.diff(plan.indptr) >= 0)
    assert plan.indices.size == 0 or (plan.indices.min() >= 0 and plan.indices.max() < columns)
    for k in range(rows):
        assert np.all(np.diff(plan.indices[plan.indptr[k] : plan.indptr[k + 1]]) > 0)
    assert not plan.indices.flags.writeable
    assert not plan.indptr.flags.writeable
    assert plan.indices.dtype == plan.indptr.dtype == np.int32


def reference(program: RandomProgram) -> list[list[np.ndarray]]:
    try:
        return differences(program.outputs, program.inputs, program.known)
    except KinkError:
        assume(False)
        raise


@contextmanager
def dense_limit(points: int) -> Iterator[None]:
    """Up to how many points dense results do without the zeros of constant matrices."""
    before = derivatives.DENSE_LIMIT
    derivatives.DENSE_LIMIT = points
    try:
        yield
    finally:
        derivatives.DENSE_LIMIT = before


@examples(120)
@given(programs(), st.sampled_from([256, 0]), st.sampled_from(ORDERS))
def test_orders_formats_and_executors_agree(program, limit, native_order):
    outputs, inputs = program.outputs, program.inputs
    expected = [e for row in reference(program) for e in row]
    with dense_limit(limit):
        whole = {order: [j for row in dense_jacobians(outputs, inputs, order) for j in row] for order in ORDERS}
    plans = {o: [sparse_jacobian(y, x, o) for y in outputs for x in inputs] for o in ("forward", "auto")}
    shapes = [y.shape + x.shape for y in outputs for x in inputs]
    for found in whole.values():
        assert [node.shape for node in found] == shapes
    values = interpret(outputs, program.known)
    first = interpret(whole["forward"], program.known)

    def check(name: str, order: str, numbers: Iterator[np.ndarray]) -> None:
        for want in values:
            close(next(numbers), want, 1e-12, (name, "value"))
        for one, want in zip(first, expected, strict=True):
            here = next(numbers)
            close(here.reshape(want.shape), want, 1e-9, (name, order))
            close(here, one, 1e-12, (name, order))  # the orders agree far better than differences can tell
        for plan, want in zip(plans.get(order, ()), expected, strict=order in plans):
            check_canonical(plan)
            close(matrix(plan, next(numbers)), want, 1e-9, (name, order, "csr"))

    for order in ORDERS:
        nodes = [*outputs, *whole[order], *(plan.data for plan in plans.get(order, ()))]
        check("interpreter", order, iter(interpret(nodes, program.known)))
        for name in EXECUTORS:
            if name == "numpy" or order == native_order:
                check(name, order, iter(execute(name, nodes, program.known)))


@examples(60)
@given(programs(steps=10))
def test_products_are_the_jacobian_times_a_vector(program):
    outputs, inputs = program.outputs, program.inputs
    rng = np.random.default_rng(len(outputs))
    values = program.known
    tangents = [new_input(x.shape, F8) for x in inputs]
    cotangents = [new_input(y.shape, F8) for y in outputs]
    for node in (*tangents, *cotangents):
        values[node] = np.asarray(rng.normal(size=node.shape))
    jacobians = dense_jacobians(outputs, inputs)
    forward = [jvp_nodes(outputs, inputs, tangents, order) for order in ("forward", "auto")]
    reverse = [vjp_nodes(outputs, cotangents, inputs, order) for order in ("reverse", "auto")]
    nodes = [j for row in jacobians for j in row]
    found = interpret([*nodes, *forward[0], *forward[1], *reverse[0], *reverse[1]], values)
    whole, rest = found[: len(nodes)], iter(found[len(nodes) :])
    block = {
        (i, j): whole[i * len(inputs) + j].reshape(y.size, x.size)
        for i, y in enumerate(outputs)
        for j, x in enumerate(inputs)
    }
    for _ in forward:
        for i, y in enumerate(outputs):
            expected = sum((block[i, j] @ values[t].ravel() for j, t in enumerate(tangents)), np.zeros(y.size))
            close(next(rest), expected.reshape(y.shape), 1e-11, "jvp")
    for _ in reverse:
        for j, x in enumerate(inputs):
            expected = sum((values[c].ravel() @ block[i, j] for i, c in enumerate(cotangents)), np.zeros(x.size))
            close(next(rest), expected.reshape(x.shape), 1e-11, "vjp")
    for name in EXECUTORS:
        again = execute(name, [*forward[0], *reverse[0]], values)
        for one, other in zip(again, [*interpret([*forward[0], *reverse[0]], values)], strict=True):
            close(one, other, 1e-12, name)


@examples(60)
@given(programs(smooth=True, scalar=True, steps=5), st.sampled_from(ORDERS), st.sampled_from(ORDERS))
def test_hessians(program, first, second):
    gradients = dense_jacobians(program.outputs, program.inputs, first)[0]
    try:
        expected = differences(gradients, program.inputs, program.known)
    except KinkError:
        assume(False)
        raise
    hessians = dense_jacobians(gradients, program.inputs, second)
    plans = [[sparse_jacobian(g, x, second) for x in program.inputs] for g in gradients]
    nodes = [h for row in hessians for h in row]
    data = [p.data for row in plans for p in row]
    for name in EXECUTORS:
        found = execute(name, [*nodes, *data], program.known)
        rest = iter(found)
        blocks = {}
        for i, g in enumerate(gradients):
            for j, x in enumerate(program.inputs):
                blocks[i, j] = next(rest).reshape(g.size, x.size)
                close(blocks[i, j], expected[i][j], 1e-8, (name, i, j))
        for (i, j), block in blocks.items():
            close(block, blocks[j, i].T, 1e-11, (name, "symmetry", i, j))
        for i in range(len(gradients)):
            for j in range(len(program.inputs)):
                check_canonical(plans[i][j])
                close(matrix(plans[i][j], next(rest)), blocks[i, j], 1e-11, (name, "csr", i, j))


@examples(25)
@given(programs(smooth=True, scalar=True, steps=3))
def test_third_derivatives(program):
    (x, *_) = program.inputs
    gradient = dense_jacobians(program.outputs, [x])[0][0]
    hessian = dense_jacobians([gradient], [x])[0][0]
    assume(hessian.size * x.size <= 600)
    try:
        expected = differences([hessian], [x], program.known)[0][0]
    except KinkError:
        assume(False)
        raise
    third = dense_jacobians([hessian], [x])[0][0]
    (found,) = interpret([third], program.known)
    close(found.reshape(expected.shape), expected, 1e-7)


@examples(40)
@given(programs(dtype=F4))
def test_float32(program):
    expected = reference(program)
    for order in ("forward", "auto"):
        found = dense_jacobians(program.outputs, program.inputs, order)
        nodes = [*program.outputs, *(j for row in found for j in row)]
        assert all(node.dtype == F4 for node in nodes)
        for name in EXECUTORS:
            values = execute(name, nodes, program.known)
            rest = iter(values[len(program.outputs) :])
            for row in expected:
                for want in row:
                    close(next(rest).reshape(want.shape), want, 1e-3, (name, order))


# --- particular shapes of program -------------------------------------------------------------------------------


def vector(n: int) -> Node:
    return new_input((n,), F8)


@pytest.mark.parametrize("order", ORDERS)
def test_an_output_that_is_an_input(order):
    x, y = vector(3), new_input((2, 3), F8)
    found = dense_jacobians([x, y, x], [x, y], order)
    values = {x: np.arange(3.0), y: np.zeros((2, 3))}
    for row, expected in zip(found, [[np.eye(3), 0], [0, np.eye(6).reshape(2, 3, 2, 3)], [np.eye(3), 0]], strict=True):
        for node, want in zip(row, expected, strict=True):
            assert np.array_equal(interpret([node], values)[0], np.broadcast_to(want, node.shape))
    assert sparse_jacobian(x, x, order).nnz == 3
    assert sparse_jacobian(y, y, order).nnz == 6
    assert sparse_jacobian(y, x, order).nnz == 0


@pytest.mark.parametrize("order", ORDERS)
def test_an_output_on_the_way_to_another_output(order):
    x = vector(3)
    middle = op("sin", x)
    y = op("exp", middle)
    values = {x: np.array([0.1, 0.7, -2.0])}
    found = dense_jacobians([middle, y, middle], [x], order)
    first, second, third = (interpret([row[0]], values)[0] for row in found)
    v = values[x]
    close(first, np.diag(np.cos(v)), 1e-14)
    close(second, np.diag(np.cos(v) * np.exp(np.sin(v))), 1e-14)
    close(third, first, 0)


@pytest.mark.parametrize("order", ORDERS)
def test_an_argument_in_the_middle_of_the_program(order):
    # Derivatives by a node that another argument goes through: that node is held fixed for the other.
    x = vector(3)
    middle = op("sin", x)
    y = middle * x
    values = {x: np.array([0.1, 0.7, -2.0])}
    by_x, by_middle = (interpret([node], values)[0] for node in dense_jacobians([y], [x, middle], order)[0])
    close(by_x, np.diag(np.sin(values[x])), 1e-15)
    close(by_middle, np.diag(values[x]), 1e-15)


@pytest.mark.parametrize("order", ORDERS)
def test_unused_and_integer_inputs(order):
    x, unused, whole = vector(3), new_input((2, 2), F8), new_input((3,), np.dtype("i8"))
    y = op("sin", x) * op("cast", whole, params=op_cast())
    found = dense_jacobians([y], [unused, x, whole], order)[0]
    values = {x: np.ones(3), unused: np.ones((2, 2)), whole: np.array([1, 2, 3])}
    assert not interpret([found[0]], values)[0].any()
    assert found[0].shape == (3, 2, 2)
    assert not interpret([found[2]], values)[0].any()
    close(interpret([found[1]], values)[0], np.diag(np.cos(1.0) * np.arange(1.0, 4.0)), 1e-15)
    for name in EXECUTORS:
        assert not execute(name, [found[0]], values)[0].any()
    plan = sparse_jacobian(y, unused, order)
    check_canonical(plan)
    assert plan.nnz == 0
    assert plan.shape == (3, 4)


def op_cast():
    from jacana.graph.ops.elementwise import CastParams

    return CastParams(F8)


@pytest.mark.parametrize("order", ORDERS)
def test_booleans_carry_nothing(order):
    x = vector(4)
    y = op("cast", x > 0.0, params=op_cast())
    found = dense_jacobians([y], [x], order)[0][0]
    assert not interpret([found], {x: np.ones(4)})[0].any()
    assert eliminate([y], [x], order).terms[0][0] == ()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)])
def test_empty_arrays(order, shape):
    x = new_input(shape, F8)
    values = {x: np.zeros(shape)}
    y = op("sin", x) * x
    s = total(y)
    transposed = build.transpose(y, tuple(reversed(range(len(shape)))))
    for out in (y, s, transposed, concatenate([y, y], 0), build.movement_reshape(y, (0, 5))):
        (found,) = dense_jacobians([out], [x], order)[0]
        assert found.shape == out.shape + shape
        plan = sparse_jacobian(out, x, order)
        check_canonical(plan)
        for name in EXECUTORS:
            value, dense, data = execute(name, [out, found, plan.data], values)
            assert not value.any()
            assert not dense.any()
            assert data.shape == (0,)


@pytest.mark.parametrize("order", ORDERS)
def test_scalars(order):
    x = new_input((), F8)
    y = op("sin", x) * x
    (found,) = dense_jacobians([y], [x], order)[0]
    plan = sparse_jacobian(y, x, order)
    check_canonical(plan)
    assert plan.shape == (1, 1)
    (second,) = dense_jacobians([found], [x], order)[0]
    values = {x: np.array(0.7)}
    for name in EXECUTORS:
        a, b, c = execute(name, [found, plan.data, second], values)
        close(a, np.asarray(np.cos(0.7) * 0.7 + np.sin(0.7)), 1e-15)
        close(b, np.asarray([a]), 0)
        close(c, np.asarray(2 * np.cos(0.7) - 0.7 * np.sin(0.7)), 1e-15)


@pytest.mark.parametrize("order", ["forward", "reverse", "cost", "auto"])
def test_deep_chains_need_no_recursion(order):
    x = vector(2)
    y = x
    for k in range(2000):
        y = y + 0.001 * op("sin", y) if k % 2 else y * 1.0001
    (found,) = dense_jacobians([y], [x], order)[0]
    values = {x: np.array([0.3, -0.6])}
    expected = differences([y], [x], values)[0][0]
    close(interpret([found], values)[0], expected, 1e-10)
    close(execute("numpy", [found], values)[0], expected, 1e-10)


def test_deep_chains_of_second_order():
    x = new_input((), F8)
    y = x
    for _ in range(700):
        y = y + 0.001 * op("sin", y)
    (first,) = dense_jacobians([y], [x])[0]
    (second,) = dense_jacobians([first], [x])[0]
    values = {x: np.array(0.3)}
    expected = differences([first], [x], values)[0][0]
    close(interpret([second], values)[0], expected.reshape(()), 1e-10)


def test_a_wide_sum_of_a_shared_node():
    # One node that very many others read: every order must add up all of them.
    x = vector(3)
    shared = op("exp", x)
    parts = [shared * (0.01 * k) for k in range(300)]
    y = parts[0]
    for part in parts[1:]:
        y = y + part
    values = {x: np.array([0.1, 0.2, -0.3])}
    for order in ORDERS:
        (found,) = dense_jacobians([y], [x], order)[0]
        close(interpret([found], values)[0], np.diag(np.exp(values[x]) * 0.01 * 299 * 150), 1e-12)


def test_a_recurrence_where_paths_double():
    # Fibonacci: the number of paths grows exponentially, the number of eliminations must not.
    x = new_input((), F8)
    a, b = x, op("sin", x)
    for _ in range(60):
        a, b = b, (a + b) * 0.6
    values = {x: np.array(0.4)}
    for order in ORDERS:
        (found,) = dense_jacobians([b], [x], order)[0]
        close(interpret([found], values)[0], differences([b], [x], values)[0][0].reshape(()), 1e-12)


def test_order_is_checked():
    x = vector(2)
    with pytest.raises(ValueError, match="order must be"):
        eliminate([op("sin", x)], [x], "sideways")


def test_names_of_orders():
    def f(x):
        return np.sin(x[1:]) * x[:-1]

    x = np.array([0.3, 0.7, 1.1])
    for verb in (jc.jacobian, jc.gauss_newton):
        np.testing.assert_array_equal(verb(f, order="markowitz")(x), verb(f, order="cost")(x))
        with pytest.raises(InvalidInputError, match="forward, reverse, markowitz, cost, auto"):
            verb(f, order="sideways")


def test_auto_is_never_dearer_than_forward_or_reverse():
    # Wide to narrow wants reverse, narrow to wide wants forward; "auto" may not lose to either where it matters.
    for inputs, outputs in ((200, 1), (1, 200), (150, 25), (25, 150)):
        x = vector(inputs)
        h = x
        for k, n in enumerate([100, 125, outputs]):
            w = build.constant_array(np.random.default_rng(k).normal(size=(n, h.shape[0])))
            h = op("tanh", matvec(w, h))
        cost = {order: eliminate([h], [x], order).cost for order in ORDERS}
        assert cost["auto"] <= min(cost["forward"], cost["reverse"])
        assert cost["forward"] > cost["reverse"] or inputs < outputs


@pytest.mark.parametrize("order", ORDERS)
def test_a_layered_network(order):
    rng = np.random.default_rng(1)
    x, w1, w2 = vector(3), new_input((4, 3), F8), new_input((2, 4), F8)
    y = op("tanh", matvec(w2, op("tanh", matvec(w1, x))))
    values = {x: rng.normal(size=3), w1: rng.normal(size=(4, 3)), w2: rng.normal(size=(2, 4))}
    found = dense_jacobians([y], [x, w1, w2], order)[0]
    h = np.tanh(values[w1] @ values[x])
    dy = 1 - np.tanh(values[w2] @ h) ** 2
    left = dy[:, None] * values[w2] * (1 - h**2)
    close(interpret([found[0]], values)[0], left @ values[w1], 1e-14)
    close(interpret([found[1]], values)[0], left[:, :, None] * values[x], 1e-14)
    close(interpret([found[2]], values)[0], np.einsum("i,ik,j->ikj", dy, np.eye(2), h), 1e-14)


@pytest.mark.parametrize("order", ORDERS)
def test_a_batch_stays_block_diagonal(order):
    rng = np.random.default_rng(1)
    x = new_input((5, 3), F8)
    w = build.constant_array(rng.normal(size=(3, 2)))
    y = op("tanh", matmul(x, w))
    plan = sparse_jacobian(y, x, order)
    check_canonical(plan)
    assert plan.shape == (10, 15)
    assert plan.nnz == 5 * 2 * 3
    (terms,) = eliminate([y], [x], order).terms[0]
    assert sorted(terms[0].domain) == [2, 3, 5]


@pytest.mark.parametrize("order", ORDERS)
def test_large_reductions_in_the_middle(order):
    # softmax over rows, a norm and a product with zeros
    rng = np.random.default_rng(4)
    x = new_input((2, 5), F8)
    e = op("exp", x)
    s = build.broadcast_axes(build.sum_axes(e, (1,)), (2, 5), (0,))
    values = {x: rng.normal(size=(2, 5))}
    p = e / s
    found = interpret([dense_jacobians([p], [x], order)[0][0]], values)[0]
    v = interpret([p], values)[0]
    expected = np.zeros((2, 5, 2, 5))
    for b in range(2):
        expected[b, :, b, :] = np.diag(v[b]) - np.outer(v[b], v[b])
    close(found, expected, 1e-14)
    assert sparse_jacobian(p, x, order).nnz == 2 * 25


@pytest.mark.parametrize("order", ORDERS)
def test_gather_scatter_and_slices_of_slices(order):
    rng = np.random.default_rng(4)
    x = vector(9)
    part = take_slice(take_slice(x, 0, 8, 9, -1), 0, 1, 4, 2)
    gathered = take_table(part, 0, [3, 3, 0, 1])
    y = concatenate([gathered * gathered, take_slice(part, 0, 2, 2)], 0)
    values = {x: rng.normal(size=9)}
    expected = differences([y], [x], values)[0][0]
    plan = sparse_jacobian(y, x, order)
    check_canonical(plan)
    assert plan.nnz == 6
    close(matrix(plan, interpret([plan.data], values)[0]), expected, 1e-10)


@pytest.mark.parametrize("order", ORDERS)
def test_pairwise_distances(order):
    rng = np.random.default_rng(4)
    x = new_input((4, 2), F8)
    shape = (4, 4, 2)
    difference = build.broadcast_axes(x, shape, (0, 2)) - build.broadcast_axes(x, shape, (1, 2))
    distance = op("norm", difference, params=norm_axes())
    values = {x: rng.normal(size=(4, 2))}
    (found,) = dense_jacobians([distance], [x], order)[0]
    (value,) = interpret([found], values)
    v = values[x]
    expected = np.zeros((4, 4, 4, 2))
    for i in range(4):
        for j in range(4):
            if i != j:  # the subgradient of least length at a distance of zero is zero
                expected[i, j, i] = (v[i] - v[j]) / np.linalg.norm(v[i] - v[j])
                expected[i, j, j] = -expected[i, j, i]
    close(value, expected, 1e-14)


def norm_axes():
    from jacana.graph.ops.reduction import AxesParams

    return AxesParams((2,))


def test_mixed_precision():
    # float32 in, float64 in the middle: derivatives are of the common dtype.
    from jacana.graph.ops.elementwise import CastParams

    x = new_input((3,), F4)
    y = op("exp", op("cast", x, params=CastParams(F8)))
    for order in ORDERS:
        (found,) = dense_jacobians([y], [x], order)[0]
        assert found.dtype == F8
        for name in EXECUTORS:
            (value,) = execute(name, [found], {x: np.array([0.5, 1, -2], dtype=np.float32)})
            close(value, np.diag(np.exp([0.5, 1, -2])), 1e-15)
    z = op("cast", y, params=CastParams(F4))
    (found,) = dense_jacobians([z], [x])[0]
    assert found.dtype == F4
    for name in EXECUTORS:
        (value,) = execute(name, [found], {x: np.array([0.5, 1, -2], dtype=np.float32)})
        close(value, np.diag(np.exp([0.5, 1, -2])), 1e-6)


def test_the_jacobian_of_a_jacobian_of_a_matrix_function():
    # d^2 log det A, with A by its own inverse: -A^-T (x) A^-T in index notation.
    a = new_input((2, 2), F8)
    y = op("log", op("det", a))
    values = {a: np.array([[2.0, 0.3], [-0.4, 1.5]])}
    inverse = np.linalg.inv(values[a])
    for order in ORDERS:
        (first,) = dense_jacobians([y], [a], order)[0]
        (second,) = dense_jacobians([first], [a], order)[0]
        close(interpret([first], values)[0], inverse.T, 1e-14)
        close(interpret([second], values)[0], -np.einsum("li,jk->ijkl", inverse, inverse), 1e-14)


def test_elimination_reports_what_it_did():
    x = vector(4)
    found = eliminate([op("sin", op("exp", x))], [x], "forward")
    assert found.order == "forward"
    assert found.vertices == 2
    assert found.cost > 0
    assert len(found.terms) == len(found.terms[0]) == 1
    assert math.prod(found.terms[0][0][0].domain) == 4


def test_cheapest_first_gives_way_to_a_pure_mode_that_costs_less():
    # Forty numbers that are mixed at random: eliminating the cheapest first makes a full matrix of what is in between.
    rng = np.random.default_rng(0)
    steps = rng.integers(0, 40, (600, 2))

    def mixed(x):
        v = [x[k % 3] * (0.5 + 0.01 * k) for k in range(40)]
        for i, j in steps:
            v[i] = 0.5 * np.sin(v[i]) + 0.4 * v[j] if i % 2 else v[i] - 0.3 * v[j] * v[j]
        return np.stack(v[:4])

    x = rng.uniform(size=3)
    jacobian = jc.jacobian(mixed)
    _, traced = jacobian._replay.trace((x,), {})
    costs = {order: eliminate(traced.outputs, traced.by, order).cost for order in ("forward", "cost", "auto")}
    assert costs["auto"] == costs["forward"] < costs["cost"]
    expected = np.stack([np.imag(mixed(x + 1e-30j * e)) / 1e-30 for e in np.eye(3)], axis=1)
    np.testing.assert_allclose(jacobian(x), expected, rtol=1e-10, atol=1e-12)
