"""Which executor runs a program: numpy, native, or automatic (numpy first, native once a program is hot)."""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeAlias, get_args

from ..errors import InvalidInputError
from ..graph.fingerprint import Fingerprint, fingerprint
from ..graph.garbage import seldom_collected
from ..graph.node import Array, Node
from ..graph.ops.control import Body, LoopParams
from . import background, store
from .loops import body_operations, body_size
from .numpy_executor import compile_numpy
from .program import Origin, Program, Runnable

ExecutorName: TypeAlias = Literal["auto", "numpy", "native"]


def _checked(name: str) -> ExecutorName:
    for known in get_args(ExecutorName):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise InvalidInputError(f"the executor must be one of {', '.join(get_args(ExecutorName))}, not {name!r}")


NEEDS_LLVMLITE = "needs llvmlite, which is not installed: pip install 'jacana[native]'"

_default: ExecutorName | None = None  # from the environment, when it is first needed: an error there can be caught
_in_background: bool | None = None
_chosen: ContextVar[ExecutorName | None] = ContextVar("jacana_executor", default=None)


def set_executor(name: ExecutorName, *, background: bool | None = None) -> None:
    """Choose the executor for the whole process. The environment variable ``JACANA_EXECUTOR`` does the same.

    Args:
        name: ``"numpy"`` (always there), ``"native"`` (machine code through llvmlite, the extra ``native``) or
            ``"auto"``: NumPy at first, machine code for programs that are called often.
        background: whether ``"auto"`` compiles on a thread of its own while NumPy goes on answering (the default), or
            in the call that finds a program hot, which makes it predictable when the change comes. The environment
            variable ``JACANA_BACKGROUND=0`` does the same. None: as it was.

    Raises:
        InvalidInputError: no such executor, or ``"native"`` without llvmlite.
    """
    global _default, _in_background
    name = _checked(name)
    if name == "native" and not native_available():
        raise InvalidInputError(f"the native executor {NEEDS_LLVMLITE}")
    _default = name
    if background is not None:
        _in_background = background


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
        raise InvalidInputError(f"the native executor {NEEDS_LLVMLITE}")
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def executor_is(name: str) -> bool:
    """Whether this executor is in force, quickly."""
    return (_chosen.get() or _default) == name


def current_executor() -> ExecutorName:
    """The executor in force here."""
    return _chosen.get() or _default or _from_environment()


def _from_environment() -> ExecutorName:
    global _default
    _default = _checked(os.environ.get("JACANA_EXECUTOR", "auto"))
    return _default


def compiles_in_background() -> bool:
    global _in_background
    if _in_background is None:
        _in_background = os.environ.get("JACANA_BACKGROUND", "1") not in ("0", "")
    return _in_background


def check_compilable(what: str) -> None:
    """Refuse to promise machine code that cannot be made (cheaply: llvmlite is looked for, not imported).

    Raises:
        InvalidInputError: llvmlite is not installed, and NumPy has not been asked for instead.
    """
    if current_executor() != "numpy" and not _llvmlite_found():
        raise InvalidInputError(f"{what} {NEEDS_LLVMLITE}")


def expects_machine_code() -> bool:
    """Whether a program that is run again and again ends up as machine code."""
    return current_executor() != "numpy" and _llvmlite_found()


def _llvmlite_found() -> bool:
    # It is looked for and not imported: that takes longer than many programs do.
    return importlib.util.find_spec("llvmlite") is not None


def native_available() -> bool:
    """Whether llvmlite is installed and can make code for this machine."""
    try:
        from .native import available
    except ImportError:
        return False
    return available()


COMPILE_SECONDS = 0.02  # of a module with one small loop
STEP_SECONDS = 2.5e-6  # of NumPy for each operation of each step of a loop
BODY_SECONDS = 8e-4  # of compiling each operation of a loop's body
PRODUCT_SECONDS = 1e-2  # of compiling each product or function of matrices in it


_runs: ContextVar[int] = ContextVar("jacana_expected_runs", default=4)


@contextmanager
def expecting_runs(count: int) -> Iterator[None]:
    """Programs with long loops will be run about this often."""
    token = _runs.set(count)
    try:
        yield
    finally:
        _runs.reset(token)


