"""Programs as machine code: compile the kernels of a plan, allocate, call."""

from __future__ import annotations

import ctypes
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from ...graph.index import Table
from ...graph.node import CONSTANT, LITERAL, Array, Node, literal_array
from ...graph.ops.control import loop_run
from ...plan.loops import lowered
from ...plan.native_plan import Call, Kernel, plan_native
from ..numpy_executor import step
from ..program import Program, Runnable
from .codegen import KernelEmitter, table_array
from .emitter import I8, I64, POINTER
from .engine import DATA_OFFSET, builtin, fast_calls, load, machine
from .loops import native_loop

GIL_WORK = 20_000  # elements of work above which a kernel lets other threads run


def compile_native(program: Program) -> Runnable:
    """The program as machine code, with NumPy for the steps that loops are not good at."""
    program = Program(program.inputs, tuple(lowered(program.outputs)))
    plan = plan_native(program.outputs)
    target = machine()
    module = ir.Module("jacana")
    module.triple = target.triple
    module.data_layout = str(target.target_machine.target_data)
    compiled: list[tuple[str, list[Node | Table]]] = []
    symbols: set[str] = set()
    for step_ in plan.steps:
        if isinstance(step_, Kernel):
            name = f"kernel{len(compiled)}"
            emitter = KernelEmitter(module, target, step_, name, plan.buffers)
            emitter.emit()
            symbols |= emitter.symbols
            _wrapper(module, emitter.function, len(emitter.used), f"call_{name}", _work(step_) > GIL_WORK, symbols)
            compiled.append((f"call_{name}", emitter.used))
    calls: dict[str, Callable[..., None]] = {}
    if compiled:
        # Without the fast path the kernel itself is called through ctypes.
        quick = fast_calls()
        exported = [name if quick else name.removeprefix("call_") for name, _ in compiled]
        addresses, keep = load(str(module), symbols, exported)
        for (name, used), where in zip(compiled, exported, strict=True):
            address = addresses[where]
            calls[name] = builtin(address, keep) if quick else _slow_call(address, len(used), keep)
    return _Runner(program, plan.steps, plan.buffers, plan.zeroed, compiled, calls).build()


def _call_step(node: Node) -> Callable[..., Any]:
    return native_loop(node.params, compile_native) if node.op is loop_run else step(node)


def _work(kernel: Kernel) -> int:
    return math.prod(kernel.sizes) * sum(len(job.points()) for job in kernel.jobs)


def _wrapper(module: ir.Module, kernel: Any, count: int, name: str, release: bool, symbols: set[str]) -> None:
    """``PyObject *name(self, PyObject *const *args, Py_ssize_t n)``: read the data pointers, call, return None."""
    function = ir.Function(module, ir.FunctionType(POINTER, [POINTER, POINTER, I64]), name)
    builder: Any = ir.IRBuilder(function.append_basic_block("entry"))
    pointers = []
    for k in range(count):
        slot = builder.gep(function.args[1], [ir.Constant(I64, k)], inbounds=True, source_etype=POINTER)
        array = builder.load(slot, typ=POINTER)
        field = builder.gep(array, [ir.Constant(I64, DATA_OFFSET)], inbounds=True, source_etype=I8)
        pointers.append(builder.load(field, typ=POINTER))
    if release:
        save = _external(module, "PyEval_SaveThread", ir.FunctionType(POINTER, []), symbols)
        restore = _external(module, "PyEval_RestoreThread", ir.FunctionType(ir.VoidType(), [POINTER]), symbols)
        state = builder.call(save, [])
        builder.call(kernel, pointers)
        builder.call(restore, [state])
    else:
        builder.call(kernel, pointers)
    none = builder.inttoptr(ir.Constant(I64, id(None)), POINTER)
    builder.call(_external(module, "Py_IncRef", ir.FunctionType(ir.VoidType(), [POINTER]), symbols), [none])
    builder.ret(none)


def _external(module: ir.Module, name: str, kind: ir.FunctionType, symbols: set[str]) -> Any:
    symbols.add(name)
    return module.globals.get(name) or ir.Function(module, kind, name)


def _slow_call(address: int, count: int, keep: Any) -> Callable[..., None]:
    kernel = ctypes.CFUNCTYPE(None, *([ctypes.c_void_p] * count))(address)

    def call(*arrays: Array) -> None:
        kernel(*[a.ctypes.data for a in arrays])

    call.keep = keep  # type: ignore[attr-defined]
    return call


class _Runner:
    """Numbers the buffers and writes the function that runs the steps."""

    def __init__(
        self,
        program: Program,
        steps: Sequence[Kernel | Call],
        buffers: set[Node],
        zeroed: set[Node],
        compiled: Sequence[tuple[str, list[Node | Table]]],
        calls: dict[str, Callable[..., None]],
    ) -> None:
        self.program, self.steps, self.buffers, self.zeroed = program, steps, buffers, zeroed
        self.compiled, self.calls = list(compiled), calls
        self.place: dict[Node | Table, int] = {}
        for node in program.inputs:
            self.place[node] = len(self.place)

    def _slot(self, key: Node | Table) -> int:
        return self.place.setdefault(key, len(self.place))

    def build(self) -> Runnable:
        fixed: dict[int, Array] = {}
        constants: list[tuple[int, Callable[[], Array]]] = []
        allocate: list[tuple[int, Callable[..., Array], Any, Any]] = []
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
                work.append((_call_step(node), tuple(reach(i) for i in node.inputs), self._slot(node)))
                continue
            name, used = next(compiled)
            for job in step_.jobs:
                if job.buffer not in made:
                    made.add(job.buffer)
                    maker = np.zeros if job.buffer in self.zeroed else np.empty
                    allocate.append((self._slot(job.buffer), maker, job.buffer.shape, job.buffer.dtype))
            work.append((self.calls[name], tuple(reach(key) for key in used), -1))
        # Buffers that no job writes: empty arrays and arrays of structural zeros.
        for node in self.buffers:
            if node not in made and not any(isinstance(s, Call) and s.node is node for s in self.steps):
                allocate.append((self._slot(node), np.zeros, node.shape, node.dtype))
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
        slots = [k for k, *_ in allocate]
        if sorted(slots) != sorted(results) or any(k < count for k in results):
            return None
        makers = [next((m, s, d) for k, m, s, d in allocate if k == r) for r in results]
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
            answer = [make(shape, dtype) for make, shape, dtype in makers]
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
            for k, make, shape, dtype in allocate:
                buffers[k] = make(shape, dtype)
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
