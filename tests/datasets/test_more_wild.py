"""The problems of More and Wild: minima as published, and how many of them a fit with default settings reaches."""

import numpy as np
import pytest
import scipy.optimize

import jacana as jc
from jacana.datasets.more_wild import problems

# Minima (sums of squares) of J. J. More, B. S. Garbow and K. E. Hillstrom, ACM TOMS 7(1), 1981, section 3, to the
# digits given there; a far start may lead to another minimum, which is listed after it.
PUBLISHED = {
    ("linear, full rank", 9): (36.0,),
    ("linear, rank 1", 7): (35 * 34 / (2 * 71),),
    ("linear, rank 1 with zeros", 7): ((35**2 + 3 * 35 - 6) / (2 * (2 * 35 - 3)),),
    ("Rosenbrock", 2): (0.0,),
    ("helical valley", 3): (0.0,),
    ("Powell singular", 4): (0.0,),
    ("Freudenstein-Roth", 2): (48.9842,),
    ("Bard", 3): (8.21487e-3, 17.4286),
    ("Kowalik-Osborne", 4): (3.07505e-4,),
    ("Meyer", 3): (87.9458,),
    ("Watson", 6): (2.28767e-3,),
    ("Watson", 9): (1.39976e-6,),
    ("Watson", 12): (4.72238e-10,),
    ("Box", 3): (0.0,),
    ("Jennrich-Sampson", 2): (124.362,),
    ("Brown-Dennis", 4): (85822.2,),
    ("Chebyquad", 6): (0.0,),
    ("Chebyquad", 7): (0.0,),
    ("Chebyquad", 8): (3.51687e-3,),
    ("Chebyquad", 9): (0.0,),
    ("Chebyquad", 10): (6.50395e-3,),
    ("Brown almost linear", 10): (0.0,),
    ("Osborne 1", 5): (5.46489e-5,),
    ("Osborne 2", 11): (4.01377e-2, 1.78981),
    # Zero by construction.
    **{("Cube", n): (0.0,) for n in (5, 6, 8)},
    ("Heart8", 8): (0.0,),
    **{("Mancino", n): (0.0,) for n in (5, 8, 10, 12)},
    # The best that SciPy's dogbox, trf and lm find with exact Jacobians.
    ("Chebyquad", 11): (2.79976e-3,),
    ("BDQRTIC", 8): (10.23897,),
    ("BDQRTIC", 10): (18.28116,),
    ("BDQRTIC", 11): (22.26059,),
    ("BDQRTIC", 12): (26.27277,),
}
ALL = problems()


def named(problem):
    return f"{problem.name} {problem.n}{' far' if problem.far else ''}"


@pytest.mark.parametrize("problem", ALL, ids=named)
def test_shapes_and_derivatives(problem):
    assert problem.start.shape == (problem.n,)
    values = problem.residual(problem.start)
    assert values.shape == (problem.m,)
    assert np.isfinite(values).all()


@pytest.mark.parametrize("problem", ALL, ids=named)
def test_published_minima(problem):
    result = jc.least_squares(problem.residual, problem.start)
    assert result.success, result.message
    assert result.optimality < 1e-5 or result.cost < 1e-20
    published = PUBLISHED[problem.name, problem.n]
    # The digits that are given, or zero to rounding (Mancino's residuals are differences of numbers up to 1e5).
    zero = 1e-21 if problem.name == "Mancino" else 1e-25
    assert any(abs(2.0 * result.cost / value - 1.0) < 3e-5 if value else result.cost < zero for value in published)


@pytest.mark.parametrize("problem", ALL, ids=named)
def test_no_other_solver_finds_less(problem):
    """SciPy's, with exact Jacobians and all tolerances at rounding; dogbox is the only one of them that solves all."""
    ours = jc.least_squares(problem.residual, problem.start)
    jacobian = jc.jacobian(problem.residual)
    tight = {"ftol": 2.3e-16, "xtol": 2.3e-16, "gtol": 2.3e-16}
    with np.errstate(all="ignore"):
        theirs = scipy.optimize.least_squares(
            problem.residual, problem.start, jac=lambda x: jacobian(x.copy()), method="dogbox", max_nfev=2000, **tight
        )
    assert ours.cost <= theirs.cost * (1.0 + 1e-9) + 1e-14


def test_evaluations_in_all():
    """dogbox takes 4,347 for all of them."""
    assert sum(jc.least_squares(problem.residual, problem.start).nfev for problem in ALL) < 3000
