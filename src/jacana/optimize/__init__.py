"""Nonlinear optimisation on exact Jacobians.

`least_squares` is the verb. Behind it stand small frozen objects: methods with `init`, `step` and `terminate`, controls
of their trust, linear solvers, losses. The state of a search is a separate value, so loops of one's own are easy to
write, and a new method is a subclass of `TrustRegion` with one function.
"""

from .batch import BatchResult, fit_batch
from .bounded import Reflective
from .constraints import Constraint
from .controls import Control, Damping, Radius
from .curves import curve_fit
from .least_squares import LeastSquares, least_squares
from .linear.base import Factors, LinearSolver, Step
from .linear.dense import DenseQR
from .linear.iterative import LSMR, ConjugateGradients
from .linear.iterative_schur import IterativeSchur
from .linear.normal import DenseCholesky
from .linear.schur import Schur
from .linear.sparse import SparseCholesky
from .linear.square import GMRES, SquareLU
from .linearization import Linearization
from .losses import Loss
from .manifolds import SE3, SO3, Manifold, Positive, Simplex, Sphere, UnitQuaternion
from .methods import Dogleg, GaussNewton, LevenbergMarquardt, LineSearch, SubspaceDogleg
from .minima import Minimizer, minimize
from .minimum import Minimum, NewtonMinimum
from .minimum_result import MinimizeResult
from .models import Model, ModelFit
from .natural import NaturalNewton
from .newton import Newton, NewtonLineSearch
from .parameters import Parameters, flatten_parameters
from .problem import Outcome, Problem
from .result import LeastSquaresResult
from .root_result import RootResult
from .roots import Root, fixed_point, root
from .search import Budget, History, Progress
from .space import Space
from .trust_region import State, TrustRegion

__all__ = [
    "GMRES",
    "LSMR",
    "SE3",
    "SO3",
    "BatchResult",
    "Budget",
    "ConjugateGradients",
    "Constraint",
    "Control",
    "Damping",
    "DenseCholesky",
    "DenseQR",
    "Dogleg",
    "Factors",
    "GaussNewton",
    "History",
    "IterativeSchur",
    "LeastSquares",
    "LeastSquaresResult",
    "LevenbergMarquardt",
    "LineSearch",
    "LinearSolver",
    "Linearization",
    "Loss",
    "Manifold",
    "MinimizeResult",
    "Minimizer",
    "Minimum",
    "Model",
    "ModelFit",
    "NaturalNewton",
    "Newton",
    "NewtonLineSearch",
    "NewtonMinimum",
    "Outcome",
    "Parameters",
    "Positive",
    "Problem",
    "Progress",
    "Radius",
    "Reflective",
    "Root",
    "RootResult",
    "Schur",
    "Simplex",
    "Space",
    "SparseCholesky",
    "Sphere",
    "SquareLU",
    "State",
    "Step",
    "SubspaceDogleg",
    "TrustRegion",
    "UnitQuaternion",
    "curve_fit",
    "fit_batch",
    "fixed_point",
    "flatten_parameters",
    "least_squares",
    "minimize",
    "root",
]
