"""What SciPy's solvers take, from the function alone: each in the format that it accepts and works best with.

=======================  ==================================  ======================================
solver                   call                                Jacobian or Hessian
=======================  ==================================  ======================================
``least_squares``        ``**least_squares_args(f)``         dense or CSR; ``lm``: dense
``root``                 ``**root_args(f)``                  dense
``minimize``             ``**minimize_args(f, method)``      gradient; Hessian if the method has one
``solve_ivp``            ``jac=jac_for_ivp(f, method)``      Radau, BDF: dense or CSR; LSODA: dense
``curve_fit``            ``jac=curve_fit_jac(model)``        dense
``NonlinearConstraint``  ``constraint(f, lb, ub, method)``   dense or CSR, with the Hessian
anything else            ``fun, jac = fun_and_jac(f)``       any format
=======================  ==================================  ======================================

"Dense or CSR": dense up to 4096 elements or where a fifth of them are entries, else CSR.

Others take plain transforms: ``newton(f, x0, fprime=jc.grad(f), fprime2=jc.hessian(f))``; ``fsolve(f, x0,
fprime=jc.jacobian(f))``; ``odeint(f, y0, t, tfirst=True, Dfun=jc.jacobian(f, argnums=1))``; and ``solve_bvp``, whose
mesh is a batch: ``fun_jac=lambda x, y: np.moveaxis(jc.vmap(jc.jacobian(slope))(y.T), 0, -1)`` with ``slope(y)`` at one
point, and ``bc_jac=jc.jacobian(bc, argnums=(0, 1))``.

SciPy asks for the value first and for the Jacobian at the same point next. The pairs made here compute both when the
value is asked for and hand the Jacobian over when it is asked for: one evaluation for each point. What was not asked
for is dropped at the next point; nothing is remembered longer, so data that the function reads may change between runs.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .errors import InvalidInputError
from .graph.node import Array
from .results import Format
from .transforms import Transformed, checked_format, hessian, jacobian, value_and_grad, value_and_jacobian

__all__ = [
    "FunctionAndJacobian",
    "constraint",
    "curve_fit_jac",
    "fun_and_jac",
    "jac_for_ivp",
    "least_squares_args",
    "minimize_args",
    "root_args",
]

Function = Callable[..., Any]


class FunctionAndJacobian(NamedTuple):
    """Two functions of the same arguments that share their evaluations."""

    fun: Function
    jac: Function


def _point(x: Any) -> Array:
    point: Array = np.asarray(x)
    return point if point.dtype in (np.float64, np.float32) else point.astype(np.float64)


class _Matrix:
    """A transform whose last result is a matrix: ``format=None`` is dense or CSR, whichever fits."""

    def __init__(self, make: Callable[[Format], Transformed], format: Format | None) -> None:
        if format is not None:
            checked_format(format)
        self._make, self._format = make, format
        self._transformed = make(format or "auto")

    def __call__(self, *args: Any) -> Any:
        result = self._transformed(*args)
        matrix = result[1] if isinstance(result, tuple) else result
        if self._format is None and not isinstance(matrix, np.ndarray) and not hasattr(matrix, "tocsr"):
            # An operator would be cheaper, but solvers that factorise take none.
            self._format = "csr"
            self._transformed = self._make("csr")
            return self._transformed(*args)
        return result


class _Shared:
    """A value and a derivative that come from one evaluation, the derivative kept until it is fetched or x moves.

    Each thread has its own, so one pair may serve several solvers at a time.
    """

    def __init__(self, evaluate: Function, finish: Callable[[Array, Any], tuple[Any, Any]]) -> None:
        self._evaluate, self._finish = evaluate, finish
        self._kept = threading.local()

    def fun(self, x: Any, *args: Any) -> Any:
        """The value at ``x``."""
        x = _point(x)
        value, derivative = self._finish(x, self._evaluate(x, *args))
        self._kept.last = (x.dtype, x.shape, x.tobytes(), args, derivative)
        return value

    def jac(self, x: Any, *args: Any) -> Any:
        """The derivative at ``x``: that of the last value if it was for the same ``x``, else computed now."""
        x = _point(x)
        last, self._kept.last = getattr(self._kept, "last", None), None
        if last is not None:
            dtype, shape, content, others, derivative = last
            same = len(args) == len(others) and all(a is b for a, b in zip(args, others, strict=True))
            if same and dtype == x.dtype and shape == x.shape and content == x.tobytes():
                return derivative
        return self._finish(x, self._evaluate(x, *args))[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"_evaluate": self._evaluate, "_finish": self._finish}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _kept=threading.local())

    def pair(self) -> FunctionAndJacobian:
        return FunctionAndJacobian(self.fun, self.jac)


def _vector_and_matrix(x: Array, result: tuple[Any, Any]) -> tuple[Any, Any]:
    """A vector, and a matrix of two axes: what SciPy's solvers of systems work with."""
    value, matrix = result
    value = np.ravel(value)
    return value, matrix.reshape(value.size, x.size) if isinstance(matrix, np.ndarray) else matrix


