"""Methods of ndarray on a Variable: the NumPy functions of the same names."""

from __future__ import annotations

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


def remedy_of_conversion() -> str:
    """What to write in the place of what asks a Variable for an ndarray: a library, or a ufunc of a list."""
    recording = current_recording() is not None
    joined = "np.array" if recording else "jacana.functions.array"
    asking, user = calling_scipy(), user_frame()
    if asking is not None:
        module = ".".join(str(asking.f_globals["__name__"]).split(".")[:2])
        inside = "" if recording else "in a function given to jacana.jacobian much of SciPy has derivatives; else, "
        return (
            f"{asking.f_code.co_qualname} of {module} takes plain numbers: {inside}write its formula with NumPy and "
            "scipy.special, or make it an operation of your own (jacana.custom_operation)"
        )
    name = None if user is None else called_name(user.f_code, user.f_lasti)
    if isinstance(getattr(np, name or "", None), np.ufunc):
        return f"numpy.{name} finds no Variable within a list: make one array of it, np.{name}({joined}([a, b]))"
    return (
        "Keep it a Variable: call NumPy as `np.function` (and scipy.linalg as `scipy.linalg.function`), join "
        f"Variables with np.stack or {joined}, convert with y.astype(dtype); {WRITABLE}"
    )
