"""Variable projection: a fit that is linear in some of its parameters is searched for in the others alone.

For each value of the others, the linear parameters are those of a linear least-squares problem. What is left of the
residual then is a function of the others, recorded with its `lstsq`, whose derivative jacana has; so the Jacobian of
the projected problem is the full one of Golub and Pereyra, not Kaufman's approximation of it. The linear parameters
need no start, and the search has fewer directions in which to go wrong.

Source: G. H. Golub and V. Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares problems whose
variables separate", SIAM J. Numer. Anal. 10(2), 1973.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from ..transforms import jacobian
from .checks import raveled
from .parameters import FloatVector
from .space import Space, entries

__all__ = ["project", "with_counts"]

_EXACT = 1e-6  # relative error up to which a residual counts as linear: rounding, and what float32 leaves of it


def project(
    settings: Any, space: Space, args: tuple[Any, ...], whiten: Callable[[Any], Any], options: dict[str, Any]
) -> tuple[FloatVector, Any]:
    """Return all that is searched for, shape (n,), after the search among the nonlinear parameters, and its result.

    ``settings``: a `LeastSquares` with ``linear``; ``options``: callback and progress.

    Raises:
        InvalidInputError: a name is unknown, or not of a free parameter without bounds; the residual is not linear in
            what is named; the loss is no sum of squares.
    """
    linear = _places(settings, space)
    others = np.setdiff1d(np.arange(space.free.size), linear)
    source = np.empty(space.free.size, dtype=np.intp)
    source[others], source[linear] = np.arange(others.size), others.size + np.arange(linear.size)

    def flat(a: Any, c: Any) -> Any:
        return whiten(raveled(settings.residual(space.unravel(np.concatenate((a, c))[source]), *args)))

    dtype = space.start.dtype
    zero = np.zeros(linear.size, dtype=dtype)
    columns = jacobian(flat, 1)

    def parts(a: Any) -> tuple[Any, Any, Any]:
        matrix, rest = columns(a, zero), flat(a, zero)
        return matrix, rest, np.linalg.lstsq(matrix, -rest, rcond=None)[0]

    def projected(a: Any) -> Any:
        matrix, rest, c = parts(a)
        return rest + matrix @ c

    first = space.first[others]
    with np.errstate(all="ignore"):
        matrix, rest, c = parts(first)
        # The matrix at zero foretells the residual elsewhere, if the residual is linear. The solution may be near zero
        # (of a square it is), so the start is asked as well.
        given = space.first[linear]
        tried = [c, np.where(given == 0.0, 1.0, given).astype(dtype)]
        linear_there = [_agree(flat(first, v), rest, matrix, v) for v in tried]
    if not all(linear_there):
        named = ", ".join(space.parameters.name(int(space.free[k])) for k in linear[:6])
        raise InvalidInputError(
            f"the residual is not linear in {named}: it is no sum of them times functions of others"
        )
    x = space.first.copy()
    result = None
    if others.size:
        result = settings.among(projected, space, others)(first, **options)
        first = result.flat
    x[others] = first
    x[linear] = parts(first)[2]
    return x, result


def _agree(found: Any, rest: Any, matrix: Any, c: Any) -> bool:
    size = np.abs(rest) + np.abs(matrix) @ np.abs(c)
    return bool((np.abs(found - (rest + matrix @ c)) <= _EXACT * (size + size.max(initial=0.0))).all())


def _places(settings: Any, space: Space) -> NDArray[np.intp]:
    """The positions, among what is searched for, of the linear parameters."""
    if settings.loss is not None:
        raise InvalidInputError("linear= is for sums of squares; with a robust loss leave it out")
    if space.curved:
        raise InvalidInputError("linear= is for plain parameters, not for those on manifolds; leave it out")
    keys = [settings.linear] if isinstance(settings.linear, (str, int, tuple)) else list(settings.linear)
    wanted = np.unique(np.concatenate([entries(space.parameters, key) for key in keys]))
    places = np.flatnonzero(np.isin(space.free, wanted))
    if places.size != wanted.size:
        missing = int(np.setdiff1d(wanted, space.free)[0])
        raise InvalidInputError(f"{space.parameters.name(missing)} is fixed or tied, so it cannot be named in linear=")
    if space.lower is not None and space.upper is not None:
        bounded = np.isfinite(space.lower[places]) | np.isfinite(space.upper[places])
        if bounded.any():
            name = space.parameters.name(int(space.free[places[bounded]][0]))
            raise InvalidInputError(
                f"{name} has bounds, which a linear solution does not know; leave it out of linear="
            )
    return places.astype(np.intp)


def with_counts(result: Any, begun: Any) -> Any:
    """A result with the work of a search before it."""
    return replace(
        result,
        nfev=result.nfev + begun.nfev,
        njev=result.njev + begun.njev,
        nit=result.nit + begun.nit,
        nrefused=result.nrefused + begun.nrefused,
        history=begun.history.followed_by(result.history),
    )
