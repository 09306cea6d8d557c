"""A program run by one call of machine code: for every row of its arguments, or once, loops and all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...graph.node import Array, Node, Shape, new_input
from ...graph.ops.control import INT, RunParams, loop, make_body
from ...plan.native_loops import plan_loop
from ..program import Program, Runnable
from .loops import ALIGNMENT, SHARES, LoopFunction

BETWEEN = 2**15  # elements computed outside the loops up to which a program with loops is one function


def native_rows(
    rows: Sequence[Node], shared: Sequence[Node], outputs: Sequence[Node]
) -> Callable[..., list[Array]] | None:
    """The program for each row of its arguments, on all threads: ``(*rows, *shared) -> [array, ...]``.

    The arguments for ``rows`` and the results have one axis more than in the program, in front, and any one length.
    All must be contiguous and of the program's dtypes. None where a step of the program needs NumPy.
    """
    call = _caller(rows, shared, outputs)
    if call is None:
        return None
    return lambda *arrays: call(arrays, len(arrays[0]), (len(arrays[0]),))


def native_whole(program: Program) -> Runnable | None:
    """A program with loops as one function, where what is between them is small; None where that does not serve.

    Each loop by itself is a call from Python, and what is before and after it another: some ten microseconds for each,
    which is as long as a thousand steps of a small system take.
    """
    nodes = program.nodes()
    if not any(node.op is loop for node in nodes):
        return None
    if sum(node.size for node in nodes if node.op is not loop and node.op.family != "leaf") > BETWEEN:
        return None
    call = _caller((), program.inputs, program.outputs)
    return None if call is None else lambda values: call(values, 1, ())


def _caller(rows: Sequence[Node], shared: Sequence[Node], outputs: Sequence[Node]) -> Any:
    body = make_body(new_input((), INT), (), rows, shared, (), outputs)
    planned = plan_loop(RunParams(body, 1, False, (), ()))
    if planned is None:
        return None
    code = LoopFunction.of(planned)
    function = code.callable()
    results = [(node.shape, node.dtype) for node in outputs]
    given = len(rows) + len(shared)
    template, size = code.template(), code.work_size
    work, status = code.arrays.get("work"), code.arrays.get("status")
    once = np.array((0, 1))
    fetched = []
    for key, fetch in code.fetched.items():
        if getattr(key.params.owner, "live", True):
            fetched.append((code.arrays[key], fetch))
        else:
            template[code.arrays[key]] = np.ascontiguousarray(fetch())

    def call(arrays: Sequence[Array], count: int, lead: Shape) -> list[Array]:
        slots = template.copy()
        made = [np.empty((*lead, *shape), dtype) for shape, dtype in results]
        slots[:given] = arrays
        slots[given : given + len(made)] = made
        for k, fetch in fetched:
            slots[k] = np.ascontiguousarray(fetch())
        if work is not None:
            slots[work] = np.empty(size * min(count, SHARES) + ALIGNMENT, dtype=np.uint8)
        slots[-1] = once if count == 1 else np.array((0, count))
        if status is not None:
            slots[status] = np.zeros(1, dtype=np.int64)
        function(*slots)
        if status is not None and slots[status][0]:
            raise IndexError("an index in the body of a loop is out of bounds")
        return made

    return call


__all__ = ["native_rows", "native_whole"]
