"""Nineteen least-squares functions of Moré, Garbow and Hillstrom: each from three starts, and ten of them with bounds.

The choice of functions, starts and bounds is that of a test program that comes with the Ceres solver, so that counts
can be compared. A run counts as solved where twice the cost agrees with the listed minimum in four digits (where that
is 0, in four decimals).

    >>> problem = problems()[0]
    >>> problem.name, problem.factor, problem.minimum, problem.solved(4e-5)
    ('Rosenbrock', 1.0, 0.0, True)
    >>> len(problems()), len(bounded())
    (57, 10)

Two of the listed minima are out of reach. Freudenstein and Roth's function has a local minimum of 48.98 into which all
three starts lead; and the function of Gulf Research is printed with a misprint, by which it has no zero.

Sources: J. J. Moré, B. S. Garbow and K. E. Hillstrom, "Testing unconstrained optimization software", ACM TOMS 7(1),
1981, section 3; for the bounds and the minima within them D. M. Gay, "A trust-region approach to linearly constrained
optimization", in Numerical Analysis, LNM 1066, 1984.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import more_wild

__all__ = ["MoreGarbowHillstromProblem", "bounded", "problems"]

FloatArray = NDArray[np.float64]

_DIGITS = 4.0


@dataclass(frozen=True, eq=False)
class MoreGarbowHillstromProblem:
    """One problem.

    Attributes:
        name: of the function.
        n, m: numbers of parameters and residuals.
        start: shape (n,), read-only.
        factor: by which the standard start has been multiplied.
        bounds: (lower, upper), each of shape (n,), or None.
        minimum: of the sum of squares (twice the cost), as published.
        residual: x of shape (n,) -> shape (m,), plain NumPy.
    """

    name: str
    n: int
    m: int
    start: FloatArray
    factor: float
    bounds: tuple[FloatArray, FloatArray] | None
    minimum: float
    residual: Callable[[Any], Any]

    def solved(self, sum_of_squares: float) -> bool:
        """Whether this sum of squares agrees with the minimum in four digits."""
        error = abs(sum_of_squares - self.minimum) / (self.minimum or 1.0)
        return error == 0.0 or -math.log10(error) >= _DIGITS


# ---- functions that the problems of Moré and Wild do not have --------------------------------------------------------


def _powell_badly_scaled(m: int, x: Any) -> Any:
    return np.stack([1e4 * x[0] * x[1] - 1.0, np.exp(-x[0]) + np.exp(-x[1]) - 1.0001])


def _brown_badly_scaled(m: int, x: Any) -> Any:
    return np.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2.0])


def _beale(m: int, x: Any) -> Any:
    powers = np.stack([x[1], x[1] ** 2, x[1] ** 3])
    return np.array([1.5, 2.25, 2.625]) - x[0] * (1.0 - powers)


_GAUSSIAN = np.array([0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521, 0.3989])


def _gaussian(m: int, x: Any) -> Any:
    t = (7.0 - np.arange(15.0)) / 2.0
    return x[0] * np.exp(-0.5 * x[1] * (t - x[2]) ** 2) - np.concatenate((_GAUSSIAN, _GAUSSIAN[6::-1]))


def _gulf(m: int, x: Any) -> Any:
    # As printed: the product of y, m, i and x2, where the difference of y and x2 is meant.
    i = np.arange(1.0, m + 1.0)
    y = 25.0 + (-50.0 * np.log(i / m)) ** (2.0 / 3.0)
    return np.exp(-(np.abs(y * m * i * x[1]) ** x[2]) / x[0]) - i / m


def _wood(m: int, x: Any) -> Any:
    return np.stack(
        [
            10.0 * (x[1] - x[0] ** 2),
            1.0 - x[0],
            math.sqrt(90.0) * (x[3] - x[2] ** 2),
            1.0 - x[2],
            math.sqrt(10.0) * (x[1] + x[3] - 2.0),
            (x[1] - x[3]) / math.sqrt(10.0),
        ]
    )


def _biggs(m: int, x: Any) -> Any:
    t = 0.1 * np.arange(1.0, m + 1.0)
    y = np.exp(-t) - 5.0 * np.exp(-10.0 * t) + 3.0 * np.exp(-4.0 * t)
    return x[2] * np.exp(-t * x[0]) - x[3] * np.exp(-t * x[1]) + x[5] * np.exp(-t * x[4]) - y


# ---- starts, minima, bounds ------------------------------------------------------------------------------------------

_Bounds = tuple[list[float], list[float], float] | None

# name, function, m, start, minimum, and the bounds with the minimum within them
_FUNCTIONS: tuple[tuple[str, more_wild.Residual, int, list[float], float, _Bounds], ...] = (
    ("Rosenbrock", more_wild._rosenbrock, 2, [-1.2, 1.0], 0.0, None),
    ("Freudenstein-Roth", more_wild._freudenstein_roth, 2, [0.5, -2.0], 0.0, None),
    (
        "Powell badly scaled",
        _powell_badly_scaled,
        2,
        [0.0, 1.0],
        0.0,
        ([0.0, 1.0], [1.0, 9.0], 1.5125900e-10),
    ),
    ("Brown badly scaled", _brown_badly_scaled, 3, [1.0, 1.0], 0.0, ([0.0, 3e-5], [1e6, 100.0], 784.0)),
    ("Beale", _beale, 3, [1.0, 1.0], 0.0, ([0.6, 0.5], [10.0, 100.0], 0.0)),
    ("Jennrich-Sampson", more_wild._jennrich_sampson, 10, [1.0, 1.0], 124.362, None),
    (
        "helical valley",
        more_wild._helical_valley,
        3,
        [-1.0, 0.0, 0.0],
        0.0,
        ([-100.0, -1.0, -1.0], [0.8, 1.0, 1.0], 0.99042212),
    ),
    ("Bard", more_wild._bard, 15, [1.0, 1.0, 1.0], 8.21487e-3, None),
    (
        "Gaussian",
        _gaussian,
        15,
        [0.4, 1.0, 0.0],
        1.12793e-8,
        ([0.398, 1.0, -0.5], [4.2, 2.0, 0.1], 1.1279300e-8),
    ),
    ("Meyer", more_wild._meyer, 16, [0.02, 4000.0, 250.0], 87.9458, None),
    ("Gulf", _gulf, 100, [5.0, 2.5, 0.15], 0.0, ([1e-16, 0.0, 0.0], [10.0, 10.0, 10.0], 5.8281431e-5)),
    ("Box", more_wild._box, 3, [0.0, 10.0, 20.0], 0.0, ([0.0, 5.0, 0.0], [2.0, 9.5, 20.0], 3.0998153e-6)),
    ("Powell singular", more_wild._powell_singular, 4, [3.0, -1.0, 0.0, 1.0], 0.0, None),
    (
        "Wood",
        _wood,
        6,
        [-3.0, -1.0, -3.0, -1.0],
        0.0,
        ([-100.0] * 4, [0.0, 10.0, 100.0, 100.0], 1.5567008),
    ),
    ("Kowalik-Osborne", more_wild._kowalik_osborne, 11, [0.25, 0.39, 0.415, 0.39], 3.07505e-4, None),
    (
        "Brown-Dennis",
        more_wild._brown_dennis,
        20,
        [25.0, 5.0, -5.0, -1.0],
        85822.2,
        ([-10.0, 0.0, -100.0, -20.0], [100.0, 15.0, 0.0, 0.2], 88860.479),
    ),
    ("Osborne 1", more_wild._osborne_1, 33, [0.5, 1.5, -1.0, 0.01, 0.02], 5.46489e-5, None),
    (
        "Biggs",
        _biggs,
        13,
        [1.0, 2.0, 1.0, 1.0, 1.0, 1.0],
        0.0,
        ([0.0, 0.0, 0.0, 1.0, 0.0, 0.0], [2.0, 8.0, 1.0, 7.0, 5.0, 5.0], 5.3209865e-4),
    ),
    (
        "Osborne 2",
        more_wild._osborne_2,
        65,
        [1.3, 0.65, 0.65, 0.7, 0.6, 3.0, 5.0, 7.0, 2.0, 4.5, 5.5],
        4.01377e-2,
        None,
    ),
)


def problems() -> tuple[MoreGarbowHillstromProblem, ...]:
    """Return the 57 problems without bounds: each function from its start, from ten and from a hundred times that.

    >>> len({problem.name for problem in problems()})
    19
    """
    return tuple(
        MoreGarbowHillstromProblem(
            name, len(start), m, _frozen(factor * np.array(start)), factor, None, minimum, partial(function, m)
        )
        for name, function, m, start, minimum, _ in _FUNCTIONS
        for factor in (1.0, 10.0, 100.0)
    )


def bounded() -> tuple[MoreGarbowHillstromProblem, ...]:
    """Return the 10 problems with bounds, from their standard starts (that of Box, which is outside, put inside).

    >>> [problem.name for problem in bounded()][:4]
    ['Powell badly scaled', 'Brown badly scaled', 'Beale', 'helical valley']
    """
    result = []
    for name, function, m, start, _, bounds in _FUNCTIONS:
        if bounds is not None:
            lower, upper, minimum = bounds
            both = (_frozen(np.array(lower)), _frozen(np.array(upper)))
            at = _frozen(np.clip(start, *both))
            result.append(MoreGarbowHillstromProblem(name, len(start), m, at, 1.0, both, minimum, partial(function, m)))
    return tuple(result)


def _frozen(values: FloatArray) -> FloatArray:
    values.setflags(write=False)
    return values
