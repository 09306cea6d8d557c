"""Reductions as loops: every shape and axis, accuracy, special values, and an order that only the program sets."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from native_helpers import compare, compare_at, sample
from support import BOOL, F4, F8, op, take_slice

from jacana.graph import build
from jacana.graph.node import new_input
from jacana.graph.ops.contraction import ContractParams, contract
from jacana.graph.ops.reduction import AxesParams, norm, prod, reduce_all, reduce_any, reduce_max, reduce_min
from jacana.plan import Call, Group, plan_native
from jacana.run import Program, native_available

if native_available():
    from jacana.run.native import compile_native

pytestmark = pytest.mark.skipif(not native_available(), reason="llvmlite is not installed")

SHAPES = [(17,), (1000,), (20_011,), (20, 33), (700, 70), (3, 5000), (5000, 3), (40, 7, 30), (2, 3, 900), (300, 40, 5)]


def subsets(rank):
    return [tuple(k for k in range(rank) if mask >> k & 1) for mask in range(1, 2**rank)]


def calls(outputs):
    return [step.node.op.name for step in plan_native(outputs).steps if isinstance(step, Call)]


@pytest.mark.parametrize("shape", SHAPES)
def test_extrema_of_every_axis(lanes, shape):
    x = new_input(shape, F8)
    outputs = []
    for axes in subsets(len(shape)):
        outputs += [f(x * 2.0, params=AxesParams(axes)) for f in (reduce_max, reduce_min)]
    compare(outputs, [x])


@pytest.mark.parametrize("dtype", [F8, F4], ids=["double", "single"])
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_of_every_axis(lanes, shape, dtype):
    x, y = new_input(shape, dtype), new_input(shape[-1:], dtype)
    outputs, exact = [], []
    values = [np.abs(sample(shape, dtype, 1)), sample(shape[-1:], dtype, 2)]
    for axes in subsets(len(shape)):
        outputs += [build.sum_axes(x * x, axes), norm(x, params=AxesParams(axes))]
        wide = values[0].astype(np.longdouble)
        exact += [np.sum(wide * wide, axis=axes), np.sqrt(np.sum(wide * wide, axis=axes))]
    labels = tuple(range(len(shape)))
    outputs.append(contract(x, y, params=ContractParams(shape, (labels, labels[-1:]), labels[:-1])))
    exact.append(values[0].astype(np.longdouble) @ values[1].astype(np.longdouble))
    found = compile_native(Program((x, y), tuple(outputs)))(values)
    for one, other in zip(found, exact, strict=True):
        # Of sums of positive numbers: units in the last place, far fewer than there are numbers.
        scale = np.abs(values[0]).astype(np.longdouble) @ np.abs(values[1]) if one is found[-1] else np.abs(other)
        assert np.all(np.abs(one - other) <= 40 * np.finfo(dtype).eps * scale)


@pytest.mark.parametrize("n", [100, 4099, 100_003])
def test_as_accurate_as_pairwise_summation(n):
    x = new_input((n,), F8)
    run = compile_native(Program((x,), (build.sum_axes(x, (0,)),)))
    rng = np.random.default_rng(5)
    ours, numpys = [], []
    for _ in range(40):
        values = rng.random(n)
        exact = sum(map(Fraction, values.tolist()), Fraction(0))
        ours.append(abs(Fraction(float(run([values])[0])) - exact))
        numpys.append(abs(Fraction(float(np.sum(values))) - exact))
    assert sum(ours) <= 2 * sum(numpys)


def test_the_order_of_additions_does_not_depend_on_the_lanes(monkeypatch):
    from jacana.run.native.engine import machine

    x, w = new_input((501, 77), F8), new_input((77,), F8)
    long = new_input((70_001,), F8)
    outputs = [build.sum_axes(x, axes) for axes in subsets(2)]
    outputs += [contract(x, w, params=ContractParams((501, 77), ((0, 1), (1,)), (0,)))]
    outputs += [build.sum_axes(long, (0,)), build.sum_axes(op("square", op("square", long) + 1.0) / long, (0,))]
    values = [sample((501, 77)), sample((77,)), sample((70_001,))]
    answers = []
    for lanes in (8, 4):
        monkeypatch.setattr(machine(), "lanes", lanes)
        answers.append(compile_native(Program((x, w, long), tuple(outputs)))(values))
    for one, other in zip(*answers, strict=True):
        assert one.tobytes() == other.tobytes()


def test_products_and_logic(lanes):
    x, m = new_input((37, 90), F8), new_input((37, 90), BOOL)
    outputs = [f(m, params=AxesParams(axes)) for f in (reduce_all, reduce_any) for axes in subsets(2)]
    compare(outputs, [m])
    values = [1.0 + 0.01 * sample((37, 90))]
    found = compile_native(Program((x,), tuple(prod(x, params=AxesParams(a)) for a in subsets(2))))(values)
    for axes, one in zip(subsets(2), found, strict=True):
        np.testing.assert_allclose(one, np.prod(values[0], axis=axes), rtol=1e-12)
    for value in (False, True):
        compare_at(outputs, [m], [np.full((37, 90), value)])


@pytest.mark.parametrize("place", [0, 5, 31, 32, 95, 99])
@pytest.mark.parametrize("special", [math.nan, math.inf, -math.inf])
def test_special_values_go_through(lanes, special, place):
    x = new_input((3, 100), F8)
    every = AxesParams((1,))
    values = sample((3, 100))
    values[1, place] = special
    compare_at([reduce_max(x, params=every), reduce_min(x, params=every)], [x], [values])
    found = compile_native(Program((x,), (build.sum_axes(x, (1,)), prod(x, params=every))))([values])
    expected = [np.sum(values, axis=1), np.prod(values, axis=1)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one[1], other[1])
        np.testing.assert_allclose(one, other, rtol=1e-13)


def test_infinities_of_both_signs_and_zeros():
    x = new_input((40,), F8)
    run = compile_native(Program((x,), (build.sum_axes(x, (0,)),)))
    both = np.zeros(40)
    both[3], both[39] = np.inf, -np.inf
    assert math.isnan(float(run([both])[0]))
    assert float(run([np.zeros(40)])[0]) == 0.0


def test_values_of_a_sum_and_of_an_array_are_computed_in_one_kernel():
    x = new_input((100_000,), F8)
    e = op("exp", x)
    plan = plan_native([e, build.sum_axes(e, (0,))])
    first = plan.steps[0]
    assert isinstance(first, Group) and len(first.kernels) == 1 and len(first.kernels[0].jobs) == 2
    compare([op("exp", x), reduce_max(op("exp", x), params=AxesParams((0,)))], [x], ulps=4)


def test_row_wise_softmax_is_one_group():
    x = new_input((4096, 100), F8)
    spread = lambda y: build.broadcast_axes(y, x.shape, (0,))  # noqa: E731
    e = op("exp", x - spread(reduce_max(x, params=AxesParams((1,)))))
    y = e / spread(build.sum_axes(e, (1,)))
    plan = plan_native([y])
    assert len(plan.steps) == 1 and isinstance(plan.steps[0], Group) and plan.steps[0].tiles > 1
    values = sample(x.shape)
    (found,) = compile_native(Program((x,), (y,)))([values])
    wanted = np.exp(values - values.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found, wanted / wanted.sum(axis=1, keepdims=True), rtol=1e-14)


def test_matrix_products_stay_with_blas():
    a, b = new_input((200, 100), F8), new_input((100, 150), F8)
    params = ContractParams((200, 100, 150), ((0, 1), (1, 2)), (0, 2))
    assert calls([contract(a, b, params=params)]) == ["contract"]
    v = new_input((100,), F8)
    assert calls([contract(a, v, params=ContractParams((200, 100), ((0, 1), (1,)), (0,)))]) == []


def test_sums_of_moved_operands(lanes):
    x = new_input((60, 50), F8)
    t = build.transpose(x, (1, 0))
    part = take_slice(take_slice(x, 0, 3, 50), 1, 49, 45, -1)
    outputs = [build.sum_axes(y, axes) for y in (t, part) for axes in subsets(2)]
    values = [np.abs(sample(x.shape))]
    found = compile_native(Program((x,), tuple(outputs)))(values)
    moved = [values[0].T, values[0][3:53, 49:4:-1]]
    expected = [np.sum(y, axis=axes) for y in moved for axes in subsets(2)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-14)
