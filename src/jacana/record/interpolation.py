"""``scipy.interpolate``: splines at recorded points, and splines through recorded values.

A spline that is constant is one operation with the spline's own derivatives, so no look at the interval is needed. One
through values that depend on the arguments is linear in them: the splines through unit vectors, times the values.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ..graph.build import cast_to, movement_reshape
from ..graph.ops.spline import SplineParams, spline
from .composed import as_numpy
from .foreign import METHODS, Entry, records, refuses
from .lift import any_tracked, plain_operand
from .location import unsupported
from .recording import current_recording
from .table import is_complex
from .variable import contains_variable, raw_deep, tracked, wrap_node

INTERPOLATE = "scipy.interpolate"
# Classes whose instances are called with points and the number of a derivative; their option by name.
_CALLED = {"PPoly": "extrapolate", "BPoly": "extrapolate", "BSpline": "extrapolate", "UnivariateSpline": "ext"}


def at(owner: Any, x: Any, nu: int = 0, **options: Any) -> Any:
    """A constant spline at recorded points."""
    options = {k: v for k, v in options.items() if v is not None}
    node = tracked(x)
    assert node is not None
    flat = movement_reshape(cast_to(node, np.dtype(float)), (node.size,))
    value = np.asarray(owner(raw_deep(x), nu, **options))
    line = np.shape(owner(np.zeros(1), nu, **options))
    first = int(getattr(owner, "axis", 0))
    params = SplineParams(owner, nu, tuple(sorted(options.items())), line[:first], line[first + 1 :])
    return wrap_node(movement_reshape(spline(flat, params=params), value.shape), value)


def _called(option: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, x: Any, nu: int = 0, *args: Any, **kwargs: Any) -> Any:
        if current_recording() is None or not contains_variable([x]):
            return original(self, x, nu, *args, **kwargs)
        given = {**dict(zip((option,), args, strict=False)), **kwargs}
        points = plain_operand(x)
        if not any_tracked([points, *given.values()]):
            return original(self, raw_deep(points), nu, **raw_deep(given))
        if is_complex(points) or np.iscomplexobj(getattr(self, "c", 0.0)):
            raise unsupported("a spline with complex values", "Make one of the real parts, one of the others.")
        return at(self, points, int(nu), **given)

    return call


def _integrated(original: Callable[..., Any]) -> Callable[..., Any]:
    def integrate(self: Any, a: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
        if current_recording() is None or not contains_variable([a, b]):
            return original(self, a, b, *args, **kwargs)
        if args or any(v is not None for v in kwargs.values()) or getattr(self, "extrapolate", None) == "periodic":
            raise unsupported("the integral of a spline with options", "Take s.antiderivative() at both ends.")
        whole = self.antiderivative()
        return whole(b) - whole(a)

    return integrate


def _one_dimensional(original: Callable[..., Any]) -> Callable[..., Any]:
    """``interp1d`` at recorded points, as the spline that it is."""

    def call(self: Any, x: Any) -> Any:
        if current_recording() is None or not contains_variable([x]):
            return original(self, x)
        points = plain_operand(x)
        value = original(self, raw_deep(points))  # or an error for points out of bounds
        if not any_tracked([points]):
            return value
        if self._kind not in ("linear", "spline"):
            raise unsupported(f"scipy.interpolate.interp1d of kind {self._kind!r}", "Its derivative is zero or none.")
        _watch(self, "x", "_y", "y")
        flat = np.ravel(points)
        found = at(_broken_line(self) if self._kind == "linear" else self._spline, flat)
        if not self._extrapolate:
            below, above = np.less(flat, self.x[0]), np.greater(flat, self.x[-1])
            if self.bounds_error and (np.any(below) or np.any(above)):  # guarded; here the error has been raised
                raise ValueError("A value in x_new is out of the interpolation range.")
            found = np.where(below[:, None], self._fill_value_below, found)
            found = np.where(above[:, None], self._fill_value_above, found)
        return as_numpy(value, self._finish_y(found, np.shape(raw_deep(points))))

    return call


def _broken_line(found: Any) -> Any:
    slopes = np.diff(found._y, axis=0) / np.diff(found.x)[:, None]
    return sys.modules[INTERPOLATE].PPoly(np.stack([slopes, found._y[:-1]]), found.x)


def _watch(owner: Any, *names: str) -> None:
    """What an interpolator computes with is part of the recording: it is recorded anew when that has changed."""
    recording = current_recording()
    if recording is not None:
        recording.watches.state(lambda: tuple(np.asarray(vars(owner)[name]).tobytes() for name in names))


def _on_a_grid(original: Callable[..., Any]) -> Callable[..., Any]:
    """``RegularGridInterpolator`` at recorded points: products of linear weights. Which cell it is is guarded."""

    def call(self: Any, xi: Any, method: Any = None, **options: Any) -> Any:
        if current_recording() is None or not contains_variable([xi]):
            return original(self, xi, method, **options)
        if isinstance(xi, tuple):
            xi = np.stack(np.broadcast_arrays(*(plain_operand(x) for x in xi)), axis=-1)
        points = plain_operand(xi)
        value = original(self, raw_deep(points), method, **options)
        if not any_tracked([points]):
            return value
        if (method or self.method) != "linear" or any(v is not None for v in options.values()):
            raise unsupported(
                "scipy.interpolate.RegularGridInterpolator at recorded points with a method other than 'linear'",
                "Use method='linear', or a product of splines in one variable.",
            )
        recording, grid, values = current_recording(), self.grid, self.values
        if recording is not None:
            recording.watches.state(lambda: tuple(np.asarray(a).tobytes() for a in (*grid, values)))
        rank = len(grid)
        points = np.reshape(points, (-1, rank))
        cells, shares = [], []
        outside: Any = False
        for k, ticks in enumerate(grid):
            p = points[:, k]
            cell = np.clip(np.searchsorted(ticks, p, side="right") - 1, 0, len(ticks) - 2)
            low = ticks[cell]
            cells.append(cell)
            shares.append((p - low) / (ticks[cell + 1] - low))
            outside = outside | np.less(p, ticks[0]) | np.greater(p, ticks[-1])
        if self.bounds_error and np.any(outside):
            raise ValueError("One of the requested xi is out of bounds")
        rest = (-1, *(1,) * (np.ndim(values) - rank))
        total: Any = 0.0
        for corner in itertools.product((0, 1), repeat=rank):
            weight: Any = 1.0
            for share, upper in zip(shares, corner, strict=True):
                weight = weight * (share if upper else 1.0 - share)
            total = total + np.reshape(weight, rest) * values[tuple(c + u for c, u in zip(cells, corner, strict=True))]
        if not self.bounds_error and self.fill_value is not None:
            total = np.where(np.reshape(outside, rest), self.fill_value, total)
        return as_numpy(value, total)

    return call


def spline_methods() -> list[Entry]:
    """The methods to be replaced while something is recorded: class, name, original, wrapper."""
    global _methods
    module = sys.modules.get(INTERPOLATE)
    if _methods is None and module is not None and hasattr(module, "BSpline"):
        found: list[Entry] = []
        for name, option in _CALLED.items():
            for method, make in (("__call__", lambda f, o=option: _called(o, f)), ("integrate", _integrated)):
                owner = next((c for c in getattr(module, name).__mro__ if method in vars(c)), None)
                if owner is not None and not any(o is owner and m == method for o, m, *_ in found):
                    original = vars(owner)[method]
                    found.append((owner, method, original, make(original)))
        for name, make_call in (("interp1d", _one_dimensional), ("RegularGridInterpolator", _on_a_grid)):
            owner = getattr(module, name)
            found.append((owner, "__call__", owner.__call__, make_call(owner.__call__)))
        _methods = found
    return _methods or []


_methods: list[Entry] | None = None
METHODS.append(spline_methods)


class SplineThrough:
    """A spline through values that depend on the arguments: the splines through unit vectors, times the values."""

    def __init__(self, basis: Any, values: Any) -> None:
        self.basis = basis
        self.values = values

    def _times(self, weights: Any) -> Any:
        return np.tensordot(weights, self.values, 1)

    def __call__(self, x: Any, nu: int = 0, extrapolate: Any = None) -> Any:
        points = plain_operand(x)
        if any_tracked([points]):
            return self._times(at(self.basis, points, int(nu), extrapolate=extrapolate))
        return self._times(self.basis(raw_deep(points), nu, extrapolate))

    def derivative(self, nu: int = 1) -> SplineThrough:
        """The spline of the derivative."""
        return SplineThrough(self.basis.derivative(nu), self.values)

    def antiderivative(self, nu: int = 1) -> SplineThrough:
        """The spline of the integral."""
        return SplineThrough(self.basis.antiderivative(nu), self.values)

    def integrate(self, a: Any, b: Any, extrapolate: Any = None) -> Any:
        """The integral between two points."""
        whole = self.antiderivative()
        return whole(b, 0, extrapolate) - whole(a, 0, extrapolate)

    def __getattr__(self, name: str) -> Any:
        raise unsupported(f"{name} of a spline through values that depend on the arguments")


def _through(name: str) -> None:
    @records(INTERPOLATE, name)
    def make(x: Any, y: Any, *args: Any, **kwargs: Any) -> Any:
        """Linear in the values; the points are constant."""
        boundary = kwargs.get("bc_type", args[1] if len(args) > 1 else None)
        axis = kwargs.get("axis", 0)
        plain = boundary is None or boundary in ("not-a-knot", "clamped", "natural")
        if any_tracked([x, *args, *kwargs.values()]) or not plain or axis != 0:
            raise unsupported(
                f"scipy.interpolate.{name} by its points, along another axis, or with this bc_type",
                "Only the values y may depend on the arguments, with bc_type 'not-a-knot', 'clamped' or 'natural'.",
            )
        values = plain_operand(y)
        count = np.shape(raw_deep(values))[0]
        original = getattr(sys.modules[INTERPOLATE], name)
        return SplineThrough(original(raw_deep(x), np.eye(count), *raw_deep(args), **raw_deep(kwargs)), values)


for _name in ("CubicSpline", "make_interp_spline"):
    _through(_name)


@records(INTERPOLATE, "splev")
def splev(x: Any, tck: Any, der: int = 0, ext: int = 0) -> Any:
    """A spline by its knots and coefficients."""
    module = sys.modules[INTERPOLATE]
    if not isinstance(tck, module.BSpline):
        if any_tracked(tck):
            raise unsupported("scipy.interpolate.splev by its knots or coefficients")
        tck = module.BSpline(*raw_deep(tuple(tck)))
    if ext != 0:
        raise unsupported("scipy.interpolate.splev with ext", "Use a BSpline, and np.where outside its range.")
    return at(tck, plain_operand(x), int(der))


_NOT_LINEAR = "The spline is no linear function of its values: write CubicSpline or make_interp_spline."
_TABLES = "Only CubicSpline and make_interp_spline may go through values that depend on the arguments."
refuses(INTERPOLATE, _NOT_LINEAR, "PchipInterpolator", "Akima1DInterpolator", "pchip_interpolate")
refuses(INTERPOLATE, _TABLES, "splrep", "interp1d", "UnivariateSpline", "InterpolatedUnivariateSpline",
        "make_lsq_spline", "make_smoothing_spline", "CubicHermiteSpline", "BarycentricInterpolator",
        "KroghInterpolator", "griddata", "interpn", "RegularGridInterpolator", "RBFInterpolator")  # fmt: skip

__all__ = ["SplineThrough", "at"]
