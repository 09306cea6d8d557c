"""least_squares: certified answers, hard points, shapes of parameters, statistics, and what it must refuse."""

import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import scipy.optimize

import jacana as jc
from jacana.datasets import nist
from jacana.errors import InvalidInputError
from jacana.optimize import LeastSquares, LevenbergMarquardt, Outcome, Problem, flatten_parameters
from jacana.optimize.linear.dense import factorise
from jacana.optimize.norms import column_norms, euclidean_norm

T = np.linspace(0.0, 3.0, 13)
NOISE = 0.05 * np.sin(17.0 * np.arange(13))
Y = 3.0 * np.exp(-0.7 * T) + 0.5 + NOISE


def decay(p, t=T, y=Y):
    """Three parameters, thirteen residuals, a residual that is not zero at the solution."""
    return p[0] * np.exp(-p[1] * t) + p[2] - y


# ---- certified answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [1, 2])
@pytest.mark.parametrize("name", nist.names())
def test_nist_with_default_settings(name, start):
    problem = nist.load(name)
    result = jc.least_squares(problem.residual, problem.starts[start - 1])
    assert result.success, result.message
    assert nist.digits(result.x, problem.certified_values) > 9.0
    # Lanczos1's residual is 1e-13 beside data of order 1: its own rounding leaves three digits of its variance.
    needed = 2.5 if name == "Lanczos1" else 9.0
    assert nist.digits(result.standard_errors, problem.certified_standard_errors) > needed
    assert result.rank == problem.certified_values.size
    assert 2.0 * result.cost == pytest.approx(problem.certified_residual_sum_of_squares, rel=10.0**-needed)


# Minima of J. J. More, B. S. Garbow and K. E. Hillstrom, "Testing unconstrained optimization software",
# ACM TOMS 7(1), 1981, section 3; the sum of squares to the digits that the paper gives.

BARD_Y = np.array([0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39])
BARD_U = np.arange(1.0, 16.0)


def rosenbrock(x):
    return [10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]]


def freudenstein_roth(x):
    first = -13.0 + x[0] + ((5.0 - x[1]) * x[1] - 2.0) * x[1]
    return np.array([first, -29.0 + x[0] + ((x[1] + 1.0) * x[1] - 14.0) * x[1]])


def brown_badly_scaled(x):
    return np.array([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2.0])


def powell_badly_scaled(x):
    return np.array([1e4 * x[0] * x[1] - 1.0, np.exp(-x[0]) + np.exp(-x[1]) - 1.0001])


def jennrich_sampson(x):
    i = np.arange(1.0, 11.0)
    return 2.0 + 2.0 * i - (np.exp(i * x[0]) + np.exp(i * x[1]))


def bard(x):
    v = 16.0 - BARD_U
    return BARD_Y - (x[0] + BARD_U / (v * x[1] + np.minimum(BARD_U, v) * x[2]))


def powell_singular(x):
    tail = [math.sqrt(5.0) * (x[2] - x[3]), (x[1] - 2.0 * x[2]) ** 2, math.sqrt(10.0) * (x[0] - x[3]) ** 2]
    return [x[0] + 10.0 * x[1], *tail]


def brown_dennis(x):
    t = np.arange(1.0, 21.0) / 5.0
    return (x[0] + t * x[1] - np.exp(t)) ** 2 + (x[2] + x[3] * np.sin(t) - np.cos(t)) ** 2


def box(x):
    t = np.arange(1.0, 11.0) / 10.0
    return np.exp(-t * x[0]) - np.exp(-t * x[1]) - x[2] * (np.exp(-t) - np.exp(-10.0 * t))


def trigonometric(x):
    n = 6
    return n - np.sum(np.cos(x)) + np.arange(1.0, n + 1.0) * (1.0 - np.cos(x)) - np.sin(x)


