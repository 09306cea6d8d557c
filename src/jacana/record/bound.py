"""Methods of ndarray on a Variable: the NumPy functions of the same names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .bytecode import called_name
from .location import calling_scipy, user_frame
from .recording import current_recording
from .table import asks_complex, call_complex, is_complex

OF_NUMPY = dict(vars(np))  # as it was: some names are replaced while something is recorded
ABOUT_MEMORY = frozenset({"flags", "strides", "device"})
WRITABLE = (
    "make an array that Variables are written into inside the recorded function with np.zeros(...) or np.array(...), "
    "called as `np.` (elsewhere with np.zeros_like(x) of a Variable)"
)
OUTSIDE = (
    "put the whole computation into a function, def f(x): ..., and write jacana.jacobian(f)(x), where quad, solve_ivp, "
    "root, brentq, minimize and much else of SciPy have derivatives; else, "
)
ARRAY_ONLY = frozenset(name for name in dir(np.ndarray) if not name.startswith("_"))


class BoundMethod:
    """A NumPy function bound to a Variable."""

    __slots__ = ("_function", "_variable")

    def __init__(self, function: Callable[..., Any], variable: Any) -> None:
        self._function = function
        self._variable = variable

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if any(map(is_complex, args)) or asks_complex(kwargs):
            function = OF_NUMPY.get(self._function.__name__.rstrip("_"))
            if function is not None:
                return call_complex(function, (self._variable, *args), kwargs)
        return self._function(self._variable, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<method of Variable: {self._function.__name__}>"


def remedy_for_scipy() -> str:
    """What to write in the place of the function of SciPy's that asks a Variable for its numbers, if one does."""
    asking, user = calling_scipy(), user_frame()
    if asking is None:
        return ""
    name = asking.f_code.co_qualname
    if user is not None and ("<" in name or name.startswith("_")):  # a decorator of SciPy's
        name = called_name(user.f_code, user.f_lasti) or name
    module = str(asking.f_globals["__name__"]).partition("._")[0]
    outside = "" if current_recording() is not None else OUTSIDE
    return (
        f"{name} of {module} takes plain numbers: {outside}write its formula with NumPy and scipy.special, or make it "
        "an operation of your own (jacana.custom_operation)"
    )


def refuse_solvers(*arrays: Any) -> None:
    """Say so before MINPACK is called with a Variable: it would hide our error behind one of its own."""
    if current_recording() is None:
        frame = sys._getframe(1)
        while frame is not None and str(frame.f_globals.get("__name__")).startswith(("jacana.record", "numpy")):
            frame = frame.f_back  # type: ignore[assignment]
        if frame is not None and frame.f_globals.get("__name__") == "scipy.optimize._minpack_py":
            for array in arrays:
                np.asarray(array)  # raises


def remedy_of_conversion() -> str:
    """What to write in the place of what asks a Variable for an ndarray: a library, or a ufunc of a list."""
    found = remedy_for_scipy()
    if found:
        return found
    joined = "np.array" if current_recording() is not None else "jacana.functions.array"
    user = user_frame()
    name = None if user is None else called_name(user.f_code, user.f_lasti)
    if isinstance(getattr(np, name or "", None), np.ufunc):
        return f"numpy.{name} finds no Variable within a list: make one array of it, np.{name}({joined}([a, b]))"
    return (
        "Keep it a Variable: call NumPy as `np.function` (and scipy.linalg as `scipy.linalg.function`), join "
        f"Variables with np.stack or {joined}, convert with y.astype(dtype); {WRITABLE}"
    )
