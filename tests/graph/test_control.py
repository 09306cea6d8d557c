"""The records of loops, positions and custom operations by themselves: values, shapes, and what is run."""

from __future__ import annotations

import numpy as np
import pytest
from support import EXECUTORS, F4, F8, close, execute, op

import jacana as jc
from jacana.graph import REGISTRY, build
from jacana.graph.index import Affine
from jacana.graph.node import Node, new_input, topological
from jacana.graph.ops.control import Body, loop_nodes, make_body, result_slots
from jacana.graph.ops.custom import CustomParams, ProductParams
from jacana.graph.ops.position import AtParams
from jacana.plan.loops import lowered

INT = np.dtype(np.int64)


def recurrence(dtype: np.dtype = F8) -> Body:
    """``c, n = a * c + x, n + k`` with output ``c * c``; the stack k and the carry n are integers."""
    step, n, k = (new_input((), INT) for _ in range(3))
    c, x = new_input((3,), dtype), new_input((3,), dtype)
    a = new_input((), dtype)
    following = build.broadcast_to(a, (3,)) * c + x
    return make_body(step, [c, n], [x, k], [a], [following, op("add", n, k)], [c * c, op("add", n, step)])


def run(executor: str, length: int, reverse: bool, dtype: np.dtype = F8):
    rng = np.random.default_rng(length)
    values = {
        new_input((3,), dtype): rng.normal(size=3).astype(dtype),
        new_input((), INT): np.array(7),
        new_input((length, 3), dtype): rng.normal(size=(length, 3)).astype(dtype),
        new_input((length,), INT): rng.integers(0, 9, length),
        new_input((), dtype): np.array(0.5, dtype),
    }
    c, n, x, k, a = values
    found = loop_nodes(recurrence(dtype), length, reverse, [c, n], [x, k], [a])
    nodes = [*found.finals, *found.befores, *found.outputs]
    return list(values.values()), execute(executor, nodes, values)


@pytest.mark.parametrize("dtype", [F8, F4])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 1, 2, 5])
@pytest.mark.parametrize("executor", EXECUTORS)
def test_every_result_of_a_loop(executor, length, reverse, dtype):
    (c, n, x, k, a), found = run(executor, length, reverse, dtype)
    before = [np.zeros((length, 3)), np.zeros(length), np.zeros((length, 3)), np.zeros(length)]
    for t in range(length)[:: -1 if reverse else 1]:
        before[0][t], before[1][t], before[2][t], before[3][t] = c, n, c * c, n + t
        c, n = a * c + x[t], n + k[t]
    for have, want in zip(found, [c, n, *before], strict=True):
        close(have, np.asarray(want), 1e-14 if dtype == F8 else 1e-6)
    assert [v.dtype for v in found] == [dtype, INT, dtype, INT, dtype, INT]


def test_equal_bodies_are_equal():
    assert recurrence() == recurrence()
    assert recurrence() != recurrence(F4)


def test_only_what_is_read_is_run():
    body = recurrence()
    given = [new_input((3,), F8), new_input((), INT), new_input((4, 3), F8), new_input((4,), INT), new_input((), F8)]
    found = loop_nodes(body, 4, False, given[:2], given[2:4], given[4:])
    (node,) = (n for n in topological(lowered([found.finals[1]])) if n.op.name == "loop_run")
    assert len(node.params.body.carries) == 1 and node.inputs == (given[1], given[3])
    assert node.params.befores == () and node.params.body.outputs == ()
    every = topological(lowered([*found.finals, *found.outputs]))
    assert sum(n.op.name == "loop_run" for n in every) == 1  # floats and integers come out of one run
    assert not any(n.op.name in ("loop", "assemble") for n in every)  # and nothing is packed


