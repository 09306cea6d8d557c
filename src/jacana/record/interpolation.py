"""``scipy.interpolate``: splines at recorded points, and splines through recorded values.

A spline that is constant is one operation with the spline's own derivatives, so no look at the interval is needed. One
through values that depend on the arguments is linear in them: the splines through unit vectors, times the values.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ..graph.build import cast_to, movement_reshape
from ..graph.ops.spline import SplineParams, spline
from .foreign import records, refuses
from .lift import any_tracked, plain_operand
from .location import unsupported
from .recording import current_recording
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


def spline_methods() -> list[tuple[Any, str, Callable[..., Any], Callable[..., Any]]]:
    """The methods to be replaced while something is recorded: class, name, original, wrapper."""
    global _methods
    module = sys.modules.get(INTERPOLATE)
    if _methods is None and module is not None and hasattr(module, "BSpline"):
        found: list[tuple[Any, str, Callable[..., Any], Callable[..., Any]]] = []
        for name, option in _CALLED.items():
            for method, make in (("__call__", lambda f, o=option: _called(o, f)), ("integrate", _integrated)):
                owner = next((c for c in getattr(module, name).__mro__ if method in vars(c)), None)
                if owner is not None and not any(o is owner and m == method for o, m, *_ in found):
                    original = vars(owner)[method]
                    found.append((owner, method, original, make(original)))
        _methods = found
    return _methods or []


_methods: list[tuple[Any, str, Callable[..., Any], Callable[..., Any]]] | None = None


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

__all__ = ["SplineThrough", "at", "spline_methods"]
