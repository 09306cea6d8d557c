"""The methods: Levenberg-Marquardt, dogleg, subspace dogleg, Gauss-Newton with a line search.

    >>> import numpy as np
    >>> def linearise(x):                       # residual and Jacobian of Rosenbrock's function
    ...     return np.array([10 * (x[1] - x[0] ** 2), 1 - x[0]]), np.array([[-20 * x[0], 10.0], [-1.0, 0.0]])
    >>> problem = Problem(residual=lambda x: linearise(x)[0], linearise=linearise)
    >>> for solver in (LevenbergMarquardt(), Dogleg(), SubspaceDogleg(), GaussNewton()):
    ...     state = solver.init(problem, np.array([-1.2, 1.0]))
    ...     while (outcome := solver.terminate(state)) is None:
    ...         state = solver.step(problem, state)
    ...     print(outcome > 0, state.x.round(12))
    True [1. 1.]
    True [1. 1.]
    True [1. 1.]
    True [1. 1.]

`jacana.least_squares` is this loop with the Jacobian, the checks and the result around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .controls import Control, Radius
from .linear.base import Factors, Step
from .linear.dense import DenseFactors
from .problem import Problem
from .trust_region import State, TrustRegion

__all__ = ["Dogleg", "GaussNewton", "LevenbergMarquardt", "LineSearch", "SubspaceDogleg"]

_BENT = 0.375  # an acceleration longer than this share of the velocity is beyond the reach of two derivatives


@dataclass(frozen=True)
class LevenbergMarquardt(TrustRegion):
    """The minimiser of the linear model within the trust region, at whatever damping that takes.

    Attributes:
        geodesic: add the acceleration of the geodesic that starts along the step, where it is short. It uses the
            second derivative of the residual along the step, and saves steps along curved valleys.

    Sources: J. J. Moré, LNM 630, 1978; for the acceleration M. K. Transtrum and J. P. Sethna, "Improvements to the
    Levenberg-Marquardt algorithm for nonlinear least-squares minimization", arXiv:1201.5885, 2012, section 4.
    """

    geodesic: bool = False

    def propose(self, problem: Problem, state: State, trust: float) -> Step:
        velocity = self.control.step(state.factors, trust)
        if not self.geodesic or problem.curvature is None or velocity.full:
            return velocity
        curved = np.asarray(problem.curvature(state.x, velocity.step), dtype=np.float64)
        if not np.isfinite(curved).all():
            return velocity
        bend = 0.5 * state.factors.answered(state.point.transposed(curved), velocity.damping)
        if np.linalg.norm(state.scale * bend) > _BENT * velocity.length:
            return velocity
        # What the model predicts is kept: the acceleration corrects the model, not its prediction.
        step = velocity.step + bend
        return Step(
            step,
            velocity.scaled,
            velocity.image,
            velocity.slope,
            velocity.damping,
            velocity.length,
            velocity.linear_norm,
        )


@dataclass(frozen=True)
class Dogleg(TrustRegion):
    """Along the gradient to its best point, from there straight to the Gauss-Newton point, as far as the region goes.

    Source: M. J. D. Powell, "A hybrid method for nonlinear equations", in Numerical Methods for Nonlinear Algebraic
    Equations, 1970.
    """

    def propose(self, problem: Problem, state: State, trust: float) -> Step:
        full = state.factors.full
        if full.length <= trust:
            return full
        cauchy = state.factors.cauchy
        if cauchy.length >= trust:
            return cauchy.times(trust / cauchy.length)
        leg = full.plus(cauchy, -1.0)
        # |cauchy + t leg| = trust, the root in (0, 1), in units in which trust is 1 and squares do not overflow
        a, b = (leg.length / trust) ** 2, float((cauchy.scaled / trust) @ (leg.scaled / trust))
        c = 1.0 - (cauchy.length / trust) ** 2
        return cauchy.plus(leg, c / (b + math.sqrt(max(b * b + a * c, 0.0))))


@dataclass(frozen=True)
class SubspaceDogleg(TrustRegion):
    """The minimiser of the linear model over the part of the region spanned by gradient and Gauss-Newton step.

    Source: R. H. Byrd, R. B. Schnabel and G. A. Shultz, "Approximate solution of the trust region problem by
    minimization over two-dimensional subspaces", Mathematical Programming 40, 1988.
    """

    def propose(self, problem: Problem, state: State, trust: float) -> Step:
        factors = state.factors
        if factors.full.length <= trust:
            return factors.full
        basis = _orthonormal(factors)
        images = np.stack([step.image for step in basis])
        # The model in the plane has J^T J = images images^T and the gradient -slopes: its own singular values follow.
        values, vectors = np.linalg.eigh(images @ images.T)
        kept = values > np.finfo(np.float64).eps * values[-1]
        singular, vectors = np.sqrt(values[kept]), vectors[:, kept]
        slopes = np.array([step.slope for step in basis]) * factors.unit**2
        plane = DenseFactors(singular, vectors.T, -(slopes @ vectors) / singular, np.ones(len(basis)), factors.unit)
        coordinates = plane.within(trust).step
        trial = basis[0].times(float(coordinates[0]))
        return trial if len(basis) == 1 else trial.plus(basis[1], float(coordinates[1]))


def _orthonormal(factors: Factors) -> list[Step]:
    """Steps of length 1 and orthogonal to one another that span the Gauss-Newton step and the gradient."""
    first = factors.full.times(1.0 / factors.full.length)
    cauchy = factors.cauchy
    rest = cauchy.plus(first, -float(cauchy.scaled @ first.scaled))
    if rest.length <= 1e-8 * cauchy.length:
        return [first]
    second = rest.times(1.0 / rest.length)
    second = second.plus(first, -float(second.scaled @ first.scaled))
    return [first, second.times(1.0 / second.length)]


@dataclass(frozen=True)
class LineSearch(Radius):
    """The control of `GaussNewton`: the fraction of the step to take, 1 after every step that was accepted."""

    def first(self, factors: Factors, extent: float) -> float:
        return 1.0

    def accepted(self, trust: float, trial: Step, gain: float, shrinkage: float) -> float:
        return 1.0

    def refused(self, trust: float, trial: Step, shrinkage: float, times: int) -> float:
        return shrinkage * trust

    def collapsed(self, trust: float, extent: float, eps: float) -> bool:
        return trust <= eps


@dataclass(frozen=True)
class GaussNewton(TrustRegion):
    """The Gauss-Newton step, shortened by interpolation until it reduces the cost enough.

    The fastest method where it works; without the damping of the others it may fail where the Jacobian is nearly
    singular.

    Source: J. Nocedal and S. J. Wright, "Numerical Optimization", 2nd edition, 2006, sections 3.1 and 10.3.
    """

    control: Control = field(default_factory=LineSearch)

    def propose(self, problem: Problem, state: State, trust: float) -> Step:
        return state.factors.full.times(min(trust, 1.0))
