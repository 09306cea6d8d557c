"""Executors behind one small interface: ``Program`` in, a function of arrays out."""

from .executors import Compiled, current_executor, executor, native_available, set_executor
from .numpy_executor import compile_numpy
from .program import Program, Runnable
from .threads import num_threads, set_num_threads

__all__ = [
    "Compiled",
    "Program",
    "Runnable",
    "compile_numpy",
    "current_executor",
    "executor",
    "native_available",
    "num_threads",
    "set_executor",
    "set_num_threads",
]
