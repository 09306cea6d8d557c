"""Code written by hand, for what no kernel of a graph does: counted loops over arrays, in lanes where they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from .emitter import F32, F64, I64, Emitter
from .engine import machine

__all__ = ["Instructions"]


class Instructions(Emitter):
    """Loops over arrays of one kind of floats, and of int64, in one function."""

    def __init__(
        self, module: ir.Module, name: str, result: Any, kinds: list[Any], internal: bool = False, kind: Any = F64
    ) -> None:
        super().__init__(module, machine())
        self.kind = kind
        self.function = ir.Function(module, ir.FunctionType(result, kinds), name)
        if internal:
            self.function.linkage = "internal"
        self.arguments: list[Any] = list(self.function.args)
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.vector = ir.VectorType(kind, self.lanes)

    @contextmanager
    def counted(self, begin: Any, end: Any, step: int = 1, variable: Any = None) -> Iterator[Any]:
        """For i from begin, while a whole step fits in below end; `variable` holds i, and what comes after the last."""
        b = self.builder
        place = self.reserve(I64, 1) if variable is None else variable
        b.store(begin, place)
        head, inside, done = (b.append_basic_block(name) for name in ("head", "inside", "done"))
        b.branch(head)
        b.position_at_end(head)
        i = b.load(place, typ=I64)
        b.cbranch(b.icmp_signed("<=", self.plus(i, step), end), inside, done)
        b.position_at_end(inside)
        yield i
        b.store(self.plus(i, step), place)
        b.branch(head)
        b.position_at_end(done)

    def swept(self, begin: Any, end: Any, body: Callable[[Any, Any], None]) -> None:
        """``body(i, kind)`` for vectors, then for the numbers that are left."""
        variable = self.reserve(I64, 1)
        with self.counted(begin, end, self.lanes, variable) as i:
            body(i, self.vector)
        with self.counted(self.builder.load(variable, typ=I64), end) as i:
            body(i, self.kind)

    def plus(self, a: Any, b: Any) -> Any:
        return self.builder.add(a, ir.Constant(I64, b) if isinstance(b, int) else b)

    def minus(self, a: Any, b: Any) -> Any:
        return self.builder.sub(a, b)

    def times(self, a: Any, b: Any) -> Any:
        return self.builder.mul(a, b)

    def at(self, array: Any, index: Any, kind: Any = None) -> Any:
        return self.builder.gep(array, [index], source_etype=I64 if kind == I64 else self.kind)

    def load(self, array: Any, index: Any, kind: Any = None) -> Any:
        """A number, or the vector that begins there; of the kind of the floats, if nothing is said."""
        value = self.builder.load(self.at(array, index, kind), typ=kind or self.kind)
        value.align = self._align(value.type)
        return value

    def store(self, value: Any, array: Any, index: Any) -> None:
        self.builder.store(value, self.at(array, index, value.type)).align = self._align(value.type)

    def _align(self, kind: Any) -> int:
        return 4 if self.kind == F32 and kind != I64 else 8

    def subtracted(self, total: Any, a: Any, b: Any) -> Any:
        """``total - a b``, with one rounding where that is fast."""
        return self.intrinsic("llvm.fmuladd", self.neg(a), b, total)
