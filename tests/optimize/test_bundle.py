"""A real bundle adjustment: the structure is found, and so is the optimum that other solvers agree on."""

import numpy as np
import pytest

import jacana as jc
from jacana.datasets import bal
from jacana.optimize.linear.schur import Schur


def test_whole_problem():
    problem = bal.load()
    fit = jc.least_squares(problem.residual, problem.x0)
    assert fit.success
    assert fit.history.cost[0] == pytest.approx(4.185660e6, rel=1e-6)
    # GTSAM, Ceres and a prototype in NumPy all end at 18033.9035.
    assert fit.cost == pytest.approx(18033.9035, abs=1e-4)
    assert fit.nit < 15
    assert fit.jac.shape == (167436, 66462)


def test_whole_problem_by_conjugate_gradients():
    problem = bal.load()
    fit = jc.least_squares(problem.residual, problem.x0, linear_solver="schur-cg")
    assert fit.success
    assert fit.cost == pytest.approx(18033.9035, abs=1e-4)


def test_points_are_what_is_eliminated():
    problem = bal.load().first(400)
    _, jacobian = jc.value_and_jacobian(problem.residual, format="csr")(problem.x0)
    plan = Schur()._plans(jacobian)
    assert plan.elimination.size == 3
    assert plan.elimination.eliminated.min() == problem.cameras.size
    # Columns of cameras that these observations do not touch are kept as they are.
    np.testing.assert_array_equal(plan.elimination.kept, np.arange(problem.cameras.size))
