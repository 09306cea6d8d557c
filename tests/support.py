"""What the tests of several rooms share: a reference interpreter, exact-enough differences, random programs.

Nothing here uses the code under test beyond building nodes and reading their parameters: the interpreter spells out
every movement by integer indexing, works in whatever precision it is given (``numpy.longdouble`` for differences) and
has its own small linear algebra.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import assume, settings
from hypothesis import strategies as st
from reference_linalg import cofactor, determinant, minors, reference

from jacana.graph import build
from jacana.graph.index import Affine, Index, Lookup, from_table
from jacana.graph.node import CONSTANT, INPUT, LITERAL, REGISTRY, Node, literal_array, new_input, topological
from jacana.graph.ops.linalg import cholesky
from jacana.graph.ops.reduction import AxesParams, AxisParams
from jacana.graph.printing import program_text
from jacana.run import Program, compile_numpy, native_available

Array = np.ndarray[Any, Any]
F8, F4, BOOL = np.dtype("f8"), np.dtype("f4"), np.dtype(bool)
LONG = np.dtype(np.longdouble)
EXACT = float(np.finfo(LONG).eps) < 1e-18  # whether differences in long double are better than double precision

# JACANA_EXAMPLES=20 looks twenty times longer, at random; the suite itself is reproducible.
_MORE = int(os.environ.get("JACANA_EXAMPLES", "1"))


def examples(count: int) -> settings:
    """Settings of a property test that usually tries ``count`` examples."""
    return settings(max_examples=count * _MORE, derandomize=_MORE == 1, deadline=None, report_multiple_bugs=False)


# --- reference interpreter --------------------------------------------------------------------------------------


def index_values(e: Index, sizes: Sequence[int]) -> Array:
    """An index expression at every point of a domain, written out."""
    grid = np.indices(tuple(sizes))
    if isinstance(e, Lookup):
        return e.table.values[tuple(grid[a] for a in e.axes)] + np.zeros(tuple(sizes), int)
    total = np.full(tuple(sizes), e.offset)
    for a, s in e.strides:
        total = total + s * grid[a]
    return total


def places(indices: Sequence[Index], sizes: Sequence[int]) -> tuple[Array, ...]:
    return tuple(index_values(e, sizes) for e in indices)


def _linalg(node: Node, arrays: Sequence[Array], work: Any) -> Array:
    """Matrix by matrix; a displacement is zero (see ``tangent`` in ``graph/ops/labelled.py``)."""
    result = np.zeros(node.shape, dtype=work)
    if node.op.name.endswith(("_tangent", "_outside")) or node.op.name in ("qr_columns", "qr_symmetric"):
        return result
    if node.op.name in ("basis", "pivots"):
        return np.asarray(node.op.evaluate(node.params, *arrays))
    for where in np.ndindex(*arrays[0].shape[:-2]):
        result[where] = reference(node.op.name, node.params, [a[where] for a in arrays])
    return result


def _complex_minors(name: str, a: Array) -> Array:
    result = np.zeros(a.shape if name == "complex_cofactor" else a.shape[:-2], dtype=a.dtype)
    for where in np.ndindex(*a.shape[:-2]):
        result[where] = (cofactor if name == "complex_cofactor" else determinant)(a[where])
    return np.stack([result.real, result.imag], axis=-1)


def apply_node(node: Node, arrays: Sequence[Array], work: Any) -> Array:
    """The value of one node; floats are kept in the precision ``work``."""
    params = node.params
    dtype = work if node.dtype.kind == "f" else node.dtype
    match node.op.name:
        case "index":
            if not arrays[0].ndim:
                return np.broadcast_to(arrays[0], node.shape).copy()
            return np.asarray(arrays[0][places(params.indices, node.shape)])
        case "assemble":
            result = np.zeros(node.shape, dtype=dtype)
            for part, rows in zip(arrays, params.rows, strict=True):
                where = places(rows, part.shape)
                if node.ndim:
                    np.add.at(result, where, part)
                else:
                    result = result + part.sum()
            return np.asarray(result)
        case "contract":
            pairs = [x for a, ls in zip(arrays, params.labels, strict=True) for x in (a, list(ls))]
            return np.asarray(np.einsum(*pairs, list(params.out)), dtype=dtype)
        case "select":
            return np.asarray(np.where(*arrays))
        case "cast":
            return arrays[0].astype(dtype)
    if node.op.name == "minors":
        return minors(params.order, arrays[0].astype(dtype))
    if node.op.family == "linalg":
        return _linalg(node, arrays, dtype)
    if node.op.name in ("complex_det", "complex_cofactor"):
        return _complex_minors(node.op.name, arrays[0] + 1j * arrays[1])
    if node.op.ufunc is not None:
        return np.asarray(node.op.ufunc(*arrays))
    return np.asarray(node.op.evaluate(params, *arrays))


def interpret(outputs: Sequence[Node], known: dict[Node, Array], work: Any = F8) -> list[Array]:
    """The outputs by one plain NumPy step a node, with every inferred shape checked."""
    values = dict(known)
    with np.errstate(all="ignore"):
        for node in topological(outputs):
            if node in values:
                continue
            if node.op in (CONSTANT, LITERAL):
                value = literal_array(node.params) if node.op is LITERAL else node.params.owner.value()
                values[node] = value.astype(work) if value.dtype.kind == "f" else value
            else:
                assert node.op is not INPUT, f"no value for {node}"
                values[node] = apply_node(node, [values[i] for i in node.inputs], work)
            assert values[node].shape == node.shape, (node, values[node].shape)
    return [values[node] for node in outputs]


# --- derivatives by differences ---------------------------------------------------------------------------------


class KinkError(Exception):
    """Two step lengths disagree: the point is at a kink, where differences say nothing."""


def differences(
    outputs: Sequence[Node], inputs: Sequence[Node], known: dict[Node, Array], tolerance: float = 1e-7
) -> list[list[Array]]:
    """``[i][j]``: the derivative of output i by input j, of shape (sizes), by central differences of fourth order."""
    base = {
        node: np.asarray(value, dtype=LONG if value.dtype.kind == "f" else value.dtype) for node, value in known.items()
    }
    step = LONG.type(1e-4 if EXACT else 1e-3)

    def at(source: Node, k: int, h: Any) -> Array:
        moved = base[source].copy()
        moved.reshape(-1)[k] += h
        found = interpret(outputs, {**base, source: moved}, LONG)
        return np.concatenate([np.ravel(v).astype(LONG) for v in found] or [np.empty(0)])

    columns: list[list[Array]] = [[] for _ in outputs]
    cuts = np.cumsum([y.size for y in outputs])[:-1]
    for source in inputs:
        stacked = np.zeros((sum(y.size for y in outputs), source.size), dtype=LONG)
        for k in range(source.size):
            near, far = (at(source, k, h) - at(source, k, -h) for h in (step, 2 * step))
            estimate = (8 * near - far) / (12 * step)
            if np.any(np.abs(estimate - near / (2 * step)) > tolerance * (1 + np.abs(estimate))):
                raise KinkError
            stacked[:, k] = estimate
        for i, piece in enumerate(np.split(stacked, cuts)):
            columns[i].append(piece.astype(float))
    return columns


def close(actual: Any, expected: Any, tolerance: float, what: Any = "") -> None:
    """Equal up to ``tolerance``, relative to the largest entry (and to one)."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, (what, actual.shape, expected.shape)
    if expected.size:
        assert np.array_equal(np.isnan(actual), np.isnan(expected)), (what, actual, expected)
        scale = max(1.0, float(np.nanmax(np.abs(expected), initial=0.0)))
        worst = float(np.nanmax(np.abs(actual - expected), initial=0.0))
        assert worst <= tolerance * scale, f"{what}: off by {worst:.3g} (scale {scale:.3g})\n{actual}\n{expected}"