@pytest.mark.parametrize(
    ("residual", "start", "minimum", "tolerance"),
    [
        (rosenbrock, [-1.2, 1.0], 0.0, 1e-28),
        (freudenstein_roth, [0.5, -2.0], 48.9842, 1e-4),
        (powell_badly_scaled, [0.0, 1.0], 0.0, 1e-26),
        (brown_badly_scaled, [1.0, 1.0], 0.0, 1e-20),
        (jennrich_sampson, [0.3, 0.4], 124.362, 1e-3),
        (bard, [1.0, 1.0, 1.0], 8.21487e-3, 1e-8),
        (box, [0.0, 10.0, 20.0], 0.0, 1e-26),
        (powell_singular, [3.0, -1.0, 0.0, 1.0], 0.0, 1e-50),
        (brown_dennis, [25.0, 5.0, -5.0, -1.0], 85822.2, 0.1),
        (trigonometric, np.full(6, 1.0 / 6.0), 0.0, 1e-3),
    ],
)
def test_more_garbow_hillstrom(residual, start, minimum, tolerance):
    result = jc.least_squares(residual, start)
    assert result.success, result.message
    assert 2.0 * result.cost == pytest.approx(minimum, abs=tolerance)


def test_first_order_conditions_hold_to_working_precision():
    result = jc.least_squares(decay, [1.0, 1.0, 0.0])
    assert result.optimality < 1e-14
    np.testing.assert_allclose(result.grad, result.jac.T @ result.fun, atol=1e-14)
    np.testing.assert_allclose(result.fun, decay(result.x), atol=1e-15)
    assert result.cost == pytest.approx(0.5 * result.fun @ result.fun, rel=1e-15)


def test_scipy_reaches_the_same_point():
    ours = jc.least_squares(decay, [1.0, 1.0, 0.0])
    theirs = scipy.optimize.least_squares(decay, [1.0, 1.0, 0.0], jac=jc.jacobian(decay), xtol=1e-15, ftol=1e-15)
    np.testing.assert_allclose(ours.x, theirs.x, rtol=1e-7)
    assert ours.cost <= theirs.cost * (1.0 + 1e-13)


# ---- shapes of the parameters ----------------------------------------------------------------------------------------


def test_dictionary_of_parameters():
    def residual(p):
        return p["height"] * np.exp(-p["line"][0] * T) + p["line"][1] - Y

    flat = jc.least_squares(decay, np.array([1.0, 1.0, 0.0]))
    result = jc.least_squares(residual, {"line": np.array([1.0, 0.0]), "height": 1.0})
    assert set(result.x) == {"line", "height"}
    assert result.x["line"].shape == (2,)
    assert np.shape(result.x["height"]) == ()
    np.testing.assert_allclose(result.x["height"], flat.x[0], rtol=1e-12)
    np.testing.assert_allclose(result.x["line"], flat.x[1:], rtol=1e-12)
    np.testing.assert_allclose(result.standard_errors["line"], flat.standard_errors[1:], rtol=1e-9)
    assert result.parameters.names("x") == ("x['height']", "x['line'][0]", "x['line'][1]")
    assert "x['line'][1] =" in str(result)


def test_matrix_in_a_tuple_and_a_matrix_of_residuals():
    rng = np.random.default_rng(0)
    a, w, c = rng.standard_normal((5, 2)), rng.standard_normal((2, 3)), rng.standard_normal(3)

    def residual(p):
        matrix, offset = p
        return np.tanh(a @ matrix + offset) - np.tanh(a @ w + c)

    result = jc.least_squares(residual, (np.zeros((2, 3)), np.zeros(3)))
    assert result.fun.shape == (15,)
    assert result.jac.shape == (15, 9)
    np.testing.assert_allclose(result.x[0], w, atol=1e-12)
    np.testing.assert_allclose(result.x[1], c, atol=1e-12)


def test_two_dimensional_array():
    target = np.arange(6.0).reshape(2, 3)
    result = jc.least_squares(lambda x: x.T - target.T, np.zeros((2, 3)))
    np.testing.assert_allclose(result.x, target, atol=1e-14)
    assert result.x.shape == (2, 3)


@pytest.mark.parametrize("start", [1.0, np.float64(1.0), np.array(1.0), 1])
def test_zero_dimensional_start(start):
    result = jc.least_squares(lambda x: x**3 - 8.0, start)
    assert np.shape(result.x) == ()
    assert float(result.x) == pytest.approx(2.0, abs=1e-14)
    assert result.jac.shape == (1, 1)


