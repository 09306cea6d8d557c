"""``scipy.optimize`` inside recorded functions: roots, minima and fits whose problems depend on recorded values.

SciPy's own search runs, with its own settings and exact derivatives where it takes any, and what it finds gets its
derivatives by the implicit function theorem. It is as exact as the tolerances of the search.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ConvergenceError, InvalidInputError
from ..graph.node import Array
from ..record import as_node
from ..record.foreign import records, refuses
from ..record.lift import any_tracked
from ..record.location import unsupported, user_line
from ..record.variable import raw_deep, tracked
from .results import RecordedResult, RecordedRoot

OPTIMIZE = "scipy.optimize"

_FIT = "Use jacana.least_squares, whose solution has derivatives."
_MINIMUM = "Use jacana.minimize (or scipy.optimize.minimize), whose solution has derivatives."
refuses(OPTIMIZE, _FIT, "curve_fit", "leastsq", "nnls", "lsq_linear")
refuses(
    OPTIMIZE, _MINIMUM, "fmin", "fmin_powell", "fmin_cg", "fmin_bfgs", "fmin_ncg", "fmin_l_bfgs_b", "fmin_tnc",
    "fmin_cobyla", "fmin_slsqp", "fminbound", "brent", "golden", "basinhopping", "brute", "differential_evolution",
    "shgo", "dual_annealing", "direct",
)  # fmt: skip
refuses(
    OPTIMIZE, "Use jacana.root (or scipy.optimize.root), whose solution has derivatives.", "broyden1", "broyden2",
    "newton_krylov", "anderson", "excitingmixing", "linearmixing", "diagbroyden",
)  # fmt: skip
refuses(
    OPTIMIZE, "The solution of a linear program jumps; smooth it, and use jacana.minimize.", "linprog", "milp",
    "linear_sum_assignment", "quadratic_assignment",
)  # fmt: skip
_CALLERS = (
    "curve_fit", "leastsq", "fmin", "fmin_powell", "fmin_cg", "fmin_bfgs", "fmin_ncg", "fmin_l_bfgs_b", "fmin_tnc",
    "fmin_cobyla", "fmin_slsqp", "fminbound", "brent", "golden", "basinhopping", "brute", "differential_evolution",
    "shgo", "dual_annealing", "direct", "broyden1", "broyden2", "newton_krylov", "anderson", "excitingmixing",
    "linearmixing", "diagbroyden",
)  # fmt: skip


def _name(original: Any) -> str:
    return f"scipy.optimize.{original.__name__}"


def _only(original: Any, **options: Any) -> None:
    for option, value in options.items():
        if value is not None and value is not False and value != 0 and not (isinstance(value, tuple) and not value):
            raise unsupported(f"{_name(original)}({option}=...)", "Leave it out, or call the solver outside.")


class _Problem:
    """A call of a solver: the user's function of a vector, and whether it depends on the program around it."""

    def __init__(self, original: Any, function: Any, flat: Callable[[Any], Any], first: Any, start: Sequence[Any]):
        self.original, self.function, self.flat = original, function, flat
        self.first = np.atleast_1d(np.asarray(raw_deep(first), dtype=np.float64))
        if self.first.ndim != 1:
            raise unsupported(f"{_name(original)} from an x0 of several axes", "Ravel it.")
        parts = [np.atleast_1d(np.asarray(raw_deep(part), dtype=np.float64)) for part in start]
        self.start = np.concatenate(parts)
        self.start_node = None
        if any_tracked(list(start)):
            self.start_node = as_node(np.concatenate([np.ravel(p).astype(np.float64) for p in start]))
        self.recorded = self.start_node is not None or tracked(flat(self.first.copy())) is not None

    def solve(self, make: Any, equations: Any = None) -> Any:
        from .recorded import solution

        more = {} if equations is None else {"equations": equations}
        return solution(
            self.flat,
            self.start,
            watched=self.function,
            name=_name(self.original),
            make=make,
            start_node=self.start_node,
            first=self.first,
            **more,
        )


def _jacobian(function: Any) -> Any:
    from ..transforms import jacobian

    return jacobian(function)


def _result(found: Any, x: Any, fun: Any, cost: Any = None) -> Any:
    return RecordedResult(x, found.x, fun, cost)


# --- roots --------------------------------------------------------------------------------------------------------


