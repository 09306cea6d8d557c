"""From Python to functions of data pointers: as builtins that read them from arrays, or through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from ...graph.node import Array
from .. import store
from .emitter import I1, I8, I64, POINTER
from .engine import DATA_OFFSET, object_image
from .keys import SIZE, environment

GIL_WORK = 20_000  # computed values above which a call lets other threads run meanwhile
WRITTEN_OUT = 16  # arguments up to which reading them is straight-line code


def wrapper(module: ir.Module, group: Any, count: int, name: str, release: bool, symbols: set[str]) -> None:
    """``PyObject *name(self, PyObject *const *args, Py_ssize_t n)``: read the data pointers, call, return None."""
    function = ir.Function(module, ir.FunctionType(POINTER, [POINTER, POINTER, I64]), name)
    builder: Any = ir.IRBuilder(function.append_basic_block("entry"))
    buffers = builder.alloca(POINTER, ir.Constant(I64, max(count, 1)))

    def read(k: Any) -> None:
        slot = builder.gep(function.args[1], [k], inbounds=True, source_etype=POINTER)
        array = builder.load(slot, typ=POINTER)
        field = builder.gep(array, [ir.Constant(I64, DATA_OFFSET)], inbounds=True, source_etype=I8)
        place = builder.gep(buffers, [k], inbounds=True, source_etype=POINTER)
        builder.store(builder.load(field, typ=POINTER), place)

    if count <= WRITTEN_OUT:
        for k in range(count):
            read(ir.Constant(I64, k))
    else:
        before = builder.block
        body, done = (builder.append_basic_block(part) for part in ("read", "done"))
        builder.branch(body)
        builder.position_at_end(body)
        k = builder.phi(I64)
        k.add_incoming(ir.Constant(I64, 0), before)
        read(k)
        following = builder.add(k, ir.Constant(I64, 1))
        k.add_incoming(following, body)
        builder.cbranch(builder.icmp_signed("<", following, ir.Constant(I64, count)), body, done)
        builder.position_at_end(done)
    if release:
        save = external(module, "PyEval_SaveThread", ir.FunctionType(POINTER, []), symbols)
        restore = external(module, "PyEval_RestoreThread", ir.FunctionType(ir.VoidType(), [POINTER]), symbols)
        state = builder.call(save, [])
        builder.call(group, [buffers])
        builder.call(restore, [state])
    else:
        builder.call(group, [buffers])
    none = function.args[0]  # what the builtin is bound to: no address of this process may be in the code
    builder.call(external(module, "Py_IncRef", ir.FunctionType(ir.VoidType(), [POINTER]), symbols), [none])
    builder.ret(none)


def external(module: ir.Module, name: str, kind: ir.FunctionType, symbols: set[str]) -> Any:
    symbols.add(name)
    return module.globals.get(name) or ir.Function(module, kind, name)


def memset(module: ir.Module) -> Any:
    """``void memset(ptr, i8 value, i64 bytes, i1 volatile)``."""
    name = "llvm.memset.p0.i64"
    kind = ir.FunctionType(ir.VoidType(), [POINTER, I8, I64, I1])
    return module.globals.get(name) or ir.Function(module, kind, name)


def slow_call(address: int, count: int, keep: Any) -> Callable[..., None]:
    group = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
    buffers = ctypes.c_void_p * max(count, 1)

    def call(*arrays: Array) -> None:
        pointers = buffers(*[a.ctypes.data for a in arrays])  # a name of its own: it has to outlive the call
        group(ctypes.addressof(pointers))

    call.keep = keep  # type: ignore[attr-defined]
    return call


def module_image(text: str, straight: str = "") -> bytes:
    """Machine code for a module, from the disk if some process has left it there."""
    key = (hashlib.blake2b((text + straight).encode(), digest_size=SIZE).digest(), environment())
    found = store.fetch(*key)
    if found is not None:
        return found[1]
    image = object_image(text, straight)
    store.keep(*key, None, image)
    return image