def test_list_of_numbers_is_a_vector():
    result = jc.least_squares(lambda x: 2.0 * x - np.array([2.0, 6.0]), [0, 1])
    np.testing.assert_allclose(result.x, [1.0, 3.0], rtol=1e-15)
    assert result.x.dtype == np.float64


def test_residual_may_be_a_structure():
    result = jc.least_squares(lambda x: {"a": x[0] - 1.0, "b": [x[1:] - 2.0, (x[0] + x[1]) * 0.0]}, np.zeros(3))
    np.testing.assert_allclose(result.x, [1.0, 2.0, 2.0], atol=1e-15)
    assert result.fun.shape == (4,)


def test_args_reach_the_residual():
    calls = []

    def residual(p, t, y):
        calls.append((t is T, y is Y))
        return decay(p, t, y)

    result = jc.least_squares(residual, [1.0, 1.0, 0.0], args=(T, Y))
    np.testing.assert_allclose(result.x, jc.least_squares(decay, [1.0, 1.0, 0.0]).x, rtol=1e-13)
    assert calls[0] == (True, True)


def test_start_is_read_only_and_stays_as_it_was():
    start = np.array([1.0, 1.0, 0.0])
    start.setflags(write=False)
    result = jc.least_squares(decay, start)
    assert result.success
    np.testing.assert_array_equal(start, [1.0, 1.0, 0.0])
    assert not np.shares_memory(result.x, start)


def test_float32_start_stays_float32():
    seen = set()

    def residual(p):
        seen.add(p.dtype)
        return p[0] * np.exp(-p[1] * T.astype(np.float32)) + p[2] - Y.astype(np.float32)

    result = jc.least_squares(residual, np.array([1.0, 1.0, 0.0], dtype=np.float32))
    assert seen == {np.dtype(np.float32)}
    assert result.x.dtype == np.float32
    assert result.success
    assert result.nit < 40
    np.testing.assert_allclose(result.x, jc.least_squares(decay, [1.0, 1.0, 0.0]).x, rtol=3e-6)


# ---- hard points -----------------------------------------------------------------------------------------------------


def test_refused_points_where_the_residual_is_nan():
    seen = []

    def residual(x):
        if isinstance(x, np.ndarray):
            seen.append(x[0])
        return np.stack([np.log(x[0]) + 3.0, 0.1 * (x[0] - 0.04)])

    result = jc.least_squares(residual, [2.0])
    assert result.success
    assert result.x[0] == pytest.approx(math.exp(-3.0), rel=1e-2)
    assert result.optimality < 1e-12
    assert np.isfinite(result.fun).all()


def by_hand(residual, jacobian):
    return Problem(residual=residual, linearise=lambda x: (residual(x), jacobian(x)))


def run(problem, start, **settings):
    solver = LevenbergMarquardt(**settings)
    with np.errstate(all="ignore"):
        state = solver.init(problem, np.asarray(start, dtype=float))
        states = [state]
        while (outcome := solver.terminate(state)) is None:
            state = solver.step(problem, state)
            states.append(state)
    return outcome, states


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_wild_trial_is_refused_and_the_region_shrinks(value):
    def residual(x):
        return np.where(x > -1.0, np.log(x), value) if x[0] > 0.0 else np.array([value])

    outcome, states = run(by_hand(residual, lambda x: np.array([[1.0 / x[0]]])), [5.0])
    refused = [(before, after) for before, after in pairwise(states) if not after.accepted]
    assert refused, "the first Gauss-Newton step from 5 goes to 5 - 5 log 5 < 0"
    for before, after in refused:
        assert after.trust <= 0.5 * before.trust
        assert after.norm == before.norm
        np.testing.assert_array_equal(after.x, before.x)
    assert outcome > 0
    assert states[-1].x[0] == pytest.approx(1.0, abs=1e-14)


def test_jacobian_that_is_nan_everywhere_but_at_the_start_is_no_success():
    start = np.array([3.0])
    problem = by_hand(lambda x: x**2, lambda x: 2.0 * x[None] if x[0] == start[0] else np.array([[np.nan]]))
    outcome, states = run(problem, start)
    assert outcome == Outcome.NO_PROGRESS
    assert states[-1].x[0] == 3.0


