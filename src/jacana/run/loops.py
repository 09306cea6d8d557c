"""Loops run from Python: one call of the compiled body for each step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..graph.node import Array, Node
from ..graph.ops.control import Body, RunParams
from .program import Program, Runnable

Compile = Callable[[Program], Runnable]

OUT_OF_BOUNDS, SINGULAR, NOT_POSITIVE = 1, 2, 3
_FAILURES: dict[int, Callable[[], Exception]] = {
    OUT_OF_BOUNDS: lambda: IndexError("an index in the body of a loop is out of bounds"),
    SINGULAR: lambda: np.linalg.LinAlgError("Singular matrix"),
    NOT_POSITIVE: lambda: np.linalg.LinAlgError("Matrix is not positive definite"),
}


def raise_failure(status: Array) -> None:
    """What machine code says went wrong, as the error that NumPy would have raised."""
    what = int(status[0])
    if what:
        raise _FAILURES[what]()


def loop_step(node: Node, compile_body: Compile | None = None) -> Callable[..., Any]:
    """The function of arrays that runs a ``loop_run``."""
    return run_loop(node.params, compile_body)


def steps_of(params: RunParams, consts: tuple[Array, ...]) -> range:
    """The numbers of the steps to run, in order."""
    first, last = 0, params.length
    if params.body.window is not None:
        low, high = (int(consts[k]) for k in params.body.window)
        first, last = max(low, 0), min(high, params.length)
    return range(last - 1, first - 1, -1) if params.reverse else range(first, last)


def storage_makers(params: RunParams) -> list[Callable[[], Array]]:
    """What makes fresh arrays for what is stored at each step: carries before it, then its outputs.

    Where only a run can tell which steps there are, the others are zero.
    """
    body = params.body
    make = np.zeros if body.dynamic else np.empty
    nodes = [*(body.carries[k] for k in params.befores), *body.outputs]
    return [functools.partial(make, (params.length, *node.shape), node.dtype) for node in nodes]


def run_loop(params: RunParams, compile_body: Compile | None = None) -> Callable[..., Any]:
    """``(initial carries, stacks, constants) -> array of the results`` (see ``RunParams``)."""
    from .numpy_executor import compile_numpy

    body = params.body
    run = (compile_body or compile_numpy)(Program(body.inputs, body.results))
    go = None if body.go is None else compile_numpy(Program(body.inputs, (body.go,)))
    carries, stacks = len(body.carries), len(body.stacks)
    shapes = [node.shape for node in body.carries]
    makers = storage_makers(params)

    def loop(*arrays: Array) -> Any:
        carry = [np.ascontiguousarray(a).reshape(s) for a, s in zip(arrays, shapes, strict=False)]
        stacked = [np.ascontiguousarray(a) for a in arrays[carries : carries + stacks]]
        consts = tuple(
            np.ascontiguousarray(a).reshape(node.shape)
            for a, node in zip(arrays[carries + stacks :], body.consts, strict=True)
        )
        stored = [make() for make in makers]
        befores = [(stored[j], k) for j, k in enumerate(params.befores)]
        outputs = stored[len(befores) :]
        for t in steps_of(params, consts):
            values = [np.array(t), *carry, *(np.asarray(s[t]) for s in stacked), *consts]
            if go is not None and not go(values)[0]:
                break
            for buffer, k in befores:
                buffer[t] = carry[k]
            results = run(values)
            carry = results[:carries]
            for buffer, value in zip(outputs, results[carries:], strict=True):
                buffer[t] = value
        return bundle([*(np.array(carry[k]) for k in params.finals), *stored])

    return loop


def bundle(arrays: list[Array]) -> Any:
    """Arrays of any shapes, flat, as one array of objects."""
    result = np.empty(len(arrays), dtype=object)
    for k, array in enumerate(arrays):
        result[k] = array.reshape(-1)
    return result


def body_size(body: Body) -> int:
    """How many operations a step is, those of loops inside as often as they are run."""
    nodes = _operations(body)
    inner = (node.params for node in nodes if node.op.name == "loop")
    return len(nodes) + sum(body_size(p.body) * (1 if p.body.go is not None else p.length) for p in inner)


def body_operations(body: Body) -> Iterator[Node]:
    """The operations of a step, each once, those of loops inside as well."""
    for node in _operations(body):
        if node.op.name == "loop":
            yield from body_operations(node.params.body)
        else:
            yield node


def _operations(body: Body) -> list[Node]:
    from ..graph.node import topological

    return [node for node in topological(body.results) if node.op.family != "leaf"]
