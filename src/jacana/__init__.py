"""Exact Jacobians of plain NumPy code: whole, structured, and at the speed of native code.

>>> import numpy as np
>>> import jacana as jc
>>> W = np.arange(6.0).reshape(2, 3)
>>> jc.jacobian(lambda x: W @ x)(np.ones(3))
array([[0., 1., 2.],
       [3., 4., 5.]])
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import implicit
from ._version import __version__
from .batched import vmap
from .complex import real_form
from .custom import Function, check_operation, custom_operation
from .errors import (
    ConvergenceError,
    DifferentiationError,
    InvalidInputError,
    JacanaError,
    RecordingError,
    UnsupportedOperationError,
)
from .record import Variable
from .record.control import cond, fori_loop, scan, while_loop
from .run import executor, native_available, num_threads, set_executor, set_num_threads
from .selections import diagonal, gauss_newton, jacobian_columns, jacobian_rows, trace
from .transforms import compile, grad, hessian, jacobian, jvp, value_and_grad, value_and_jacobian, vjp

if TYPE_CHECKING:
    from . import functions, gradient_check, optimize, scipy
    from .optimize import LeastSquares, LeastSquaresResult, Model, curve_fit, fit_batch, fixed_point, minimize, root
    from .optimize.least_squares import least_squares
    from .report.check import check
    from .report.explain import explain
    from .report.find_nan import find_nan

__all__ = [
    "ConvergenceError",
    "DifferentiationError",
    "Function",
    "InvalidInputError",
    "JacanaError",
    "LeastSquares",
    "LeastSquaresResult",
    "Model",
    "RecordingError",
    "UnsupportedOperationError",
    "Variable",
    "__version__",
    "check",
    "check_operation",
    "compile",
    "cond",
    "curve_fit",
    "custom_operation",
    "diagonal",
    "executor",
    "explain",
    "find_nan",
    "fit_batch",
    "fixed_point",
    "fori_loop",
    "functions",
    "gauss_newton",
    "grad",
    "gradient_check",
    "hessian",
    "implicit",
    "jacobian",
    "jacobian_columns",
    "jacobian_rows",
    "jvp",
    "least_squares",
    "minimize",
    "native_available",
    "num_threads",
    "optimize",
    "real_form",
    "root",
    "scan",
    "scipy",
    "set_executor",
    "set_num_threads",
    "trace",
    "value_and_grad",
    "value_and_jacobian",
    "vjp",
    "vmap",
    "while_loop",
]

_OPTIMISERS = (
    "LeastSquares",
    "LeastSquaresResult",
    "Model",
    "curve_fit",
    "fit_batch",
    "fixed_point",
    "least_squares",
    "minimize",
    "optimize",
    "root",
)


def __getattr__(name: str) -> Any:
    # scipy.linalg takes longer to import than everything else together, so the optimisers come when they are asked for.
    if name in _OPTIMISERS:
        optimize = importlib.import_module(".optimize", __name__)
        found = optimize if name == "optimize" else getattr(optimize, name)
    elif name == "scipy":
        found = importlib.import_module(".scipy", __name__)
    elif name == "explain":
        found = importlib.import_module(".report.explain", __name__).explain
    elif name in ("check", "find_nan"):
        found = getattr(importlib.import_module(f".report.{name}", __name__), name)
    elif name in ("functions", "gradient_check"):
        found = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found  # the next look finds it without coming here
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
