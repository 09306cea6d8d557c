"""The native executor against the numpy executor: loop shapes, strides, tables, ownership, threads."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import (
    BOOL,
    F4,
    F8,
    Array,
    close,
    concatenate,
    examples,
    interpret,
    matmul,
    op,
    programs,
    ramp,
    table,
    take_slice,
    take_table,
    total,
)

from jacana.differentiate import dense_jacobians, sparse_jacobian
from jacana.graph import build
from jacana.graph.index import Affine
from jacana.graph.node import Node, new_input
from jacana.graph.ops.elementwise import CastParams
from jacana.graph.ops.reduction import AxesParams, AxisParams
from jacana.run import Program, compile_numpy, native_available

pytestmark = pytest.mark.skipif(not native_available(), reason="llvmlite is not installed")
if native_available():
    from jacana.run.native import compile_native
    from jacana.run.native.engine import machine

I8, I4 = np.dtype("i8"), np.dtype("i4")
SIZES = (1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 100, 1000)


@pytest.fixture(params=["lanes of this machine", "four lanes"])
def lanes(request: Any) -> Iterator[None]:
    """Machines without AVX-512 have four lanes; their code runs here too."""
    target = machine()
    before = target.lanes
    if request.param == "four lanes":
        if before == 4:
            pytest.skip("this machine has four lanes")
        target.lanes = 4
    yield
    target.lanes = before


def sample(shape: Sequence[int], dtype: Any = F8, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype == BOOL:
        return np.asarray(rng.random(tuple(shape)) < 0.5)
    if dtype.kind in "iu":
        return np.asarray(rng.integers(-50, 50, size=tuple(shape)), dtype=dtype)
    return np.asarray(rng.uniform(0.5, 2.0, size=tuple(shape)) * rng.choice([-1, 1], size=tuple(shape)), dtype=dtype)


def bits(array: Array) -> bytes:
    """Every bit, but one NaN is as good as another."""
    return np.where(np.isnan(array), np.nan, array).tobytes() if array.dtype.kind == "f" else array.tobytes()


def compare(outputs: Sequence[Node], inputs: Sequence[Node], ulps: int = 0) -> list[Array]:
    """Both executors on random inputs: bit for bit, or up to some units in the last place."""
    values = [sample(x.shape, x.dtype, k) for k, x in enumerate(inputs)]
    return compare_at(outputs, inputs, values, ulps)


def compare_at(outputs: Sequence[Node], inputs: Sequence[Node], values: Sequence[Array], ulps: int = 0) -> list[Array]:
    program = Program(tuple(inputs), tuple(outputs))
    kept = [v.copy() for v in values]
    expected = compile_numpy(program)(values)
    run = compile_native(program)
    found = run(values)
    again = run(values)
    for v, k in zip(values, kept, strict=True):
        assert v.tobytes() == k.tobytes(), "an argument was written"
    for node, one, other, repeat in zip(outputs, found, expected, again, strict=True):
        assert one.shape == other.shape == node.shape
        assert one.dtype == other.dtype == node.dtype
        assert one.flags.c_contiguous
        if node.dtype.kind == "f" and ulps:
            np.testing.assert_array_max_ulp(one, other, ulps, dtype=node.dtype)
        else:
            assert bits(one) == bits(other), (node, np.argwhere(one != other)[:5], one, other)
        assert one.tobytes() == repeat.tobytes(), "not the same at the second call"
    return found


def check_ownership(outputs: Sequence[Node], inputs: Sequence[Node], constants: Sequence[Array] = ()) -> None:
    """The caller owns the results: writing into them changes nothing else, now or later."""
    program = Program(tuple(inputs), tuple(outputs))
    values = [sample(x.shape, x.dtype, k) for k, x in enumerate(inputs)]
    for v in values:
        v.flags.writeable = False
    for run in (compile_numpy(program), compile_native(program)):
        first = run(values)
        kept = [v.tobytes() for v in first]
        for k, one in enumerate(first):
            assert one.flags.writeable
            assert one.flags.c_contiguous
            for other in (*first[:k], *values, *constants):
                assert not np.may_share_memory(one, other), (outputs[k], one)
        for one in first:
            one[...] = 0
        second = run(values)
        assert [v.tobytes() for v in second] == kept
        for one, other in itertools.product(first, second):
            assert not np.may_share_memory(one, other)


# --- loops ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [F8, F4])
def test_one_axis(lanes, dtype):
    inputs, outputs = [], []
    for n in SIZES:
        x = new_input((n,), dtype)
        inputs.append(x)
        outputs += [x * x + 1.5, op("sqrt", op("absolute", x)) / x, op("maximum", x, -x * 0.5)]
    compare(outputs, inputs)


@pytest.mark.parametrize("dtype", [F8, F4])
def test_several_axes(lanes, dtype):
    inputs, outputs = [], []
    shapes = [(3, 5), (9, 17), (17, 9), (2, 100), (100, 2), (65, 3), (3, 65), (1, 70), (70, 1), (33, 33)]
    shapes += [(2, 3, 5), (5, 7, 11), (20, 3, 3), (3, 20, 3), (3, 3, 20), (7, 1, 19), (40, 2, 2)]
    shapes += [(2, 3, 4, 5), (3, 3, 3, 3), (9, 2, 2, 9), (2, 17, 2, 3), (8, 1, 8, 2)]
    for shape in shapes:
        x = new_input(shape, dtype)
        row = new_input(shape[-1:], dtype)
        inputs += [x, row]
        reverse = build.transpose(x, tuple(reversed(range(len(shape)))))
        outputs += [x * build.broadcast_to(row, shape), reverse * reverse]
    compare(outputs, inputs)


def test_empty_and_scalar_arrays_beside_others(lanes):
    x, s, e, f = new_input((20,), F8), new_input((), F8), new_input((0,), F8), new_input((3, 0), F8)
    outputs = [x * build.broadcast_to(s, (20,)), s * s, e * e, f + f, total(e), build.zeros((2, 3), F8), build.zeros((0,), F8)]
    outputs += [build.full(2.5, (70,), F8), build.full(1.5, (), F8), build.full(True, (2, 3), BOOL)]
    compare(outputs, [x, s, e, f])


@pytest.mark.parametrize("dtype", [F8, F4])
def test_strided_reads(lanes, dtype):
    inputs, outputs = [], []
    for stride in range(2, 18):
        for count in (8, 17, 40):
            x = new_input((stride * count + 3,), dtype)
            inputs.append(x)
            read = [take_slice(x, 0, start, count, stride) for start in (0, stride - 1, 2)]
            outputs.append(read[0] + read[1] * read[2])
            y = new_input((count, stride), dtype)
            inputs.append(y)
            columns = [build.index_node(y, (count,), [ramp(0), Affine(k)]) for k in range(0, stride, 3)]
            total_ = columns[0]
            for c in columns[1:]:
                total_ = total_ * c
            outputs.append(total_)
    compare(outputs, inputs)


def test_negative_strides(lanes):
    inputs, outputs = [], []
    for count in (9, 16, 70):
        for stride in (-1, -2, -3, -5):
            x = new_input((count * -stride + 2,), F8)
            inputs.append(x)
            outputs.append(take_slice(x, 0, x.size - 1, count, stride) * 2.0)
            outputs.append(take_slice(x, 0, 0, count) - take_slice(x, 0, count - 1, count, -1))
    compare(outputs, inputs)


@pytest.mark.parametrize("dtype", [F8, F4, I8, I4, BOOL])
def test_movement_of_every_dtype(lanes, dtype):
    x = new_input((21, 6), dtype)
    outputs = [
        build.transpose(x, (1, 0)),
        take_slice(x, 0, 20, 10, -2),
        take_slice(x, 1, 5, 6, -1),
        take_table(x, 0, [3, 3, 20, 0, 7] * 8),
        take_table(x, 1, [5, 0, 0, 3, 1, 2, 4, 5, 3]),
        build.movement_reshape(x, (9, 14)),
        build.movement_reshape(x, (126,)),
        concatenate([x, take_slice(x, 0, 3, 2)], 0),
        concatenate([x, take_slice(x, 1, 1, 2)], 1),
        build.assembled([(x, (ramp(0, 2, 1), ramp(1, 3)))], (45, 17), x.dtype, disjoint=True),
        build.assembled([(x, (ramp(0, -1, 20), ramp(1)))], (21, 6), x.dtype, disjoint=True),
        build.assembled([(x, (table(np.random.default_rng(0).permutation(30)[:21], 0), ramp(1)))], (30, 6), x.dtype, disjoint=True),
    ]
    compare(outputs, [x])


@pytest.mark.parametrize("dtype", [F8, F4])
@pytest.mark.parametrize("start", [0, 1])
def test_interleaved_stores(lanes, dtype, start):
    # What CSR data looks like: k entries a row, and sometimes a gap; values come from separate arrays.
    inputs, outputs = [], []
    for entries in (2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 24, 30):
        for gap in (0, 1):
            count = 20 if entries > 8 else 37
            x = new_input((count,), dtype)
            inputs.append(x)
            width = entries + gap
            parts = [(x * (1.0 + k), (ramp(0, width, start + k),)) for k in range(entries)]
            outputs.append(build.assembled(parts, (start + width * count,), x.dtype, disjoint=True))
    compare(outputs, inputs)


def test_stores_against_the_direction_of_the_loop(lanes):
    x = new_input((40,), F8)
    outputs = []
    for width in (1, 2, 3, 4, 7):
        parts = [(x * (1.0 + k), (ramp(0, -width, width * 39 + k),)) for k in range(width)]
        outputs.append(build.assembled(parts, (width * 40,), F8, disjoint=True))
        outputs.append(build.assembled(parts[:1], (width * 40,), F8, disjoint=True))
    compare(outputs, [x])


def test_parts_of_different_lengths_meet(lanes):
    # Loops that end by stepping back must not write beyond their own part.
    for lengths in [(9, 17, 33), (1, 8, 70), (65, 2, 65), (16, 16, 15)]:
        inputs = [new_input((n,), F8) for n in lengths]
        parts = [x * (k + 2.0) for k, x in enumerate(inputs)]
        joined = concatenate(parts, 0)
        spread = []
        for k, part in enumerate(parts):
            spread.append((part, (ramp(0, 3, k),)))
        outputs = [joined, build.assembled(spread, (3 * max(lengths) + 2,), F8, disjoint=True)]
        outputs.append(concatenate([take_slice(joined, 0, 5, 4), joined, inputs[0]], 0))
        compare(outputs, inputs)


@pytest.mark.parametrize("dtype", [F8, F4])
def test_gathered_rows(lanes, dtype):
    # Rows of 1 to 17 entries picked by a table, all entries and single ones, in the first and the last row as well.
    inputs, outputs = [], []
    rng = np.random.default_rng(0)
    for width in range(1, 18):
        x = new_input((13, width), dtype)
        inputs.append(x)
        chosen = [0, 12, *map(int, rng.integers(0, 13, size=27)), 12]
        rows = take_table(x, 0, chosen)
        outputs.append(rows * rows)
        single = [build.index_node(rows, (30,), [ramp(0), Affine(k)]) for k in {0, width // 2, width - 1}]
        outputs.append(concatenate([s * 2.0 for s in single], 0))
    compare(outputs, inputs)


@pytest.mark.parametrize("dtype", [F8, F4])
def test_gathered_rows_of_a_slice(lanes, dtype):
    # The offset of the slice and the row of the table add up.
    inputs, outputs = [], []
    rng = np.random.default_rng(0)
    for width in range(1, 18):
        x = new_input((15, width), dtype)
        inputs.append(x)
        part = take_slice(x, 0, 2, 12)
        rows = take_table(part, 0, [0, 11, *map(int, rng.integers(0, 12, size=27)), 11])
        outputs.append(rows * 2.0)
        doubled = take_slice(x, 0, 1, 7, 2)
        outputs.append(take_table(doubled, 0, [0, 6, *map(int, rng.integers(0, 7, size=22))]) * 3.0)
        last = build.index_node(rows, (30,), [ramp(0), Affine(width - 1)])
        outputs.append(last * last)
    compare(outputs, inputs)


def test_tables_of_tables(lanes):
    x = new_input((50,), F8)
    rng = np.random.default_rng(0)
    y = x * 2.0
    first = take_table(y, 0, [int(i) for i in rng.integers(0, 50, size=40)])
    second = take_table(first * first, 0, [int(i) for i in rng.integers(0, 40, size=33)])
    grid = build.index_node(x, (7, 11), [table(rng.integers(0, 50, size=(7, 11)), 0, 1)])
    swapped = build.index_node(x, (7, 11), [table(rng.integers(0, 50, size=(11, 7)), 1, 0)])
    picked = build.index_node(grid * grid, (29,), [table(rng.integers(0, 7, size=29)), table(rng.integers(0, 11, size=29))])
    part = build.index_node(grid * 3.0, (20,), [Affine(4), table(rng.integers(0, 11, size=20))])
    compare([second, grid + swapped, picked, part, take_slice(grid, 1, 10, 11, -1) - grid], [x])


def test_tables_along_the_loops(lanes):
    # A table over the outer loop, the lanes along another axis; and both.
    x = new_input((9, 40), F8)
    rng = np.random.default_rng(0)
    outer = take_table(x, 0, [int(i) for i in rng.integers(0, 9, size=60)])
    both = take_table(take_table(x, 0, [8, 0, 3] * 20), 1, [int(i) for i in rng.integers(0, 40, size=50)])
    compare([outer * 2.0, both * 2.0, build.transpose(outer, (1, 0)) + 1.0], [x])


def test_scatter(lanes):
    rng = np.random.default_rng(0)
    x, y = new_input((40, 3), F8), new_input((40,), F8)
    places = rng.permutation(60)[:40]
    often = rng.integers(0, 11, size=40)
    outputs = [
        build.assembled([(x, (table(places, 0), ramp(1)))], (60, 3), F8, disjoint=True),
        build.assembled([(y * y, (table(places, 0),))], (60,), F8, disjoint=True),
        build.assembled([(y, (table(often, 0),)), (y * 2.0, (table(often[::-1], 0),))], (11,), F8, disjoint=False),
        build.assembled([(x, (table(often, 0), ramp(1)))], (11, 3), F8, disjoint=False),
        build.assembled([(x, (ramp(1),))], (3,), F8, disjoint=False),
        build.assembled([(x, (Affine(0, ((0, 1), (1, 2))),))], (44,), F8, disjoint=False),
    ]
    compare(outputs, [x, y], 4)


@pytest.mark.parametrize("kind", [F4, I8, I4, BOOL], ids=str)
@pytest.mark.parametrize("count", [5, 90])
def test_scatter_of_other_dtypes(lanes, kind, count):
    rng = np.random.default_rng(0)
    x, y = new_input((40, 3), kind), new_input((40,), kind)
    often = rng.integers(0, count, size=40)
    outputs = [
        build.assembled([(x, (table(often, 0), ramp(1)))], (count, 3), kind, disjoint=False),
        build.assembled([(y, (table(often, 0),)), (take_slice(y, 0, 3, 4), (ramp(0),))], (count,), kind, disjoint=False),
        build.assembled([(take_slice(y, 0, 0, 5), (ramp(0),)), (take_slice(y, 0, 3, 4), (ramp(0),))], (count,), kind, disjoint=False),
    ]
    compare(outputs, [x, y])


def test_the_same_part_added_several_times(lanes):
    x, y = new_input((70,), F8), new_input((5,), F8)
    half = x * 0.5
    outputs = []
    for part, n in ((half, 70), (y * 0.5, 5), (x, 70), (y, 5)):
        rows = (ramp(0, 1, 2),)
        often = (table(np.arange(n) // 2, 0),)
        outputs.append(build.assembled([(part, rows), (part, rows), (part, rows)], (n + 3,), F8, disjoint=False))
        outputs.append(build.assembled([(part, often), (part, often), (part * 2.0, often)], (n + 3,), F8, disjoint=False))
        outputs.append(build.assembled([(part, rows), (part, (ramp(0),)), (part, (ramp(0, -1, n),))], (n + 3,), F8, disjoint=False))
    compare(outputs, [x, y])


@pytest.mark.parametrize("dtype", [F8, F4])
def test_additions_end_with_the_loop(lanes, dtype):
    # The last step of a vector loop is moved back: what it does twice must not be added twice.
    inputs, outputs = [], []
    for n in (65, 66, 71, 72, 73, 100):
        x, y = new_input((n,), dtype), new_input((3, n), dtype)
        inputs += [x, y]
        first = (x * 2.0, (ramp(0),))
        outputs.append(build.assembled([first, (x, (ramp(0, 1, 1),))], (n + 1,), dtype, disjoint=False))
        outputs.append(build.assembled([first, (x, (ramp(0, 2),)), (x, (ramp(0, -2, 2 * n),))], (2 * n + 1,), dtype, disjoint=False))
        outputs.append(build.assembled([(y, (ramp(1),))], (n,), dtype, disjoint=False))
        outputs.append(build.assembled([(y, (ramp(0),))], (n,), dtype, disjoint=False))
        outputs.append(build.assembled([(y, (ramp(1, 3),)), (y * 2.0, (Affine(0, ((0, 1), (1, 3))),))], (3 * n,), dtype, disjoint=False))
        outputs.append(build.assembled([(y, (Affine(0, ((0, 1), (1, 1))),))], (n + 2,), dtype, disjoint=False))
    compare(outputs, inputs, 2)


def test_diagonals(lanes):
    x = new_input((20, 20), F8)
    v = new_input((20,), F8)
    diagonal = build.index_node(x, (20,), [ramp(0), ramp(0)])
    matrix = build.assembled([(v * 2.0, (ramp(0), ramp(0)))], (20, 20), F8, disjoint=True)
    above = build.assembled([(v, (ramp(0), ramp(0, 1, 1)))], (20, 21), F8, disjoint=True)
    compare([diagonal * 2.0, matrix, above, take_slice(matrix, 0, 19, 20, -1), matrix * x], [x, v])


def test_digits_that_are_no_mixed_radix(lanes):
    # Rows 3 i + 2 j with i < 2 and j < 3: every place once, but 4 = 0 * 3 + 2 * 2, not 1 * 3 + 1.
    x = new_input((2, 3), F8)
    for length in (8, 80):
        y = build.assembled([(x, (Affine(0, ((0, 3), (1, 2))),))], (length,), F8, disjoint=True)
        read = [build.index_node(y, (), [Affine(k)]) * 2.0 for k in range(8)]
        found = compare(read, [x])
        assert float(found[4]) != 0
        compare([*read, y, y * 2.0, take_slice(y, 0, 7, 8, -1) * 2.0], [x])


def test_reading_out_of_assembled_arrays(lanes):
    rng = np.random.default_rng(0)
    a, b = new_input((6, 5), F8), new_input((4, 5), F8)
    joined = concatenate([a * 2.0, b * 3.0], 0)
    padded = build.assembled([(joined * joined, (ramp(0, 1, 1), ramp(1, 1, 2)))], (13, 9), F8, disjoint=True)
    strided = build.assembled([(a * 2.0, (ramp(0, 2), ramp(1, 3, 1)))], (12, 15), F8, disjoint=True)
    merged = build.movement_reshape(joined * 2.0, (50,))
    outputs = [
        take_slice(joined, 0, 9, 10, -1) * 2.0,
        take_slice(joined, 0, 4, 4) * 2.0,
        take_slice(joined, 0, 6, 4) * 2.0,
        build.transpose(padded, (1, 0)) * 2.0,
        take_slice(padded, 1, 0, 2) * 2.0,
        take_slice(strided, 1, 1, 5, 3) * 2.0,
        take_slice(strided, 0, 1, 6, 2) * 2.0,
        strided * strided,
        build.movement_reshape(merged * 2.0, (5, 10)),
        build.movement_reshape(build.transpose(joined * 2.0, (1, 0)), (25, 2)),
        take_table(merged, 0, [int(i) for i in rng.integers(0, 50, size=70)]) * 2.0,
        take_slice(merged, 0, 49, 10, -5) * 2.0,
        build.index_node(build.zeros((4, 3), F8), (3, 4), [ramp(1), ramp(0)]) + 1.0,
    ]
    compare(outputs, [a, b])


# --- types and mixtures of steps ----------------------------------------------------------------------------------


def test_conversions(lanes):
    kinds = [F8, F4, I8, I4, BOOL, np.dtype("i2"), np.dtype("u1")]
    inputs = [new_input((n,), kind) for kind in kinds for n in (3, 70)]
    outputs = [op("cast", x, params=CastParams(kind)) for x in inputs for kind in kinds if kind != x.dtype]
    values = [np.abs(sample(x.shape, x.dtype, k)) for k, x in enumerate(inputs)]
    compare_at(outputs, inputs, values)


def test_comparisons_of_every_dtype(lanes):
    inputs, outputs = [], []
    for kind in (F8, F4, I8, I4, BOOL):
        a, b = new_input((70,), kind), new_input((70,), kind)
        inputs += [a, b]
        masks = [op(name, a, b) for name in ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")]
        outputs += [*masks, op("select", op("logical_or", masks[0], op("logical_not", masks[4])), a, b)]
        outputs += [op("logical_and", masks[0], masks[5]), op("logical_xor", masks[1], masks[2])]
    compare(outputs, inputs)


@pytest.mark.parametrize("kind", [BOOL, I8, I4], ids=str)
def test_arithmetic_that_is_not_on_floats(lanes, kind):
    # NumPy's own rules: booleans add by "or", integers wrap around.
    a, b = new_input((70,), kind), new_input((70,), kind)
    names = ["add", "multiply", "maximum", "minimum", "logical_and", "logical_or", "logical_xor"]
    outputs = [op(name, a, b) for name in names] + [op("logical_not", a), op("absolute", a)]
    if kind != BOOL:
        outputs += [op("subtract", a, b), op("negative", a), op("square", a), op("sign", a), op("floor_divide", a, a * a + 1)]
    big = [np.asarray(sample((70,), kind, k)) for k in range(2)]
    if kind != BOOL:
        big = [v * np.array(np.iinfo(kind).max // 60, dtype=kind) for v in big]
    compare_at(outputs, [a, b], big)


def test_logic_on_floats(lanes):
    a, b = new_input((70,), F8), new_input((70,), F8)
    outputs = [op(name, a, b) for name in ("logical_and", "logical_or", "logical_xor")]
    outputs += [op("logical_not", a), op("isnan", a), op("isinf", b), op("isfinite", a)]
    values = [np.resize(np.array(v), 70) for v in ([0.0, 1.0, np.nan, -0.0, np.inf], [0.0, 0.0, 2.0, np.nan, 5e-324, -np.inf, 1.0])]
    compare_at(outputs, [a, b], values)


def test_reductions(lanes):
    # A program for each shape: straight code in one large block takes LLVM long.
    for shape, axes in [((4,), (0,)), ((3, 70), (0,)), ((70, 3), (1,)), ((16, 9), (0,)), ((9, 17), (1,)), ((2, 3, 20), (0, 1)),
                        ((20, 2, 3), (1, 2)), ((5, 40), (0, 1)), ((3, 1, 40), (0, 2)), ((6, 6), ())]:  # fmt: skip
        x = new_input(shape, F8)
        mask = x > 0.0
        outputs = [op(name, x, params=AxesParams(axes)) for name in ("max", "min", "prod", "norm")]
        outputs += [op("any", mask, params=AxesParams(axes)), op("all", mask, params=AxesParams(axes))]
        outputs.append(build.sum_axes(x * x, axes))
        compare(outputs, [x], 8)
    x = new_input((9, 20), F8)
    outputs = [op("cumsum", x, params=AxisParams(k)) for k in (0, 1)]
    outputs += [op(name, x, params=AxisParams(k)) for k in (0, 1) for name in ("argmax", "argmin", "argsort")]
    compare(outputs, [x], 8)


@pytest.mark.parametrize("kind", [F4, I8, I4, BOOL], ids=str)
def test_reductions_of_other_dtypes(lanes, kind):
    x = new_input((20, 3), kind)
    names = ("max", "min", "any", "all") if kind == BOOL else ("max", "min", "prod", "any", "all")
    outputs = [op(name, x, params=AxesParams(axes)) for name in names for axes in ((0,), (1,), (0, 1))]
    outputs += [op(name, x, params=AxisParams(0)) for name in ("argmax", "argmin", "argsort")]
    if kind != BOOL:
        outputs += [build.sum_axes(x, (1,)), op("cumsum", x, params=AxisParams(0))]
    compare(outputs, [x], 8)


def test_reductions_with_nan(lanes):
    x = new_input((20, 3), F8)
    value = sample((20, 3))
    value[3, 0] = value[5, 2] = value[19, 1] = np.nan
    outputs = [op(name, x, params=AxesParams((1,))) for name in ("max", "min", "prod", "norm")]
    compare_at(outputs, [x], [value])


def test_sums_with_no_terms(lanes):
    x, w = new_input((0,), F8), new_input((3, 0), F8)
    y = new_input((0, 70), F8)
    outputs = [
        total(x),
        build.contract_labels([(w, (0, 1)), (x, (1,))], (3, 0), (0,)),
        build.sum_axes(y, (0,)),
        op("prod", y, params=AxesParams((0,))),
        op("norm", y, params=AxesParams((0,))),
        op("any", y > 0.0, params=AxesParams((0,))),
        op("all", y > 0.0, params=AxesParams((0,))),
        build.sum_axes(y, (0,)) + 1.0,
    ]
    compare(outputs, [x, w, y])


@pytest.mark.parametrize("dtype", [F8, F4])
def test_small_contractions(lanes, dtype):
    inputs, outputs = [], []
    for i, j, k in [(1, 1, 1), (2, 3, 4), (3, 2, 1), (5, 16, 5), (40, 3, 2), (2, 3, 40), (70, 9, 9), (4, 17, 3), (9, 8, 8)]:
        a, b = new_input((i, j), dtype), new_input((j, k), dtype)
        inputs += [a, b]
        outputs += [matmul(a * 2.0, b), build.transpose(matmul(a, b), (1, 0)) + 1.0]
    batch, w = new_input((30, 2, 3), dtype), new_input((30, 3, 4), dtype)
    inputs += [batch, w]
    outputs.append(build.contract_labels([(batch, (0, 1, 2)), (w, (0, 2, 3))], (30, 2, 3, 4), (3, 0, 1)))
    outputs.append(build.contract_labels([(batch, (0, 1, 2)), (w, (0, 2, 3))], (30, 2, 3, 4), (0,)))
    program = Program(tuple(inputs), tuple(outputs))
    values = [sample(x.shape, x.dtype, k) for k, x in enumerate(inputs)]
    for one, other in zip(compile_native(program)(values), compile_numpy(program)(values), strict=True):
        close(one, other, 1e-14 if dtype == F8 else 1e-5)


def test_blas_in_the_middle(lanes):
    # loop, matrix product, loop, matrix product of the result transposed, loop; and the Jacobian of it all
    rng = np.random.default_rng(0)
    x = new_input((30, 25), F8)
    w = build.constant_array(rng.normal(size=(25, 40)) * 0.1)
    h = op("tanh", matmul(op("sin", x), w))
    g = op("exp", matmul(build.transpose(h, (1, 0)) * 0.1, x) * 0.1)
    picked = take_table(g, 0, [5, 0, 39, 5]) + 1.0
    jacobian = dense_jacobians([total(g)], [x])[0][0]
    outputs = [h, g, picked, jacobian, total(g * g)]
    values = [sample((30, 25))]
    expected = interpret(outputs, {x: values[0]})
    for run in (compile_numpy, compile_native):
        for one, other in zip(run(Program((x,), tuple(outputs)))(values), expected, strict=True):
            close(one, other, 1e-13)


def test_many_levels(lanes):
    # Each level reads the one before by a table, so that nothing can be fused into one kernel.
    rng = np.random.default_rng(0)
    x = new_input((70,), F8)
    y, kept = x, []
    for _ in range(6):
        y = op("cumsum", y * 0.5, params=AxisParams(0)) * 0.1
        y = take_table(y, 0, [int(i) for i in rng.permutation(70)])
        kept.append(y)
    compare([*kept, total(y)], [x], 16)


def test_jobs_with_and_without_a_result_between(lanes):
    # Two results with the same loops, one computed from the other, both stored.
    x = new_input((5, 40), F8)
    a = x * 3.0
    b = a * a - x
    c = op("exp", b * 0.001)
    compare([a, b, take_slice(b, 0, 4, 5, -1) + a, a * 1.0], [x])
    compare([a, c, c + b, build.transpose(c, (1, 0))], [x], 4)


# --- interface ----------------------------------------------------------------------------------------------------


def test_results_are_the_callers_own():
    x, y = new_input((20, 3), F8), new_input((), F8)
    data = np.arange(60.0).reshape(20, 3)
    constant = build.constant_array(data)
    held = constant.params.owner.value()
    z = op("exp", x)
    outputs = [x, x, y, constant, constant, z, z, build.movement_reshape(z, (60,)), build.movement_reshape(x, (3, 20)),
               build.transpose(x, (1, 0)), take_slice(x, 0, 2, 5), build.broadcast_to(y, (4, 2)), build.full(1.5, (), F8),
               build.full(0.0, (20, 3), F8), build.zeros((20, 3), F8), build.zeros((20, 3), F8), z * x,
               op("cumsum", x, params=AxisParams(0)), op("max", x, params=AxesParams(())),
               build.movement_reshape(constant, (60,)), take_slice(constant, 0, 0, 20)]  # fmt: skip
    check_ownership(outputs, [x, y], [data, held])
    check_ownership(outputs[::-1], [x, y], [data, held])
    for out in outputs:
        check_ownership([out], [x, y], [data, held])


@pytest.mark.parametrize("kind", ["i2", "u1", "f8", "i8", "?"])
def test_results_of_other_dtypes_are_the_callers_own(kind):
    # Steps that NumPy does: views of one result must not be another result.
    x = new_input((4, 6), np.dtype(kind))
    y = op("maximum", x, take_slice(x, 0, 3, 4, -1))
    outputs = [y, build.movement_reshape(y, (24,)), build.movement_reshape(y, (8, 3)), build.transpose(y, (1, 0)),
               take_slice(y, 0, 0, 2), x, build.movement_reshape(x, (24,)), take_slice(y, 0, 0, 4)]  # fmt: skip
    check_ownership(outputs, [x])
    check_ownership(outputs[::-1], [x])
    compare(outputs, [x])


def test_results_of_one_kernel_alone():
    # The shortest way in: one kernel, fresh results, tables.
    x, w = new_input((40,), F8), new_input((40,), F8)
    rng = np.random.default_rng(0)
    for outputs in ([x * w], [w * 2.0, x * w], [take_table(x, 0, rng.permutation(40)) * 2.0, x - w]):
        check_ownership(outputs, [x, w])
        compare(outputs, [x, w])
        compare(outputs, [w, x])


def test_unused_inputs_and_results_without_work():
    x, unused, s = new_input((5,), F8), new_input((3,), F8), new_input((), F8)
    compare([x * 2.0], [unused, x, s])
    compare([x], [unused, x, s])
    compare([], [x])
    compare([build.full(3.0, (4,), F8)], [])
    compare([build.full(3.0, (), F8)], [x])


class Owner:
    """A captured array that its owner may replace or write into."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def value(self) -> Array:
        return self.array