def test_jacobian_of_the_wrong_sign_is_no_success():
    problem = by_hand(decay, lambda x: -jc.jacobian(decay)(x))
    outcome, _ = run(problem, [1.0, 1.0, 0.0])
    assert outcome == Outcome.NO_PROGRESS


def test_kink_is_no_success():
    result = jc.least_squares(lambda x: 1.0 + np.maximum(x - 0.3, 0.6 - 2.0 * x), [1.0])
    assert not result.success
    assert result.status == -1
    assert "kink" in result.message
    assert result.x[0] == pytest.approx(0.3, abs=1e-12)


def test_huge_and_tiny_residuals():
    plain = jc.least_squares(decay, [1.0, 1.0, 0.0])
    for factor in (1e200, 1e-200):
        result = jc.least_squares(lambda x, factor=factor: factor * decay(x), [1.0, 1.0, 0.0])
        assert result.status == 5
        np.testing.assert_allclose(result.x, plain.x, rtol=1e-12)


def test_units_of_the_parameters_do_not_matter():
    units = np.array([1e-9, 1e6, 1e3])
    plain = jc.least_squares(decay, [1.0, 1.0, 0.2])
    scaled = jc.least_squares(lambda x: decay(x / units), np.array([1.0, 1.0, 0.2]) * units)
    np.testing.assert_allclose(scaled.x / units, plain.x, rtol=1e-12)
    assert scaled.nit == pytest.approx(plain.nit, abs=2)
    assert scaled.condition == pytest.approx(plain.condition, rel=1e-8)


# ---- rank ------------------------------------------------------------------------------------------------------------


def test_linear_function_of_rank_one():
    # More, Garbow and Hillstrom 1981, problem 33: the minimum is m (m - 1) / (2 (2 m + 1)).
    m, n = 12, 5
    i, j = np.arange(1.0, m + 1.0), np.arange(1.0, n + 1.0)
    result = jc.least_squares(lambda x: i * (j @ x) - 1.0, np.ones(n))
    assert 2.0 * result.cost == pytest.approx(m * (m - 1) / (2.0 * (2.0 * m + 1.0)), rel=1e-13)
    assert result.rank == 1
    assert result.condition == math.inf
    assert result.success
    assert "rank 1 of 5" in result.message
    assert len(result.undetermined) == 5


def test_one_parameter_without_effect():
    result = jc.least_squares(lambda x: decay([x[0], x[1], x[3]]) + 0.0 * x[2], [1.0, 1.0, 7.0, 0.0])
    plain = jc.least_squares(decay, [1.0, 1.0, 0.0])
    np.testing.assert_allclose(result.x[[0, 1, 3]], plain.x, rtol=1e-12)
    assert result.x[2] == 7.0
    assert result.undetermined == ("x[2]",)
    assert "does not determine x[2]" in result.message
    assert result.degrees_of_freedom == plain.degrees_of_freedom
    np.testing.assert_allclose(result.standard_errors[[0, 1, 3]], plain.standard_errors, rtol=1e-9)
    assert result.standard_errors[2] == math.inf
    assert np.isnan(result.correlation[2]).all()


def test_two_parameters_that_only_their_sum_matters():
    result = jc.least_squares(lambda x: decay([x[0] + x[3], x[1], x[2]]), [0.25, 1.0, 0.0, 0.75])
    plain = jc.least_squares(decay, [1.0, 1.0, 0.0])
    assert result.success
    assert result.rank == 3
    assert result.undetermined == ("x[0]", "x[3]")
    assert result.x[0] + result.x[3] == pytest.approx(plain.x[0], rel=1e-10)
    assert result.x[3] - result.x[0] == pytest.approx(0.5, rel=1e-8), "no part along the void direction"
    np.testing.assert_array_equal(np.isfinite(result.standard_errors), [False, True, True, False])


