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

from . import functions
from ._version import __version__
from .batched import vmap
from .complex import real_form
from .errors import (
    DifferentiationError,
    InvalidInputError,
    JacanaError,
    RecordingError,
    UnsupportedOperationError,
)
from .record import Variable
from .run import executor, native_available, num_threads, set_executor, set_num_threads
from .selections import diagonal, gauss_newton, jacobian_columns, jacobian_rows, trace
from .transforms import grad, hessian, jacobian, jvp, value_and_grad, value_and_jacobian, vjp

if TYPE_CHECKING:
    from . import optimize, scipy
    from .optimize import LeastSquares, LeastSquaresResult, fit_batch
    from .optimize.least_squares import least_squares
    from .report.explain import explain

__all__ = [
    "DifferentiationError",
    "InvalidInputError",
    "JacanaError",
    "LeastSquares",
    "LeastSquaresResult",
    "RecordingError",
    "UnsupportedOperationError",
    "Variable",
    "__version__",
    "diagonal",
    "executor",
    "explain",
    "fit_batch",
    "functions",
    "gauss_newton",
    "grad",
    "hessian",
    "jacobian",
    "jacobian_columns",
    "jacobian_rows",
    "jvp",
    "least_squares",
    "native_available",
    "num_threads",
    "optimize",
    "real_form",
    "scipy",
    "set_executor",
    "set_num_threads",
    "trace",
    "value_and_grad",
    "value_and_jacobian",
    "vjp",
    "vmap",
]


def __getattr__(name: str) -> Any:
    # scipy.linalg takes longer to import than everything else together, so the optimisers come when they are asked for.
    if name in ("LeastSquares", "LeastSquaresResult", "fit_batch", "least_squares", "optimize"):
        optimize = importlib.import_module(".optimize", __name__)
        return optimize if name == "optimize" else getattr(optimize, name)
    if name == "scipy":
        return importlib.import_module(".scipy", __name__)
    if name == "explain":
        return importlib.import_module(".report.explain", __name__).explain
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
