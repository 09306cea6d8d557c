"""Operations of your own: a value that NumPy need not know, with the derivative that you know.

``custom_operation`` takes functions, ``Function`` is a class with ``forward`` and ``backward``; ``check_operation``
compares what they declare with finite differences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .errors import InvalidInputError
from .graph.node import Array
from .record.declared import Operation, Structure, _tuple

__all__ = ["Function", "Operation", "check_operation", "custom_operation"]


def custom_operation(
    value: Callable[..., Any],
    *,
    partials: Callable[..., Any] | None = None,
    jvp: Callable[..., Any] | None = None,
    vjp: Callable[..., Any] | None = None,
    structure: Structure | Sequence[Structure] = "dense",
    traceable: bool = False,
    name: str | None = None,
) -> Operation:
    """An operation from a function of arrays and its derivative, for recorded functions and Variables.

    Args:
        value: ``(*arrays) -> array`` or a tuple of arrays (not with ``partials``). Any code that computes with
            ndarrays: a compiled library, a table, a solver. It must not keep or change its arguments.
        partials: ``(*arrays) -> partial`` or a tuple with one for each argument (None for those without). What shape
            they have, ``structure`` says.
        jvp: ``(arrays, tangents) -> tangent of the result``; tangents are None for integer arguments.
        vjp: ``(arrays, cotangent) -> cotangent`` or a tuple with one for each argument (None: zero).
        structure: of the partials, the same for all arguments or one for each: ``"dense"``, shape
            ``result.shape + argument.shape``; ``"elementwise"``, the shape of both; a number k: the first k axes are
            a batch that both share, shape ``result.shape + argument.shape[k:]``. Zeros outside of it are structure.
        traceable: the derivatives are themselves NumPy code, or use other custom operations. They are recorded, and
            can be differentiated again. Otherwise there are first derivatives only.
        name: for messages.

    Returns:
        An operation to be called in place of ``value``. With only one of ``jvp`` and ``vjp`` the other direction goes
        through the whole Jacobian.

    Raises:
        InvalidInputError: shapes that do not fit the declaration.
        DifferentiationError: an order is asked for that is not declared (the message names the operation).

    >>> import numpy as np
    >>> import jacana as jc
    >>> cube = jc.custom_operation(lambda x: x**3, partials=lambda x: 3 * x**2, structure="elementwise")
    >>> jc.jacobian(cube, format="csr")(np.array([1.0, 2.0])).toarray()
    array([[ 3.,  0.],
           [ 0., 12.]])
    """
    if partials is not None and (jvp is not None or vjp is not None):
        raise InvalidInputError("custom_operation takes partials or products (jvp, vjp), not both")
    return Operation(value, partials, jvp, vjp, structure, traceable, name)


class Function:
    """A custom operation as a class with ``forward`` and ``backward``, for programs in the style of Chainer.

    Override ``forward(self, *arrays)``, which returns an array or a tuple of arrays, and ``backward(self, arrays,
    cotangents)``, which returns the cotangents of the arguments (None: zero); ``cotangents`` is a tuple if ``forward``
    returns one. Call an instance on arrays or Variables. ``traceable = True`` in the class: ``backward`` is NumPy code
    and can be differentiated again.

    >>> import numpy as np
    >>> import jacana as jc
    >>> class Square(jc.Function):
    ...     def forward(self, x):
    ...         return x * x
    ...     def backward(self, arrays, cotangent):
    ...         return 2 * arrays[0] * cotangent
    >>> jc.jacobian(Square())(np.array([1.0, 3.0]))
    array([[2., 0.],
           [0., 6.]])
    """

    traceable = False
    _operation: Operation | None = None

    def forward(self, *arrays: Any) -> Any:
        """The value."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def backward(self, arrays: tuple[Any, ...], cotangents: Any) -> Any:
        """The cotangents of the arguments, from those of the result."""
        raise NotImplementedError(f"{type(self).__name__} must define backward")

    def __call__(self, *args: Any) -> Any:
        if self._operation is None:
            name = type(self).__name__
            has = type(self).backward is not Function.backward
            self._operation = Operation(
                self.forward, None, None, self.backward if has else None, "dense", self.traceable, name
            )
        return self._operation(*args)


