"""What a least-squares fit returns: the parameters, how far they can be trusted, and why the search ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .damped import Factors, column_norms, factorise
from .levenberg_marquardt import Outcome
from .parameters import FloatVector, Parameters

__all__ = ["LeastSquaresResult"]

Float64Array = NDArray[np.float64]

_VOID = 1e-12  # squared share of a parameter's axis in the null space above which the parameter is undetermined
_MAX_LISTED = 50  # parameters that a printed result lists


@dataclass(frozen=True, eq=False, repr=False)
class LeastSquaresResult:
    """The outcome of `jacana.least_squares`, with the attributes of SciPy's ``OptimizeResult`` and the statistics of
    the fit.

    Attributes are also items (``result["x"]``, ``dict(result)``), as they are in SciPy. With m residuals and n
    parameters:

    Attributes:
        x: the fitted parameters, in the structure and shapes of x0; float64, or float32 if x0 was.
        fun: the residual at x, raveled, shape (m,), float64.
        jac: its Jacobian at x with respect to the flat parameters, shape (m, n), float64.
        cost: half the sum of squares of `fun`.
        grad: gradient of the cost, shape (n,).
        optimality: largest cosine of the angle between the residual and a column of the Jacobian; 0 at a stationary
            point.
        success: the search arrived at a stationary point.
        status: 1, 2, 3: the test of gtol, ftol, xtol was met; 5: working precision reached; 0: iteration limit; -1:
            no step reduces the cost, yet the gradient is not small; -2: the callback asked to stop.
        message: the same in words.
        nfev: points at which the residual was evaluated.
        njev: points at which its Jacobian was.
        nit: trial steps.
        flat: the fitted parameters as one vector, shape (n,).
        parameters: how the flat vector maps to the structure of x, and the names of its entries.
    """

    x: Any
    fun: Float64Array
    jac: Float64Array
    cost: float
    grad: Float64Array
    optimality: float
    success: bool
    status: int
    message: str
    nfev: int
    njev: int
    nit: int
    flat: FloatVector
    parameters: Parameters

    # ---- statistics ----

    @property
    def rank(self) -> int:
        """Numerical rank of the Jacobian with its columns scaled to length one; n if every parameter is determined."""
        return self._factors.rank

    @property
    def condition(self) -> float:
        """Condition number (2-norm) of the Jacobian with its columns scaled to length one; inf if the rank is below n.

        The scaling makes it independent of the units of the parameters, and about the best that any units could
        give (A. van der Sluis, Numerische Mathematik 14, 1969).
        """
        values = self._factors.singular_values
        return float(values[0] / values[-1]) if self.rank == self.flat.size else float("inf")

    @property
    def degrees_of_freedom(self) -> int:
        """Residuals less the rank of the Jacobian: m - n where every parameter is determined."""
        return self.fun.size - self.rank

    @property
    def residual_variance(self) -> float:
        """The estimate of the variance of one residual, 2 cost / degrees of freedom; NaN without degrees of freedom."""
        return 2.0 * self.cost / self.degrees_of_freedom if self.degrees_of_freedom > 0 else float("nan")

    @cached_property
    def covariance(self) -> Float64Array:
        """Covariance of the flat parameters, shape (n, n), float64: residual_variance (J^T J)^-1, from the SVD of J.

        It is the usual linear estimate, for residuals of one variance. A parameter that the residual does not
        determine has an infinite variance and NaN covariances; without degrees of freedom everything is NaN.

        Source: D. M. Bates and D. G. Watts, "Nonlinear Regression Analysis and its Applications", 1988, section 2.2.
        """
        factors = self._factors
        root = (factors.rows / factors.singular_values[:, None]) / factors.scale
        covariance: Float64Array = self.residual_variance * (root.T @ root)
        void = self._undetermined
        if void.any() and self.degrees_of_freedom > 0:
            covariance[void, :] = np.nan
            covariance[:, void] = np.nan
            covariance[void, void] = np.inf
        return covariance

    @property
    def standard_errors(self) -> Any:
        """Square roots of the diagonal of the covariance, in the structure of x; inf and NaN as there."""
        return self.parameters.unravel(np.sqrt(self.covariance.diagonal()))

    @property
    def correlation(self) -> Float64Array:
        """Correlation matrix of the flat parameters, shape (n, n); NaN in the rows and columns of undetermined ones."""
        deviations = np.sqrt(self.covariance.diagonal())
        usable = np.isfinite(deviations) & (deviations > 0.0)
        divisor = np.where(usable, deviations, np.nan)
        correlation: Float64Array = self.covariance / divisor[:, None] / divisor
        correlation[usable, usable] = 1.0
        return correlation

    @property
    def undetermined(self) -> tuple[str, ...]:
        """Names of the parameters that the residual does not determine, empty if the Jacobian has full rank."""
        return tuple(self.parameters.name(int(k), "x") for k in np.flatnonzero(self._undetermined))

    @cached_property
    def _factors(self) -> Factors:
        with np.errstate(all="ignore"):
            norms = column_norms(self.jac)
            return factorise(self.jac, self.fun, np.where(norms > 0.0, norms, 1.0))

    @property
    def _undetermined(self) -> NDArray[np.bool_]:
        if self.rank == self.flat.size:
            return np.zeros(self.flat.size, dtype=bool)
        rows = self._factors.rows
        void: NDArray[np.bool_] = 1.0 - np.einsum("ij,ij->j", rows, rows) > _VOID
        return void

    # ---- as a mapping ----

    def keys(self) -> tuple[str, ...]:
        """Return the names of the attributes that SciPy's results have too (and `flat`)."""
        return tuple(field.name for field in fields(self) if field.name != "parameters")

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)

    # ---- in print ----

    def __repr__(self) -> str:
        outcome = "converged" if self.success else "not converged"
        shown = np.array2string(np.asarray(self.flat), threshold=6, precision=6)
        size = f"{self.fun.size} residuals, {self.flat.size} parameters"
        return f"<LeastSquaresResult {outcome}: cost={self.cost:.6g}, {size}, nit={self.nit}, x={shown}>"

    def __str__(self) -> str:
        """A report: the outcome, then one line for each parameter with its standard error."""
        lines = [
            self.message,
            f"  cost {self.cost:.10g} from {self.fun.size} residuals, {self.degrees_of_freedom} degrees of freedom",
            f"  {self.nit} iterations, {self.nfev} residual and {self.njev} Jacobian evaluations",
            f"  rank {self.rank} of {self.flat.size}, condition {self.condition:.3g} (columns scaled)",
        ]
        names = self.parameters.names("x")[:_MAX_LISTED]
        width = max(map(len, names))
        deviations = np.sqrt(self.covariance.diagonal())
        for name, value, deviation in zip(names, self.flat, deviations, strict=False):
            lines.append(f"  {name:<{width}} = {value: .10e} +- {deviation:.3e}")
        if self.flat.size > _MAX_LISTED:
            lines.append(f"  ... and {self.flat.size - _MAX_LISTED} more")
        return "\n".join(lines)


MESSAGES: dict[Outcome, str] = {
    Outcome.GRADIENT: "Converged: the residual is zero, or orthogonal to every column of the Jacobian within gtol.",
    Outcome.COST: "Converged: a full Gauss-Newton step promises a reduction of the cost below ftol.",
    Outcome.STEP: "Converged: a full Gauss-Newton step is shorter than xtol allows.",
    Outcome.WORKING_PRECISION: "Converged to working precision: rounding leaves nothing to gain.",
    Outcome.ITERATION_LIMIT: "Not converged: max_iterations reached.",
    Outcome.STOPPED: "Stopped by the callback.",
    Outcome.NO_PROGRESS: (
        "Not converged: no step along the Jacobian reduces the cost, although its gradient is not zero. "
        "The residual may have a kink or a jump here, or its values may be less precise than its dtype."
    ),
}
"""What each outcome is called in `LeastSquaresResult.message`."""
