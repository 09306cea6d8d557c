"""Executors behind one small interface: ``Program`` in, a function of arrays out."""

from .executors import (
    Compiled,
    ExecutorName,
    check_compilable,
    compile_recorded,
    current_executor,
    executor,
    executor_is,
    expecting_runs,
    expects_machine_code,
    native_available,
    set_executor,
)
from .numpy_executor import compile_numpy
from .program import Origin, Program, Runnable
from .threads import num_threads, set_num_threads

__all__ = [
    "Compiled",
    "ExecutorName",
    "Origin",
    "Program",
    "Runnable",
    "check_compilable",
    "compile_numpy",
    "compile_recorded",
    "current_executor",
    "executor",
    "executor_is",
    "expecting_runs",
    "expects_machine_code",
    "native_available",
    "num_threads",
    "set_executor",
    "set_num_threads",
]
