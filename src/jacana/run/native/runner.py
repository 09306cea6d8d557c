"""From a recipe and machine code to a function of arrays: allocate, call, hand out."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...graph.build import FrozenArray
from ...graph.index import Table
from ...graph.node import Array, LiteralParams, Node, literal_array
from ...graph.ops.control import loop_run
from ..loops import raise_failure
from ..numpy_executor import step as numpy_step
from ..program import Runnable
from .entry import NAME as ENTRY
from .entry import entry_of
from .memory import maker
from .recipe import Buffer, Invoke, Launch, Recipe


def table_array(table: Table) -> np.ndarray[Any, Any]:
    """The table as the machine code reads it: 32 bits where they suffice."""
    values = table.values
    if values.size == 0 or (values.min() >= -(2**31) and values.max() < 2**31):
        return np.ascontiguousarray(values, dtype=np.int32)
    return values


def _call_step(node: Node) -> Callable[..., Any]:
    """A step that no kernel does: by NumPy, or a loop, which is machine code of its own where it can be."""
    if node.op is not loop_run:
        return numpy_step(node)
    from .executor import compile_native  # the body of a loop is a program in its turn
    from .loop_calls import native_loop

    return native_loop(node.params, compile_native)


def make_runner(recipe: Recipe, inputs: Sequence[Node], functions: dict[str, Callable[..., Any]]) -> Runnable:
    """The function that runs a recipe. Its attribute ``direct``, if it has one, is the builtin of ``entry.py``."""
    count = len(inputs)
    fixed: dict[int, Array] = {}
    constants: list[tuple[int, Callable[[], Array]]] = []
    allocate: list[tuple[int, Callable[[], Array]]] = []
    for k, source in enumerate(recipe.sources, count):
        match source:
            case Table():
                fixed[k] = table_array(source)
            case LiteralParams():
                fixed[k] = np.array(literal_array(source))
            case FrozenArray():
                fixed[k] = source.array
            case Buffer():
                allocate.append((k, maker(source.shape, source.dtype, source.zeroed)))
            case Node():
                owner = source.params.owner
                if getattr(owner, "live", True):
                    constants.append((k, owner.value))
                else:
                    fixed[k] = np.asarray(owner.value(), order="C")
    work: list[tuple[Callable[..., Any], tuple[int, ...], int]] = []
    for step in recipe.steps:
        if isinstance(step, Launch):
            work.append((functions[step.name], step.slots, -1))
        else:
            work.append((_call_step(step.node), step.slots, step.result))
    results = list(recipe.results)
    run = None
    if not constants and len(work) == 1 and work[0][2] < 0 and len(set(results)) == len(results):
        run = _single(count, fixed, allocate, work[0], results)
    if run is None:
        run = _many(count, len(recipe.sources), fixed, constants, allocate, work, results, recipe.status)
    entry = entry_of(recipe, inputs) if recipe.entered else None
    if entry is not None:
        run.direct = functions[ENTRY](entry, fixed)  # type: ignore[attr-defined]
    return run


def _single(count: int, fixed: dict[int, Array], allocate: list[Any], call: Any, results: list[int]) -> Runnable | None:
    """One kernel and nothing else: the shortest way from arrays to arrays."""
    function, sources, _ = call
    slots = [k for k, _ in allocate]
    if sorted(slots) != sorted(results) or any(k < count for k in results):
        return None
    makers = [next(make for k, make in allocate if k == r) for r in results]
    # Positions: inputs, then results, then tables.
    position = {k: k for k in range(count)}
    position.update({k: count + j for j, k in enumerate(results)})
    tables = [fixed[k] for k in sorted(fixed)]
    position.update({k: count + len(results) + j for j, k in enumerate(sorted(fixed))})
    order = [position[k] for k in sources]
    if len(order) < 2:
        return None
    pick = operator.itemgetter(*order)

    def run(values: Sequence[Array]) -> list[Array]:
        answer = [make() for make in makers]
        function(*pick((*values, *answer, *tables)))
        return answer

    return run


def _many(
    count: int,
    others: int,
    fixed: dict[int, Array],
    constants: Any,
    allocate: Any,
    work: Any,
    results: list[int],
    status: int | None,
) -> Runnable:
    tail: list[Any] = [None] * others
    for k, array in fixed.items():
        tail[k - count] = array
    foreign = {*range(count), *fixed, *(k for k, _ in constants)}
    views = {k for function, _, k in work if k >= 0}  # a NumPy call may return a view of something else

    def run(values: Sequence[Array]) -> list[Array]:
        buffers = [*values, *tail]
        for k, fetch in constants:
            value = fetch()
            buffers[k] = value if value.flags.c_contiguous else np.ascontiguousarray(value)
        for k, make in allocate:
            buffers[k] = make()
        if not views:
            for function, sources, _ in work:
                function(*[buffers[i] for i in sources])
        else:
            with np.errstate(all="ignore"):
                for function, sources, out in work:
                    value = function(*[buffers[i] for i in sources])
                    if out >= 0:
                        buffers[out] = np.ascontiguousarray(value) if value.ndim else np.asarray(value)
        if status is not None:
            raise_failure(buffers[status])
        answer: list[Array] = []
        for k in results:
            value = buffers[k]
            shared = k in foreign or any(value is a for a in answer)
            if not shared and views and (value.base is not None or any(a.base is not None for a in answer)):
                rest = (*answer, *(buffers[f] for f in foreign if buffers[f] is not None))
                shared = any(np.may_share_memory(value, other) for other in rest)
            answer.append(np.array(value) if shared or not value.flags.writeable else value)
        return answer

    return run


__all__ = ["Invoke", "make_runner", "table_array"]