@records(OPTIMIZE, "root", calls_back=True)
def root(
    original: Any, fun: Any, x0: Any, args: Any = (), method: str = "hybr", jac: Any = None, tol: Any = None,
    callback: Any = None, options: Any = None,
) -> Any:  # fmt: skip
    """A root of as many equations as unknowns; exact Jacobians where the method takes them."""
    from .recorded import Run

    args = args if isinstance(args, tuple) else (args,)

    def flat(x: Any) -> Any:
        value = fun(x, *args)
        return np.ravel(value[0] if jac is True else value)

    problem = _Problem(original, fun, flat, x0, [x0])
    if not problem.recorded:
        return original(fun, raw_deep(x0), args, method, jac, tol, callback, options)
    _only(original, callback=callback)

    def make(function: Any) -> Any:
        exact = _jacobian(function) if method in ("hybr", "lm") else None

        def run(x: Array) -> Run:
            end = original(function, x, method=method, jac=exact, tol=tol, options=options)
            return Run(np.asarray(end.x), bool(end.success), str(end.message))

        return run

    found = problem.solve(make)
    return _result(found, found.x, found.output)


@records(OPTIMIZE, "fsolve", calls_back=True)
def fsolve(
    original: Any, func: Any, x0: Any, args: Any = (), fprime: Any = None, full_output: Any = 0, *rest: Any,
    **options: Any,
) -> Any:  # fmt: skip
    """A root by MINPACK's hybrid method."""
    from .recorded import Run

    args = args if isinstance(args, tuple) else (args,)
    problem = _Problem(original, func, lambda x: np.ravel(func(x, *args)), x0, [x0])
    if not problem.recorded:
        return original(func, raw_deep(x0), args, fprime, full_output, *rest, **options)
    _only(original, full_output=full_output)
    if rest:
        raise unsupported("scipy.optimize.fsolve with options by position", "Give them by name.")
    kept = {k: v for k, v in options.items() if k != "col_deriv"}

    def make(function: Any) -> Any:
        exact = _jacobian(function)

        def run(x: Array) -> Run:
            end, _, flag, message = original(function, x, fprime=exact, full_output=True, **kept)
            return Run(end, flag == 1, str(message))

        return run

    return problem.solve(make).x


@records(OPTIMIZE, "fixed_point", calls_back=True)
def fixed_point(original: Any, func: Any, x0: Any, args: Any = (), *rest: Any, **options: Any) -> Any:
    """A fixed point by Steffensen's method, for each element."""
    from .recorded import Run

    shape = np.shape(raw_deep(x0))

    def flat(x: Any) -> Any:
        return np.ravel(func(np.reshape(x, shape), *args)) - x

    problem = _Problem(original, func, flat, np.ravel(raw_deep(x0)), [np.ravel(x0)])
    if not problem.recorded:
        return original(func, raw_deep(x0), args, *rest, **options)

    def make(function: Any) -> Any:
        return lambda x: Run(original(lambda v: function(v) + v, x, (), *rest, **options), True, "")

    return np.reshape(problem.solve(make).x, shape)


def _scalar(original: Any, f: Any, args: Any, first: Any, start: Sequence[Any]) -> _Problem:
    args = args if isinstance(args, tuple) else (args,)
    return _Problem(original, f, lambda x: np.reshape(f(x[0], *args), (1,)), first, start)


def _at_scalar(function: Any) -> Callable[[float], float]:
    return lambda x: float(function(np.array([x]))[0])


def _slope(function: Any) -> Callable[[float], float]:
    exact = _jacobian(function)
    return lambda x: float(exact(np.array([x]))[0, 0])


def _middle(a: Any, b: Any) -> float:
    return 0.5 * (float(raw_deep(a)) + float(raw_deep(b)))


@records(OPTIMIZE, "brentq", "brenth", "ridder", "bisect", "toms748", calls_back=True)
def bracketed(original: Any, f: Any, a: Any, b: Any, args: Any = (), *rest: Any, **options: Any) -> Any:
    """A root between two points; the points themselves have no influence on it."""
    from .recorded import Run

    problem = _scalar(original, f, args, _middle(a, b), [a, b])
    if not problem.recorded:
        return original(f, raw_deep(a), raw_deep(b), args, *rest, **options)
    _only(original, full_output=options.pop("full_output", None))
    if rest:
        raise unsupported(f"{_name(original)} with options by position", "Give them by name.")
    options.pop("disp", None)

    def make(function: Any) -> Any:
        def run(ends: Array) -> Run:
            x = original(_at_scalar(function), float(ends[0]), float(ends[1]), **options)
            return Run(np.array([x]), True, "")

        return run

    return problem.solve(make).x[0]


