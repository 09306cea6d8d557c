"""``scipy.integrate`` inside recorded functions: integrals, and differential equations by forward sensitivities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import RecordingError
from ..graph.build import cast_to
from ..graph.index import Affine
from ..graph.node import Array, Node, new_input, substitute_nodes
from ..record import as_node, current_recording
from ..record.composed import as_numpy
from ..record.foreign import records
from ..record.lift import any_tracked
from ..record.location import unsupported, user_line
from ..record.recording import not_recording
from ..record.variable import raw_deep, tracked, wrap_node
from .results import RecordedOde

INTEGRATE = "scipy.integrate"
_FIXED = "For steps of your own choice use jacana.scan with a Runge-Kutta step."


def _part(function: Any, x: Array, watched: Any, what: str) -> Any:
    from .recorded import recorded_part

    part = recorded_part(function, x, watched)
    if part.looks:
        raise RecordingError(
            f"the function given to {what} branches on what it is called with, so one recording does not tell what it "
            f"does elsewhere; write it with np.where or jacana.cond{user_line()}"
        )
    outer = current_recording()
    if outer is not None:
        outer.watches.include(part.recording.watches)
    return part


def _value(operation: Any, params: Any, nodes: Sequence[Node]) -> Any:
    from .recorded import numbers

    given = numbers(nodes)
    with not_recording():
        return operation.evaluate(params, *given)


# --- integrals ----------------------------------------------------------------------------------------------------


@records(INTEGRATE, "quad", calls_back=True)
def quad(
    original: Any, func: Any, a: Any, b: Any, args: Any = (), full_output: Any = 0, epsabs: float = 1.49e-8,
    epsrel: float = 1.49e-8, limit: int = 50, points: Any = None, weight: Any = None, *rest: Any, **options: Any,
) -> Any:  # fmt: skip
    """The integral and an estimate of its error; differentiated under the integral sign and by the limits."""
    from ..graph.ops.integrals import IntegralParams, integral

    args = args if isinstance(args, tuple) else (args,)
    middle = _inside(float(raw_deep(a)), float(raw_deep(b)))
    if not any_tracked([a, b]) and tracked(func(middle, *args)) is None:
        plain = (args, full_output, epsabs, epsrel, limit, points, weight)
        return original(func, raw_deep(a), raw_deep(b), *plain, *rest, **options)
    if weight is not None or rest or options or full_output or any_tracked([points]):
        raise unsupported(
            "scipy.integrate.quad with weight, full_output, complex_func or recorded points",
            "Leave it out; a weight can be written into the function.",
        )
    part = _part(lambda t: np.reshape(func(t, *args), ()), np.array(middle), func, "scipy.integrate.quad")
    settings: list[tuple[str, Any]] = [("epsabs", float(epsabs)), ("epsrel", float(epsrel)), ("limit", int(limit))]
    if points is not None:
        settings.append(("points", tuple(map(float, points))))
    nodes = [*(cast_to(as_node(x), np.dtype("f8")) for x in (a, b)), *part.outside]
    found = []
    for error in (False, True):
        params = IntegralParams(part.unknown, part.arguments, part.output, tuple(settings), error)
        found.append(wrap_node(integral(*nodes, params=params), _value(integral, params, nodes)))
    return tuple(found)


def _inside(a: float, b: float) -> float:
    if math.isfinite(a) and math.isfinite(b):
        return 0.5 * (a + b)
    if math.isfinite(a):
        return a + math.copysign(1.0, b)
    return b + math.copysign(1.0, a) if math.isfinite(b) else 0.0


@records(INTEGRATE, "trapezoid")
def trapezoid(y: Any, x: Any = None, dx: float = 1.0, axis: int = -1) -> Any:
    """The trapezoidal rule, which NumPy has as well."""
    return np.trapezoid(y, x, dx, axis)


@records(INTEGRATE, "cumulative_trapezoid")
def cumulative_trapezoid(y: Any, x: Any = None, dx: float = 1.0, axis: int = -1, initial: Any = None) -> Any:
    """Running sums of the trapezoidal rule."""
    from scipy import integrate

    value = integrate.cumulative_trapezoid(raw_deep(y), raw_deep(x), dx, axis, initial)  # SciPy checks the arguments
    y = np.moveaxis(y, axis, -1)
    step = dx if x is None else np.diff(x if np.ndim(raw_deep(x)) == 1 else np.moveaxis(x, axis, -1))
    sums = np.cumsum(step * (y[..., 1:] + y[..., :-1]) / 2.0, axis=-1)
    if initial is not None:
        sums = np.concatenate([np.zeros_like(sums[..., :1]), sums], axis=-1)
    return as_numpy(value, np.moveaxis(sums, -1, axis))


@records(INTEGRATE, "simpson")
def simpson(y: Any, x: Any = None, *, dx: float = 1.0, axis: int = -1) -> Any:
    """Simpson's rule, of an even number of points too: the weights are SciPy's own."""
    from scipy import integrate

    value = integrate.simpson(raw_deep(y), raw_deep(x), dx=dx, axis=axis)
    if any_tracked([x]) or np.ndim(raw_deep(x)) > 1:
        raise unsupported("scipy.integrate.simpson at recorded x, or at x of several axes", "Use np.trapezoid.")
    weights = integrate.simpson(np.eye(np.shape(raw_deep(y))[axis]), raw_deep(x), dx=dx)
    return as_numpy(value, np.tensordot(y, weights, axes=([axis], [0])))


def _refused(name: str, remedy: str) -> None:
    @records(INTEGRATE, name, calls_back=True)
    def refused(original: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Run on plain numbers only."""
        what = f"scipy.integrate.{name} of what depends on recorded values"
        if any_tracked((func, *args)) or any_tracked(tuple(kwargs.values())):
            raise unsupported(what, remedy)
        if not callable(func):
            return original(func, *args, **kwargs)

        def checked(*given: Any, **named: Any) -> Any:
            value = func(*given, **named)
            if any_tracked([value]):
                raise unsupported(what, remedy)
            return value

        return original(checked, *args, **kwargs)


