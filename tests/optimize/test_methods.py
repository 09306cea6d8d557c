"""Methods, bounds, losses, noise: against SciPy, closed forms and one another."""

import numpy as np
import pytest
import scipy.optimize
from scipy import sparse

import jacana as jc
from jacana.errors import InvalidInputError
from jacana.optimize import (
    Damping,
    GaussNewton,
    LevenbergMarquardt,
    Linearization,
    Loss,
    Problem,
    Radius,
    Step,
    TrustRegion,
)
from jacana.optimize.losses import LOSSES
from jacana.optimize.solvers import METHODS

T = np.linspace(0.0, 3.0, 13)
Y = 3.0 * np.exp(-0.7 * T) + 0.5 + 0.05 * np.sin(17.0 * np.arange(13))


def decay(p):
    return p[0] * np.exp(-p[1] * T) + p[2] - Y


def rosenbrock(x):
    return np.stack([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])


def broyden(x):
    """Broyden's tridiagonal function (More, Garbow and Hillstrom 1981, problem 30): sparse, zero at the solution."""
    before, after = np.concatenate((np.zeros(1), x[:-1])), np.concatenate((x[1:], np.zeros(1)))
    return (3.0 - 2.0 * x) * x - before - 2.0 * after + 1.0


# ---- methods ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*METHODS, "lm-geodesic"])
@pytest.mark.parametrize(("residual", "start"), [(decay, [1.0, 1.0, 0.0]), (rosenbrock, [-1.2, 1.0])])
def test_all_methods_find_the_same_point(method, residual, start):
    result = jc.least_squares(residual, start, method=method)
    assert result.success, result.message
    np.testing.assert_allclose(result.x, jc.least_squares(residual, start).x, rtol=1e-11)


@pytest.mark.parametrize("method", [*METHODS])
@pytest.mark.parametrize("linear_solver", [None, "sparse", "lsmr", "cg", "matrix-free"])
def test_all_methods_on_a_sparse_problem(method, linear_solver):
    result = jc.least_squares(broyden, np.full(200, -1.0), method=method, linear_solver=linear_solver)
    assert result.success, result.message
    assert np.abs(result.fun).max() < 1e-6
    assert result.nit < 20


def test_sparse_jacobians_stay_sparse():
    result = jc.least_squares(broyden, np.full(500, -1.0))
    assert isinstance(result.jac, sparse.csr_array)
    assert result.jac.nnz == 1498
    dense = jc.least_squares(broyden, np.full(500, -1.0), linear_solver="qr")
    np.testing.assert_allclose(result.x, dense.x, rtol=1e-6)


def test_acceleration_saves_steps_in_a_curved_valley():
    # The residual is quadratic, so that its second derivative along a step is exact and constant.
    def valley(x):
        return np.stack([x[0], 30.0 * (x[1] - x[0] ** 2)])

    plain = jc.least_squares(valley, [4.0, 16.0], method="lm")
    bent = jc.least_squares(valley, [4.0, 16.0], method="lm-geodesic")
    assert plain.success
    assert bent.success
    assert bent.nit <= plain.nit


def test_a_method_of_ones_own():
    class Steepest(TrustRegion):
        """Only the direction of steepest descent: slow, but a method."""

        def propose(self, problem, state, trust):
            cauchy = state.factors.cauchy
            return cauchy.times(min(1.0, trust / cauchy.length))

    result = jc.least_squares(lambda x: x * np.array([1.0, 3.0]) - 1.0, [5.0, 5.0], method=Steepest())
    assert result.success
    np.testing.assert_allclose(result.x, [1.0, 1.0 / 3.0], rtol=1e-8)
    assert isinstance(jc.optimize.DenseQR().factorise(result.model, np.ones(2), 1.0).cauchy, Step)


def test_controls_move_the_right_way():
    point = Linearization.of(np.array([1.0, 2.0]), np.array([[1.0, 0.0], [0.0, 2.0]]))
    factors = jc.optimize.DenseQR().factorise(point, point.norms, point.norm)
    for control in (Radius(), Damping()):
        trust = control.first(factors, 1.0)
        trial = control.step(factors, trust)
        assert control.accepted(trust, trial, 1.0, 0.5) >= min(trust, 2.0 * trial.length)
        assert control.accepted(trust, trial, 0.01, 0.5) < trust
        once, twice = control.refused(trust, trial, 0.5, 1), control.refused(trust, trial, 0.5, 2)
        assert twice <= once < trust
        assert control.collapsed(1e-20, 1.0, 1e-16)


