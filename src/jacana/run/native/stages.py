"""Groups of kernels as functions; all groups up to the next step that NumPy does are one function: a stage.

What only the groups of one stage need lives on its stack, if it is small, so that a small program of many kernels is
called as quickly as one of a single kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from ...graph.index import Table
from ...graph.node import Node
from ...plan import Call, Group, NativePlan
from .. import background
from .calls import GIL_WORK, external, memset, wrapper
from .codegen import Buffer, KernelEmitter
from .emitter import I1, I8, I64, POINTER
from .engine import Machine
from .threads import PARALLEL

STACK = 2**16  # bytes of what one stage keeps to itself
ALIGNED = 64  # bytes: a line of the cache
PARALLEL_WORK = 100_000  # elements of work above which a group uses several threads: some tens of microseconds


@dataclass(frozen=True)
class _Part:
    """``<function>(ptr *buffers)``: one group; ``used`` are its buffers in that order."""

    function: Any
    used: Sequence[Buffer]
    emitters: Sequence[KernelEmitter]
    work: int


@dataclass(frozen=True)
class Stage:
    """``call_<name>(buffers...)``: what follows one another without NumPy. ``used`` are its buffers in that order."""

    name: str
    function: Any
    used: Sequence[Buffer]
    own: frozenset[Node]  # buffers that nobody else sees
    emitters: Sequence[KernelEmitter]
    work: int


def emit_stages(
    module: ir.Module, target: Machine, plan: NativePlan, outputs: Sequence[Node], symbols: set[str]
) -> list[Stage]:
    """The functions of all stages of a plan, in order."""
    emitted: list[list[_Part]] = []
    before: Any = None
    count = 0
    for step in plan.steps:
        if isinstance(step, Group):
            if not isinstance(before, Group):
                emitted.append([])
            emitted[-1].append(_emit_group(module, target, plan, step, count, symbols))
            count += 1
        before = step
    shared: set[Buffer] = set(outputs)
    for step in plan.steps:
        if isinstance(step, Call):
            shared.update((step.node, *step.node.inputs))
    readers: dict[Buffer, set[int]] = {}
    for k, parts in enumerate(emitted):
        for part in parts:
            for key in part.used:
                readers.setdefault(key, set()).add(k)
    shared.update(key for key, where in readers.items() if len(where) > 1)
    return [_emit_stage(module, plan, parts, f"stage{k}", shared, symbols) for k, parts in enumerate(emitted)]


def _emit_group(
    module: ir.Module, target: Machine, plan: NativePlan, group: Group, number: int, symbols: set[str]
) -> _Part:
    emitters = []
    for k, kernel in enumerate(group.kernels):
        background.checkpoint()
        emitters.append(KernelEmitter(module, target, kernel, f"kernel{number}_{k}", plan.buffers))
        emitters[-1].emit()
        symbols |= emitters[-1].symbols
    used = list(dict.fromkeys(key for emitter in emitters for key in emitter.used))
    work = sum(kernel.work() for kernel in group.kernels)
    function = _group(module, group, emitters, used, f"group{number}", work > PARALLEL_WORK, symbols)
    return _Part(function, used, emitters, work)


def _emit_stage(
    module: ir.Module, plan: NativePlan, parts: Sequence[_Part], name: str, shared: set[Buffer], symbols: set[str]
) -> Stage:
    """``void name(ptr *buffers)``: the groups in order, with memory of their own."""
    every = list(dict.fromkeys(key for part in parts for key in part.used))
    written = {job.buffer for part in parts for emitter in part.emitters for job in emitter.kernel.jobs}
    own = _on_stack([key for key in every if isinstance(key, Node) and key in written and key not in shared])
    used = [key for key in every if key not in own]
    work = sum(part.work for part in parts)
    function = parts[0].function
    if own or len(parts) > 1:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), name)
        builder: Any = ir.IRBuilder(function.append_basic_block("entry"))
        places: dict[Buffer, Any] = {}
        for node, size in own.items():
            places[node] = builder.alloca(I8, ir.Constant(I64, size))
            places[node].align = ALIGNED
            if node in plan.zeroed:
                zero, no = ir.Constant(I8, 0), ir.Constant(I1, 0)
                builder.call(memset(module), [places[node], zero, ir.Constant(I64, size), no])
        for k, key in enumerate(used):
            places[key] = builder.load(_slot(builder, function.args[0], k), typ=POINTER)
        for part in parts:
            part.function.linkage = "internal"
            table = builder.alloca(POINTER, ir.Constant(I64, max(len(part.used), 1)))
            for k, key in enumerate(part.used):
                builder.store(places[key], _slot(builder, table, k))
            builder.call(part.function, [table])
        builder.ret_void()
    wrapper(module, function, len(used), f"call_{function.name}", work > GIL_WORK, symbols)
    emitters = [emitter for part in parts for emitter in part.emitters]
    return Stage(function.name, function, used, frozenset(own), emitters, work)


def _on_stack(nodes: Sequence[Node]) -> dict[Node, int]:
    """As many of the buffers as the stack has room for, and their bytes; the small ones first."""
    result: dict[Node, int] = {}
    room = STACK
    for node in sorted(nodes, key=lambda node: node.size):
        size = node.size * node.dtype.itemsize
        if size > room:
            break
        result[node] = size
        room -= size
    return result


def _slot(builder: Any, buffers: Any, k: int) -> Any:
    return builder.gep(buffers, [ir.Constant(I64, k)], inbounds=True, source_etype=POINTER)


def _group(
    module: ir.Module,
    group: Group,
    emitters: Sequence[KernelEmitter],
    used: Sequence[Node | Table],
    name: str,
    parallel: bool,
    symbols: set[str],
) -> Any:
    """``void name(ptr *buffers)``: the kernels of a group, tile after tile, on all threads if that pays."""
    place = {key: k for k, key in enumerate(used)}

    def run(builder: Any, buffers: Any, *numbers: Any) -> None:
        pointers = []
        for k in range(len(used)):
            pointers.append(builder.load(_slot(builder, buffers, k), typ=POINTER))
        for emitter in emitters:
            builder.call(emitter.function, [*(pointers[place[key]] for key in emitter.used), *numbers])

    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), name)
    builder: Any = ir.IRBuilder(function.append_basic_block("entry"))
    first = group.kernels[0]
    if first.split is None:
        run(builder, function.args[0])
        builder.ret_void()
        return function
    task = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER, I64]), f"tile_of_{name}")
    inner: Any = ir.IRBuilder(task.append_basic_block("entry"))
    begin = inner.mul(task.args[1], ir.Constant(I64, first.tile))
    last = inner.icmp_signed("==", task.args[1], ir.Constant(I64, first.tiles - 1))
    end = inner.select(last, ir.Constant(I64, first.sizes[first.split]), inner.add(begin, ir.Constant(I64, first.tile)))
    run(inner, task.args[0], begin, end, task.args[1])
    inner.ret_void()
    if parallel:
        each = external(module, PARALLEL, ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I64]), symbols)
        builder.call(each, [task, function.args[0], ir.Constant(I64, first.tiles)])
    else:
        head = builder.append_basic_block("tile")
        entry = builder.block
        builder.branch(head)
        builder.position_at_end(head)
        tile = builder.phi(I64)
        tile.add_incoming(ir.Constant(I64, 0), entry)
        builder.call(task, [function.args[0], tile])
        following = builder.add(tile, ir.Constant(I64, 1))
        tile.add_incoming(following, head)
        done = builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed("<", following, ir.Constant(I64, first.tiles)), head, done)
        builder.position_at_end(done)
    builder.ret_void()
    return function