def check_operation(operation: Operation | Function, *arguments: Any, tolerance: float = 1e-5, seed: int = 0) -> float:
    """Compare what an operation declares with finite differences, at sample arguments.

    Args:
        operation: made by :func:`custom_operation`, or an instance of a :class:`Function`.
        arguments: arrays at which the operation is smooth.
        tolerance: the largest error that is accepted, relative to the largest entry of the Jacobian (at least 1).
        seed: of the direction along which a declared ``jvp`` and ``vjp`` are compared with one another.

    Returns:
        The largest error that was found, relative to the same.

    Raises:
        InvalidInputError: the value is not repeatable or changes its arguments, or a derivative is wrong; the message
            names the argument and the worst entry.

    >>> import numpy as np
    >>> import jacana as jc
    >>> wrong = jc.custom_operation(np.sin, partials=np.sin, structure="elementwise", name="sine")
    >>> jc.check_operation(wrong, np.array([0.0, 1.0]))
    Traceback (most recent call last):
        ...
    jacana.errors.InvalidInputError: sine: the derivative by argument 0 is wrong at entry (0, 0): declared 0, ...
    """
    from .transforms import jacobian

    call = operation
    arrays = [np.array(a, dtype=float if np.asarray(a).dtype.kind == "f" else None) for a in arguments]
    name = operation.name if isinstance(operation, Operation) else type(operation).__name__
    before = [a.copy() for a in arrays]
    first, again = call(*arrays), call(*arrays)
    if any(not np.array_equal(a, b) for a, b in zip(arrays, before, strict=True)):
        raise InvalidInputError(f"{name} changes its arguments")
    if any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(_tuple(first), _tuple(again), strict=True)):
        raise InvalidInputError(f"{name} gives two results for the same arguments")
    worst = 0.0
    for k, x in enumerate(arrays):
        if x.dtype.kind != "f":
            continue

        def flat(v: Any, k: int = k) -> Any:
            found = _tuple(call(*(v if j == k else a for j, a in enumerate(arrays))))
            return np.concatenate([np.ravel(r) for r in found])

        wanted = _differences(flat, x)
        scale = max(1.0, float(np.max(np.abs(wanted), initial=0.0)))
        for order in ("forward", "reverse"):
            declared = jacobian(flat, order=order)(x).reshape(wanted.shape)
            error = np.abs(declared - wanted) / scale
            if error.size and not float(error.max()) <= tolerance:
                i, j = (
                    int(n)
                    for n in np.unravel_index(int(np.nanargmax(np.where(np.isnan(error), np.inf, error))), error.shape)
                )
                raise InvalidInputError(
                    f"{name}: the derivative by argument {k} is wrong at entry ({i}, {j}): declared "
                    f"{declared[i, j]:.6g}, differences give {wanted[i, j]:.6g} ({order} order)"
                )
            worst = max(worst, float(error.max(initial=0.0)))
    return worst


def _differences(function: Callable[[Any], Any], x: Array) -> Array:
    """The Jacobian by central differences, extrapolated once (Richardson)."""
    columns = []
    for j in range(x.size):
        step = 1e-3 * max(1.0, abs(float(x.flat[j])))
        slopes = []
        for h in (step, step / 2):
            ends = []
            for sign in (1, -1):
                moved = x.copy()
                moved.flat[j] += sign * h
                ends.append(np.asarray(function(moved)))
            slopes.append((ends[0] - ends[1]) / (2 * h))
        columns.append((4 * slopes[1] - slopes[0]) / 3)
    size = np.size(function(x))
    return np.stack(columns, axis=1) if columns else np.zeros((size, 0))