def test_problem_by_hand_with_a_sparse_jacobian():
    matrix = sparse.csr_array(np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [1.0, 0.0, 5.0], [0.0, 1.0, 1.0]]))
    target = np.array([1.0, 2.0, 3.0, 4.0])
    problem = Problem(lambda x: matrix @ x - target, lambda x: (matrix @ x - target, matrix))
    solver = LevenbergMarquardt(linear_solver=jc.optimize.DenseCholesky(), control=Damping(), ftol=1e-14)
    state = solver.init(problem, np.zeros(3))
    while solver.terminate(state) is None:
        state = solver.step(problem, state)
    np.testing.assert_allclose(state.x, np.linalg.lstsq(matrix.toarray(), target)[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "newton"}, "no method 'newton'.*dogleg"),
        ({"linear_solver": "magic"}, "no linear solver 'magic'.*schur"),
        ({"loss": "l1"}, "no loss called 'l1'.*huber"),
        ({"loss": 3}, "name, a function or a Loss"),
        ({"loss": "huber", "loss_scale": 0.0}, "scale of a loss"),
        ({"loss": Loss(LOSSES["huber"], block=2)}, "blocks of 2, but there are 13"),
        ({"method": "lm", "bounds": (0.0, 9.0)}, "knows no bounds|does not know bounds"),
        ({"max_seconds": -1.0}, "max_seconds"),
        ({"weights": [1.0, 2.0]}, "weights must be"),
        ({"weights": -1.0}, "weights must be"),
        ({"noise": 0.0}, "noise must be"),
        ({"noise": np.ones((2, 3))}, "noise must be"),
        ({"noise": -np.eye(13)}, "positive definite"),
        ({"scale": [1.0, 2.0]}, "scale has shape"),
        ({"scale": 0.0}, "scale must be"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(InvalidInputError, match=words):
        jc.least_squares(decay, [1.0, 1.0, 0.0], **settings)


# ---- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_bounds_against_scipy(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    m = n + int(rng.integers(0, 6))
    a, b = rng.standard_normal((m, n)), rng.standard_normal(m)
    lower = np.where(rng.random(n) < 0.7, -rng.random(n), -np.inf)
    upper = np.where(rng.random(n) < 0.7, rng.random(n), np.inf)

    def residual(x):
        return 2.0 * np.tanh(a @ x) + 0.3 * (a @ x) - b

    ours = jc.least_squares(residual, np.zeros(n), bounds=(lower, upper))
    theirs = scipy.optimize.least_squares(
        residual, np.zeros(n), jac=jc.jacobian(residual), bounds=(lower, upper), ftol=1e-15, xtol=1e-15, gtol=1e-15
    )
    assert ours.success
    assert ours.cost <= theirs.cost * (1.0 + 1e-10) + 1e-14
    assert (lower <= ours.x).all()
    assert (ours.x <= upper).all()
    # First-order conditions, exactly on the bounds.
    inward = np.where(ours.active_mask == 0, ours.grad, 0.0)
    np.testing.assert_allclose(inward, 0.0, atol=1e-9)
    assert (ours.grad[ours.active_mask == -1] > 0.0).all()
    assert (ours.grad[ours.active_mask == 1] < 0.0).all()
    np.testing.assert_array_equal(ours.x[ours.active_mask == -1], lower[ours.active_mask == -1])


def test_bounds_on_a_sparse_problem():
    lower = np.full(200, -0.5)
    result = jc.least_squares(broyden, np.full(200, -0.3), bounds=(lower, None))
    theirs = scipy.optimize.least_squares(
        broyden, np.full(200, -0.3), jac=jc.jacobian(broyden), bounds=(lower, np.inf), ftol=1e-14, xtol=1e-14
    )
    assert result.success
    assert result.cost == pytest.approx(theirs.cost, rel=1e-8)
    assert (result.x >= lower).all()


def test_bounds_far_away_change_nothing():
    free = jc.least_squares(decay, [1.0, 1.0, 0.0])
    bounded = jc.least_squares(decay, [1.0, 1.0, 0.0], bounds=(-1e6, 1e6))
    np.testing.assert_allclose(bounded.x, free.x, rtol=1e-12)
    assert not bounded.active_mask.any()


@pytest.mark.parametrize(
    "bounds",
    [
        {1: (0.9, None)},
        ([-np.inf, 0.9, -np.inf], None),
        scipy.optimize.Bounds([-np.inf, 0.9, -np.inf], [np.inf, np.inf, np.inf]),
    ],
)
def test_ways_to_write_bounds(bounds):
    result = jc.least_squares(decay, [1.0, 1.0, 0.0], bounds=bounds)
    assert result.x[1] == 0.9
    np.testing.assert_array_equal(result.active_mask, [0, -1, 0])
    assert "On their bounds: x[1]" in result.warnings[0]
    # The others are where a fit without that parameter has them.
    fixed = jc.least_squares(decay, [1.0, 0.9, 0.0], fixed=[1])
    np.testing.assert_allclose(result.x, fixed.x, rtol=1e-10)


def test_equal_bounds_fix_a_parameter():
    result = jc.least_squares(decay, [1.0, 0.3, 0.0], bounds=([-9.0, 0.6, -9.0], [9.0, 0.6, 9.0]))
    assert result.success
    assert result.x[1] == 0.6
    assert result.standard_errors[1] == 0.0
    assert result.names == ("x[0]", "x[2]")
    np.testing.assert_allclose(result.x, jc.least_squares(decay, [1.0, 0.6, 0.0], fixed=1).x, rtol=1e-10)


def test_start_on_a_bound_may_leave_it():
    result = jc.least_squares(decay, [1.0, 0.0, 0.0], bounds=([0.0, 0.0, 0.0], [9.0, 9.0, 9.0]))
    np.testing.assert_allclose(result.x, jc.least_squares(decay, [1.0, 1.0, 0.0]).x, rtol=1e-11)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (([0.0, 2.0, 0.0], [1.0, 1.0, 1.0]), r"bounds of x0\[1\] are crossed: 2.0 and 1.0"),
        (([0.0, np.nan, 0.0], None), r"bounds of x0\[1\] are not numbers"),
        ((None, [9.0, 0.5, 9.0]), r"x0\[1\] is 1.0, outside its bounds"),
        (([0.0, 1.0], None), "lower bounds have shape"),
        (3.0, "pair"),
        ({"rate": (0.0, 1.0)}, "no parameter 'rate'"),
    ],
)
def test_bad_bounds(bounds, words):
    with pytest.raises(InvalidInputError, match=words):
        jc.least_squares(decay, [1.0, 1.0, 0.0], bounds=bounds)


