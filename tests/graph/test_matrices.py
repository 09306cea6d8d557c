"""Records that are the matrix of a linear map: products without forming it, in every way a contraction can ask."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg
from reference_linalg import cofactor
from support import EXECUTORS, F4, F8, close, execute, interpret, op, ramp, table

import jacana as jc
from jacana.differentiate import dense_jacobians, jvp_nodes, sparse_jacobian, vjp_nodes
from jacana.graph import REGISTRY, build
from jacana.graph.index import Affine, identity, rename
from jacana.graph.node import Array, Node, Term, new_input, topological
from jacana.graph.ops.cofactors import cofactor_terms
from jacana.graph.ops.control import EdgeParams, LoopParams, make_body
from jacana.graph.ops.convolution import BandedParams
from jacana.graph.ops.custom import CustomParams
from jacana.graph.ops.fourier import TrigonometricMatrixParams, WaveParams
from jacana.graph.ops.implicit import ImplicitParams, MapParams, PartParams, Pattern, SystemParams
from jacana.graph.ops.matrix_functions import FunctionParams, matrix_function, sylvester
from jacana.graph.ops.position import AtParams, SelectionParams
from jacana.graph.ops.reduction import AxisParams, TriangleParams
from jacana.structure.support import restrict_to_factors

_RNG = np.random.default_rng(0)


def _units(function, shape):
    """The matrix of a linear map, column by column: axes of the result, then axes of the argument."""
    columns = [function(e.reshape(shape)) for e in np.eye(int(np.prod(shape)))]
    return np.moveaxis(np.reshape(columns, (*shape, *columns[0].shape)), (0, 1), (-2, -1))


def _exponential():
    x, a = new_input((3, 3), F8), _RNG.normal(size=(3, 3))
    (term,) = REGISTRY["matrix_function"].edges(matrix_function(x, params=FunctionParams("expm")))[0]
    return term.factors[0][0], _units(lambda e: scipy.linalg.expm_frechet(a, e)[1], (3, 3)), {x: a}


def _sylvester():
    x, y, c = new_input((2, 2), F8), new_input((3, 3), F8), new_input((2, 3), F8)
    a, b = _RNG.normal(size=(2, 2)) + 3 * np.eye(2), _RNG.normal(size=(3, 3)) + 3 * np.eye(3)
    (term,) = REGISTRY["sylvester"].edges(sylvester(x, y, c))[3]
    return term.factors[0][0], _units(lambda e: scipy.linalg.solve_sylvester(a, b, e), (2, 3)), {x: a, y: b}


def _cofactors():
    x, a = new_input((3, 3), F8), _RNG.normal(size=(3, 3))
    (term,) = cofactor_terms(x)
    # Cofactors of three rows are quadratic, so that the central difference is exact.
    want = _units(lambda e: (cofactor(a + e) - cofactor(a - e)) / 2, (3, 3))
    return term.factors[0][0], want, {x: a}


def _wave(sine, rows, cols, size, scale):
    angle = 2 * np.pi * (np.outer(np.arange(rows), np.arange(cols)) % size) / size
    return op("waves", params=WaveParams(sine, rows, cols, size, scale, F8)), scale * (np.sin, np.cos)[not sine](angle)


def _trigonometric(name, kind, n):
    """The definitions of ``scipy.fft``, element by element."""
    k, j = np.indices((n, n))
    match name, kind:
        case "dct", 1:
            want = np.where((j == 0) | (j == n - 1), 1, 2) * np.cos(np.pi * k * j / (n - 1))
        case "dct", 2:
            want = 2 * np.cos(np.pi * k * (2 * j + 1) / (2 * n))
        case "dct", 3:
            want = np.where(j == 0, 1, 2) * np.cos(np.pi * (2 * k + 1) * j / (2 * n))
        case "dct", 4:
            want = 2 * np.cos(np.pi * (2 * k + 1) * (2 * j + 1) / (4 * n))
        case "dst", 1:
            want = 2 * np.sin(np.pi * (k + 1) * (j + 1) / (n + 1))
        case "dst", 2:
            want = 2 * np.sin(np.pi * (k + 1) * (2 * j + 1) / (2 * n))
        case "dst", 3:
            want = np.where(j == n - 1, 1, 2) * np.sin(np.pi * (2 * k + 1) * (j + 1) / (2 * n))
        case _:
            want = 2 * np.sin(np.pi * (2 * k + 1) * (2 * j + 1) / (4 * n))
    return op("trigonometric_matrix", params=TrigonometricMatrixParams(name, kind, n, n, F8)), want


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
    edge = EdgeParams(params, False, False)
    matrix = op("loop_matrix", floats, ints, op("loop", floats, ints, params=params), params=edge)
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


def _joint_loops() -> tuple[Node, Array]:
    """Two steps of ``c = a * c + x`` for three instances, by the ``a`` that they share: all as one matrix."""
    c, x, a = np.array([2.0, -1.0, 0.5]), np.array([[3.0, 7.0], [0.0, 1.0], [2.0, 2.0]]), 0.5
    inputs = [new_input((), F8) for _ in range(3)]
    following = inputs[0] * inputs[1] + inputs[2]
    step = new_input((), np.dtype(np.int64))
    body = make_body(step, [inputs[1]], [inputs[2]], [inputs[0]], [following], [])
    own = build.constant_array(np.column_stack([c, x]))
    no_integers = build.zeros((3, 0), np.dtype(np.int64)), build.zeros((0,), np.dtype(np.int64))
    sources = own, no_integers[0], build.constant_array(np.array([a])), no_integers[1]
    params = LoopParams(body, 2, False, F8, True, (3,), ((), (0,)))
    edge = EdgeParams(params, True, True)
    matrix = op("loop_matrix", *sources, op("loop", *sources, params=params), params=edge)
    # Rows: the last carry and the carries before each step, of each instance.
    want = np.zeros((3, 3, 1))
    want[:, 0, 0] = 2 * a * c + x[:, 0]
    want[:, 2, 0] = c
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


class _Solver:
    name, line = "a solver", ""


def _implicit() -> tuple[Node, Array]:
    """``d x**2 = C theta`` for theta of shape (2, 4)."""
    x, theta = new_input((3,), F8), new_input((2, 4), F8)
    d, c = np.array([1.0, -2.0, 0.5]), np.random.default_rng(3).normal(size=(3, 2, 4))
    sums = build.contract_labels([(build.constant_array(c), (0, 1, 2)), (theta, (1, 2))], c.shape, (0,))
    call = ImplicitParams(x, (theta,), x * x * build.constant_array(d) - sums, _Solver())
    at = np.array([1.0, 2.0, -4.0])
    matrix = op("implicit_matrix", build.constant_array(at), build.zeros((2, 4), F8), params=PartParams(call, 0))
    return matrix, c / (2 * d * at)[:, None, None]


def _system(sparse: bool, transposed: bool, by_right: bool) -> tuple[Node, Array]:
    a = np.array([[2.0, 0.0, 1.0], [0.0, -3.0, 0.5], [0.0, 1.0, 4.0]])
    x = np.array([[1.0, -2.0], [0.5, 3.0], [2.0, 1.0]])
    rows, cols = np.nonzero(a)
    pattern = Pattern(np.array([0, 2, 4, 6]), cols) if sparse else None
    values = build.constant_array(a[rows, cols] if sparse else a)
    params = MapParams(SystemParams(pattern, transposed, "a solver", ""), by_right)
    y = np.linalg.inv(a.T if transposed else a)
    if by_right:
        want = np.einsum("ik,jl->ijkl", y, np.eye(2))
    else:
        want = -np.einsum("il,kj->ijkl" if transposed else "ik,lj->ijkl", y, x)
        want = want[:, :, rows, cols] if sparse else want
    return op("system_map", values, build.constant_array(x), params=params), want


def _diagonals(name: str, transforms: bool) -> tuple[Node, Array, dict[Node, Array]]:
    """Toeplitz of three elements, or Hankel of six, with four columns."""
    x, a = new_input((3 if name == "toeplitz" else 6,), F8), _RNG.normal(size=6)
    known = a[: x.size]
    i, j = np.indices((6 if name == "toeplitz" else 3, 4))
    place = i - j if name == "toeplitz" else i + j
    inside = (place >= 0) & (place < x.size)
    want = np.where(inside, known[np.where(inside, place, 0)], 0.0)
    return op(name, x, params=BandedParams(4, transforms)), want, {x: known}


MATRICES = {
    **{name: [_diagonals(name, t) for t in (False, True)] for name in ("toeplitz", "hankel")},
    "implicit_matrix": [(*_implicit(), {})],
    "system_map": [(*_system(*flags), {}) for flags in itertools.product((False, True), repeat=3)],
    "triangle": [(op("triangle", params=TriangleParams(n, F8)), np.tri(n), {}) for n in (4, 1)],
    "matrix_function_derivative": [_exponential()],
    "sylvester_inverse": [_sylvester()],
    "cofactor_derivative": [_cofactors()],
    "loop_matrix": [(*_loop(False), {}), (*_loop(True), {}), (*_joint_loops(), {})],
    "selection": [(*_selection(False), {}), (*_selection(True), {})],
    "custom_matrix": [(*_custom(True), {}), (*_custom(False), {})],
    "waves": [
        (*_wave(sine, *rest), {})
        for sine in (False, True)
        for rest in [(5, 5, 5, 1.0), (4, 4, 4, -0.5), (4, 6, 6, 1.0), (6, 4, 6, 2.0), (3, 2, 7, 1.0), (1, 1, 1, 1.0)]
    ],
    "trigonometric_matrix": [
        (*_trigonometric(name, kind, n), {}) for name in ("dct", "dst") for kind in (1, 2, 3, 4) for n in (5, 2)
    ],
}
ALL = [pytest.param(*row, id=f"{name}{k}") for name, rows in MATRICES.items() for k, row in enumerate(rows)]


def formed(nodes: list[Node]) -> bool:
    return any(node.op.matrix is not None for node in topological(nodes))


def test_every_matrix_has_a_row():
    assert set(MATRICES) == {name for name, record in REGISTRY.items() if record.matrix is not None}


@pytest.mark.parametrize(("matrix", "want", "known"), ALL)
def test_value(matrix, want, known):
    for found in (interpret([matrix], known)[0], *(execute(name, [matrix], known)[0] for name in EXECUTORS)):
        # The angles of the reference are rounded, too.
        close(found, want, 1e-13) if known else np.testing.assert_allclose(found, want, rtol=0, atol=6e-15)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rest", [(), (3,), (2, 3)])
@pytest.mark.parametrize(("matrix", "want", "known"), ALL)
def test_product(matrix, want, known, rest, transposed):
    split = matrix.op.matrix.rows(matrix)
    axes = matrix.shape[:split] if transposed else matrix.shape[split:]
    x = new_input((*axes, *rest), F8)
    value = np.random.default_rng(0).normal(size=x.shape)
    flat = want.reshape(int(np.prod(matrix.shape[:split])), -1)
    expected = (flat.T if transposed else flat) @ value.reshape(int(np.prod(axes)), -1)
    node = matrix.op.matrix.product(matrix, x, transposed)
    for name in EXECUTORS:
        close(execute(name, [node], {**known, x: value})[0].reshape(expected.shape), expected, 1e-13)


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


# Parts of a matrix of 5 rows and 6 columns: the rows and the columns that are taken, as indices of new axes 0 and 1.
PARTS = {
    "first rows": (ramp(0), ramp(1), 3, 6),
    "later rows": (ramp(0, 1, 2), ramp(1), 3, 6),
    "backwards": (ramp(0, -1, 4), ramp(1, -1, 5), 5, 6),
    "every other column": (ramp(0), ramp(1, 2, 1), 5, 3),
    "chosen": (table([3, 0, 3, 1], 0), table([5, 2], 1), 4, 2),
    "the same column twice": (ramp(0), table([4, 4, 0], 1), 5, 3),
    "one row": (Affine(2), ramp(1), 1, 6),
    "one column": (ramp(0), Affine(3), 5, 1),
}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rest", [(), (2,)])
@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_matrix_multiplies_unformed(part, rest, transposed):
    rows, cols, m, n = PARTS[part]
    matrix, _ = _wave(True, 5, 6, 7, 1.5)
    axes = [k for k in (0, 1) if (m, n)[k] > 1]
    labels = tuple(axes)
    place = {a: k for k, a in enumerate(axes)}
    indices = [rename(e, place) for e in (rows, cols)]
    node = build.index_node(matrix, tuple((m, n)[a] for a in axes), indices)
    (number,) = interpret([node], {})
    summed, kept = (0, 1) if transposed else (1, 0)
    sizes = (m, n, 2)
    have = (summed, *((2,) if rest else ())) if summed in axes else ((2,) if rest else ())
    out = tuple(a for a in (kept, *((2,) if rest else ())) if a in axes or a == 2)
    x = new_input(tuple(sizes[a] for a in have), F8)
    value = np.random.default_rng(5).normal(size=x.shape)
    product = build.contract_labels([(node, labels), (x, have)], sizes, out)
    assert not formed([product])
    expected = np.einsum(number, list(labels), value, list(have), list(out))
    for name in EXECUTORS:
        close(execute(name, [product], {x: value})[0], expected, 1e-13)


def test_what_mixes_rows_and_columns_is_formed():
    matrix, want = _wave(False, 5, 5, 5, 1.0)
    diagonal = build.index_node(matrix, (5,), (ramp(0), ramp(0)))
    assert build.linear_map(diagonal) is None
    x = new_input((5,), F8)
    node = build.contract_labels([(diagonal, (0,)), (x, (0,))], (5,), ())
    close(execute("numpy", [node], {x: np.arange(5.0)})[0], np.diag(want) @ np.arange(5.0), 1e-14)


# Labels of the matrices are (0, 1, 2, 3, 4): a batch, two rows, two columns.
BATCHES = [
    ((0, 3, 4), (0, 1, 2)), ((3, 4), (0, 1, 2)), ((0, 3, 4), (1, 2)), ((0, 3, 4, 5), (5, 0, 1, 2)), ((4, 3), (2, 0, 1)),
    ((0, 1, 2), (0, 3, 4)), ((2, 5, 1), (3, 4, 5, 0)), ((0,), (0, 1, 2)), ((), (0,)),
]  # fmt: skip


@pytest.mark.parametrize(("have", "out"), BATCHES)
def test_contractions_of_a_batch_of_matrices(have, out):
    sizes = (2, 3, 3, 3, 3, 4)
    x, a = new_input((2, 3, 3), F8), np.random.default_rng(3).normal(size=(2, 3, 3)) * 0.3
    (term,) = REGISTRY["matrix_function"].edges(matrix_function(x, params=FunctionParams("expm")))[0]
    matrix = term.factors[0][0]
    y = new_input(tuple(sizes[k] for k in have), F8)
    value = np.random.default_rng(4).normal(size=y.shape)
    node = build.contract_labels([(matrix, (0, 1, 2, 3, 4)), (y, have)], sizes, out)
    assert not formed([node])
    whole = np.stack([_units(lambda e, m=m: scipy.linalg.expm_frechet(m, e)[1], (3, 3)) for m in a])
    want = np.einsum(whole, [0, 1, 2, 3, 4], value, list(have), list(out))
    for name in EXECUTORS:
        close(execute(name, [node], {x: a, y: value})[0], want, 1e-13)


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
    for node, want, _ in itertools.chain(*MATRICES.values()):
        if node.op.matrix.support is None:
            continue
        every = identity(node.ndim)
        split = node.op.matrix.rows(node)
        term = Term(node.shape, every[:split], every[split:], ((node, tuple(range(node.ndim))),))
        points = sum(int(np.prod(t.domain)) for t in restrict_to_factors(term, {}))
        assert points == np.count_nonzero(want)


def test_long_running_sums():
    n = 200_000  # the matrix would have 4e10 elements

    def energy(x):
        return np.sum(np.sin(np.cumsum(x**2)))

    def forward(x):
        return np.sin(np.cumsum(x**2))

    def same(found, c, factor):
        # The sum passes zero, and each executor adds in its own order: an error counts against what is added up.
        want = factor * np.cumsum(c[::-1].astype(np.longdouble))[::-1]
        assert (np.abs(found - want) <= 1e-14 * np.abs(factor) * np.cumsum(np.abs(c[::-1]))[::-1]).all()

    x = np.linspace(0.0, 0.01, n)
    c = np.cos(np.cumsum(x**2))
    same(jc.grad(energy)(x), c, 2 * x)
    J = jc.jacobian(forward, format="auto")(x)
    np.testing.assert_allclose(J @ x, c * np.cumsum(2 * x * x), rtol=1e-12)
    same(J.T @ x, c * x, 2 * x)
