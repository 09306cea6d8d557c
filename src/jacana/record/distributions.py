"""Probability distributions of ``scipy.stats`` at recorded points and with recorded parameters.

Most of SciPy's distributions write their densities, probabilities and logarithms of these as formulas of NumPy and
``scipy.special`` for the standard distribution. Those formulas are recorded as they are; what is around them, location
and scale, the support and what is beyond it, is written here. Where a formula takes plain numbers (an integral, a
table), it says so by an error.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import JacanaError
from .composed import as_numpy
from .foreign import HANDLERS, METHODS, Entry
from .lift import any_tracked, plain_operand
from .location import unsupported
from .recording import current_recording
from .table import is_complex
from .variable import contains_variable, raw_deep

STATS = "scipy.stats"
# Of each method: the results below and above the support.
_CONTINUOUS: dict[str, tuple[float, float]] = {
    "pdf": (0.0, 0.0), "logpdf": (-math.inf, -math.inf), "cdf": (0.0, 1.0), "logcdf": (-math.inf, 0.0),
    "sf": (1.0, 0.0), "logsf": (0.0, -math.inf),
}  # fmt: skip
_DISCRETE = {"pmf": (0.0, 0.0), "logpmf": (-math.inf, -math.inf)}
_QUANTILES = ("ppf", "isf")


def _student(t: Any, df: Any) -> Any:
    sc = importlib.import_module("scipy.special")
    return -0.5 * (df + 1.0) * np.log1p(t * t / df) - 0.5 * np.log(df) - sc.betaln(0.5, 0.5 * df)


# Formulas of those whose own are compiled, or take plain numbers.
_FORMULAS: dict[tuple[str, str], Callable[..., Any]] = {
    ("t", "logpdf"): _student,
    ("beta", "ppf"): lambda q, a, b: importlib.import_module("scipy.special").betaincinv(a, b, q),
    ("cauchy", "ppf"): lambda q: np.tan(math.pi * (q - 0.5)),
    ("cauchy", "isf"): lambda q: np.tan(math.pi * (0.5 - q)),
}


def _standard(name: str, distribution: Any, points: Any, shapes: Any) -> Any:
    """The formula of the standard distribution; what has none of its own is found by its logarithm, or as one."""
    formula = _FORMULAS.get((distribution.name, name))
    if formula is not None:
        return formula(points, *shapes)
    try:
        return getattr(distribution, f"_{name}")(points, *shapes)
    except JacanaError:
        if name in ("logcdf", "logsf"):
            return np.log(_standard(name.removeprefix("log"), distribution, points, shapes))
        if name not in ("pdf", "pmf"):
            raise
        return np.exp(_standard(f"log{name}", distribution, points, shapes))


def _inside(distribution: Any, shapes: Any, points: Any) -> tuple[Any, Any, Any]:
    """Where the points are in the support, below it and above it; what the support depends on counts as a number."""
    low, high = distribution._get_support(*raw_deep(shapes))
    return np.logical_and(points >= low, points <= high), points < low, points > high


def _anywhere(distribution: Any, shapes: Any) -> Any:
    """A point inside the support, at which a formula is evaluated for those that are outside."""
    low, high = (np.asarray(end, dtype=float) for end in distribution._get_support(*raw_deep(shapes)))
    low, high = np.broadcast_arrays(low, high)
    middle = np.where(np.isfinite(low) & np.isfinite(high), 0.5 * (low + high), 0.0)
    middle = np.where(np.isfinite(low) & ~np.isfinite(high), low + 1.0, middle)
    return np.where(~np.isfinite(low) & np.isfinite(high), high - 1.0, middle)[()]


def _formula(name: str, distribution: Any, points: Any, shapes: Any, location: Any, scale: Any) -> Any:
    points, location, scale = map(plain_operand, (points, location, scale))
    shapes = [plain_operand(s) * 1.0 for s in shapes]
    if name in _QUANTILES:
        good = np.logical_and(points > 0, points < 1)
        if not np.all(good):
            raise unsupported(f"{STATS} ({distribution.name}.{name}) at shares of 0, 1 or beyond")
        return _standard(name, distribution, points * 1.0, shapes) * scale + location
    standard = (points - location) / scale
    there, below, above = _inside(distribution, shapes, standard)
    left, right = (_DISCRETE if name in _DISCRETE else _CONTINUOUS)[name]
    safe = np.where(there, standard, _anywhere(distribution, shapes)) if not np.all(there) else standard
    found = _standard(name, distribution, safe, shapes)
    if name == "pdf":
        found = found / scale
    elif name == "logpdf":
        found = found - np.log(scale)
    return found if np.all(there) else np.where(there, found, np.where(above, right, np.where(below, left, np.nan)))


def _recorded(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if current_recording() is None or not contains_variable([*args, *kwargs.values()]):
            return original(self, *args, **kwargs)
        value = original(self, *raw_deep(args), **raw_deep(kwargs))
        if not any_tracked([*args, *kwargs.values()]):
            return value
        if any(map(is_complex, (*args, *kwargs.values()))):
            raise unsupported(f"{STATS} of complex numbers")
        first, *rest = args if args else (kwargs.pop("x" if name not in _DISCRETE else "k"),)
        # As SciPy takes them apart: shapes, location and scale, by place or by name.
        shapes, location, scale = self._parse_args(*rest, **kwargs)
        return as_numpy(value, _formula(name, self, first, shapes, location, scale))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = original.__doc__
    return method


def distribution_methods() -> list[Entry]:
    """The methods to be replaced while something is recorded: class, name, original, wrapper."""
    global _methods
    module = sys.modules.get(STATS)
    if _methods is None and module is not None and hasattr(module, "rv_discrete"):
        found: list[Entry] = []
        for owner, names in (
            (module.rv_continuous, (*_CONTINUOUS, *_QUANTILES)), (module.rv_discrete, tuple(_DISCRETE)),
        ):  # fmt: skip
            for name in names:
                original = vars(owner)[name]
                found.append((owner, name, original, _recorded(name, original)))
        _methods = found
    return _methods or []


_methods: list[Entry] | None = None
METHODS.append(distribution_methods)
HANDLERS.setdefault(STATS, {})  # so that it is noticed when a recorded function imports it
