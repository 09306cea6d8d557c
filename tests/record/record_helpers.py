"""A tiny interpreter of graphs, independent of the executors, and comparisons of recordings with NumPy itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jacana.graph import Node, topological
from jacana.graph.node import CONSTANT, INPUT, LITERAL, literal_array
from jacana.record import Recording, Variable, as_node, leaf_value, record


def evaluate(outputs: Sequence[Node], arguments: dict[Node, np.ndarray]) -> list[np.ndarray]:
    """The values of ``outputs``, node by node."""
    values: dict[Node, Any] = {}
    for node in topological(outputs):
        if node.op is INPUT:
            values[node] = arguments[node] if node in arguments else leaf_value(node)
        elif node.op is CONSTANT:
            values[node] = node.params.owner.value()
        elif node.op is LITERAL:
            values[node] = literal_array(node.params)
        else:
            values[node] = node.op.evaluate(node.params, *(values[i] for i in node.inputs))
        got = np.asarray(values[node])
        assert got.shape == node.shape, (node, got.shape)
        assert got.dtype == node.dtype, (node, got.dtype)
    return [np.asarray(values[node]) for node in outputs]


def flat(result: Any) -> list[Any]:
    """What a function returned, as a list of arrays and Variables."""
    if isinstance(result, (list, tuple)):
        return [item for part in result for item in flat(part)]
    return [result]


def guards_hold(recording: Recording, arguments: dict[Node, np.ndarray]) -> bool:
    """Whether every guarded node has its recorded value."""
    found = evaluate([node for node, _ in recording.guards], arguments)
    return all(np.array_equal(a, b) for a, (_, b) in zip(found, recording.guards, strict=True))


def check(
    function: Callable[..., Any], *values: Any, others: Sequence[Any] | None = None, rtol: float = 1e-12,
    exact: bool = True, constant: bool = False,
) -> Recording:  # fmt: skip
    """Record at ``values``; compare with plain NumPy there, and replay the graph at other values.

    Value, shape and dtype must be NumPy's own. The replay proves that nothing of the recorded numbers was baked in.
    """
    arrays = [np.asarray(v) for v in values]
    expected = flat(function(*[np.array(a, order="K") for a in arrays]))
    recording = record(function, arrays)
    got = flat(recording.result)
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        number = np.asarray(ours._value if isinstance(ours, Variable) else ours)
        theirs = np.asarray(theirs)
        assert number.shape == theirs.shape
        assert number.dtype == theirs.dtype, (number.dtype, theirs.dtype)
        if exact:
            np.testing.assert_array_equal(number, theirs)
        else:
            np.testing.assert_allclose(number, theirs, rtol=rtol)
        if isinstance(ours, Variable):
            node = as_node(ours)
            assert node.shape == theirs.shape
            assert node.dtype == theirs.dtype
            assert constant or ours._tracked() is not None, "the dependence on the arguments was lost"
        else:
            assert constant or theirs.dtype.kind != "f", "the dependence on the arguments was lost"
    replay(function, recording, arrays, rtol)
    if others is None:
        shift = np.random.default_rng(len(arrays))
        others = [a + shift.uniform(0.01, 0.3, a.shape).astype(a.dtype) if a.dtype.kind == "f" else a for a in arrays]
    replay(function, recording, [np.asarray(o) for o in others], rtol)
    return recording


def replay(function: Callable[..., Any], recording: Recording, arrays: Sequence[np.ndarray], rtol: float) -> None:
    """The recorded graph at ``arrays`` is what NumPy computes there, if the guards hold."""
    arguments = dict(zip(recording.inputs, arrays, strict=True))
    assert guards_hold(recording, arguments), recording.guards
    variables = [(k, v) for k, v in enumerate(flat(recording.result)) if isinstance(v, Variable)]
    found = evaluate([as_node(v) for _, v in variables], arguments)
    expected = flat(function(*[np.array(a, order="K") for a in arrays]))
    for (k, _), value in zip(variables, found, strict=True):
        scale = 1e-6 if value.dtype == np.float32 else rtol
        np.testing.assert_allclose(value, expected[k], rtol=scale, atol=scale)
