"""Every supported function: NumPy's value, shape and dtype when recorded, and the same graph right at other values."""

import operator
from pathlib import Path

import numpy as np
import pytest
import scipy.special
from record_helpers import check

from jacana.graph import REGISTRY
from jacana.record.table import FUNCTIONS, UFUNCS

RNG = np.random.default_rng(0)
V = np.array([0.3, 0.7, 0.2, 0.9])
W = np.array([0.5, 0.25, 0.75, 0.125])
A = RNG.uniform(0.1, 0.9, (2, 3))
B = RNG.uniform(0.1, 0.9, (3, 4))
C = RNG.uniform(0.1, 0.9, (2, 3, 4))
S = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 5.0]])
S2 = np.stack([S, S + np.eye(3)])
I = np.array([2, 0, 1, 2])  # noqa: E741

LOGICAL = {np.logical_and, np.logical_or, np.logical_xor, np.logical_not}
ELEMENTWISE = [op for op in REGISTRY.values() if op.family == "elementwise" and op.ufunc is not None]


def points(operation, shape, dtype=float, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.uniform(max(low, -0.8), min(high, 2.0), shape).astype(dtype) for low, high in operation.domain]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0, 3)], ids=str)
@pytest.mark.parametrize("operation", ELEMENTWISE, ids=lambda op: op.name)
def test_every_elementwise_record(operation, shape, dtype):
    first, second = points(operation, shape, dtype), points(operation, shape, dtype, seed=2)
    check(operation.ufunc, *first, others=second)


@pytest.mark.parametrize("operation", [op for op in ELEMENTWISE if op.ufunc.nin == 2], ids=lambda op: op.name)
def test_every_binary_record_broadcasts_and_converts(operation):
    ufunc = operation.ufunc
    a, b = points(operation, (3, 1)), points(operation, (1, 4))
    check(ufunc, a[0], b[1])
    check(lambda x: ufunc(x, b[1]), a[0])
    check(lambda y: ufunc(a[0], y), b[1])
    check(lambda x: ufunc(x, 0.5), a[0])
    check(lambda y: ufunc(0.75, y), b[1])
    check(lambda x: ufunc(x, np.float64(0.5)), a[0].astype(np.float32))
    check(lambda x: ufunc(x, 2), a[0].astype(np.float32))
    check(lambda x: ufunc(x, np.array([1, 2, 3])), a[0].astype(np.float32))
    check(lambda x: ufunc(x, [1.0, 2.0, 3.0]), a[0])


OPERATORS = {
    "a+b": operator.add, "a-b": operator.sub, "a*b": operator.mul, "a/b": operator.truediv, "a//b": operator.floordiv,
    "a%b": operator.mod, "a**b": operator.pow, "a<b": operator.lt, "a<=b": operator.le, "a>b": operator.gt,
    "a>=b": operator.ge, "a==b": operator.eq, "a!=b": operator.ne, "divmod": divmod,
}  # fmt: skip


@pytest.mark.parametrize("op", OPERATORS.values(), ids=OPERATORS)
def test_operators_with_every_kind_of_operand(op):
    x = np.array([0.5, 1.5, 2.5])
    others = [3, 2, 2.5, True, np.float32(1.5), np.float64(2.0), np.int8(2), np.array([2, 1, 2]), np.array(2.0)]
    for dtype in (np.float64, np.float32):
        a = x.astype(dtype)
        check(op, a, a[::-1].copy())
        for other in others:
            check(lambda v, other=other: op(v, other), a)
            check(lambda v, other=other: op(other, v), a)
        for k in range(3):  # NumPy scalars rather than arrays
            check(lambda v, k=k: op(v[k], 2.0), a)
            check(lambda v, k=k: op(2, v[k]), a)
            check(lambda v, k=k: op(v[k], v[0]), a)


def test_bitwise_operators_are_logical_on_booleans():
    check(lambda x: ((x > 0.5) & (x < 0.8), (x > 0.5) | (x < 0.1), (x > 0.5) ^ (x < 0.8), ~(x > 0.5)), V, others=[W])
    check(lambda x: True & (x > 0.5), V)