def _number_and_vector(x: Array, result: tuple[Any, Any]) -> tuple[Any, Any]:
    return float(np.asarray(result[0]).reshape(())), result[1]


def fun_and_jac(function: Function, *, format: Format | None = None) -> FunctionAndJacobian:
    """The function and its Jacobian for a solver that calls one after the other, from one evaluation for each point.

    Args:
        function: plain NumPy code ``f(x, *args) -> y``; ``x`` is one array.
        format: as in :func:`jacana.jacobian`. By default dense or CSR, whichever fits.

    Returns:
        ``(fun, jac)``. ``fun(x, *args)`` gives ``y`` as a vector, ``jac(x, *args)`` the matrix ``(y.size, x.size)``.

    >>> import numpy as np
    >>> from scipy.optimize import root
    >>> import jacana as jc
    >>> fun, jac = jc.scipy.fun_and_jac(lambda x: np.array([x[0] + x[1] - 3.0, x[0] * x[1] - 2.0]))
    >>> root(fun, [0.5, 3.0], jac=jac).x.round(6)
    array([1., 2.])
    """
    evaluate = _Matrix(functools.partial(_with_value, function), format)
    return _Shared(evaluate, _vector_and_matrix).pair()


def _with_value(function: Function, format: Format) -> Transformed:
    return value_and_jacobian(function, format=format)


def _checked_method(method: str, known: Sequence[str], solver: str) -> str:
    """The method in SciPy's spelling."""
    for name in known:
        if name.lower() == str(method).lower():
            return name
    raise InvalidInputError(f"{solver}: the methods that use derivatives are {', '.join(known)}, not {method!r}")


def least_squares_args(function: Function, method: str = "trf", *, format: Format | None = None) -> dict[str, Any]:
    """``fun``, ``jac`` and ``method`` of :func:`scipy.optimize.least_squares`.

    Args:
        function: plain NumPy code ``f(x, *args) -> residuals`` of any shape.
        method: ``"trf"``, ``"dogbox"`` or ``"lm"``, which takes dense Jacobians only.
        format: another one than dense or CSR, such as ``"operator"``.

    Raises:
        InvalidInputError: there is no such method, or it does not take the format.

    >>> import numpy as np
    >>> from scipy.optimize import least_squares
    >>> import jacana as jc
    >>> def residuals(x):
    ...     return np.concatenate([10.0 * (x[1:] - x[:-1] ** 2), 1.0 - x[:-1]])
    >>> least_squares(x0=np.zeros(4), **jc.scipy.least_squares_args(residuals)).x.round(6)
    array([1., 1., 1., 1.])
    """
    method = _checked_method(method, ("trf", "dogbox", "lm"), "least_squares")
    if method == "lm" and format not in (None, "dense"):
        raise InvalidInputError(f"least_squares with method='lm' takes dense Jacobians only, not format={format!r}")
    pair = fun_and_jac(function, format="dense" if method == "lm" else format)
    return {"fun": pair.fun, "jac": pair.jac, "method": method}


