"""Which executor runs a program: numpy, native, or automatic (numpy first, native once a program is hot)."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TypeAlias, get_args

from ..errors import InvalidInputError
from ..graph.node import Array, Node
from .loops import body_size
from .numpy_executor import compile_numpy
from .program import Program, Runnable

ExecutorName: TypeAlias = Literal["auto", "numpy", "native"]


def _checked(name: str) -> ExecutorName:
    for known in get_args(ExecutorName):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise InvalidInputError(f"the executor must be one of {', '.join(get_args(ExecutorName))}, not {name!r}")


_default: ExecutorName | None = None  # from the environment, when it is first needed: an error there can be caught
_chosen: ContextVar[ExecutorName | None] = ContextVar("jacana_executor", default=None)


def set_executor(name: ExecutorName) -> None:
    """Choose the executor for the whole process.

    Args:
        name: ``"numpy"`` (always there), ``"native"`` (machine code through llvmlite, the extra ``native``) or
            ``"auto"``: NumPy at first, machine code for programs that are called often.

    Raises:
        InvalidInputError: no such executor, or ``"native"`` without llvmlite.
    """
    global _default
    name = _checked(name)
    if name == "native" and not native_available():
        raise InvalidInputError("the native executor needs llvmlite: pip install 'jacana[native]'")
    _default = name


@contextmanager
def executor(name: ExecutorName) -> Iterator[None]:
    """Choose the executor within a ``with`` block, for this thread and context.

    >>> import numpy as np
    >>> import jacana as jc
    >>> with jc.executor("numpy"):
    ...     jc.jacobian(np.square)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """
    name = _checked(name)
    if name == "native" and not native_available():
        raise InvalidInputError("the native executor needs llvmlite: pip install 'jacana[native]'")
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def current_executor() -> ExecutorName:
    """The executor in force here."""
    return _chosen.get() or _default or _from_environment()


def _from_environment() -> ExecutorName:
    global _default
    _default = _checked(os.environ.get("JACANA_EXECUTOR", "auto"))
    return _default


def native_available() -> bool:
    """Whether llvmlite is installed and can make code for this machine."""
    try:
        from .native import available
    except ImportError:
        return False
    return available()


LONG_LOOP = 200_000  # operations that a loop runs, all steps together, from which it is compiled before its first run


def _has_long_loop(program: Program) -> bool:
    """Whether calling NumPy for every operation of every step would take longer than compiling."""
    loops = [node.params for node in program.nodes() if node.op.name == "loop"]
    return any(p.body.go is None and p.length * max(body_size(p.body), 1) > LONG_LOOP for p in loops)


def compile_recorded(program: Program) -> Runnable:
    """For one run, while a function is recorded: the values of a loop."""
    if current_executor() != "numpy" and _has_long_loop(program) and native_available():
        from .native import compile_native

        return compile_native(program)
    return compile_numpy(program)


COMPILE_SECONDS = 0.02  # of a module with one small loop
INSTRUCTION_SECONDS = 1e-4  # of each arithmetic instruction in straight-line code
UNROLLED_AXIS = 16  # elements up to which an axis is written out rather than looped over


def _unrolled_work(node: Node) -> int:
    """About how many instructions a node becomes: one for each element along its short axes."""
    if node.op.cost == 0:
        return 0
    sizes = node.params.sizes if node.op.name == "contract" else node.shape
    return math.prod(n for n in sizes if n <= UNROLLED_AXIS)


class Compiled:
    """A program with its executors, made when they are first needed.

    In automatic mode the NumPy executor answers until it has used as much time as compiling would cost, which is never
    more than twice the best that could have been done with knowledge of the future.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._numpy: Runnable | None = None
        self._native: Runnable | None = None
        self._lock = threading.Lock()
        self._spent = 0.0
        self._price: float | None = None
        self._numpy_is_faster = False

    def __call__(self, values: Sequence[Array]) -> list[Array]:
        name = _chosen.get() or _default or _from_environment()
        if name == "numpy":
            return (self._numpy or self._with_numpy())(values)
        if self._native is not None and (name == "native" or not self._numpy_is_faster):
            return self._native(values)
        # The price is asked late: it needs llvmlite, whose import would delay the first answer.
        if name == "native" or (self._spent > COMPILE_SECONDS and self._spent > self._compile_price()):
            if name == "auto" and self._native is not None:
                return (self._numpy or self._with_numpy())(values)
            if native_available():
                return self._with_native()(values) if name == "native" else self._compare(values)
            if name == "native":
                raise InvalidInputError("the native executor needs llvmlite: pip install 'jacana[native]'")
        if self._price is None and self._numpy is None and _has_long_loop(self.program) and native_available():
            return self._with_native()(values)
        begin = time.perf_counter()
        result = (self._numpy or self._with_numpy())(values)
        self._spent += time.perf_counter() - begin
        return result

    def _compare(self, values: Sequence[Array]) -> list[Array]:
        """The first native run in automatic mode: whichever executor is faster here goes on."""
        native, reference = self._with_native(), self._numpy or self._with_numpy()
        seconds = []
        result: list[Array] = []
        for run in (native, reference, native, reference):
            result = []  # one answer in memory at a time
            begin = time.perf_counter()
            result = run(values)
            seconds.append(time.perf_counter() - begin)
        self._numpy_is_faster = min(seconds[1], seconds[3]) < min(seconds[0], seconds[2])
        if self._numpy_is_faster:
            return result
        del result
        return native(values)

    def _compile_price(self) -> float:
        if self._price is None:
            work = sum(_unrolled_work(node) for node in self.program.nodes())
            self._price = COMPILE_SECONDS + INSTRUCTION_SECONDS * work if native_available() else float("inf")
        return self._price

    def _with_numpy(self) -> Runnable:
        with self._lock:
            if self._numpy is None:
                self._numpy = compile_numpy(self.program)
        return self._numpy

    def _with_native(self) -> Runnable:
        from .native import compile_native

        with self._lock:
            if self._native is None:
                self._native = compile_native(self.program)
        return self._native
