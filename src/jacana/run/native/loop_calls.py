"""The functions around a loop in machine code: what Python calls, with steps that share no carry on all threads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from ...graph.node import Array
from ...graph.ops.control import RunParams
from ...plan.native_loops import plan_loop
from ..loops import bundle, raise_failure, run_loop, steps_of, storage_makers
from ..program import Program, Runnable
from .calls import external, module_image, slow_call, wrapper
from .emitter import I1, I8, I64, POINTER
from .engine import builtin, fast_calls, link
from .loops import ALIGNMENT, LoopFunction, slot_of
from .threads import PARALLEL

SHARES = 64  # that independent steps are divided into
PARALLEL_WORK = 100_000  # computed values from which independent steps use several threads
POINTER_BYTES = 8

Value = Any


def native_loop(params: RunParams, compile_body: Callable[[Program], Runnable]) -> Callable[..., Any]:
    """``(initial carries, stacks, constants) -> array of the results``; in machine code where all of it can be."""
    planned = plan_loop(params)
    if planned is None:
        return run_loop(params, compile_body)
    return loop_caller(LoopFunction.of(planned))


def loop_caller(code: LoopFunction) -> Callable[..., Any]:
    """The function of arrays that runs a ``loop_run``."""
    function = callable_of(code)
    params, body = code.params, code.params.body
    given = len(body.carries) + len(body.stacks) + len(body.consts)
    constants = given - len(body.consts)
    finals = [body.carries[k] for k in params.finals]
    makers: list[Callable[[], Array]] = [functools.partial(np.empty, n.shape, n.dtype) for n in finals]
    makers += storage_makers(params)
    template = code.template()
    fetched = [(code.arrays[key], fetch) for key, fetch in code.fetched.items()]
    work, status = code.arrays.get("work"), code.arrays.get("status")
    work_size = code.work_size * (SHARES if independent(code) else 1) + ALIGNMENT
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
        if status is not None:
            raise_failure(slots[status])
        return bundle(made)

    return run


def callable_of(code: LoopFunction) -> Callable[..., Any]:
    """The loop as a function of arrays: those of ``code.arrays``, in order, and the first step and their number."""
    count = len(code.arrays)
    group = ir.Function(code.module, ir.FunctionType(ir.VoidType(), [POINTER]), "group")
    b: Any = ir.IRBuilder(group.append_basic_block("entry"))
    work = code.arrays.get("work")
    if work is not None:
        place = slot_of(b, group.args[0], work)
        b.store(_aligned(b, b.load(place, typ=POINTER)), place)
    first, steps = _given_window(code, b, group.args[0])
    if independent(code):
        worth = ir.Constant(I64, max(PARALLEL_WORK // max(code.planned.work, 1), 1))
        with b.if_else(b.icmp_signed(">", steps, worth)) as (many, few):
            with many:
                each = external(
                    code.module, PARALLEL, ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I64]), code.symbols
                )
                chunk = _chunk(b, steps)
                last = b.sub(b.add(steps, chunk), ir.Constant(I64, 1))
                b.call(each, [_share(code), group.args[0], b.sdiv(last, chunk)])
            with few:
                b.call(code.function, [group.args[0], first, steps])
    else:
        b.call(code.function, [group.args[0], first, steps])
    b.ret_void()
    quick = fast_calls()
    name = "call_group" if quick else "group"
    if quick:
        wrapper(code.module, group, count + 1, name, True, code.symbols)
    addresses, keep = link(module_image(str(code.module)), code.symbols, [name])
    return builtin(addresses[name], keep) if quick else slow_call(addresses[name], count + 1, keep)


def whole_group(code: LoopFunction, used: Sequence[Any]) -> Any:
    """``void group0(ptr *buffers)``: one step, on the arrays ``used``; what is not among them is on the stack."""
    group = ir.Function(code.module, ir.FunctionType(ir.VoidType(), [POINTER]), "group0")
    b: Any = ir.IRBuilder(group.append_basic_block("entry"))
    own = b.alloca(POINTER, ir.Constant(I64, max(len(code.arrays), 1)))
    given = {key: k for k, key in enumerate(used)}
    for key, place in code.arrays.items():
        if key in given:
            pointer = b.load(slot_of(b, group.args[0], given[key]), typ=POINTER)
        else:
            pointer = b.alloca(I8, ir.Constant(I64, code.work_size + ALIGNMENT))
        b.store(_aligned(b, pointer) if key == "work" else pointer, slot_of(b, own, place))
    b.call(code.function, [own, ir.Constant(I64, 0), ir.Constant(I64, 1)])
    b.ret_void()
    return group


def independent(code: LoopFunction) -> bool:
    """Whether steps can be run at the same time."""
    body = code.params.body
    return not (body.carries or body.dynamic or code.params.reverse)


def _given_window(code: LoopFunction, b: Any, arrays: Value) -> tuple[Value, Value]:
    window = b.load(slot_of(b, arrays, len(code.arrays)), typ=POINTER)
    first, steps = (b.load(b.gep(window, [ir.Constant(I64, k)], inbounds=True, source_etype=I64), typ=I64)
                    for k in range(2))  # fmt: skip
    return first, steps


def _share(code: LoopFunction) -> Any:
    """``void share(ptr arrays, i64 k)``: the k-th of the shares of independent steps, in a workspace of its own."""
    function = ir.Function(code.module, ir.FunctionType(ir.VoidType(), [POINTER, I64]), "share")
    b: Any = ir.IRBuilder(function.append_basic_block("entry"))
    arrays, k = function.args
    first, steps = _given_window(code, b, arrays)
    chunk = _chunk(b, steps)
    begin = b.mul(k, chunk)
    rest = b.sub(steps, begin)
    own = b.alloca(POINTER, ir.Constant(I64, len(code.arrays)))
    memcpy = code.declared("llvm.memcpy.p0.p0.i64", [POINTER, POINTER, I64, I1])
    size = ir.Constant(I64, len(code.arrays) * POINTER_BYTES)
    b.call(memcpy, [own, arrays, size, ir.Constant(I1, 0)])
    work = code.arrays.get("work")
    if work is not None:
        pointer = b.load(slot_of(b, own, work), typ=POINTER)
        pointer = b.gep(pointer, [b.mul(k, ir.Constant(I64, code.work_size))], inbounds=True, source_etype=I8)
        b.store(pointer, slot_of(b, own, work))
    size = b.select(b.icmp_signed("<", rest, chunk), rest, chunk)
    b.call(code.function, [own, b.add(first, begin), size])
    b.ret_void()
    return function


def _aligned(builder: Any, pointer: Value) -> Value:
    """The first place from there on that is aligned: NumPy and the stack do it to less."""
    up = builder.add(builder.ptrtoint(pointer, I64), ir.Constant(I64, ALIGNMENT - 1))
    return builder.inttoptr(builder.and_(up, ir.Constant(I64, -ALIGNMENT)), POINTER)


def _chunk(builder: Any, steps: Value) -> Value:
    """How many steps are a share."""
    return builder.sdiv(builder.add(steps, ir.Constant(I64, SHARES - 1)), ir.Constant(I64, SHARES))


__all__ = ["SHARES", "callable_of", "loop_caller", "native_loop", "whole_group"]