def _has_long_loop(program: Program) -> bool:
    """Whether calling NumPy for every operation of every step, a few times, would take longer than compiling.

    Then the first call compiles and waits. In the background it takes twice as long: both need the interpreter.
    """
    loops = [p for p in _loops(program) if p.body.go is None]
    compiling = COMPILE_SECONDS + sum(_body_seconds(p.body) for p in loops)
    runs = _runs.get()
    return any(runs * p.length * body_size(p.body) * STEP_SECONDS > compiling for p in loops)


def _loops(program: Program) -> list[LoopParams]:
    return [node.params for node in program.nodes() if node.op.name == "loop"]


def _body_seconds(body: Body) -> float:
    """About how long compiling the body of a loop takes."""
    return sum(
        PRODUCT_SECONDS if node.op.name == "contract" or node.op.family == "linalg" else BODY_SECONDS
        for node in body_operations(body)
    )


def compile_recorded(program: Program) -> Runnable:
    """For one run, while a function is recorded: the values of a loop."""
    if current_executor() != "numpy" and _has_long_loop(program) and native_available():
        from .native import compile_native

        return compile_native(program)
    return compile_numpy(program)


RECALL_SECONDS = 0.004  # of NumPy's time after which it is worth looking whether the program was compiled before
INSTRUCTION_SECONDS = 1e-4  # of each arithmetic instruction in straight-line code
UNROLLED_AXIS = 16  # elements up to which an axis is written out rather than looped over
LOOP_INSTRUCTIONS = 20  # that take as long to compile as an operation in a loop over a longer axis


def _unrolled_work(node: Node) -> int:
    """About how many instructions a node becomes: one for each element along its short axes."""
    if node.op.cost == 0:
        return 0
    sizes = node.params.sizes if node.op.name == "contract" else node.shape
    written = math.prod(n for n in sizes if n <= UNROLLED_AXIS)
    return written + LOOP_INSTRUCTIONS if any(n > UNROLLED_AXIS for n in sizes) else written


