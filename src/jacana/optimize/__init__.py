"""Nonlinear optimisation on exact Jacobians.

`least_squares` is the verb. Behind it stand a solver as a small frozen object (`LevenbergMarquardt`), its state as a
separate value, and the steps `init`, `step` and `terminate`, for those who write a loop of their own.
"""

from .least_squares import LeastSquares, Progress, least_squares
from .levenberg_marquardt import LevenbergMarquardt, LevenbergMarquardtState, Outcome, Problem
from .parameters import Parameters, flatten_parameters
from .result import LeastSquaresResult

__all__ = [
    "LeastSquares",
    "LeastSquaresResult",
    "LevenbergMarquardt",
    "LevenbergMarquardtState",
    "Outcome",
    "Parameters",
    "Problem",
    "Progress",
    "flatten_parameters",
    "least_squares",
]