# --- executors --------------------------------------------------------------------------------------------------

Runner = Callable[[Program], Callable[[Sequence[Array]], list[Array]]]


def executors() -> dict[str, Runner]:
    """Every executor that works here."""
    found: dict[str, Runner] = {"numpy": compile_numpy}
    if native_available():
        from jacana.run.native import compile_native

        found["native"] = compile_native
    return found


EXECUTORS = executors()


def execute(name: str, outputs: Sequence[Node], known: dict[Node, Array]) -> list[Array]:
    """The outputs by one executor, checked for shape and dtype."""
    program = Program(tuple(known), tuple(outputs))
    found = EXECUTORS[name](program)([np.ascontiguousarray(v).reshape(v.shape) for v in known.values()])
    for node, value in zip(outputs, found, strict=True):
        assert isinstance(value, np.ndarray), (name, node, type(value))
        assert value.shape == node.shape, (name, node, value.shape)
        assert value.dtype == node.dtype, (name, node, value.dtype)
    return found


# --- building blocks --------------------------------------------------------------------------------------------


def op(name: str, *inputs: Node, params: Any = None) -> Node:
    return REGISTRY[name](*inputs, params=params)


def ramp(a: int, stride: int = 1, offset: int = 0) -> Affine:
    return Affine(offset, ((a, stride),)) if stride else Affine(offset)