def test_constant_residual():
    result = jc.least_squares(lambda x: np.array([1.0, 2.0]) + 0.0 * x[0], np.array([3.0, 4.0, 5.0]))
    assert result.rank == 0
    np.testing.assert_array_equal(result.x, [3.0, 4.0, 5.0])
    assert "rank 0 of 3" in result.message


def test_fewer_residuals_than_parameters():
    a = np.array([[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]])
    result = jc.least_squares(lambda x: a @ x - np.array([3.0, 1.0]), np.zeros(3))
    assert result.cost < 1e-28
    assert result.rank == 2
    assert result.success
    # The step of least scaled length: no part along the null space of A D^-1.
    scale = np.linalg.norm(a, axis=0)
    expected = np.linalg.pinv(a / scale) @ [3.0, 1.0] / scale
    np.testing.assert_allclose(result.x, expected, atol=1e-13)
    assert result.degrees_of_freedom == 0
    assert np.isnan(result.covariance).all()


def test_fewer_residuals_than_parameters_nonlinear():
    def residual(x):
        return np.stack([x @ x - 4.0, np.sin(x[0]) * x[1] - 0.5])

    result = jc.least_squares(residual, np.array([1.0, 0.5, 0.1, 1.0]))
    assert result.success
    assert result.cost < 1e-28


# ---- statistics and the result ---------------------------------------------------------------------------------------


def test_statistics_of_a_straight_line():
    result = jc.least_squares(lambda p: p[0] + p[1] * T - Y, [0.0, 0.0])
    design = np.stack([np.ones_like(T), T], axis=1)
    best = np.linalg.lstsq(design, Y)[0]
    variance = np.sum((Y - design @ best) ** 2) / (T.size - 2)
    covariance = variance * np.linalg.inv(design.T @ design)
    np.testing.assert_allclose(result.x, best, rtol=1e-13)
    np.testing.assert_allclose(result.covariance, covariance, rtol=1e-12)
    np.testing.assert_allclose(result.standard_errors, np.sqrt(np.diag(covariance)), rtol=1e-12)
    expected = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    np.testing.assert_allclose(result.correlation, [[1.0, expected], [expected, 1.0]], rtol=1e-12)
    assert result.condition == pytest.approx(np.linalg.cond(design / np.linalg.norm(design, axis=0)), rel=1e-12)
    assert result.residual_variance == pytest.approx(variance, rel=1e-13)


def test_result_serves_as_scipys():
    result = jc.least_squares(decay, [1.0, 1.0, 0.0])
    theirs = scipy.optimize.least_squares(decay, [1.0, 1.0, 0.0])
    names = {"x", "fun", "jac", "cost", "grad", "success", "status", "message", "nfev", "njev", "optimality"}
    assert names <= set(theirs.keys())
    assert names <= set(result.keys())
    for name in names:
        assert name in result
        assert type(result[name]) is type(getattr(result, name))
    assert dict(result)["nit"] == result.nit
    with pytest.raises(KeyError):
        result["history"]
    assert repr(result).startswith("<LeastSquaresResult converged: cost=")
    assert all(word in str(result) for word in ("Converged", "x[2] =", "+-", "rank 3 of 3", "10 degrees of freedom"))


def test_result_can_be_pickled():
    result = jc.least_squares(lambda p: p["a"] - np.ones(2), {"a": np.zeros(2)})
    copy = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(copy.x["a"], result.x["a"])
    assert str(copy) == str(result)


# ---- many fits of one residual ---------------------------------------------------------------------------------------


@pytest.fixture
def automatic():
    """Where machine code is asked for, the whole search is recorded as a program at once."""
    with jc.executor("auto"):
        yield


def test_many_starts_share_one_recording(automatic):
    recorded = []

    def residual(p, t, y):
        if isinstance(p, jc.Variable):
            recorded.append(p)
        return decay(p, t, y)

    fit = LeastSquares(residual)
    expected = jc.least_squares(decay, [1.0, 1.0, 0.0]).x
    lifted = expected + np.array([0.0, 0.0, 1.0])
    for start in ([1.0, 1.0, 0.0], [2.0, 0.5, 0.5], [5.0, 1.5, -1.0]):
        np.testing.assert_allclose(fit(start, args=(T, Y)).x, expected, rtol=1e-12)
    assert len(recorded) == 1
    other = Y + 1.0
    np.testing.assert_allclose(fit([1.0, 1.0, 0.0], args=(T, other)).x, lifted, rtol=1e-11)
    assert len(recorded) == 2
    single = fit(np.array([1.0, 1.0, 0.0], dtype=np.float32), args=(T, Y))
    assert single.x.dtype == np.float32
    with pytest.raises(IndexError):
        fit([1.0, 1.0], args=(T, Y))