@records(OPTIMIZE, "newton", calls_back=True)
def newton(
    original: Any, func: Any, x0: Any, fprime: Any = None, args: Any = (), tol: float = 1.48e-8, maxiter: int = 50,
    fprime2: Any = None, x1: Any = None, rtol: float = 0.0, full_output: bool = False, disp: bool = True,
) -> Any:  # fmt: skip
    """Newton's method with exact derivatives if ``fprime`` is given, the secant method otherwise."""
    from .recorded import Run

    shape = np.shape(raw_deep(x0))

    def flat(x: Any) -> Any:
        return np.ravel(func(np.reshape(x, shape) if shape else x[0], *args))

    problem = _Problem(original, func, flat, np.ravel(raw_deep(x0)), [np.ravel(x0)])
    if not problem.recorded:
        return original(func, raw_deep(x0), fprime, args, tol, maxiter, fprime2, x1, rtol, full_output, disp)
    _only(original, full_output=full_output)
    if any_tracked([x1]):
        raise unsupported("scipy.optimize.newton(x1=...) that depends on recorded values", "Give a number.")

    def make(function: Any) -> Any:
        if not shape:
            slope = None if fprime is None else _slope(function)
            scalar = _at_scalar(function)
            return lambda x: Run(
                np.array([original(scalar, float(x[0]), slope, (), tol, maxiter, None, x1, rtol)]), True, ""
            )
        exact = None if fprime is None else _jacobian(function)
        diagonal = None if exact is None else (lambda x: np.diagonal(exact(x)).copy())
        return lambda x: Run(original(function, x, diagonal, (), tol, maxiter, None, x1, rtol), True, "")

    found = problem.solve(make).x
    return np.reshape(found, shape) if shape else found[0]


@records(OPTIMIZE, "root_scalar", calls_back=True)
def root_scalar(
    original: Any, f: Any, args: Any = (), method: Any = None, bracket: Any = None, fprime: Any = None,
    fprime2: Any = None, x0: Any = None, x1: Any = None, xtol: Any = None, rtol: Any = None, maxiter: Any = None,
    options: Any = None,
) -> Any:  # fmt: skip
    """A root of one equation; the result has ``root`` and ``converged``."""
    from .recorded import Run

    args = args if isinstance(args, tuple) else (args,)
    first = _middle(*bracket) if bracket is not None else 0.0 if x0 is None else raw_deep(x0)
    start = [*(() if bracket is None else bracket), *(() if x0 is None else (x0,)), *(() if x1 is None else (x1,))]
    if not start:
        return original(f, args, method, bracket, fprime, fprime2, x0, x1, xtol, rtol, maxiter, options)
    both = fprime is True or fprime2 is True

    def value(x: Any, *more: Any) -> Any:
        found = f(x, *more)
        return found[0] if both else found

    problem = _scalar(original, value, args, first, start)
    problem.function = f
    if not problem.recorded:
        plain = (raw_deep(bracket), fprime, fprime2, raw_deep(x0), raw_deep(x1))
        return original(f, args, method, *plain, xtol, rtol, maxiter, options)
    settings = {"method": method, "xtol": xtol, "rtol": rtol, "maxiter": maxiter, "options": options}

    def make(function: Any) -> Any:
        slope = _slope(function) if fprime or method in ("newton", "halley") else None
        curve = _slope(lambda v: _jacobian(function)(v)[0]) if fprime2 or method == "halley" else None

        def run(numbers: Array) -> Run:
            rest = list(map(float, numbers))
            ends = None if bracket is None else [rest.pop(0), rest.pop(0)]
            begin = None if x0 is None else rest.pop(0)
            second = None if x1 is None else rest.pop(0)
            end = original(
                _at_scalar(function), bracket=ends, fprime=slope, fprime2=curve, x0=begin, x1=second, **settings
            )
            return Run(np.array([end.root]), bool(end.converged), str(end.flag))

        return run

    return RecordedRoot(problem.solve(make).x[0])


# --- minima -------------------------------------------------------------------------------------------------------