def table(values: Any, *axes: int) -> Index:
    array = np.asarray(values, dtype=np.int64)
    return from_table(array, axes or tuple(range(array.ndim)))


def take_slice(node: Node, axis: int, start: int, count: int, step: int = 1) -> Node:
    """``count`` places of ``axis`` from ``start`` in steps."""
    shape = tuple(count if k == axis else n for k, n in enumerate(node.shape))
    indices = [ramp(k, step, start) if k == axis else ramp(k) for k in range(node.ndim)]
    return build.index_node(node, shape, indices)


def take_table(node: Node, axis: int, chosen: Sequence[int]) -> Node:
    """``np.take(node, chosen, axis)``."""
    shape = tuple(len(chosen) if k == axis else n for k, n in enumerate(node.shape))
    indices = [table(chosen, axis) if k == axis else ramp(k) for k in range(node.ndim)]
    return build.index_node(node, shape, indices)


def concatenate(parts: Sequence[Node], axis: int) -> Node:
    start, placed = 0, []
    for part in parts:
        placed.append((part, tuple(ramp(k, 1, start if k == axis else 0) for k in range(part.ndim))))
        start += part.shape[axis]
    shape = tuple(start if k == axis else n for k, n in enumerate(parts[0].shape))
    return build.assembled(placed, shape, parts[0].dtype, disjoint=True)


def matmul(a: Node, b: Node) -> Node:
    """Two matrices."""
    sizes = (a.shape[0], a.shape[1], b.shape[1])
    return build.contract_labels([(a, (0, 1)), (b, (1, 2))], sizes, (0, 2))


def matvec(a: Node, x: Node) -> Node:
    return build.contract_labels([(a, (0, 1)), (x, (1,))], a.shape, (0,))


def total(node: Node) -> Node:
    return build.sum_axes(node, tuple(range(node.ndim)))


# --- random programs --------------------------------------------------------------------------------------------


@dataclass
class RandomProgram:
    """A program, and values of its inputs at which nothing is far from one."""

    inputs: list[Node]
    outputs: list[Node]
    values: list[Array]

    @property
    def known(self) -> dict[Node, Array]:
        return dict(zip(self.inputs, self.values, strict=True))

    def __repr__(self) -> str:
        given = "\n".join(f"{x!r} = {v!r}" for x, v in self.known.items())
        return f"\n{given}\n{program_text(self.outputs)}\n"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # what hypothesis shows of a failing example


