"""Compiled programs as the caller sees them: whose the results are, constants, threads; and random programs."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from native_helpers import compare, sample, shapes_of_loops
from support import (
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
from jacana.graph.node import Node, new_input
from jacana.graph.ops.reduction import AxesParams, AxisParams
from jacana.run import Program, compile_numpy, native_available

pytestmark = pytest.mark.skipif(not native_available(), reason="llvmlite is not installed")
if native_available():
    from jacana.run.native import compile_native


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


def test_results_are_the_callers_own():
    x, y = new_input((20, 3), F8), new_input((), F8)
    data = np.arange(60.0).reshape(20, 3)
    constant = build.constant_array(data)
    held = constant.params.owner.value()
    z = op("exp", x)
    outputs = [x, x, y, constant, constant, z, z, z * x]
    outputs += [build.movement_reshape(node, shape) for node in (x, z, constant) for shape in ((60,), (3, 20))]
    outputs += [build.transpose(x, (1, 0)), take_slice(x, 0, 2, 5), take_slice(constant, 0, 0, 20)]
    outputs += [build.broadcast_to(y, (4, 2)), build.full(1.5, (), F8), build.full(0.0, (20, 3), F8)]
    outputs += [build.zeros((20, 3), F8), build.zeros((20, 3), F8)]
    outputs += [op("cumsum", x, params=AxisParams(0)), op("max", x, params=AxesParams(()))]
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


LOOPS = st.tuples(st.sampled_from([None, 4]), st.sampled_from([64, 7, 1]), st.sampled_from([48, 3]))


@examples(60)
@given(programs(), LOOPS)
def test_random_programs(program, loops):
    with shapes_of_loops(*loops):
        run = compile_native(Program(tuple(program.inputs), tuple(program.outputs)))
    first, second = run(program.values), run(program.values)
    for one, other, want in zip(first, second, interpret(program.outputs, program.known), strict=True):
        assert one.tobytes() == other.tobytes()
        close(one, want, 1e-12)


@examples(40)
@given(programs(steps=7), LOOPS)
def test_jacobians_of_random_programs(program, loops):
    found = dense_jacobians(program.outputs, program.inputs)
    nodes = [*(j for row in found for j in row)]
    nodes += [sparse_jacobian(program.outputs[0], x).data for x in program.inputs]
    with shapes_of_loops(*loops):
        run = compile_native(Program(tuple(program.inputs), tuple(nodes)))
    for one, want in zip(run(program.values), interpret(nodes, program.known), strict=True):
        close(one, want, 1e-12)


def _grow(x: Node, rng: np.random.Generator) -> Node:
    """One more node on top of ``x``: movements and arithmetic on arrays long enough for vector loops."""
    if x.ndim == 0:
        x = build.broadcast_to(x, (19, 4))
    k = int(rng.integers(x.ndim))
    n = x.shape[k]
    step = int(rng.integers(1, 4))
    start = int(rng.integers(0, max(1, n // 2)))

    def rows(e: Any) -> tuple[Any, ...]:
        return tuple(e if j == k else ramp(j) for j in range(x.ndim))

    def resized(m: int) -> tuple[int, ...]:
        return tuple(m if j == k else size for j, size in enumerate(x.shape))

    def half() -> Node:
        if x.size % 2:
            return build.movement_reshape(x, (1, x.size))
        return build.movement_reshape(x, (2, x.size // 2) if step > 1 else (x.size // 2, 2))

    def scattered() -> Node:
        places = table(rng.permutation(n + 3)[:n], k)
        return build.assembled([(x, rows(places))], resized(n + 3), x.dtype, disjoint=True)

    def interleaved() -> Node:
        parts = [(x * (j + 1.0), rows(ramp(k, 3, j))) for j in range(3)]
        return build.assembled(parts, resized(3 * n), x.dtype, disjoint=True)

    rules: list[Callable[[], Node]] = [
        lambda: x * x,
        lambda: x * 0.5 - 1.0,
        lambda: op("select", x > 0.0, x, -x),
        lambda: op("maximum", x, take_slice(x, k, n - 1, n, -1)),
        lambda: take_slice(x, k, start, max(1, (n - start) // step), step),
        lambda: take_table(x, k, [int(i) for i in rng.integers(0, n, size=int(rng.integers(1, 40)))]),
        lambda: build.transpose(x, [int(a) for a in rng.permutation(x.ndim)]),
        lambda: build.movement_reshape(x, (x.size,)),
        half,
        lambda: build.movement_reshape(x, (x.size // 3, 3) if x.size % 3 == 0 else (x.size, 1)),
        lambda: concatenate([x, x * 2.0], k),
        lambda: concatenate([take_slice(x, k, n - 1, 1), x * 2.0, take_slice(x, k, 0, 1)], k),
        lambda: build.assembled([(x, rows(ramp(k, step, start)))], resized(start + step * n), x.dtype, disjoint=True),
        interleaved,
        scattered,
        lambda: op("max", x, params=AxesParams((k,))),
        lambda: build.broadcast_to(x, (3, *x.shape)) if x.ndim < 3 else -x,
    ]
    return rules[int(rng.integers(len(rules)))]()


@st.composite
def large_programs(draw: Any) -> tuple[list[Node], list[Node]]:
    """Movements over arrays long enough for vector loops."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = [(70,), (9, 17), (17, 9), (5, 4, 8), (33, 3), (3, 33), (2, 41), (64,), (12, 12)]
    dtype = F4 if rng.random() < 0.3 else F8
    inputs = [new_input(shapes[int(rng.integers(len(shapes)))], dtype) for _ in range(2)]
    pool = list(inputs)
    for _ in range(draw(st.integers(1, 7))):
        among = [*pool, pool[-1], pool[-1]]
        new = _grow(among[int(rng.integers(len(among)))], rng)
        if new.size > 700:
            new = take_slice(build.movement_reshape(new, (new.size,)), 0, 1, new.size // 7, 5)
        pool.append(new)
    return inputs, [pool[-1], *(pool[int(rng.integers(len(pool)))] for _ in range(int(rng.integers(0, 3))))]


@examples(80)
@given(large_programs(), LOOPS)
def test_random_movements_bit_for_bit(case, loops):
    inputs, outputs = case
    values = {x: sample(x.shape, x.dtype, k) for k, x in enumerate(inputs)}
    with shapes_of_loops(*loops):
        found = compare(outputs, inputs)
    for one, other in zip(found, interpret(outputs, values, inputs[0].dtype), strict=True):
        assert one.tobytes() == np.ascontiguousarray(other).tobytes()


@examples(30)
@given(large_programs(), LOOPS)
def test_sparse_jacobians_of_random_movements(case, loops):
    inputs, outputs = case
    y = outputs[0]
    plans = [sparse_jacobian(y, x) for x in inputs]
    assert all(math.prod(p.shape) >= p.nnz for p in plans)
    with shapes_of_loops(*loops):
        compare([y, *(p.data for p in plans)], inputs, 4)
