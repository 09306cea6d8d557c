"""`curve_fit`: SciPy's function of that name, on exact Jacobians."""

from __future__ import annotations

import inspect
import math
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from types import FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError, RecordingError
from ..graph.node import Array
from ..implicit.results import RecordedResult
from ..record.location import user_line
from .captured import Captured, bare_parts, copied, taken_apart
from .least_squares import LeastSquares
from .problem import Outcome
from .result import LeastSquaresResult
from .whitening import inverse_root

__all__ = ["CurveData", "curve_fit", "parameter_names"]

Float64Array = NDArray[np.float64]

_METHODS = {None: None, "lm": None, "trf": "trf", "dogbox": "trf"}
_SYNONYMS = {"maxfev": "max_evaluations", "max_nfev": "max_evaluations", "f_scale": "loss_scale", "x_scale": "scale"}
_OPTIONS = ("ftol", "xtol", "gtol", "loss", "loss_scale", "scale", "max_evaluations", "max_iterations", "max_seconds")
_UNBOUNDED = (-np.inf, np.inf)
_REAL_PAIRS = ("ff", "fi", "if", "ii")  # kinds of dtypes
_KEPT = 8  # searches that calls of `curve_fit` share
_STATUS = {Outcome.GRADIENT: 4, Outcome.COST: 1, Outcome.STEP: 2, Outcome.WORKING_PRECISION: 3}


def curve_fit(
    f: Callable[..., Any],
    xdata: Any,
    ydata: Any,
    p0: Any = None,
    sigma: Any = None,
    absolute_sigma: bool = False,
    check_finite: bool | None = None,
    bounds: Any = _UNBOUNDED,
    method: str | None = None,
    jac: Any = None,
    *,
    full_output: bool = False,
    nan_policy: str | None = None,
    **kwargs: Any,
) -> Any:
    """Fit the parameters of ``f(xdata, *params)`` to `ydata`: ``scipy.optimize.curve_fit`` on exact Jacobians.

    The arguments and results are SciPy's, so one import is all there is to change. What differs: the Jacobian is
    derived from `f`, so that fits end at working precision and covariances have ten digits; and a parameter whose
    bounds are equal is fixed there.

    Args:
        f: plain NumPy code; gets xdata and the parameters as numbers, returns an array of ydata's shape.
        xdata: whatever `f` takes; lists, tuples and arrays are handed on as float64 arrays.
        ydata: the data, shape (M,) or any other, at least one number.
        p0: start, shape (N,). Without it, N is the number of arguments of `f` after the first, and the start is 1, or
            between the bounds.
        sigma: standard deviations of the data, a number or in the shape of ydata; or their covariance, shape (M, M).
        absolute_sigma: sigma is what it says, and not merely relative: the covariance is then not scaled by the
            variance of the residuals.
        check_finite: refuse NaN and infinity in the data; the default where there is no `nan_policy`.
        bounds: a pair (lower, upper) of numbers or arrays, or ``scipy.optimize.Bounds``.
        method: "lm", the default without bounds, "trf" or "dogbox". With bounds there is one method, reflective trust
            regions, under both of the last names; "lm" takes no bounds, and, as SciPy's, no fewer data than parameters:
            the others find one of the curves that pass through all points, and say that its covariance is infinite.
        jac: accepted and not used: the Jacobian comes from `f`.
        full_output: return infodict, mesg and ier too.
        nan_policy: "raise", or "omit" to leave out points with NaN in xdata or ydata; None to hand NaN on.
        kwargs: ftol, xtol, gtol, loss, f_scale (or loss_scale), x_scale (or scale), maxfev (or max_nfev,
            max_evaluations), max_iterations, max_seconds; see `jacana.least_squares`.

    Returns:
        ``popt``, shape (N,), and ``pcov``, shape (N, N): full of inf, with an ``OptimizeWarning``, where the data do
        not determine every parameter or leave no degree of freedom. With `full_output` also a dictionary with nfev,
        njev, fvec (shape (M,), over sigma) and fjac, ipvt, qtf of the pivoted QR factorisation of the Jacobian; the
        message; and 1 (ftol), 2 (xtol), 3 (working precision) or 4 (gtol).

    Raises:
        InvalidInputError: (a ``ValueError``) the data are empty or not finite, shapes do not fit together, the start
            is outside the bounds, an option is unknown.
        TypeError: there are fewer data than parameters, and the method is "lm" or the default without bounds.
        RuntimeError: the search did not arrive at a minimum.

    >>> def decay(t, height, rate):
    ...     return height * np.exp(-rate * t)
    >>> t = np.linspace(0.0, 2.0, 9)
    >>> popt, pcov = curve_fit(decay, t, decay(t, 3.0, 0.5) + 0.01 * np.sin(40.0 * t))
    >>> popt.round(4), np.sqrt(np.diag(pcov)).round(4)
    (array([3.    , 0.5005]), array([0.0058, 0.0023]))
    """
    plain = sigma is None and check_finite is None and nan_policy is None and method is None and not kwargs
    if plain and bounds is _UNBOUNDED and not full_output and not absolute_sigma:
        quick = _searches.fitted_again(f, xdata, ydata, p0)
        if quick is not None:
            return quick
    data = CurveData.of(xdata, ydata, sigma, check_finite, nan_policy)
    lower, upper, start = _start_and_bounds(f, p0, bounds)
    bounded = bool(np.isfinite(lower).any() or np.isfinite(upper).any())
    if method not in _METHODS:
        raise InvalidInputError(f"method must be 'lm', 'trf' or 'dogbox', not {method!r}")
    if method == "lm" and bounded:
        raise InvalidInputError("the method 'lm' takes no bounds; use 'trf'")
    if start.size > data.y.size and (method == "lm" or (method is None and not bounded)):
        raise TypeError(
            f"the number of parameters, {start.size}, must not exceed the number of data points, {data.y.size}; "
            f"method='trf' finds one of the curves that pass through them"
        )
    data.check(f(data.x, *start))
    settings = _settings(kwargs)
    settings = {
        **settings,
        "bounds": (tuple(lower), tuple(upper)) if bounded else None,
        "absolute_noise": absolute_sigma,
        "method": _METHODS[method] if bounded else None,
    }
    captured = taken_apart(f)
    result = _searches.fitted((start.size,), (data.x,), data, settings, _by_position, f, start, captured)
    if not result.success:
        raise RuntimeError(f"Optimal parameters not found: {result.message}")
    popt = np.asarray(result.x, dtype=np.float64)
    covariance = _covariance(result)
    if covariance is None:
        from scipy.optimize import OptimizeWarning

        covariance = np.full((popt.size, popt.size), np.inf)
        warnings.warn("Covariance of the parameters could not be estimated", OptimizeWarning, stacklevel=2)
    if not full_output:
        return popt, covariance
    return popt, covariance, _information(result), result.message, _STATUS[Outcome(result.status)]


