"""A program run by one call of machine code: for every row of its arguments, or once, loops and all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...graph.index import Table
from ...graph.node import LITERAL, Array, Node, Shape, new_input
from ...graph.ops.control import INT, RunParams, loop, make_body
from ...plan.native_loops import MATRICES, LoopPlan, plan_loop
from ..loops import raise_failure
from ..program import Program
from .calls import GIL_WORK, wrapper
from .entry import emit_entry, entry_of
from .loop_calls import SHARES, callable_of, whole_group
from .loops import ALIGNMENT, LoopFunction
from .recipe import Buffer, Emitted, Launch, Recipe, Source, constant_source

STACK = 2**14  # bytes of workspace that may lie on the stack
BETWEEN = 2**17  # elements computed outside the loops up to which a program with loops is one function


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


def emit_whole(program: Program) -> Emitted | None:
    """A program with loops or small matrices as one function, where the rest is small; None where that does not serve.

    Each of them by itself is a call from Python, and what is before and after it another: some ten microseconds for
    each, which is as long as a thousand steps of a small system take.
    """
    nodes = program.nodes()
    if not any(node.op is loop or node.op in MATRICES for node in nodes):
        return None
    if sum(node.size for node in nodes if node.op is not loop and node.op.family != "leaf") > BETWEEN:
        return None
    planned = _planned((), program.inputs, program.outputs)
    if planned is None:
        return None
    code = LoopFunction.of(planned)
    used = [key for key in code.arrays if key != "work" or code.work_size > STACK]
    sources: list[Source] = []
    slots = []
    for key in used:
        if isinstance(key, tuple) and key[0] == "const":
            slots.append(key[1])
            continue
        slots.append(len(program.inputs) + len(sources))
        sources.append(_source(key, code, program))
    results = tuple(slots[used.index(("stored", j))] for j in range(len(program.outputs)))
    group = whole_group(code, used)
    releases = planned.work > GIL_WORK
    wrapper(code.module, group, len(used), "call_group0", releases, code.symbols)
    status = slots[used.index("status")] if "status" in used else None
    launch = Launch("call_group0", tuple(slots))
    recipe = Recipe(tuple(sources), (launch,), results, (), status=status)
    entry = None if releases else entry_of(recipe, program.inputs)
    if entry is not None:
        emit_entry(code.module, entry, group, code.symbols)
    recipe = replace(recipe, symbols=tuple(sorted(code.symbols)), entered=entry is not None)
    return Emitted(recipe, str(code.module))


def _source(key: Any, code: LoopFunction, program: Program) -> Source:
    """What is in the slot of an array that the function takes."""
    if key == "work":
        return Buffer((code.work_size + ALIGNMENT,), np.dtype(np.uint8), False)
    if key == "status":
        return Buffer((1,), INT, True)
    if isinstance(key, Table):
        return key
    if isinstance(key, Node):
        return key.params if key.op is LITERAL else constant_source(key)
    node = program.outputs[key[1]]
    return Buffer(node.shape, node.dtype, False)


def _planned(rows: Sequence[Node], shared: Sequence[Node], outputs: Sequence[Node]) -> LoopPlan | None:
    """The program as the body of a loop of one step, or of one for each row."""
    body = make_body(new_input((), INT), (), rows, shared, (), outputs)
    return plan_loop(RunParams(body, 1, False, (), ()))


def _caller(rows: Sequence[Node], shared: Sequence[Node], outputs: Sequence[Node]) -> Any:
    planned = _planned(rows, shared, outputs)
    if planned is None:
        return None
    code = LoopFunction.of(planned)
    function = callable_of(code)
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
        if status is not None:
            raise_failure(slots[status])
        return made

    return call


__all__ = ["emit_whole", "native_rows"]
