"""One kernel of a plan as an LLVM function: loops, loads, every value once, stores.

Lanes run along one loop, as a rule the innermost. Its last step is moved back so that it ends with the loop: some
elements are computed twice, which changes nothing, and no remainder loop is needed. (Sums, where it would change
something, leave out what has been done: ``reductions.py``.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

import numpy as np
from llvmlite import ir

from ...graph.index import Table
from ...graph.node import LITERAL, Node, literal_array
from ...graph.ops.contraction import contract
from ...graph.ops.elementwise import select
from ...graph.ops.movement import assemble, index
from ...plan.jobs import Job, Kernel
from ...plan.native_plan import requests
from ...plan.points import At, Gather, Point, flat, known
from .emitter import I1, I8, I32, I64, POINTER, VALUE_TYPES, Emitter, element, is_vector
from .engine import Machine
from .reductions import Reductions, vectors_a_step
from .runner import table_array

SEQUENTIAL = 16  # terms of a sum that are added one after another
MAX_STRIDE = 16  # interleaved elements up to which whole blocks are loaded and shuffled

Buffer = Node | Table
Value = Any


class KernelEmitter(Emitter):
    """Emits ``void name(ptr buffer..., [i64 begin, i64 end, i64 tile])``; ``used`` are the buffers in that order.

    The numbers are the range of the loop that is split, if one is, and which tile that is.
    """

    def __init__(self, module: ir.Module, target: Machine, kernel: Kernel, name: str, buffers: set[Node]) -> None:
        super().__init__(module, target)
        self.kernel, self.buffers = kernel, buffers
        self._forget()
        self.used = self._find_buffers()
        numbers = [] if kernel.split is None else [I64] * 3
        kind = ir.FunctionType(ir.VoidType(), [POINTER] * len(self.used) + numbers)
        self.function = ir.Function(module, kind, name)
        for argument in self.function.args[: len(self.used)]:
            argument.add_attribute("noalias")
        self.pointers = dict(zip(self.used, self.function.args, strict=False))
        self.lane_loop = kernel.lane
        self.vector = bool(kernel.sizes) and kernel.sizes[self.lane_loop] >= self.lanes and not kernel.scalar
        self.width = vectors_a_step(kernel, self.lanes) if self.vector else 1
        self.own: Node | None = None

    def emit(self) -> None:
        """Write the function."""
        kernel = self.kernel
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.counters: list[Value] = [ir.Constant(I64, 0)] * len(kernel.sizes)
        if kernel.split is not None:
            self.counters.append(self.function.args[-1])
        reduced = kernel.reduced
        stores = [job for job in kernel.jobs if not job.summed]
        sums = [job for job in kernel.jobs if job.summed]
        kept = [k for k in range(len(kernel.sizes)) if not reduced[k]]
        with contextlib.ExitStack() as outer:
            for depth in kept:
                outer.enter_context(self._loop(depth))
            if not sums:
                self._store(stores)
            else:
                Reductions(self, sums, [k for k in range(len(kernel.sizes)) if reduced[k]]).emit(
                    lambda: self._store(stores)
                )
        self.builder.ret_void()

    def _forget(self) -> None:
        """Values belong to one place of the counters."""
        self.values: dict[tuple[Node, Point], Value] = {}
        self.integers: dict[Any, Value] = {}
        self.blocks: dict[Any, list[Value]] = {}

    def _store(self, jobs: Sequence[Job]) -> None:
        stores: dict[tuple[Node, tuple[Any, ...]], dict[int, Value]] = {}
        # Scalars leave their registers when they are ready; lanes wait for their neighbours in memory.
        at_once = not self.vector and not (self.kernel.accumulate and self.kernel.sizes)
        for job in jobs:
            for point in job.points():
                at = job.target(point)
                ((node, here),) = job.reads(point)
                value = self._value(node, here, job.buffer)
                if at_once:
                    if job.accumulate:
                        value = self.add(self._load(job.buffer, at, job.buffer.size), value)
                    self._write(job.buffer, self._integer(at), self._to_memory(job.buffer, value))
                    continue
                stores.setdefault((job.buffer, at.terms), {})[at.offset] = value
        if self.kernel.accumulate and not at_once:
            self._add_to_old(stores)
        for (buffer, terms), places in stores.items():
            self._store_group(buffer, terms, places)

    def _add_to_old(self, stores: dict[tuple[Node, tuple[Any, ...]], dict[int, Value]]) -> None:
        """What is stored becomes the sum with what is there. Lanes that the step before has done add -0.0: nothing."""
        fresh = None
        size = self.kernel.sizes[-1] if self.kernel.sizes else 1
        if self.vector and size % self.lanes:
            done = ir.Constant(I64, size - size % self.lanes)
            position = self.counters[-1]
            ramp = ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))
            mine = self.builder.add(self.splat(position), ramp)
            tail = self.builder.icmp_unsigned(">=", mine, self.splat(done))
            whole = self.builder.icmp_unsigned("<=", position, ir.Constant(I64, size - size % self.lanes - self.lanes))
            fresh = self.builder.or_(self.splat(whole), tail)
        for (buffer, terms), places in stores.items():
            for offset, value in places.items():
                if fresh is not None:
                    value = self.select(fresh, value, self.const(-0.0, value))
                places[offset] = self.add(self._load(buffer, At(offset, terms), buffer.size), value)

    # --- loops

    def _bounds(self, depth: int) -> tuple[Value, Value]:
        """Where a loop begins and ends: all of it, or one tile."""
        if depth == self.kernel.split:
            return self.function.args[-3], self.function.args[-2]
        return ir.Constant(I64, 0), ir.Constant(I64, self.kernel.sizes[depth])

    @contextmanager
    def _loop(self, depth: int) -> Iterator[None]:
        """One loop. In lanes its last step is moved back so that it ends with the loop."""
        begin, end = self._bounds(depth)
        lanes = self.lanes * self.width if self.vector and depth == self.lane_loop else 1
        with self.counting(begin, end, lanes, f"loop{depth}") as position:
            if self.kernel.sizes[depth] % lanes and self.kernel.sizes[depth] > lanes:
                limit = self.builder.sub(end, ir.Constant(I64, lanes))
                position = self.builder.select(self.builder.icmp_signed("<", position, limit), position, limit)
            self.counters[depth] = position
            yield

    @contextmanager
    def counting(self, begin: Value, end: Value, step: int, name: str) -> Iterator[Value]:
        """``for (p = begin; p < end; p += step)``, entered at least once."""
        builder = self.builder
        before = builder.block
        head = builder.append_basic_block(name)
        builder.branch(head)
        builder.position_at_end(head)
        position = builder.phi(I64, name[0])
        position.add_incoming(begin, before)
        yield position
        following = builder.add(position, ir.Constant(I64, step), flags=("nuw", "nsw"))
        position.add_incoming(following, builder.block)
        after = builder.append_basic_block(f"after_{name}")
        builder.cbranch(builder.icmp_signed("<", following, end), head, after)
        builder.position_at_end(after)

    # --- integers

    def _by_lane(self, at: At) -> tuple[int, tuple[tuple[Any, int], ...], At]:
        """Stride along the lanes, the lookups that differ by lane, and the rest, which does not."""
        if not self.vector:
            return 0, (), at
        stride = 0
        varying: list[tuple[Any, int]] = []
        rest: list[tuple[Any, int]] = []
        for atom, c in at.terms:
            if atom == self.lane_loop and isinstance(atom, int):
                stride = c
                rest.append((atom, c))  # the counter itself is the position of the first lane
            elif isinstance(atom, Gather) and self._varies(atom):
                varying.append((atom, c))
            else:
                rest.append((atom, c))
        return stride, tuple(varying), At(at.offset, tuple(rest))

    def _varies(self, gather: Gather) -> bool:
        return any(
            atom == self.lane_loop if isinstance(atom, int) else self._varies(atom)
            for argument in gather.args
            for atom, _ in argument.terms
        )

    def _integer(self, at: At) -> Value:
        """A coordinate that is the same for all lanes (or the first lane's), as i64."""
        if at in self.integers:
            return self.integers[at]
        total: Value = ir.Constant(I64, at.offset)
        for atom, c in at.terms:
            base = self.counters[atom] if isinstance(atom, int) else self._lookup(atom)
            scaled = base if c == 1 else self.builder.mul(base, ir.Constant(I64, c))
            total = self.builder.add(total, scaled)
        self.integers[at] = total
        return total

    def _lookup(self, gather: Gather) -> Value:
        """``table[args]`` as i64, a vector if the arguments differ by lane."""
        if gather in self.integers:
            return self.integers[gather]
        at = flat(gather.args, gather.table.values.shape)
        value = self._load(gather.table, at, gather.table.values.size)
        kind = ir.VectorType(I64, self.lanes) if is_vector(value) else I64
        if element(value) != I64:
            value = self.builder.sext(value, kind)
        self.integers[gather] = value
        return value

    # --- loads

    def _memory_type(self, buffer: Buffer) -> Any:
        if isinstance(buffer, Table):
            return I32 if table_array(buffer).dtype == np.int32 else I64
        kind = VALUE_TYPES[buffer.dtype]
        return I8 if kind == I1 else kind

    def _address(self, buffer: Buffer, position: Value) -> Value:
        return self.builder.gep(
            self.pointers[buffer], [position], inbounds=True, source_etype=self._memory_type(buffer)
        )

    def _read(self, buffer: Buffer, position: Value, count: int = 1) -> Value:
        kind = self._memory_type(buffer)
        wide = kind if count == 1 else ir.VectorType(kind, count)
        value = self.builder.load(self._address(buffer, position), typ=wide)
        value.align = 1 if kind == I8 else 4 if kind in (I32, VALUE_TYPES[np.dtype("f4")]) else 8
        return value

    def _as_value(self, buffer: Buffer, value: Value) -> Value:
        if isinstance(buffer, Node) and buffer.dtype == np.bool_:
            zero = ir.Constant(value.type, [0] * self.lanes if is_vector(value) else 0)
            return self.builder.icmp_unsigned("!=", value, zero)
        return value

    def _load(self, buffer: Buffer, at: At, size: int) -> Value:
        stride, varying, rest = self._by_lane(at)
        if not stride and not varying:
            return self._as_value(buffer, self._read(buffer, self._integer(rest)))
        if varying:
            return self._as_value(buffer, self._load_gathered(buffer, at, stride, varying, rest, size))
        if stride == 1:
            return self._as_value(buffer, self._read(buffer, self._integer(rest), self.lanes))
        if 1 < stride <= MAX_STRIDE and all(c >= 0 for _, c in rest.terms) and rest.offset >= 0:
            start = rest.offset - rest.offset % stride
            reach = start + stride - 1 + sum(c * (self._limit(atom) - 1) for atom, c in rest.terms)
            if reach < size:
                base = At(start, rest.terms)
                key = (buffer, base)
                if key not in self.blocks:
                    self.blocks[key] = [
                        self._read(buffer, self._integer(At(start + k * self.lanes, rest.terms)), self.lanes)
                        for k in range(stride)
                    ]
                return self._as_value(buffer, self.pick(self.blocks[key], rest.offset - start, stride))
        first = self._integer(rest)
        lanes = [self._read(buffer, self.builder.add(first, ir.Constant(I64, stride * k))) for k in range(self.lanes)]
        return self._as_value(buffer, self.gather_lanes(lanes))

    def _limit(self, atom: Any) -> int:
        if isinstance(atom, int):
            return self.kernel.sizes[atom] if atom < len(self.kernel.sizes) else self.kernel.tiles
        return int(atom.table.values.max()) + 1

    def _load_gathered(
        self, buffer: Buffer, at: At, stride: int, varying: tuple[tuple[Any, int], ...], rest: At, size: int
    ) -> Value:
        width = self.lanes
        block = isinstance(buffer, Node) and buffer.dtype.kind == "f" and len(varying) == 1 and not rest.terms
        if block and varying[0][1] >= width // 2 and rest.offset >= 0:
            # Rows of a small record: load whole pieces of the row for each lane and transpose them.
            gather, c = varying[0]
            start = rest.offset - rest.offset % width
            start = min(start, c - width) if c >= width and start + width > c > rest.offset else start
            if start >= 0 and start <= rest.offset and start + width - 1 + c * (self._limit(gather) - 1) < size:
                key = (buffer, gather, c, start)
                if key not in self.blocks:
                    rows = self._lookup(gather)
                    pieces = []
                    for k in range(width):
                        row = self.builder.mul(self.lane(rows, k), ir.Constant(I64, c))
                        pieces.append(self._read(buffer, self.builder.add(row, ir.Constant(I64, start)), width))
                    self.blocks[key] = self.interleave(pieces)
                return self.blocks[key][rest.offset - start]
        lanes = []
        first = self._integer(rest)
        for k in range(self.lanes):
            position = first if not stride or not k else self.builder.add(first, ir.Constant(I64, stride * k))
            for gather, c in varying:
                part = self.lane(self._lookup(gather), k)
                scaled = part if c == 1 else self.builder.mul(part, ir.Constant(I64, c))
                position = self.builder.add(position, scaled)
            lanes.append(self._read(buffer, position))
        return self.gather_lanes(lanes)

    # --- values

    def _is_load(self, node: Node, own: Node) -> bool:
        if node.op.family == "leaf":
            return node.op is not LITERAL
        return node in self.buffers and node is not own and node not in self.kernel.computed

    def _value(self, node: Node, point: Point, own: Node) -> Value:
        """A node at a point, computed once in the loop body. An explicit stack: programs may be very deep."""
        stack = [(node, point, False)]
        while stack:
            current, here, ready = stack.pop()
            key = (current, here)
            if key in self.values:
                continue
            number = None if current in self.buffers and current is not own else known(current)
            if number is not None:
                self.values[key] = self._literal(number)
            elif self._is_load(current, own):
                self.values[key] = self._load(current, flat(here, current.shape), current.size)
            else:
                needs = requests(current, here)
                if ready or not needs:
                    self.values[key] = self._compute(current, here, [self.values[n] for n in needs])
                else:
                    stack.append((current, here, True))
                    stack.extend((n, p, False) for n, p in needs if (n, p) not in self.values)
        return self.values[(node, point)]

    def _literal(self, node: Node) -> Value:
        value = literal_array(node.params).item()
        return ir.Constant(VALUE_TYPES[node.dtype], value)

    def _compute(self, node: Node, point: Point, inputs: list[Value]) -> Value:
        kind = VALUE_TYPES[node.dtype]
        if node.op is index:
            return inputs[0]
        if node.op is assemble:
            total = inputs[0] if inputs else ir.Constant(kind, 0)
            for part in inputs[1:]:
                total = self.add(total, part)
            return total
        if node.op is contract:
            width = len(node.inputs)
            products = [reduce(self.mul, inputs[k : k + width]) for k in range(0, len(inputs), width)]
            while len(products) > SEQUENTIAL:  # pairwise, as accurate as any other sum
                products = [reduce(self.add, products[k : k + 2]) for k in range(0, len(products), 2)]
            return reduce(self.add, products) if products else ir.Constant(kind, 0.0)
        self.out_type = kind
        if node.op is select and inputs[1] is inputs[2]:
            return inputs[1]
        assert node.op.emit is not None
        return node.op.emit(self, *inputs)

    # --- stores

    def _to_memory(self, buffer: Node, value: Value) -> Value:
        if buffer.dtype == np.bool_:
            return self.builder.zext(value, ir.VectorType(I8, self.lanes) if is_vector(value) else I8)
        return value

    def _write(self, buffer: Node, position: Value, value: Value) -> None:
        instruction = self.builder.store(value, self._address(buffer, position))
        instruction.align = 1 if buffer.dtype == np.bool_ else buffer.dtype.itemsize

    def _store_group(self, buffer: Node, terms: tuple[Any, ...], places: dict[int, Value]) -> None:
        stride, varying, _ = self._by_lane(At(0, terms))
        ready = {offset: self._to_memory(buffer, value) for offset, value in places.items()}
        if not self.vector:
            for offset, value in ready.items():
                self._write(buffer, self._integer(At(offset, terms)), value)
            return
        ready = {offset: self.splat(value) for offset, value in ready.items()}
        if varying or stride == 0 or (buffer.dtype == np.bool_ and stride != 1):
            for offset, value in ready.items():
                self._scatter(buffer, At(offset, terms), stride, varying, value)
            return
        offsets = sorted(ready)
        if stride == 1:
            for offset in offsets:
                self._write(buffer, self._integer(At(offset, terms)), ready[offset])
            return
        while offsets:
            run = [offsets.pop(0)]
            while offsets and offsets[0] == run[-1] + 1 and len(run) < abs(stride):
                run.append(offsets.pop(0))
            self._store_run(buffer, terms, run, [ready[o] for o in run], stride)

    def _store_run(
        self, buffer: Node, terms: tuple[Any, ...], run: list[int], values: list[Value], stride: int
    ) -> None:
        """Neighbouring elements of every lane's row: transpose in registers, store pieces of rows."""
        lanes = self.lanes
        count = len(run)
        if stride == count and (count & (count - 1) == 0 or count <= 6):
            # The rows of all lanes follow one another without a gap: one contiguous block.
            for k, block in enumerate(self.interleave(values)):
                self._write(buffer, self._integer(At(run[0] + k * lanes, terms)), block)
            return
        while count:
            piece = lanes
            while piece > count:
                piece //= 2
            here, values = values[:piece], values[piece:]
            blocks = self.interleave(here)
            for lane in range(lanes):
                start = lane * piece
                block = blocks[start // lanes]
                if piece < lanes:
                    inside = start % lanes
                    block = (
                        self.lane(block, inside)
                        if piece == 1
                        else self.shuffle(block, block, list(range(inside, inside + piece)))
                    )
                self._write(buffer, self._integer(At(run[0] + lane * stride, terms)), block)
            run = run[piece:]
            count -= piece

    def _scatter(self, buffer: Node, at: At, stride: int, varying: Any, value: Value) -> None:
        rest = At(at.offset, tuple((a, c) for a, c in at.terms if (a, c) not in varying))
        first = self._integer(rest)
        for k in range(self.lanes):
            position = first if not stride or not k else self.builder.add(first, ir.Constant(I64, stride * k))
            for gather, c in varying:
                part = self.lane(self._lookup(gather), k)
                position = self.builder.add(position, part if c == 1 else self.builder.mul(part, ir.Constant(I64, c)))
            self._write(buffer, position, self.lane(value, k))

    # --- buffers

    def _find_buffers(self) -> list[Buffer]:
        """Every buffer and table that the kernel touches, by a dry run over what it reads."""
        found: dict[Buffer, None] = {}
        seen: set[tuple[Node, Point]] = set()
        tables: list[At] = []
        for job in self.kernel.jobs:
            found[job.buffer] = None
            stack = [read for p in job.points() for read in job.reads(p)]
            tables.extend(job.target(p) for p in job.points())
            while stack:
                node, point = stack.pop()
                if (node, point) in seen:
                    continue
                seen.add((node, point))
                if known(node) is not None and node not in self.buffers:
                    continue
                if self._is_load(node, job.buffer):
                    found[node] = None
                    tables.append(flat(point, node.shape))
                else:
                    stack.extend(requests(node, point))
        for at in tables:
            self._tables_of(at, found)
        return list(found)

    def _tables_of(self, at: At, found: dict[Buffer, None]) -> None:
        for atom, _ in at.terms:
            if isinstance(atom, Gather):
                found[atom.table] = None
                for argument in atom.args:
                    self._tables_of(argument, found)
