"""A whole loop as one machine-code function: kernels and small products of the body, carries passed by pointer.

The next carry is written where it is stored, the outputs of a step into their rows; nothing is copied that a kernel can
write in place. A body with a step that needs NumPy is left to ``run/loops.py``, with the body alone compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from ...graph.index import Affine, Table
from ...graph.node import CONSTANT, LITERAL, Array, Node, literal_array
from ...graph.ops.contraction import contract
from ...graph.ops.control import RunParams, loop_part, loop_run
from ...graph.ops.linalg import cholesky_tangent, solve
from ...graph.ops.position import read_at, write_at
from ...plan.jobs import Group, Kernel, NativePlan
from ...plan.native_loops import (
    MATRICES,
    Access,
    LoopPlan,
    access,
    argument,
    called,
    plan_loop,
    through_views,
)
from ..loops import OUT_OF_BOUNDS
from .calls import memset
from .codegen import KernelEmitter
from .emitter import I1, I8, I64, POINTER
from .engine import Machine, machine
from .matrices import matrix_function
from .products import Products
from .runner import table_array

_OWN = (contract, read_at, write_at, *MATRICES)  # steps that are not kernels and have code of their own here
INLINED_ARRAYS = 12  # that a kernel may take and still be inlined: the compiler looks at every two of them
ALIGNMENT = 64  # bytes, of every buffer in the workspace

Value = Any


class LoopFunction:
    """Writes ``void loop(ptr arrays, i64 first, i64 steps)``; ``loop_calls.py`` has what calls it.

    A loop in a body is a function of its own in the same module, called with pointers into what the outer one has.
    """

    def __init__(self, planned: LoopPlan, module: ir.Module, target: Machine) -> None:
        self.planned, self.module, self.target = planned, module, target
        self.params, self.plan, self.check = planned.params, planned.plan, planned.check
        params, body = self.params, self.params.body
        self.results, self.go = planned.results, planned.go
        # Where the carry of the next step goes: straight into what is stored of it, unless steps may be missing.
        self.direct = {} if body.dynamic else {k: j for j, k in enumerate(params.befores)}
        self.arrays: dict[Any, int] = {}  # what the function is given, by name: an array of pointers
        self.fixed: dict[Any, Array] = {}
        self.fetched: dict[Any, Callable[[], Array]] = {}
        self.work: dict[Any, int] = {}  # offsets in the workspace
        self.work_size = 0
        self.symbols: set[str] = set()
        self.given: dict[Any, Value] = {}
        for name, nodes in (("init", body.carries), ("stack", body.stacks), ("const", body.consts)):
            for k in range(len(nodes)):
                self._array((name, k))
        for k in range(len(params.finals)):
            self._array(("final", k))
        for k in range(len(params.befores) + len(body.outputs)):
            self._array(("stored", k))

    @classmethod
    def of(cls, planned: LoopPlan) -> LoopFunction:
        """The function in a module of its own."""
        target = machine()
        module = ir.Module("jacana_loop")
        module.triple = target.triple
        module.data_layout = str(target.target_machine.target_data)
        made = cls(planned, module, target)
        made.write()
        return made

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

    def write(self) -> None:
        kinds = ir.FunctionType(ir.VoidType(), [POINTER, I64, I64])
        self.function = ir.Function(self.module, kinds, self.module.get_unique_name("loop"))
        self.function.linkage = "internal"
        self.function.append_basic_block("entry")
        start = self.function.append_basic_block("start")
        self.builder: Any = ir.IRBuilder(start)
        kernels = self._kernels(self.plan)
        checks = [] if self.check is None else self._kernels(self.check)
        self._write(kernels, checks, self.target)
        with self.builder.goto_entry_block():
            self.builder.branch(start)

    def _kernels(self, plan: NativePlan) -> list[tuple[Any, list[Node | Table]]]:
        made: list[tuple[Any, list[Node | Table]]] = []
        for kernel in _kernels_of(plan):
            name = self.module.get_unique_name("kernel")
            emitter = KernelEmitter(self.module, self.target, kernel, name, plan.buffers)
            emitter.emit()
            emitter.function.linkage = "internal"
            if len(emitter.function.args) > INLINED_ARRAYS:
                emitter.function.attributes.add("noinline")
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
            if node in called(self.plan) and node.op not in _OWN and node.op is not loop_part:
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
            self.fetched[key] = key.params.owner.value
            return self._pointer(key)
        self.places[key] = self._scratch(key, _bytes(key))
        return self.places[key]

    def _fix(self, key: Any, array: Array) -> None:
        if key not in self.fixed:
            self.fixed[key] = np.ascontiguousarray(array)

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
            elif step.node.op in MATRICES:
                self._matrices(step.node, plan, target)
            elif step.node.op is loop_run:
                self._nested(step.node, plan)
            elif step.node.op is loop_part:
                self.places[step.node] = self.places[step.node.inputs[0], step.node.params.place]

    def _nested(self, node: Node, plan: NativePlan) -> None:
        """Call a loop inside: its arguments are buffers of this step, its results go into the workspace."""
        builder, params = self.builder, node.params
        planned = plan_loop(params)
        assert planned is not None
        inner = LoopFunction(planned, self.module, self.target)
        inner.write()
        self.symbols |= inner.symbols
        body = params.body
        pointers: dict[Any, Value] = {}
        names = [(n, k) for n, of in (("init", body.carries), ("stack", body.stacks), ("const", body.consts))
                 for k in range(len(of))]  # fmt: skip
        for name, source in zip(names, node.inputs, strict=True):
            found = argument(plan, called(plan), source)
            assert found is not None
            pointers[name] = self._piece(source, *found, plan)
        nodes = [*(body.carries[k] for k in params.finals), *(body.carries[k] for k in params.befores), *body.outputs]
        for j, result in enumerate(nodes):
            stored = j - len(params.finals)
            size = _bytes(result) * (1 if stored < 0 else params.length)
            place = self._scratch((node, j), size)
            self.places[node, j] = place
            pointers["final" if stored < 0 else "stored", j if stored < 0 else stored] = place
            if stored >= 0 and body.dynamic:
                self._zero(place, size)
        if "work" in inner.arrays:
            pointers["work"] = self._scratch((node, "work"), inner.work_size)
        if "status" in inner.arrays:
            pointers["status"] = self._pointer("status")
        for key, array in inner.fixed.items():
            self._fix(key, array)
            pointers[key] = self._pointer(key)
        for key, fetch in inner.fetched.items():
            self.fetched[key] = fetch
            pointers[key] = self._pointer(key)
        with builder.goto_entry_block():
            arrays = builder.alloca(POINTER, ir.Constant(I64, max(len(inner.arrays), 1)))
        for key, k in inner.arrays.items():
            slot = builder.gep(arrays, [ir.Constant(I64, k)], inbounds=True, source_etype=POINTER)
            builder.store(pointers[key], slot)
        builder.call(inner.function, [arrays, *self._window(params, pointers)])

    def _piece(self, node: Node, found: Access, dense: bool, plan: NativePlan) -> Value:
        """Where an array that a loop inside takes lies in one piece: where it is, or in a copy."""
        pointer = self._place(found.buffer, plan)
        if dense:
            return self._offset(pointer, ir.Constant(I64, found.offset * node.dtype.itemsize))
        place = self._scratch((node, "piece"), _bytes(node))
        strides = [math.prod(node.shape[a + 1 :]) for a in range(node.ndim)]
        Products(self.module, self.builder, self.target.lanes).copy(node, node.shape, strides, found, (pointer, place))
        return place

    def _window(self, params: RunParams, pointers: dict[Any, Value]) -> tuple[Value, Value]:
        """The first step of a loop inside and their number; see ``steps_of``."""
        builder, window = self.builder, params.body.window
        zero, length = ir.Constant(I64, 0), ir.Constant(I64, params.length)
        first, last = zero, length
        if window is not None:
            low, high = (builder.load(pointers["const", k], typ=I64) for k in window)
            first = builder.select(builder.icmp_signed(">", low, zero), low, zero)
            last = builder.select(builder.icmp_signed("<", high, length), high, length)
        count = builder.sub(last, first)
        count = builder.select(builder.icmp_signed(">", count, zero), count, zero)
        return builder.sub(last, ir.Constant(I64, 1)) if params.reverse else first, count

    def _matrices(self, node: Node, plan: NativePlan, target: Machine) -> None:
        """A function of small matrices, of copies that it may destroy."""
        place = self._place(node, plan)
        if node.op is cholesky_tangent:
            self._zero(place, _bytes(node))
            return
        products = Products(self.module, self.builder, target.lanes)
        copies = [self._scratch((node, "matrix"), _bytes(node.inputs[0])), place]
        for source, copy in zip(node.inputs[: 2 if node.op is solve else 1], copies, strict=False):
            found = through_views(called(plan), source)
            assert found is not None
            strides = [math.prod(source.shape[a + 1 :]) for a in range(source.ndim)]
            read = (self._place(found.buffer, plan), copy)
            products.copy(source, source.shape, strides, found, read)
        function = matrix_function(self.module, node, self.symbols)
        self.builder.call(function, [copies[0], place, self._pointer("status")])

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
                builder.store(ir.Constant(I64, OUT_OF_BOUNDS), self._pointer("status")).align = 8
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
            parts = [target, ir.Constant(I8, 0), ir.Constant(I64, size), ir.Constant(I1, 0)]
            self.builder.call(memset(self.module), parts)

    def _intrinsic(self, name: str, kinds: Sequence[Any], arguments: list[Value], size: int) -> None:
        function = self.declared(name, kinds)
        self.builder.call(function, [*arguments, ir.Constant(I64, size), ir.Constant(I1, 0)])

    def declared(self, name: str, kinds: Sequence[Any]) -> Any:
        function = self.module.globals.get(name)
        return function or ir.Function(self.module, ir.FunctionType(ir.VoidType(), kinds), name)

    def template(self) -> list[Any]:
        """The arguments of the function, with what is the same at every call."""
        template: list[Any] = [None] * (len(self.arrays) + 1)
        for key, array in self.fixed.items():
            template[self.arrays[key]] = array
        return template


def slot_of(builder: Any, arrays: Value, k: int) -> Value:
    return builder.gep(arrays, [ir.Constant(I64, k)], inbounds=True, source_etype=POINTER)


def _bytes(node: Node) -> int:
    return node.size * node.dtype.itemsize


def _written(plan: NativePlan, node: Node) -> bool:
    """Whether some step fills the buffer; the others are structural zeros."""
    if node in called(plan):
        return True
    return any(job.buffer is node for kernel in _kernels_of(plan) for job in kernel.jobs)


def _kernels_of(plan: NativePlan) -> list[Kernel]:
    return [kernel for step in plan.steps if isinstance(step, Group) for kernel in step.kernels]


__all__ = ["ALIGNMENT", "LoopFunction", "slot_of"]
