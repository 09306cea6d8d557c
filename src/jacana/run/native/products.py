"""Sums of products inside a loop's machine code: small matrices times vectors or matrices, in registers.

Lanes run along an axis of the result that is contiguous in every operand that has it, or else along a summed axis that
is. Several vectors of the result are kept in registers while the summed axes are gone through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from ...graph.node import Node
from ...plan.native_loops import Access
from .emitter import I32, I64, VALUE_TYPES

VECTORS = 4  # vectors of the result in registers, along the lanes
ROWS = 4  # and across them
MANY = 8  # accumulators where there is only one of the two

Value = Any


@dataclass
class Products:
    """Emits one contraction into a function that is being built."""

    module: ir.Module
    builder: Any
    lanes: int

    def emit(self, node: Node, operands: Sequence[Access], pointers: Sequence[Value], target: Value) -> None:
        """``target[out] = sum of products of operands``; pointers are those of the operands' buffers."""
        params = node.params
        stride = 1
        strides = [0] * len(params.sizes)
        for x in reversed(params.out):
            strides[x] = stride
            stride *= params.sizes[x]
        self._emit(node, params.sizes, params.out, strides, operands, pointers, target)

    def copy(self, node: Node, sizes: Sequence[int], strides: Sequence[int], source: Access, pointers: Any) -> None:
        """``target[strides . d] = source[d]`` for every point d of ``sizes``; pointers: source, target."""
        self._emit(node, sizes, tuple(range(len(sizes))), strides, [source], pointers[:1], pointers[1])

    def _emit(
        self,
        node: Node,
        sizes: Sequence[int],
        result: Sequence[int],
        strides: Sequence[int],
        operands: Sequence[Access],
        pointers: Sequence[Value],
        target: Value,
    ) -> None:
        self.kind = VALUE_TYPES[node.dtype]
        self.align = node.dtype.itemsize
        self.operands = list(zip(operands, pointers, strict=True))
        self.target, self.sizes, self.out_strides = target, sizes, strides
        out = [x for x in result if sizes[x] > 1]
        summed = [x for x in range(len(sizes)) if x not in result and sizes[x] > 1]
        self.moves = not summed and len(operands) == 1
        self.width = self.lanes
        while self.width > 1:  # short axes get short vectors
            along_out = [x for x in out if self._contiguous(x) and self.out_strides[x] == 1 and self._long(x)]
            along_sum = [x for x in summed if self._contiguous(x) and self._long(x)]
            if along_out:
                self._lanes_out(along_out[0], out, summed)
                return
            if along_sum:
                self._lanes_summed(max(along_sum, key=lambda x: self.sizes[x]), out, summed)
                return
            self.width //= 2
        self._scalar(out, summed)

    def _contiguous(self, x: int) -> bool:
        return all(a.strides[x] in (0, 1) for a, _ in self.operands) and any(a.strides[x] for a, _ in self.operands)

    def _long(self, x: int) -> bool:
        return self.sizes[x] >= self.width

    # --- the three ways

    def _lanes_out(self, lane: int, out: list[int], summed: list[int]) -> None:
        others = [x for x in out if x != lane]
        row = self._row_label(others, lane)
        rest = [x for x in others if x != row]
        whole, tail = divmod(self.sizes[lane], self.width)
        wide = VECTORS if row is not None else MANY

        def across(at: dict[int, Value]) -> None:
            def columns(here: dict[int, Value], rows: int) -> None:
                for first, count in self._blocks(whole, wide, here, lane, self.width):
                    self._block(first, lane, row, rows, count, summed)
                if tail:
                    # The last vector is moved back so that it ends with the axis; what it overlaps is stored twice.
                    last = {**here, lane: ir.Constant(I64, self.sizes[lane] - self.width)}
                    self._block(last, lane, row, rows, 1, summed)

            if row is None:
                columns(at, 1)
            else:
                for first, count in self._blocks(self.sizes[row], ROWS, at, row, 1):
                    columns(first, count)

        self._nest(rest, {}, across)

    def _blocks(self, total: int, size: int, at: dict[int, Value], label: int, step: int) -> Any:
        """A loop over whole blocks, then what is left: ``(counters, block size)`` for the code to write at each."""
        size = min(size, total)
        if not size:
            return
        many, left = divmod(total, size)
        if many == 1:
            yield {**at, label: ir.Constant(I64, 0)}, size
        elif many:
            with self._loop(many) as counter:
                yield {**at, label: self.builder.mul(counter, ir.Constant(I64, size * step))}, size
        if left:
            yield {**at, label: ir.Constant(I64, many * size * step)}, left

    def _row_label(self, others: list[int], lane: int) -> int | None:
        """An axis across which one operand is the same, so that it is loaded once for several rows."""
        best = [x for x in others if any(not a.strides[x] for a, _ in self.operands)]
        return max(best, key=lambda x: self.sizes[x], default=None)

    def _block(
        self, at: dict[int, Value], lane: int, row: int | None, rows: int, vectors: int, summed: list[int]
    ) -> None:
        """``rows`` times ``vectors`` vectors of the result, summed in registers."""
        vector = ir.VectorType(self.kind, self.width)
        zero = ir.Constant(vector, [0.0] * self.width)

        def body(counters: dict[int, Value], totals: list[Value]) -> list[Value]:
            loaded: dict[tuple[int, int, int], Value] = {}
            result = []
            for r in range(rows):
                for v in range(vectors):
                    factors = []
                    for k, (a, pointer) in enumerate(self.operands):
                        key = (k, r if row is not None and a.strides[row] else 0, v if a.strides[lane] else 0)
                        if key not in loaded:
                            extra = (key[1] * a.strides[row] if row is not None else 0) + key[2] * self.width
                            place = self._place(a, counters, extra)
                            loaded[key] = (
                                self._load(pointer, place, self.width)
                                if a.strides[lane]
                                else self._splat(self._load(pointer, place, 1))
                            )
                        factors.append(loaded[key])
                    result.append(self._accumulate(totals[r * vectors + v], factors))
            return result

        totals = self._sum(summed, at, [zero] * (rows * vectors), body)
        for r in range(rows):
            for v in range(vectors):
                extra = (r * self.out_strides[row] if row is not None else 0) + v * self.width
                self._store(totals[r * vectors + v], self._target_place(at, extra))

    def _lanes_summed(self, lane: int, out: list[int], summed: list[int]) -> None:
        row = self._row_label(out, lane) if out else None
        if row is None and out:
            row = max(out, key=lambda x: self.sizes[x])
        rest = [x for x in out if x != row]
        others = [x for x in summed if x != lane]
        whole, tail = divmod(self.sizes[lane], self.width)
        vector = ir.VectorType(self.kind, self.width)
        zero = ir.Constant(vector, [0.0] * self.width)

        def rows_at(at: dict[int, Value], rows: int) -> None:
            def reads(counters: dict[int, Value], r: int, width: int) -> list[Value]:
                factors = []
                for a, pointer in self.operands:
                    extra = r * a.strides[row] if row is not None else 0
                    place = self._place(a, counters, extra)
                    one = self._load(pointer, place, width if a.strides[lane] else 1)
                    factors.append(one if a.strides[lane] or width == 1 else self._splat(one))
                return factors

            def inner(counters: dict[int, Value], totals: list[Value]) -> list[Value]:
                def at_vector(here: dict[int, Value], sums: list[Value]) -> list[Value]:
                    moved = {**here, lane: self.builder.mul(here[lane], ir.Constant(I64, self.width))}
                    return [self._accumulate(s, reads(moved, r, self.width)) for r, s in enumerate(sums)]

                return self._carried(whole, lane, counters, totals, at_vector)

            wide = self._sum(others, at, [zero] * rows, inner)
            sums = [self._horizontal(w) for w in wide]
            if tail:

                def rest_of(counters: dict[int, Value], totals: list[Value]) -> list[Value]:
                    for j in range(tail):
                        moved = {**counters, lane: ir.Constant(I64, whole * self.width + j)}
                        totals = [self._accumulate(s, reads(moved, r, 1)) for r, s in enumerate(totals)]
                    return totals

                sums = self._sum(others, at, sums, rest_of)
            for r, value in enumerate(sums):
                extra = r * self.out_strides[row] if row is not None else 0
                self._store(value, self._target_place(at, extra))

        def across(at: dict[int, Value]) -> None:
            if row is None:
                rows_at(at, 1)
            else:
                for first, count in self._blocks(self.sizes[row], MANY, at, row, 1):
                    rows_at(first, count)

        self._nest(rest, {}, across)

    def _scalar(self, out: list[int], summed: list[int]) -> None:
        def point(at: dict[int, Value]) -> None:
            def body(counters: dict[int, Value], totals: list[Value]) -> list[Value]:
                factors = [self._load(p, self._place(a, counters, 0), 1) for a, p in self.operands]
                return [self._accumulate(totals[0], factors)]

            total = self._sum(summed, at, [ir.Constant(self.kind, 0.0)], body)
            self._store(total[0], self._target_place(at, 0))

        self._nest(out, {}, point)

    # --- loops

    @contextmanager
    def _loop(self, count: int) -> Any:
        builder = self.builder
        before = builder.block
        head = builder.append_basic_block("product")
        builder.branch(head)
        builder.position_at_end(head)
        counter = builder.phi(I64)
        counter.add_incoming(ir.Constant(I64, 0), before)
        yield counter
        following = builder.add(counter, ir.Constant(I64, 1), flags=("nuw", "nsw"))
        counter.add_incoming(following, builder.block)
        after = builder.append_basic_block("after")
        builder.cbranch(builder.icmp_unsigned("<", following, ir.Constant(I64, count)), head, after)
        builder.position_at_end(after)

    def _nest(self, labels: list[int], at: dict[int, Value], body: Callable[[dict[int, Value]], None]) -> None:
        if not labels:
            body(at)
            return
        with self._loop(self.sizes[labels[0]]) as counter:
            self._nest(labels[1:], {**at, labels[0]: counter}, body)

    def _carried(
        self,
        count: int,
        label: int,
        at: dict[int, Value],
        totals: list[Value],
        body: Callable[[dict[int, Value], list[Value]], list[Value]],
    ) -> list[Value]:
        """A loop that carries accumulators in registers."""
        if count == 1:
            return body({**at, label: ir.Constant(I64, 0)}, totals)
        builder = self.builder
        before = builder.block
        with self._loop(count) as counter:
            head = builder.block
            sums = []
            for total in totals:
                phi = builder.phi(total.type)
                phi.add_incoming(total, before)
                sums.append(phi)
            results = body({**at, label: counter}, sums)
            end = builder.block
            for phi, result in zip(sums, results, strict=True):
                phi.add_incoming(result, end)
            assert head is counter.parent
        return results

    def _sum(
        self,
        labels: list[int],
        at: dict[int, Value],
        totals: list[Value],
        body: Callable[[dict[int, Value], list[Value]], list[Value]],
    ) -> list[Value]:
        if not labels:
            return body(at, totals)
        return self._carried(
            self.sizes[labels[0]],
            labels[0],
            at,
            totals,
            lambda here, sums: self._sum(labels[1:], here, sums, body),
        )

    # --- values

    def _accumulate(self, total: Value, factors: list[Value]) -> Value:
        if self.moves:
            return factors[0]  # adding zero would lose the sign of a zero
        if len(factors) == 1:
            return self.builder.fadd(total, factors[0])
        kind = {4: "f32", 8: "f64"}[self.align]
        vector = isinstance(total.type, ir.VectorType)
        name = f"llvm.fmuladd.{f'v{self.width}' if vector else ''}{kind}"
        function = self.module.globals.get(name)
        if function is None:
            function = ir.Function(self.module, ir.FunctionType(total.type, [total.type] * 3), name)
        product = factors[0]
        for factor in factors[1:-1]:
            product = self.builder.fmul(product, factor)
        return self.builder.call(function, [product, factors[-1], total])

    def _horizontal(self, value: Value) -> Value:
        width = self.width
        undefined = ir.Constant(value.type, ir.Undefined)
        while width > 1:
            width //= 2
            mask = [k + width if k < width else k for k in range(self.width)]
            moved = self.builder.shuffle_vector(value, undefined, ir.Constant(ir.VectorType(I32, self.width), mask))
            value = self.builder.fadd(value, moved)
        return self.builder.extract_element(value, ir.Constant(I32, 0))

    def _splat(self, value: Value) -> Value:
        vector = ir.VectorType(value.type, self.width)
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(
            first, undefined, ir.Constant(ir.VectorType(I32, self.width), [0] * self.width)
        )

    def _position(self, strides: Sequence[int], at: dict[int, Value], offset: int) -> Value:
        total: Value = ir.Constant(I64, offset)
        for x, counter in at.items():
            if strides[x]:
                scaled = counter if strides[x] == 1 else self.builder.mul(counter, ir.Constant(I64, strides[x]))
                total = self.builder.add(total, scaled)
        return total

    def _place(self, a: Access, at: dict[int, Value], extra: int) -> Value:
        return self._position(a.strides, at, a.offset + extra)

    def _target_place(self, at: dict[int, Value], extra: int) -> Value:
        return self._position(self.out_strides, at, extra)

    def _load(self, pointer: Value, place: Value, width: int) -> Value:
        address = self.builder.gep(pointer, [place], inbounds=True, source_etype=self.kind)
        value = self.builder.load(address, typ=self.kind if width == 1 else ir.VectorType(self.kind, width))
        value.align = self.align
        return value

    def _store(self, value: Value, place: Value) -> None:
        address = self.builder.gep(self.target, [place], inbounds=True, source_etype=self.kind)
        self.builder.store(value, address).align = self.align
