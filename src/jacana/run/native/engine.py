"""LLVM through llvmlite's ORC interface: modules in, callables out; what this machine has; vector mathematics."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import itertools
import sys
import threading
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from . import threads

_lock = threading.RLock()
_names = itertools.count()


class Machine:
    """The target, its vector width, and the C functions that can be called."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.triple = llvm.get_process_triple()
        features = llvm.get_host_cpu_features()
        target = llvm.Target.from_triple(self.triple)
        self.target_machine = target.create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=3, codemodel="jitdefault", jit=True
        )
        self.lanes = 8 if features.get("avx512f") else 4
        # A fused multiply and add: every 64-bit ARM has it, and all x86 since about 2013.
        self.fma = bool(features.get("fma")) or self.triple.startswith(("aarch64", "arm64"))
        self.wide = features.get("avx512f") or features.get("avx2") or False
        self.libm = _mathematics()
        self.libmvec: ctypes.CDLL | None = None
        if sys.platform.startswith("linux") and self.wide:
            try:
                self.libmvec = ctypes.CDLL("libmvec.so.1")
            except OSError:
                self.libmvec = None
        self.jit = llvm.create_lljit_compiler(self.target_machine)

    def vector_symbol(self, name: str, arguments: int, bits: int, lanes: int) -> str | None:
        """The libmvec function for ``name`` on ``lanes`` values of ``bits``, if library and processor have it."""
        if self.libmvec is None or lanes * bits > 64 * self.lanes:
            return None
        letter = {256: "d", 512: "e", 128: "b"}[lanes * bits]
        symbol = f"_ZGV{letter}N{lanes}{'v' * arguments}_{name}{'f' if bits == 32 else ''}"
        return symbol if hasattr(self.libmvec, symbol) else None

    def address(self, symbol: str) -> int:
        """Where a C function is, or one of ours."""
        if symbol == NEW_ARRAY:
            return _numpy_function(NEW_ARRAY_PLACE)
        if symbol == threads.PARALLEL:
            return threads.parallel_address(self)
        for library in (self.libmvec, self.libm, ctypes.pythonapi):
            if library is not None and hasattr(library, symbol):
                return ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value or 0
        raise KeyError(symbol)


NEW_ARRAY, NEW_ARRAY_PLACE = "PyArray_NewFromDescr", 94  # in NumPy's table of C functions


def _numpy_function(place: int) -> int:
    """A function of NumPy's C interface, which is a table of pointers."""
    module: Any = importlib.import_module("numpy._core._multiarray_umath")
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.cast(get(module._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    address = table[place]
    if not address:
        raise KeyError(place)
    return int(address)


def _mathematics() -> ctypes.CDLL:
    """The C library's mathematics."""
    if sys.platform == "win32":
        return ctypes.cdll.msvcrt
    try:
        return ctypes.CDLL("libm.so.6")  # asking where it is starts a compiler or a linker
    except OSError:
        return ctypes.CDLL(ctypes.util.find_library("m"))


_machine: Machine | None = None


def machine() -> Machine:
    """The one description of this machine, made on first use."""
    global _machine
    if _machine is None:
        with _lock:
            if _machine is None:
                _machine = Machine()
    return _machine


LONG = 10_000  # lines of straight-line code above which the code generator is not asked for its best


def optimise(text: str, straight: str = "") -> Any:
    """Parsed, verified and optimised LLVM code.

    ``straight`` is code without loops whose values are all computed once: LLVM's passes find nothing in it that makes
    it faster, and take a fifth of the time that compiling does. Where there is very much of it, instructions are
    selected one by one as well, for two thirds of the time and code that takes a tenth longer.
    """
    m = machine()
    module = llvm.parse_assembly(text)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.slp_vectorization = False  # seconds on straight-line code, for less than it saves
    options.loop_vectorization = False  # loops already are explicit vectors
    options.loop_unrolling = False
    builder = llvm.create_pass_builder(m.target_machine, options)
    builder.getModulePassManager().run(module, builder)
    if straight:
        pieces = llvm.parse_assembly(straight)
        pieces.verify()
        if straight.count("\n") > LONG:
            for function in pieces.functions:
                if not function.is_declaration:
                    function.add_function_attribute("optnone")
                    function.add_function_attribute("noinline")
        module.link_in(pieces)
    return module


def object_image(text: str, straight: str = "") -> bytes:
    """A module as relocatable machine code."""
    with _lock:
        image: bytes = machine().target_machine.emit_object(optimise(text, straight))
        return image


def link(image: bytes, symbols: set[str], exported: list[str]) -> tuple[dict[str, int], Any]:
    """Load an object image and return the addresses of its functions and the handle that keeps them alive.

    Raises:
        KeyError: a C function is not there.
        RuntimeError: LLVM cannot load the image.
    """
    m = machine()
    with _lock:
        library = llvm.JITLibraryBuilder().add_object_img(image)
        for symbol in sorted(symbols):
            library.import_symbol(symbol, m.address(symbol))
        for name in exported:
            library.export_symbol(name)
        tracker = library.link(m.jit, f"jacana_{next(_names)}")
        return {name: tracker[name] for name in exported}, tracker


# --- calls ------------------------------------------------------------------------------------------------------


class _MethodDef(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


_METH_FASTCALL = 0x0080
DATA_OFFSET = 16  # of PyArrayObject.data, after the object header; checked by ``fast_calls``


def fast_calls() -> bool:
    """Whether a builtin can be made from machine code that reads the data pointer out of an ndarray by itself."""
    if sys.implementation.name != "cpython" or hasattr(sys, "_is_gil_enabled"):
        # Builds that may run without the GIL have another object header; they take the slower call.
        free_threaded = not getattr(sys, "_is_gil_enabled", lambda: True)()
        if sys.implementation.name != "cpython" or free_threaded:
            return False
    probe = np.arange(3.0)
    return ctypes.c_void_p.from_address(id(probe) + DATA_OFFSET).value == probe.ctypes.data


def builtin(address: int, keep: Any, owner: Any = None) -> Callable[..., Any]:
    """A Python builtin that calls ``PyObject *(self, PyObject *const *args, Py_ssize_t n)`` at ``address``.

    ``self`` is ``owner``; kernels return it, so it is None for them.
    """
    definition = _MethodDef(b"kernel", address, _METH_FASTCALL, None)
    create = ctypes.pythonapi.PyCFunction_NewEx
    create.restype = ctypes.py_object
    create.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p]
    function: Callable[..., Any] = create(ctypes.addressof(definition), owner, None)
    # Machine code lives as long as the process: a builtin cannot tell when it is gone. 50 kB for each program, and 80
    # that LLVM's passes do not give back.
    # The definition outlives even this module, since builtins that the interpreter lets go last still read it.
    _alive.append(keep)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(definition))
    return function


_alive: list[Any] = []