def test_integers_go_where_numpy_sends_them():
    for ufunc in (np.sqrt, np.exp, np.sin, np.log1p):
        check(lambda x, u=ufunc: u(x.astype(int)) + 0.0 * x, np.array([1.2, 2.3]), others=[np.array([5.4, 3.2])])
    check(lambda x: (x > 0.5) / 2 + x, V)
    check(lambda x: np.sum(x > 0.5) * x, V, others=[W])
    check(lambda x: np.true_divide(np.argmax(x), 2) * x, V, others=[W])


OTHER_UFUNCS = {
    "fabs": (np.fabs, -V), "positive": (np.positive, V), "conjugate": (np.conjugate, V), "deg2rad": (np.deg2rad, V),
    "radians": (np.radians, V), "rad2deg": (np.rad2deg, V), "degrees": (np.degrees, V),
    "float_power": (np.float_power, V, W), "heaviside": (np.heaviside, V, W), "logaddexp2": (np.logaddexp2, V, W),
    "divmod": (np.divmod, V, W), "modf": (np.modf, V * 5),
}  # fmt: skip


@pytest.mark.parametrize(("function", "values"), [(f, v) for f, *v in OTHER_UFUNCS.values()], ids=list(OTHER_UFUNCS))
def test_composed_ufuncs(function, values):
    check(function, *values)
    check(function, *(v.astype(np.float32) for v in values))


def filled(x, value):
    y = x * 2.0
    np.fill_diagonal(y, value)
    return y