def root_args(function: Function, method: str = "hybr") -> dict[str, Any]:
    """``fun``, ``jac`` and ``method`` of :func:`scipy.optimize.root`, for the methods that use a Jacobian.

    Args:
        function: plain NumPy code ``f(x, *args) -> y``, as many results as arguments.
        method: ``"hybr"`` or ``"lm"``.

    Raises:
        InvalidInputError: another method.

    >>> import numpy as np
    >>> from scipy.optimize import root
    >>> import jacana as jc
    >>> root(x0=[1.0, 1.0], **jc.scipy.root_args(lambda x: x**2 - np.array([4.0, 9.0]))).x.round(6)
    array([2., 3.])
    """
    method = _checked_method(method, ("hybr", "lm"), "root")
    pair = fun_and_jac(function, format="dense")
    return {"fun": pair.fun, "jac": pair.jac, "method": method}


_HESSIAN_FORMATS: dict[str, Format | None] = {
    "trust-constr": None,
    "Newton-CG": None,
    "trust-ncg": "dense",
    "trust-krylov": "dense",
    "trust-exact": "dense",
    "dogleg": "dense",
}
_BY_GRADIENT = ("CG", "BFGS", "L-BFGS-B", "TNC", "SLSQP")


def minimize_args(function: Function, method: str = "trust-constr") -> dict[str, Any]:
    """``fun``, ``jac``, ``method`` and, where the method uses one, ``hess`` of :func:`scipy.optimize.minimize`.

    Args:
        function: plain NumPy code ``f(x, *args) -> number``.
        method: one that uses a gradient.

    Raises:
        InvalidInputError: the method uses no gradient.

    >>> import numpy as np
    >>> from scipy.optimize import minimize
    >>> import jacana as jc
    >>> def f(x):
    ...     return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)
    >>> minimize(x0=np.zeros(3), **jc.scipy.minimize_args(f, "trust-exact")).x.round(4)
    array([1., 1., 1.])
    """
    method = _checked_method(method, (*_HESSIAN_FORMATS, *_BY_GRADIENT), "minimize")
    pair = _Shared(value_and_grad(function), _number_and_vector).pair()
    result = {"fun": pair.fun, "jac": pair.jac, "method": method}
    if method in _HESSIAN_FORMATS:
        matrix = _Matrix(lambda format: hessian(function, format=format), _HESSIAN_FORMATS[method])
        result["hess"] = lambda x, *args: matrix(_point(x), *args)
    return result


def jac_for_ivp(function: Function, method: str = "Radau", *, format: Format | None = None) -> Function:
    """The ``jac`` of :func:`scipy.integrate.solve_ivp`: ``jac(t, y, *args)``, the derivative of ``f`` by y.

    Args:
        function: plain NumPy code ``f(t, y, *args) -> dy/dt``.
        method: ``"Radau"`` or ``"BDF"`` (dense or CSR), or ``"LSODA"`` (dense).
        format: another one, such as ``"csc"``.

    Raises:
        InvalidInputError: an explicit method, or LSODA with a sparse format.

    >>> import numpy as np
    >>> from scipy.integrate import solve_ivp
    >>> import jacana as jc
    >>> def f(t, y):
    ...     return np.array([-1000.0 * (y[0] - np.cos(t)), y[0] - y[1]])
    >>> jac = jc.scipy.jac_for_ivp(f, "BDF")
    >>> solve_ivp(f, (0.0, 1.0), [0.0, 0.0], method="BDF", jac=jac).success
    True
    """
    method = _checked_method(method, ("Radau", "BDF", "LSODA"), "solve_ivp")
    if method == "LSODA":
        if format not in (None, "dense"):
            raise InvalidInputError(f"solve_ivp with method='LSODA' takes dense Jacobians only, not format={format!r}")
        format = "dense"
    matrix = _Matrix(lambda format: jacobian(function, argnums=1, format=format), format)
    return lambda t, y, *args: matrix(float(t), _point(y), *args)


