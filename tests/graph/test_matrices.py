"""Records that are the matrix of a linear map: products without forming it, in every way a contraction can ask."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from support import EXECUTORS, F4, F8, close, execute, interpret, op

import jacana as jc
from jacana.differentiate import dense_jacobians, jvp_nodes, sparse_jacobian, vjp_nodes
from jacana.graph import REGISTRY, build
from jacana.graph.index import Affine
from jacana.graph.node import Array, Node, new_input, topological
from jacana.graph.ops.control import LoopParams, make_body
from jacana.graph.ops.custom import CustomParams
from jacana.graph.ops.position import AtParams, SelectionParams
from jacana.graph.ops.reduction import AxisParams, TriangleParams
from jacana.structure.support import restrict_to_factors


def _loop(reverse: bool) -> tuple[Node, Array]:
    """Two steps of ``c = a * c + x``, with everything that they make: a, c and x are constants here."""
    a, c, x = np.array(0.5), np.array(2.0), np.array([3.0, 7.0])
    inputs = [new_input((), F8) for _ in range(3)]
    step = new_input((), np.dtype(np.int64))
    following = inputs[0] * inputs[1] + inputs[2]
    body = make_body(step, [inputs[1]], [inputs[2]], [inputs[0]], [following], [following * 3.0])
    floats = build.constant_array(np.array([c, *x, a]))
    ints = build.zeros((0,), np.dtype(np.int64))
    params = LoopParams(body, 2, reverse, F8, True)
    matrix = op("loop_matrix", floats, ints, op("loop", floats, ints, params=params), params=params)
    # Columns: c, x[0], x[1], a. Rows: the last carry, carries before each step, outputs of each step.
    first, second = (1, 0) if reverse else (0, 1)
    middle = np.zeros(4)
    middle[[0, 1 + first, 3]] = a, 1, c
    last = a * middle
    last[1 + second] += 1
    last[3] += a * c + x[first]
    want = np.zeros((5, 4))
    want[0] = last
    want[1 + first, 0] = 1
    want[1 + second] = middle
    want[3 + first], want[3 + second] = 3 * middle, 3 * last
    return matrix, want


def _selection(written: bool) -> tuple[Node, Array]:
    """Row k of a 3 x 2 array, with k = -1."""
    at = AtParams((2,), (3, 2), (Affine(0), Affine(0, ((0, 1),))), (0,))
    k = build.constant_array(np.array([-1]))
    start = build.index_node(k, (), (Affine(0),))
    want = np.zeros((2, 3, 2))
    want[[0, 1], 2, [0, 1]] = 1
    return op("selection", start, params=SelectionParams(at, F8, written)), np.moveaxis(
        want, 0, -1
    ) if written else want


def _custom(vjp: bool) -> tuple[Node, Array]:
    m = np.arange(6.0).reshape(2, 3)
    rules = jc.custom_operation(
        lambda x: m @ x, jvp=lambda arrays, t: m @ t[0], vjp=(lambda arrays, c: m.T @ c) if vjp else None
    )
    params = CustomParams(rules, (((3,), F8),), ((2,),), F8, ())
    return op("custom_matrix", build.constant_array(np.ones(3)), params=params), m


MATRICES = {
    "triangle": [(op("triangle", params=TriangleParams(n, F8)), np.tri(n)) for n in (4, 1)],
    "loop_matrix": [_loop(False), _loop(True)],
    "selection": [_selection(False), _selection(True)],
    "custom_matrix": [_custom(True), _custom(False)],
}  # fmt: skip
ALL = [pytest.param(node, want, id=f"{name}{k}") for name, rows in MATRICES.items() for k, (node, want) in
       enumerate(rows)]  # fmt: skip


def formed(nodes: list[Node]) -> bool:
    return any(node.op.matrix is not None for node in topological(nodes))


def test_every_matrix_has_a_row():
    assert set(MATRICES) == {name for name, record in REGISTRY.items() if record.matrix is not None}


@pytest.mark.parametrize(("matrix", "want"), ALL)
def test_value(matrix, want):
    for found in (interpret([matrix], {})[0], *(execute(name, [matrix], {})[0] for name in EXECUTORS)):
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rest", [(), (3,), (2, 3)])
@pytest.mark.parametrize(("matrix", "want"), ALL)
def test_product(matrix, want, rest, transposed):
    split = matrix.op.matrix.rows(matrix)
    axes = matrix.shape[:split] if transposed else matrix.shape[split:]
    x = new_input((*axes, *rest), F8)
    value = np.random.default_rng(0).normal(size=x.shape)
    flat = want.reshape(int(np.prod(matrix.shape[:split])), -1)
    expected = (flat.T if transposed else flat) @ value.reshape(int(np.prod(axes)), -1)
    node = matrix.op.matrix.product(matrix, x, transposed)
    for name in EXECUTORS:
        close(execute(name, [node], {x: value})[0].reshape(expected.shape), expected, 1e-13)


# Labels of the matrix are (0, 1); a plan is what the array has and what remains.
PLANS = [
    ((1,), (0,)), ((0,), (1,)), ((2, 1), (0, 2)), ((1, 2), (2, 0)), ((2, 0, 3), (3, 1)), ((), (0,)), ((), (1,)),
    ((1,), ()), ((2, 1), ()), ((), ()), ((1, 0), (0,)), ((1, 0), ()), ((2, 1), (0, 1)), ((1, 0, 2), (2,)),
]  # fmt: skip


@pytest.mark.parametrize(("have", "out"), PLANS)
def test_contractions(have, out):
    sizes = (4, 4, 3, 2)
    matrix = op("triangle", params=TriangleParams(4, F8))
    x = new_input(tuple(sizes[a] for a in have), F8)
    value = np.random.default_rng(1).normal(size=x.shape)
    if not set(out) <= {0, 1, *have}:
        return
    node = build.contract_labels([(matrix, (0, 1)), (x, have)], sizes, out)
    # Only where the array shares both axes, or keeps the summed one, must the matrix exist.
    assert formed([node]) == (set(have) >= {0, 1} or set(out) >= {0, 1})
    want = np.einsum(np.tri(4), [0, 1], value, list(have), list(out))
    for name in EXECUTORS:
        close(execute(name, [node], {x: value})[0], want, 1e-13)


def test_other_dtype():
    matrix = op("triangle", params=TriangleParams(4, F4))
    x = new_input((4,), F8)
    node = build.contract_labels([(matrix, (0, 1)), (x, (1,))], (4, 4), (0,))
    assert not formed([node])
    value = np.array([1.0, 2.0, 0.5, 4.0])
    assert node.dtype == F8
    np.testing.assert_array_equal(execute("numpy", [node], {x: value})[0], np.cumsum(value))


@pytest.mark.parametrize(("shape", "axis"), [((5,), 0), ((2, 3), 0), ((3, 4, 2), 1)])
def test_running_sums_stay_running_sums(shape, axis):
    x = new_input(shape, F8)
    y = op("sin", op("cumsum", x * x, params=AxisParams(axis)))
    c, t = new_input(shape, F8), new_input(shape, F8)
    (gradient,), (moved,) = vjp_nodes([y], [c], [x]), jvp_nodes([y], [x], [t])
    assert not formed([gradient, moved])
    rng = np.random.default_rng(2)
    known = {node: rng.normal(size=shape) for node in (x, c, t)}
    whole = dense_jacobians([y], [x])[0][0]
    plan = sparse_jacobian(y, x)
    n = shape[axis]
    assert plan.nnz == x.size // n * (n * (n + 1) // 2)
    for name in EXECUTORS:
        g, m, J, data = execute(name, [gradient, moved, whole, plan.data], known)
        total = np.cumsum(known[x] ** 2, axis=axis)
        close(m, np.cos(total) * np.cumsum(2 * known[x] * known[t], axis=axis), 1e-12)
        back = np.flip(np.cumsum(np.flip(np.cos(total) * known[c], axis), axis=axis), axis)
        close(g, 2 * known[x] * back, 1e-12)
        flat = J.reshape(x.size, x.size)
        close(flat @ known[t].ravel(), m.ravel(), 1e-12)
        close(plan.make(data).toarray(), flat, 1e-13)


def test_support_is_exact():
    for node, want in itertools.chain(*MATRICES.values()):
        if node.op.matrix.support is None:
            continue
        from jacana.graph.index import identity
        from jacana.graph.node import Term

        every = identity(node.ndim)
        split = node.op.matrix.rows(node)
        term = Term(node.shape, every[:split], every[split:], ((node, tuple(range(node.ndim))),))
        points = sum(int(np.prod(t.domain)) for t in restrict_to_factors(term))
        assert points == np.count_nonzero(want)


def test_long_running_sums():
    n = 200_000  # the matrix would have 4e10 elements

    def energy(x):
        return np.sum(np.sin(np.cumsum(x**2)))

    def forward(x):
        return np.sin(np.cumsum(x**2))

    x = np.linspace(0.0, 0.01, n)
    c = np.cos(np.cumsum(x**2))
    np.testing.assert_allclose(jc.grad(energy)(x), 2 * x * np.cumsum(c[::-1])[::-1], rtol=1e-12)
    J = jc.jacobian(forward, format="auto")(x)
    np.testing.assert_allclose(J @ x, c * np.cumsum(2 * x * x), rtol=1e-12)
    np.testing.assert_allclose(J.T @ x, 2 * x * np.cumsum((c * x)[::-1])[::-1], rtol=1e-12)