# ---- losses ----------------------------------------------------------------------------------------------------------

OUTLIERS = Y.copy()
OUTLIERS[[3, 8]] += np.array([2.0, -3.0])


def with_outliers(p):
    return p[0] * np.exp(-p[1] * T) + p[2] - OUTLIERS


@pytest.mark.parametrize("loss", ["huber", "soft_l1", "cauchy", "arctan"])
@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_losses_against_scipy(loss, scale):
    start = [3.0, 0.7, 0.5]
    ours = jc.least_squares(with_outliers, start, loss=loss, loss_scale=scale)
    theirs = scipy.optimize.least_squares(
        with_outliers, start, jac=jc.jacobian(with_outliers), loss=loss, f_scale=scale, ftol=1e-15, xtol=1e-15
    )
    assert ours.success, ours.message
    assert ours.cost == pytest.approx(theirs.cost, rel=1e-10)
    # SciPy judges by the cost, which has half the digits of x; the gradient tells who is nearer.
    np.testing.assert_allclose(ours.x, theirs.x, atol=1e-6)
    np.testing.assert_allclose(ours.grad, 0.0, atol=1e-9)
    np.testing.assert_allclose(ours.fun, with_outliers(ours.x), atol=1e-14)


def test_tukey_forgets_outliers():
    keep = np.ones(13, dtype=bool)
    keep[[3, 8]] = False
    start = jc.least_squares(with_outliers, [3.0, 0.7, 0.5], loss="huber", loss_scale=0.1).x
    result = jc.least_squares(with_outliers, start, loss="tukey", loss_scale=0.5)
    assert result.success
    weights = Loss(LOSSES["tukey"], 0.5).weights(result.fun)
    assert (weights[~keep] == 0.0).all()
    # At the minimum the weighted residuals of the others are orthogonal to their columns of the Jacobian.
    jacobian = jc.jacobian(with_outliers)(result.x)
    np.testing.assert_allclose((weights * result.fun) @ jacobian, 0.0, atol=1e-9)