class Compiled:
    """A program with its executors, made when they are first needed.

    In automatic mode the NumPy executor answers until it has used as much time as compiling would cost, which is never
    more than twice the best that could have been done with knowledge of the future. Then the program is compiled in
    the background, and the first call after that compares the two.

    Args:
        program: the program, or a function that derives it when it is needed.
        native: in automatic mode, compile at the first call.
        origin: what the program is derived from; then machine code that was kept is found without deriving it.
    """

    def __init__(
        self, program: Program | Callable[[], Program], native: bool = False, origin: Origin | None = None
    ) -> None:
        self._given = program
        self.native = native
        self._origin = origin
        self._looked = False  # for machine code of another process
        self._numpy: Runnable | None = None
        self._native: Runnable | None = None
        self._fastest: Runnable | None = None  # what automatic mode has settled on
        self._spent = 0.0
        self._price: float | None = None
        self._submitted = 0  # the process that is compiling this in the background
        self._failure: Exception | None = None

    @functools.cached_property
    def program(self) -> Program:
        """The program."""
        if isinstance(self._given, Program):
            return self._given
        with seldom_collected():
            return self._given()

    def __call__(self, values: Sequence[Array]) -> list[Array]:
        name = _chosen.get() or _default or _from_environment()
        if name == "auto":
            fastest = self._fastest
            if fastest is not None:
                return fastest(values)
            if not self.native:
                return self._automatic(values)
        elif name == "numpy":
            return (self._numpy or self._with_numpy())(values)
        return (self._native or self._with_native())(values)

    def _automatic(self, values: Sequence[Array]) -> list[Array]:
        if self._native is not None:
            return self._compare(values)
        if self._numpy is None and not self._looked and self._origin is not None and self._origin.long:
            # Deriving takes longer than looking whether some process has left machine code.
            self._looked = True
            self._recall()
            if self._native is not None:
                self._fastest = self._native
                return self._fastest(values)
        if self._numpy is None and _has_long_loop(self.program) and native_available():
            self._fastest = self._with_native()
            return self._fastest(values)
        if self._spent > RECALL_SECONDS and not self._looked:
            self._looked = True
            if compiles_in_background():
                background.submit(_Task(self, recall=True))
        if self._spent > COMPILE_SECONDS and self._spent > self._compile_price():
            if self._failure is not None:
                self._give_up(self._failure)
            elif not compiles_in_background():
                if native_available():
                    return self._compare(values)
                self._fastest = self._with_numpy()
            elif self._submitted != os.getpid():  # the child of a fork has no thread that is at it
                self._submitted = os.getpid()
                background.submit(_Task(self))
        begin = time.perf_counter()
        result = (self._numpy or self._with_numpy())(values)
        self._spent += time.perf_counter() - begin
        return result

    def _give_up(self, failure: Exception) -> None:
        self._fastest = self._with_numpy()
        warnings.warn(
            f"a program could not be compiled and stays with NumPy: {type(failure).__name__}: {failure}",
            RuntimeWarning,
            stacklevel=6,
        )

    def _compare(self, values: Sequence[Array]) -> list[Array]:
        """The first native run in automatic mode: whichever executor is faster here goes on."""
        native, reference = self._with_native(), self._with_numpy()
        seconds = []
        result: list[Array] = []
        for run in (native, reference, native, reference):
            result = []  # one answer in memory at a time
            begin = time.perf_counter()
            result = run(values)
            seconds.append(time.perf_counter() - begin)
        if min(seconds[1], seconds[3]) < min(seconds[0], seconds[2]):
            self._fastest = reference
            return result
        self._fastest = native
        del result
        return native(values)

    def _compile_price(self) -> float:
        if self._price is None:
            work = sum(_unrolled_work(node) for node in self.program.nodes())
            price = (
                COMPILE_SECONDS + INSTRUCTION_SECONDS * work + sum(_body_seconds(p.body) for p in _loops(self.program))
            )
            self._price = price if _llvmlite_found() else float("inf")
        return self._price

    def _with_numpy(self) -> Runnable:
        if self._numpy is None:
            with seldom_collected():
                self._numpy = compile_numpy(self.program)  # two threads may both make it: they are the same
        return self._numpy

    def _with_native(self) -> Runnable:
        if not native_available():
            raise InvalidInputError(f"the native executor {NEEDS_LLVMLITE}")
        if self._native is not None:
            return self._native  # without waiting for whatever else is being compiled
        from .native import compile_native, recall_native

        with background.compiling:
            if self._native is None:
                known = self._identity
                found = None if known is None else recall_native(known, self._inputs)
                with seldom_collected():
                    self._native = found or compile_native(self.program, known)
        return self._native

    @functools.cached_property
    def _identity(self) -> Fingerprint | None:
        """What machine code of this program is found by."""
        if self._origin is not None:
            return self._origin.fingerprint()
        return fingerprint(self.program.inputs, self.program.outputs)

    @property
    def _inputs(self) -> tuple[Node, ...]:
        return (self._origin or self.program).inputs

    def direct(self) -> tuple[ExecutorName, Callable[..., Any]] | None:
        """The executor in force and, if it runs this program by one builtin, that builtin.

        The builtin takes the arguments as they are and gives the array, or the tuple of arrays, that the program
        computes; None if they are not plain, contiguous arrays of the program's dtypes and shapes.
        """
        name = _chosen.get() or _default or _from_environment()
        run = self._native if name == "native" or self.native else self._fastest
        found = None if name == "numpy" else getattr(run, "direct", None)
        return None if found is None else (name, found)

    def _recall(self) -> None:
        """Take machine code that another process has left; llvmlite is imported only if there seems to be some."""
        known = self._identity
        if known is None or not store.may_have(known.digest) or not native_available():
            return
        from .native import recall_native

        with background.compiling:
            if self._native is None:
                self._native = recall_native(known, self._inputs)


class _Task:
    """Compile a program in the background, if it is still wanted when its turn comes."""

    def __init__(self, compiled: Compiled, recall: bool = False) -> None:
        self._compiled = weakref.ref(compiled)
        self._only_recall = recall

    def __call__(self) -> None:
        compiled = self._compiled()
        if compiled is None:
            return
        try:
            if self._only_recall:
                compiled._recall()
            elif native_available():
                compiled._with_native()
            else:
                compiled._fastest = compiled._with_numpy()
        except background.AbandonedError:
            pass
        except Exception as failure:
            compiled._failure = failure
