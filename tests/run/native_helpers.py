"""Running a program on both executors and comparing every bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from support import (
    BOOL,
    F8,
    Array,
)

from jacana.graph.node import Node
from jacana.plan import native_plan
from jacana.run import Program, compile_numpy, native_available

if native_available():
    from jacana.run.native import compile_native
    from jacana.run.native.engine import machine

I8, I4 = np.dtype("i8"), np.dtype("i4")


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


@contextmanager
def shapes_of_loops(lanes: int | None, straight: int, unroll: int) -> Iterator[None]:
    """Other numbers of lanes, and loops where the planner would write straight code."""
    target = machine()
    before = target.lanes, native_plan.STRAIGHT, native_plan.UNROLL
    target.lanes, native_plan.STRAIGHT, native_plan.UNROLL = lanes or before[0], straight, unroll  # type: ignore[misc]
    try:
        yield
    finally:
        target.lanes, native_plan.STRAIGHT, native_plan.UNROLL = before  # type: ignore[misc]