@pytest.mark.parametrize("executor", EXECUTORS)
def test_other_readers_of_a_packed_result(executor):
    # Reads across slots, and of the whole vector, are rare but right.
    body = recurrence()
    values = [np.arange(3.0), np.array(1), np.ones((2, 3)), np.array([1, 2]), np.array(2.0)]
    given = [new_input(v.shape, v.dtype) for v in values]
    packed = loop_nodes(body, 2, False, given[:2], given[2:4], given[4:]).finals[0].inputs[0]
    assert packed.op.name == "loop"
    every = build.index_node(packed, packed.shape, (Affine(packed.size - 1, ((0, -1),)),))
    found = execute(executor, [every * 2.0, packed], dict(zip(given, values, strict=True)))
    slots = result_slots(packed.params)
    assert [s.kind for s in slots] == ["final", "before", "output"]
    want = np.concatenate([[3, 7, 11], [0, 1, 2, 1, 3, 5], [0, 1, 4, 1, 9, 25]])
    np.testing.assert_array_equal(found[0], 2 * want[::-1])
    np.testing.assert_array_equal(found[1], want)
    ints = [*values[1:2], values[3]]
    direct = packed.op.evaluate(packed.params, np.concatenate([values[0], values[2].ravel(), [2.0]]), np.hstack(ints))
    np.testing.assert_array_equal(direct, want)


def _call() -> tuple[Node, Node, CustomParams]:
    rules = jc.custom_operation(lambda x: np.array([x[0] * x[1], x[1]]), partials=lambda x: [[x[1], x[0]], [0, 1]])
    x = new_input((2,), F8)
    params = CustomParams(rules, (((2,), F8),), ((2,),), F8, (0,))
    return x, op("custom", x, params=params), params


@pytest.mark.parametrize("executor", EXECUTORS)
def test_custom_records(executor):
    x, node, params = _call()
    partials = op("custom_partials", x, params=params)
    known = {x: np.array([2.0, 5.0])}
    found = execute(executor, [node, partials], known)
    np.testing.assert_array_equal(found[0], [10, 5])
    np.testing.assert_array_equal(found[1], [5, 2, 0, 1])
    linear = jc.custom_operation(lambda x: x[::2] * 1.0, vjp=lambda a, c: np.array([c[0], 0.0, c[1]]))
    call = CustomParams(linear, (((3,), F8),), ((2,),), F8, ())
    vectors, at = new_input((2, 2), F8), new_input((3,), F8)
    product = op("custom_product", vectors, at, params=ProductParams(call, True))
    known = {vectors: np.arange(4.0).reshape(2, 2), at: np.ones(3)}
    np.testing.assert_array_equal(execute(executor, [product], known)[0], [[0, 1], [0, 0], [2, 3]])


@pytest.mark.parametrize("k", [0, 2, -1])
@pytest.mark.parametrize("executor", EXECUTORS)
def test_positions(executor, k):
    x, start, part = new_input((3, 4), F8), new_input((), INT), new_input((2,), F8)
    params = AtParams((2,), (3, 4), (Affine(0), Affine(1, ((0, 2),))), (0,))  # x[k, 1::2]
    value = np.arange(12.0).reshape(3, 4)
    known = {x: value, start: np.array(k), part: np.array([-1.0, -2.0])}
    nodes = [op("read_at", x, start, params=params), op("write_at", part, start, params=params)]
    found = execute(executor, nodes, known)
    np.testing.assert_array_equal(found[0], value[k, 1::2])
    want = np.zeros((3, 4))
    want[k, 1::2] = -1, -2
    np.testing.assert_array_equal(found[1], want)
    with pytest.raises(IndexError, match="index 3 is out of bounds for axis 0 with size 3"):
        execute(executor, nodes[:1], {**known, start: np.array(3)})


def test_every_record_is_here():
    control = {name for name, record in REGISTRY.items() if record.family == "control"}
    assert control == {
        "loop", "loop_run", "loop_part", "custom", "custom_partials", "custom_product", "implicit", "implicit_solve",
        "implicit_reciprocal", "implicit_batch", "implicit_systems", "integral",
        "integral_batch", "ode", "ode_batch", "read_at", "write_at",
    }  # fmt: skip
