"""Constraints of `minimize`: functions with bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError, RecordingError
from ..record.lift import any_tracked
from ..record.location import user_line
from .checks import check_residual, raveled
from .space import Space

__all__ = ["Constraint", "FlatConstraint", "as_constraints"]

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Constraint:
    """``lower <= function(x) <= upper``, entry by entry.

    Args:
        function: plain NumPy code; gets x in the structure of x0 and returns an array or a structure of them.
        lower, upper: numbers, or arrays like the function's result; equal for an equation, infinite for none. By
            default the function is to be 0 or more.

    >>> disc = Constraint(lambda x: x @ x, upper=1.0, lower=-np.inf)
    >>> equation = Constraint(lambda x: x[0] - x[1], 0.0, 0.0)
    """

    function: Callable[..., Any]
    lower: Any = 0.0
    upper: Any = np.inf
    of_vector: bool = False  # the function takes all variables as one vector (SciPy's LinearConstraint)

    def flattened(self, space: Space) -> FlatConstraint:
        """Return the constraint on what a search moves, checked at the start.

        Raises:
            InvalidInputError: the function is not finite there, or the bounds do not fit or are crossed.
        """

        def flat(x: Any) -> Any:
            return raveled(self.at(space, x))

        with np.errstate(all="ignore"):
            size = check_residual(self.at(space), space, "constraint")
        return FlatConstraint(flat, *self.sides(size))

    def at(self, space: Space, x: Any = None) -> Any:
        """Return what the function returns where the search is at x; by default where it starts."""
        x = space.first.copy() if x is None else x
        return self.function(space.full(x) if self.of_vector else space.unravel(x))

    def sides(self, size: int) -> tuple[Float64Array, Float64Array]:
        """Return `lower` and `upper` for a function that returns ``size`` numbers.

        Raises:
            InvalidInputError: they do not fit, or are crossed.
        """
        sides = []
        for name, side in (("lower", self.lower), ("upper", self.upper)):
            if any_tracked([side]):
                raise RecordingError(
                    f"the {name} side of a constraint depends on recorded values, by which there is no derivative; "
                    f"move it into the function, as f(x) - side{user_line()}"
                )
            given = np.asarray(side, dtype=np.float64)
            if given.size not in (1, size) or np.isnan(given).any():
                raise InvalidInputError(
                    f"the {name} side of a constraint has shape {given.shape}, but its function returns {size} numbers"
                )
            sides.append(np.broadcast_to(given.ravel(), (size,)))
        for k in np.flatnonzero(sides[0] > sides[1]):
            raise InvalidInputError(f"entry {k} of a constraint is to lie between {sides[0][k]} and {sides[1][k]}")
        return sides[0], sides[1]


@dataclass(frozen=True, eq=False)
class FlatConstraint:
    """A constraint on a vector: ``lower <= function(x) <= upper``, all of shape (m,)."""

    function: Callable[[Any], Any]
    lower: Float64Array
    upper: Float64Array

    def violation(self, values: Float64Array) -> float:
        """Return by how much the worst entry is outside."""
        outside = np.maximum(np.maximum(self.lower - values, values - self.upper), 0.0)
        return float(outside.max(initial=0.0))


def as_constraints(given: Any) -> tuple[Constraint, ...]:
    """Return constraints in any of the forms that `minimize` takes.

    Raises:
        InvalidInputError: something is none.
    """
    if given is None:
        return ()
    if isinstance(given, Mapping) or not isinstance(given, Sequence):
        given = (given,)
    return tuple(_constraint(one) for one in given)


def _constraint(given: Any) -> Constraint:
    if isinstance(given, Constraint):
        return given
    if isinstance(given, Mapping):
        kind, fun, args = given.get("type"), given.get("fun"), tuple(given.get("args", ()))
        if kind not in ("eq", "ineq") or not callable(fun):
            raise InvalidInputError("a constraint as a dictionary has a type, 'eq' or 'ineq', and a function, fun")
        return Constraint(lambda x: fun(x, *args), 0.0, 0.0 if kind == "eq" else np.inf)
    if hasattr(given, "fun") and hasattr(given, "lb"):
        return Constraint(given.fun, given.lb, given.ub)
    if hasattr(given, "A") and hasattr(given, "lb"):
        matrix = given.A.toarray() if hasattr(given.A, "toarray") else np.asarray(given.A, dtype=np.float64)
        return Constraint(lambda x: np.atleast_2d(matrix) @ x, given.lb, given.ub, of_vector=True)
    raise InvalidInputError(f"{given!r} is no constraint; give a jacana.optimize.Constraint")
