"""What the records' ``emit`` entries speak to: scalar or vector instructions, chosen by the operands.

A value is an LLVM value of scalar type (the same for every lane) or of vector type (one element for each lane).
No fast-math flag is ever set: NaN, infinity and signed zero behave as IEEE 754 and NumPy say.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from .engine import Machine
from .mathematics import source_of, vector_function

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
F32, F64 = ir.FloatType(), ir.DoubleType()
POINTER = ir.PointerType()

VALUE_TYPES = {
    np.dtype("f8"): F64,
    np.dtype("f4"): F32,
    np.dtype("i8"): I64,
    np.dtype("i4"): I32,
    np.dtype(bool): I1,
}


def element(value: Any) -> Any:
    """The scalar type of a value."""
    return value.type.element if isinstance(value.type, ir.VectorType) else value.type


def is_vector(value: Any) -> bool:
    return isinstance(value.type, ir.VectorType)


class Emitter:
    """Instructions on values, in one function of one module."""

    def __init__(self, module: ir.Module, target: Machine) -> None:
        self.module, self.target = module, target
        self.lanes = target.lanes
        self.builder: Any = None
        self.symbols: set[str] = set()
        self.out_type: Any = None  # the dtype of the node being emitted, for conversions

    # --- shapes of values

    def const(self, number: float, like: Any) -> Any:
        return ir.Constant(element(like), number)

    def splat(self, value: Any) -> Any:
        """A scalar in every lane."""
        if is_vector(value):
            return value
        vector = ir.VectorType(value.type, self.lanes)
        if isinstance(value, ir.Constant):
            return ir.Constant(vector, [value.constant] * self.lanes)
        first = self.builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(I32, 0))
        mask = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), mask)

    def same(self, *values: Any) -> tuple[Any, ...]:
        """All of them scalars, or all of them vectors."""
        return tuple(self.splat(v) for v in values) if any(is_vector(v) for v in values) else values

    def lane(self, value: Any, k: int) -> Any:
        return self.builder.extract_element(value, ir.Constant(I32, k)) if is_vector(value) else value

    def reserve(self, kind: Any, count: int) -> Any:
        """Memory for ``count`` values on the stack of the function, wherever in it one is."""
        with self.builder.goto_entry_block():
            return self.builder.alloca(kind, ir.Constant(I64, count))

    def gather_lanes(self, values: list[Any]) -> Any:
        """One vector of scalars."""
        vector: Any = ir.Constant(ir.VectorType(values[0].type, self.lanes), ir.Undefined)
        for k, value in enumerate(values):
            vector = self.builder.insert_element(vector, value, ir.Constant(I32, k))
        return vector

    # --- arithmetic

    def _binary(self, float_name: str, int_name: str, a: Any, b: Any) -> Any:
        a, b = self.same(a, b)
        floating = element(a) in (F32, F64)
        return getattr(self.builder, float_name if floating else int_name)(a, b)

    def add(self, a: Any, b: Any) -> Any:
        return self._binary("fadd", "add", a, b)

    def sub(self, a: Any, b: Any) -> Any:
        return self._binary("fsub", "sub", a, b)

    def mul(self, a: Any, b: Any) -> Any:
        return self._binary("fmul", "mul", a, b)

    def div(self, a: Any, b: Any) -> Any:
        a, b = self.same(a, b)
        return self.builder.fdiv(a, b)

    def neg(self, a: Any) -> Any:
        return self.builder.fneg(a) if element(a) in (F32, F64) else self.builder.neg(a)

    def compare(self, symbol: str, a: Any, b: Any) -> Any:
        a, b = self.same(a, b)
        if element(a) in (F32, F64):
            if symbol == "!=":
                return self.builder.fcmp_unordered("!=", a, b)
            return self.builder.fcmp_ordered(symbol, a, b)
        return self.builder.icmp_unsigned(symbol, a, b) if element(a) == I1 else self.builder.icmp_signed(symbol, a, b)

    def isnan(self, a: Any) -> Any:
        return self.builder.fcmp_unordered("uno", a, a)

    def truth(self, a: Any) -> Any:
        """What NumPy takes a number for in a logical operation: NaN is true."""
        return a if element(a) == I1 else self.compare("!=", a, self.const(0, a))

    def both(self, a: Any, b: Any) -> Any:
        return self.builder.and_(*self.same(self.truth(a), self.truth(b)))

    def either(self, a: Any, b: Any) -> Any:
        return self.builder.or_(*self.same(self.truth(a), self.truth(b)))

    def invert(self, a: Any) -> Any:
        return self.builder.not_(self.truth(a))

    def select(self, mask: Any, a: Any, b: Any) -> Any:
        return self.builder.select(*self.same(mask, a, b))

    def maximum(self, a: Any, b: Any) -> Any:
        # a where it is greater or NaN, else b (which may be NaN): NumPy's rule that NaN wins
        return self.select(self.either(self.compare(">", a, b), self.isnan(a)), a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        return self.select(self.either(self.compare("<", a, b), self.isnan(a)), a, b)

    def sign(self, a: Any) -> Any:
        zero, one = self.const(0.0, a), self.const(1.0, a)
        rest = self.select(self.compare("==", a, zero), zero, a)
        below = self.select(self.compare("<", a, zero), self.const(-1.0, a), rest)
        return self.select(self.compare(">", a, zero), one, below)

    def cast(self, a: Any) -> Any:
        wanted, have = self.out_type, element(a)
        if wanted == have:
            return a
        into = ir.VectorType(wanted, self.lanes) if is_vector(a) else wanted
        if have == I1:
            a = self.builder.zext(a, ir.VectorType(I64, self.lanes) if is_vector(a) else I64)
            have = I64
            if wanted == I64:
                return a
        if wanted == I1:
            return self.compare("!=", a, self.const(0, a))
        if have in (I32, I64):
            if wanted in (F32, F64):
                return self.builder.sitofp(a, into)
            return self.builder.sext(a, into) if wanted == I64 else self.builder.trunc(a, into)
        if wanted in (F32, F64):
            return self.builder.fpext(a, into) if wanted == F64 else self.builder.fptrunc(a, into)
        return self.builder.fptosi(a, into)

    # --- functions

    def intrinsic(self, name: str, *arguments: Any) -> Any:
        arguments = self.same(*arguments)
        kind = {F32: "f32", F64: "f64"}[element(arguments[0])]
        suffix = f"v{self.lanes}{kind}" if is_vector(arguments[0]) else kind
        return self._declared(f"{name}.{suffix}", arguments, arguments[0].type)

    def sqrt(self, a: Any) -> Any:
        return self.intrinsic("llvm.sqrt", a)

    def fabs(self, a: Any) -> Any:
        return self.intrinsic("llvm.fabs", a)

    def call(self, name: str, *arguments: Any) -> Any:
        """A function of the C library: in vectors by our own code or libmvec's, else lane by lane."""
        arguments = self.same(*arguments)
        bits = 64 if element(arguments[0]) == F64 else 32
        scalar = name if bits == 64 else f"{name}f"
        if not is_vector(arguments[0]):
            self.symbols.add(scalar)
            return self._declared(scalar, arguments, arguments[0].type)
        symbol = self.target.vector_symbol(name, len(arguments), bits, self.lanes)
        source = source_of(name, bits, symbol is not None, self.target.fma)
        if source == "portable":
            function, needed = vector_function(self.module, name, self.lanes, bits)
            self.symbols |= needed
            return self.builder.call(function, list(arguments))
        if source == "libmvec" and symbol is not None:
            self.symbols.add(symbol)
            return self._declared(symbol, arguments, arguments[0].type)
        self.symbols.add(scalar)
        kind = element(arguments[0])
        return self.gather_lanes(
            [self._declared(scalar, [self.lane(a, k) for a in arguments], kind) for k in range(self.lanes)]
        )

    def logaddexp(self, a: Any, b: Any) -> Any:
        """``max + log1p(exp(-|a - b|))``; equal arguments (infinities too) are ``a + log 2``."""
        equal = self.add(a, self.const(0.6931471805599453, a))
        high = self.select(self.compare(">", a, b), a, b)
        size = self.fabs(self.sub(a, b))
        rest = self.add(high, self.call("log1p", self.call("exp", self.neg(size))))
        rest = self.select(self.isnan(size), size, rest)
        return self.select(self.compare("==", a, b), equal, rest)

    def power(self, x: Any, p: Any) -> Any:
        exponent = p.constant if isinstance(p, ir.Constant) else None
        if isinstance(exponent, list):
            exponent = exponent[0]
        if exponent == 1.0:
            return x
        if exponent in (2.0, 3.0, 4.0, -1.0, -2.0):
            square = self.mul(x, x)
            if exponent == 2.0:
                return square
            if exponent == 3.0:
                return self.mul(square, x)
            if exponent == 4.0:
                return self.mul(square, square)
            return self.div(self.const(1.0, x), x if exponent == -1.0 else square)
        return self.call("pow", x, p)

    def _declared(self, name: str, arguments: Any, result: Any) -> Any:
        found = self.module.globals.get(name)
        if found is None:
            kind = ir.FunctionType(result, [a.type for a in arguments])
            found = ir.Function(self.module, kind, name)
            found.attributes.add("nounwind")
        return self.builder.call(found, list(arguments))

    # --- blocks of memory

    def shuffle(self, a: Any, b: Any, mask: list[int]) -> Any:
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(mask)), mask))

    def interleave(self, values: list[Any]) -> list[Any]:
        """Vectors whose concatenation is ``values[0][0], values[1][0], ..., values[0][1], ...``.

        A power of two of them by rounds of pairs; other numbers element by element (few are ever asked for).
        """
        count, lanes = len(values), self.lanes
        if count == 1:
            return values
        if count & (count - 1) == 0:
            even, odd = self.interleave(values[0::2]), self.interleave(values[1::2])
            low = [k // 2 + (k % 2) * lanes for k in range(lanes)]
            high = [k + lanes // 2 for k in low]
            return [self.shuffle(a, b, mask) for a, b in zip(even, odd, strict=True) for mask in (low, high)]
        result = []
        for j in range(count):
            sources = [divmod(j * lanes + k, count) for k in range(lanes)]  # (lane, which value)
            total = values[0]
            mask = [lane if which == 0 else 0 for lane, which in sources]
            total = self.shuffle(total, total, mask)
            for v in range(1, count):
                mask = [lanes + lane if which == v else k for k, (lane, which) in enumerate(sources)]
                total = self.shuffle(total, values[v], mask)
            result.append(total)
        return result

    def pick(self, blocks: list[Any], start: int, stride: int) -> Any:
        """The elements ``start, start + stride, ...`` (one for each lane) of the concatenation of ``blocks``."""
        lanes = self.lanes
        sources = [divmod(start + stride * k, lanes) for k in range(lanes)]  # (block, place)
        used = sorted({block for block, _ in sources})
        total = self.shuffle(blocks[used[0]], blocks[used[0]], [p if b == used[0] else 0 for b, p in sources])
        for block in used[1:]:
            mask = [lanes + p if b == block else k for k, (b, p) in enumerate(sources)]
            total = self.shuffle(total, blocks[block], mask)
        return total
