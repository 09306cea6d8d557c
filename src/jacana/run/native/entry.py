"""The shortest way from Python to a kernel: one builtin that checks its argument, allocates the results and computes.

It is for programs of few arguments and one small kernel, where a call costs more than the arithmetic. Its machine code
compares every argument's type, dtype, number of axes, sizes and flags with what the program was compiled for, makes new
arrays by NumPy's C interface, and calls the kernel. Whatever differs (a list, a view with gaps, another dtype or shape,
a subclass) makes it return None, and the caller takes the general way.

The code reads the fields of ``PyArrayObject``, which are part of NumPy's binary interface; their offsets are verified
on real arrays before the first use. No address of this process is in the code: it gets them in a table, the data of
the array that the builtin is bound to.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from ...graph.node import CONSTANT, Array, DType, Node, Shape
from .calls import memset
from .emitter import I1, I8, I32, I64, POINTER
from .engine import DATA_OFFSET, NEW_ARRAY, builtin, fast_calls, machine
from .recipe import Buffer, Launch, Recipe

NAME = "enter"
TYPE_OFFSET, RANK_OFFSET, SHAPE_OFFSET, DTYPE_OFFSET, FLAGS_OFFSET = 8, 24, 32, 56, 64
TIDY = 0x0001 | 0x0100  # NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_ALIGNED
MOST_ARGUMENTS = 64  # each costs a nanosecond or two to check

Direct = Callable[..., Any]


@dataclass(frozen=True)
class Entry:
    """What a recipe needs for an entry: the arguments (the first slots), the results, and where the rest is."""

    arguments: tuple[tuple[Shape, DType], ...]
    results: tuple[Buffer, ...]
    result_slots: tuple[int, ...]
    launch: Launch
    fixed: tuple[int, ...]  # the slots of what is the same at every call
    status: int | None  # the slot for what went wrong: then the general way is taken, which raises it


def entry_of(recipe: Recipe, inputs: Sequence[Node]) -> Entry | None:
    """The entry of a program, if it is as simple as that and Python and NumPy are what they are expected to be."""
    count = len(inputs)
    if not 0 < count <= MOST_ARGUMENTS or len(recipe.steps) != 1 or not isinstance(recipe.steps[0], Launch):
        return None
    results: list[Buffer] = []
    for k in recipe.results:
        source = recipe.sources[k - count] if k >= count else None
        if not isinstance(source, Buffer):
            return None
        results.append(source)
    buffers = [k for k, source in enumerate(recipe.sources, count) if isinstance(source, Buffer)]
    if sorted(recipe.results) != [k for k in buffers if k != recipe.status] or not results or not layout_is_known():
        return None
    fixed = []
    for k, source in enumerate(recipe.sources, count):
        if source is None or (isinstance(source, Node) and (source.op is not CONSTANT or _is_live(source))):
            return None
        if not isinstance(source, Buffer):
            fixed.append(k)
    arguments = tuple((x.shape, x.dtype) for x in inputs)
    return Entry(arguments, tuple(results), recipe.results, recipe.steps[0], tuple(fixed), recipe.status)


def _is_live(node: Node) -> bool:
    return bool(getattr(node.params.owner, "live", True))


# --- the code


def emit_entry(module: ir.Module, entry: Entry, group: Any, symbols: set[str]) -> None:
    """``PyObject *enter(table, PyObject *const *args, Py_ssize_t n)``; the table: see ``_table``."""
    function = ir.Function(module, ir.FunctionType(POINTER, [POINTER, POINTER, I64]), NAME)
    b: Any = ir.IRBuilder(function.append_basic_block("entry"))
    refuse = function.append_basic_block("refuse")
    table = _field(b, function.args[0], DATA_OFFSET, POINTER)

    def at(k: int) -> Any:
        return _field(b, table, 8 * k, POINTER)

    def require(condition: Any) -> None:
        following = function.append_basic_block()
        b.cbranch(condition, following, refuse)
        b.position_at_end(following)

    def equals(offset: int, kind: Any, wanted: Any, base: Any) -> None:
        require(b.icmp_unsigned("==", _field(b, base, offset, kind), wanted))

    count = len(entry.arguments)
    require(b.icmp_signed("==", function.args[2], ir.Constant(I64, count)))
    array_type = at(0)
    pointers: dict[int, Any] = {}
    for k, (shape, _) in enumerate(entry.arguments):
        x = _field(b, function.args[1], 8 * k, POINTER)
        equals(TYPE_OFFSET, POINTER, array_type, x)
        equals(DTYPE_OFFSET, POINTER, at(2 + k), x)
        equals(RANK_OFFSET, I32, ir.Constant(I32, len(shape)), x)
        flags = b.and_(_field(b, x, FLAGS_OFFSET, I32), ir.Constant(I32, TIDY))
        require(b.icmp_unsigned("==", flags, ir.Constant(I32, TIDY)))
        if shape:
            sizes = _field(b, x, SHAPE_OFFSET, POINTER)
            for axis, n in enumerate(shape):
                equals(8 * axis, I64, ir.Constant(I64, n), sizes)
        pointers[k] = _field(b, x, DATA_OFFSET, POINTER)
    make_kind = ir.FunctionType(POINTER, [POINTER, POINTER, I32, POINTER, POINTER, POINTER, I32, POINTER])
    take = _function(module, "Py_IncRef", ir.FunctionType(ir.VoidType(), [POINTER]), symbols)
    drop = _function(module, "Py_DecRef", ir.FunctionType(ir.VoidType(), [POINTER]), symbols)
    make = _function(module, NEW_ARRAY, make_kind, symbols)
    null = ir.Constant(POINTER, None)
    made: list[Any] = []
    place = 2 + count + len(entry.fixed)
    for slot, result in zip(entry.result_slots, entry.results, strict=True):
        dtype = at(place)
        b.call(take, [dtype])  # which the new array takes over
        shape = b.gep(table, [ir.Constant(I64, 8 * (place + 1))], inbounds=True, source_etype=I8)
        rank = ir.Constant(I32, len(result.shape))
        new = b.call(make, [array_type, dtype, rank, shape, null, null, ir.Constant(I32, 0), null])
        failed, following = function.append_basic_block(), function.append_basic_block()
        b.cbranch(b.icmp_unsigned("==", new, null), failed, following)
        b.position_at_end(failed)
        for other in made:
            b.call(drop, [other])
        b.ret(null)  # the exception is set: no memory
        b.position_at_end(following)
        made.append(new)
        pointers[slot] = _field(b, new, DATA_OFFSET, POINTER)
        if result.zeroed:
            size = int(np.prod(result.shape, dtype=np.int64)) * result.dtype.itemsize
            clear = memset(module)
            b.call(clear, [pointers[slot], ir.Constant(I8, 0), ir.Constant(I64, size), ir.Constant(I1, 0)])
        place += 1 + len(result.shape)
    if entry.status is not None:
        pointers[entry.status] = b.alloca(I64)
        b.store(ir.Constant(I64, 0), pointers[entry.status])
    for k, slot in enumerate(entry.fixed):
        pointers[slot] = at(2 + count + k)
    slots = entry.launch.slots
    buffers = b.alloca(POINTER, ir.Constant(I64, max(len(slots), 1)))
    for k, slot in enumerate(slots):
        b.store(pointers[slot], b.gep(buffers, [ir.Constant(I64, k)], inbounds=True, source_etype=POINTER))
    b.call(group, [buffers])
    if entry.status is not None:
        failed, following = function.append_basic_block(), function.append_basic_block()
        fine = b.icmp_signed("==", b.load(pointers[entry.status], typ=I64), ir.Constant(I64, 0))
        b.cbranch(fine, following, failed)
        b.position_at_end(failed)
        for other in made:
            b.call(drop, [other])
        b.branch(refuse)
        b.position_at_end(following)
    if len(made) == 1:
        b.ret(made[0])
    else:
        pack_kind = ir.FunctionType(POINTER, [I64], var_arg=True)
        pack = _function(module, "PyTuple_Pack", pack_kind, symbols)
        answer = b.call(pack, [ir.Constant(I64, len(made)), *made])
        for other in made:
            b.call(drop, [other])  # the tuple has references of its own; without memory it is NULL, with the exception
        b.ret(answer)
    b.position_at_end(refuse)
    none = at(1)
    b.call(take, [none])
    b.ret(none)


def _field(builder: Any, base: Any, offset: int, kind: Any) -> Any:
    return builder.load(builder.gep(base, [ir.Constant(I64, offset)], inbounds=True, source_etype=I8), typ=kind)


def _function(module: ir.Module, name: str, kind: ir.FunctionType, symbols: set[str]) -> Any:
    symbols.add(name)
    return module.globals.get(name) or ir.Function(module, kind, name)


# --- what it is bound to


class _Table(np.ndarray):
    """Addresses for the code, with everything that has to live as long as they are used."""

    keep: Any


def bind(entry: Entry, address: int, code: Any, fixed: dict[int, Array]) -> Direct:
    """The builtin; ``fixed`` are the arrays in the fixed slots."""
    table = [id(np.ndarray), id(None), *(id(dtype) for _, dtype in entry.arguments)]
    table += [fixed[k].ctypes.data for k in entry.fixed]
    for result in entry.results:
        table += [id(result.dtype), *result.shape]
    context = np.array(table, dtype=np.uintp).view(_Table)
    context.keep = (entry, fixed, code)
    return builtin(address, code, context)


@functools.cache
def layout_is_known() -> bool:
    """Whether arrays look as the code expects and NumPy's function makes the array that it should."""
    if not fast_calls() or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False

    def word(array: Array, offset: int, kind: Any = ctypes.c_void_p) -> Any:
        return kind.from_address(id(array) + offset).value

    for probe in (np.arange(6.0).reshape(2, 3), np.zeros((4, 5, 6), np.float32)[::2], np.ones(3, bool), np.array(2.0)):
        wanted = [id(np.ndarray), probe.ctypes.data, id(probe.dtype)]
        if [word(probe, k) for k in (TYPE_OFFSET, DATA_OFFSET, DTYPE_OFFSET)] != wanted:
            return False
        if word(probe, RANK_OFFSET, ctypes.c_int) != probe.ndim:
            return False
        if probe.ndim:
            sizes = (ctypes.c_ssize_t * probe.ndim).from_address(word(probe, SHAPE_OFFSET))
            if tuple(sizes) != probe.shape:
                return False
        tidy = (word(probe, FLAGS_OFFSET, ctypes.c_int) & TIDY) == TIDY
        if tidy != (probe.flags.c_contiguous and probe.flags.aligned):
            return False
    return _makes_arrays()


def _makes_arrays() -> bool:
    try:
        address = machine().address(NEW_ARRAY)
    except (ImportError, AttributeError, LookupError, TypeError, ValueError):
        return False
    kinds = (ctypes.py_object, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, *kinds, ctypes.c_void_p)(address)
    dtype = np.dtype("f4")
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(dtype))
    made = make(np.ndarray, dtype, 2, (ctypes.c_ssize_t * 2)(2, 3), None, None, 0, None)
    return type(made) is np.ndarray and made.shape == (2, 3) and made.dtype is dtype and made.flags.c_contiguous
