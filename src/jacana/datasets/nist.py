"""The nonlinear regressions of the NIST Statistical Reference Datasets (StRD).

27 problems from easy to hostile, each with two starting points and with parameter values and standard deviations
certified to 11 digits (they were computed in 128-bit arithmetic and confirmed by at least two programs). They are the
usual yardstick for least-squares software.

    >>> problem = load("Misra1a")
    >>> problem.level, problem.x.shape, problem.starts[0]
    ('lower', (14,), array([5.e+02, 1.e-04]))
    >>> r = problem.residual(problem.certified_values)
    >>> bool(abs(r @ r / problem.certified_residual_sum_of_squares - 1) < 1e-9)
    True

Source: NIST/ITL Statistical Reference Datasets, https://www.itl.nist.gov/div898/strd/; the data files are in the folder
`nist_strd` beside this module, with a note of their origin and licence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InvalidInputError

__all__ = ["MAX_DIGITS", "NistProblem", "digits", "load", "names"]

FloatArray = NDArray[np.float64]
Model = Callable[[Any, FloatArray], Any]

MAX_DIGITS = 11.0
"""The certified values carry 11 digits, so no agreement beyond that means anything."""


@dataclass(frozen=True, eq=False)
class NistProblem:
    """One regression of the collection: data, model, two starts and the certified answer. All arrays are float64,
    read-only.

    Attributes:
        name: NIST's name, for example ``"Thurber"``.
        level: difficulty as NIST ranks it, ``"lower"``, ``"average"`` or ``"higher"``.
        x: predictor, shape (n,), or (n, k) where there are k > 1 predictors (only Nelson: k = 2).
        y: response as measured, shape (n,).
        starts: the two starting points, each of shape (p,); the first is far from the answer, the second near.
        certified_values: the least-squares parameters, shape (p,).
        certified_standard_errors: their standard deviations, shape (p,).
        certified_residual_sum_of_squares: the sum of squared residuals at the certified values.
        residual_standard_deviation: square root of that sum over the degrees of freedom.
        degrees_of_freedom: n - p. (Rat43's file says 9 where 15 - 4 is 11, which its certified deviations go with.)
        model: ``model(b, x)``, the fitted function in plain NumPy; b is indexed only, so it may be any array-like,
            a jacana Variable included.
        log_response: the model describes log(y) and not y (only Nelson).
    """

    name: str
    level: str
    x: FloatArray
    y: FloatArray
    starts: tuple[FloatArray, FloatArray]
    certified_values: FloatArray
    certified_standard_errors: FloatArray
    certified_residual_sum_of_squares: float
    residual_standard_deviation: float
    degrees_of_freedom: int
    model: Model
    log_response: bool = False

    @property
    def response(self) -> FloatArray:
        """What the model is fitted to, shape (n,): y, or log(y) for Nelson."""
        return np.log(self.y) if self.log_response else self.y

    def residual(self, b: Any) -> Any:
        """Return ``model(b, x) - response``, shape (n,), for parameters b of shape (p,)."""
        return self.model(b, self.x) - self.response


def names() -> tuple[str, ...]:
    """Return the names of the 27 problems in alphabetical order.

    >>> len(names()), names()[:3]
    (27, ('Bennett5', 'BoxBOD', 'Chwirut1'))
    """
    return tuple(sorted(_MODELS))


def load(name: str) -> NistProblem:
    """Return the problem called `name`. Repeated calls return the same (read-only) object.

    Raises:
        InvalidInputError: no problem has that name.

    >>> load("Nelson").x.shape
    (128, 2)
    """
    if name not in _MODELS:
        raise InvalidInputError(f"there is no NIST problem called {name!r}; the names are {', '.join(names())}")
    return _parsed(name)


def digits(estimate: ArrayLike, certified: ArrayLike) -> float:
    """Return the number of correct digits of the worst entry: min of -log10(\\|estimate - certified\\| /
    \\|certified\\|).

    This is the log relative error (LRE) that statistical software is compared by, capped at 11 (the certified values
    have no more) and floored at 0. A NaN or infinite estimate has no correct digit. Where a certified value is 0 the
    error is absolute.

    Args:
        estimate: any shape.
        certified: the same shape.

    Raises:
        InvalidInputError: the shapes differ or there is no entry.

    Source: B. D. McCullough, "Assessing the reliability of statistical software: part I", The American Statistician
    52(4), 1998, section 4.

    >>> digits([1.0, 2.0002], [1.0, 2.0])
    4.0
    >>> digits([np.nan, 2.0], [1.0, 2.0])
    0.0
    """
    value = np.asarray(estimate, dtype=np.float64)
    target = np.asarray(certified, dtype=np.float64)
    if value.shape != target.shape or value.size == 0:
        raise InvalidInputError(f"digits compares non-empty arrays of one shape, got {value.shape} and {target.shape}")
    if not np.isfinite(value).all():
        return 0.0
    scale = np.where(target == 0.0, 1.0, np.abs(target))
    # Rounded far below any meaning, so that an error of 1e-4 counts as 4.0 and not 3.9999999999997.
    worst = float(np.max(np.abs(value - target) / scale))
    return round(min(MAX_DIGITS, max(0.0, -math.log10(worst))), 9) if worst > 0.0 else MAX_DIGITS


# ---- reading ---------------------------------------------------------------------------------------------------------

_PARAMETER = re.compile(r"^\s*b\d+\s*=\s*(\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s*$")
_FIRST_DATA_LINE = 60  # counted from 0; every file says "Data (lines 61 to ...)"


@cache
def _parsed(name: str) -> NistProblem:
    text = resources.files(__package__).joinpath("nist_strd", f"{name}.dat").read_text(encoding="ascii")
    lines = text.splitlines()
    header = lines[:_FIRST_DATA_LINE]
    matches = [match for match in map(_PARAMETER.match, header) if match]
    parameters = np.array([[float(word) for word in match.groups()] for match in matches])
    data = np.array([[float(word) for word in line.split()] for line in lines[_FIRST_DATA_LINE:] if line.strip()])
    observations = int(_after("Number of Observations:", header))
    if data.shape[0] != observations:
        raise AssertionError(f"{name}.dat has {data.shape[0]} data lines and announces {observations}")
    predictor = data[:, 1] if data.shape[1] == 2 else data[:, 1:]
    return NistProblem(
        name=name,
        level=_level(header),
        x=_frozen(predictor),
        y=_frozen(data[:, 0]),
        starts=(_frozen(parameters[:, 0]), _frozen(parameters[:, 1])),
        certified_values=_frozen(parameters[:, 2]),
        certified_standard_errors=_frozen(parameters[:, 3]),
        certified_residual_sum_of_squares=float(_after("Residual Sum of Squares:", header)),
        residual_standard_deviation=float(_after("Residual Standard Deviation:", header)),
        degrees_of_freedom=observations - parameters.shape[0],
        model=_MODELS[name],
        log_response=name == "Nelson",
    )


def _after(label: str, lines: list[str]) -> str:
    return next(line[len(label) :].strip() for line in lines if line.startswith(label))


def _level(lines: list[str]) -> str:
    line = next(line for line in lines if line.rstrip().endswith("Level of Difficulty"))
    return line.split()[0].lower()


def _frozen(values: FloatArray) -> FloatArray:
    copy = np.ascontiguousarray(values)
    copy.setflags(write=False)
    return copy


# ---- models ----------------------------------------------------------------------------------------------------------
# One function for each formula; problems that differ only in their data share it. The formulas are those of the files'
# headers, with b counted from 0.


def _saturating_exponential(b: Any, x: FloatArray) -> Any:
    return b[0] * (1.0 - np.exp(-b[1] * x))


def _misra1b(b: Any, x: FloatArray) -> Any:
    return b[0] * (1.0 - (1.0 + b[1] * x / 2.0) ** -2)


def _misra1c(b: Any, x: FloatArray) -> Any:
    return b[0] * (1.0 - (1.0 + 2.0 * b[1] * x) ** -0.5)


def _misra1d(b: Any, x: FloatArray) -> Any:
    return b[0] * b[1] * x / (1.0 + b[1] * x)


def _chwirut(b: Any, x: FloatArray) -> Any:
    return np.exp(-b[0] * x) / (b[1] + b[2] * x)


def _lanczos(b: Any, x: FloatArray) -> Any:
    return b[0] * np.exp(-b[1] * x) + b[2] * np.exp(-b[3] * x) + b[4] * np.exp(-b[5] * x)


def _gauss(b: Any, x: FloatArray) -> Any:
    first = b[2] * np.exp(-(((x - b[3]) / b[4]) ** 2))
    second = b[5] * np.exp(-(((x - b[6]) / b[7]) ** 2))
    return b[0] * np.exp(-b[1] * x) + first + second


def _danwood(b: Any, x: FloatArray) -> Any:
    return b[0] * x ** b[1]


def _kirby2(b: Any, x: FloatArray) -> Any:
    return (b[0] + b[1] * x + b[2] * x**2) / (1.0 + b[3] * x + b[4] * x**2)


def _cubic_over_cubic(b: Any, x: FloatArray) -> Any:
    return (b[0] + b[1] * x + b[2] * x**2 + b[3] * x**3) / (1.0 + b[4] * x + b[5] * x**2 + b[6] * x**3)


def _nelson(b: Any, x: FloatArray) -> Any:
    return b[0] - b[1] * x[:, 0] * np.exp(-b[2] * x[:, 1])


def _mgh17(b: Any, x: FloatArray) -> Any:
    return b[0] + b[1] * np.exp(-x * b[3]) + b[2] * np.exp(-x * b[4])


def _roszman1(b: Any, x: FloatArray) -> Any:
    return b[0] - b[1] * x - np.arctan(b[2] / (x - b[3])) / np.pi


def _enso(b: Any, x: FloatArray) -> Any:
    angle = 2.0 * np.pi * x
    yearly = b[1] * np.cos(angle / 12.0) + b[2] * np.sin(angle / 12.0)
    second = b[4] * np.cos(angle / b[3]) + b[5] * np.sin(angle / b[3])
    third = b[7] * np.cos(angle / b[6]) + b[8] * np.sin(angle / b[6])
    return b[0] + yearly + second + third


def _mgh09(b: Any, x: FloatArray) -> Any:
    return b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3])


def _mgh10(b: Any, x: FloatArray) -> Any:
    return b[0] * np.exp(b[1] / (x + b[2]))


def _rat42(b: Any, x: FloatArray) -> Any:
    return b[0] / (1.0 + np.exp(b[1] - b[2] * x))


def _rat43(b: Any, x: FloatArray) -> Any:
    return b[0] / (1.0 + np.exp(b[1] - b[2] * x)) ** (1.0 / b[3])


def _eckerle4(b: Any, x: FloatArray) -> Any:
    return b[0] / b[1] * np.exp(-0.5 * ((x - b[2]) / b[1]) ** 2)


def _bennett5(b: Any, x: FloatArray) -> Any:
    return b[0] * (b[1] + x) ** (-1.0 / b[2])


_MODELS: dict[str, Model] = {
    "Bennett5": _bennett5,
    "BoxBOD": _saturating_exponential,
    "Chwirut1": _chwirut,
    "Chwirut2": _chwirut,
    "DanWood": _danwood,
    "ENSO": _enso,
    "Eckerle4": _eckerle4,
    "Gauss1": _gauss,
    "Gauss2": _gauss,
    "Gauss3": _gauss,
    "Hahn1": _cubic_over_cubic,
    "Kirby2": _kirby2,
    "Lanczos1": _lanczos,
    "Lanczos2": _lanczos,
    "Lanczos3": _lanczos,
    "MGH09": _mgh09,
    "MGH10": _mgh10,
    "MGH17": _mgh17,
    "Misra1a": _saturating_exponential,
    "Misra1b": _misra1b,
    "Misra1c": _misra1c,
    "Misra1d": _misra1d,
    "Nelson": _nelson,
    "Rat42": _rat42,
    "Rat43": _rat43,
    "Roszman1": _roszman1,
    "Thurber": _cubic_over_cubic,
}