def _by_position(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda p, x: f(x, *p)


class CurveData:
    """Data of a fit, checked.

    Attributes:
        x: float64 where it was made of numbers, else whatever it was.
        y: float64, at least one number.
        sigma: standard deviations like y or a number, a covariance matrix of shape (M, M), or None.
        arguments: what `residual` takes after the parameters: the data, and what makes their errors independent and
            of size 1.
    """

    def __init__(self, x: Any, y: Float64Array, sigma: Float64Array | None) -> None:
        self.x, self.y, self.sigma = x, y, sigma
        self.arguments: tuple[Float64Array, ...] = (y,)
        if sigma is not None and sigma.shape == (y.size, y.size) and y.size > 1:
            self.arguments = (y, inverse_root(sigma))
        elif sigma is not None:
            if not (np.isfinite(sigma) & (sigma > 0.0)).all():
                raise InvalidInputError("standard deviations must be finite and above 0")
            self.arguments = (y, np.broadcast_to(1.0 / sigma.ravel(), (y.size,)))

    @classmethod
    def of(cls, x: Any, y: Any, sigma: Any, check_finite: bool | None, nan_policy: str | None) -> CurveData:
        if nan_policy not in (None, "raise", "omit"):
            raise InvalidInputError(f"nan_policy must be None, 'raise' or 'omit', not {nan_policy!r}")
        if check_finite is None:
            check_finite = nan_policy is None
        y = _floats(y, "ydata")
        if isinstance(x, list | tuple | np.ndarray):
            x = _floats(x, "xdata")
        sigma = None if sigma is None else _floats(sigma, "sigma")
        if y.size == 0:
            raise InvalidInputError("ydata must not be empty")
        if check_finite:
            _check_finite(y, "ydata", np.isfinite)
            _check_finite(x, "xdata", np.isfinite)
        elif nan_policy == "raise":
            _check_finite(y, "ydata", lambda a: ~np.isnan(a))
            _check_finite(x, "xdata", lambda a: ~np.isnan(a))
        elif nan_policy == "omit":
            x, y, sigma = _without_nan(x, y, sigma)
        if sigma is not None and not (sigma.size == 1 or sigma.shape in (y.shape, (y.size, y.size))):
            raise InvalidInputError(
                f"sigma has shape {sigma.shape}; for data of shape {y.shape} it must be a number, of the same shape, "
                f"or a covariance matrix of shape ({y.size}, {y.size})"
            )
        return cls(x, y, sigma)

    def check(self, values: Any) -> None:
        """Refuse a model whose values would be broadcast against the data to something larger than both.

        Raises:
            InvalidInputError: they would.
        """
        shape = np.shape(values)
        if shape != self.y.shape and math.prod(shape) != 1 and self.y.size != 1:
            raise InvalidInputError(f"the model returns shape {shape}, but the data have shape {self.y.shape}")


@dataclass(frozen=True, eq=False)
class _Search:
    """A search whose data are copied into arrays that its recording refers to."""

    key: Any
    x: tuple[Any, ...]
    data: tuple[Float64Array, ...]
    arrays: tuple[Array, ...]  # in place of those that the function captures
    search: LeastSquares
    lock: Any
    bare: tuple[Any, int] | None  # of a function that captures nothing

    @classmethod
    def of(
        cls,
        key: Any,
        x: tuple[Any, ...],
        data: CurveData,
        settings: dict[str, Any],
        of_user: Callable[..., Any],
        user: Any,
        captured: Captured | None = None,
    ) -> _Search:
        # What x and the data are made of may be changed by its owner, and a search may live longer than this call.
        own_x = tuple(part.copy() if isinstance(part, np.ndarray) else part for part in x)
        own = tuple(np.array(argument) for argument in data.arguments)
        y = own[0]
        user, arrays = (user, ()) if captured is None else captured.owned()
        curve = of_user(user)
        if len(own) == 1:

            def residual(p: Any) -> Any:
                return curve(p, *own_x) - y

        else:
            whitener = own[1]

            def residual(p: Any) -> Any:
                difference = np.ravel(curve(p, *own_x) - y)
                return whitener @ difference if whitener.ndim == 2 else whitener * difference

        search = LeastSquares(residual, **settings)
        search.watched, search.lent = user, arrays
        return cls(key, own_x, own, arrays, search, threading.Lock(), bare_parts(user))

    @cached_property
    def plain(self) -> bool:
        """Whether it fits data at finite places, without standard deviations, and with no settings."""
        finite = all(isinstance(part, np.ndarray) and np.isfinite(part).all() for part in self.x)
        return bool(finite and self.key[-1] == _PLAIN and len(self.data) == 1)

    @property
    def count(self) -> int:
        """Of parameters, for a curve of `curve_fit`."""
        return int(self.key[0][1])

    @cached_property
    def _content(self) -> tuple[bytes, ...]:
        return tuple([part.tobytes() for part in self.x])

    def at(self, *x: Array) -> bool:
        """Whether its curve is recorded at x, bit by bit: 1 / x tells zeros of either sign apart."""
        for part, own, content in zip(x, self.x, self._content, strict=True):
            if part.shape != own.shape or part.dtype != own.dtype or part.tobytes() != content:
                return False
        return True

    def fill(self, data: tuple[Float64Array, ...], captured: Captured | None) -> None:
        """Take other data, and what another function captures."""
        copied(self.data, data)
        if captured is not None:
            copied(self.arrays, captured.arrays)

    def serves(self, key: Any, x: tuple[Any, ...]) -> bool:
        return bool(self.key == key) and self.at(*x)


class Searches:
    """The last few searches. Another fit of the same curve at the same x takes up the recording of an earlier one,
    however the data differ.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: tuple[_Search, ...] = ()

    def fitted(
        self,
        key: Any,
        x: tuple[Any, ...],
        data: CurveData,
        settings: dict[str, Any],
        of_user: Callable[..., Any],
        user: Callable[..., Any],
        start: Any,
        captured: Captured | None = None,
        **options: Any,
    ) -> LeastSquaresResult:
        """Return the fit of ``curve(p, *x)``, with ``curve = of_user(user)``, to data.

        Args:
            key: tells curves of the same function apart; hashable.
            user: the user's function, whose outside state is watched.
            captured: the same, taken apart: another one may be equal to it but for the numbers that it captures.
            settings, options: of `LeastSquares`, and of a call of it.
        """
        function = user if captured is None else captured.key
        key = ((function, *key), *(argument.shape for argument in data.arguments), _frozen(settings))
        reusable = _hashable(key) and all(isinstance(part, np.ndarray) for part in x)
        entry = next((known for known in self._known if known.serves(key, x)), None) if reusable else None
        # A search that another thread, or a callback of this one, is busy with is left alone.
        if entry is None or not entry.lock.acquire(blocking=False):
            entry = _Search.of(key, x, data, settings, of_user, user, captured)
            entry.lock.acquire()
            if reusable:
                self._known = (entry, *self._known[: self._most - 1])
        try:
            entry.fill(data.arguments, captured)
            result = entry.search(start, **options)
        finally:
            entry.lock.release()

        def again(x0: Any, fixed: Any) -> LeastSquaresResult:
            return _Search.of(key, x, data, settings, of_user, user).search._again(())(x0, fixed)

        if isinstance(result, RecordedResult):
            raise RecordingError(
                f"a model of recorded values is fitted here, and the statistics of its curve would not be renewed; "
                f"use jacana.least_squares, whose x has derivatives{user_line()}"
            )
        return replace(result, again=again)

    def fitted_again(
        self, f: Callable[..., Any], x: Any, y: Any, start: Any
    ) -> tuple[Float64Array, Float64Array] | None:
        """Parameters and covariance of a fit without settings, where machine code of its whole search is at hand.

        None where there is none, or the fit is one that it does not do; nothing has been checked then.
        """
        if type(x) is not np.ndarray or type(y) is not np.ndarray or x.dtype.kind + y.dtype.kind not in _REAL_PAIRS:
            return None
        if x.dtype != np.float64:
            x = x.astype(np.float64)
        bare = bare_parts(f)
        if start is None:
            # As `parameter_names` counts them.
            if type(f) is not FunctionType or f.__dict__:
                return None
            point = np.ones(max(0, f.__code__.co_argcount - 1))
        else:
            point = np.asarray(start, dtype=np.float64)
        captured = None
        if bare is not None:
            matching = [k for k in self._known if k.bare == bare]
        else:
            captured = taken_apart(f)
            function = f if captured is None else captured.key
            matching = [k for k in self._known if k.key[0][0] == function]
        for known in matching:
            fits = known.search.small
            if fits is not None and known.plain and point.shape == (known.count,) and known.at(x):
                break
        else:
            return None
        own, degrees = known.data[0], y.size - point.size
        if degrees <= 0 or y.shape != own.shape or not known.lock.acquire(blocking=False):
            return None
        try:
            known.fill((y,), captured)
            answer = fits.search(point, ())
        finally:
            known.lock.release()
        if answer is None or not answer.precise:
            return None
        found = answer.found
        return found.x.copy(), (found.norm * found.norm / degrees) * answer.inverse


def _frozen(value: Any) -> Any:
    """Dictionaries and lists as tuples, which can be keys."""
    if isinstance(value, dict):
        return tuple((name, _frozen(value[name])) for name in sorted(value))
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _hashable(key: Any) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


def parameter_names(f: Callable[..., Any], independent: int = 1) -> tuple[str, ...]:
    """Return the names of the arguments of `f` after the first `independent` ones.

    Raises:
        InvalidInputError: `f` has no such arguments, or does not say which.
    """
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):
        raise InvalidInputError("the model does not say what its parameters are; give p0") from None
    names = [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(names) <= independent:
        raise InvalidInputError(
            f"the model{signature} names no parameters after its first {independent}; name them, or give p0"
        )
    return tuple(names[independent:])


def _start_and_bounds(f: Callable[..., Any], p0: Any, bounds: Any) -> tuple[Float64Array, Float64Array, Float64Array]:
    if p0 is None:
        start, count = None, len(parameter_names(f))
    else:
        start = np.array(p0, dtype=np.float64, ndmin=1).ravel()
        count = start.size
    pair = (bounds.lb, bounds.ub) if hasattr(bounds, "lb") else bounds
    try:
        lower, upper = (np.broadcast_to(np.asarray(side, dtype=np.float64), (count,)) for side in pair)
    except (TypeError, ValueError):
        raise InvalidInputError(
            f"bounds must be a pair (lower, upper), each a number or of length {count}; got {bounds!r}"
        ) from None
    if start is None:
        low, high = np.isfinite(lower), np.isfinite(upper)
        with np.errstate(invalid="ignore"):
            middle = np.where(low & high, 0.5 * (lower + upper), np.where(low, lower + 1.0, upper - 1.0))
        start = np.where(low | high, middle, 1.0)
    return lower, upper, start


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    settings = {}
    for name, value in given.items():
        known = _SYNONYMS.get(name, name)
        if known not in _OPTIONS:
            raise InvalidInputError(f"curve_fit has no option {name!r}; it takes {', '.join((*_OPTIONS, *_SYNONYMS))}")
        unset = value is None or (known == "scale" and isinstance(value, str)) or (name == "maxfev" and value == 0)
        if not unset and not (known == "loss" and isinstance(value, str) and value == "linear"):
            settings[known] = value
    return settings


def _covariance(result: LeastSquaresResult) -> Float64Array | None:
    """The covariance of all parameters, zero where one is fixed; None where it cannot be estimated."""
    if result.rank < result.grad.size or math.isnan(result.variance_unit):
        return None
    free = result.space.free
    covariance = np.zeros((result.flat.size, result.flat.size))
    covariance[np.ix_(free, free)] = result.covariance
    return covariance


def _information(result: LeastSquaresResult) -> dict[str, Any]:
    from scipy.linalg import qr

    jacobian = result.jac if isinstance(result.jac, np.ndarray) else result.jac.toarray()
    orthogonal, triangle, pivots = qr(jacobian, mode="economic", pivoting=True)
    packed = np.zeros(jacobian.shape)
    packed[: len(triangle)] = triangle
    return {
        "fvec": result.fun,
        "nfev": result.nfev,
        "njev": result.njev,
        "fjac": packed.T,
        "ipvt": pivots,
        "qtf": orthogonal.T @ result.fun,
    }


_PLAIN = _frozen({"bounds": None, "absolute_noise": False, "method": None})
_searches = Searches(_KEPT)


# ---- checks ----------------------------------------------------------------------------------------------------------


def _floats(value: Any, name: str) -> Float64Array:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidInputError(f"{name} is not an array of numbers: {error}") from None
    if array.dtype.kind == "c":
        raise InvalidInputError(f"{name} is complex; fit the real and imaginary parts as data of their own")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError(f"{name} is not made of real numbers") from None


def _check_finite(array: Any, name: str, good: Callable[[Any], Any]) -> None:
    if not isinstance(array, np.ndarray):
        return
    bad = np.argwhere(~good(array))
    if len(bad):
        where = "[" + ", ".join(map(str, bad[0].tolist())) + "]" if array.ndim else ""
        raise InvalidInputError(
            f"{name}{where} is {array[tuple(bad[0])]} ({len(bad)} of {array.size} entries are not finite); "
            f"nan_policy='omit' leaves points with NaN out"
        )


def _without_nan(x: Any, y: Float64Array, sigma: Float64Array | None) -> tuple[Any, Float64Array, Float64Array | None]:
    lost = np.isnan(y)
    if isinstance(x, np.ndarray) and x.ndim:
        if y.ndim != 1 or x.shape[-1] != y.size:
            raise InvalidInputError(
                f"nan_policy='omit' is for data of shape (M,) and x whose last axis counts them; got shapes {x.shape} "
                f"and {y.shape}"
            )
        lost = lost | np.isnan(x).any(axis=tuple(range(x.ndim - 1)))
    if not lost.any():
        return x, y, sigma
    kept = ~lost
    if not kept.any():
        raise InvalidInputError("every point has a NaN, so nothing is left to fit")
    if sigma is not None and sigma.size > 1:
        sigma = sigma[np.ix_(kept, kept)] if sigma.ndim == 2 else sigma[kept]
    return (x[..., kept] if isinstance(x, np.ndarray) and x.ndim else x), y[kept], sigma
