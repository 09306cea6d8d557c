"""Which method and which linear solver a name means, and which ones suit a problem."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import InvalidInputError
from .bounded import Reflective
from .checks import unknown_method
from .controls import Control, Damping, Radius
from .linear.base import LinearSolver
from .linear.dense import DenseQR
from .linear.normal import DenseCholesky
from .linearization import Linearization
from .methods import Dogleg, GaussNewton, LevenbergMarquardt, LineSearch, SubspaceDogleg
from .trust_region import TrustRegion

__all__ = ["LINEAR_SOLVERS", "METHODS", "choose_linear_solver", "choose_method"]

METHODS: dict[str, type[TrustRegion]] = {
    "lm": LevenbergMarquardt,
    "dogleg": Dogleg,
    "subspace-dogleg": SubspaceDogleg,
    "gauss-newton": GaussNewton,
    "trf": Reflective,
}
"""The methods by name."""

LINEAR_SOLVERS: dict[str, tuple[str, str]] = {
    "qr": ("dense", "DenseQR"),
    "cholesky": ("normal", "DenseCholesky"),
    "sparse": ("sparse", "SparseCholesky"),
    "schur": ("schur", "Schur"),
    "lsmr": ("iterative", "LSMR"),
    "cg": ("iterative", "ConjugateGradients"),
    "schur-cg": ("iterative_schur", "IterativeSchur"),
    "matrix-free": ("iterative", "LSMR"),
}
"""The linear solvers by name: module and class (imported when they are used)."""

_QR_COLUMNS = 400  # parameters up to which the singular values of a dense Jacobian are worth their price
SPARSE_FTOL = 1e-10  # default ftol where each step costs a factorisation of its own


def choose_linear_solver(linear_solver: Any, point: Linearization) -> LinearSolver:
    """Return the linear solver that a user named, or the one that suits the Jacobian at `point`.

    Raises:
        InvalidInputError: there is no such solver.
    """
    if isinstance(linear_solver, LinearSolver):
        return linear_solver
    if linear_solver is None:
        if point.dense:
            return DenseQR() if point.shape[1] <= _QR_COLUMNS else DenseCholesky()
        if not point.sparse:
            return _named("lsmr")
        from .linear.schur import Schur

        schur = Schur()
        return schur if schur.suits(point) else _named("sparse")
    if linear_solver not in LINEAR_SOLVERS:
        raise InvalidInputError(f"there is no linear solver {linear_solver!r}; there is {', '.join(LINEAR_SOLVERS)}")
    return _named(linear_solver)


def _named(name: str) -> LinearSolver:
    module, kind = LINEAR_SOLVERS[name]
    solver: LinearSolver = getattr(importlib.import_module(f".linear.{module}", __package__), kind)()
    return solver


def choose_method(method: Any, solver: LinearSolver, bounded: bool, settings: dict[str, Any]) -> TrustRegion:
    """Return the method that a user named, with its settings, or the one that suits.

    Raises:
        InvalidInputError: there is no such method, or it does not know bounds.
    """
    if isinstance(method, TrustRegion):
        return method
    if method is None:
        method = "trf" if bounded else "lm"
    geodesic = method == "lm-geodesic"
    kind = LevenbergMarquardt if geodesic else METHODS.get(method)
    if kind is None:
        raise unknown_method("least_squares", method, (*METHODS, "lm-geodesic"))
    if bounded and kind is not Reflective:
        raise InvalidInputError(
            f"the method {method!r} does not know bounds; use method='trf' (the default with bounds)"
        )
    control: Control = Damping() if solver.damps and kind in (LevenbergMarquardt, Reflective) else Radius()
    if kind is GaussNewton:
        control = LineSearch()
    settings = {"linear_solver": solver, "control": control, **settings}
    return LevenbergMarquardt(geodesic=True, **settings) if geodesic else kind(**settings)
