"""A program run for every row of its arguments, by one call of machine code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...graph.node import Array, Node, new_input
from ...graph.ops.control import INT, RunParams, make_body
from ...plan.native_loops import plan_loop
from .loops import ALIGNMENT, SHARES, LoopFunction


def native_rows(
    rows: Sequence[Node], shared: Sequence[Node], outputs: Sequence[Node]
) -> Callable[..., list[Array]] | None:
    """The program for each row of its arguments, on all threads: ``(*rows, *shared) -> [array, ...]``.

    The arguments for ``rows`` and the results have one axis more than in the program, in front, and any one length.
    All must be contiguous and of the program's dtypes. None where a step of the program needs NumPy.
    """
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
    fetched = []
    for key, fetch in code.fetched.items():
        if getattr(key.params.owner, "live", True):
            fetched.append((code.arrays[key], fetch))
        else:
            template[code.arrays[key]] = np.ascontiguousarray(fetch())

    def run(*arrays: Array) -> list[Array]:
        count = len(arrays[0])
        slots = template.copy()
        made = [np.empty((count, *shape), dtype) for shape, dtype in results]
        slots[:given] = arrays
        slots[given : given + len(made)] = made
        for k, fetch in fetched:
            slots[k] = np.ascontiguousarray(fetch())
        if work is not None:
            slots[work] = np.empty(size * min(count, SHARES) + ALIGNMENT, dtype=np.uint8)
        slots[-1] = np.array((0, count))
        if status is not None:
            slots[status] = np.zeros(1, dtype=np.int64)
        function(*slots)
        if status is not None and slots[status][0]:
            raise IndexError("an index in the body of a loop is out of bounds")
        return made

    return run


__all__ = ["native_rows"]
