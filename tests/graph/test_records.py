"""Every record of the table, whatever its family: what it infers, computes and differentiates, on both executors.

``test_operations.py`` judges the elementwise records by mpmath. Here they are judged where loops are vectors and at the
values that vectors get wrong; and all other records have a row each: a record without one fails.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath as mp
import numpy as np
import pytest
import scipy.fft
import scipy.linalg
from support import (
    BOOL,
    EXECUTORS,
    F4,
    F8,
    Array,
    close,
    differences,
    execute,
    interpret,
    matmul,
    op,
    ramp,
    table,
    total,
)

from jacana.differentiate import dense_jacobians, sparse_jacobian
from jacana.graph import REGISTRY, build
from jacana.graph.index import Affine
from jacana.graph.node import LiteralParams, Node, new_input, topological
from jacana.graph.ops import factors, linalg, matrix_functions, pivoted, spectral
from jacana.graph.ops.complex import RECORDS as COMPLEX_RECORDS
from jacana.graph.ops.contraction import ContractParams
from jacana.graph.ops.convolution import ConvolutionParams
from jacana.graph.ops.elementwise import CastParams
from jacana.graph.ops.fourier import FourierParams, TrigonometricParams
from jacana.graph.ops.movement import AssembleParams, IndexParams
from jacana.graph.ops.reduction import AxesParams, AxisParams

ELEMENTWISE = {name: record for name, record in REGISTRY.items() if record.family == "elementwise"}
# A record whose value is arithmetic is the same to the bit on every executor.
ARITHMETIC = {
    "negative", "add", "subtract", "multiply", "divide", "reciprocal", "square", "floor_divide", "remainder", "fmod",
    "absolute", "sign", "fmax", "fmin", "sqrt", "logaddexp", "floor", "ceil", "trunc", "rint", "less", "less_equal",
    "greater", "greater_equal", "equal", "not_equal", "isnan", "isinf", "isfinite", "logical_and", "logical_or",
    "logical_xor", "logical_not", "select", "cast",
}  # fmt: skip
CHOICE = {"maximum", "minimum"}  # of 0.0 and -0.0 either is right, as in NumPy
FUNCTIONS = {
    "power", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "cbrt", "hypot", "sin", "cos", "tan", "arcsin",
    "arccos", "arctan", "arctan2", "logaddexp", "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh",
}  # fmt: skip
SHAPES = [(), (0,), (1,), (2, 3), (2, 0), (7,), (33,), (5, 40), (3, 17, 2)]


def inputs_of(name: str, shape: tuple[int, ...], dtype: Any) -> list[Node]:
    kinds = [dtype] * len(ELEMENTWISE[name].domain)
    if name == "select":
        kinds[0] = BOOL
    return [new_input(shape, kind) for kind in kinds]


def apply(name: str, inputs: list[Node]) -> Node:
    return op(name, *inputs, params=CastParams(F4 if inputs[0].dtype == F8 else F8) if name == "cast" else None)


def numpy_value(name: str, values: list[Array], dtype: Any) -> Array:
    if name == "select":
        return np.where(*values)
    if name == "cast":
        return np.asarray(values[0].astype(F4 if dtype == F8 else F8))
    return np.asarray(REGISTRY[name].ufunc(*values))


def bits(array: Array) -> bytes:
    return np.where(np.isnan(array), np.nan, array).tobytes() if array.dtype.kind == "f" else array.tobytes()


def test_every_elementwise_record_is_classified():
    assert set(ELEMENTWISE) == ARITHMETIC | CHOICE | FUNCTIONS
    for name, record in ELEMENTWISE.items():
        assert record.ufunc is not None or name in ("select", "cast")
        if record.ufunc is not None:
            assert record.name == record.ufunc.__name__
            assert len(record.domain) == record.ufunc.nin


# --- elementwise, in loops and at hard values ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [F8, F4])
def test_values_in_loops(lanes, dtype):
    # Every function in one program, at sizes that are straight code, loops and empty.
    rng = np.random.default_rng(1)
    known: dict[Node, Array] = {}
    rows = []
    for name in sorted(ELEMENTWISE):
        for shape in SHAPES if name in ("exp", "add", "sqrt", "less", "hypot") else [(33,), (3, 33)]:
            inputs = inputs_of(name, shape, dtype)
            for x, (low, high) in zip(inputs, ELEMENTWISE[name].domain, strict=True):
                known[x] = (
                    np.asarray(rng.uniform(low, high, size=shape), dtype=dtype)
                    if x.dtype != BOOL
                    else rng.random(shape) < 0.5
                )
            node = apply(name, inputs)
            assert node.shape == shape
            rows.append((name, node, numpy_value(name, [known[x] for x in inputs], dtype)))
    for executor in EXECUTORS:
        found = execute(executor, [node for _, node, _ in rows], known)
        for (name, node, expected), value in zip(rows, found, strict=True):
            assert node.dtype == expected.dtype == value.dtype
            if name == "logaddexp" and executor != "numpy":
                # A sum that may cancel: units in the last place of what is added.
                size = np.max([np.abs(known[x]) for x in node.inputs], axis=0) + np.log(2.0)
                assert np.all(np.abs(value - expected) <= 4 * np.finfo(dtype).eps * size)
            elif name in FUNCTIONS and executor != "numpy":
                np.testing.assert_array_max_ulp(value, expected, 4, dtype=node.dtype)
            else:
                assert bits(value) == bits(np.asarray(expected)), (executor, name)


_HARD = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 0.5, -0.5, 2.0, -3.0, 1.5]
HARD = {
    F8: [*_HARD, 1e-310, -1e-310, 5e-324, 1e-20, -1e-20, 1e300, -1e300, 709.0, -745.0, 1e16],
    F4: [*_HARD, 1e-40, -1e-40, 1e-45, 1e-10, -1e-10, 1e30, -1e30, 88.0, -103.0, 1e9],
}


def hard_values(count: int, dtype: Any) -> list[Array]:
    grids = np.meshgrid(*([np.array(HARD[dtype], dtype=dtype)] * count))
    return [np.resize(np.ascontiguousarray(g.ravel()), max(110, g.size)) for g in grids]


@pytest.mark.parametrize("dtype", [F8, F4])
def test_hard_values_in_loops(lanes, dtype):
    known: dict[Node, Array] = {}
    rows = []
    for name, record in sorted(ELEMENTWISE.items()):
        if name in ("select", "cast"):
            continue
        values = hard_values(len(record.domain), dtype)
        inputs = [new_input(v.shape, dtype) for v in values]
        known.update(zip(inputs, values, strict=True))
        with np.errstate(all="ignore"):
            rows.append((name, op(name, *inputs), np.asarray(record.ufunc(*values)), values))
    for executor in EXECUTORS:
        found = execute(executor, [row[1] for row in rows], known)
        for (name, _, expected, values), value in zip(rows, found, strict=True):
            if expected.dtype == BOOL:
                assert np.array_equal(value, expected), (executor, name)
                continue
            wrong = np.isnan(value) != np.isnan(expected)
            assert not wrong.any(), (executor, name, [v[wrong] for v in values], value[wrong])
            good = np.isfinite(expected)
            assert np.array_equal(value[~good], expected[~good], equal_nan=True), (executor, name)
            # A subnormal result may be flushed by no executor, but functions may round it differently.
            tiny = np.finfo(dtype).tiny if name in FUNCTIONS else 0.0
            limit = (4 if name in FUNCTIONS else 0) * np.finfo(dtype).eps
            off = (
                np.abs(value[good].astype(float) - expected[good])
                > limit * np.abs(expected[good].astype(float)) + tiny * limit
            )
            assert not off.any(), (
                executor,
                name,
                [v[good][off] for v in values],
                value[good][off],
                expected[good][off],
            )
            zeros = good & (expected == 0) & (value == 0)
            if name not in CHOICE:
                flipped = np.signbit(value) != np.signbit(expected)
                assert not (flipped & zeros).any(), (executor, name, [v[flipped & zeros] for v in values])


@pytest.mark.parametrize("dtype", [F8, F4])
def test_derivatives_at_hard_values_are_the_same_on_every_executor(lanes, dtype):
    known: dict[Node, Array] = {}
    rows = []
    for name, record in sorted(ELEMENTWISE.items()):
        if name in ("select", "cast"):
            continue
        values = hard_values(len(record.domain), dtype)
        inputs = [new_input(v.shape, dtype) for v in values]
        known.update(zip(inputs, values, strict=True))
        y = op(name, *inputs)
        if y.dtype != BOOL:
            for k, x in enumerate(inputs):
                plan = sparse_jacobian(y, x)
                if plan.nnz:
                    rows.append(((name, k), plan.data, values))
    first, *others = [execute(executor, [data for _, data, _ in rows], known) for executor in EXECUTORS]
    for other in others:
        for (what, _, values), a, b in zip(rows, first, other, strict=True):
            assert np.array_equal(np.isnan(a), np.isnan(b)), (what, [v[np.isnan(a) != np.isnan(b)] for v in values])
            with np.errstate(all="ignore"):
                scale = np.finfo(dtype).eps * 16
                off = ~(
                    (a == b) | (np.abs(a.astype(float) - b) <= scale * np.abs(a.astype(float)) + np.finfo(dtype).tiny)
                )
            off &= ~np.isnan(a)
            assert not off.any(), (what, [v[off] for v in values], a[off], b[off])


_CLOSE_TO_THE_EDGE = {
    # Where a formula that is right on paper loses digits.
    "arcsin": (lambda x: 1 / mp.sqrt(1 - x * x), [1 - 1e-12, -1 + 1e-14, 0.3]),
    "arccos": (lambda x: -1 / mp.sqrt(1 - x * x), [1 - 1e-12, -1 + 1e-14, 0.3]),
    "arccosh": (lambda x: 1 / mp.sqrt(x * x - 1), [1 + 1e-12, 1 + 1e-15, 3.0, 1e100, 1e200]),
    "arctanh": (lambda x: 1 / (1 - x * x), [1 - 1e-12, -1 + 1e-14, 0.3]),
    "arctan": (lambda x: 1 / (1 + x * x), [1e-9, 1e9, 1e150]),
    "log1p": (lambda x: 1 / (1 + x), [1e-18, -1 + 1e-12, 1e100]),
    "cbrt": (lambda x: mp.cbrt(mp.mpf(x) ** -2) / 3, [1e-30, 1e100, 1e-9]),
    "sqrt": (lambda x: 1 / (2 * mp.sqrt(x)), [1e-300, 1e300, 4.0]),
    "log": (lambda x: 1 / mp.mpf(x), [1e-300, 1e300, 1 + 1e-15]),
    "exp": (mp.exp, [-700.0, 1e-18, 700.0]),
    "reciprocal": (lambda x: -1 / mp.mpf(x) ** 2, [1e-100, 1e100, -3.0]),
    "tan": (lambda x: 1 + mp.tan(x) ** 2, [1.5707, 1e-9, 1.2]),
}


@pytest.mark.parametrize("name", sorted(_CLOSE_TO_THE_EDGE))
def test_derivatives_keep_their_digits_near_the_edge(name):
    exact, points = _CLOSE_TO_THE_EDGE[name]
    x = new_input((len(points),), F8)
    data = sparse_jacobian(op(name, x), x).data
    with mp.workdps(40):
        expected = np.array([float(exact(mp.mpf(p))) for p in points])
    for executor in EXECUTORS:
        np.testing.assert_allclose(execute(executor, [data], {x: np.array(points)})[0], expected, rtol=2e-15)


@pytest.mark.parametrize(
    "name", sorted(name for name, record in ELEMENTWISE.items() if record.smooth and name != "cast")
)
def test_what_is_declared_smooth_has_a_derivative_that_does_not_jump(name):
    record = ELEMENTWISE[name]
    inputs = inputs_of(name, (200,), F8)
    y = op(name, *inputs)
    if y.dtype == BOOL:
        return
    rng = np.random.default_rng(0)
    fixed = [np.full(200, rng.uniform(low, high)) for low, high in record.domain]
    for k, (low, high) in enumerate(record.domain):
        values = [*fixed]
        values[k] = np.linspace(low, high, 200)
        plans = [sparse_jacobian(y, x) for x in inputs]
        for plan in plans:
            (data,) = execute("numpy", [plan.data], dict(zip(inputs, values, strict=True)))
            assert np.isfinite(data).all()
            jumps = np.abs(np.diff(data))
            around = np.maximum(np.r_[jumps[1:], jumps[-1]], np.r_[jumps[0], jumps[:-1]])
            assert np.all(jumps <= 3 * around + 1e-12), (name, k)


# --- all other records --------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """Inputs, the node, what NumPy says, and whether there is a derivative to compare with differences."""

    inputs: list[Node]
    node: Node
    reference: Callable[..., Any]
    derivative: bool = True


def matrix_input(*shape: int, dtype: Any = F8) -> Node:
    return new_input(shape, dtype)


def reduction(
    name: str, shape: tuple[int, ...], axes: tuple[int, ...], function: Callable[..., Any], dtype: Any = F8
) -> Row:
    x = new_input(shape, dtype)
    return Row([x], op(name, x, params=AxesParams(axes)), lambda v: function(v, axis=axes), name not in ("any", "all"))


def along(name: str, shape: tuple[int, ...], axis: int, function: Callable[..., Any], dtype: Any = F8) -> Row:
    x = new_input(shape, dtype)
    return Row(
        [x], op(name, x, params=AxisParams(axis)), lambda v: function(v, axis=axis), name in ("cumsum", "cumprod")
    )


def contraction(
    sizes: tuple[int, ...], labels: tuple[tuple[int, ...], ...], out: tuple[int, ...], dtype: Any = F8
) -> Row:
    inputs = [new_input(tuple(sizes[a] for a in ls), dtype) for ls in labels]
    node = op("contract", *inputs, params=ContractParams(sizes, labels, out))
    return Row(
        inputs,
        node,
        lambda *v: np.einsum(*[x for a, ls in zip(v, labels, strict=True) for x in (a, list(ls))], list(out)),
    )


def _norm(v: Array, axis: tuple[int, ...]) -> Array:
    return np.sqrt((v * v).sum(axis=axis))


def _moved(
    shape: tuple[int, ...], indices: list[Any], function: Callable[[Array], Array], source: tuple[int, ...]
) -> Row:
    x = new_input(source, F8)
    return Row([x], op("index", x, params=IndexParams(shape, tuple(indices))), function)


def _assembled() -> list[Row]:
    x, y = new_input((2, 3), F8), new_input((4,), F8)
    one = AssembleParams((3, 4), F8, ((ramp(1), ramp(0, 2)),), True, False)

    def first(v: Array) -> Array:
        result = np.zeros((3, 4))
        result[:, ::2] = v.T
        return result

    rows = (table([1, 0, 1, 1], 0),)
    two = AssembleParams((3,), F8, (rows, (ramp(0),)), False, False)
    z = new_input((3,), F8)

    def second(v: Array, w: Array) -> Array:
        result = np.zeros(3)
        np.add.at(result, [1, 0, 1, 1], v)
        return result + w

    return [
        Row([x], op("assemble", x, params=one), first),
        Row([y, z], op("assemble", y, z, params=two), second),
        Row([], op("assemble", params=AssembleParams((2, 2), F8, (), True, False)), lambda: np.zeros((2, 2))),
    ]


def _leaves() -> list[Row]:
    x = new_input((2, 3), F8)
    data = np.arange(6.0).reshape(2, 3)
    number = REGISTRY["literal"](params=LiteralParams(F8, np.array(-0.0).tobytes()))
    return [
        Row([x], x, lambda v: v),
        Row([], build.constant_array(data), lambda: data),
        Row([], number, lambda: np.array(-0.0)),
    ]


def _linalg(name: str, shapes: list[tuple[int, ...]], function: Callable[..., Any]) -> Row:
    inputs = [new_input(s, F8) for s in shapes]
    return Row(inputs, op(name, *inputs), function)


def _cofactor(a: Array) -> Array:
    return np.linalg.det(a)[..., None, None] * np.swapaxes(np.linalg.inv(a), -1, -2)


def _cofactor_along(a: Array, e: Array) -> Array:
    y = np.linalg.inv(a).reshape(*a.shape[:-2], *(1,) * (e.ndim - a.ndim), *a.shape[-2:])
    z = y @ e @ y
    trace = np.trace(y @ e, axis1=-2, axis2=-1)[..., None, None]
    return np.linalg.det(y)[..., None, None] ** -1 * np.swapaxes(trace * y - z, -1, -2)


def _cholesky_row(batch: tuple[int, ...]) -> Row:
    # NumPy reads the lower triangle only; the record takes a matrix that is symmetric.
    x = new_input((*batch, 3, 3), F8)
    order = (*range(len(batch)), len(batch) + 1, len(batch))
    symmetric = x + build.transpose(x, order)
    return Row([x], linalg.cholesky(symmetric), lambda v: np.linalg.cholesky(v + np.swapaxes(v, -1, -2)))


def _symmetric(x: Node) -> Node:
    rank = x.ndim
    return x + build.transpose(x, (*range(rank - 2), rank - 1, rank - 2))


def _mirror(v: Array) -> Array:
    return v + np.swapaxes(v, -1, -2)


def _pack(*parts: Array) -> Array:
    return np.concatenate([p[..., None, :] if p.ndim < parts[-1].ndim else p for p in parts], axis=-2)


def _svd(v: Array) -> Array:
    u, s, vt = np.linalg.svd(v, full_matrices=False)
    return _pack(u, s, np.swapaxes(vt, -1, -2))


def _made(make: Callable[..., Node], function: Callable[..., Any], *shapes: tuple[int, ...]) -> Row:
    inputs = [new_input(s, F8) for s in shapes]
    return Row(inputs, make(*inputs), function)


def _cutoff(x: Node) -> Node:
    return build.full(1e-12, x.shape[:-2], F8)


def _lstsq(a: Array, b: Array) -> Array:
    x, _, rank, _ = np.linalg.lstsq(a, b)
    return np.concatenate([x, np.full((1, x.shape[1]), float(rank))])


def _polar(x: Node, side: str, part: int) -> Node:
    """A polar factor and, as what is differentiated, the root of ``x^T x`` (``x x^T``) and its inverse times x."""
    turned = build.transpose(x, (1, 0))
    square = matmul(turned, x) if side == "right" else matmul(x, turned)
    root = matrix_functions.matrix_function(square, params=matrix_functions.FunctionParams("sqrtm"))
    inverted = linalg.inverse_or_nan(root)
    formula = root if part else matmul(x, inverted) if side == "right" else matmul(inverted, x)
    return matrix_functions.polar_factor(x, formula, params=matrix_functions.PolarParams(side, part))


def _function(name: str) -> Callable[[Node], Node]:
    return lambda x: matrix_functions.matrix_function(x * 0.25, params=matrix_functions.FunctionParams(name))


def _each(function: Callable[..., Array], *arrays: Array) -> Array:
    """A function of SciPy that takes one matrix (or one of each), for every matrix of a batch."""
    result = np.empty(arrays[-1].shape)
    for where in np.ndindex(*arrays[-1].shape[:-2]):
        result[where] = function(*(a[where] for a in arrays))
    return result


def _spectral_function(shape: tuple[int, ...]) -> Row:
    """``V log(w) V^T``, found in the contraction that says so."""
    x = new_input(shape, F8)
    packed = spectral.eigh(_symmetric(x))
    v, w = spectral.vectors_of(packed), op("log", spectral.values_of(packed))
    lead = tuple(range(x.ndim - 2))
    i, j, k = (len(lead) + a for a in range(3))
    sizes = (*shape[:-2], *(shape[-1],) * 3)
    factors = [(v, (*lead, i, k)), (w, (*lead, k)), (v, (*lead, j, k))]
    return Row(
        [x],
        build.contract_labels(factors, sizes, (*lead, i, j)),
        lambda a: _each(lambda m: scipy.linalg.logm(m), _mirror(a)),
    )


def _lu(v: Array) -> Array:
    packed, pivots = scipy.linalg.lu_factor(v)
    assert np.array_equal(pivots, np.arange(len(v)))  # the heavy diagonal
    return packed


def _eigenvalue_rows() -> dict[str, list[Row]]:
    eigh = [
        _made(
            lambda x, u=uplo: spectral.eigh(_symmetric(x), u),
            lambda v, u=uplo: _pack(*np.linalg.eigh(_mirror(v), u)),
            s,
        )
        for s, uplo in [((3, 3), "L"), ((2, 2), "U"), ((1, 1), "L"), ((2, 2, 2), "L")]
    ]
    eig = [
        _made(
            lambda x: spectral.eig(_symmetric(x) + x * 0.25), lambda v: _pack(*np.linalg.eig(_mirror(v) + v * 0.25)), s
        )
        for s in [(3, 3), (1, 1), (2, 2, 2)]
    ]
    svd = [_made(spectral.svd, _svd, s) for s in [(2, 2), (3, 2), (2, 3), (1, 1), (2, 1), (2, 3, 2)]]
    pencil = [
        _made(
            lambda x, y: spectral.pencil(_symmetric(x), _symmetric(y)),
            lambda v, w: np.stack(
                [_pack(*scipy.linalg.eigh(_mirror(a), _mirror(b))) for a, b in zip(v, w, strict=True)]
            ),
            (1, 3, 3),
            (1, 3, 3),
        )
    ]
    function = [_spectral_function(s) for s in [(3, 3), (2, 2, 2)]]
    return {
        "spectral_function": function,
        "eigh_pencil": pencil,
        "eigh_pencil_tangent": pencil,
        "eigh_pencil_other_tangent": pencil,
        "eigh": eigh,
        "eigh_tangent": eigh[:1],
        "eigvalsh": [
            _made(lambda x: spectral.eigvalsh(_symmetric(x)), lambda v: np.linalg.eigvalsh(_mirror(v)), s)
            for s in [(3, 3), (2, 2, 2)]
        ],
        "eig": eig,
        "eig_tangent": eig[:1],
        "eigvals": [
            _made(lambda x: spectral.eigvals(_symmetric(x) + x), lambda v: np.linalg.eigvals(_mirror(v) + v), s)
            for s in [(3, 3), (2, 2, 2)]
        ],
        "svd": svd,
        "svd_tangent": svd[:1],
        "svd_outside": svd[1:2],
        "svdvals": [_made(spectral.svdvals, np.linalg.svdvals, s) for s in [(3, 3), (2, 3), (2, 3, 2)]],
    }


def _factor_rows() -> dict[str, list[Row]]:
    qr = [
        _made(factors.qr, lambda v: np.concatenate(np.linalg.qr(v), axis=-2), s)
        for s in [(3, 2), (2, 2), (3, 1), (2, 3, 2)]
    ]
    pinv = [
        _made(lambda x: factors.pinv(x, _cutoff(x)), lambda v: np.linalg.pinv(v, 1e-12), s)
        for s in [(3, 2), (2, 3), (2, 2), (2, 3, 2)]
    ]
    sylvester = [
        _made(matrix_functions.sylvester, lambda *v: _each(scipy.linalg.solve_sylvester, *v), *s)
        for s in [((2, 2), (1, 1), (2, 1)), ((2, 2, 2), (2, 2, 2), (2, 2, 2))]
    ]
    square = new_input((3, 3), F8)
    return {
        "lu": [_made(pivoted.lu, _lu, (3, 3)), _made(pivoted.lu, lambda v: np.stack([*map(_lu, v)]), (2, 2, 2))],
        "lu_tangent": [_made(pivoted.lu, _lu, (2, 2))],
        "pivots": [
            Row([square], pivoted.pivots(square, params=pivoted.PivotParams(kind)), function, False)
            for kind, function in (
                ("lu", lambda v: scipy.linalg.lu_factor(v)[1].astype(np.intp)),
                ("qr", lambda v: scipy.linalg.qr(v, pivoting=True)[2].astype(np.intp)),
            )
        ],
        "qr": qr,
        "qr_columns": qr[:1],
        "qr_symmetric": qr[:1],
        "basis": [
            Row([x], factors.basis(x, params=factors.BasisParams(kind, "no derivative")), function, False)
            for kind, shape, function in (
                ("svd left", (3, 2), lambda v: np.linalg.svd(v)[0][:, 2:]),
                ("svd right", (2, 3), lambda v: np.linalg.svd(v)[2][2:].T),
                ("qr", (3, 1), lambda v: np.linalg.qr(v, "complete")[0][:, 1:]),
            )
            for x in [new_input(shape, F8)]
        ],
        "pinv": pinv,
        "pinv_tangent": pinv[:1],
        "lstsq": [
            _made(lambda a, b: factors.lstsq(a, b, _cutoff(a)), _lstsq, *s)
            for s in [[(4, 2), (4, 1)], [(2, 3), (2, 2)], [(2, 2), (2, 1)]]
        ],
        "matrix_function": [
            _made(_function("expm"), lambda v: scipy.linalg.expm(v * 0.25), (2, 2)),
            _made(_function("expm"), lambda v: scipy.linalg.expm(v * 0.25), (2, 2, 2)),
            _made(_function("sqrtm"), lambda v: _each(scipy.linalg.sqrtm, v * 0.25), (2, 2)),
        ],
        "sylvester": sylvester,
        "sylvester_tangent": sylvester[:1],
    }


def parted(z: Any) -> Array:
    return np.stack([np.real(z), np.imag(z)], axis=-1)


def _fourier(name: str, count: int, shape: tuple[int, ...], norm: str, inverse: bool, transform: Any) -> Row:
    inputs = [new_input(shape, F8) for _ in range(count)]
    node = op(name, *inputs, params=FourierParams(shape[-1], norm, inverse))

    def reference(*parts: Array) -> Array:
        return parted(transform(parts[0] if count == 1 else parts[0] + 1j * parts[1], norm=norm))

    return Row(inputs, node, reference)


def _irfft(shape: tuple[int, ...], size: int, norm: str) -> Row:
    inputs = [new_input(shape, F8), new_input(shape, F8)]
    node = op("irfft", *inputs, params=FourierParams(size, norm, True))
    return Row(inputs, node, lambda re, im: np.fft.irfft(re + 1j * im, size, norm=norm))


def _trigonometric(name: str, kind: int, shape: tuple[int, ...]) -> Row:
    x = new_input(shape, F8)
    node = op("trigonometric", x, params=TrigonometricParams(name, kind))
    return Row([x], node, lambda v: getattr(scipy.fft, name)(v, kind))


def _convolution(name: str, shape: tuple[int, ...], n: int, m: int, transforms: bool) -> Row:
    inputs = [new_input((*shape, n), F8), new_input((*shape, m), F8)]

    def reference(a: Array, b: Array) -> Array:
        result = np.zeros((*shape, n + m - 1 if name == "convolve" else m - n + 1))
        for i in range(n):
            if name == "convolve":
                result[..., i : i + m] += a[..., i, None] * b
            else:
                result += a[..., i, None] * b[..., i : i + m - n + 1]
        return result

    return Row(inputs, op(name, *inputs, params=ConvolutionParams(transforms)), reference)


def _complex_cofactor(a: Array) -> Array:
    """Minors with their signs."""
    result = np.zeros_like(a)
    n = a.shape[-1]
    for where in np.ndindex(*a.shape):
        *batch, i, j = where
        minor = np.delete(np.delete(a[tuple(batch)], i, 0), j, 1)
        result[where] = (-1) ** (i + j) * (np.linalg.det(minor) if n > 1 else 1.0)
    return result


def _complex_matrix(name: str, function: Any, shape: tuple[int, ...], dtype: Any) -> Row:
    inputs = [new_input(shape, dtype), new_input(shape, dtype)]
    return Row(inputs, op(name, *inputs), lambda re, im: parted(function(re + 1j * im)))


def _complex_rows(ufunc: Any, record: Any) -> list[Row]:
    rows = []
    for shape in ((2, 3), (), (0, 2)):
        inputs = [new_input(shape, F8) for _ in range(2 * ufunc.nin)]

        def reference(*parts: Array) -> Array:
            return parted(ufunc(*(re + 1j * im for re, im in zip(parts[::2], parts[1::2], strict=True))))

        rows.append(Row(inputs, record(*inputs), reference))
    return rows


ROWS: dict[str, list[Row]] = {
    "input": _leaves()[:1],
    "constant": _leaves()[1:2],
    "literal": _leaves()[2:],
    "index": [
        _moved((3, 2), [ramp(1, -1, 1), ramp(0)], lambda v: v[::-1].T, (2, 3)),
        _moved((2, 4), [ramp(0), table([2, 0, 2, 1], 1)], lambda v: v[:, [2, 0, 2, 1]], (2, 3)),
        _moved((2,), [ramp(0), ramp(0)], lambda v: np.diagonal(v[:2, :2]), (2, 3)),
        _moved((), [Affine(1), Affine(2)], lambda v: v[1, 2], (2, 3)),
        _moved((2, 2), [], lambda v: np.broadcast_to(v, (2, 2)), ()),
        _moved((0, 3), [ramp(0), ramp(1)], lambda v: v[:0], (2, 3)),
    ],
    "assemble": _assembled(),
    "contract": [
        contraction((2, 3), ((0, 1),), (0,)),
        contraction((2, 3), ((0, 1),), ()),
        contraction((2, 3, 2), ((0, 1, 2),), (2, 0)),
        contraction((2, 3, 4), ((0, 1), (1, 2)), (0, 2)),
        contraction((2, 3, 4), ((0, 1), (1, 2)), (2, 0)),
        contraction((5, 2, 3, 2), ((0, 1, 2), (0, 2, 3)), (3, 0, 1)),
        contraction((2, 3), ((0, 1), (0, 1)), ()),
        contraction((2, 3, 4), ((0, 1), (2,)), (2, 0)),
        contraction((2, 3), ((0,), (1,)), (1, 0)),
        contraction((2, 0, 3), ((0, 1), (1, 2)), (0, 2)),
        contraction((0, 3), ((0, 1), (1,)), (0,)),
        contraction((20, 30, 40), ((0, 1), (1, 2)), (2, 0)),
    ],
    "prod": [
        reduction("prod", s, a, np.prod)
        for s, a in [((2, 3), (1,)), ((2, 3), (0, 1)), ((4,), (0,)), ((2, 0), (1,)), ((3, 2, 2), (0, 2)), ((2, 3), ()),
                     ((2, 20), (1,))]
    ],
    "max": [
        reduction("max", s, a, np.max)
        for s, a in [((2, 3), (1,)), ((2, 3), (0, 1)), ((0, 3), (1,)), ((3, 2, 2), (0, 2)), ((2, 20), (1,))]
    ],
    "min": [
        reduction("min", s, a, np.min)
        for s, a in [((2, 3), (0,)), ((2, 3), (0, 1)), ((0, 3), (1,)), ((3, 2, 2), (1,)), ((2, 20), (1,))]
    ],
    "norm": [
        reduction("norm", s, a, _norm)
        for s, a in [((2, 3), (1,)), ((2, 3), (0, 1)), ((2, 0), (1,)), ((3, 2, 2), (0, 2)), ((2, 20), (1,))]
    ],
    "any": [reduction("any", s, a, np.any, BOOL) for s, a in [((2, 3), (1,)), ((2, 0), (1,)), ((2, 20), (0, 1))]],
    "all": [reduction("all", s, a, np.all, BOOL) for s, a in [((2, 3), (1,)), ((2, 0), (1,)), ((2, 20), (0, 1))]],
    "cumsum": [
        along("cumsum", s, k, np.cumsum)
        for s, k in [((4,), 0), ((2, 3), 0), ((2, 3), 1), ((0,), 0), ((1,), 0), ((2, 0, 3), 2)]
    ],
    "cumprod": [
        along("cumprod", s, k, np.cumprod)
        for s, k in [((4,), 0), ((2, 3), 0), ((2, 3), 1), ((0,), 0), ((1,), 0), ((2, 0, 3), 2)]
    ],
    "argmax": [along("argmax", (2, 3), k, np.argmax) for k in (0, 1)],
    "argmin": [along("argmin", (2, 3), k, np.argmin) for k in (0, 1)],
    **{
        name: [along(name, (2, 3), k, np.argsort) for k in (0, 1)]
        for name in ("argsort", "argsort_quick", "argsort_heap")
    },
    "inv": [_linalg("inv", [s], np.linalg.inv) for s in [(3, 3), (1, 1), (2, 2, 2), (0, 0)]],
    "inv_or_nan": [_linalg("inv_or_nan", [s], np.linalg.inv) for s in [(3, 3), (1, 1), (2, 2, 2), (0, 0)]],
    "polar": [
        _made(
            lambda x, side=side, part=part: _polar(x, side, part),
            lambda v, side=side, part=part: scipy.linalg.polar(v, side)[part],
            shape,
        )
        for side, shape in [("right", (3, 2)), ("right", (2, 2)), ("left", (2, 3))] for part in (0, 1)
    ],
    "solve": [
        _linalg("solve", s, np.linalg.solve)
        for s in [[(3, 3), (3, 2)], [(1, 1), (1, 4)], [(2, 3, 3), (2, 3, 1)]]
    ],
    "det": [_linalg("det", [s], np.linalg.det) for s in [(3, 3), (1, 1), (2, 2, 2)]],
    "cofactor": [_linalg("cofactor", [s], _cofactor) for s in [(3, 3), (2, 2), (1, 1), (2, 3, 3)]],
    "cofactor_along": [
        _linalg("cofactor_along", s, _cofactor_along)
        for s in [[(3, 3), (3, 3)], [(3, 3), (2, 3, 3)], [(2, 3, 3), (2, 4, 3, 3)], [(2, 2), (2, 2)], [(1, 1), (1, 1)]]
    ],
    "slogdet": [_made(linalg.slogdet, lambda v: np.stack(np.linalg.slogdet(v), -1), s) for s in [(3, 3), (2, 2, 2)]],
    "cholesky": [_cholesky_row(()), _cholesky_row((2,))],
    "fft": [
        _fourier("fft", count, shape, norm, inverse, np.fft.ifft if inverse else np.fft.fft)
        for count, shape, norm, inverse in [
            (2, (5,), "backward", False), (2, (4,), "ortho", True), (2, (2, 3), "backward", True),
            (2, (2, 4), "forward", False), (1, (5,), "backward", False), (1, (3, 4), "forward", True),
            (2, (1,), "ortho", False), (1, (2,), "backward", True), (2, (0, 3), "backward", False),
        ]
    ],
    "rfft": [
        _fourier("rfft", 1, shape, norm, False, np.fft.rfft)
        for shape, norm in [
            ((5,), "backward"), ((4,), "ortho"), ((2, 3), "forward"), ((3, 4), "backward"), ((1,), "backward"),
        ]
    ],
    "irfft": [
        _irfft(shape, size, norm)
        for shape, size, norm in [
            ((3,), 5, "backward"), ((3,), 4, "ortho"), ((2, 2), 3, "forward"), ((1,), 1, "backward"),
            ((2, 2), 2, "backward"),
        ]
    ],
    "trigonometric": [
        _trigonometric(name, kind, shape)
        for name in ("dct", "dst") for kind in (1, 2, 3, 4) for shape in ((5,), (2, 4))
    ],
    "convolve": [
        _convolution("convolve", shape, n, m, by)
        for shape, n, m in [
            ((), 3, 5), ((), 5, 2), ((), 1, 4), ((2,), 3, 2), ((2, 3), 2, 4), ((7,), 4, 2), ((0,), 2, 3),
        ]
        for by in (False, True)
    ],
    "correlate": [
        _convolution("correlate", shape, n, m, by)
        for shape, n, m in [
            ((), 3, 5), ((), 5, 7), ((), 4, 4), ((2,), 3, 4), ((7,), 2, 5), ((7,), 4, 6), ((0,), 2, 3),
        ]
        for by in (False, True)
    ],
    "complex_det": [
        _complex_matrix("complex_det", np.linalg.det, s, F8) for s in [(3, 3), (1, 1), (2, 2, 2)]
    ],
    "complex_cofactor": [
        _complex_matrix("complex_cofactor", _complex_cofactor, s, F8) for s in [(3, 3), (2, 2, 2), (1, 1)]
    ],
    **{record.name: _complex_rows(ufunc, record) for ufunc, record in COMPLEX_RECORDS.items()},
    "cholesky_tangent": [_cholesky_row(())],
    **_eigenvalue_rows(),
    **_factor_rows(),
}  # fmt: skip


def test_every_other_record_has_a_row():
    # test_matrices.py has the matrices, test_special.py what SciPy has, test_control.py what runs programs of the user
    elsewhere = {name for name, record in REGISTRY.items() if record.matrix or record.family in ("control", "special")}
    assert set(ROWS) | set(ELEMENTWISE) | elsewhere == set(REGISTRY)
    assert all(REGISTRY[name] in operations(row) for name, rows in ROWS.items() for row in rows)


def operations(row: Row) -> set[Any]:
    return {node.op for node in topological([row.node])}


def sample(row: Row, seed: int) -> list[Array]:
    """No ties, no zeros, and square matrices with a heavy diagonal."""
    rng = np.random.default_rng(seed)
    result = []
    for x in row.inputs:
        if x.dtype == BOOL:
            result.append(np.asarray(rng.random(x.shape) < 0.4))
            continue
        value = rng.permutation(np.linspace(0.5, 1.8, max(x.size, 1)))[: x.size].reshape(x.shape)
        value = np.asarray(value * rng.choice([1, 1, -1], size=x.shape))
        if any(o.family == "linalg" for o in operations(row)) and x.ndim >= 2:
            # Eigenvalues and singular values are far apart, too.
            value = value * 0.4 + np.eye(*x.shape[-2:]) * (2.5 + 1.7 * np.arange(x.shape[-1]))
        result.append(value)
    return result


ALL_ROWS = [(name, k) for name, rows in ROWS.items() for k in range(len(rows))]


@pytest.mark.parametrize(("name", "k"), ALL_ROWS)
def test_value_shape_and_dtype(name, k):
    row = ROWS[name][k]
    values = sample(row, 1)
    known = dict(zip(row.inputs, values, strict=True))
    expected = np.asarray(row.reference(*values))
    assert row.node.shape == expected.shape
    assert row.node.dtype == expected.dtype
    found = [interpret([row.node], known)[0], *(execute(executor, [row.node], known)[0] for executor in EXECUTORS)]
    if row.node.op.family != "leaf" and row.node.inputs == tuple(row.inputs):
        found.append(np.asarray(row.node.op.evaluate(row.node.params, *values)))
    for value in found:
        assert value.dtype == expected.dtype
        close(value, expected, 1e-13, name) if expected.dtype == F8 else np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(
    ("name", "k"), [(n, k) for n, k in ALL_ROWS if ROWS[n][k].node.dtype == F8 and ROWS[n][k].node.size * 40 < 10_000]
)
def test_first_and_second_derivatives(name, k):
    row = ROWS[name][k]
    if not row.derivative or not row.inputs:
        return
    values = sample(row, 2)
    known = dict(zip(row.inputs, values, strict=True))
    expected = differences([row.node], row.inputs, known, 1e-4)[0]
    weights = build.constant_array(np.random.default_rng(3).uniform(0.5, 1.5, size=row.node.shape))
    scalar = total(op("sin", row.node) * weights)
    gradients = dense_jacobians([scalar], row.inputs)[0]
    curved = differences(gradients, row.inputs, known, 1e-4)
    large = sum(x.size for x in row.inputs) > 30
    for order in ("forward", "reverse"):
        jacobians = dense_jacobians([row.node], row.inputs, order)[0]
        plans = [sparse_jacobian(row.node, x, order) for x in row.inputs]
        hessians = [] if large else [h for r in dense_jacobians(gradients, row.inputs, order) for h in r]
        for executor in EXECUTORS:
            found = execute(executor, [*jacobians, *(p.data for p in plans), *hessians], known)
            rest = iter(found)
            for want in expected:
                close(next(rest).reshape(want.shape), want, 1e-10, (name, order, executor))
            for plan, want in zip(plans, expected, strict=True):
                close(plan.make(next(rest)).toarray(), want, 1e-10, (name, order, executor, "csr"))
            if not large:
                for want in itertools.chain(*curved):
                    close(next(rest).reshape(want.shape), want, 1e-9, (name, order, executor, "second"))


def test_no_derivative_is_no_entry():
    for name in ("any", "all", "argmax", "argmin", "argsort"):
        for row in ROWS[name]:
            y = op("cast", row.node, params=CastParams(F8))
            x = new_input(row.inputs[0].shape, F8)
            assert REGISTRY[name].edges(row.node) == (None,)
            assert sparse_jacobian(y, x).nnz == 0
    assert not any(REGISTRY[name].smooth for name in ("any", "all", "argmax", "argmin", "argsort", "max", "min"))


# --- the points where something was chosen ------------------------------------------------------------------------


def gradient(node: Node, x: Node, value: Any, order: str = "reverse", rounding: float = 0.0) -> Array:
    """The derivative of the sum, the same on every executor and in both orders.

    ``rounding``: how much they may differ where it is zero, if they factorise in different ways.
    """
    value = np.asarray(value, dtype=float)
    nodes = [dense_jacobians([total(node)], [x], o)[0][0] for o in ("forward", "reverse")]
    found = [v for executor in EXECUTORS for v in execute(executor, nodes, {x: value})]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-14 + rounding, atol=rounding)
    return found[0]


def test_ties_of_extrema_share_in_equal_parts():
    x = new_input((2, 4), F8)
    for name, sign in (("max", 1.0), ("min", -1.0)):
        y = op(name, x, params=AxesParams((1,)))
        v = sign * np.array([[1.0, 3.0, 3.0, 3.0], [0.0, -0.0, -1.0, -2.0]])
        expected = [[0, 1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0, 0]]
        np.testing.assert_allclose(gradient(y, x, v), expected, rtol=1e-15)


def test_what_an_extremum_does_not_take_is_structurally_zero():
    # The loser's derivative is infinite: it must not show.
    x = new_input((3,), F8)
    y = op("max", op("sqrt", x), params=AxesParams((0,)))
    np.testing.assert_array_equal(gradient(y, x, [0.0, 4.0, 0.0]), [0, 0.25, 0])
    z = op("maximum", op("sqrt", x), build.full(1.0, (3,), F8))
    np.testing.assert_array_equal(gradient(z, x, [0.0, 4.0, 0.0]), [0, 0.25, 0])


@pytest.mark.parametrize("count", [3, 20])
def test_products_with_zeros(count):
    x = new_input((3, count), F8)
    y = op("prod", x, params=AxesParams((1,)))
    v = np.full((3, count), 2.0)
    v[1, 0] = 0.0
    v[2, :2] = 0.0
    expected = np.zeros((3, count))
    expected[0] = 2.0 ** (count - 1)
    expected[1, 0] = 2.0 ** (count - 1)
    np.testing.assert_array_equal(gradient(y, x, v), expected)
    if count == 3:
        (first,) = dense_jacobians([total(y)], [x])[0]
        (second,) = dense_jacobians([first], [x])[0]
        for executor in EXECUTORS:
            (h,) = execute(executor, [second], {x: v})
            for r in range(3):
                block = h[r, :, r, :]
                for a, b in itertools.product(range(3), range(3)):
                    others = [v[r, k] for k in range(3) if k not in (a, b)]
                    assert block[a, b] == (0.0 if a == b else others[0])


@pytest.mark.parametrize("count", [3, 20])
def test_a_norm_of_zero_has_the_derivative_zero(count):
    x = new_input((2, count), F8)
    v = np.zeros((2, count))
    v[1, :2] = 3.0, 4.0
    expected = np.zeros((2, count))
    expected[1, :2] = 0.6, 0.8
    np.testing.assert_allclose(gradient(op("norm", x, params=AxesParams((1,))), x, v), expected, rtol=1e-15)


def test_determinants_and_cofactors_of_singular_matrices():
    rank_two = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]])
    rank_one = np.outer([1.0, 2.0, 3.0], [1.0, -1.0, 2.0])
    x = new_input((3, 3), F8)
    cofactors = interpret([op("cofactor", x)], {x: rank_two})[0]
    close(gradient(op("det", x), x, rank_two, rounding=1e-14), cofactors, 1e-13)
    close(gradient(op("det", x), x, rank_one, rounding=1e-14), np.zeros((3, 3)), 1e-13)
    close(gradient(op("det", x), x, np.zeros((3, 3)), rounding=1e-14), np.zeros((3, 3)), 1e-13)


def test_nan_goes_through():
    x = new_input((2, 3), F8)
    v = np.array([[1.0, np.nan, 2.0], [1.0, 2.0, 3.0]])
    nodes = [op(name, x, params=AxesParams((1,))) for name in ("max", "min", "prod", "norm")]
    nodes.append(build.sum_axes(x, (1,)))
    for executor in EXECUTORS:
        for value in execute(executor, nodes, {x: v}):
            assert np.isnan(value[0])
            assert np.isfinite(value[1])


def test_float32_rows():
    known: dict[Node, Array] = {}
    nodes, expected = [], []
    rng = np.random.default_rng(0)
    for shape, axes in (((2, 3), (1,)), ((2, 40), (1,)), ((40, 2), (0,))):
        x = new_input(shape, F4)
        known[x] = rng.uniform(0.5, 1.5, size=shape).astype("f4")
        for name, function in (("prod", np.prod), ("max", np.max), ("min", np.min), ("norm", _norm)):
            nodes.append(op(name, x, params=AxesParams(axes)))
            expected.append(function(known[x], axis=axes))
        nodes += [op("cumsum", x, params=AxisParams(axes[0])), build.sum_axes(x, axes)]
        expected += [np.cumsum(known[x], axis=axes[0]), known[x].sum(axis=axes)]
    a = new_input((3, 3), F4)
    known[a] = (rng.uniform(0.5, 1.5, size=(3, 3)) + 3 * np.eye(3)).astype("f4")
    for name, f in (("inv", np.linalg.inv), ("det", np.linalg.det), ("cofactor", _cofactor)):
        nodes.append(op(name, a))
        expected.append(f(known[a]))
    nodes.append(matmul(a, a))
    expected.append(known[a] @ known[a])
    jacobians = [dense_jacobians([node], [x])[0][0] for node in nodes for x in known if node.inputs[0] is x]
    for executor in EXECUTORS:
        found = execute(executor, [*nodes, *jacobians], known)
        assert all(value.dtype == F4 for value in found)
        for value, want in zip(found, expected, strict=False):
            close(value, want, 1e-5)
