"""Programs as machine code: compile the kernels of a plan, allocate, call."""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from ...graph.index import Table
from ...graph.node import CONSTANT, LITERAL, Array, Node, literal_array
from ...plan import Call, Group, NativePlan, plan_native
from ..numpy_executor import step
from ..program import Program, Runnable
from .codegen import KernelEmitter, table_array
from .emitter import I8, I64, POINTER
from .engine import DATA_OFFSET, builtin, fast_calls, load, machine
from .memory import maker
from .threads import PARALLEL

GIL_WORK = 20_000  # elements of work above which a kernel lets other threads run
PARALLEL_WORK = 100_000  # elements of work above which a kernel uses several threads: some tens of microseconds


def compile_native(program: Program) -> Runnable:
    """The program as machine code, with NumPy for the steps that loops are not good at."""
    plan = plan_native(program.outputs)
    target = machine()
    module = ir.Module("jacana")
    module.triple = target.triple
    module.data_layout = str(target.target_machine.target_data)
    compiled: list[tuple[str, list[Node | Table]]] = []
    symbols: set[str] = set()
    for number, step_ in enumerate(s for s in plan.steps if isinstance(s, Group)):
        emitters = []
        for k, kernel in enumerate(step_.kernels):
            emitters.append(KernelEmitter(module, target, kernel, f"kernel{number}_{k}", plan.buffers))
            emitters[-1].emit()
            symbols |= emitters[-1].symbols
        used = list(dict.fromkeys(key for emitter in emitters for key in emitter.used))
        work = sum(kernel.work() for kernel in step_.kernels)
        group = _group(module, step_, emitters, used, f"group{number}", work > PARALLEL_WORK, symbols)
        _wrapper(module, group, len(used), f"call{number}", work > GIL_WORK, symbols)
        compiled.append((f"call{number}", used))
    calls: dict[str, Callable[..., None]] = {}
    if compiled:
        # Without the fast path the group itself is called through ctypes.
        quick = fast_calls()
        exported = [name if quick else name.replace("call", "group") for name, _ in compiled]
        addresses, keep = load(str(module), symbols, exported)
        for (name, used), where in zip(compiled, exported, strict=True):
            address = addresses[where]
            calls[name] = builtin(address, keep) if quick else _slow_call(address, len(used), keep)
    return _Runner(program, plan, compiled, calls).build()


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
            slot = builder.gep(buffers, [ir.Constant(I64, k)], inbounds=True, source_etype=POINTER)
            pointers.append(builder.load(slot, typ=POINTER))
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
        each = _external(module, PARALLEL, ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I64]), symbols)
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


def _wrapper(module: ir.Module, group: Any, count: int, name: str, release: bool, symbols: set[str]) -> None:
    """``PyObject *name(self, PyObject *const *args, Py_ssize_t n)``: read the data pointers, call, return None."""
    function = ir.Function(module, ir.FunctionType(POINTER, [POINTER, POINTER, I64]), name)
    builder: Any = ir.IRBuilder(function.append_basic_block("entry"))
    buffers = builder.alloca(POINTER, ir.Constant(I64, max(count, 1)))
    for k in range(count):
        slot = builder.gep(function.args[1], [ir.Constant(I64, k)], inbounds=True, source_etype=POINTER)
        array = builder.load(slot, typ=POINTER)
        field = builder.gep(array, [ir.Constant(I64, DATA_OFFSET)], inbounds=True, source_etype=I8)
        place = builder.gep(buffers, [ir.Constant(I64, k)], inbounds=True, source_etype=POINTER)
        builder.store(builder.load(field, typ=POINTER), place)
    if release:
        save = _external(module, "PyEval_SaveThread", ir.FunctionType(POINTER, []), symbols)
        restore = _external(module, "PyEval_RestoreThread", ir.FunctionType(ir.VoidType(), [POINTER]), symbols)
        state = builder.call(save, [])
        builder.call(group, [buffers])
        builder.call(restore, [state])
    else:
        builder.call(group, [buffers])
    none = builder.inttoptr(ir.Constant(I64, id(None)), POINTER)
    builder.call(_external(module, "Py_IncRef", ir.FunctionType(ir.VoidType(), [POINTER]), symbols), [none])
    builder.ret(none)