def test_loss_of_ones_own_needs_no_derivatives():
    geman = jc.least_squares(with_outliers, [3.0, 0.7, 0.5], loss=lambda z: z / (1.0 + z), loss_scale=0.5)
    assert geman.success
    r = with_outliers(geman.x)
    weights = 1.0 / (1.0 + (r / 0.5) ** 2) ** 2
    np.testing.assert_allclose((weights * r) @ jc.jacobian(with_outliers)(geman.x), 0.0, atol=1e-9)
    assert geman.cost == pytest.approx(0.5 * 0.25 * np.sum((r / 0.5) ** 2 / (1.0 + (r / 0.5) ** 2)), rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("kind", ["dense", "sparse", "ragged"])
def test_model_of_a_loss_has_the_gradient_and_curvature_of_the_cost(loss, block, kind):
    rng = np.random.default_rng(3)
    jacobian = rng.standard_normal((6, 3))
    if kind == "ragged":
        jacobian *= rng.random((6, 3)) < 0.6
    residual = 0.6 * rng.standard_normal(6)
    function = Loss(LOSSES[loss], scale=1.3, block=block)
    point = Linearization.of(residual, jacobian if kind == "dense" else sparse.csr_array(jacobian))
    model = function.robustified(point)

    def cost(p):
        return function.cost(residual + jacobian @ p)

    step, eye = 1e-4, np.eye(3)
    gradient = np.array([(cost(step * e) - cost(-step * e)) / (2.0 * step) for e in eye])
    np.testing.assert_allclose(model.gradient, gradient, atol=1e-7)
    assert model.cost == pytest.approx(cost(np.zeros(3)), rel=1e-14)
    hessian = np.array(
        [
            [
                (cost(step * (a + b)) - cost(step * (a - b)) - cost(step * (b - a)) + cost(-step * (a + b)))
                / (4.0 * step**2)
                for b in eye
            ]
            for a in eye
        ]
    )
    gram = model.gram()
    gram = gram if isinstance(gram, np.ndarray) else gram.toarray()
    # Where no block is so far out that its curvature is held up, the model's curvature is the cost's.
    z = np.sum((residual.reshape(-1, block) / 1.3) ** 2, axis=1)
    if loss == "huber" or z.max() < 0.15:
        return
    if not _held_up(loss, z):
        np.testing.assert_allclose(gram, hessian, atol=2e-5)


def _held_up(loss, z):
    function, step = LOSSES[loss], 1e-4
    first = (function(z + step) - function(z - step)) / (2.0 * step)
    second = (function(z + step) - 2.0 * function(z) + function(z - step)) / step**2
    counts = first > 1e-6
    return bool((1.0 + 2.0 * z[counts] * second[counts] / first[counts] < 0.11).any() or not counts.all())


def test_blocks_count_as_one_residual():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((20, 2))
    points[:3] += 30.0
    result = jc.least_squares(lambda c: points - c, np.zeros(2), loss=Loss(LOSSES["huber"], 0.5, block=2))
    distance = np.linalg.norm(points - result.x, axis=1)
    weights = np.minimum(1.0, 0.5 / distance)
    np.testing.assert_allclose(result.x, weights @ points / weights.sum(), rtol=1e-9)


# ---- weights and noise -----------------------------------------------------------------------------------------------


def test_weights_and_noise_against_closed_forms():
    rng = np.random.default_rng(1)
    design, target = rng.standard_normal((9, 2)), rng.standard_normal(9)
    root = np.tril(rng.standard_normal((9, 9))) + 3.0 * np.eye(9)
    covariance = root @ root.T

    def line(p):
        return design @ p - target

    weights = rng.random(9) + 0.1
    weighted = jc.least_squares(line, np.zeros(2), weights=weights)
    gram = design.T @ (weights[:, None] * design)
    np.testing.assert_allclose(weighted.x, np.linalg.solve(gram, design.T @ (weights * target)), rtol=1e-11)
    sigma = jc.least_squares(line, np.zeros(2), noise=1.0 / np.sqrt(weights))
    np.testing.assert_allclose(sigma.x, weighted.x, rtol=1e-11)
    full = jc.least_squares(line, np.zeros(2), noise=covariance)
    inverse = np.linalg.inv(covariance)
    expected = np.linalg.solve(design.T @ inverse @ design, design.T @ inverse @ target)
    np.testing.assert_allclose(full.x, expected, rtol=1e-10)
    np.testing.assert_allclose(
        full.covariance / full.residual_variance, np.linalg.inv(design.T @ inverse @ design), rtol=1e-9
    )


def test_scale_given_by_hand():
    result = jc.least_squares(decay, [1.0, 1.0, 0.0], scale=[2.0, 0.5, 1.0])
    np.testing.assert_allclose(result.x, jc.least_squares(decay, [1.0, 1.0, 0.0]).x, rtol=1e-11)
    assert GaussNewton().control.first(None, 1.0) == 1.0
