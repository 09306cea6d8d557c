"""A batched program computes of each sample what the program of one sample does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import EXECUTORS, F8, close, examples, execute, interpret, op, programs
from test_records import ROWS, sample

from jacana.errors import UnsupportedOperationError
from jacana.graph import build
from jacana.graph.batching import batched
from jacana.graph.node import Operation, new_input


def check(outputs, known, which, count=3, tolerance=1e-12):
    """Batch the inputs at the places ``which``, and compare with one sample after another."""
    rng = np.random.default_rng(len(known))
    samples = {}
    for k, (x, value) in enumerate(known.items()):
        if k in which:
            scale = rng.uniform(0.8, 1.2, size=(count, *[1] * x.ndim)) if x.dtype.kind == "f" else np.ones(count, int)
            varied = value * scale if x.dtype.kind == "f" else np.stack([value] * count)
            samples[x] = np.asarray(varied, dtype=x.dtype)
        else:
            samples[x] = value
    new = {x: new_input(np.shape(samples[x]), x.dtype) for x in known}
    nodes = batched(outputs, new, count)
    one = [
        interpret(outputs, {x: samples[x][k] if j in which else samples[x] for j, x in enumerate(known)})
        for k in range(count)
    ]
    for name in EXECUTORS:
        found = execute(name, nodes, {new[x]: samples[x] for x in known})
        for j, (node, value) in enumerate(zip(outputs, found, strict=True)):
            assert value.shape == (count, *node.shape)
            assert value.dtype == node.dtype
            for k in range(count):
                if node.dtype.kind == "f":
                    close(value[k], one[k][j], tolerance, (name, node))
                else:
                    np.testing.assert_array_equal(value[k], one[k][j])


@examples(60)
@given(programs(), st.integers(1, 7))
def test_random_programs(program, mask):
    which = {k for k in range(len(program.inputs)) if mask >> k & 1}
    check(program.outputs, program.known, which)


RECORDS = [(name, k) for name, rows in ROWS.items() for k, row in enumerate(rows) if row.inputs]


@pytest.mark.parametrize(("name", "k"), RECORDS)
def test_every_record(name, k):
    row = ROWS[name][k]
    known = dict(zip(row.inputs, sample(row, 4), strict=True))
    for which in ({0}, set(range(len(known)))):
        check([row.node], known, which)


def test_what_no_sample_changes_is_replicated():
    x, y = new_input((2,), F8), new_input((3,), F8)
    nodes = batched([op("sin", y), y], {x: new_input((4, 2), F8), y: y}, 4)
    value = np.array([0.1, 0.2, 0.3])
    for found, want in zip(execute("numpy", nodes, {y: value}), (np.sin(value), value), strict=True):
        np.testing.assert_array_equal(found, np.broadcast_to(want, (4, 3)))


def test_an_operation_that_does_not_say_how_is_refused():
    unknown = Operation("sin", "reduction", lambda p, x: x, lambda p, x: (x.shape, x.dtype), lambda node: (None,))
    node = unknown(new_input((2,), F8), params=("axis", 0))
    with pytest.raises(UnsupportedOperationError, match="vmap: sin"):
        batched([node], {node.inputs[0]: new_input((3, 2), F8)}, 3)


def test_matrices_without_inputs_are_shared():
    from jacana.graph.ops.reduction import TriangleParams

    matrix, x = op("triangle", params=TriangleParams(4, F8)), new_input((4,), F8)
    y = op("multiply", x, build.contract_labels([(matrix, (0, 1))], (4, 4), (0,)))
    check([y], {x: np.arange(4.0)}, {0})
