"""What a search for a root returns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from .display import value_lines
from .linear.dense import DenseFactors, DenseQR
from .linear.square import SingularMatrix, SquareSolver, square_factors
from .linearization import Linearization
from .mapping import AttributeItems
from .newton import ROOT_MESSAGES
from .parameters import FloatVector
from .problem import Outcome
from .search import History
from .space import Space, names_of
from .trust_region import State, TrustRegion

__all__ = ["RootResult", "make_root_result"]

Float64Array = NDArray[np.float64]

_DENSE = 1000  # unknowns up to which the singular values may be asked for
_NEARLY_SINGULAR = 1e10  # condition from which most digits of x are in doubt
_MAX_NAMED = 6  # unknowns that a message lists
_VOID = 1e-12  # squared share of an unknown's axis in the null space above which it is undetermined


@dataclass(frozen=True, eq=False, repr=False)
class RootResult(AttributeItems):
    """The outcome of `jacana.root` and `jacana.fixed_point`, with the attributes of SciPy's ``OptimizeResult``.

    Attributes are also items. With n unknowns:

    Attributes:
        x: in the structure and shapes of x0; float64, or float32 if x0 was.
        fun: the function at x, raveled, shape (n,), float64.
        jac: its Jacobian at x, shape (n, n), float64: dense, sparse or operator; None where none was computed.
        success: x is a root.
        status: 1: every equation holds exactly; 2: within tol; 5: to working precision; 0: iteration limit; -1: no step
            leads on; -2: the callback asked to stop; -3, -4: limit of time, of evaluations.
        message: the same in words.
        nfev, njev: points at which the function and its Jacobian were evaluated.
        nit: trial steps.
        nrefused: trial steps that led to a point where something was not finite.
        flat: all unknowns as one vector, shape (n,).
        history: step by step; its cost is half the sum of squares of `fun`.
        space: how the flat vector maps to the structure of x.
        method: name of the method.
    """

    _hidden: ClassVar[tuple[str, ...]] = ("space", "method", "history")

    x: Any
    fun: Float64Array
    jac: Any
    success: bool
    status: int
    message: str
    nfev: int
    njev: int
    nit: int
    nrefused: int
    flat: FloatVector
    history: History
    space: Space
    method: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What each unknown is called."""
        return names_of(self.space)

    def solve(self, right: Any, *, transposed: bool = False) -> Float64Array:
        """Return the solution of ``jac @ z = right``, or of ``jac.T @ z = right``, shape (n,) or (n, k).

        This is what derivatives of the root by something else take (the implicit function theorem). The factorisation
        is made once.

        Raises:
            InvalidInputError: there is no Jacobian with stored entries.
            LinAlgError: it is singular.
        """
        if self.jac is None:
            raise InvalidInputError("this method computed no Jacobian")
        try:
            return self._factors.solve(np.asarray(right, dtype=np.float64), transposed=transposed)
        except SingularMatrix:
            raise np.linalg.LinAlgError("the Jacobian at the root is singular") from None

    @cached_property
    def _factors(self) -> SquareSolver:
        return square_factors(self.jac)

    @cached_property
    def condition(self) -> float:
        """Condition number of the Jacobian with its columns scaled to length one; inf where it is singular.

        The 2-norm for up to 1,000 unknowns, beyond that an estimate in the 1-norm.

        Raises:
            InvalidInputError: there is no Jacobian with stored entries.
        """
        if self.jac is None or not (isinstance(self.jac, np.ndarray) or hasattr(self.jac, "tocsr")):
            raise InvalidInputError("the condition needs a Jacobian with stored entries")
        if self.flat.size <= _DENSE:
            values = self._singular.singular_values
            return float(values[0] / values[-1]) if values.size == self.flat.size else math.inf
        from scipy.sparse.linalg import LinearOperator, onenormest

        norms = Linearization.of(self.fun, self.jac).norms
        if not norms.all():
            return math.inf
        matrix = self.jac / norms if isinstance(self.jac, np.ndarray) else self.jac.multiply(1.0 / norms).tocsr()
        try:
            factors = square_factors(matrix)
        except SingularMatrix:
            return math.inf
        inverse = LinearOperator(
            matrix.shape,
            matvec=lambda v: factors.solve(np.ravel(v)),
            rmatvec=lambda v: factors.solve(np.ravel(v), transposed=True),
            dtype=np.dtype(np.float64),
        )
        return float(np.abs(matrix).sum(axis=0).max() * onenormest(inverse))

    @cached_property
    def _singular(self) -> DenseFactors:
        point = Linearization.of(self.fun, self.jac)
        with np.errstate(all="ignore"):
            return DenseQR().factorise(point, np.where(point.norms > 0.0, point.norms, 1.0), 1.0)

    @property
    def rank(self) -> int:
        """Numerical rank of the Jacobian with its columns scaled to length one, for up to 1,000 unknowns.

        Raises:
            InvalidInputError: there are more, or there is no Jacobian with stored entries.
        """
        if self.flat.size > _DENSE or self.jac is None:
            raise InvalidInputError(f"the rank is for Jacobians with stored entries of up to {_DENSE} unknowns")
        return self._singular.rank

    @property
    def warnings(self) -> tuple[str, ...]:
        """What should make one doubt x, in words; empty where nothing does."""
        found = [] if self.success else [self.message]
        stored = isinstance(self.jac, np.ndarray) or hasattr(self.jac, "tocsr")
        if stored and self.flat.size <= _DENSE and self._singular.rank < self.flat.size:
            found.append(f"The Jacobian at x is singular: {self._lost()}.")
        elif stored and self.condition > _NEARLY_SINGULAR:
            found.append(f"The Jacobian at x is nearly singular (condition {self.condition:.1e}).")
        if self.nrefused:
            found.append(f"{self.nrefused} trial steps led to points where the function or its Jacobian is not finite.")
        return tuple(found)

    def _lost(self) -> str:
        rows = self._singular.rows
        void = np.flatnonzero(1.0 - np.einsum("ij,ij->j", rows, rows) > _VOID)
        named = ", ".join(self.names[k] for k in void[:_MAX_NAMED]) + (", ..." if void.size > _MAX_NAMED else "")
        meaning = "a multiple root, or one of many" if self.success else "to first order nothing is said"
        return f"rank {self._singular.rank} of {self.flat.size}, {meaning} of {named}"

    def __repr__(self) -> str:
        outcome = "converged" if self.success else "not converged"
        shown = np.array2string(np.asarray(self.flat), threshold=6, precision=6)
        worst = float(np.abs(self.fun).max())
        size = f"{self.flat.size} unknowns, largest residual {worst:.3g}"
        return f"<RootResult {outcome}: {size}, nit={self.nit}, x={shown}>"

    def __str__(self) -> str:
        lines = [self.message, f"  {self.flat.size} unknowns, largest residual {float(np.abs(self.fun).max()):.3g}"]
        lines.append(f"  {self.nit} iterations, {self.nfev} evaluations of the function, {self.njev} of its Jacobian")
        lines += value_lines(self.flat, lambda count: self.names[:count])
        lines += [f"  {warning}" for warning in self.warnings[0 if self.success else 1 :]]
        return "\n".join(lines)


def make_root_result(state: State, outcome: Outcome, history: History, space: Space, method: TrustRegion) -> RootResult:
    """Return the result for the last state of a search."""
    return RootResult(
        x=space.parameters.unravel(state.x),
        fun=state.point.residual,
        jac=state.point.jacobian,
        success=outcome > 0,
        status=int(outcome),
        message=ROOT_MESSAGES[outcome],
        nfev=state.residual_evaluations,
        njev=state.jacobian_evaluations,
        nit=state.iteration,
        nrefused=state.refused_values,
        flat=state.x,
        history=history,
        space=space,
        method=type(method).__name__,
    )