class _Bounds:
    """What `stationary` reads of a space."""

    def __init__(self, lower: Any = None, upper: Any = None) -> None:
        self.lower, self.upper = lower, upper


def _bounds_of(bounds: Any, n: int) -> _Bounds:
    if bounds is None:
        return _Bounds()
    if any_tracked(bounds if isinstance(bounds, (list, tuple)) else [bounds.lb, bounds.ub]):
        raise InvalidInputError(
            f"bounds that depend on recorded values have no derivatives here; write x as a function of what is free"
            f"{user_line()}"
        )
    if hasattr(bounds, "lb"):
        low, high = (np.broadcast_to(np.asarray(b, dtype=float), (n,)) for b in (bounds.lb, bounds.ub))
    else:
        low = np.array([-np.inf if a is None else a for a, _ in bounds], dtype=float)
        high = np.array([np.inf if b is None else b for _, b in bounds], dtype=float)
    return _Bounds(low, high)


@records(OPTIMIZE, "minimize", calls_back=True)
def minimize(
    original: Any, fun: Any, x0: Any, args: Any = (), method: Any = None, jac: Any = None, hess: Any = None,
    hessp: Any = None, bounds: Any = None, constraints: Any = (), tol: Any = None, callback: Any = None,
    options: Any = None,
) -> Any:  # fmt: skip
    """A minimum; the exact gradient is handed over, and the Hessian where one was given."""
    from .recorded import Run

    args = args if isinstance(args, tuple) else (args,)

    def flat(x: Any) -> Any:
        value = fun(x, *args)
        return np.reshape(value[0] if jac is True else value, ())

    problem = _Problem(original, fun, flat, x0, [x0])
    if not problem.recorded:
        return original(fun, raw_deep(x0), args, method, jac, hess, hessp, bounds, constraints, tol, callback, options)
    name = "" if method is None else str(method).lower()
    _only(original, callback=callback)
    if not (isinstance(constraints, (list, tuple)) and not constraints):
        raise unsupported(
            "scipy.optimize.minimize(constraints=...) of what depends on recorded values",
            "Use jacana.minimize, whose constrained minima have derivatives.",
        )
    if bounds is not None and name in ("trust-constr", "cobyla", "cobyqa", "nelder-mead", "powell"):
        raise unsupported(
            f"scipy.optimize.minimize(method={method!r}) with bounds", "It ends near bounds, not on them; leave it out."
        )
    limits = _bounds_of(bounds, problem.first.size)
    takes_gradient = name not in ("nelder-mead", "powell", "cobyla", "cobyqa")
    takes_hessian = hess is not None or hessp is not None

    def make(function: Any) -> Any:
        from ..transforms import grad, hessian

        slope = grad(function) if takes_gradient else None
        curve = hessian(function) if takes_hessian else None

        def run(x: Array) -> Run:
            end = original(
                lambda v: float(function(v)),
                x,
                method=method,
                jac=slope,
                hess=curve,
                bounds=bounds,
                tol=tol,
                options=options,
            )
            return Run(np.asarray(end.x), bool(end.success), str(end.message))

        return run

    from ..optimize.solutions import stationary

    found = problem.solve(make, lambda value, x: stationary(value, x, limits))
    return _result(found, found.x, found.output)


@records(OPTIMIZE, "minimize_scalar", calls_back=True)
def minimize_scalar(
    original: Any, fun: Any, bracket: Any = None, bounds: Any = None, args: Any = (), method: Any = None,
    tol: Any = None, options: Any = None,
) -> Any:  # fmt: skip
    """A minimum of a function of one number, inside its bounds."""
    from .recorded import Run

    args = args if isinstance(args, tuple) else (args,)
    numbers = list(bracket if bracket is not None else bounds if bounds is not None else ())
    first = _middle(numbers[0], numbers[1]) if numbers else 0.5
    start = numbers if numbers else [0.5]
    problem = _Problem(original, fun, lambda x: np.reshape(fun(x[0], *args), ()), first, start)
    if not problem.recorded:
        return original(fun, raw_deep(bracket), raw_deep(bounds), args, method, tol, options)

    def make(function: Any) -> Any:
        def run(ends: Array) -> Run:
            given = tuple(map(float, ends)) if numbers else None
            end = original(
                lambda x: float(function(np.array([x]))),
                bracket=given if bracket is not None else None,
                bounds=given if bracket is None else None,
                method=method,
                tol=tol,
                options=options,
            )
            if bracket is None and given is not None:
                room = min(end.x - given[0], given[1] - end.x)
                if room <= 1e-5 * (given[1] - given[0]):
                    raise ConvergenceError(
                        f"scipy.optimize.minimize_scalar ended at a bound, {end.x}, where the solution has no "
                        f"derivative by the implicit function theorem; use jacana.minimize, which knows when a bound "
                        f"holds"
                    )
            return Run(np.array([end.x]), bool(end.success), str(end.message))

        return run

    from ..optimize.solutions import stationary

    found = problem.solve(make, lambda value, x: stationary(value, x, _Bounds()))
    return _result(found, found.x[0], found.output)


