"""Machine code against NumPy: dtypes, reductions, contractions, and programs of several steps."""

from __future__ import annotations

import numpy as np
import pytest
from native_helpers import I4, I8, compare, compare_at, sample
from support import (
    BOOL,
    F4,
    F8,
    close,
    execute,
    interpret,
    matmul,
    op,
    ramp,
    take_slice,
    take_table,
    total,
)

from jacana.differentiate import dense_jacobians
from jacana.graph import build
from jacana.graph.index import Affine, identity
from jacana.graph.node import new_input
from jacana.graph.ops.elementwise import CastParams
from jacana.graph.ops.reduction import AxesParams, AxisParams
from jacana.plan import native_plan, plan_native
from jacana.run import Program, compile_numpy, native_available

if native_available():
    from jacana.run.native import compile_native

pytestmark = pytest.mark.skipif(not native_available(), reason="llvmlite is not installed")


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
        outputs += [
            op("subtract", a, b),
            op("negative", a),
            op("square", a),
            op("sign", a),
            op("floor_divide", a, a * a + 1),
        ]
    big = [np.asarray(sample((70,), kind, k)) for k in range(2)]
    if kind != BOOL:
        big = [v * np.array(np.iinfo(kind).max // 60, dtype=kind) for v in big]
    compare_at(outputs, [a, b], big)


def test_logic_on_floats(lanes):
    a, b = new_input((70,), F8), new_input((70,), F8)
    outputs = [op(name, a, b) for name in ("logical_and", "logical_or", "logical_xor")]
    outputs += [op("logical_not", a), op("isnan", a), op("isinf", b), op("isfinite", a)]
    values = [
        np.resize(np.array(v), 70)
        for v in ([0.0, 1.0, np.nan, -0.0, np.inf], [0.0, 0.0, 2.0, np.nan, 5e-324, -np.inf, 1.0])
    ]
    compare_at(outputs, [a, b], values)


def test_reductions(lanes):
    # A program for each shape: straight code in one large block takes LLVM long.
    for shape, axes in (
        ((4,), (0,)),
        ((3, 70), (0,)),
        ((70, 3), (1,)),
        ((16, 9), (0,)),
        ((9, 17), (1,)),
        ((2, 3, 20), (0, 1)),
        ((20, 2, 3), (1, 2)),
        ((5, 40), (0, 1)),
        ((3, 1, 40), (0, 2)),
        ((6, 6), ()),
    ):
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


@pytest.mark.parametrize("name", ["tan", "cbrt", "exp", "power"])
def test_the_extremum_of_a_function_is_one_of_its_elements(lanes, name):
    # A function of a vector and of a scalar may differ in the last place: which element is the greatest, and which
    # elements share the derivative, must not depend on where each of them was computed.
    for shape in [(3, 5), (9, 8), (5, 16), (2, 33), (4, 5, 6)]:
        x = new_input(shape, F8)
        y = op("power", x, build.full(1.3, shape, F8)) if name == "power" else op(name, x * 0.5)
        y = y * op("sin", x)
        every = tuple(range(len(shape)))
        outputs, chosen = [], []
        for axes in ((0,), (len(shape) - 1,), every):
            for extremum in ("max", "min"):
                reduced = op(extremum, y, params=AxesParams(axes))
                (jacobian,) = dense_jacobians([reduced], [x])[0]
                spread = build.broadcast_axes(reduced, shape, tuple(k for k in every if k not in axes))
                chosen.append(build.sum_axes(op("cast", op("equal", y, spread), params=CastParams(F8)), every))
                chosen.append(build.sum_axes(op("cast", y >= spread, params=CastParams(F8)), every))
                outputs += [reduced, jacobian]
        rng = np.random.default_rng(0)
        value = rng.uniform(0.2, 1.4, size=shape)
        expected = interpret([*outputs, *chosen], {x: value})
        for one, other in zip(execute("native", outputs, {x: value}), expected, strict=False):
            close(one, other, 1e-13)
        found = execute("native", chosen, {x: value})
        for one, other in zip(found, expected[len(outputs) :], strict=True):
            assert float(one) == float(other)


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
    for i, j, k in [
        (1, 1, 1),
        (2, 3, 4),
        (3, 2, 1),
        (5, 16, 5),
        (40, 3, 2),
        (2, 3, 40),
        (70, 9, 9),
        (4, 17, 3),
        (9, 8, 8),
    ]:
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


def test_single_numbers_are_added_one_after_the_other_by_one_kernel(lanes):
    # 70 places, so that the array is not unrolled as a whole; two vectors in between keep their turn.
    x, y = new_input((40,), F8), new_input((70,), F8)
    picked = [build.index_node(x, (), [Affine(k)]) for k in range(40)]
    numbers = [op("sin", op("multiply", number, number)) for number in picked]
    singles = [(number, (Affine((7 * k) % 11),)) for k, number in enumerate(numbers)]
    vector = (y, identity(1))
    result = build.assembled([vector, *singles[:25], vector, *singles[25:], singles[0]], (70,), F8, disjoint=False)
    compare([result], [x, y])
    kernels = [k for step in plan_native([result]).steps for k in getattr(step, "kernels", [])]
    assert [len(k.jobs) for k in kernels if k.accumulate] == [1, 25, 1, 16]


def test_all_that_needs_a_buffer_is_found_at_once(monkeypatch):
    # Steps that each read the one before at neighbours: one look finds that each has to be stored.
    started = []
    original = native_plan.Planner.plan
    monkeypatch.setattr(native_plan.Planner, "plan", lambda self: started.append(1) or original(self))
    u = x = new_input((9, 11), F8)
    for _ in range(12):
        inner = op("add", take_slice(u, 0, 0, 7), take_slice(u, 0, 2, 7))
        parts = [(u, identity(2)), (inner, (ramp(0, 1, 1), ramp(1)))]
        u = op("sqrt", op("absolute", build.assembled(parts, (9, 11), F8, disjoint=False)))
    compare([u], [x])
    assert len(started) <= 4
