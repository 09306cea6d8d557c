"""Every elementwise record against mpmath: value, first and second derivative, special points, structure, dtypes.

The table below has a row for every record of the family; a record without a row fails. Reductions, movement,
contraction and linear algebra are compared with differences in long double by ``test_elimination.py``.
"""

import math

import mpmath as mp
import numpy as np
import pytest

from jacana.differentiate import dense_jacobians, sparse_jacobian
from jacana.graph import REGISTRY
from jacana.graph.build import cast_to, full, sum_axes
from jacana.graph.node import new_input
from jacana.run import Program, compile_numpy, native_available

F8, F4 = np.dtype("f8"), np.dtype("f4")
EXECUTORS = ["numpy", "native"] if native_available() else ["numpy"]

# The function by which each differentiable record is judged, in mpmath's arithmetic of 40 digits.
EXACT = {
    "negative": lambda x: -x,
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "reciprocal": lambda x: 1 / x,
    "square": lambda x: x * x,
    "remainder": lambda a, b: a - b * mp.floor(a / b),
    "fmod": lambda a, b: a - b * (mp.floor(a / b) if a >= 0 else mp.ceil(a / b)),
    "power": lambda x, p: mp.power(x, p),
    "absolute": abs,
    "maximum": max,
    "minimum": min,
    "fmax": max,
    "fmin": min,
    "exp": mp.exp,
    "exp2": lambda x: mp.power(2, x),
    "expm1": mp.expm1,
    "log": mp.log,
    "log2": lambda x: mp.log(x, 2),
    "log10": mp.log10,
    "log1p": lambda x: mp.log(1 + x),
    "sqrt": mp.sqrt,
    "cbrt": mp.cbrt,
    "hypot": mp.hypot,
    "logaddexp": lambda a, b: mp.log(mp.exp(a) + mp.exp(b)),
    "sin": mp.sin,
    "cos": mp.cos,
    "tan": mp.tan,
    "arcsin": mp.asin,
    "arccos": mp.acos,
    "arctan": mp.atan,
    "arctan2": mp.atan2,
    "sinh": mp.sinh,
    "cosh": mp.cosh,
    "tanh": mp.tanh,
    "arcsinh": mp.asinh,
    "arccosh": mp.acosh,
    "arctanh": mp.atanh,
}
ZERO_DERIVATIVE = {"floor_divide", "sign", "floor", "ceil", "trunc", "rint"}
BOOLEAN = {
    "less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "isnan", "isinf", "isfinite",
    "logical_and", "logical_or", "logical_xor", "logical_not",
}  # fmt: skip
ELSEWHERE = {"select", "cast"}  # have tests of their own below
ELEMENTWISE = {name: op for name, op in REGISTRY.items() if op.family == "elementwise"}
HARD = np.array([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-310, -1e-310, 1e300, -1e300, 0.5, 2.0, 745.0])


def test_every_record_has_a_row():
    assert set(EXACT) | ZERO_DERIVATIVE | BOOLEAN | ELSEWHERE == set(ELEMENTWISE)


def sample(op, count=9):
    rng = np.random.default_rng(len(op.name))
    points = [rng.uniform(low, high, count) for low, high in op.domain]
    if op.name == "remainder" or op.name == "fmod":
        points[0] += 0.37  # away from the multiples, where the value jumps
    return points


def run(executor, inputs, outputs, values):
    program = Program(tuple(inputs), tuple(outputs))
    if executor == "numpy":
        return compile_numpy(program)(values)
    from jacana.run.native import compile_native

    return compile_native(program)(values)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", sorted(EXACT))
def test_values_and_derivatives_agree_with_mpmath(name, executor):
    op = ELEMENTWISE[name]
    points = sample(op)
    n = len(points[0])
    inputs = [new_input((n,), F8) for _ in points]
    y = op(*inputs)
    plans = [[sparse_jacobian(y, x, order) for x in inputs] for order in ("forward", "reverse")]
    gradients = [dense_jacobians([sum_axes(y, (0,))], [x])[0][0] for x in inputs]
    seconds = [dense_jacobians([g], [x])[0][0] for g in gradients for x in inputs]
    outputs = [y, *(p.data for row in plans for p in row), *seconds]
    results = run(executor, inputs, outputs, points)
    with mp.workdps(40):
        rows = [[mp.mpf(float(v)) for v in row] for row in zip(*points, strict=True)]
        exact = [EXACT[name](*row) for row in rows]
        np.testing.assert_allclose(results[0], np.array(exact, float), rtol=1e-14, atol=1e-300)
        arity = len(points)
        orders = [tuple(int(k == j) for k in range(arity)) for j in range(arity)]
        for j, order in enumerate(orders):
            first = np.array([mp.diff(EXACT[name], row, order) for row in rows], float)
            for position in (1 + j, 1 + arity + j):
                np.testing.assert_allclose(results[position], first, rtol=1e-12, atol=1e-13)
        k = 1 + 2 * arity
        for one in orders:
            for other in orders:
                both = tuple(a + b for a, b in zip(one, other, strict=True))
                second = np.array([mp.diff(EXACT[name], row, both) for row in rows], float)
                np.testing.assert_allclose(results[k], np.diag(second), rtol=1e-10, atol=1e-10)
                k += 1
    for row in plans:
        for plan in row:
            np.testing.assert_array_equal(plan.rows, np.arange(n))
            np.testing.assert_array_equal(plan.cols, np.arange(n))