@records(OPTIMIZE, "least_squares", calls_back=True)
def least_squares(
    original: Any, fun: Any, x0: Any, jac: Any = "2-point", bounds: Any = (-np.inf, np.inf), *rest: Any, **options: Any
) -> Any:  # fmt: skip
    """A fit; the exact Jacobian is handed over, whatever was given."""
    from .recorded import Run

    args, kwargs = options.get("args", ()), options.get("kwargs") or {}

    def flat(x: Any) -> Any:
        return np.ravel(fun(x, *args, **kwargs))

    problem = _Problem(original, fun, flat, x0, [x0])
    if not problem.recorded:
        return original(fun, raw_deep(x0), jac, bounds, *rest, **options)
    if rest:
        raise unsupported("scipy.optimize.least_squares with options by position", "Give them by name.")
    _only(original, callback=options.pop("callback", None))
    from ..optimize.losses import LOSSES, as_loss
    from ..optimize.solutions import cost, cost_node, stationary

    name = options.get("loss", "linear")
    if name != "linear" and name not in LOSSES:
        raise unsupported("scipy.optimize.least_squares(loss=function)", "Use jacana.least_squares, which takes one.")
    loss = as_loss(name, float(options.get("f_scale", 1.0)))
    n = problem.first.size
    pair = (bounds.lb, bounds.ub) if hasattr(bounds, "lb") else bounds
    if any_tracked(list(pair)):
        raise unsupported(
            "scipy.optimize.least_squares with bounds that depend on recorded values",
            "Write x as a function of what is free.",
        )
    low, high = (np.broadcast_to(np.asarray(b, dtype=float), (n,)) for b in pair)
    limits = _Bounds(low, high) if np.isfinite(low).any() or np.isfinite(high).any() else _Bounds()
    kept = {k: v for k, v in options.items() if k not in ("args", "kwargs", "diff_step", "jac_sparsity")}

    def make(function: Any) -> Any:
        exact = _jacobian(function)

        def run(x: Array) -> Run:
            end = original(function, x, exact, (low, high), **kept)
            at = np.where(end.active_mask < 0, low, np.where(end.active_mask > 0, high, end.x))
            return Run(at, bool(end.success), str(end.message))

        return run

    found = problem.solve(make, lambda value, x: stationary(cost_node(loss, value), x, limits))
    return _result(found, found.x, found.output, cost(loss, found.output))


# --- refused ------------------------------------------------------------------------------------------------------


def _refused(name: str) -> None:
    from ..record.foreign import REMEDIES

    remedy = REMEDIES[OPTIMIZE, name]

    @records(OPTIMIZE, name, calls_back=True)
    def refused(original: Any, *args: Any, **kwargs: Any) -> Any:
        """Run on plain numbers; what its function returns must not depend on recorded values."""
        if any_tracked(args) or any_tracked(tuple(kwargs.values())):
            raise unsupported(f"scipy.optimize.{name} of recorded values", remedy)

        def checked(function: Any) -> Any:
            @functools.wraps(function)
            def call(*given: Any, **named: Any) -> Any:
                value = function(*given, **named)
                if any_tracked([value]):
                    raise unsupported(f"scipy.optimize.{name} of a function of recorded values", remedy)
                return value

            return call

        head = [checked(a) if k == 0 and callable(a) else a for k, a in enumerate(args)]
        return original(*head, **{k: checked(v) if k in ("func", "f", "F", "fun") else v for k, v in kwargs.items()})


for _each in _CALLERS:
    _refused(_each)

__all__ = ["OPTIMIZE"]
