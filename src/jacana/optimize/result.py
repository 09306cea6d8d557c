"""What a least-squares fit returns: the parameters, how far they can be trusted, and why the search ended."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from .bounded import pressed
from .linear.dense import DenseFactors, DenseQR
from .linearization import Linearization
from .mapping import AttributeItems
from .parameters import FloatVector, Parameters
from .problem import MESSAGES, Outcome, Problem
from .search import History
from .space import Space, entries, names_of
from .trust_region import State, TrustRegion

__all__ = ["LeastSquaresResult", "make_result"]

Float64Array = NDArray[np.float64]

_VOID = 1e-12  # squared share of a parameter's axis in the null space above which the parameter is undetermined
_MAX_NAMED = 6  # parameters that a message lists
_DENSE_ENTRIES = 20_000_000  # entries of the Jacobian up to which its singular values may be asked for
_NEARLY_SINGULAR = 1e8  # condition from which half of the digits are gone
_LARGE_SHARE = 0.2  # part of a parameter in the worst-determined direction from which it is named


@dataclass(frozen=True, eq=False, repr=False)
class LeastSquaresResult(AttributeItems):
    """The outcome of `jacana.least_squares`, with the attributes of SciPy's ``OptimizeResult`` and the statistics of
    the fit.

    Attributes are also items (``result["x"]``, ``dict(result)``), as they are in SciPy. With m residuals, N parameters
    of which n are searched for (the others being fixed or tied; on manifolds n counts the directions):

    Attributes:
        x: the fitted parameters, in the structure and shapes of x0; float64, or float32 if x0 was.
        fun: the residual at x (after weights and noise), raveled, shape (m,), float64.
        jac: its Jacobian at x with respect to what is searched for, shape (m, n), float64; dense, sparse or operator.
        cost: half the sum of squares of `fun`, or what the loss makes of it.
        grad: gradient of the cost, shape (n,).
        optimality: largest cosine of the angle between the residual and a column of the Jacobian; 0 at a stationary
            point.
        success: the search arrived at a stationary point.
        status: 1, 2, 3: the test of gtol, ftol, xtol was met; 5: working precision reached; 0: iteration limit; -1:
            no step reduces the cost, yet the gradient is not small; -2: the callback asked to stop; -3, -4: limit of
            time, of evaluations.
        message: the same in words.
        nfev: points at which the residual was evaluated.
        njev: points at which its Jacobian was.
        nit: trial steps.
        nrefused: trial steps that led to a point where something was not finite.
        active_mask: -1 where a parameter rests on its lower bound, 1 on its upper, 0 elsewhere, shape (n,).
        flat: all parameters as one vector, shape (N,).
        history: cost, step length, trust and acceptance, step by step.
        space: how the flat vector maps to the structure of x.
        model: residual and Jacobian as the loss has changed them; the covariance comes from these.
        absolute_noise: the noise was given as it is, so that covariances are not scaled by the residual variance.
        inverse: of J^T J of `model`, shape (n, n), where the search knows it to as many digits as the SVD would give.
    """

    _hidden: ClassVar[tuple[str, ...]] = ("space", "model", "again", "method", "history", "absolute_noise", "inverse")

    x: Any
    fun: Float64Array
    jac: Any
    cost: float
    grad: Float64Array
    optimality: float
    success: bool
    status: int
    message: str
    nfev: int
    njev: int
    nit: int
    nrefused: int
    active_mask: NDArray[np.int_]
    flat: FloatVector
    history: History
    space: Space
    model: Linearization
    method: str = ""
    absolute_noise: bool = False
    again: Callable[[Any, Any], LeastSquaresResult] | None = field(default=None)
    inverse: Float64Array | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What each of the n numbers that are searched for is called."""
        return names_of(self.space)

    @property
    def parameters(self) -> Parameters:
        """Structure, shapes and names of all parameters."""
        return self.space.parameters

    # ---- statistics ----

    @property
    def rank(self) -> int:
        """Numerical rank of the Jacobian with its columns scaled to length one; n if every parameter is determined.

        Raises:
            InvalidInputError: the Jacobian is too large for that, or an operator.
        """
        return self.grad.size if self.inverse is not None else self._factors.rank

    @property
    def condition(self) -> float:
        """Condition number (2-norm) of the Jacobian with its columns scaled to length one; inf if the rank is below n.

        The scaling makes it independent of the units of the parameters, and about the best that any units could
        give (A. van der Sluis, Numerische Mathematik 14, 1969).
        """
        values = self._factors.singular_values
        return float(values[0] / values[-1]) if self.rank == self.grad.size else float("inf")

    @property
    def degrees_of_freedom(self) -> int:
        """Residuals less the rank of the Jacobian: m - n where every parameter is determined.

        Where the rank is too expensive to know, every parameter counts as determined.
        """
        return self.fun.size - (self.rank if self._small else self.grad.size)

    @property
    def residual_variance(self) -> float:
        """The estimate of the variance of one residual, 2 cost / degrees of freedom; NaN without degrees of freedom."""
        return 2.0 * self.cost / self.degrees_of_freedom if self.degrees_of_freedom > 0 else float("nan")

    @property
    def variance_unit(self) -> float:
        """What the variance of one residual is taken to be: 1 with `absolute_noise`, else `residual_variance`."""
        return 1.0 if self.absolute_noise else self.residual_variance

    @cached_property
    def covariance(self) -> Float64Array:
        """Covariance of what is searched for, shape (n, n), float64: variance_unit (J^T J)^-1, from the SVD of J.

        It is the usual linear estimate, for residuals of one variance. A parameter that the residual does not
        determine has an infinite variance and NaN covariances; without degrees of freedom everything is NaN,
        unless the noise is known (`absolute_noise`). Parameters on a bound are treated as if they were free.

        Raises:
            InvalidInputError: the Jacobian is too large for a dense answer; see `covariance_of`.

        Source: D. M. Bates and D. G. Watts, "Nonlinear Regression Analysis and its Applications", 1988, section 2.2.
        """
        if self.inverse is not None:
            return self.variance_unit * self.inverse
        factors = self._factors
        root = (factors.rows / factors.singular_values[:, None]) / factors.scale
        covariance: Float64Array = self.variance_unit * (root.T @ root)
        void = self._undetermined
        if void.any() and not math.isnan(self.variance_unit):
            covariance[void, :] = np.nan
            covariance[:, void] = np.nan
            covariance[void, void] = np.inf
        return covariance

    def covariance_of(self, *keys: Any) -> Float64Array:
        """Return the covariance of the named parameters alone, shape (k, k), for problems of any size.

        Args:
            keys: names of searched parameters, as `fixed` takes them.

        Raises:
            InvalidInputError: a name is unknown, or its parameter is not searched for or on a manifold.
        """
        positions = self.searched_positions(*keys)
        if self._small:
            return self.covariance[np.ix_(positions, positions)]
        from .linear.sparse import SparseCholesky

        norms = np.where(self.model.norms > 0.0, self.model.norms, 1.0)
        factors = SparseCholesky().factorise(self.model, norms, 1.0)
        units = np.zeros((self.grad.size, positions.size))
        units[positions, np.arange(positions.size)] = -1.0
        columns = [factors.answered(column, 0.0)[positions] for column in units.T]
        return self.variance_unit * np.stack(columns, axis=1)

    def searched_positions(self, *keys: Any) -> NDArray[np.int_]:
        """Return where the named parameters are among the n that are searched for."""
        wanted = np.concatenate([entries(self.parameters, key) for key in keys])
        free = self.space.free
        found = np.searchsorted(free, wanted)
        missing = (found >= free.size) | (free[np.minimum(found, free.size - 1)] != wanted)
        if missing.any():
            name = self.parameters.name(int(wanted[np.argmax(missing)]), "x")
            raise InvalidInputError(f"{name} is not searched for directly: it is fixed, tied or on a manifold")
        return np.asarray(found)

    @property
    def standard_errors(self) -> Any:
        """Square roots of the variances, in the structure of x; 0 for what is fixed, inf and NaN as in `covariance`.

        A tied parameter has the error that follows from the others by linear propagation; so have the entries of a
        parameter on a manifold.
        """
        return self.parameters.unravel(self.flat_errors)

    @cached_property
    def flat_errors(self) -> Float64Array:
        """`standard_errors` as one vector, shape (N,)."""
        if self.space.plain:
            return np.sqrt(self.covariance.diagonal())
        errors = np.zeros(self.flat.size)
        spread = self._spread()
        covariance = self.covariance
        for k in np.flatnonzero(np.abs(spread).any(axis=1)):
            row = spread[k]
            used = row != 0.0
            variance = float(row[used] @ covariance[np.ix_(used, used)] @ row[used])
            errors[k] = math.sqrt(variance) if variance >= 0.0 else variance
        return errors

    def _spread(self) -> Float64Array:
        """Derivative of all parameters by what is searched for, shape (N, n)."""
        from ..transforms import jacobian

        space = self.space
        if not space.curved:
            spread: Float64Array = jacobian(space.full)(np.asarray(self.flat, dtype=np.float64)[space.free])
            return spread
        flat = np.asarray(self.flat, dtype=np.float64)
        frames = space.frames(flat)
        moved: Float64Array = jacobian(lambda step, x, f: space.along(step, x, *f))(np.zeros(space.size), flat, frames)
        return moved

    @property
    def correlation(self) -> Float64Array:
        """Correlation matrix of what is searched for, shape (n, n); NaN where a parameter is undetermined."""
        deviations = np.sqrt(self.covariance.diagonal())
        usable = np.isfinite(deviations) & (deviations > 0.0)
        divisor = np.where(usable, deviations, np.nan)
        correlation: Float64Array = self.covariance / divisor[:, None] / divisor
        correlation[usable, usable] = 1.0
        return correlation

    @property
    def undetermined(self) -> tuple[str, ...]:
        """Names of the parameters that the residual does not determine, empty if the Jacobian has full rank."""
        return tuple(self.names[int(k)] for k in np.flatnonzero(self._undetermined))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What should make one doubt the parameters or their errors, in words; empty where nothing does."""
        found = []
        if not self.success:
            found.append(self.message)
        if self._small and self.rank < self.grad.size:
            found.append(
                f"The residual does not determine {_listed(self.undetermined)} (rank {self.rank} of {self.grad.size})."
            )
        elif self._small and self.condition > _NEARLY_SINGULAR:
            last = np.abs(self._factors.rows[-1])
            involved = tuple(self.names[k] for k in np.flatnonzero(last > _LARGE_SHARE))
            found.append(
                f"The residual hardly determines a combination of {_listed(involved)} (condition {self.condition:.1e})."
            )
        if self.active_mask.any():
            at = tuple(self.names[k] for k in np.flatnonzero(self.active_mask))
            found.append(f"On their bounds: {_listed(at)}. Errors and intervals do not know of bounds.")
        if self.degrees_of_freedom <= 0 and not self.absolute_noise:
            found.append("There are no degrees of freedom, so nothing is known of errors.")
        if self.nrefused:
            found.append(f"{self.nrefused} trial steps led to points where the residual or its Jacobian is not finite.")
        return tuple(found)

    @property
    def residual_statistics(self) -> dict[str, float]:
        """Figures of `fun`: mean, rms, largest (absolute), Durbin-Watson (2 where neighbours are unrelated), and the
        criteria of Akaike and Bayes for normal residuals (for comparing models of the same data).

        Source: Bates and Watts 1988, section 1.3 and 3.8; G. A. F. Seber and C. J. Wild, "Nonlinear Regression", 1989.
        """
        r, count, n = self.fun, self.fun.size, self.grad.size
        square = float(r @ r)
        deviance = count * math.log(2.0 * self.cost / count) if self.cost > 0.0 else -math.inf
        return {
            "mean": float(r.mean()),
            "rms": math.sqrt(square / count),
            "largest": float(np.abs(r).max()),
            "durbin_watson": float(np.sum(np.diff(r) ** 2) / square) if square > 0.0 else math.nan,
            "aic": deviance + 2.0 * n,
            "bic": deviance + math.log(count) * n,
        }

    def confidence_intervals(self, level: float = 0.95, *, kind: str = "wald") -> dict[str, tuple[float, float]]:
        """Return an interval for each searched parameter, by name.

        Args:
            level: probability with which an interval covers the true value.
            kind: "wald": the estimate plus and minus a multiple of its standard error, right for a model that is
                linear enough; "profile": the values for which the best fit of the other parameters is not
                significantly worse, at some fits for each parameter; inf where there is no such end.

        Raises:
            InvalidInputError: the level is not in (0, 1), or the kind unknown; for profiles: the search has not
                converged, or the result was read from a file.

        Source: D. M. Bates and D. G. Watts, "Nonlinear Regression Analysis and its Applications", 1988, sections 2.3
        and 6.1.
        """
        from . import intervals

        return intervals.confidence_intervals(self, level, kind)

    @property
    def _small(self) -> bool:
        m, n = self.model.shape
        return self.model.dense or (self.model.sparse and m * n <= _DENSE_ENTRIES)

    @cached_property
    def _factors(self) -> DenseFactors:
        if not self._small:
            m, n = self.model.shape
            raise InvalidInputError(
                f"the singular values of a Jacobian of shape ({m}, {n}) are too expensive; covariance_of(names) gives "
                f"the covariance of some parameters"
            )
        with np.errstate(all="ignore"):
            norms = self.model.norms
            return DenseQR().factorise(self.model, np.where(norms > 0.0, norms, 1.0), 1.0)

    @property
    def _undetermined(self) -> NDArray[np.bool_]:
        if self.rank == self.grad.size:
            return np.zeros(self.grad.size, dtype=bool)
        rows = self._factors.rows
        void: NDArray[np.bool_] = 1.0 - np.einsum("ij,ij->j", rows, rows) > _VOID
        return void

    def with_again(self, again: Callable[[Any, Any], LeastSquaresResult]) -> LeastSquaresResult:
        """Return the same with another way to fit again; microseconds count in small fits."""
        other = object.__new__(LeastSquaresResult)
        other.__dict__.update(self.__dict__, again=again)
        return other

    def __getstate__(self) -> dict[str, Any]:
        # The fit itself holds the user's functions, which need not survive.
        return {**self.__dict__, "again": None}

    # ---- for people ----

    def __repr__(self) -> str:
        outcome = "converged" if self.success else "not converged"
        shown = np.array2string(np.asarray(self.flat), threshold=6, precision=6)
        size = f"{self.fun.size} residuals, {self.grad.size} parameters"
        return f"<LeastSquaresResult {outcome}: cost={self.cost:.6g}, {size}, nit={self.nit}, x={shown}>"

    def __str__(self) -> str:
        """A report: the outcome, then one line for each parameter with its standard error."""
        from . import display

        return display.as_text(self)

    def __rich__(self) -> Any:
        from . import display

        return display.as_table(self)

    def _repr_html_(self) -> str:
        from . import display

        return display.as_html(self)

    def plot(self, kind: str = "residuals") -> Any:
        """Draw with matplotlib and return the figure.

        Args:
            kind: "residuals", "convergence", "correlation" or "profiles" (which makes some fits for each parameter).

        Raises:
            InvalidInputError: the kind is unknown.
            ImportError: matplotlib is not installed.
        """
        from . import display

        return display.plot(self, kind)

    def to_json(self) -> str:
        """Return everything but the functions as JSON; `from_json` reads it."""
        from . import serial

        return serial.to_json(self)

    @staticmethod
    def from_json(text: str) -> LeastSquaresResult:
        """Return the result that `to_json` wrote. It cannot make profiles: that takes the residual.

        Raises:
            InvalidInputError: the text is something else.
        """
        from . import serial

        return serial.from_json(text)


def make_result(
    state: State,
    outcome: Outcome,
    history: History,
    problem: Problem,
    space: Space,
    method: TrustRegion,
    again: Callable[[Any, Any], LeastSquaresResult] | None,
    absolute_noise: bool = False,
) -> LeastSquaresResult:
    """Return the result for the last state of a search."""
    plain = state.point
    if problem.loss is not None:
        plain = Linearization.of(*problem.linearise(state.x))
    flat = np.asarray(space.full(state.x))
    active = np.zeros(state.gradient.size, dtype=np.int_)
    if problem.lower is not None and problem.upper is not None:
        active = pressed(state.x, state.gradient, problem.lower, problem.upper)

    def made(message: str) -> LeastSquaresResult:
        return LeastSquaresResult(
            x=space.parameters.unravel(flat),
            fun=plain.residual,
            jac=plain.jacobian,
            cost=state.cost,
            grad=state.gradient,
            optimality=state.optimality,
            success=outcome > 0,
            status=int(outcome),
            message=message,
            nfev=state.residual_evaluations,
            njev=state.jacobian_evaluations,
            nit=state.iteration,
            nrefused=state.refused_values,
            active_mask=active,
            flat=flat,
            history=history,
            space=space,
            model=state.point,
            method=type(method).__name__,
            absolute_noise=absolute_noise,
            again=again,
        )

    message = MESSAGES[outcome]
    # Dense factors know the rank already; for others it is not worth a factorisation that nobody asked for.
    if state.factors.rank == state.gradient.size and state.point.dense and not method.linear_solver.damps:
        return made(message)
    result = made(message)
    if not state.point.dense or result.rank == state.gradient.size:
        return result
    rank = f"The Jacobian there has rank {result.rank} of {state.gradient.size}"
    return made(f"{message} {rank}: the residual does not determine {_listed(result.undetermined)}.")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")