for _name in ("dblquad", "tplquad", "nquad", "quad_vec", "cubature"):
    _refused(_name, "Use scipy.integrate.quad for one integral inside another, or a quadrature rule as a sum.")
for _name in ("romb", "cumulative_simpson", "newton_cotes"):
    _refused(_name, "Use np.trapezoid, or write the rule as a sum of weights times values.")
for _name in ("solve_bvp", "ode", "complex_ode", "lebedev_rule", "qmc_quad", "tanhsinh"):
    _refused(_name, "Use scipy.integrate.solve_ivp or quad, or jacana.scan.")


# --- differential equations ---------------------------------------------------------------------------------------


@records(INTEGRATE, "solve_ivp", calls_back=True)
def solve_ivp(
    original: Any, fun: Any, t_span: Any, y0: Any, method: Any = "RK45", t_eval: Any = None, dense_output: bool = False,
    events: Any = None, vectorized: bool = False, args: Any = None, **options: Any,
) -> Any:  # fmt: skip
    """An initial value problem; its derivatives are solutions of the variational equations."""
    more = () if args is None else tuple(args)
    start = np.atleast_1d(np.asarray(raw_deep(y0)))
    if not any_tracked([t_span, y0, t_eval]):
        first = fun(float(t_span[0]), start.astype(np.float64), *more) if start.dtype.kind != "c" else 0.0
        if not _any(first):
            return original(fun, t_span, y0, method, t_eval, dense_output, events, vectorized, args, **options)
    if any_tracked([t_span, t_eval]):
        raise unsupported(
            "scipy.integrate.solve_ivp with times that depend on recorded values",
            "Integrate over s from 0 to 1 with t = t0 + s * (t1 - t0), and slopes times (t1 - t0).",
        )
    if t_eval is None:
        raise unsupported(
            "scipy.integrate.solve_ivp without t_eval, where the times are those of the solver's own steps",
            "Say at which times the solution is wanted: t_eval=t_span gives the start and the end.",
        )
    if events is not None or dense_output or not isinstance(method, str):
        raise unsupported("scipy.integrate.solve_ivp with events, dense_output or a method of one's own", _FIXED)
    kept = {k: v for k, v in options.items() if k not in ("jac", "jac_sparsity", "lband", "uband")}
    span, times = (float(t_span[0]), float(t_span[1])), np.asarray(t_eval, dtype=np.float64)
    y = _solution(lambda t, x: fun(t, x, *more), fun, y0, span, times, method, kept, "scipy.integrate.solve_ivp")
    return RecordedOde(times, y)