CASES = {
    # movement
    "reshape": lambda x: np.reshape(x, (3, 2)),
    "reshape -1": lambda x: x.reshape(-1),
    "reshape method": lambda x: x.reshape(3, -1),
    "reshape F": lambda x: np.reshape(x, (3, 2), order="F"),
    "reshape split": lambda x: x.reshape(2, 3, 1, 1),
    "ravel": np.ravel,
    "ravel F": lambda x: np.ravel(x, order="F"),
    "ravel K": lambda x: np.ravel(x.T, order="K"),
    "flatten": lambda x: x.flatten(),
    "flatten F": lambda x: x.flatten("F"),
    "T": lambda x: x.T,
    "mT": lambda x: x.mT,
    "transpose axes": lambda x: np.transpose(x[None], (2, 0, 1)),
    "transpose method": lambda x: x[None].transpose(2, 0, 1),
    "swapaxes": lambda x: np.swapaxes(x[None], 0, 2),
    "moveaxis": lambda x: np.moveaxis(x[None, None], [0, 3], [2, 1]),
    "rollaxis": lambda x: np.rollaxis(x[None], 2),
    "matrix_transpose": lambda x: np.matrix_transpose(x[None]),
    "expand_dims": lambda x: np.expand_dims(x, (0, 2)),
    "squeeze": lambda x: np.squeeze(x[None, :, None]),
    "squeeze axis": lambda x: x[None, :, None].squeeze(axis=0),
    "atleast": lambda x: (np.atleast_1d(x[0, 0]), np.atleast_2d(x[0]), np.atleast_3d(x)),
    "atleast many": lambda x: np.atleast_2d(x[0], x),
    "broadcast_to": lambda x: np.broadcast_to(x[:, None], (2, 4, 3)),
    "broadcast_arrays": lambda x: np.broadcast_arrays(x[0], x[:, :1]),
    "flip": np.flip,
    "flip axis": lambda x: np.flip(x, 1),
    "fliplr": np.fliplr,
    "flipud": np.flipud,
    "rot90": lambda x: [np.rot90(x, k) for k in range(-1, 4)],
    "roll": lambda x: np.roll(x, 2),
    "roll axis": lambda x: np.roll(x, -1, axis=1),
    "roll axes": lambda x: np.roll(x, (1, 2), axis=(0, 1)),
    "tile": lambda x: (np.tile(x, 2), np.tile(x, (2, 1, 3)), np.tile(x[0], (2, 2))),
    "repeat": lambda x: (np.repeat(x, 2), np.repeat(x, 3, axis=1), x.repeat([1, 2], axis=0), np.repeat(x, [2], axis=0)),
    "concatenate": lambda x: np.concatenate([x, 2 * x, np.ones((2, 1)) * x[:, :1]], axis=1),
    "concatenate None": lambda x: np.concatenate([x, [1.0]], axis=None),
    "concatenate ints": lambda x: np.concatenate([x, np.arange(3).reshape(1, 3)]),
    "stack": lambda x: (np.stack([x, x * 2]), np.stack([x, x * 2], axis=1), np.stack([x, x], axis=-1)),
    "vstack": lambda x: np.vstack([x[0], x]),
    "hstack": lambda x: (np.hstack([x, x]), np.hstack([x[0], x[0, 0], 3.0])),
    "dstack": lambda x: np.dstack([x, x]),
    "column_stack": lambda x: np.column_stack([x[0], x[1] * 2]),
    "append": lambda x: (np.append(x, 2.0), np.append(x, x, axis=1)),
    "block": lambda x: np.block([[x, np.zeros((2, 2))], [np.ones((1, 3)), x[:1, :2]]]),
    "split": lambda x: (np.split(x, 3, axis=1), np.split(x, [1], axis=0), np.split(x.ravel(), [2, 3])),
    "array_split": lambda x: np.array_split(x.ravel(), 4),
    "vsplit": lambda x: np.vsplit(x, 2),
    "hsplit": lambda x: np.hsplit(x, 3),
    "pad constant": lambda x: np.pad(x, 1),
    "pad value": lambda x: np.pad(x, ((1, 0), (2, 1)), constant_values=3.0),
    "pad edge": lambda x: np.pad(x, 2, mode="edge"),
    "pad reflect": lambda x: np.pad(x, ((1, 1), (2, 2)), mode="reflect"),
    "pad symmetric": lambda x: np.pad(x, 2, mode="symmetric"),
    "pad wrap": lambda x: np.pad(x, ((0, 1), (1, 2)), mode="wrap"),
    "diff": lambda x: (np.diff(x), np.diff(x, axis=0), np.diff(x.ravel(), n=2)),
    "diff ends": lambda x: np.diff(x[0], prepend=0.0, append=x[1, :1]),
    "ediff1d": lambda x: (np.ediff1d(x), np.ediff1d(x, to_end=[1.0], to_begin=2.0)),
    "take": lambda x: (np.take(x, [2, 0]), x.take([1, 1, 0], axis=1), np.take(x, 1, axis=0), np.take(x, -1)),
    "take clip": lambda x: np.take(x, [7, -9, 2], mode="clip"),
    "take wrap": lambda x: np.take(x, [7, -9, 2], mode="wrap"),
    "take_along_axis": lambda x: np.take_along_axis(x, np.array([[2, 0], [1, 1]]), axis=1),
    "compress": lambda x: np.compress([True, False, True], x, axis=1),
    "delete": lambda x: (np.delete(x, 1, axis=1), np.delete(x, [0, 2])),
    "insert": lambda x: (np.insert(x, 1, 7.0, axis=1), np.insert(x.ravel(), -1, x[0, 0])),
    "diagonal": lambda x: (np.diagonal(x), np.diagonal(x, 1), np.diagonal(x[None], -1, 1, 2), x.diagonal()),
    "diag": lambda x: (np.diag(x), np.diag(x[0]), np.diag(x[0], -1), np.diagflat(x)),
    "triu": lambda x: (np.triu(x), np.triu(x, 1), np.triu(x[None]), np.triu(x[0])),
    "tril": lambda x: (np.tril(x), np.tril(x, -1)),
    "meshgrid": lambda x: np.meshgrid(x[0], x[1, :2]),
    "meshgrid ij": lambda x: np.meshgrid(x[0], x[1, :2], indexing="ij", sparse=True),
    "linspace": lambda x: (np.linspace(x[0, 0], 3.0, 5), np.linspace(x[0], x[1], 4, endpoint=False)),
    # making arrays
    "array nest": lambda x: np.array([[x[0, 0], 1.0], [2, x[1, 2]]]),
    "array rows": lambda x: np.array([x[0], [1, 2, 3], x[1] * 2]),
    "array tuple": lambda x: np.array((x[0, 0], x[0, 1])),
    "array copy": lambda x: np.array(x),
    "array ndmin": lambda x: np.array(x[0], ndmin=3),
    "array dtype": lambda x: np.array([x[0, 0], 2.0], dtype=np.float32),
    "asarray": lambda x: (np.asarray(x), np.asarray([x[0, 0], 1.0]), np.asarray(x, dtype=np.float32)),
    "copy": lambda x: (x.copy(), np.copy(x)),
    "astype": lambda x: (x.astype(np.float32), x.astype("f4").astype(float)),
    "full": lambda x: (np.full((2, 2), x[0, 0]), np.full_like(x, x[1, 1])),
    # reductions
    "sum": lambda x: (np.sum(x), x.sum(axis=0), x.sum(1), x.sum(axis=(0, 1)), x.sum(-1, keepdims=True), np.sum(x, ())),
    "sum dtype": lambda x: (np.sum(x, dtype=np.float32), np.sum(x, initial=2.0)),
    "sum bool": lambda x: np.sum(x > 0.5, axis=0) + 0.0 * x[0],
    "mean": lambda x: (np.mean(x), x.mean(axis=0), x.mean(1, keepdims=True)),
    "prod": lambda x: (np.prod(x), x.prod(axis=0), np.prod(x, axis=1, keepdims=True)),
    "max": lambda x: (np.max(x), x.max(axis=0), np.amax(x, 1, keepdims=True)),
    "min": lambda x: (np.min(x), x.min(axis=0), np.amin(x, 1, keepdims=True)),
    "ptp": lambda x: (np.ptp(x), np.ptp(x, axis=1)),
    "var": lambda x: (np.var(x), x.var(axis=0), np.var(x, ddof=1), x.var(axis=1, keepdims=True)),
    "std": lambda x: (np.std(x), x.std(axis=0, ddof=1)),
    "average": lambda x: (np.average(x), np.average(x, weights=[1.0, 2.0, 3.0], axis=1), np.average(x, weights=x)),
    "average returned": lambda x: (
        *np.average(x, weights=x[0] ** 2, axis=1, returned=True), np.multiply(*np.average(x, axis=0, returned=True)),
        *np.average(x, weights=x, returned=True),
    ),
    "max of nothing": lambda x: (
        np.max(x[:0], initial=3.0) * x, np.min(x[:0], axis=0, initial=x[1, 1]) * x, np.amax(x[:0], initial=x[0, 0]),
        np.max(x[:0], axis=0, initial=x[1, 0], keepdims=True),
    ),
    "linspace with its step": lambda x: (
        *np.linspace(x[0, 0], x[1, 1], 5, endpoint=False, retstep=True), *np.linspace(x[0], 2.0, 3, retstep=True),
        *np.linspace(0, x[0, 1], 4, retstep=True),
    ),
    "cumsum": lambda x: (np.cumsum(x), x.cumsum(axis=0), np.cumsum(x, 1)),
    "any all": lambda x: (np.any(x > 5), np.all(x > 0.0, axis=1), (x > 5).any(axis=0)),
    "argmax": lambda x: (np.argmax(x), x.argmax(axis=1), np.argmin(x, axis=0), np.argmax(x, axis=1, keepdims=True)),
    "count_nonzero": lambda x: (np.count_nonzero(x), np.count_nonzero(x > 0.0, axis=0)),
    "median": lambda x: (np.median(x), np.median(x, axis=1), np.median(x, axis=0, keepdims=True)),
    "nansum": lambda x: np.nansum(np.where(x > 0.0, x, np.nan)),
    "add.reduce": lambda x: (np.add.reduce(x), np.add.reduce(x, axis=1), np.maximum.reduce(x, axis=None)),
    "multiply.reduce": lambda x: np.multiply.reduce(x, axis=1, keepdims=True),
    "add.accumulate": lambda x: np.add.accumulate(x, axis=1),
    "outer ufunc": lambda x: (np.multiply.outer(x, x[0]), np.subtract.outer(x[0], [1.0, 2.0])),
    "norm": lambda x: (np.linalg.norm(x), np.linalg.norm(x[0]), np.linalg.norm(x, axis=1), np.linalg.norm(x, "fro")),
    "norm axis": lambda x: (np.linalg.norm(x, axis=0, keepdims=True), np.linalg.norm(x[None], axis=(1, 2))),
    "norm ord": lambda x: [np.linalg.norm(x[0], p) for p in (1, 2, 3, 0.5, np.inf, -np.inf, 0)],
    "norm matrix": lambda x: [np.linalg.norm(x, p) for p in (1, -1, np.inf, -np.inf)],
    "vector_norm": lambda x: (np.linalg.vector_norm(x), np.linalg.vector_norm(x, axis=1, ord=1)),
    "trace": lambda x: (np.trace(x), np.trace(x, 1), x.trace()),
    # selection
    "where": lambda x: (np.where(x > 0.4, x, 0.0), np.where([True, False, True], x, x * 2), np.where(x > 0.4, 1.0, x)),
    "where broadcast": lambda x: np.where(x[:, :1] > 0.4, x[0], 3),
    "where float condition": lambda x: np.where(x, x, 1.0),
    "select": lambda x: np.select([x > 0.6, x > 0.3], [x, 2 * x], default=-1.0),
    "clip": lambda x: (np.clip(x, 0.3, 0.6), x.clip(0.4, 0.8), np.clip(x, None, 0.5), np.clip(x, x[0, 0], 0.9)),
    "clip keywords": lambda x: (np.clip(x, min=0.2), x.clip(max=0.4)),
    "choose": lambda x: np.choose([0, 1, 0], [x[0], x[1]]),
    "round": lambda x: (np.round(x, 2), x.round(1), np.round(x)),
    "sinc": np.sinc,
    "nan_to_num": lambda x: np.nan_to_num(np.where(x > 0.5, np.inf, x), posinf=2.0),
    "isclose": lambda x: np.isclose(x, x + 1e-9),
    "sort": lambda x: (np.sort(x[0]), np.sort(x, axis=None)),
    "argsort": lambda x: np.argsort(x, axis=1),
    "searchsorted": lambda x: np.searchsorted([0.0, 0.05, 5.0], x),
    "isnan": lambda x: (np.isnan(x), np.isinf(x), np.isfinite(x)),
    # composed
    "gradient": lambda x: (np.gradient(x[0]), np.gradient(x[0], 2.0), np.gradient(x[0], np.array([0.0, 1.0, 3.0]))),
    "gradient 2d": lambda x: np.gradient(x[:, :], axis=1),
    "trapezoid": lambda x: (np.trapezoid(x), np.trapezoid(x, dx=0.5, axis=0), np.trapezoid(x, [0.0, 1.0, 3.0])),
    "polyval": lambda x: (np.polyval([1.0, 2.0, 3.0], x), np.polyval(x[0], 2.0), np.polyval(x[0], x[1])),
    "convolve": lambda x: [np.convolve(x[0], [1.0, 2.0], m) for m in ("full", "same", "valid")],
    "convolve both": lambda x: np.convolve(x[1, :2], x[0]),
    "correlate": lambda x: (np.correlate(x[0], [1.0, 2.0]), np.correlate(x[0], x[1, :2], "full")),
    "real": lambda x: (np.real(x), x.real, x.conj(), np.imag(x) + x),
    "bincount": lambda x: (np.bincount([2, 0, 2], weights=x[0]), np.bincount(np.array([1, 1, 0]), x[1], minlength=5)),
    "sliding_window_view": lambda x: (
        np.lib.stride_tricks.sliding_window_view(x[0], 2), np.lib.stride_tricks.sliding_window_view(x, (2, 2)),
        np.lib.stride_tricks.sliding_window_view(x, 2, axis=1),
    ),
    "fill_diagonal": lambda x: (filled(x, 1.0), filled(x, x[0, 0]), filled(x, x[0])),
    "extract": lambda x: np.extract(x > 0.5, x),
    "digitize": lambda x: (np.digitize(x, [0.0, 0.05, 5.0]), np.digitize(x[0], [5.0, 0.01])),
    "unstack": lambda x: np.unstack(x, axis=1) if hasattr(np, "unstack") else x,
    "cumulative_sum": lambda x: np.cumulative_sum(x, axis=1) if hasattr(np, "cumulative_sum") else x,
    "iteration": lambda x: [row * 2 for row in x],
    "list": lambda x: sum(list(x[0])),
    "unpack": lambda x: (lambda a, b: a * b)(*x),
}  # fmt: skip
INEXACT = {
    "linspace with its step",
    "average",
    "average returned",
    "gradient",
    "polyval",
    "trapezoid",
    "correlate",
    "norm ord",
    "gradient 2d",
    "linspace",
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", CASES)
def test_functions(name, dtype):
    if name == "clip keywords" and np.lib.NumpyVersion(np.__version__) < "2.1.0":
        pytest.skip("NumPy 2.0 has no such keywords")
    value = A.astype(dtype)
    # The same order of the elements, so that guards on an order hold.
    rtol = 3e-6 if dtype == np.float32 else 1e-12
    check(CASES[name], value, others=[(value * 1.01).astype(dtype)], exact=name not in INEXACT, rtol=rtol)


@pytest.mark.filterwarnings("ignore:numpy.fix")
def test_fix():
    check(lambda x: np.fix(x * 3), A)


PRODUCTS = {
    "matmul 22": (np.matmul, A, B),
    "matmul @": (lambda a, b: a @ b, A, B),
    "matmul 12": (np.matmul, A[0], B),
    "matmul 21": (np.matmul, A, B[:, 0]),
    "matmul 11": (np.matmul, V, W),
    "matmul batch": (np.matmul, C, B.T),
    "matmul batch broadcast": (np.matmul, C[:, None], np.stack([B.T, B.T, 2 * B.T])),
    "matmul batch one": (np.matmul, C[:1], np.stack([B.T, 3 * B.T])),
    "matmul 31": (np.matmul, C, V),
    "matmul 13": (np.matmul, A[0], C),
    "dot 22": (np.dot, A, B),
    "dot 11": (np.dot, V, W),
    "dot 31": (np.dot, C, V),
    "dot 32": (np.dot, C, B.T),
    "dot 33": (np.dot, C, np.transpose(C, (0, 2, 1))),
    "dot 0": (np.dot, np.array(2.0), A),
    "dot method": (lambda a, b: np.copy(a).dot(b) if type(b) is np.ndarray else np.dot(a, b), A, B),
    "inner": (np.inner, A, B.T),
    "inner 11": (np.inner, V, W),
    "vdot": (np.vdot, A, A[::-1].copy()),
    "vecdot": (np.vecdot, C, V),
    "outer": (np.outer, V, A),
    "tensordot": (np.tensordot, C, np.transpose(C, (1, 2, 0))),
    "tensordot axes": (lambda a, b: np.tensordot(a, b, axes=([1, 2], [0, 1])), C, C[0]),
    "tensordot one": (lambda a, b: np.tensordot(a, b, axes=1), A, B),
    "kron": (np.kron, A, B),
    "kron 12": (np.kron, V, A),
    "cross": (np.cross, A, A[::-1].copy()),
    "cross axis": (lambda a, b: np.cross(a, b, axis=0), A.T.copy(), A.T[:, ::-1].copy()),
    "einsum ij,jk": (lambda a, b: np.einsum("ij,jk->ik", a, b), A, B),
    "einsum implicit": (lambda a, b: np.einsum("ij,jk", a, b), A, B),
    "einsum sum": (lambda a: np.einsum("ij->", a), A),
    "einsum transpose": (lambda a: np.einsum("ij->ji", a), A),
    "einsum trace": (lambda a: np.einsum("ii", a), S),
    "einsum diagonal": (lambda a: np.einsum("ii->i", a), S),
    "einsum batch diagonal": (lambda a: np.einsum("bii->bi", a), S2),
    "einsum ellipsis": (lambda a, b: np.einsum("...ij,jk->...ik", a, B.T) + 0.0 * b, C, np.array(1.0)),
    "einsum three": (lambda a, b: np.einsum("ij,jk,kl->il", a, b, B.T), A, B),
    "einsum lists": (lambda a, b: np.einsum(a, [0, 1], b, [1, 2], [0, 2]), A, B),
    "einsum hadamard": (lambda a: np.einsum("ij,ij->i", a, a), A),
    "einsum outer": (lambda a, b: np.einsum("i,j->ij", a, b), V, W),
    "einsum one broadcast": (lambda a, b: np.einsum("ij,ij->i", a, b), A, A[:, :1].copy()),
    "matmul int": (lambda a: np.arange(6).reshape(2, 3) @ a, B),
    "matmul constant": (lambda a: a @ B, A),
    "matmul list": (lambda a: a @ [1.0, 2.0, 3.0], A),
    "rmatmul list": (lambda a: [1.0, 2.0] @ a, A),
    "matvec": (getattr(np, "matvec", np.matmul), A, A[0]),
    "matvec batch": (getattr(np, "matvec", np.matmul), C, V),
    "vecmat": (getattr(np, "vecmat", np.matmul), A[0], B),
    "multi_dot": (lambda a, b: np.linalg.multi_dot([a, b, V]), A, B),
}  # fmt: skip


@pytest.mark.parametrize(("function", "values"), [(f, v) for f, *v in PRODUCTS.values()], ids=list(PRODUCTS))
def test_products(function, values):
    check(function, *values, exact=function not in (np.cross, np.vecdot, np.kron))
    for k in range(len(values)):  # the others as constants
        check(lambda x, k=k: function(*values[:k], x, *values[k + 1 :]), values[k])
    check(function, *(v.astype(np.float32) for v in values), exact=False, rtol=1e-5)


LINALG = {
    "solve vector": (np.linalg.solve, S, np.array([1.0, 2.0, 3.0])),
    "solve matrix": (np.linalg.solve, S, B),
    "solve batch": (np.linalg.solve, S2, B),
    "solve batch both": (np.linalg.solve, S2, np.stack([B, B + 1])),
    "inv": (np.linalg.inv, S),
    "inv batch": (np.linalg.inv, S2),
    "det": (np.linalg.det, S),
    "det batch": (np.linalg.det, S2),
    "cholesky": (np.linalg.cholesky, S + 3 * np.eye(3)),
    "cholesky batch": (np.linalg.cholesky, S2 + 3 * np.eye(3)),
    "cholesky upper": (lambda a: np.linalg.cholesky(a, upper=True), S + 3 * np.eye(3)),
    "matrix_power": (lambda a: (np.linalg.matrix_power(a, 3), np.linalg.matrix_power(a, -2)), S),
    "linalg.trace": (lambda a: (np.linalg.trace(a), np.linalg.diagonal(a)), S),
    "slogdet": (lambda a: np.linalg.slogdet(a).logabsdet, S),
    "slogdet batch": (lambda a: np.linalg.slogdet(a)[1], S2),
    "eigh": (lambda a: tuple(np.linalg.eigh(a)), S),
    "eigh batch": (lambda a: tuple(np.linalg.eigh(a, "U")), S2),
    "eigvalsh": (lambda a: (np.linalg.eigvalsh(a), np.linalg.eigvalsh(a, "u")), S),
    "eig": (lambda a: tuple(np.linalg.eig(a)), np.tril(S)),
    "eigvals": (np.linalg.eigvals, np.tril(S2)),
    "svd": (lambda a: tuple(np.linalg.svd(a)), S),
    "svd tall": (lambda a: tuple(np.linalg.svd(a)), B.T),
    "svd wide": (lambda a: tuple(np.linalg.svd(a)), A),
    "svd thin": (lambda a: tuple(np.linalg.svd(a, full_matrices=False)), S2[:, :2]),
    "svd values": (lambda a: (np.linalg.svd(a, compute_uv=False), np.linalg.svdvals(a)), A),
    "svd symmetric": (lambda a: tuple(np.linalg.svd(a + a.T, hermitian=True)), S - np.diag([9.0, 0.0, 0.0])),
    "svd symmetric values": (lambda a: np.linalg.svd(a, compute_uv=False, hermitian=True), S),
    "qr": (lambda a: tuple(np.linalg.qr(a)), B.T),
    "qr wide": (lambda a: tuple(np.linalg.qr(a)), A),
    "qr complete": (lambda a: tuple(np.linalg.qr(a, "complete")), B.T),
    "qr complete wide": (lambda a: tuple(np.linalg.qr(a, mode="complete")), A),
    "qr batch": (lambda a: (*np.linalg.qr(a), np.linalg.qr(a, "r")), S2[:, :2]),
    "pinv": (lambda a: (np.linalg.pinv(a), np.linalg.pinv(a, rtol=None)), A),
    "pinv batch": (lambda a: np.linalg.pinv(a, [1e-10, 1e-8]), S2[:, :2]),
    "pinv symmetric": (lambda a: np.linalg.pinv(a, hermitian=True), S),
    "lstsq": (lambda a, b: np.linalg.lstsq(a, b)[::2], S, B),
    "lstsq tall": (lambda a, b: np.linalg.lstsq(a, b), B.T, V),
    "lstsq tall matrix": (lambda a, b: np.linalg.lstsq(a, b, rcond=1e-9), B.T, B[:2].T),
    "lstsq wide": (lambda a, b: np.linalg.lstsq(a, b)[::3], A, A[:, 0].copy()),
    "tensorsolve": (lambda a, b: np.linalg.tensorsolve(a.reshape(3, 1, 3), b[:, None]), S, S[0].copy()),
    "tensorsolve axes": (lambda a, b: np.linalg.tensorsolve(a.reshape(3, 3, 1), b, axes=(1,)), S, S[0].copy()),
    "tensorinv": (lambda a: np.linalg.tensorinv(a.reshape(3, 3, 1), ind=1), S),
    "cond": (lambda a: [np.linalg.cond(a, p) for p in (None, 2, -2, 1, -1, np.inf, "fro", "nuc")], S),
    "cond batch": (lambda a: (np.linalg.cond(a), np.linalg.cond(a[:, :2]), np.linalg.cond(a, 1)), S2),
    "matrix_rank": (lambda a: (np.linalg.matrix_rank(a), np.linalg.matrix_rank(a, tol=[1.0])), S),
    "matrix_rank batch": (lambda a: (np.linalg.matrix_rank(a), np.linalg.matrix_rank(a, hermitian=True)), S2),
    "norms of matrices": (lambda a: [np.linalg.norm(a, p) for p in ("nuc", 2, -2)], A),
    "norms of a batch": (lambda a: [np.linalg.norm(a, p, axis=(2, 0), keepdims=True) for p in ("nuc", 2, -2, 1)], S2),
    "matrix_norm": (lambda a: [np.linalg.matrix_norm(a, ord=p) for p in ("fro", "nuc", 2, -1)], S2),
    "vector_norm": (lambda a: [np.linalg.vector_norm(a, axis=(0, 2), ord=p, keepdims=p > 1) for p in (1, 2, 3)], S2),
    "linalg products": (lambda a: (np.linalg.outer(a[0], a[1]), np.linalg.cross(a, a[::-1]), np.linalg.matmul(a, a),
                                   np.linalg.tensordot(a, a, axes=1), np.linalg.vecdot(a, a[0], axis=0),
                                   np.linalg.matrix_transpose(a)), S),
}  # fmt: skip


@pytest.mark.parametrize(("function", "values"), [(f, v) for f, *v in LINALG.values()], ids=list(LINALG))
def test_linear_algebra(function, values):
    others = [v * 1.1 + 0.01 * v.T if v.shape == (3, 3) else v * 1.1 for v in values]
    check(function, *values, others=others, rtol=1e-9, exact=False)


def test_cholesky_reads_one_triangle_as_numpy_does():
    broken = S + np.triu(np.full((3, 3), 9.0), 1)
    check(np.linalg.cholesky, broken, others=[broken * 1.1], rtol=1e-9)


def test_cholesky_of_one_symmetric_matrix_equals_that_of_its_mirror():
    check(lambda a: np.linalg.cholesky(a @ a.T + np.eye(2)), A, rtol=1e-9)


def test_every_table_entry_that_takes_an_array_is_covered_somewhere():
    """A new entry of the tables without a case here shows up by name."""
    here = Path(__file__)
    others = (here.parent / "test_composed_functions.py", here.parents[1] / "coverage" / "calls_numpy.py")
    text = here.read_text() + "".join(path.read_text() for path in others)
    # test_special.py has the ufuncs of SciPy, which are in the table once something has asked for them
    names = {f.__name__ for f in FUNCTIONS} | {u.__name__ for u in UFUNCS if getattr(np, u.__name__, None) is u}
    elsewhere = {op.ufunc.__name__ for op in ELEMENTWISE} | {
        "getitem", "setitem", "zeros_like", "ones_like", "empty_like", "copyto", "allclose", "array_equal",
        "array_equiv", "nonzero", "flatnonzero", "argwhere", "shape", "ndim", "size", "result_type", "iscomplexobj",
        "isrealobj", "can_cast", "min_scalar_type", "common_type", "may_share_memory", "shares_memory", "isreal",
        "iscomplex", "array_repr", "array_str", "array2string", "copysign", "bitwise_and", "bitwise_or",
        "bitwise_xor", "invert", "angle", "sqrt", "log", "log2", "log10", "arcsin", "arccos", "arctanh",
        *dir(np.fft), *dir(scipy.special),  # test_fourier.py and test_special.py have them
    }  # fmt: skip
    missing = {n for n in names - elsewhere if n not in text}
    assert missing <= {"around", "asanyarray", "ascontiguousarray", "dsplit", "matrix_norm", "real_if_close"}, missing
