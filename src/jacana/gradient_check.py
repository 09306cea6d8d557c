"""Tests of gradients by differences, in the form that users of define-by-run frameworks know.

Each check takes a function of Variables and arrays, compares along one random direction (or entry by entry) and raises
``AssertionError`` with both numbers if they differ. ``jacana.check`` is the shorter way for plain functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .errors import InvalidInputError
from .graph.node import Array
from .record import Variable
from .transforms import vjp

__all__ = ["check_backward", "check_double_backward", "check_jacobian", "numerical_grad"]


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _plain(value: Any) -> Array:
    return np.asarray(value.data if isinstance(value, Variable) else value)


def numerical_grad(
    f: Callable[[], Any], inputs: Sequence[Array], grad_outputs: Sequence[Any], eps: float = 1e-3
) -> tuple[Array, ...]:  # fmt: skip
    """The vector-Jacobian product by central differences.

    Args:
        f: takes nothing and returns a tuple of arrays that depend on ``inputs``.
        inputs: arrays of floats; each element is moved in place, and put back.
        grad_outputs: an array for each result of ``f``; None: the result does not count.
        eps: the step.

    Returns:
        One array for each input.

    Raises:
        InvalidInputError: an input that is not a writable array of floats.

    >>> x = np.array([1.0, 2.0])
    >>> numerical_grad(lambda: (x**2,), (x,), (np.ones(2),))[0].round(6)
    array([2., 4.])
    """
    found = []
    for x in inputs:
        if not isinstance(x, np.ndarray) or x.dtype.kind != "f" or not x.flags.writeable:
            raise InvalidInputError("inputs are writable arrays of floats, which f reads")
        grad = np.zeros_like(x)
        for place in np.ndindex(*x.shape):
            before = x[place]
            sides = []
            for step in (eps, -eps):
                x[place] = before + step
                sides.append([np.array(_plain(y), dtype=float) for y in _tuple(f())])
            x[place] = before
            pairs = zip(*sides, _tuple(grad_outputs), strict=True)
            grad[place] = sum(float(np.sum((a - b) * _plain(g))) for a, b, g in pairs if g is not None) / (2.0 * eps)
        found.append(grad)
    return tuple(found)


def _directional(f: Callable[..., Any], arrays: Sequence[Array], along: Sequence[Array], eps: float) -> list[Array]:
    """The derivative of all results along a direction, by central differences."""
    sides = [
        [_plain(y).astype(float) for y in _tuple(f(*(a + s * d for a, d in zip(arrays, along, strict=True))))]
        for s in (eps, -eps)
    ]
    return [(a - b) / (2.0 * eps) for a, b in zip(*sides, strict=True)]


def _direction(arrays: Sequence[Array], fixed: Sequence[bool], rng: np.random.Generator) -> list[Array]:
    """A random direction of length one through all arrays; zero for those that take no part."""
    raw: list[Array] = [
        np.zeros(a.shape) if a.dtype.kind != "f" or skip else np.asarray(rng.normal(size=a.shape))
        for a, skip in zip(arrays, fixed, strict=True)
    ]
    length = np.sqrt(sum(float(np.sum(d * d)) for d in raw))
    return [d / length if length else d for d in raw]


def _compare(analytic: float, numeric: float, atol: float, rtol: float, what: str) -> None:
    if not abs(analytic - numeric) <= atol + rtol * abs(numeric):
        raise AssertionError(
            f"{what} does not agree with differences along a random direction:\n  computed:    {analytic:.15g}\n  "
            f"differences: {numeric:.15g}\n  off by {abs(analytic - numeric):.3g} (atol={atol:g}, rtol={rtol:g})"
        )


def check_backward(
    func: Callable[..., Any],
    x_data: Any,
    y_grad: Any,
    params: Any = (),
    eps: float = 1e-3,
    atol: float = 1e-5,
    rtol: float = 1e-4,
    no_grads: Sequence[bool] | None = None,
    seed: int = 0,
) -> None:
    """Compare ``backward()`` with differences along one random direction.

    Args:
        func: takes a Variable for each of ``x_data`` and returns a Variable or a tuple of them. It may read ``params``.
        x_data: an array, or a tuple of arrays.
        y_grad: an array for each result (None: ones).
        params: a Variable or a tuple of them that func reads by itself; they are moved, too.
        eps: the step.
        atol, rtol: how far both numbers may differ.
        no_grads: for each of ``x_data`` whether it takes no part.
        seed: of the direction.

    Raises:
        AssertionError: they do not agree, with both numbers.

    >>> check_backward(lambda x, w: np.tanh(w @ x), (np.array([0.2, 0.5]), np.eye(2)), np.ones(2))
    """
    arrays, leaves = [np.asarray(x) for x in _tuple(x_data)], _tuple(params)
    skip = [*(no_grads or [False] * len(arrays)), *(False for _ in leaves)]
    kept = [leaf.data for leaf in leaves]

    def plain(*moved: Array) -> Any:
        for leaf, value in zip(leaves, moved[len(arrays) :], strict=True):
            leaf.data = value.astype(leaf.dtype)
        return func(*(Variable(m.astype(a.dtype)) for m, a in zip(moved, arrays, strict=False)))

    variables = [Variable(a.copy()) for a in arrays]
    for leaf in leaves:
        leaf.cleargrad()
    results = _tuple(func(*variables))
    seeds = [np.ones(y.shape) if g is None else _plain(g) for y, g in zip(results, _all(y_grad, results), strict=True)]
    for y, g in zip(results, seeds, strict=True):
        y.grad = np.asarray(g, dtype=y.dtype)
        y.backward()
    everything = [*arrays, *kept]
    along = _direction(everything, skip, np.random.default_rng(seed))
    grads = [v.grad for v in (*variables, *leaves)]
    computed = sum(float(np.sum(g * d)) for g, d in zip(grads, along, strict=True) if g is not None)
    try:
        slopes = _directional(plain, [a.astype(float) if a.dtype.kind == "f" else a for a in everything], along, eps)
    finally:
        for leaf, value in zip(leaves, kept, strict=True):
            leaf.data = value
    _compare(computed, sum(float(np.sum(s * g)) for s, g in zip(slopes, seeds, strict=True)), atol, rtol, "backward()")


def _all(y_grad: Any, results: Sequence[Any]) -> tuple[Any, ...]:
    given = (None,) * len(results) if y_grad is None else _tuple(y_grad)
    if len(given) != len(results):
        raise InvalidInputError(f"func returned {len(results)} results, and y_grad has {len(given)} arrays")
    return given


def check_double_backward(
    func: Callable[..., Any],
    x_data: Any,
    y_grad: Any,
    x_grad_grad: Any = None,
    eps: float = 1e-3,
    atol: float = 1e-4,
    rtol: float = 1e-3,
    seed: int = 0,
) -> None:
    """Compare the derivative of the vector-Jacobian product, by arguments and by ``y_grad``, with differences.

    Args:
        func: takes an array for each of ``x_data`` and returns an array or a tuple of arrays.
        x_data, y_grad, eps, atol, rtol, seed: as for `check_backward`.
        x_grad_grad: what the gradients by each argument are multiplied with; None: ones.

    Raises:
        AssertionError: they do not agree, with both numbers.

    >>> check_double_backward(lambda x: np.sin(x) * x, np.array([0.2, 0.5]), np.ones(2))
    """
    arrays = [np.asarray(x) for x in _tuple(x_data)]
    count = len(arrays)
    results = _tuple(func(*arrays))
    seeds = [
        np.ones(np.shape(y)) if g is None else _plain(g) for y, g in zip(results, _all(y_grad, results), strict=True)
    ]
    weights = [np.ones(a.shape) if g is None else _plain(g)
               for a, g in zip(arrays, _all(x_grad_grad, arrays), strict=True)]  # fmt: skip
    product = vjp(lambda *xs: _tuple(func(*xs)), argnums=tuple(range(count)))

    def first(*values: Any) -> Any:
        _, grads = product(*values[:count], tuple(values[count:]))
        return tuple(grads)

    def scalar(*values: Any) -> Any:
        return sum(np.sum(g * w) for g, w in zip(first(*values), weights, strict=True))

    everything = [*(a.astype(float) for a in arrays), *(np.asarray(s, dtype=float) for s in seeds)]
    along = _direction(everything, [False] * len(everything), np.random.default_rng(seed))
    _, grads = vjp(scalar, argnums=tuple(range(len(everything))))(*everything, np.ones(()))
    computed = sum(float(np.sum(g * d)) for g, d in zip(_tuple(grads), along, strict=True))
    (slope,) = _directional(scalar, everything, along, eps)
    _compare(computed, float(slope), atol, rtol, "the second derivative")


def check_jacobian(
    func: Callable[..., Any],
    x_data: Any,
    eps: float = 1e-3,
    atol: float = 1e-5,
    rtol: float = 1e-4,
) -> None:
    """Compare every entry of ``y.jacobian(x)`` with central differences.

    Args:
        func: takes a Variable for each of ``x_data`` and returns one Variable.
        x_data, eps, atol, rtol: as for `check_backward`.

    Raises:
        AssertionError: they do not agree; the worst entry is named.

    >>> check_jacobian(lambda x: x[1:] * np.exp(x[:-1]), np.array([0.2, 0.5, -1.0]))
    """
    arrays = [np.asarray(x) for x in _tuple(x_data)]
    variables = [Variable(a.copy()) for a in arrays]
    y = func(*variables)
    for k, x in enumerate(arrays):
        if x.dtype.kind != "f":
            continue
        found = np.asarray(y.jacobian(variables[k]), dtype=float)
        wanted = np.zeros(found.shape)
        for place in np.ndindex(*x.shape):
            e = np.zeros(x.shape)
            e[place] = 1.0
            along = [e if j == k else np.zeros(a.shape) for j, a in enumerate(arrays)]
            plain = [a.astype(float) if a.dtype.kind == "f" else a for a in arrays]
            (wanted[(..., *place)],) = _directional(lambda *moved: func(*map(Variable, moved)), plain, along, eps)
        off = np.abs(found - wanted) - atol - rtol * np.abs(wanted)
        if not (off <= 0).all():
            worst = np.unravel_index(int(np.argmax(np.where(np.isnan(off), np.inf, off))), off.shape)
            row, column = worst[: y.ndim], worst[y.ndim :]
            raise AssertionError(
                f"the Jacobian by argument {k} does not agree with differences at y[{_index(row)}], "
                f"x[{_index(column)}]: computed {found[worst]:.15g}, differences {wanted[worst]:.15g}"
            )


def _index(place: Sequence[Any]) -> str:
    return ", ".join(str(int(i)) for i in place)