@pytest.mark.parametrize("make", [lambda a: a, np.asfortranarray, lambda a: np.repeat(a, 2, axis=1)[:, ::2]])
def test_constants_are_read_at_every_call(make):
    x = new_input((5, 20), F8)
    owner = Owner(make(sample((5, 20))))
    captured = build.constant(owner, (5, 20), F8)
    outputs = [x * captured, matmul(captured, build.transpose(captured, (1, 0))), captured]
    program = Program((x,), tuple(outputs))
    runs = [compile_numpy(program), compile_native(program)]
    value = sample((5, 20), seed=3)
    for change in (None, "content", "array"):
        if change == "content":
            owner.array[2] += 1.0
        elif change == "array":
            owner.array = make(sample((5, 20), seed=9))
        for run in runs:
            a, b, c = run([value])
            assert np.array_equal(a, value * owner.array)
            close(b, owner.array @ owner.array.T, 1e-14)
            assert np.array_equal(c, owner.array)
            assert not np.may_share_memory(c, owner.array)
            assert c.flags.c_contiguous


def test_eight_threads_share_one_program():
    x, w = new_input((400, 30), F8), new_input((30, 30), F8)
    y = op("tanh", op("sin", x) * 2.0)
    z = op("exp", matmul(y, w) * 0.01)
    scattered = build.assembled([(z, (table(np.arange(400) % 7, 0), ramp(1)))], (7, 30), F8, disjoint=False)
    (jacobian,) = dense_jacobians([total(z)], [w])[0]
    program = Program((x, w), (y, z, scattered, jacobian))
    arguments = [[sample((400, 30), seed=k), sample((30, 30), seed=k + 50)] for k in range(8)]
    for compiler in (compile_numpy, compile_native):
        run = compiler(program)
        expected = [[v.tobytes() for v in run(a)] for a in arguments]
        barrier = threading.Barrier(8)

        def work(k: int, run: Any = run, barrier: Any = barrier, expected: Any = expected) -> int:
            barrier.wait()
            return sum([v.tobytes() for v in run(arguments[k])] == expected[k] for _ in range(12))

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == [12] * 8


