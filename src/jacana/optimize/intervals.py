"""Confidence intervals of fitted parameters.

Source: D. M. Bates and D. G. Watts, "Nonlinear Regression Analysis and its Applications", 1988, sections 2.3 (linear
approximation) and 6.1 (profiles).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError

if TYPE_CHECKING:
    from .result import LeastSquaresResult

__all__ = ["confidence_intervals", "profile"]

Float64Array = NDArray[np.float64]

_MOST_FITS = 40  # fits for one end of a profile interval
_FAR = 1e3  # standard errors from the estimate beyond which an end is not looked for
_CLOSE = 1e-6  # how near to the threshold an end has to be, in units of the signed root


def confidence_intervals(result: LeastSquaresResult, level: float, kind: str) -> dict[str, tuple[float, float]]:
    """See `LeastSquaresResult.confidence_intervals`."""
    from scipy.special import ndtri, stdtrit

    if not 0.0 < level < 1.0:
        raise InvalidInputError(f"the level must lie between 0 and 1; got {level!r}")
    if kind not in ("wald", "profile"):
        raise InvalidInputError(f"kind must be 'wald' or 'profile', not {kind!r}")
    if result.degrees_of_freedom <= 0 and not result.absolute_noise:
        raise InvalidInputError("there are no degrees of freedom, so there are no intervals")
    probability = 0.5 + 0.5 * level
    threshold = float(ndtri(probability) if result.absolute_noise else stdtrit(result.degrees_of_freedom, probability))
    if kind == "wald":
        errors = np.sqrt(result.covariance.diagonal()) * threshold
        centres = [*result.flat[result.space.free], *np.zeros(errors.size - result.space.free.size)]
        return {
            name: (float(centre - error), float(centre + error))
            for name, centre, error in zip(result.names, centres, errors, strict=True)
        }
    return {
        result.names[k]: (_end(result, k, -threshold), _end(result, k, threshold))
        for k in range(result.space.free.size)
    }


def _signed_root(result: LeastSquaresResult, k: int, value: float, start: NDArray[Any]) -> tuple[float, Any]:
    """The signed root of the rise of the sum of squares with parameter k held at `value`, over the variance unit,
    and where the other parameters went. It is about (value - estimate) / standard error."""
    assert result.again is not None
    position = int(result.space.free[k])
    flat = np.array(start)
    flat[position] = value
    held = np.ones(flat.size, dtype=bool)
    held[result.space.free] = False
    for positions, _ in result.space.tied:
        held[positions] = False
    held[position] = True
    estimate = float(result.flat[position])
    if result.space.size == 1:
        # Nothing is left to fit: the cost at the value is all there is.
        other_cost, moved = _cost_at(result, flat), flat
    else:
        other = result.again(result.parameters.unravel(flat), held)
        other_cost, moved = other.cost, np.asarray(other.flat)
    rise = max(2.0 * (other_cost - result.cost), 0.0)
    return math.copysign(math.sqrt(rise / result.variance_unit), value - estimate), moved


def _cost_at(result: LeastSquaresResult, flat: NDArray[Any]) -> float:
    assert result.again is not None
    return float(result.again(result.parameters.unravel(flat), None).history.cost[0])


def _checked(result: LeastSquaresResult) -> None:
    if result.again is None:
        raise InvalidInputError("profiles take more fits, and this result was read from a file; fit again")
    if result.space.curved:
        raise InvalidInputError("profiles are for parameters that are not on manifolds")
    if not result.success:
        raise InvalidInputError("profiles are for a search that has converged")


def _end(result: LeastSquaresResult, k: int, threshold: float) -> float:
    """Where the signed root reaches the threshold: by secants kept in a bracket, since it is nearly linear."""
    _checked(result)
    estimate = float(result.flat[result.space.free[k]])
    error = float(result.flat_errors[result.space.free[k]])
    if not math.isfinite(error) or error == 0.0:
        return math.copysign(math.inf, threshold)
    near, far = (estimate, 0.0), None
    value, start = estimate + threshold * error, np.asarray(result.flat)
    for _ in range(_MOST_FITS):
        root, moved = _signed_root(result, k, value, start)
        start = np.asarray(moved)
        if abs(root - threshold) <= _CLOSE * abs(threshold):
            return value
        if abs(root) < abs(threshold):
            near = (value, root)
        else:
            far = (value, root)
        if far is None:
            if abs(value - estimate) > _FAR * error:
                return math.copysign(math.inf, threshold)
            value = estimate + 2.0 * (value - estimate)
            continue
        value = near[0] + (far[0] - near[0]) * (threshold - near[1]) / (far[1] - near[1])
        # A secant that stays at one end is replaced by the middle every third time or so.
        if min(abs(value - near[0]), abs(value - far[0])) < 1e-3 * abs(far[0] - near[0]):
            value = 0.5 * (near[0] + far[0])
    return value


def profile(
    result: LeastSquaresResult, k: int, reach: float = 2.5, points: int = 11
) -> tuple[NDArray[np.float64], ...]:
    """Return values of searched parameter k and the signed roots there: a straight line for a linear model.

    Raises:
        InvalidInputError: see `LeastSquaresResult.confidence_intervals`.
    """
    _checked(result)
    position = result.space.free[k]
    values = result.flat[position] + result.flat_errors[position] * np.linspace(-reach, reach, points)
    roots = [0.0 if v == result.flat[position] else _signed_root(result, k, float(v), result.flat)[0] for v in values]
    return values, np.array(roots)