def test_data_that_change_in_place_are_seen():
    y = Y.copy()
    fit = LeastSquares(lambda p: decay(p, T, y))
    before = fit([1.0, 1.0, 0.0]).x
    y += 1.0
    np.testing.assert_allclose(fit([1.0, 1.0, 0.0]).x, before + np.array([0.0, 0.0, 1.0]), rtol=1e-11)


# ---- tolerances, limits, callback ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "status"), [({"gtol": 1e-6}, 1), ({"ftol": 1e-12}, 2), ({"xtol": 1e-6}, 3)])
def test_tolerances_end_the_search_sooner(settings, status):
    full = jc.least_squares(decay, [1.0, 1.0, 0.0])
    result = jc.least_squares(decay, [1.0, 1.0, 0.0], **settings)
    assert result.status == status
    assert result.success
    assert result.nit < full.nit
    np.testing.assert_allclose(result.x, full.x, rtol=1e-4)


def test_iteration_limit():
    result = jc.least_squares(rosenbrock, [-1.2, 1.0], max_iterations=3)
    assert (result.nit, result.status, result.success) == (3, 0, False)
    assert "max_iterations" in result.message
    nothing = jc.least_squares(rosenbrock, [-1.2, 1.0], max_iterations=0)
    np.testing.assert_array_equal(nothing.x, [-1.2, 1.0])
    assert nothing.nfev == nothing.njev == 1


def test_callback_sees_every_trial():
    seen = []
    result = jc.least_squares(rosenbrock, [-1.2, 1.0], callback=seen.append)
    assert [progress.iteration for progress in seen] == list(range(1, result.nit + 1))
    costs = [progress.cost for progress in seen]
    assert costs == sorted(costs, reverse=True)
    assert any(not progress.accepted for progress in seen)
    assert seen[-1].nfev == result.nfev
    with pytest.raises(ValueError, match="read-only"):
        seen[0].flat[0] = 1.0


@pytest.mark.parametrize("polite", [True, False])
def test_callback_can_stop(polite):
    def callback(progress):
        assert progress.x["p"].shape == (2,)
        if progress.iteration == 4:
            if polite:
                return True
            raise StopIteration
        return None

    result = jc.least_squares(lambda x: rosenbrock(x["p"]), {"p": np.array([-1.2, 1.0])}, callback=callback)
    assert (result.nit, result.status, result.success) == (4, -2, False)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("residual", "start", "words"),
    [
        (decay, [1.0, np.nan, 0.0], r"x0\[1\] is nan"),
        (lambda p: p["a"], {"a": np.array([[0.0, np.inf]])}, r"x0\['a'\]\[0, 1\] is inf"),
        (decay, [1.0 + 1.0j, 0.0, 0.0], "real numbers.*complex"),
        (lambda p: p["a"], {"a": "b"}, "real numbers"),
        (decay, [], "nothing to fit"),
        (lambda x: x[:0], [1.0], "empty"),
        (lambda x: None, [1.0], "returned None"),
        (lambda x: x * 1j, [1.0], "complex"),
        (lambda x: np.log(x) * np.ones((2, 1)), [1.0, -2.0], r"residual\[0, 1\] is nan.*1 more.*x0\[1\] = -2"),
        (lambda x: {"u": x, "v": 1.0 / x[1]}, [1.0, 0.0], r"residual\['v'\] is inf"),
        (np.sqrt, [4.0, 0.0], r"residual entry 1 .* x0\[1\] is inf"),
        (lambda x: np.sqrt(x - 1.0), [1.0], r"1 of 1 entries of the Jacobian"),
    ],
)
def test_bad_input_names_the_culprit(residual, start, words):
    with pytest.raises(InvalidInputError, match=f"(?s){words}"):
        jc.least_squares(residual, start)