def test_threads_compile_at_the_same_time():
    def work(k: int) -> bool:
        x = new_input((30 + k,), F8)
        y = x * (k + 1.0)
        value = sample((30 + k,))
        return bool(np.array_equal(compile_native(Program((x,), (y,)))([value])[0], value * (k + 1.0)))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_deep_programs_need_no_recursion():
    x = new_input((70,), F8)
    y = x
    for k in range(1500):
        y = y * 0.999 + (0.001 if k % 2 else -0.001)
    compare([y], [x])


@examples(60)
@given(programs(), st.booleans())
def test_random_programs(program, four):
    target = machine()
    before = target.lanes
    target.lanes = 4 if four else before
    try:
        run = compile_native(Program(tuple(program.inputs), tuple(program.outputs)))
        first, second = run(program.values), run(program.values)
        for one, other, want in zip(first, second, interpret(program.outputs, program.known), strict=True):
            assert one.tobytes() == other.tobytes()
            close(one, want, 1e-12)
    finally:
        target.lanes = before


@st.composite
def large_programs(draw: Any) -> tuple[list[Node], list[Node]]:
    """Movements over arrays long enough for vector loops."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def among(*options: Any) -> Any:
        return options[int(rng.integers(len(options)))]

    dtype = among(F8, F8, F4)
    shapes = [(70,), (9, 17), (17, 9), (5, 4, 8), (33, 3), (3, 33), (2, 41), (64,), (12, 12)]
    inputs = [new_input(among(*shapes), dtype) for _ in range(2)]
    pool = list(inputs)
    for _ in range(draw(st.integers(1, 7))):
        x = among(*pool, pool[-1], pool[-1])
        k = int(rng.integers(x.ndim)) if x.ndim else 0
        if x.ndim == 0:
            x = build.broadcast_to(x, (19, 4))
        n = x.shape[k]
        step = int(rng.integers(1, 4))
        start = int(rng.integers(0, max(1, n // 2)))
        new = among(
            lambda x=x: x * x,
            lambda x=x: x * 0.5 - 1.0,
            lambda x=x: op("select", x > 0.0, x, -x),
            lambda x=x: op("maximum", x, take_slice(x, k, n - 1, n, -1)),
            lambda x=x: take_slice(x, k, start, max(1, (n - start) // step), step),
            lambda x=x: take_table(x, k, [int(i) for i in rng.integers(0, n, size=int(rng.integers(1, 40)))]),
            lambda x=x: build.transpose(x, [int(a) for a in rng.permutation(x.ndim)]),
            lambda x=x: build.movement_reshape(x, (x.size,)),
            lambda x=x: build.movement_reshape(x, among((2, x.size // 2), (x.size // 2, 2)) if x.size % 2 == 0 else (1, x.size)),
            lambda x=x: build.movement_reshape(x, (x.size // 3, 3) if x.size % 3 == 0 else (x.size, 1)),
            lambda x=x: concatenate([x, x * 2.0], k),
            lambda x=x: concatenate([take_slice(x, k, n - 1, 1), x * 2.0, take_slice(x, k, 0, 1)], k),
            lambda x=x: build.assembled(
                [(x, tuple(ramp(j, step, start) if j == k else ramp(j) for j in range(x.ndim)))],
                tuple(start + step * m if j == k else m for j, m in enumerate(x.shape)),
                x.dtype,
                disjoint=True,
            ),
            lambda x=x: build.assembled(
                [(x * (j + 1.0), tuple(ramp(a, 3, j) if a == k else ramp(a) for a in range(x.ndim))) for j in range(3)],
                tuple(3 * m if j == k else m for j, m in enumerate(x.shape)),
                x.dtype,
                disjoint=True,
            ),
            lambda x=x: build.assembled(
                [(x, tuple(table(rng.permutation(n + 3)[:n], j) if j == k else ramp(j) for j in range(x.ndim)))],
                tuple(n + 3 if j == k else m for j, m in enumerate(x.shape)),
                x.dtype,
                disjoint=True,
            ),
            lambda x=x: op("max", x, params=AxesParams((k,))),
            lambda x=x: build.broadcast_to(x, (3, *x.shape)) if x.ndim < 3 else -x,
        )()
        if new.size > 700:
            new = take_slice(build.movement_reshape(new, (new.size,)), 0, 1, new.size // 7, 5)
        pool.append(new)
    return inputs, [pool[-1], *(among(*pool) for _ in range(int(rng.integers(0, 3))))]


@examples(70)
@given(large_programs(), st.booleans())
def test_random_movements_bit_for_bit(case, four):
    inputs, outputs = case
    target = machine()
    before = target.lanes
    target.lanes = 4 if four else before
    try:
        values = {x: sample(x.shape, x.dtype, k) for k, x in enumerate(inputs)}
        for one, other in zip(compare(outputs, inputs), interpret(outputs, values, inputs[0].dtype), strict=True):
            assert one.tobytes() == np.ascontiguousarray(other).tobytes()
    finally:
        target.lanes = before


@examples(30)
@given(large_programs())
def test_sparse_jacobians_of_random_movements(case):
    inputs, outputs = case
    y = outputs[0]
    plans = [sparse_jacobian(y, x) for x in inputs]
    assert all(math.prod(p.shape) >= p.nnz for p in plans)
    compare([y, *(p.data for p in plans)], inputs, 4)
