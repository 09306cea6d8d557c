"""The dense work of a multifrontal Cholesky factorisation: one piece of machine code for all patterns.

A front of c columns and r rows below them is the upper half of a panel, c x (c + r) in C order, whose rows become rows
of R, with ``R^T R`` the matrix. Products run over the rows of panels, in tiles that stay in registers; what a front
changes in those below it is kept on a stack until its parent takes it, so that little memory is touched twice.

Sources: I. S. Duff and J. K. Reid, ACM TOMS 9(3), 1983; J. W. H. Liu, "The multifrontal method for sparse matrix
solution: theory and practice", SIAM Review 34(1), 1992, for the stack.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir

from .. import background
from .calls import module_image
from .emitter import F64, I64, POINTER
from .engine import link, machine
from .instructions import Instructions

__all__ = ["COLUMNS", "Fronts", "fronts_code"]

COLUMNS = ("count", "rows", "panel", "sum", "update", "first_child", "last_child", "lines", "first")
"""What a table of fronts, int64 of shape (fronts, 9), says of each.

``count`` columns from number ``first`` on, and ``rows`` below; where its panel begins; where in the work space the sum
of its children's updates is made, and where its own update is moved to; which entries of the list of children are its
own; and where in ``lines`` (places in the panel of the parent) and ``below`` (numbers of unknowns) its rows are.
"""

_ROWS, _VECTORS = 4, 3  # of a tile: its sums fill the vector registers of a small machine
_BLOCK = 8  # rows of a panel that are eliminated before the next ones are brought up to date


class Fronts(NamedTuple):
    """Two functions of addresses.

    Attributes:
        factorise: (panels, work, table, children, lines, fronts) -> 0, or one more than the front that is not positive
            definite.
        solve: (panels, table, below, x, work, fronts): x, in permuted numbers, becomes the solution.
    """

    factorise: Callable[..., int]
    solve: Callable[..., None]
    keep: Any


_code: Fronts | None = None
_asked = False
_lock = threading.Lock()


def fronts_code(wait: bool) -> Fronts | None:
    """The functions; None if they are still being compiled, and the caller would rather not wait."""
    global _asked
    if _code is None and wait:
        _compile()
    elif _code is None:
        with _lock:
            asked, _asked = _asked, True
        if not asked and not background.submit(_compile):
            _compile()
    return _code


def _compile() -> None:
    global _code
    with background.compiling:
        if _code is None:
            names = ("jacana_fronts_factorise", "jacana_fronts_solve")
            found, keep = link(module_image(_module()), set(), list(names))
            address, number = ctypes.c_void_p, ctypes.c_int64
            factorise = ctypes.CFUNCTYPE(number, address, address, address, address, address, number)(found[names[0]])
            solve = ctypes.CFUNCTYPE(None, address, address, address, address, address, number)(found[names[1]])
            _code = Fronts(factorise, solve, keep)


def _module() -> str:
    target = machine()
    module = ir.Module("jacana_fronts")
    module.triple = target.triple
    module.data_layout = str(target.target_machine.target_data)
    subtract = _emit_subtract(module)
    _emit_factorise(module, subtract)
    _emit_solve(module)
    return str(module)


def _emit_subtract(module: ir.Module) -> Any:
    """``to[i, j] -= sum over k < depth of panel[k, i] panel[k, j]`` for begin <= i < end, i <= j < width.

    Entries of the lower triangle that share a tile with the diagonal are spoilt.
    """
    names = [POINTER, I64, POINTER, I64, I64, I64, I64]
    code = Instructions(module, "jacana_fronts_subtract", ir.VoidType(), names, internal=True)
    to, stride, panel, width, depth, begin, end = code.arguments

    def tile(i: Any, j: Any, rows: int, kinds: list[Any]) -> None:
        columns = [code.plus(j, code.lanes * v) for v in range(len(kinds))]
        lines = [code.at(to, code.times(code.plus(i, row), stride)) for row in range(rows)]
        sums = [[code.reserve(kind, 1) for kind in kinds] for _ in range(rows)]
        for line, places in zip(lines, sums, strict=True):
            for place, column, kind in zip(places, columns, kinds, strict=True):
                code.builder.store(code.load(line, column, kind), place)
        with code.counted(ir.Constant(I64, 0), depth) as k:
            source = code.at(panel, code.times(k, width))
            right = [code.load(source, column, kind) for column, kind in zip(columns, kinds, strict=True)]
            for row, places in enumerate(sums):
                left = code.load(source, code.plus(i, row))
                for place, value, kind in zip(places, right, kinds, strict=True):
                    total = code.builder.load(place, typ=kind)
                    code.builder.store(code.subtracted(total, left, value), place)
        for line, places in zip(lines, sums, strict=True):
            for place, column, kind in zip(places, columns, kinds, strict=True):
                code.store(code.builder.load(place, typ=kind), line, column)

    row, column = code.reserve(I64, 1), code.reserve(I64, 1)
    code.builder.store(begin, row)
    for rows in (_ROWS, 1):
        with code.counted(code.builder.load(row, typ=I64), end, rows, row) as i:
            code.builder.store(i, column)
            for kinds in ([code.vector] * _VECTORS, [code.vector], [F64]):
                step = len(kinds) * (code.lanes if kinds[0] != F64 else 1)
                with code.counted(code.builder.load(column, typ=I64), width, step, column) as j:
                    tile(i, j, rows, kinds)
    code.builder.ret_void()
    return code.function


def _fields(code: Instructions, table: Any, front: Any) -> dict[str, Any]:
    row = code.at(table, code.times(front, ir.Constant(I64, len(COLUMNS))), I64)
    return {name: code.load(row, ir.Constant(I64, k), I64) for k, name in enumerate(COLUMNS)}


def _emit_factorise(module: ir.Module, subtract: Any) -> None:
    code = Instructions(module, "jacana_fronts_factorise", I64, [POINTER] * 5 + [I64])
    panels, work, table, children, lines, fronts = code.arguments
    b, zero = code.builder, ir.Constant(I64, 0)
    with code.counted(zero, fronts) as front:
        own = _fields(code, table, front)
        count, rows = own["count"], own["rows"]
        size, square = code.plus(count, rows), code.times(rows, rows)
        panel, total = code.at(panels, own["panel"]), code.at(work, own["sum"])
        code.swept(zero, square, lambda i, kind: code.store(_nothing(kind), total, i))
        # As the panel counts its lines, the sum begins with line and column number `count`.
        shifted = code.at(total, code.minus(zero, code.plus(code.times(count, rows), count)))

        with code.counted(own["first_child"], own["last_child"]) as place:
            child = _fields(code, table, code.load(children, place, I64))
            into, height = code.at(lines, child["lines"], I64), child["rows"]
            update = code.at(work, child["update"])
            with code.counted(zero, height) as i:
                line = code.load(into, i, I64)
                inside = b.icmp_signed("<", line, count)
                to = b.select(inside, code.at(panel, code.times(line, size)), code.at(shifted, code.times(line, rows)))
                source = code.at(update, code.times(i, height))
                with code.counted(i, height) as j:
                    column = code.load(into, j, I64)
                    code.store(code.add(code.load(to, column), code.load(source, j)), to, column)

        begin_at = code.reserve(I64, 1)
        b.store(zero, begin_at)
        with code.counted(zero, b.sdiv(code.plus(count, _BLOCK - 1), ir.Constant(I64, _BLOCK))) as block:
            begin = code.times(block, ir.Constant(I64, _BLOCK))
            far = code.plus(begin, _BLOCK)
            end = b.select(b.icmp_signed("<", far, count), far, count)
            b.call(subtract, [panel, size, panel, size, begin, begin, end])
            with code.counted(begin, end) as k:
                line = code.at(panel, code.times(k, size))
                pivot = code.load(line, k)
                with b.if_then(b.not_(b.fcmp_ordered(">", pivot, ir.Constant(F64, 0.0))), likely=False):
                    b.ret(code.plus(front, 1))
                inverse = code.div(ir.Constant(F64, 1.0), code.sqrt(pivot))

                def scaled(j: Any, kind: Any, line: Any = line, inverse: Any = inverse) -> None:
                    code.store(code.mul(code.load(line, j, kind), inverse), line, j)

                code.swept(k, size, scaled)
                with code.counted(code.plus(k, 1), end) as i:
                    factor, to = code.load(line, i), code.at(panel, code.times(i, size))

                    def less(j: Any, kind: Any, line: Any = line, factor: Any = factor, to: Any = to) -> None:
                        code.store(code.subtracted(code.load(to, j, kind), factor, code.load(line, j, kind)), to, j)

                    code.swept(i, size, less)
        b.call(subtract, [shifted, rows, panel, size, count, count, size])
        moved = code.at(work, own["update"])
        with b.if_then(b.icmp_signed("!=", own["update"], own["sum"])):
            # Downwards, so that what is still to be moved is not overwritten.
            code.swept(zero, square, lambda i, kind: code.store(code.load(total, i, kind), moved, i))
    b.ret(zero)


def _nothing(kind: Any) -> Any:
    return ir.Constant(kind, 0.0 if kind == F64 else [0.0] * kind.count)


def _emit_solve(module: ir.Module) -> None:
    code = Instructions(module, "jacana_fronts_solve", ir.VoidType(), [POINTER] * 5 + [I64])
    panels, table, below, x, work, fronts = code.arguments
    b, zero, one = code.builder, ir.Constant(I64, 0), ir.Constant(I64, 1)

    def parts(front: Any) -> tuple[Any, ...]:
        own = _fields(code, table, front)
        count, rows = own["count"], own["rows"]
        return (
            count,
            code.plus(count, rows),
            code.at(panels, own["panel"]),
            code.at(x, own["first"]),
            code.at(code.at(below, own["lines"], I64), code.minus(zero, count), I64),
        )

    with code.counted(zero, fronts) as front:
        count, size, panel, here, numbers = parts(front)
        code.swept(zero, count, lambda j, kind: code.store(code.load(here, j, kind), work, j))
        code.swept(count, size, lambda j, kind: code.store(_nothing(kind), work, j))
        with code.counted(zero, count) as k:
            line = code.at(panel, code.times(k, size))
            value = code.div(code.load(work, k), code.load(line, k))
            code.store(value, here, k)

            def less(j: Any, kind: Any, line: Any = line, value: Any = value) -> None:
                code.store(code.subtracted(code.load(work, j, kind), value, code.load(line, j, kind)), work, j)

            code.swept(code.plus(k, 1), size, less)
        with code.counted(count, size) as j:
            place = code.load(numbers, j, I64)
            code.store(code.add(code.load(x, place), code.load(work, j)), x, place)

    with code.counted(zero, fronts) as reverse:
        count, size, panel, here, numbers = parts(code.minus(code.minus(fronts, one), reverse))
        code.swept(zero, count, lambda j, kind: code.store(code.load(here, j, kind), work, j))
        with code.counted(count, size) as j:
            code.store(code.load(x, code.load(numbers, j, I64)), work, j)
        with code.counted(zero, count) as turned:
            k = code.minus(code.minus(count, one), turned)
            line = code.at(panel, code.times(k, size))
            sums = {kind: code.reserve(kind, 1) for kind in (code.vector, F64)}
            b.store(_nothing(code.vector), sums[code.vector])
            b.store(code.load(work, k), sums[F64])

            def summed(j: Any, kind: Any, line: Any = line, sums: Any = sums) -> None:
                total = b.load(sums[kind], typ=kind)
                b.store(code.subtracted(total, code.load(line, j, kind), code.load(work, j, kind)), sums[kind])

            code.swept(code.plus(k, 1), size, summed)
            vector, total = b.load(sums[code.vector], typ=code.vector), b.load(sums[F64], typ=F64)
            for lane in range(code.lanes):
                total = code.add(total, code.lane(vector, lane))
            value = code.div(total, code.load(line, k))
            code.store(value, work, k)
            code.store(value, here, k)
    b.ret_void()
