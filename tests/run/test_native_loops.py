"""Machine code against NumPy: loops, strides, tables, interleaved and added stores, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from native_helpers import I4, I8, compare
from support import (
    BOOL,
    F4,
    F8,
    concatenate,
    op,
    ramp,
    table,
    take_slice,
    take_table,
    total,
)

from jacana.graph import build
from jacana.graph.index import Affine
from jacana.graph.node import new_input
from jacana.run import native_available

pytestmark = pytest.mark.skipif(not native_available(), reason="llvmlite is not installed")

SIZES = (1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 100, 1000)


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
    outputs = [
        x * build.broadcast_to(s, (20,)),
        s * s,
        e * e,
        f + f,
        total(e),
        build.zeros((2, 3), F8),
        build.zeros((0,), F8),
    ]
    outputs += [build.full(2.5, (70,), F8), build.full(1.5, (), F8), build.full(True, (2, 3), BOOL)]
    compare(outputs, [x, s, e, f])


@pytest.mark.parametrize("dtype", [F8, F4])
def test_strided_reads(lanes, dtype):
    inputs, outputs = [], []
    for stride in range(2, 18):
        for count in (8, 70) if stride % 2 else (17,):
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
        build.assembled(
            [(x, (table(np.random.default_rng(0).permutation(30)[:21], 0), ramp(1)))], (30, 6), x.dtype, disjoint=True
        ),
    ]
    compare(outputs, [x])


@pytest.mark.parametrize(("dtype", "start"), [(F8, 0), (F8, 1), (F4, 1)])
def test_interleaved_stores(lanes, dtype, start):
    # What CSR data looks like: k entries a row, and sometimes a gap; values come from separate arrays.
    inputs, outputs = [], []
    for entries in (2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 17, 30):
        for gap in (0, 1):
            count = 67 if entries > 8 else 37
            x = new_input((count,), dtype)
            inputs.append(x)
            width = entries + gap
            parts = [(x * (1.0 + k), (ramp(0, width, start + k),)) for k in range(entries)]
            outputs.append(build.assembled(parts, (start + width * count,), x.dtype, disjoint=True))
    compare(outputs, inputs)


def test_stores_against_the_direction_of_the_loop(lanes):
    x = new_input((70,), F8)
    outputs = []
    for width in (1, 2, 3, 4, 7):
        parts = [(x * (1.0 + k), (ramp(0, -width, width * 69 + k),)) for k in range(width)]
        outputs.append(build.assembled(parts, (width * 70,), F8, disjoint=True))
        outputs.append(build.assembled(parts[:1], (width * 70,), F8, disjoint=True))
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
        chosen = [0, 12, *map(int, rng.integers(0, 13, size=67)), 12]
        rows = take_table(x, 0, chosen)
        outputs.append(rows * rows)
        single = [build.index_node(rows, (70,), [ramp(0), Affine(k)]) for k in {0, width // 2, width - 1}]
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
        rows = take_table(part, 0, [0, 11, *map(int, rng.integers(0, 12, size=67)), 11])
        outputs.append(rows * 2.0)
        doubled = take_slice(x, 0, 1, 7, 2)
        outputs.append(take_table(doubled, 0, [0, 6, *map(int, rng.integers(0, 7, size=22))]) * 3.0)
        last = build.index_node(rows, (70,), [ramp(0), Affine(width - 1)])
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
    picked = build.index_node(
        grid * grid, (79,), [table(rng.integers(0, 7, size=79)), table(rng.integers(0, 11, size=79))]
    )
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
        build.assembled(
            [(y, (table(often, 0),)), (take_slice(y, 0, 3, 4), (ramp(0),))], (count,), kind, disjoint=False
        ),
        build.assembled(
            [(take_slice(y, 0, 0, 5), (ramp(0),)), (take_slice(y, 0, 3, 4), (ramp(0),))], (count,), kind, disjoint=False
        ),
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
        outputs.append(
            build.assembled([(part, often), (part, often), (part * 2.0, often)], (n + 3,), F8, disjoint=False)
        )
        outputs.append(
            build.assembled([(part, rows), (part, (ramp(0),)), (part, (ramp(0, -1, n),))], (n + 3,), F8, disjoint=False)
        )
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
        outputs.append(
            build.assembled(
                [first, (x, (ramp(0, 2),)), (x, (ramp(0, -2, 2 * n),))], (2 * n + 1,), dtype, disjoint=False
            )
        )
        outputs.append(build.assembled([(y, (ramp(1),))], (n,), dtype, disjoint=False))
        outputs.append(build.assembled([(y, (ramp(0),))], (n,), dtype, disjoint=False))
        outputs.append(
            build.assembled(
                [(y, (ramp(1, 3),)), (y * 2.0, (Affine(0, ((0, 1), (1, 3))),))], (3 * n,), dtype, disjoint=False
            )
        )
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


GUARDED = '''
import ctypes, mmap, sys
import numpy as np
sys.path[:0] = {path!r}
from native_helpers import sample
from support import F4, F8, concatenate, op, ramp, table, take_slice, take_table
from jacana.graph import build
from jacana.graph.index import Affine
from jacana.graph.node import new_input
from jacana.run import Program, compile_numpy
from jacana.run.native import compile_native

libc = ctypes.CDLL(None, use_errno=True)
kept = []

def guarded(array, end):
    """A copy that ends (or begins) where a page begins (or ends) that nobody may read."""
    page = mmap.PAGESIZE
    size = -(-array.nbytes // page) * page
    memory = mmap.mmap(-1, size + 2 * page)
    kept.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for fence in (start, start + page + size):
        assert libc.mprotect(ctypes.c_void_p(fence), ctypes.c_size_t(page), 0) == 0
    offset = page + size - array.nbytes if end else page
    copy = np.frombuffer(memory, dtype=array.dtype, count=array.size, offset=offset).reshape(array.shape)
    copy[...] = array
    return copy

inputs, outputs = [], []
for dtype in (F8, F4):
    for stride in (2, 3, 4, 7, 9, 16, 17):
        count = 70
        for length in (stride * (count - 1) + 1, stride * count - 1, stride * count):
            x = new_input((length,), dtype)
            inputs.append(x)
            outputs.append(take_slice(x, 0, 0, count, stride) * 2.0)
            outputs.append(take_slice(x, 0, length - 1, count, -stride) * 2.0)
            if length > stride * (count - 1) + 1:
                outputs.append(take_slice(x, 0, 1, count, stride) * 3.0)
    for width in (1, 2, 3, 5, 8, 9, 15, 17):
        x = new_input((6, width), dtype)
        inputs.append(x)
        chosen = [5, 0, 5, 4, 3] * 14
        outputs.append(take_table(x, 0, chosen) * 2.0)
        outputs.append(take_table(take_slice(x, 0, 1, 5), 0, [4, 0, 4, 3, 3] * 14) * 2.0)
        outputs.append(build.index_node(x, (70,), [table(chosen, 0), Affine(width - 1)]) * 2.0)
    for length in (65, 70, 100):
        x = new_input((length,), dtype)
        inputs.append(x)
        outputs.append(x * x)
        outputs.append(take_slice(x, 0, length - 1, length, -1) + x)
        outputs.append(concatenate([take_slice(x, 0, length - 9, 9), x * 2.0], 0))
        parts = [(x * 2.0, (ramp(0),)), (x, (ramp(0, 1, 3),))]
        outputs.append(build.assembled(parts, (length + 3,), dtype, disjoint=False))
values = [sample(x.shape, x.dtype, k) for k, x in enumerate(inputs)]
program = Program(tuple(inputs), tuple(outputs))
expected = compile_numpy(program)(values)
run = compile_native(program)
for end in (True, False):
    for one, other in zip(run([guarded(v, end) for v in values]), expected, strict=True):
        assert one.tobytes() == other.tobytes()
print("as they should be")
'''


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="protects pages of memory")
def test_nothing_is_read_beyond_the_ends_of_an_argument():
    # In another process: what reads too far is killed there.
    here = Path(__file__).parent
    script = GUARDED.replace("{path!r}", repr([str(here), str(here.parent), *sys.path]))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout == "as they should be\n"


def test_many_added_parts_are_planned_in_two_passes(monkeypatch):
    # What each part computes gets a buffer of its own; finding them one at a time planned 61 times for a small graph.
    from jacana.plan import native_plan

    passes = []
    begin = native_plan._Planner.__init__
    monkeypatch.setattr(native_plan._Planner, "__init__", lambda self, *args: passes.append(1) or begin(self, *args))
    x = new_input((90,), F8)
    often = np.arange(90) * 7 % 70
    parts = [(op("sin", x * float(k)), (table(np.roll(often, k), 0),)) for k in range(1, 25)]
    added = build.assembled(parts, (70,), F8, disjoint=False)
    plan = native_plan.plan_native([added])
    assert len(passes) == 2
    assert plan.buffers == {added, *(part for part, _ in parts)}


def test_two_axes_longer_than_lanes_are_two_loops():
    # Written out, 32 points of such an axis took seconds to compile, for each of the diagonals of a stencil.
    from jacana.plan.native_plan import Kernel, plan_native

    x = new_input((32, 40), F8)
    (step,) = plan_native([op("sin", x) * x]).steps
    assert isinstance(step, Kernel)
    assert step.sizes == (32, 40)
    (step,) = plan_native([build.broadcast_to(x, (4, 32, 40)) * 2.0]).steps
    assert isinstance(step, Kernel)
    assert step.sizes == (32, 40)  # the short axis is written out