def curve_fit_jac(model: Function) -> Function:
    """The ``jac`` of :func:`scipy.optimize.curve_fit`: ``jac(t, *p)`` of shape ``(len(result), len(p))``.

    Args:
        model: plain NumPy code ``model(t, p1, p2, ...) -> y``; the parameters are numbers.

    >>> import numpy as np
    >>> from scipy.optimize import curve_fit
    >>> import jacana as jc
    >>> def model(t, a, b):
    ...     return a * np.exp(-b * t)
    >>> t = np.linspace(0.0, 2.0, 20)
    >>> p, _ = curve_fit(model, t, model(t, 2.0, 3.0), p0=[1.0, 1.0], jac=jc.scipy.curve_fit_jac(model))
    >>> p.round(6)
    array([2., 3.])
    """

    def unpacked(p: Any, t: Any) -> Any:
        return model(t, *p)

    transformed = _on_behalf_of(model, jacobian(functools.update_wrapper(unpacked, model)))

    def jac(t: Any, *p: Any) -> Any:
        result = transformed(np.array(p, dtype=np.float64), np.asarray(t))
        return result.reshape(-1, len(p))

    return jac


def _on_behalf_of(function: Function, transformed: Transformed) -> Transformed:
    """The transform of a wrapper, that watches what the function within it reads."""
    transformed._replay.watched = function
    return transformed


def constraint(
    function: Function, lb: Any, ub: Any, method: str = "trust-constr", *, format: Format | None = None, **options: Any
) -> Any:
    """A :class:`scipy.optimize.NonlinearConstraint` ``lb <= f(x) <= ub`` with exact Jacobian and Hessian.

    Args:
        function: plain NumPy code ``f(x) -> y``, a number or an array.
        lb, ub: bounds, numbers or arrays like ``y`` as a vector.
        method: of :func:`scipy.optimize.minimize`: ``"trust-constr"``, or ``"SLSQP"``, which uses no Hessian.
        format: of the Jacobian; by default dense or CSR. The Hessian of ``v @ f(x)`` is dense or CSR.
        options: ``keep_feasible`` and what else the class takes.

    Raises:
        InvalidInputError: another method.

    >>> import numpy as np
    >>> from scipy.optimize import minimize
    >>> import jacana as jc
    >>> circle = jc.scipy.constraint(lambda x: x @ x, 1.0, 1.0, "SLSQP")
    >>> args = jc.scipy.minimize_args(lambda x: x[0] + 2.0 * x[1], "SLSQP")
    >>> minimize(x0=[1.0, 0.0], constraints=circle, **args).x.round(4)
    array([-0.4472, -0.8944])
    """
    from scipy.optimize import NonlinearConstraint

    method = _checked_method(method, ("trust-constr", "SLSQP"), "constraints of minimize")
    pair = fun_and_jac(function, format=format)
    if method == "SLSQP":
        return NonlinearConstraint(pair.fun, lb, ub, jac=pair.jac, **options)

    def weighted(x: Any, v: Any) -> Any:
        return np.sum(np.ravel(v) * np.ravel(function(x)))

    functools.update_wrapper(weighted, function)
    second = _Matrix(lambda format: _on_behalf_of(function, hessian(weighted, format=format)), None)

    def hess(x: Any, v: Any) -> Any:
        return second(_point(x), np.asarray(v, dtype=np.float64))

    return NonlinearConstraint(pair.fun, lb, ub, jac=pair.jac, hess=hess, **options)