@pytest.mark.parametrize("settings", [{"ftol": -1.0}, {"xtol": np.nan}, {"gtol": np.inf}, {"max_iterations": -1}])
def test_bad_settings(settings):
    with pytest.raises(InvalidInputError, match=next(iter(settings))):
        jc.least_squares(decay, [1.0, 1.0, 0.0], **settings)


def test_errors_of_the_residual_pass_through():
    def residual(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        jc.least_squares(residual, [1.0])


# ---- the linear half -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 3), (3, 3), (2, 5), (1, 1), (4, 3)])
@pytest.mark.parametrize("fraction", [0.9, 0.1, 1e-4])
def test_damped_step_solves_the_augmented_system(shape, fraction):
    rng = np.random.default_rng(3)
    jacobian, r = rng.standard_normal(shape), rng.standard_normal(shape[0])
    scale = np.exp(rng.uniform(-5.0, 5.0, shape[1]))
    factors = factorise(jacobian, r, scale)
    assert factors.rank == min(shape)
    full = factors.within(np.inf)
    assert full.damping == 0.0
    expected = np.linalg.lstsq(jacobian / scale, -r)[0] / scale
    np.testing.assert_allclose(full.step, expected, rtol=1e-9)
    assert factors.decrement == pytest.approx(np.linalg.norm(jacobian @ expected), rel=1e-10)

    radius = fraction * full.length
    trial = factors.within(radius)
    assert 0.9 * radius <= trial.length <= 1.1 * radius
    assert trial.damping > 0.0
    augmented = np.concatenate([jacobian, np.sqrt(trial.damping) * np.diag(scale)])
    expected = np.linalg.lstsq(augmented, np.concatenate([-r, np.zeros(shape[1])]))[0]
    np.testing.assert_allclose(trial.step, expected, rtol=1e-8)
    assert trial.length == pytest.approx(np.linalg.norm(scale * expected), rel=1e-9)
    assert trial.linear_norm == pytest.approx(np.linalg.norm(jacobian @ expected), rel=1e-9)


@np.errstate(all="ignore")
def test_norms_of_any_magnitude():
    assert euclidean_norm(np.array([3e300, 4e300])) == pytest.approx(5e300, rel=1e-15)
    assert euclidean_norm(np.array([3e-300, 4e-300])) == pytest.approx(5e-300, rel=1e-15)
    assert euclidean_norm(np.zeros(2)) == 0.0
    assert math.isnan(euclidean_norm(np.array([1.0, np.nan])))
    assert euclidean_norm(np.array([1.0, -np.inf])) == math.inf
    matrix = np.array([[3e200, 3e-200, 0.0], [4e200, 4e-200, 0.0]])
    np.testing.assert_allclose(column_norms(matrix), [5e200, 5e-200, 0.0], rtol=1e-15)


def test_unravel_uses_slices_only():
    parameters, flat = flatten_parameters({"b": np.ones((2, 3)), "a": [1.0, np.float32(2.0)], "n": None})
    tree = parameters.unravel(flat)
    assert tree["n"] is None
    assert np.shares_memory(tree["b"], flat)
    assert np.shares_memory(tree["a"][1], flat)
    assert parameters.names()[:3] == ("x0['a'][0]", "x0['a'][1]", "x0['b'][0, 0]")


# ---- second derivatives ----------------------------------------------------------------------------------------------


def brown_dennis(x):
    t = np.arange(1.0, 21.0) / 5.0
    return (x[0] + t * x[1] - np.exp(t)) ** 2 + (x[2] + x[3] * np.sin(t) - np.cos(t)) ** 2


def test_a_large_and_curved_residual_is_left_to_newton():
    """Gauss-Newton steps converge linearly there, at a rate near one."""
    start = [25.0, 5.0, -5.0, -1.0]
    seen = []
    result = jc.least_squares(brown_dennis, start, callback=seen.append)
    alone = jc.least_squares(brown_dennis, start, method="lm")
    assert result.success and result.nfev < 50 < alone.nfev
    np.testing.assert_allclose(result.x, alone.x, rtol=1e-9)
    assert [progress.iteration for progress in seen] == list(range(1, result.nit + 1))
    assert result.history.cost.size == result.nit + 1
    assert (np.diff(result.history.cost) <= 1e-12 * result.cost).all()
    bounded = jc.least_squares(brown_dennis, start, bounds=(-30.0, [30.0, 13.0, 30.0, 30.0]))
    robust = jc.least_squares(brown_dennis, start, loss="soft_l1", loss_scale=100.0)
    for other in (bounded, robust):
        assert other.success and other.optimality < 1e-6
    assert bounded.x[1] == 13.0 and bounded.nfev < 60


def test_budgets_hold_across_methods():
    start = [25.0, 5.0, -5.0, -1.0]
    whole = jc.least_squares(brown_dennis, start)
    for most in range(1, whole.nfev):
        result = jc.least_squares(brown_dennis, start, max_evaluations=most)
        assert result.status == Outcome.EVALUATION_LIMIT or result.success
        assert result.nfev <= most + 1
    for most in range(whole.nit):
        result = jc.least_squares(brown_dennis, start, max_iterations=most)
        assert result.status == Outcome.ITERATION_LIMIT or result.success
        assert result.nit <= most
    stopped = jc.least_squares(brown_dennis, start, callback=lambda progress: progress.iteration == whole.nit - 4)
    assert stopped.status == Outcome.STOPPED and stopped.nit == whole.nit - 4


def test_a_vanishing_column_at_the_minimum():
    """x[1] counts by its square: at 0 its column is zero, and only second derivatives see the minimum."""

    def residual(x):
        return np.stack([x[0] - 1.0 + x[1] ** 2, x[0] + 1.0 + x[1] ** 2, 2.0 + 3.0 * x[1] ** 2])

    result = jc.least_squares(residual, [3.0, 0.8])
    assert result.success and result.optimality < 1e-6
    np.testing.assert_allclose(result.x, 0.0, atol=1e-7)
    assert result.cost == pytest.approx(3.0, rel=1e-14)


def test_a_residual_without_second_derivatives_goes_on_without_them():
    # Products of the Jacobian, which say nothing of their own derivatives.
    squared = jc.custom_operation(
        lambda x: x**2,
        jvp=lambda arrays, tangents: 2.0 * arrays[0] * tangents[0],
        vjp=lambda arrays, cotangent: (2.0 * arrays[0] * cotangent,),
        name="squared",
    )

    def residual(x):
        t = np.arange(1.0, 21.0) / 5.0
        return squared(x[0] + t * x[1] - np.exp(t)) + (x[2] + x[3] * np.sin(t) - np.cos(t)) ** 2

    start = [25.0, 5.0, -5.0, -1.0]
    result = jc.least_squares(residual, start)
    np.testing.assert_allclose(result.x, jc.least_squares(brown_dennis, start).x, rtol=1e-7)
    assert result.success


@pytest.mark.parametrize("wide", [1e6, 1e8, 1e12])
def test_bounds_that_are_far_away_change_nothing(wide):
    problem = nist.load("MGH10")
    start = problem.starts[0]
    free = jc.least_squares(problem.residual, start)
    within = jc.least_squares(problem.residual, start, bounds=(start - wide, start + wide))
    assert nist.digits(within.x, problem.certified_values) > 9
    assert within.nfev == free.nfev


def test_a_deficient_rank_within_bounds():
    """Only the sum of two parameters matters; steps are reflected all the same."""
    t = np.linspace(0.0, 1.0, 7)
    target = np.exp(-3.0 * t)
    for start in ([0.5, 0.5, 0.1], [0.2, 0.9, 0.9], [0.9, 0.1, 0.5]):
        fit = jc.least_squares(
            lambda p: (p[0] + p[1]) * np.exp(-10.0 * p[2] * t) - target, start, bounds=(0.0, [1.0, 1.0, 1.0])
        )
        assert fit.success and fit.x[0] + fit.x[1] == pytest.approx(1.0, rel=1e-8), fit
        assert fit.x[2] == pytest.approx(0.3, rel=1e-8)
