"""Values that equations define, inside recorded functions: solutions with derivatives by the implicit function theorem.

`recorded` is the way from a function of unknowns to one node of the graph; the solvers of `jacana.optimize` and the
rules for ``scipy.optimize`` and ``scipy.integrate`` use it.
"""

from . import scipy_integrals, scipy_solvers

__all__ = ["scipy_integrals", "scipy_solvers"]
