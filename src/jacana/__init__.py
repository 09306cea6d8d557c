"""Exact Jacobians of plain NumPy code: whole, structured, and at the speed of native code.

>>> import numpy as np
>>> import jacana as jc
>>> W = np.arange(6.0).reshape(2, 3)
>>> jc.jacobian(lambda x: W @ x)(np.ones(3))
array([[0., 1., 2.],
       [3., 4., 5.]])
"""

from . import functions
from ._version import __version__
from .errors import (
    DifferentiationError,
    InvalidInputError,
    JacanaError,
    RecordingError,
    UnsupportedOperationError,
)
from .optimize import LeastSquaresResult, least_squares
from .record import Variable
from .run import executor, native_available, set_executor
from .transforms import grad, hessian, jacobian, jvp, value_and_grad, value_and_jacobian, vjp

__all__ = [
    "DifferentiationError",
    "InvalidInputError",
    "JacanaError",
    "LeastSquaresResult",
    "RecordingError",
    "UnsupportedOperationError",
    "Variable",
    "__version__",
    "executor",
    "functions",
    "grad",
    "hessian",
    "jacobian",
    "jvp",
    "least_squares",
    "native_available",
    "set_executor",
    "value_and_grad",
    "value_and_jacobian",
    "vjp",
]
