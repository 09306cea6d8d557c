"""The complete executor: each node is one step of NumPy, with everything but the arithmetic computed beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph.index import Affine, plain_axis
from ..graph.node import CONSTANT, INPUT, LITERAL, Array, Node, literal_array
from ..graph.ops.contraction import contract, pair_step
from ..graph.ops.control import loop, loop_run
from ..graph.ops.elementwise import cast, select
from ..graph.ops.movement import assemble, contiguous_view, index, positions, strided, writer
from ..plan.loops import lowered
from .loops import loop_step
from .program import Program, Runnable

Step = Callable[..., Any]
_ZERO = Affine(0)


def compile_numpy(program: Program) -> Runnable:
    """The program as a list of NumPy calls."""
    if any([node.op is loop for node in program.nodes()]):
        program = Program(program.inputs, tuple(lowered(program.outputs)))
    nodes = program.nodes()
    place = {node: k for k, node in enumerate(nodes)}
    count = len(nodes)
    fixed: list[Any] = [None] * count
    constants: list[tuple[int, Any]] = []
    reading: list[tuple[int, Node, tuple[int, ...]]] = []
    for k, node in enumerate(nodes):
        op = node.op
        if op is LITERAL:
            fixed[k] = literal_array(node.params)
        elif op is CONSTANT:
            constants.append((k, node.params.owner.value))
        elif op is not INPUT:
            reading.append((k, node, tuple([place[i] for i in _broadcast_sources(node)])))
    slots = [place[node] for node in program.inputs]
    results = [place[node] for node in program.outputs]
    own = [node.op not in (INPUT, CONSTANT, LITERAL, index) for node in program.outputs]
    used = set(results)
    for _, _, sources in reading:
        used.update(sources)
    # Not those that peeling of broadcasts left without a reader.
    reads: dict[Any, Step] = {}  # where several arrays are read at the same places
    work: list[tuple[int, Step, tuple[int, ...]]] = [
        (k, _index_step(n, reads) if n.op is index else step(n), sources) for k, n, sources in reading if k in used
    ]
    last: dict[int, int] = {i: position for position, (_, _, sources) in enumerate(work) for i in sources}
    keep = {*results, *slots, *(k for k, _ in constants), *(k for k, v in enumerate(fixed) if v is not None)}
    dead = [
        tuple([i for i in dict.fromkeys(sources) if last[i] == position and i not in keep])
        for position, (_, _, sources) in enumerate(work)
    ]
    shapes = [node.shape for node in program.outputs]
    foreign = [*slots, *(k for k, _ in constants)]

    def _shared(value: Array, buffers: list[Any], answer: list[Array]) -> bool:
        if value.base is None:
            return any(value is a or (a.base is not None and np.may_share_memory(value, a)) for a in answer)
        return any(np.may_share_memory(value, a) for a in (*answer, *(buffers[k] for k in foreign)) if a is not None)

    def run(values: Sequence[Array]) -> list[Array]:
        buffers = fixed.copy()
        for k, value in zip(slots, values, strict=True):
            buffers[k] = value
        for k, fetch in constants:
            buffers[k] = fetch()
        with np.errstate(all="ignore"):
            for (k, function, sources), finished in zip(work, dead, strict=True):
                buffers[k] = function(*[buffers[i] for i in sources])
                for i in finished:
                    buffers[i] = None
        answer: list[Array] = []
        for k, mine, shape in zip(results, own, shapes, strict=True):
            value = np.asarray(buffers[k])
            # A result is the caller's own: never a view of an argument, a constant or another result.
            if not mine or not value.flags.c_contiguous or not value.flags.writeable or _shared(value, buffers, answer):
                value = np.array(value, order="C").reshape(shape)
            answer.append(value)
        return answer

    return run


def _broadcast_sources(node: Node) -> tuple[Node, ...]:
    """The arrays that a step takes: NumPy broadcasts by itself, so a replicated input need not be made."""
    if not node.shape or node.op.family != "elementwise" or node.op is cast:
        return node.inputs
    sources = []
    plain = True
    for i in node.inputs:
        if i.op is index:
            plain = False
            i = _before_broadcast(i)
        sources.append(i)
    if plain:
        return node.inputs
    shape = node.shape
    if any([s.shape == shape for s in sources]):
        return tuple(sources)
    lead = [len(shape) - s.ndim for s in sources]
    for k, n in enumerate(shape):
        if n != 1 and not any([k >= m and s.shape[k - m] == n for s, m in zip(sources, lead, strict=True)]):
            return node.inputs
    return node.inputs if lead and min(lead) > 0 else tuple(sources)


def _before_broadcast(node: Node) -> Node:
    while node.op is index:
        source = node.inputs[0]
        lead = node.ndim - source.ndim
        if lead < 0:
            break
        for k, e in enumerate(node.params.indices):
            n = source.shape[k]
            if plain_axis(e) == lead + k:
                if n != node.shape[lead + k]:
                    return node
            elif n != 1 or e != _ZERO:
                return node
        node = source
    return node


def step(node: Node) -> Step:
    """The function of input arrays that computes ``node``."""
    params = node.params
    if node.op is select:
        return np.where
    if node.op.ufunc is not None:
        return node.op.ufunc
    if node.op is index:
        return _index_step(node)
    if node.op is assemble:
        return _assemble_step(node)
    if node.op is loop_run:
        return loop_step(node)
    if node.op is contract and len(node.inputs) == 2:
        return pair_step(params)
    evaluate = node.op.evaluate
    return lambda *arrays: evaluate(params, *arrays)


def _index_step(node: Node, known: dict[Any, Step] | None = None) -> Step:
    if known is None:
        return _index_read(node)
    key = (node.params, node.inputs[0].shape, node.dtype)
    found = known.get(key)
    if found is None:
        found = known[key] = _index_read(node)
    return found


def _index_read(node: Node) -> Step:
    source, params = node.inputs[0], node.params
    shape, dtype = node.shape, node.dtype
    if node.size == 0:
        return lambda array: np.empty(shape, dtype=dtype)
    plan = strided(params.indices, shape)
    if plan is None:
        if source.ndim == 1:
            (taken,) = positions(params.indices, shape)
            taken = np.broadcast_to(taken, shape)
            return lambda array: array.take(taken)
        fancy = tuple(np.broadcast_arrays(*positions(params.indices, shape), np.empty(shape, bool))[:-1])
        return lambda array: array[fancy]
    origin, table = plan
    start, steps = contiguous_view(origin, table, source.shape, dtype.itemsize)
    anchor = tuple(slice(o, None) for o in origin)

    def view(array: Array) -> Array:
        array = np.asarray(array)
        if array.flags.c_contiguous:
            return np.ndarray(shape, dtype, array, start, steps)
        strides = tuple(sum(s * n for s, n in zip(row, array.strides, strict=True)) for row in table)
        return np.lib.stride_tricks.as_strided(array[anchor], shape, strides)

    return view


def _assemble_step(node: Node) -> Step:
    params = node.params
    shape, dtype = params.shape, params.dtype
    if params.full and params.disjoint and len(node.inputs) == 1 and _keeps_order(node):
        return lambda part: np.reshape(part, shape)
    writers = [writer(params, k, part.shape) for k, part in enumerate(node.inputs)]
    allocate = np.empty if params.full and params.disjoint else np.zeros

    def build(*parts: Array) -> Array:
        result = allocate(shape, dtype=dtype)
        for write, part in zip(writers, parts, strict=True):
            write(result, np.asarray(part))
        return result

    return build


def _keeps_order(node: Node) -> bool:
    """Whether an assembled array is its only part in another shape (a C-order reshape)."""
    part = node.inputs[0]
    plan = strided(node.params.rows[0], part.shape)
    if plan is None or any(plan[0]):
        return False
    weights = [math.prod(node.shape[k + 1 :]) for k in range(node.ndim)]
    wanted = [math.prod(part.shape[k + 1 :]) for k in range(part.ndim)]
    have = [sum(s * w for s, w in zip(row, weights, strict=True)) for row in plan[1]]
    return all(h == w or n == 1 for h, w, n in zip(have, wanted, part.shape, strict=True))
