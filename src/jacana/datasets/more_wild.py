"""The 53 least-squares problems of Moré and Wild: 22 functions in various sizes, from near and far starts.

    >>> problem = problems()[6]
    >>> problem.name, problem.start
    ('Rosenbrock', array([-1.2,  1. ]))
    >>> problem.residual(problem.start)
    array([-4.4,  2.2])

Sources: J. J. Moré and S. M. Wild, "Benchmarking derivative-free optimization algorithms", SIAM J. Optim. 20(1), 2009,
section 4, for the choice of functions, sizes and starts; J. J. Moré, B. S. Garbow and K. E. Hillstrom, "Testing
unconstrained optimization software", ACM TOMS 7(1), 1981, for functions 1 to 18; BDQRTIC, Cube, Mancino and Heart8
are those of the CUTE collection (I. Bongartz and others, ACM TOMS 21(1), 1995).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MoreWildProblem", "problems"]

FloatArray = NDArray[np.float64]
Residual = Callable[[int, Any], Any]


@dataclass(frozen=True, eq=False)
class MoreWildProblem:
    """One problem.

    Attributes:
        name: of the function.
        n, m: numbers of parameters and residuals.
        start: shape (n,), read-only.
        far: the start is ten times the standard one.
        residual: x of shape (n,) -> shape (m,), plain NumPy.
    """

    name: str
    n: int
    m: int
    start: FloatArray
    far: bool
    residual: Callable[[Any], Any]


# ---- functions -------------------------------------------------------------------------------------------------------
# Each takes the number of residuals and x.


def _linear_full_rank(m: int, x: Any) -> Any:
    n = x.shape[0]
    common = 2.0 * np.sum(x) / m + 1.0
    return np.concatenate((x - common, np.zeros(m - n) - common))


def _linear_rank_one(m: int, x: Any) -> Any:
    weighted = np.sum(np.arange(1.0, x.shape[0] + 1.0) * x)
    return np.arange(1.0, m + 1.0) * weighted - 1.0


def _linear_rank_one_with_zeros(m: int, x: Any) -> Any:
    n = x.shape[0]
    weighted = np.sum(np.arange(2.0, n) * x[1 : n - 1])
    factors = np.arange(m) * 1.0
    factors[m - 1] = 0.0
    return factors * weighted - 1.0


def _rosenbrock(m: int, x: Any) -> Any:
    return np.stack([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])


def _helical_valley(m: int, x: Any) -> Any:
    # The angle in turns, in [-1/4, 3/4), jumping where x1 = 0 and x2 < 0.
    turns = np.arctan2(x[1], x[0]) / (2.0 * np.pi)
    turns = np.where(turns < -0.25, turns + 1.0, turns)
    return np.stack([10.0 * (x[2] - 10.0 * turns), 10.0 * (np.sqrt(x[0] ** 2 + x[1] ** 2) - 1.0), x[2]])


def _powell_singular(m: int, x: Any) -> Any:
    return np.stack(
        [
            x[0] + 10.0 * x[1],
            math.sqrt(5.0) * (x[2] - x[3]),
            (x[1] - 2.0 * x[2]) ** 2,
            math.sqrt(10.0) * (x[0] - x[3]) ** 2,
        ]
    )


def _freudenstein_roth(m: int, x: Any) -> Any:
    first = -13.0 + x[0] + ((5.0 - x[1]) * x[1] - 2.0) * x[1]
    return np.stack([first, -29.0 + x[0] + ((x[1] + 1.0) * x[1] - 14.0) * x[1]])


_BARD = np.array([0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39])


def _bard(m: int, x: Any) -> Any:
    u = np.arange(1.0, 16.0)
    v = 16.0 - u
    return _BARD - (x[0] + u / (v * x[1] + np.minimum(u, v) * x[2]))


_KOWALIK = np.array([0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246])
_KOWALIK_U = np.array([4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625])


def _kowalik_osborne(m: int, x: Any) -> Any:
    u = _KOWALIK_U
    return _KOWALIK - x[0] * (u * (u + x[1])) / (u * (u + x[2]) + x[3])


_MEYER = np.array(
    [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872], dtype=float
)


def _meyer(m: int, x: Any) -> Any:
    t = 45.0 + 5.0 * np.arange(1.0, 17.0)
    return x[0] * np.exp(x[1] / (t + x[2])) - _MEYER


def _watson(m: int, x: Any) -> Any:
    n = x.shape[0]
    t = np.arange(1.0, 30.0)[:, None] / 29.0
    powers = t ** np.arange(n)
    slopes = np.arange(1.0, n) * powers[:, : n - 1]
    first = slopes @ x[1:] - (powers @ x) ** 2 - 1.0
    return np.concatenate((first, np.stack([x[0], x[1] - x[0] ** 2 - 1.0])))


def _box(m: int, x: Any) -> Any:
    t = 0.1 * np.arange(1.0, m + 1.0)
    return np.exp(-t * x[0]) - np.exp(-t * x[1]) + (np.exp(-10.0 * t) - np.exp(-t)) * x[2]


def _jennrich_sampson(m: int, x: Any) -> Any:
    i = np.arange(1.0, m + 1.0)
    return 2.0 + 2.0 * i - np.exp(i * x[0]) - np.exp(i * x[1])


def _brown_dennis(m: int, x: Any) -> Any:
    t = np.arange(1.0, m + 1.0) / 5.0
    return (x[0] + t * x[1] - np.exp(t)) ** 2 + (x[2] + np.sin(t) * x[3] - np.cos(t)) ** 2


def _chebyquad(m: int, x: Any) -> Any:
    n = x.shape[0]
    y = 2.0 * x - 1.0
    before, here = np.ones(n), y
    rows = []
    for i in range(1, m + 1):
        # The integral of the shifted Chebyshev polynomial over [0, 1] is 0 for odd i and -1 / (i^2 - 1) for even i.
        rows.append(np.sum(here) / n + (1.0 / (i * i - 1.0) if i % 2 == 0 else 0.0))
        before, here = here, 2.0 * y * here - before
    return np.stack(rows)


def _brown_almost_linear(m: int, x: Any) -> Any:
    n = x.shape[0]
    product = x[0]
    for k in range(1, n):
        product = product * x[k]
    return np.concatenate((x[: n - 1] + np.sum(x) - (n + 1.0), np.stack([product - 1.0])))


_OSBORNE_1 = np.array(
    [
        0.844,
        0.908,
        0.932,
        0.936,
        0.925,
        0.908,
        0.881,
        0.850,
        0.818,
        0.784,
        0.751,
        0.718,
        0.685,
        0.658,
        0.628,
        0.603,
        0.580,
        0.558,
        0.538,
        0.522,
        0.506,
        0.490,
        0.478,
        0.467,
        0.457,
        0.448,
        0.438,
        0.431,
        0.424,
        0.420,
        0.414,
        0.411,
        0.406,
    ]
)


def _osborne_1(m: int, x: Any) -> Any:
    t = 10.0 * np.arange(33.0)
    return _OSBORNE_1 - (x[0] + x[1] * np.exp(-t * x[3]) + x[2] * np.exp(-t * x[4]))


_OSBORNE_2 = np.array(
    [
        1.366,
        1.191,
        1.112,
        1.013,
        0.991,
        0.885,
        0.831,
        0.847,
        0.786,
        0.725,
        0.746,
        0.679,
        0.608,
        0.655,
        0.616,
        0.606,
        0.602,
        0.626,
        0.651,
        0.724,
        0.649,
        0.649,
        0.694,
        0.644,
        0.624,
        0.661,
        0.612,
        0.558,
        0.533,
        0.495,
        0.500,
        0.423,
        0.395,
        0.375,
        0.372,
        0.391,
        0.396,
        0.405,
        0.428,
        0.429,
        0.523,
        0.562,
        0.607,
        0.653,
        0.672,
        0.708,
        0.633,
        0.668,
        0.645,
        0.632,
        0.591,
        0.559,
        0.597,
        0.625,
        0.739,
        0.710,
        0.729,
        0.720,
        0.636,
        0.581,
        0.428,
        0.292,
        0.162,
        0.098,
        0.054,
    ]
)


def _osborne_2(m: int, x: Any) -> Any:
    t = np.arange(65.0) / 10.0
    total = x[0] * np.exp(-t * x[4])
    for k in range(1, 4):
        total = total + x[k] * np.exp(-((t - x[k + 7]) ** 2) * x[k + 4])
    return _OSBORNE_2 - total


def _bdqrtic(m: int, x: Any) -> Any:
    n = x.shape[0]
    first = x[: n - 4]
    squares = x * x
    second = (
        squares[: n - 4]
        + 2.0 * squares[1 : n - 3]
        + 3.0 * squares[2 : n - 2]
        + 4.0 * squares[3 : n - 1]
        + 5.0 * squares[n - 1]
    )
    return np.concatenate((-4.0 * first + 3.0, second))


def _cube(m: int, x: Any) -> Any:
    return np.concatenate((x[:1] - 1.0, 10.0 * (x[1:] - x[:-1] ** 3)))


def _mancino(m: int, x: Any) -> Any:
    i = np.arange(1.0, x.shape[0] + 1.0)
    root = np.sqrt(x[:, None] ** 2 + i[:, None] / i)
    angle = np.log(root)
    total = np.sum(root * (np.sin(angle) ** 5 + np.cos(angle) ** 5), axis=1)
    return 1400.0 * x + (i - 50.0) ** 3 + total


def _heart8(m: int, x: Any) -> Any:
    a, b, c, d, t, u, v, w = (x[k] for k in range(8))
    return np.stack(
        [
            a + b + 0.69,
            c + d + 0.044,
            t * a + u * b - v * c - w * d + 1.57,
            v * a + w * b + t * c + u * d + 1.31,
            a * (t**2 - v**2) - 2.0 * c * t * v + b * (u**2 - w**2) - 2.0 * d * u * w + 2.65,
            c * (t**2 - v**2) + 2.0 * a * t * v + d * (u**2 - w**2) + 2.0 * b * u * w - 2.0,
            a * t * (t**2 - 3.0 * v**2)
            + c * v * (v**2 - 3.0 * t**2)
            + b * u * (u**2 - 3.0 * w**2)
            + d * w * (w**2 - 3.0 * u**2)
            + 12.6,
            c * t * (t**2 - 3.0 * v**2)
            - a * v * (v**2 - 3.0 * t**2)
            + d * u * (u**2 - 3.0 * w**2)
            - b * w * (w**2 - 3.0 * u**2)
            - 9.48,
        ]
    )


# ---- starts and sizes ------------------------------------------------------------------------------------------------


def _mancino_start(n: int) -> list[float]:
    i = np.arange(1.0, n + 1.0)
    root = np.sqrt(i[:, None] / i)
    total = np.sum(root * (np.sin(np.log(root)) ** 5 + np.cos(np.log(root)) ** 5), axis=1)
    start: list[float] = (-8.710996e-4 * ((i - 50.0) ** 3 + total)).tolist()
    return start


def _chebyquad_start(n: int) -> list[float]:
    return [k / (n + 1.0) for k in range(1, n + 1)]


_OSBORNE_2_START = [1.3, 0.65, 0.65, 0.7, 0.6, 3.0, 5.0, 7.0, 2.0, 4.5, 5.5]
_HEART8_START = [-0.3, -0.39, 0.3, -0.344, -1.2, 2.69, 1.59, -1.5]

# name, function, start for n parameters, and (n, m, far) for each problem
_FUNCTIONS: tuple[tuple[str, Residual, Callable[[int], list[float]], tuple[tuple[int, int, bool], ...]], ...] = (
    ("linear, full rank", _linear_full_rank, lambda n: [1.0] * n, ((9, 45, False), (9, 45, True))),
    ("linear, rank 1", _linear_rank_one, lambda n: [1.0] * n, ((7, 35, False), (7, 35, True))),
    ("linear, rank 1 with zeros", _linear_rank_one_with_zeros, lambda n: [1.0] * n, ((7, 35, False), (7, 35, True))),
    ("Rosenbrock", _rosenbrock, lambda n: [-1.2, 1.0], ((2, 2, False), (2, 2, True))),
    ("helical valley", _helical_valley, lambda n: [-1.0, 0.0, 0.0], ((3, 3, False), (3, 3, True))),
    ("Powell singular", _powell_singular, lambda n: [3.0, -1.0, 0.0, 1.0], ((4, 4, False), (4, 4, True))),
    ("Freudenstein-Roth", _freudenstein_roth, lambda n: [0.5, -2.0], ((2, 2, False), (2, 2, True))),
    ("Bard", _bard, lambda n: [1.0] * 3, ((3, 15, False), (3, 15, True))),
    ("Kowalik-Osborne", _kowalik_osborne, lambda n: [0.25, 0.39, 0.415, 0.39], ((4, 11, False),)),
    ("Meyer", _meyer, lambda n: [0.02, 4000.0, 250.0], ((3, 16, False),)),
    ("Watson", _watson, lambda n: [0.5] * n, tuple((n, 31, far) for n in (6, 9, 12) for far in (False, True))),
    ("Box", _box, lambda n: [0.0, 10.0, 20.0], ((3, 10, False),)),
    ("Jennrich-Sampson", _jennrich_sampson, lambda n: [0.3, 0.4], ((2, 10, False),)),
    ("Brown-Dennis", _brown_dennis, lambda n: [25.0, 5.0, -5.0, -1.0], ((4, 20, False), (4, 20, True))),
    ("Chebyquad", _chebyquad, _chebyquad_start, tuple((n, n, False) for n in range(6, 12))),
    ("Brown almost linear", _brown_almost_linear, lambda n: [0.5] * n, ((10, 10, False),)),
    ("Osborne 1", _osborne_1, lambda n: [0.5, 1.5, -1.0, 0.01, 0.02], ((5, 33, False),)),
    ("Osborne 2", _osborne_2, lambda n: _OSBORNE_2_START, ((11, 65, False), (11, 65, True))),
    ("BDQRTIC", _bdqrtic, lambda n: [1.0] * n, tuple((n, 2 * (n - 4), False) for n in (8, 10, 11, 12))),
    ("Cube", _cube, lambda n: [0.5] * n, ((5, 5, False), (6, 6, False), (8, 8, False))),
    (
        "Mancino",
        _mancino,
        _mancino_start,
        ((5, 5, False), (5, 5, True), (8, 8, False), (10, 10, False), (12, 12, False), (12, 12, True)),
    ),
    ("Heart8", _heart8, lambda n: _HEART8_START, ((8, 8, False), (8, 8, True))),
)


def problems() -> tuple[MoreWildProblem, ...]:
    """Return the 53 problems.

    >>> len(problems()), len({problem.name for problem in problems()})
    (53, 22)
    """
    result = []
    for name, function, start_of, sizes in _FUNCTIONS:
        for n, m, far in sizes:
            start = np.array(start_of(n)) * (10.0 if far else 1.0)
            start.setflags(write=False)
            result.append(MoreWildProblem(name, n, m, start, far, partial(function, m)))
    return tuple(result)