class _Growth:
    """Adds one node after another to a pool."""

    def __init__(self, seed: int, dtype: Any, smooth: bool) -> None:
        self.dtype, self.smooth = np.dtype(dtype), smooth
        self.inputs: list[Node] = []
        self.values: dict[Node, Array] = {}
        self.pool: list[Node] = []
        self.rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def choose(self, options: Sequence[Any]) -> Any:
        return options[self.integer(0, len(options) - 1)]

    def input(self, shape: tuple[int, ...]) -> Node:
        node = new_input(shape, self.dtype)
        self.inputs.append(node)
        self.values[node] = np.asarray(self.rng.uniform(-1.5, 1.5, size=shape), dtype=self.dtype)
        self.pool.append(node)
        return node

    def keep(self, node: Node) -> None:
        """Put a node into the pool, tamed where it is large."""
        (value,) = interpret([node], self.values)
        largest = float(np.abs(value).max(initial=0.0))
        if largest > 8:
            node = node * 2.0 ** -int(np.log2(min(largest, 1e300)))
        if node.size > 48:
            flat = build.movement_reshape(node, (node.size,))
            node = take_slice(flat, 0, 0, min(24, node.size // 3), 3)
        self.pool.append(node)

    def pick(self) -> Node:
        # Later nodes more often: programs are to be deep.
        return self.choose([*self.pool, *self.pool[-4:], *self.pool[-2:], *self.pool[-1:] * 2])

    def pick_rank(self, low: int = 1) -> Node:
        found = [node for node in self.pool if node.ndim >= low and node.size]
        if found:
            return self.choose([*found, *found[-3:], *found[-1:] * 2])
        node = self.pick()
        shape = (2, 3, 1, 1)[: max(low, 1)]
        scalar = node if not node.ndim else total(node)
        constant = build.constant_array(self.rng.uniform(-1, 1, size=shape).astype(self.dtype))
        return build.broadcast_to(scalar, shape) * constant

    def array(self, shape: tuple[int, ...]) -> Node:
        """A constant; sometimes most of it is zero, which counts as structure."""
        value = self.rng.uniform(-1, 1, size=shape)
        if self.integer(0, 2) == 0:
            value = np.where(self.rng.random(shape) < 0.4, value, 0.0)
        return build.constant_array(value.astype(self.dtype))

    # Every step takes nodes of the pool to a new one.

    def unary(self) -> Node:
        x = self.pick()
        above = x * x + 0.5
        rules: list[Callable[[], Node]] = [
            lambda: op("sin", x),
            lambda: op("cos", x),
            lambda: op("tanh", x),
            lambda: op("exp", op("sin", x)),
            lambda: op("square", x),
            lambda: -x,
            lambda: op("sqrt", above),
            lambda: op("log", above),
            lambda: op("arctan", x),
            lambda: op("reciprocal", above),
            lambda: op("cbrt", above),
            lambda: op("power", above, build.full(1.7, x.shape, x.dtype)),
            lambda: x**3.0,
            lambda: op("absolute", x),
            lambda: op("expm1", op("tanh", x)) + op("log1p", above),
        ]
        return self.choose(rules[:-2] if self.smooth else rules)()

    def pair(self) -> tuple[Node, Node]:
        a, b = self.pick(), self.pick()
        try:
            shape = np.broadcast_shapes(a.shape, b.shape)
        except ValueError:
            b = total(b)
            shape = a.shape
        return build.broadcast_to(a, shape), build.broadcast_to(b, shape)

    def binary(self) -> Node:
        a, b = self.pair()
        zero = build.full(0.0, a.shape, a.dtype)
        mask = build.constant_array(np.asarray(self.rng.random(a.shape) < 0.5))
        rules: list[Callable[[], Node]] = [
            lambda: op("select", mask, op("sin", a), b * b),
            lambda: a + b,
            lambda: a - b,
            lambda: a * b,
            lambda: a * b,
            lambda: a / (b * b + 1.0),
            lambda: op("hypot", a, b + 2.5),
            lambda: op("arctan2", a, b * b + 1.0),
            lambda: op("power", a * a + 0.5, op("sin", b)),
            lambda: op("logaddexp", a, b),
            lambda: op("maximum", a, b),
            lambda: op("minimum", a, b),
            lambda: op("select", a > b, op("sin", a), b * b),
            lambda: op("select", a > zero, op("log", op("sqrt", a)), zero),
        ]
        return self.choose(rules[:-4] if self.smooth else rules)()

    def move(self) -> Node:
        x = self.pick_rank()
        k = self.integer(0, x.ndim - 1)
        n = x.shape[k]
        match self.integer(0, 8):
            case 0:
                start = self.integer(0, n - 1)
                step = self.integer(1, 3)
                return take_slice(x, k, start, self.integer(1, (n - 1 - start) // step + 1), step)
            case 1:
                return take_slice(x, k, n - 1, n, -1)
            case 2:
                return take_table(x, k, [self.integer(0, n - 1) for _ in range(self.integer(1, 5))])
            case 3:
                return build.transpose(x, [int(a) for a in self.rng.permutation(x.ndim)])
            case 4:
                shapes = {(x.size,), (1, x.size), (x.size, 1)}
                shapes |= {(d, x.size // d) for d in range(1, x.size + 1) if x.size % d == 0}
                shapes |= {(d, 1, x.size // d // 2, 2) for d in range(1, x.size + 1) if x.size % (2 * d) == 0}
                return build.movement_reshape(x, self.choose(sorted(shapes)))
            case 5:
                return build.broadcast_to(x, (self.integer(1, 3), *x.shape))
            case 6:
                # one place of an axis
                place = self.integer(0, n - 1)
                shape = tuple(m for j, m in enumerate(x.shape) if j != k)
                left = iter(range(x.ndim))
                return build.index_node(
                    x, shape, [Affine(place) if j == k else ramp(next(left)) for j in range(x.ndim)]
                )
            case 7:
                # a gather by tables of two axes
                shape = (self.integer(1, 3), self.integer(1, 3))
                tables = [table(self.rng.integers(0, m, size=shape), 0, 1) for m in x.shape]
                return build.index_node(x, shape, tables)
            case _:
                # a diagonal: one axis in every expression
                count = min(x.shape)
                return build.index_node(x, (count,), [ramp(0)] * x.ndim)

    def assemble(self) -> Node:
        x = self.pick_rank()
        k = self.integer(0, x.ndim - 1)
        n = x.shape[k]

        def placed(e: Index) -> tuple[Index, ...]:
            return tuple(e if j == k else ramp(j) for j in range(x.ndim))

        def resized(m: int) -> tuple[int, ...]:
            return tuple(m if j == k else s for j, s in enumerate(x.shape))

        match self.integer(0, 5):
            case 0:
                return concatenate([x, op("cos", x)], k)
            case 1:
                return concatenate([take_slice(x, k, n - 1, 1), x, take_slice(x, k, 0, 1), x * 2.0], k)
            case 2:
                return build.assembled(
                    [(x, placed(ramp(k, 1, self.integer(0, 2))))], resized(n + 3), x.dtype, disjoint=True
                )
            case 3:
                parts = [(x, placed(ramp(k, 2))), (op("tanh", x), placed(ramp(k, 2, 1)))]
                return build.assembled(parts, resized(2 * n + 1), x.dtype, disjoint=True)
            case 4:
                rows = table([self.integer(0, 2) for _ in range(n)], k)
                return build.assembled([(x, placed(rows))], resized(3), x.dtype, disjoint=False)
            case _:
                rows = table([self.integer(0, 2) for _ in range(n)], k)
                parts = [(x, placed(rows)), (x * x, placed(ramp(k))), (x, placed(ramp(k, -1, n)))]
                return build.assembled(parts, resized(max(3, n + 1)), x.dtype, disjoint=False)

    def contract(self) -> Node:
        match self.integer(0, 5):
            case 0:
                x = self.pick()
                return build.sum_axes(x, tuple(k for k in range(x.ndim) if self.integer(0, 1)))
            case 1:
                x = self.pick_rank()
                labels = tuple(range(x.ndim))
                w = self.array((x.shape[-1], 3))
                return build.contract_labels(
                    [(x, labels), (w, (x.ndim - 1, x.ndim))], (*x.shape, 3), (*labels[:-1], x.ndim)
                )
            case 2:
                x = self.pick_rank()
                flat, other = build.movement_reshape(x, (x.size,)), self.pick_rank()
                second = build.movement_reshape(other, (other.size,))
                if flat.size * second.size > 48:
                    return total(flat) * total(second)
                return build.contract_labels([(flat, (0,)), (second, (1,))], (flat.size, second.size), (1, 0))
            case 3:
                x = self.pick_rank(2)
                labels = tuple(range(x.ndim))
                return build.contract_labels([(x, labels), (op("sin", x), labels)], x.shape, labels[1:])
            case 4:
                # a Gram matrix
                x = self.pick_rank(2)
                m = build.movement_reshape(x, (x.shape[0], x.size // x.shape[0]))
                return build.contract_labels([(m, (0, 1)), (m, (2, 1))], (*m.shape, m.shape[0]), (0, 2))
            case _:
                x = self.pick_rank()
                w, v = self.array((x.shape[0], 2)), self.array((2, x.shape[0]))
                labels = tuple(range(x.ndim))
                sizes = (*x.shape, 2, x.shape[0])
                r = x.ndim
                return build.contract_labels([(w, (0, r)), (x, labels), (v, (r, r + 1))], sizes, (r + 1, *labels[1:]))

    def reduce(self) -> Node:
        x = self.pick_rank()
        k = self.integer(0, x.ndim - 1)
        axes = tuple(sorted({k, *([self.integer(0, x.ndim - 1)])}))
        match self.integer(1 if self.smooth else 0, 3):
            case 0:
                return op(self.choose(["max", "min"]), x, params=AxesParams(axes))
            case 1:
                return op("prod", x, params=AxesParams(axes))
            case 2:
                return op("cumsum", x, params=AxisParams(k))
            case _:
                return op("norm", x + 2.0, params=AxesParams(axes))

    def linear_algebra(self) -> Node:
        x = self.pick_rank()
        v = op("tanh", build.movement_reshape(x, (x.size,)))
        n = self.integer(1, 3)
        v = take_table(v, 0, [self.integer(0, x.size - 1) for _ in range(n)])
        outer = build.contract_labels([(v, (0,)), (v, (1,))], (n, n), (0, 1))
        eye = build.constant_array(2.0 * np.eye(n, dtype=self.dtype))
        symmetric = outer + eye
        matrix = symmetric + self.array((n, n)) * build.broadcast_to(v, (n, n)) * 0.2
        match self.integer(0, 5):
            case 0:
                return op("inv", matrix)
            case 1:
                return op("det", matrix)
            case 2:
                return op(
                    "solve", matrix, build.broadcast_to(build.movement_reshape(v, (n, 1)), (n, 2)) * self.array((n, 2))
                )
            case 3:
                return cholesky(symmetric)
            case 4:
                return op("cofactor", matrix)
            case _:
                batch = (
                    build.broadcast_to(matrix, (2, n, n)) + build.broadcast_to(self.array((2, 1, 1)), (2, n, n)) * 0.1
                )
                return op("inv", batch)


def grow(seed: int, steps: int, *, dtype: Any = F8, smooth: bool = False, scalar: bool = False) -> RandomProgram | None:
    """The random program of a seed; None if it is not finite at its values."""
    growth = _Growth(seed, dtype, smooth)
    for _ in range(growth.integer(1, 3)):
        lengths = [1, 2, 3, 4, 2, 3, 0] if growth.integer(0, 9) == 9 else [1, 2, 3, 4, 2, 3]
        shape = tuple(growth.choose(lengths) for _ in range(growth.integer(0, 3)))
        growth.input(shape if math.prod(shape) <= 12 else shape[:2])
    kinds = [
        growth.unary,
        growth.binary,
        growth.move,
        growth.assemble,
        growth.contract,
        growth.reduce,
        growth.linear_algebra,
    ]
    for _ in range(steps):
        growth.keep(growth.choose(kinds)())
    if scalar:
        parts = [total(op("sin", node)) for node in growth.pool[-2:]]
        outputs = [sum(parts[1:], parts[0])]
    else:
        outputs = [growth.pool[-1], *(growth.pick() for _ in range(growth.integer(0, 2)))]
    if not all(np.isfinite(v).all() for v in interpret(outputs, growth.values)):
        return None
    return RandomProgram(growth.inputs, outputs, [growth.values[x] for x in growth.inputs])


@st.composite
def programs(
    draw: Any, *, dtype: Any = F8, smooth: bool = False, scalar: bool = False, steps: int = 12
) -> RandomProgram:
    """Random programs with one to three inputs and outputs; ``smooth``: no kinks; ``scalar``: one number comes out."""
    # Choices follow one drawn seed, step after step: shrinking the number of steps keeps the first ones as they are,
    # and examples are as varied as they can be.
    program = grow(
        draw(st.integers(0, 2**32 - 1)), draw(st.integers(2, steps)), dtype=dtype, smooth=smooth, scalar=scalar
    )
    assume(program is not None)
    assert program is not None
    return program