def _external(module: ir.Module, name: str, kind: ir.FunctionType, symbols: set[str]) -> Any:
    symbols.add(name)
    return module.globals.get(name) or ir.Function(module, kind, name)


def _slow_call(address: int, count: int, keep: Any) -> Callable[..., None]:
    group = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
    buffers = ctypes.c_void_p * max(count, 1)

    def call(*arrays: Array) -> None:
        group(ctypes.addressof(buffers(*[a.ctypes.data for a in arrays])))

    call.keep = keep  # type: ignore[attr-defined]
    return call


class _Runner:
    """Numbers the buffers and writes the function that runs the steps."""

    def __init__(
        self,
        program: Program,
        plan: NativePlan,
        compiled: Sequence[tuple[str, list[Node | Table]]],
        calls: dict[str, Callable[..., None]],
    ) -> None:
        self.program, self.steps, self.buffers, self.zeroed = program, plan.steps, plan.buffers, plan.zeroed
        self.compiled, self.calls = list(compiled), calls
        self.place: dict[Node | Table, int] = {}
        for node in program.inputs:
            self.place[node] = len(self.place)

    def _slot(self, key: Node | Table) -> int:
        return self.place.setdefault(key, len(self.place))

    def build(self) -> Runnable:
        fixed: dict[int, Array] = {}
        constants: list[tuple[int, Callable[[], Array]]] = []
        allocate: list[tuple[int, Callable[[], Array]]] = []
        work: list[tuple[Callable[..., Any], tuple[int, ...], int]] = []
        made: set[Node] = set()

        def reach(key: Node | Table) -> int:
            k = self._slot(key)
            if isinstance(key, Table):
                fixed[k] = table_array(key)
            elif key.op is LITERAL:
                fixed[k] = np.array(literal_array(key.params))
            elif key.op is CONSTANT and not getattr(key.params.owner, "live", True):
                fixed[k] = np.asarray(key.params.owner.value(), order="C")
            elif key.op is CONSTANT and all(k != j for j, _ in constants):
                constants.append((k, key.params.owner.value))
            return k

        compiled = iter(self.compiled)
        for step_ in self.steps:
            if isinstance(step_, Call):
                node = step_.node
                work.append((step(node), tuple(reach(i) for i in node.inputs), self._slot(node)))
                continue
            name, used = next(compiled)
            for job in (job for kernel in step_.kernels for job in kernel.jobs):
                if job.buffer not in made:
                    made.add(job.buffer)
                    make = maker(job.buffer.shape, job.buffer.dtype, job.buffer in self.zeroed)
                    allocate.append((self._slot(job.buffer), make))
            work.append((self.calls[name], tuple(reach(key) for key in used), -1))
        # Buffers that no job writes: empty arrays and arrays of structural zeros.
        for node in self.buffers:
            if node not in made and not any(isinstance(s, Call) and s.node is node for s in self.steps):
                allocate.append((self._slot(node), maker(node.shape, node.dtype, True)))
        results = [reach(node) for node in self.program.outputs]
        if not constants and len(work) == 1 and work[0][2] < 0 and len(set(results)) == len(results):
            single = self._single(fixed, allocate, work[0], results)
            if single is not None:
                return single
        return self._many(fixed, constants, allocate, work, results)

    def _single(self, fixed: dict[int, Array], allocate: list[Any], call: Any, results: list[int]) -> Runnable | None:
        """One kernel and nothing else: the shortest way from arrays to arrays."""
        function, sources, _ = call
        count = len(self.program.inputs)
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

    def _many(self, fixed: dict[int, Array], constants: Any, allocate: Any, work: Any, results: list[int]) -> Runnable:
        count = len(self.program.inputs)
        total = len(self.place)
        template: list[Any] = [None] * total
        for k, array in fixed.items():
            template[k] = array
        tail = template[count:]
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
            answer: list[Array] = []
            for k in results:
                value = buffers[k]
                shared = k in foreign or any(value is a for a in answer)
                if not shared and views and (value.base is not None or any(a.base is not None for a in answer)):
                    others = (*answer, *(buffers[f] for f in foreign if buffers[f] is not None))
                    shared = any(np.may_share_memory(value, other) for other in others)
                answer.append(np.array(value) if shared or not value.flags.writeable else value)
            return answer

        return run
