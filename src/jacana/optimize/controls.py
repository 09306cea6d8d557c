"""How far a method trusts its model: the update of a trust-region radius, and of a damping.

A control is a small frozen object. What it controls is one positive number, kept in the state of the search, that is
larger where the model is trusted more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from .linear.base import Factors, Step

__all__ = ["Control", "Damping", "Radius"]

_LEAST_CUT = 1.0 / 30.0  # of the damping, after a step that did as predicted
_POOR, _GOOD = 0.25, 0.75  # gain ratios below and above which the region shrinks or grows


class Control(ABC):
    """One positive number: a radius, or the reciprocal of a damping."""

    @abstractmethod
    def first(self, factors: Factors, extent: float) -> float:
        """Return the number at the start, where the scaled parameters have length `extent`."""

    @abstractmethod
    def step(self, factors: Factors, trust: float) -> Step:
        """Return the Levenberg-Marquardt step for this number."""

    @abstractmethod
    def accepted(self, trust: float, trial: Step, gain: float, shrinkage: float) -> float:
        """Return the number after a step whose actual reduction of the cost was `gain` times the predicted one.

        Args:
            shrinkage: what interpolation along the step recommends for a poor one, in [0.1, 0.5].
        """

    @abstractmethod
    def refused(self, trust: float, trial: Step, shrinkage: float, times: int) -> float:
        """Return the number after a refusal, the `times`-th in a row."""

    @abstractmethod
    def collapsed(self, trust: float, extent: float, eps: float) -> bool:
        """Whether no further step can make a difference in the parameters."""


@dataclass(frozen=True)
class Radius(Control):
    """The radius of a region in scaled parameters.

    Attributes:
        growth: factor by which the region outgrows a step that did as well as predicted.

    Source: J. J. Moré, LNM 630, 1978, section 6.
    """

    growth: float = 2.0

    def first(self, factors: Factors, extent: float) -> float:
        return min(extent, factors.full_length or extent)

    def step(self, factors: Factors, trust: float) -> Step:
        return factors.within(trust)

    def accepted(self, trust: float, trial: Step, gain: float, shrinkage: float) -> float:
        if gain <= _POOR:
            return shrinkage * min(trust, 10.0 * trial.length)
        if gain >= _GOOD or trial.full:
            return self.growth * trial.length
        return trust

    def refused(self, trust: float, trial: Step, shrinkage: float, times: int) -> float:
        return shrinkage * min(trust, 10.0 * trial.length)

    def collapsed(self, trust: float, extent: float, eps: float) -> bool:
        return trust <= eps * extent


@dataclass(frozen=True)
class Damping(Control):
    """The reciprocal of the damping, for solvers to which each damping is a factorisation.

    Attributes:
        start: the first damping, relative to the scaled columns.
        least: the damping is never less, so that directions that the residual does not determine stay where they are.

    Source: H. B. Nielsen, "Damping parameter in Marquardt's method", IMM-REP-1999-05, Technical University of Denmark,
    1999; a good step divides the damping by up to 30 instead of 3. Measured on the bundle adjustment and on the pose
    graphs intel and sphere2500, this start and this factor take 7, 4 and 8 steps; 1e-6 and 30 take 8, 4 and 7; 1e-4
    and 10 take 8, 6 and 14.
    """

    start: float = 1e-5
    least: float = 1e-10

    def first(self, factors: Factors, extent: float) -> float:
        return 1.0 / self.start

    def step(self, factors: Factors, trust: float) -> Step:
        return factors.damped(1.0 / trust)

    def accepted(self, trust: float, trial: Step, gain: float, shrinkage: float) -> float:
        return min(1.0 / self.least, trust / max(_LEAST_CUT, 1.0 - (2.0 * gain - 1.0) ** 3))

    def refused(self, trust: float, trial: Step, shrinkage: float, times: int) -> float:
        return trust / 2.0 ** (times + 1)

    def collapsed(self, trust: float, extent: float, eps: float) -> bool:
        return trust <= eps