@pytest.mark.parametrize("name", sorted(ZERO_DERIVATIVE | BOOLEAN))
def test_no_derivative_is_no_entry(name):
    op = ELEMENTWISE[name]
    points = sample(op)
    inputs = [new_input((9,), F8) for _ in points]
    y = op(*inputs)
    for executor in EXECUTORS:
        (value,) = run(executor, inputs, [y], points)
        np.testing.assert_array_equal(value, op.ufunc(*points))
        assert value.dtype == (np.bool_ if name in BOOLEAN else F8)
    through = y if y.dtype == F8 else cast_to(y, F8)
    for x in inputs:
        for order in ("forward", "reverse"):
            assert sparse_jacobian(through, x, order).nnz == 0


SPECIAL = [(name, k) for name, op in sorted(ELEMENTWISE.items()) for k in range(len(op.special))]


@pytest.mark.parametrize(("name", "k"), SPECIAL)
def test_special_points_have_the_derivative_that_was_chosen(name, k):
    op = ELEMENTWISE[name]
    point, expected = op.special[k]
    inputs = [new_input((1,), F8) for _ in point]
    y = op(*inputs)
    orders = ("forward", "reverse", "cost")
    outputs = [dense_jacobians([y], [x], order)[0][0] for order in orders for x in inputs]
    for executor in EXECUTORS:
        found = run(executor, inputs, outputs, [np.array([v]) for v in point])
        for j, value in enumerate(found):
            wanted = expected[j % len(point)]
            if wanted is not None:
                np.testing.assert_allclose(value.item(), wanted, rtol=1e-15)


@pytest.mark.parametrize("name", sorted(set(EXACT) | ZERO_DERIVATIVE))
def test_executors_agree_at_hard_values(name):
    op = ELEMENTWISE[name]
    grids = np.meshgrid(*([HARD] * len(op.domain)))
    values = [np.ascontiguousarray(g.ravel()) for g in grids]
    inputs = [new_input(values[0].shape, F8) for _ in values]
    y = op(*inputs)
    with np.errstate(all="ignore"):
        expected = op.ufunc(*values)
    for executor in EXECUTORS:
        (found,) = run(executor, inputs, [y], values)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        np.testing.assert_allclose(found, expected, rtol=1e-15, atol=0)
        zero = expected == 0
        if name not in ("maximum", "minimum", "fmax", "fmin"):  # of 0.0 and -0.0 either is right, as in NumPy
            np.testing.assert_array_equal(np.signbit(found[zero]), np.signbit(expected[zero]))


@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (2, 0), (3, 17)])
def test_shapes_and_dtypes(shape, dtype):
    nodes, expected, inputs, values = [], [], [], []
    for name in sorted(EXACT):
        op = ELEMENTWISE[name]
        rng = np.random.default_rng(7)
        arrays = [np.asarray(rng.uniform(low, high, shape), dtype=dtype) for low, high in op.domain]
        leaves = [new_input(shape, dtype) for _ in arrays]
        y = op(*leaves)
        assert (y.shape, y.dtype) == (shape, dtype)
        inputs += leaves
        values += arrays
        nodes += [y, dense_jacobians([y], [leaves[0]])[0][0]]
        expected.append(op.ufunc(*arrays))
    for executor in EXECUTORS:
        results = run(executor, inputs, nodes, values)
        for k, value in enumerate(expected):
            got, jacobian = results[2 * k], results[2 * k + 1]
            assert got.dtype == jacobian.dtype == dtype
            assert jacobian.shape == shape + shape
            np.testing.assert_allclose(got, value, rtol=4 * np.finfo(dtype).eps)
            off = jacobian.reshape(got.size, got.size) * (1 - np.eye(got.size))
            assert not off.any()


@pytest.mark.parametrize("executor", EXECUTORS)
def test_select_passes_the_derivative_of_what_it_takes(executor):
    x, y = new_input((5,), F8), new_input((5,), F8)
    mask = REGISTRY["greater"](x, full(0.0, (5,), F8))
    node = REGISTRY["select"](mask, REGISTRY["log"](x), y)
    values = [np.array([0.0, -1.0, 2.0, math.nan, 0.5]), np.arange(5.0)]
    outputs = [node, *(sparse_jacobian(node, z, order).data for order in ("forward", "reverse") for z in (x, y))]
    found = run(executor, [x, y], outputs, values)
    np.testing.assert_array_equal(found[0], [0.0, 1.0, np.log(2.0), 3.0, np.log(0.5)])
    for by_x, by_y in (found[1:3], found[3:5]):
        np.testing.assert_array_equal(by_x, [0.0, 0.0, 0.5, 0.0, 2.0])
        np.testing.assert_array_equal(by_y, [1.0, 1.0, 0.0, 1.0, 0.0])


@pytest.mark.parametrize("executor", EXECUTORS)
def test_cast_is_the_identity_between_floats_and_a_wall_before_integers(executor):
    x = new_input((3,), F8)
    narrow = cast_to(x, F4)
    whole = cast_to(cast_to(x, np.dtype("i8")), F8)
    plan = sparse_jacobian(narrow * 2.0, x)
    values, integers, data = run(executor, [x], [narrow, whole, plan.data], [np.array([1.5, -2.7, 0.1])])
    np.testing.assert_array_equal(values, np.array([1.5, -2.7, 0.1], dtype=F4))
    np.testing.assert_array_equal(integers, [1.0, -2.0, 0.0])
    np.testing.assert_array_equal(data, [2.0, 2.0, 2.0])
    assert plan.data.dtype == F8
    assert sparse_jacobian(whole, x).nnz == 0