@records(INTEGRATE, "odeint", calls_back=True)
def odeint(
    original: Any, func: Any, y0: Any, t: Any, args: Any = (), Dfun: Any = None, col_deriv: Any = 0,
    full_output: Any = 0, *rest: Any, tfirst: bool = False, **options: Any,
) -> Any:  # fmt: skip
    """An initial value problem by LSODA; its derivatives are solutions of the variational equations."""
    args = args if isinstance(args, tuple) else (args,)

    def slope(t: Any, x: Any) -> Any:
        return func(t, x, *args) if tfirst else func(x, t, *args)

    if not any_tracked([y0, t]):
        start = np.atleast_1d(np.asarray(y0, dtype=np.float64))
        if not _any(slope(float(np.asarray(t)[0]), start)):
            return original(func, y0, t, args, Dfun, col_deriv, full_output, *rest, tfirst=tfirst, **options)
    if any_tracked([t]) or rest or full_output:
        raise unsupported(
            "scipy.integrate.odeint with recorded times, full_output, or options by position",
            "Give options by name; for the times, integrate over s from 0 to 1 with slopes times (t1 - t0).",
        )
    kept = {k: v for k, v in options.items() if k not in ("ml", "mu", "printmessg")}
    times = np.asarray(t, dtype=np.float64)
    span = (float(times[0]), float(times[-1]))
    return np.transpose(_solution(slope, func, y0, span, times, "odeint", kept, "scipy.integrate.odeint"))


def _any(value: Any) -> bool:
    return tracked(value) is not None or (isinstance(value, (list, tuple)) and any_tracked(value))


def _solution(
    slope: Any, watched: Any, y0: Any, span: tuple[float, float], times: Array, solver: str, options: dict[str, Any],
    what: str,
) -> Any:  # fmt: skip
    from ..graph.ops.integrals import OdeParams, ode

    if any_tracked(tuple(options.values())):
        raise unsupported(f"{what} with options that depend on recorded values", "Give numbers.")
    given = np.ravel(np.stack(y0) if isinstance(y0, (list, tuple)) else y0)
    start = np.asarray(raw_deep(given))
    if start.dtype.kind == "c":
        raise unsupported(f"{what} of complex numbers", "Give real and imaginary parts as unknowns of their own.")
    n = start.size

    def flat(both: Any) -> Any:
        found = slope(both[0], both[1:])
        return np.ravel(np.stack(found) if isinstance(found, (list, tuple)) else found).astype(np.float64)

    part = _part(flat, np.concatenate([[span[0]], start.astype(np.float64)]), watched, what)
    time, state = new_input((), np.dtype("f8")), new_input((n,), np.dtype("f8"))
    from ..graph.build import assembled

    both = assembled([(time, (Affine(0),)), (state, (Affine(1, ((0, 1),)),))], (n + 1,), np.dtype("f8"), disjoint=True)
    (moved,) = substitute_nodes([part.output], {part.unknown: both})
    settings = tuple((k, tuple(v) if isinstance(v, (list, np.ndarray)) else v) for k, v in sorted(options.items()))
    times_ = tuple(map(float, times))
    params = OdeParams(time, state, part.arguments, moved, *span, times_, solver, settings, user_line())
    nodes = [cast_to(as_node(given), np.dtype("f8")), *part.outside]
    return wrap_node(ode(*nodes, params=params), _value(ode, params, nodes))


__all__ = ["INTEGRATE"]
