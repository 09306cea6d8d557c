"""What a search for a minimum returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from .display import value_lines
from .linear.definite import definite_solver
from .linear.normal import SolveFailed
from .mapping import AttributeItems
from .minimum import Minimum, MinimumState
from .parameters import FloatVector
from .problem import Outcome
from .search import History
from .space import Space, names_of

__all__ = ["MINIMUM_MESSAGES", "MinimizeResult", "make_minimum_result"]

Float64Array = NDArray[np.float64]

_DENSE = 1000  # variables up to which the eigenvalues of the Hessian may be asked for
_ZERO = 1e-10  # an eigenvalue this small, relative to the largest, may be zero
_MAX_NAMED = 6  # variables that a message lists

MINIMUM_MESSAGES: dict[Outcome, str] = {
    Outcome.GRADIENT: "Converged: the gradient is zero within gtol.",
    Outcome.COST: "Converged: no step promises a smaller value within ftol.",
    Outcome.STEP: "Converged: Newton's step is shorter than xtol allows.",
    Outcome.WORKING_PRECISION: "Converged to working precision: rounding leaves nothing to gain.",
    Outcome.ITERATION_LIMIT: "Not converged: max_iterations reached.",
    Outcome.TIME_LIMIT: "Not converged: max_seconds reached.",
    Outcome.EVALUATION_LIMIT: "Not converged: max_evaluations reached.",
    Outcome.STOPPED: "Stopped by the callback.",
    Outcome.UNBOUNDED: "Not converged: the function falls without end, so it has no minimum that way.",
    Outcome.NO_PROGRESS: (
        "Not converged: no step makes the function smaller, although its gradient is not zero. It may have a kink or a "
        "jump here, or its values may be less precise than its dtype."
    ),
}
"""What each outcome is called in `MinimizeResult.message`."""


@dataclass(frozen=True, eq=False, repr=False)
class MinimizeResult(AttributeItems):
    """The outcome of `jacana.minimize`, with the attributes of SciPy's ``OptimizeResult``.

    Attributes are also items. With N variables of which n are searched for (the others being fixed or tied):

    Attributes:
        x: in the structure and shapes of x0; float64, or float32 if x0 was.
        fun: the value there.
        jac: the gradient by what is searched for, shape (n,), float64.
        hess: the Hessian, shape (n, n): dense, sparse or operator; None where the method left none (see `hessian`).
        success: x is a minimum, as far as first derivatives tell (and second ones, where they are factorised).
        status: 1, 3: the test of gtol, xtol was met; 5: working precision; 0: iteration limit; -1: no step leads on;
            -2: the callback asked to stop; -3, -4: limit of time, of evaluations; -5: no lower bound.
        message: the same in words.
        nfev, njev, nhev: points at which the function, its gradient and its Hessian were evaluated.
        nit: steps.
        nrefused: steps that led to a point where something was not finite.
        optimality: largest entry of the gradient (of the Lagrangian) by what may move.
        active_mask: -1 where a variable rests on its lower bound, 1 on its upper, 0 elsewhere, shape (n,).
        constraint_violation: of the worst constraint, relative to the size of its bounds where that is above 1.
        multipliers: Lagrange multipliers, an array for each constraint; None where the method gives none.
        flat: all variables as one vector, shape (N,).
        history: step by step.
        space: how the flat vector maps to the structure of x.
    """

    _hidden: ClassVar[tuple[str, ...]] = ("space", "method", "history", "hessian_at")

    x: Any
    fun: float
    jac: Float64Array
    hess: Any
    success: bool
    status: int
    message: str
    nfev: int
    njev: int
    nhev: int
    nit: int
    nrefused: int
    optimality: float
    active_mask: NDArray[np.int_]
    constraint_violation: float
    multipliers: tuple[Float64Array, ...] | None
    flat: FloatVector
    history: History
    space: Space
    hessian_at: Callable[[Any], Any] | None = field(default=None)
    method: str = ""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What each of the n variables is called."""
        return names_of(self.space)

    @cached_property
    def hessian(self) -> Any:
        """The Hessian at x by what is searched for, computed now if the method left none.

        Raises:
            InvalidInputError: the result was pickled, and left its functions behind.
        """
        if self.hess is not None:
            return self.hess
        if self.hessian_at is None:
            raise InvalidInputError("the function is gone: this result was pickled")
        with np.errstate(all="ignore"):
            return self.hessian_at(np.asarray(self.flat)[self.space.free])

    @cached_property
    def eigenvalues(self) -> Float64Array:
        """Eigenvalues of the Hessian by what does not rest on a bound, rising, for up to 1,000 of them.

        Raises:
            InvalidInputError: there are more, or the Hessian is an operator.
        """
        hessian, free = self.hessian, self.active_mask == 0
        if hessian.shape[0] > _DENSE or not (isinstance(hessian, np.ndarray) or hasattr(hessian, "toarray")):
            raise InvalidInputError(f"eigenvalues are for stored Hessians of up to {_DENSE} variables")
        dense = hessian if isinstance(hessian, np.ndarray) else hessian.toarray()
        values: Float64Array = np.linalg.eigvalsh(dense[np.ix_(free, free)])
        return values

    def solve(self, right: Any) -> Float64Array:
        """Return the solution of ``hessian @ z = right``, shape (n,) or (n, k).

        Raises:
            LinAlgError: the Hessian is not positive definite.
        """
        try:
            return self._solver(np.asarray(right, dtype=np.float64))
        except SolveFailed:
            raise np.linalg.LinAlgError("the Hessian at the minimum is not positive definite") from None

    @cached_property
    def _solver(self) -> Callable[[Float64Array], Float64Array]:
        hessian = self.hessian
        if isinstance(hessian, np.ndarray) and len(hessian) <= _DENSE:
            values = np.linalg.eigvalsh(hessian)
            if values[0] <= len(values) * np.finfo(np.float64).eps * values[-1]:
                raise SolveFailed
        return definite_solver(hessian)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What should make one doubt x, in words; empty where nothing does."""
        found = [] if self.success else [self.message]
        hessian = self.hess
        stored = isinstance(hessian, np.ndarray) or hasattr(hessian, "toarray")
        if self.success and stored and hessian.shape[0] <= _DENSE and (self.active_mask == 0).any():
            values = self.eigenvalues
            size = float(np.abs(values).max())
            if values[0] < -_ZERO * size:
                found.append(f"This is a saddle point: the Hessian has the eigenvalue {values[0]:.3g}.")
            elif values[0] <= _ZERO * size:
                found.append("The Hessian is singular: other x may be as good, or its higher derivatives decide.")
        if self.active_mask.any():
            at = [self.names[k] for k in np.flatnonzero(self.active_mask)]
            found.append(f"On their bounds: {', '.join(at[:_MAX_NAMED])}{', ...' if len(at) > _MAX_NAMED else ''}.")
        if self.nrefused:
            found.append(f"{self.nrefused} steps led to points where the function or a derivative is not finite.")
        return tuple(found)

    def __getstate__(self) -> dict[str, Any]:
        # The functions need not survive.
        return {**{k: v for k, v in self.__dict__.items() if k != "_solver"}, "hessian_at": None}

    def __repr__(self) -> str:
        outcome = "converged" if self.success else "not converged"
        shown = np.array2string(np.asarray(self.flat), threshold=6, precision=6)
        return f"<MinimizeResult {outcome}: fun={self.fun:.6g}, {self.flat.size} variables, nit={self.nit}, x={shown}>"

    def __str__(self) -> str:
        lines = [self.message, f"  value {self.fun:.10g}, optimality {self.optimality:.3g}"]
        if self.constraint_violation:
            lines[-1] += f", constraints violated by {self.constraint_violation:.1e}"
        lines.append(f"  {self.nit} iterations, {self.nfev} evaluations of the function, {self.nhev} of its Hessian")
        lines += value_lines(self.flat, lambda count: [self.space.parameters.name(k, "x") for k in range(count)])
        lines += [f"  {warning}" for warning in self.warnings[0 if self.success else 1 :]]
        return "\n".join(lines)


def make_minimum_result(
    state: MinimumState, outcome: Outcome, history: History, problem: Minimum, space: Space
) -> MinimizeResult:
    """Return the result for the last state of a search."""
    free = state.model.free
    mask = np.zeros(free.size, dtype=np.int_)
    if problem.lower is not None:
        mask = np.where(free, 0, np.where(state.x <= problem.lower, -1, 1))
    flat = np.asarray(space.full(state.x))
    return MinimizeResult(
        x=space.parameters.unravel(flat),
        fun=state.cost,
        jac=state.model.gradient,
        hess=state.model.hessian,
        success=outcome > 0,
        status=int(outcome),
        message=MINIMUM_MESSAGES[outcome],
        nfev=state.residual_evaluations,
        njev=state.residual_evaluations,
        nhev=state.jacobian_evaluations,
        nit=state.iteration,
        nrefused=state.refused_values,
        optimality=state.optimality,
        active_mask=mask,
        constraint_violation=0.0,
        multipliers=None,
        flat=flat,
        history=history,
        space=space,
        hessian_at=problem.hessian,
        method="newton",
    )
