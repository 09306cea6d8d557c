"""Small matrices inside machine code: elimination and Cholesky's factorisation, one function for each size.

Elimination with partial pivoting as in LAPACK's ``getrf``, whose pivots it has; the right-hand sides are eliminated
along with the matrix, row by row, as NumPy's arrays lie. A pivot that is exactly zero is what ``numpy.linalg`` raises
for, so it is reported; what is not finite goes on to the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from ...graph.node import Node
from ..loops import NOT_POSITIVE, SINGULAR
from .calls import memset
from .emitter import F32, I1, I8, I64, POINTER, VALUE_TYPES
from .instructions import Instructions

__all__ = ["matrix_function"]

Value = Any


def matrix_function(module: ir.Module, node: Node, symbols: set[str]) -> Any:
    """``void f(ptr a, ptr result, ptr status)`` for all matrices of a node.

    ``a`` is a copy of the matrices, which is destroyed; ``result`` of `solve` holds the right-hand sides before.
    """
    a = node.inputs[0]
    columns = node.shape[-1] if node.op.name == "solve" else 0
    name = f"{node.op.name}_{math.prod(a.shape[:-2])}x{a.shape[-1]}x{columns}_{a.dtype}"
    found = module.globals.get(name)
    if found is not None:
        return found
    kind = VALUE_TYPES[a.dtype]
    code = Instructions(module, name, ir.VoidType(), [POINTER] * 3, internal=True, kind=kind)
    code.function.attributes.add("noinline")  # into every place where a small matrix is solved with
    matrices, results, status = code.arguments
    n, count = a.shape[-1], math.prod(a.shape[:-2])
    each = node.size // count
    with code.counted(_number(0), _number(count)) as k:
        matrix = code.at(matrices, code.times(k, _number(n * n)))
        result = code.at(results, code.times(k, _number(each)))
        _WRITERS[node.op.name](code, n, columns, matrix, result, status)
    code.builder.ret_void()
    symbols |= code.symbols
    return code.function


def _number(value: int) -> Value:
    return ir.Constant(I64, value)


def _report(code: Instructions, bad: Value, status: Value, what: int) -> None:
    with code.builder.if_then(bad, likely=False):
        code.builder.store(_number(what), status).align = 8


def _eliminate(
    code: Instructions, n: int, matrix: Value, columns: int, right: Value, places: Value | None = None
) -> Value:
    """Make a matrix upper triangular, the rows of its right-hand sides likewise; the sign of the permutation, or 0.

    ``places``: numbers of the columns, to exchange these as well; then the last pivot may be zero.
    """
    b, zero = code.builder, ir.Constant(code.kind, 0.0)
    sign, best = code.reserve(I64, 1), code.reserve(code.kind, 1)
    row, column = code.reserve(I64, 1), code.reserve(I64, 1)
    b.store(_number(1), sign)
    with code.counted(_number(0), _number(n if places is None else n - 1)) as k:
        own = code.at(matrix, code.times(k, _number(n)))
        own_right = code.at(right, code.times(k, _number(columns)))
        b.store(k, row)
        b.store(k, column)
        b.store(code.fabs(code.load(own, k)), best)
        end = code.plus(k, 1) if places is None else _number(n)
        with code.counted(k, _number(n)) as i, code.counted(k, end) as j:
            size = code.fabs(code.load(code.at(matrix, code.times(i, _number(n))), j))
            so_far = b.load(best, typ=code.kind)
            # The first NaN is taken, and spreads.
            larger = b.and_(b.fcmp_unordered(">", size, so_far), b.fcmp_ordered("ord", so_far, so_far))
            with b.if_then(larger):
                b.store(size, best)
                b.store(i, row)
                b.store(j, column)
        with b.if_then(code.compare("==", b.load(best, typ=code.kind), zero), likely=False):
            b.store(_number(0), sign)
        other = b.load(row, typ=I64)
        with b.if_then(b.icmp_signed("!=", other, k)):
            b.store(code.minus(_number(0), b.load(sign, typ=I64)), sign)
            _swap(code, own, code.at(matrix, code.times(other, _number(n))), k, n)
            if columns:
                _swap(code, own_right, code.at(right, code.times(other, _number(columns))), _number(0), columns)
        if places is not None:
            _swap_columns(code, n, matrix, k, b.load(column, typ=I64), places, sign)
        pivot = code.load(own, k)
        with code.counted(code.plus(k, 1), _number(n)) as i:
            line = code.at(matrix, code.times(i, _number(n)))
            factor = code.div(code.load(line, k), pivot)
            _subtract(code, line, factor, own, code.plus(k, 1), n)
            if columns:
                _subtract(code, code.at(right, code.times(i, _number(columns))), factor, own_right, _number(0), columns)
    return b.load(sign, typ=I64)


def _swap_columns(
    code: Instructions, n: int, matrix: Value, k: Value, other: Value, places: Value, sign: Value
) -> None:
    b = code.builder
    with b.if_then(b.icmp_signed("!=", other, k)):
        b.store(code.minus(_number(0), b.load(sign, typ=I64)), sign)
        one, two = code.load(places, k, I64), code.load(places, other, I64)
        code.store(two, places, k)
        code.store(one, places, other)
        with code.counted(_number(0), _number(n)) as i:
            line = code.at(matrix, code.times(i, _number(n)))
            first, second = code.load(line, k), code.load(line, other)
            code.store(second, line, k)
            code.store(first, line, other)


def _swap(code: Instructions, a: Value, b: Value, begin: Value, end: int) -> None:
    def body(j: Value, kind: Any) -> None:
        one, other = code.load(a, j, kind), code.load(b, j, kind)
        code.store(one, b, j)
        code.store(other, a, j)

    code.swept(begin, _number(end), body)


def _subtract(code: Instructions, line: Value, factor: Value, other: Value, begin: Value, end: int) -> None:
    """``line -= factor other`` from ``begin`` on."""

    def body(j: Value, kind: Any) -> None:
        code.store(code.subtracted(code.load(line, j, kind), factor, code.load(other, j, kind)), line, j)

    code.swept(begin, _number(end), body)


def _divide(code: Instructions, line: Value, pivot: Value, end: int) -> None:
    def body(j: Value, kind: Any) -> None:
        code.store(code.div(code.load(line, j, kind), pivot), line, j)

    code.swept(_number(0), _number(end), body)


def _back(code: Instructions, n: int, matrix: Value, columns: int, right: Value) -> None:
    """Solve with the upper triangle."""
    with code.counted(_number(0), _number(n)) as turned:
        k = code.minus(_number(n - 1), turned)
        own, line = code.at(matrix, code.times(k, _number(n))), code.at(right, code.times(k, _number(columns)))
        with code.counted(code.plus(k, 1), _number(n)) as j:
            other = code.at(right, code.times(j, _number(columns)))
            _subtract(code, line, code.load(own, j), other, _number(0), columns)
        _divide(code, line, code.load(own, k), columns)


def _solve(code: Instructions, n: int, columns: int, matrix: Value, result: Value, status: Value) -> None:
    sign = _eliminate(code, n, matrix, columns, result)
    _report(code, code.builder.icmp_signed("==", sign, _number(0)), status, SINGULAR)
    _back(code, n, matrix, columns, result)


def _inverse(code: Instructions, n: int, columns: int, matrix: Value, result: Value, status: Value) -> None:
    one = ir.Constant(code.kind, 1.0)
    _clear(code, result, n * n)
    with code.counted(_number(0), _number(n)) as k:
        code.store(one, result, code.times(k, _number(n + 1)))
    _solve(code, n, n, matrix, result, status)


def _inverse_or_nan(code: Instructions, n: int, columns: int, matrix: Value, result: Value, status: Value) -> None:
    own = code.reserve(I64, 1)
    code.builder.store(_number(0), own)
    _inverse(code, n, columns, matrix, result, own)
    singular = code.builder.icmp_signed("==", code.builder.load(own, typ=I64), _number(SINGULAR))
    with code.builder.if_then(singular, likely=False), code.counted(_number(0), _number(n * n)) as k:
        code.store(ir.Constant(code.kind, math.nan), result, k)


def _clear(code: Instructions, array: Value, size: int) -> None:
    bytes_ = size * (4 if code.kind == F32 else 8)
    code.builder.call(memset(code.module), [array, ir.Constant(I8, 0), _number(bytes_), ir.Constant(I1, 0)])


def _log_determinant(code: Instructions, n: int, matrix: Value) -> tuple[Value, Value]:
    """The sign as a float, and the sum of logarithms, minus infinity for a singular matrix: as NumPy adds them."""
    b = code.builder
    sign = _eliminate(code, n, matrix, 0, matrix)
    flips, total = code.reserve(I64, 1), code.reserve(code.kind, 1)
    b.store(sign, flips)
    b.store(ir.Constant(code.kind, 0.0), total)
    with code.counted(_number(0), _number(n)) as k:
        pivot = code.load(matrix, code.times(k, _number(n + 1)))
        below = code.compare("<", pivot, ir.Constant(code.kind, 0.0))
        was = b.load(flips, typ=I64)
        b.store(b.select(below, code.minus(_number(0), was), was), flips)
        b.store(code.add(b.load(total, typ=code.kind), code.call("log", code.fabs(pivot))), total)
    singular = b.icmp_signed("==", sign, _number(0))
    logarithm = b.select(singular, ir.Constant(code.kind, -math.inf), b.load(total, typ=code.kind))
    return b.sitofp(b.load(flips, typ=I64), code.kind), logarithm


def _determinant(code: Instructions, n: int, columns: int, matrix: Value, result: Value, status: Value) -> None:
    sign, logarithm = _log_determinant(code, n, matrix)
    code.store(code.mul(sign, code.call("exp", logarithm)), result, _number(0))


def _sign_and_log(code: Instructions, n: int, columns: int, matrix: Value, result: Value, status: Value) -> None:
    sign, logarithm = _log_determinant(code, n, matrix)
    code.store(sign, result, _number(0))
    code.store(logarithm, result, _number(1))


def _cofactors(code: Instructions, n: int, columns: int, matrix: Value, result: Value, status: Value) -> None:
    """Transposed, the adjugate ``Q adj(U) L^-1 P`` of ``P A Q = L U`` with complete pivoting: see `_adjugate`.

    The last pivot, the only one that is zero for a matrix of rank n - 1, is never divided by; with rank n - 2 or less
    all cofactors are zero.
    """
    b, one = code.builder, ir.Constant(code.kind, 1.0)
    places, right = (_opaque(code, x) for x in (code.reserve(I64, n), code.reserve(code.kind, n * n)))
    _clear(code, right, n * n)
    with code.counted(_number(0), _number(n)) as k:
        b.store(k, code.at(places, k, I64))
        code.store(one, right, code.times(k, _number(n + 1)))
    sign = _eliminate(code, n, matrix, n, right, places)
    _adjugate(code, n, matrix, right)
    pivots = code.reserve(code.kind, 1)
    b.store(b.sitofp(sign, code.kind), pivots)
    with code.counted(_number(0), _number(n - 1)) as k:
        factor = code.load(matrix, code.times(k, _number(n + 1)))
        b.store(code.mul(b.load(pivots, typ=code.kind), factor), pivots)
    scale = b.load(pivots, typ=code.kind)
    with code.counted(_number(0), _number(n)) as i:
        column = code.load(places, i, I64)
        with code.counted(_number(0), _number(n)) as j:
            value = code.mul(scale, code.load(right, code.plus(code.times(i, _number(n)), j)))
            value = b.select(b.icmp_signed("==", sign, _number(0)), ir.Constant(code.kind, 0.0), value)
            code.store(value, result, code.plus(code.times(j, _number(n)), column))


def _opaque(code: Instructions, pointer: Value) -> Value:
    """Memory on the stack as any other: llvmlite gives it the type of its elements, and refuses vectors there."""
    return code.builder.inttoptr(code.builder.ptrtoint(pointer, I64), POINTER)


def _adjugate(code: Instructions, n: int, matrix: Value, right: Value) -> None:
    """``adj(U) M / det(U1)`` for ``U = [[U1, u], [0, d]]``: rows ``U1^-1 (d M1 - u m)``, and the last, m, as it is."""
    last, m = code.at(matrix, _number(n * n - n)), code.at(right, _number(n * n - n))
    d = code.load(last, _number(n - 1))
    with code.counted(_number(0), _number(n - 1)) as turned:
        k = code.minus(_number(n - 2), turned)
        own, line = (code.at(x, code.times(k, _number(n))) for x in (matrix, right))

        def scaled(j: Value, kind: Any, line: Value = line) -> None:
            factor = d if kind == code.kind else code.splat(d)
            code.store(code.mul(code.load(line, j, kind), factor), line, j)

        code.swept(_number(0), _number(n), scaled)
        _subtract(code, line, code.load(own, _number(n - 1)), m, _number(0), n)
        with code.counted(code.plus(k, 1), _number(n - 1)) as j:
            other = code.at(right, code.times(j, _number(n)))
            _subtract(code, line, code.load(own, j), other, _number(0), n)
        _divide(code, line, code.load(own, k), n)


def _cholesky(code: Instructions, n: int, columns: int, matrix: Value, result: Value, status: Value) -> None:
    """Row by row, from the lower triangle: ``L[i, j] = (a[i, j] - L[i, :j] . L[j, :j]) / L[j, j]``."""
    b = code.builder
    total = code.reserve(code.kind, 1)
    _clear(code, result, n * n)
    with code.counted(_number(0), _number(n)) as i:
        line, source = (code.at(x, code.times(i, _number(n))) for x in (result, matrix))
        with code.counted(_number(0), code.plus(i, 1)) as j:
            other = code.at(result, code.times(j, _number(n)))
            b.store(code.load(source, j), total)
            with code.counted(_number(0), j) as k:
                so_far = b.load(total, typ=code.kind)
                b.store(code.subtracted(so_far, code.load(line, k), code.load(other, k)), total)
            rest = b.load(total, typ=code.kind)
            with b.if_else(b.icmp_signed("==", i, j)) as (diagonal, below):
                with diagonal:
                    positive = code.compare(">", rest, ir.Constant(code.kind, 0.0))
                    _report(code, b.not_(positive), status, NOT_POSITIVE)
                    code.store(code.sqrt(rest), line, j)
                with below:
                    code.store(code.div(rest, code.load(other, j)), line, j)


_WRITERS: dict[str, Callable[[Instructions, int, int, Value, Value, Value], None]] = {
    "solve": _solve,
    "inv": _inverse,
    "inv_or_nan": _inverse_or_nan,
    "det": _determinant,
    "slogdet": _sign_and_log,
    "cofactor": _cofactors,
    "cholesky": _cholesky,
}
