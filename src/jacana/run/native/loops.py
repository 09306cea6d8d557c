"""A whole loop as one machine-code function: kernels and small products of the body, carries passed by pointer.

The next carry is written where it is stored, the outputs of a step into their rows; nothing is copied that a kernel can
write in place. A body with a step that needs NumPy is left to ``run/loops.py``, with the body alone compiled.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from ...graph.index import Affine, Table
from ...graph.node import CONSTANT, LITERAL, Array, Node, literal_array
from ...graph.ops.contraction import contract
from ...graph.ops.control import RunParams
from ...graph.ops.position import read_at, write_at
from ...plan.jobs import Group, Kernel, NativePlan
from ...plan.loops import lowered
from ...plan.native_loops import Access, access, called, plan_body, through_views
from ..loops import bundle, run_loop, steps_of, storage_makers
from ..program import Program, Runnable
from .calls import slow_call, wrapper
from .codegen import KernelEmitter
from .emitter import I1, I8, I64, POINTER
from .engine import Machine, builtin, fast_calls, link, machine, object_image
from .products import Products
from .runner import table_array

_OWN = (contract, read_at, write_at)  # steps that are not kernels and have code of their own here
ALIGNMENT = 64  # bytes, of every buffer in the workspace

Value = Any


def native_loop(params: RunParams, compile_body: Callable[[Program], Runnable]) -> Callable[..., Any]:
    """``(initial carries, stacks, constants) -> array of the results``; in machine code where all of it can be."""
    body = params.body
    plan = plan_body(lowered(body.results))
    check = None if body.go is None else plan_body(lowered([body.go]))
    if plan is None or (body.go is not None and check is None) or params.length == 0:
        return run_loop(params, compile_body)
    return _LoopFunction(params, plan, check).compiled()


class _LoopFunction:
    """Writes ``i64 loop(ptr arrays, i64 first, i64 steps)`` and the Python function that calls it."""

    def __init__(self, params: RunParams, plan: NativePlan, check: NativePlan | None) -> None:
        self.params, self.plan, self.check = params, plan, check
        body = params.body
        self.results = lowered(body.results)
        self.go = None if body.go is None else lowered([body.go])[0]
        # Where the carry of the next step goes: straight into what is stored of it, unless steps may be missing.
        self.direct = {} if body.dynamic else {k: j for j, k in enumerate(params.befores)}
        self.arrays: dict[Any, int] = {}  # what the function is given, by name: an array of pointers
        self.fixed: list[tuple[int, Array]] = []
        self.fetched: list[tuple[int, Callable[[], Array]]] = []
        self.work: dict[Any, int] = {}  # offsets in the workspace
        self.work_size = 0
        self.symbols: set[str] = set()

    # --- storage

    def _array(self, key: Any) -> int:
        return self.arrays.setdefault(key, len(self.arrays))

    def _reserve(self, key: Any, size: int) -> int:
        if key not in self.work:
            self.work[key] = self.work_size
            self.work_size += -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
        return self.work[key]

    def _pointer(self, key: Any) -> Value:
        """The array that the caller gives under this name."""
        if key not in self.given:
            k = self._array(key)
            with self.builder.goto_entry_block():
                slot = self.builder.gep(
                    self.function.args[0], [ir.Constant(I64, k)], inbounds=True, source_etype=POINTER
                )
                self.given[key] = self.builder.load(slot, typ=POINTER)
        return self.given[key]

    def _scratch(self, key: Any, size: int) -> Value:
        return self._offset(self._pointer("work"), ir.Constant(I64, self._reserve(key, size)))

    def _offset(self, pointer: Value, by: Value) -> Value:
        return self.builder.gep(pointer, [by], inbounds=True, source_etype=I8)

    def _row(self, pointer: Value, step: Value, node: Node) -> Value:
        return self._offset(pointer, self.builder.mul(step, ir.Constant(I64, _bytes(node))))

    # --- the function

    def compiled(self) -> Callable[..., Any]:
        target = machine()
        self.module = ir.Module("jacana_loop")
        self.module.triple = target.triple
        self.module.data_layout = str(target.target_machine.target_data)
        self.given: dict[Any, Value] = {}
        body = self.params.body
        for name, nodes in (("init", body.carries), ("stack", body.stacks), ("const", body.consts)):
            for k in range(len(nodes)):
                self._array((name, k))
        for k in range(len(self.params.finals)):
            self._array(("final", k))
        for k in range(len(self.params.befores) + len(body.outputs)):
            self._array(("stored", k))
        kernels = self._kernels(self.plan, "kernel", target)
        checks = [] if self.check is None else self._kernels(self.check, "check", target)
        self.function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [POINTER, I64, I64]), "loop")
        self.function.append_basic_block("entry")
        start = self.function.append_basic_block("start")
        self.builder: Any = ir.IRBuilder(start)
        self._write(kernels, checks, target)
        with self.builder.goto_entry_block():
            self.builder.branch(start)
        return self._caller(self._callable())

    def _callable(self) -> Callable[..., Any]:
        """The loop as a function of arrays: those of ``self.arrays``, in order, and the first step and their number."""
        count = len(self.arrays)
        group = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [POINTER]), "group")
        b: Any = ir.IRBuilder(group.append_basic_block("entry"))

        def slot(k: int, base: Any) -> Any:
            return b.gep(base, [ir.Constant(I64, k)], inbounds=True, source_etype=POINTER)

        work = self.arrays.get("work")
        if work is not None:  # NumPy aligns to less
            start = b.ptrtoint(b.load(slot(work, group.args[0]), typ=POINTER), I64)
            up = b.and_(b.add(start, ir.Constant(I64, ALIGNMENT - 1)), ir.Constant(I64, -ALIGNMENT))
            b.store(b.inttoptr(up, POINTER), slot(work, group.args[0]))
        window = b.load(slot(count, group.args[0]), typ=POINTER)
        first, steps = (b.load(b.gep(window, [ir.Constant(I64, k)], inbounds=True, source_etype=I64), typ=I64)
                        for k in range(2))  # fmt: skip
        b.call(self.function, [group.args[0], first, steps])
        b.ret_void()
        quick = fast_calls()
        name = "call_group" if quick else "group"
        if quick:
            wrapper(self.module, group, count + 1, name, True, self.symbols)
        addresses, keep = link(object_image(str(self.module)), self.symbols, [name])
        return builtin(addresses[name], keep) if quick else slow_call(addresses[name], count + 1, keep)

    def _kernels(self, plan: NativePlan, name: str, target: Machine) -> list[tuple[Any, list[Node | Table]]]:
        made: list[tuple[Any, list[Node | Table]]] = []
        for kernel in _kernels_of(plan):
            emitter = KernelEmitter(self.module, target, kernel, f"{name}{len(made)}", plan.buffers)
            emitter.emit()
            emitter.function.linkage = "internal"
            self.symbols |= emitter.symbols
            made.append((emitter.function, emitter.used))
        return made

    def _write(self, kernels: Any, checks: Any, target: Machine) -> None:
        builder, params, body = self.builder, self.params, self.params.body
        first, steps = self.function.args[1:]
        before = builder.block
        current0 = []
        for k, node in enumerate(body.carries):
            init = self._pointer(("init", k))
            if k in self.direct:
                begin = self._row(self._pointer(("stored", self.direct[k])), first, node)
                with builder.if_then(builder.icmp_signed(">", steps, ir.Constant(I64, 0))):
                    self._copy(begin, init, node)
                before = builder.block
                current0.append(builder.select(builder.icmp_signed(">", steps, ir.Constant(I64, 0)), begin, init))
            else:
                current0.append(init)
        head, inside, done = (builder.append_basic_block(n) for n in ("head", "inside", "done"))
        before = builder.block
        builder.branch(head)
        builder.position_at_end(head)
        counter = builder.phi(I64)
        counter.add_incoming(ir.Constant(I64, 0), before)
        self.current = []
        for value in current0:
            phi = builder.phi(POINTER)
            phi.add_incoming(value, before)
            self.current.append(phi)
        builder.cbranch(builder.icmp_signed("<", counter, steps), inside, done)
        builder.position_at_end(inside)
        self.step = builder.sub(first, counter) if params.reverse else builder.add(first, counter)
        self.places: dict[Any, Value] = {}
        if body.step in self._read_anywhere():
            place = self._scratch("step", 8)
            builder.store(self.step, place).align = 8
            self.places[body.step] = place
        exits = []
        if self.check is not None:
            assert self.go is not None
            self._run(self.check, checks, target)
            flag = builder.load(self._place(self.go, self.check), typ=I8)
            flag.align = 1
            running = builder.append_basic_block("running")
            exits.append(builder.block)
            builder.cbranch(builder.icmp_unsigned("!=", flag, ir.Constant(I8, 0)), running, done)
            builder.position_at_end(running)
        for j, k in enumerate(params.befores):
            if k not in self.direct:
                row = self._row(self._pointer(("stored", j)), self.step, body.carries[k])
                self._copy(row, self.current[k], body.carries[k])
        following = self._targets(counter, steps)
        self._run(self.plan, kernels, target)
        self._copies()
        counted = builder.add(counter, ir.Constant(I64, 1))
        counter.add_incoming(counted, builder.block)
        for phi, value in zip(self.current, following, strict=True):
            phi.add_incoming(value, builder.block)
        builder.branch(head)
        builder.position_at_end(done)
        for j, k in enumerate(params.finals):
            self._copy(self._pointer(("final", j)), self.current[k], body.carries[k])
        builder.ret_void()

    def _targets(self, counter: Value, steps: Value) -> list[Value]:
        """Where this step's results go: the pointers of the next carries, and which buffers are written in place."""
        builder, body = self.builder, self.params.body
        following = []
        self.copies: list[tuple[Value, Node]] = []
        places: list[tuple[Value, Node]] = []
        odd = builder.trunc(counter, I1)
        for k, node in enumerate(body.carries):
            spare = [self._scratch(("carry", k, side), _bytes(node)) for side in range(2)]
            target = builder.select(odd, spare[1], spare[0])
            if k in self.direct:
                move = ir.Constant(I64, -1 if self.params.reverse else 1)
                row = self._row(self._pointer(("stored", self.direct[k])), builder.add(self.step, move), node)
                last = builder.icmp_signed("==", builder.add(counter, ir.Constant(I64, 1)), steps)
                target = builder.select(last, target, row)
            following.append(target)
            places.append((target, self.results[k]))
        for j in range(len(body.outputs)):
            node = body.outputs[j]
            pointer = self._pointer(("stored", len(self.params.befores) + j))
            places.append((self._row(pointer, self.step, node), self.results[len(body.carries) + j]))
        computed = {node for node in self.plan.buffers if node not in called(self.plan) or node.op in _OWN}
        for pointer, node in places:
            if node in computed and node not in self.places:
                self.places[node] = pointer  # the first one is written, the others are copies of it
            else:
                self.copies.append((pointer, node))
        return following

    def _copies(self) -> None:
        for pointer, node in self.copies:
            if node in called(self.plan) and node.op not in _OWN:
                self._copy_view(pointer, node)
            else:
                self._copy(pointer, self._place(node, self.plan), node)

    def _copy_view(self, pointer: Value, node: Node) -> None:
        # A result that is a view of something: the planner asks for it only where nothing but NumPy would read it.
        raise AssertionError(node)

    def _place(self, key: Any, plan: NativePlan) -> Value:
        """The pointer to a buffer, during one step."""
        if key in self.places:
            return self.places[key]
        body = self.params.body
        if isinstance(key, Table):
            self._fix(key, table_array(key))
            return self._pointer(key)
        if key in body.carries:
            return self.current[body.carries.index(key)]
        if key in body.stacks:
            k = body.stacks.index(key)
            self.places[key] = self._row(self._pointer(("stack", k)), self.step, key)
            return self.places[key]
        if key in body.consts:
            return self._pointer(("const", body.consts.index(key)))
        if key.op is LITERAL:
            self._fix(key, np.array(literal_array(key.params)))
            return self._pointer(key)
        if key.op is CONSTANT:
            if key not in self.arrays:
                self.fetched.append((self._array(key), key.params.owner.value))
            return self._pointer(key)
        self.places[key] = self._scratch(key, _bytes(key))
        return self.places[key]

    def _fix(self, key: Any, array: Array) -> None:
        if key not in self.arrays:
            self.fixed.append((self._array(key), np.ascontiguousarray(array)))

    def _run(self, plan: NativePlan, kernels: Any, target: Machine) -> None:
        for node in plan.buffers:
            if node in plan.zeroed or not _written(plan, node):
                self._zero(self._place(node, plan), _bytes(node))
        ready = iter(kernels)
        calls = called(plan)
        for step in plan.steps:
            if isinstance(step, Group):
                for _ in step.kernels:
                    function, used = next(ready)
                    self.builder.call(function, [self._place(key, plan) for key in used])
            elif step.node.op is contract:
                node = step.node
                if 0 in node.params.sizes:
                    self._zero(self._place(node, plan), _bytes(node))
                    continue
                operands = [access(plan, calls, node, k) for k in range(len(node.inputs))]
                found = [a for a in operands if a is not None]
                pointers = [self._place(a.buffer, plan) for a in found]
                Products(self.module, self.builder, target.lanes).emit(node, found, pointers, self._place(node, plan))
            elif step.node.op in (read_at, write_at):
                self._positioned(step.node, plan, target)

    def _positioned(self, node: Node, plan: NativePlan, target: Machine) -> None:
        """A slice read or written at integers that are known now; out of bounds, the caller raises the error."""
        builder, params = self.builder, node.params
        found = through_views(called(plan), node.inputs[0])
        assert found is not None
        steps = [math.prod(params.source[a + 1 :]) for a in range(len(params.source))]
        if node.op is read_at:
            steps = list(found.strides)
        shift: Value = ir.Constant(I64, 0)
        for a, start in zip(params.axes, node.inputs[1:], strict=True):
            value = builder.load(self._place(start, plan), typ=I64)
            value.align = 8
            size = ir.Constant(I64, params.source[a])
            value = builder.select(
                builder.icmp_signed("<", value, ir.Constant(I64, 0)), builder.add(value, size), value
            )
            fits = builder.icmp_unsigned("<", value, size)
            with builder.if_then(builder.not_(fits), likely=False):
                builder.store(ir.Constant(I64, 1), self._pointer("status")).align = 8
            value = builder.select(fits, value, ir.Constant(I64, 0))
            shift = builder.add(shift, builder.mul(value, ir.Constant(I64, steps[a] * node.dtype.itemsize)))
        offset, strides = 0, [0] * len(params.shape)
        for e, step in zip(params.indices, steps, strict=True):
            assert isinstance(e, Affine)
            offset += step * e.offset
            for a, s in e.strides:
                strides[a] += step * s
        place = self._place(node, plan)
        if math.prod(params.source) == 0 or math.prod(params.shape) == 0:
            self._zero(place, _bytes(node))
            return
        products = Products(self.module, builder, target.lanes)
        source = self._place(found.buffer, plan)
        if node.op is read_at:
            moved = Access(found.buffer, found.offset + offset, tuple(strides))
            own = [math.prod(params.shape[a + 1 :]) for a in range(len(params.shape))]
            products.copy(node, params.shape, own, moved, (self._offset(source, shift), place))
        else:
            self._zero(place, _bytes(node))
            begin = builder.add(shift, ir.Constant(I64, offset * node.dtype.itemsize))
            products.copy(node, params.shape, strides, found, (source, self._offset(place, begin)))

    def _read_anywhere(self) -> set[Any]:
        body = self.params.body
        ends = [*self.results, *([] if self.go is None else [self.go])]
        from ...graph.node import topological

        return {body.step} & set(topological(ends))

    # --- memory

    def _copy(self, target: Value, source: Value, node: Node) -> None:
        if not _bytes(node):
            return
        self._intrinsic("llvm.memcpy.p0.p0.i64", [POINTER, POINTER, I64, I1], [target, source], _bytes(node))

    def _zero(self, target: Value, size: int) -> None:
        if size:
            self._intrinsic("llvm.memset.p0.i64", [POINTER, I8, I64, I1], [target, ir.Constant(I8, 0)], size)

    def _intrinsic(self, name: str, kinds: Sequence[Any], arguments: list[Value], size: int) -> None:
        function = self.module.globals.get(name)
        if function is None:
            function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), kinds), name)
        self.builder.call(function, [*arguments, ir.Constant(I64, size), ir.Constant(I1, 0)])

    # --- the call

    def _caller(self, function: Callable[..., Any]) -> Callable[..., Any]:
        params, body = self.params, self.params.body
        given = len(body.carries) + len(body.stacks) + len(body.consts)
        constants = given - len(body.consts)
        finals = [body.carries[k] for k in params.finals]
        makers: list[Callable[[], Array]] = [functools.partial(np.empty, n.shape, n.dtype) for n in finals]
        makers += storage_makers(params)
        template: list[Any] = [None] * (len(self.arrays) + 1)
        for k, array in self.fixed:
            template[k] = array
        fetched = list(self.fetched)
        work, status = self.arrays.get("work"), self.arrays.get("status")
        work_size = self.work_size + ALIGNMENT
        window = None if body.dynamic else steps_of(params, ())

        def run(*arrays: Array) -> Any:
            slots = template.copy()
            held = [a if type(a) is np.ndarray and a.flags.c_contiguous else np.ascontiguousarray(a) for a in arrays]
            made = [make() for make in makers]
            slots[:given] = held
            slots[given : given + len(made)] = made
            for k, fetch in fetched:
                slots[k] = np.ascontiguousarray(fetch())
            if work is not None:
                slots[work] = np.empty(work_size, dtype=np.uint8)
            steps = steps_of(params, tuple(held[constants:])) if window is None else window
            slots[-1] = np.array((steps.start, len(steps)), dtype=np.int64)
            if status is not None:
                slots[status] = np.zeros(1, dtype=np.int64)
            function(*slots)
            if status is not None and slots[status][0]:
                raise IndexError("an index in the body of a loop is out of bounds")
            return bundle(made)

        return run


def _bytes(node: Node) -> int:
    return node.size * node.dtype.itemsize


def _written(plan: NativePlan, node: Node) -> bool:
    """Whether some step fills the buffer; the others are structural zeros."""
    if node in called(plan):
        return True
    return any(job.buffer is node for kernel in _kernels_of(plan) for job in kernel.jobs)


def _kernels_of(plan: NativePlan) -> list[Kernel]:
    return [kernel for step in plan.steps if isinstance(step, Group) for kernel in step.kernels]


__all__ = ["native_loop"]
