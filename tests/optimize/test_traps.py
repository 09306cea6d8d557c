"""What other optimisers have been seen to get wrong, in every verb that could."""

import numpy as np
import pytest
import scipy.optimize

import jacana as jc
from jacana.errors import InvalidInputError
from jacana.optimize import (
    Dogleg,
    GaussNewton,
    LevenbergMarquardt,
    Minimum,
    Newton,
    NewtonLineSearch,
    NewtonMinimum,
    Outcome,
    Problem,
    Reflective,
    SubspaceDogleg,
)

T = np.linspace(0.0, 3.0, 13)
Y = 3.0 * np.exp(-0.7 * T) + 0.5 + 0.05 * np.sin(17.0 * np.arange(13))
START = np.array([1.0, 1.0, 0.0])
METHODS = [LevenbergMarquardt(), Dogleg(), SubspaceDogleg(), GaussNewton(), Reflective()]


def decay(p):
    return p[0] * np.exp(-p[1] * T) + p[2] - Y


def curve(t, height, rate, floor):
    return height * np.exp(-rate * t) + floor


def square(x):
    return x**2 - np.array([4.0, 9.0])


def cost(p):
    return 0.5 * np.sum(decay(p) ** 2)


def searched(method, problem, start):
    with np.errstate(all="ignore"):
        state = method.init(problem, np.asarray(start, dtype=float))
        while (outcome := method.terminate(state)) is None:
            state = method.step(problem, state)
    return outcome, state


# ---- an all-NaN Jacobian reported as success -------------------------------------------------------------------------


def no_derivative(x):
    """Finite, with a derivative that is NaN everywhere: 0 times the infinite derivative of sqrt at 0."""
    return np.sqrt(x - x) + 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: jc.least_squares(no_derivative, [1.0, 2.0]),
        lambda: jc.least_squares(no_derivative, [1.0, 2.0], bounds=(0.0, 9.0)),
        lambda: jc.curve_fit(lambda t, a: no_derivative(a * t), T, Y),
        lambda: jc.Model(lambda t, a=1.0: no_derivative(a * t)).fit(T, Y),
        lambda: jc.root(no_derivative, [1.0, 2.0]),
        lambda: jc.fixed_point(no_derivative, [1.5, 2.0]),
        lambda: jc.minimize(lambda x: np.sum(no_derivative(x)), [1.0, 2.0]),
    ],
)
def test_a_jacobian_of_nan_is_an_error_that_names_the_entry(call):
    with pytest.raises(InvalidInputError, match=r"derivative of \w+ entry 0.*(nan|inf) at the start"):
        call()


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_a_jacobian_that_becomes_nan_is_no_success(method):
    def linearise(x):
        jacobian = jc.jacobian(decay)(x)
        return decay(x), jacobian if np.array_equal(x, START) else np.full_like(jacobian, np.nan)

    problem = Problem(decay, linearise, lower=np.full(3, -9.0), upper=np.full(3, 9.0))
    outcome, state = searched(method, problem, START)
    assert outcome <= 0 and state.refused_values > 0
    np.testing.assert_array_equal(state.x, START)


def test_a_hessian_that_becomes_nan_is_no_success():
    def hessian(x):
        return np.eye(3) if np.array_equal(x, START) else np.full((3, 3), np.nan)

    outcome, state = searched(NewtonMinimum(), Minimum(jc.value_and_grad(cost), hessian), START)
    assert outcome <= 0 and state.refused_values > 0


# ---- a Jacobian of the wrong sign reported as success ----------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_a_jacobian_of_the_wrong_sign_is_no_success(method):
    problem = Problem(
        decay, lambda x: (decay(x), -jc.jacobian(decay)(x)), lower=np.full(3, -9.0), upper=np.full(3, 9.0)
    )
    assert searched(method, problem, START)[0] <= 0


@pytest.mark.parametrize("method", [Newton(), NewtonLineSearch()])
def test_a_root_with_the_wrong_sign_is_no_success(method):
    problem = Problem(square, lambda x: (square(x), -np.diag(2.0 * x)))
    assert searched(method, problem, [1.0, 1.0])[0] <= 0


def test_a_gradient_of_the_wrong_sign_is_no_success():
    first, second = jc.value_and_grad(cost), jc.hessian(cost)
    wrong = Minimum(lambda x: (first(x)[0], -first(x)[1]), second)
    assert searched(NewtonMinimum(), wrong, START)[0] <= 0


# ---- lb == ub refused instead of fixing the parameter ----------------------------------------------------------------


def test_equal_bounds_fix_a_parameter():
    lower, upper = np.array([-9.0, -9.0, 0.4]), np.array([9.0, 9.0, 0.4])
    start = np.array([1.0, 1.0, 0.4])
    fixed = jc.least_squares(decay, start, fixed=2)
    bounded = jc.least_squares(decay, start, bounds=(lower, upper))
    assert bounded.success and bounded.x[2] == 0.4
    np.testing.assert_allclose(bounded.x, fixed.x, rtol=1e-9)
    np.testing.assert_allclose(jc.curve_fit(curve, T, Y, start, bounds=(lower, upper))[0], fixed.x, rtol=1e-9)
    least = jc.minimize(cost, start, bounds=(lower, upper))
    assert least.success and least.x[2] == 0.4
    np.testing.assert_allclose(least.x, fixed.x, rtol=1e-9)
    model = jc.Model(curve, bounds={"floor": (0.4, 0.4)})
    found = model.fit(T, Y, start={"height": 1.0, "rate": 1.0, "floor": 0.0})
    np.testing.assert_allclose(list(found.values.values()), fixed.x, rtol=1e-9)


# ---- one NaN at a trial point aborting everything --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lm", "dogleg", "subspace-dogleg", "gauss-newton", "trf", "lm-geodesic"])
def test_a_trial_that_is_nan_is_refused_and_the_fit_goes_on(method):
    def residual(x):
        return np.log(x) - np.log(np.array([0.2, 3.0])) + 0.01 * (x - 1.0)

    result = jc.least_squares(residual, [9.0, 9.0], method=method)
    assert result.success and result.nrefused > 0
    assert any("not finite" in warning for warning in result.warnings)


def test_a_trial_that_is_nan_is_refused_by_roots_and_minima():
    found = jc.root(lambda x: np.log(x - 1.0) + 1.0, [5.0])
    assert found.success and found.nrefused > 0
    least = jc.minimize(lambda x: np.sum(np.log(x) ** 2), [3.0, 4.0])
    assert least.success and least.nrefused > 0


def test_one_lane_that_is_nan_does_not_disturb_the_others():
    data = np.stack([Y, np.full(13, np.nan), 2.0 * Y])
    fits = jc.fit_batch(lambda p, y: p[0] * np.exp(-p[1] * T) + p[2] - y, np.ones((3, 3)), args=(data,))
    assert fits.success.tolist() == [True, False, True]
    np.testing.assert_allclose(fits.x[2], fits.x[0] * [2.0, 1.0, 2.0], rtol=1e-6)


# ---- read-only arrays refused ----------------------------------------------------------------------------------------


def locked(array):
    array = np.array(array, dtype=float)
    array.setflags(write=False)
    return array


def test_read_only_arrays_are_taken_and_left_alone():
    start, t, y, sigma = locked(START), locked(T), locked(Y), locked(np.full(13, 0.1))
    bounds = (locked(np.full(3, -9.0)), locked(np.full(3, 9.0)))
    expected = jc.least_squares(decay, START).x
    for method in ("lm", "dogleg", "trf"):
        np.testing.assert_allclose(jc.least_squares(decay, start, method=method).x, expected, rtol=1e-9)
    fits = [
        jc.least_squares(decay, start, bounds=bounds, weights=locked(np.ones(13)), scale=locked(np.ones(3))).x,
        jc.curve_fit(curve, t, y, start, sigma=sigma, bounds=bounds)[0],
        list(
            jc.Model(curve).fit(t, y, start=dict(zip(("height", "rate", "floor"), START, strict=True))).values.values()
        ),
        jc.minimize(cost, start, bounds=bounds).x,
        jc.fit_batch(lambda p, y: p[0] * np.exp(-p[1] * T) + p[2] - y, start[None], args=(y[None],)).x[0],
    ]
    for fit in fits:
        np.testing.assert_allclose(fit, expected, rtol=1e-6)
    np.testing.assert_allclose(jc.root(square, locked([1.0, 1.0])).x, [2.0, 3.0], rtol=1e-14)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_read_only_jacobians_are_taken(method):
    problem = Problem(
        lambda x: locked(decay(x)),
        lambda x: (locked(decay(x)), locked(jc.jacobian(decay)(x))),
        lower=locked(np.full(3, -9.0)),
        upper=locked(np.full(3, 9.0)),
    )
    outcome, state = searched(method, problem, START)
    assert outcome > 0
    np.testing.assert_allclose(state.x, jc.least_squares(decay, START).x, rtol=1e-8)


def test_read_only_matrices_of_roots_and_minima_are_taken():
    root = Problem(square, lambda x: (locked(square(x)), locked(np.diag(2.0 * x))))
    outcome, state = searched(Newton(), root, [1.0, 1.0])
    assert outcome == Outcome.WORKING_PRECISION or outcome == Outcome.GRADIENT
    np.testing.assert_allclose(state.x, [2.0, 3.0])
    first, second = jc.value_and_grad(cost), jc.hessian(cost)
    problem = Minimum(lambda x: (first(x)[0], locked(first(x)[1])), lambda x: locked(second(x)))
    assert searched(NewtonMinimum(), problem, START)[0] > 0


# ---- a kept recording that does not see what its function reads ------------------------------------------------------

FACTOR = 2.0


class Holder:
    factor = 2.0

    def residual(self, p):
        return p[0] * T + p[1] * self.factor - Y

    def curve(self, t, a, b):
        return a * t + b * self.factor

    def equation(self, p):
        return p * self.factor - 1.0

    def cost(self, p):
        return (p[0] * self.factor - 1.0) ** 2


def global_residual(p):
    return p[0] * T + p[1] * FACTOR - Y


def global_curve(t, a, b):
    return a * t + b * FACTOR


def test_what_a_function_reads_may_change_between_fits(monkeypatch):
    holder = Holder()
    fit, other = jc.LeastSquares(holder.residual), jc.LeastSquares(global_residual)
    tied = jc.LeastSquares(lambda p: p["a"] * T + p["b"] - Y, ties={"b": lambda p: p["c"] * FACTOR})
    solve, least = jc.optimize.Root(holder.equation), jc.optimize.Minimizer(holder.cost)
    model, plain = jc.Model(holder.curve), jc.Model(global_curve)
    start = {"a": 1.0, "b": 1.0}

    def answers():
        return np.array(
            [
                fit([1.0, 1.0]).x[1],
                other([1.0, 1.0]).x[1],
                float(tied({"a": 1.0, "b": 0.0, "c": 1.0}).x["c"]),
                jc.curve_fit(holder.curve, T, Y)[0][1],
                jc.curve_fit(global_curve, T, Y)[0][1],
                model.fit(T, Y, start=start).values["b"],
                plain.fit(T, Y, start=start).values["b"],
                solve([1.0]).x[0],
                least([1.0]).x[0],
            ]
        )

    first = answers()
    np.testing.assert_allclose(first[:7], first[0], rtol=1e-9)
    np.testing.assert_allclose(first[7:], 0.5, rtol=1e-9)
    holder.factor = 4.0
    monkeypatch.setitem(globals(), "FACTOR", 4.0)
    np.testing.assert_allclose(answers(), first / 2.0, rtol=1e-9)


def test_huge_and_tiny_values():
    for factor in (1e200, 1e-200):
        found = jc.root(lambda x, factor=factor: factor * (x**2 - 2.0), [1.0])
        assert found.success and found.x[0] == pytest.approx(np.sqrt(2.0), rel=1e-15)
        least = jc.minimize(lambda x, factor=factor: factor * np.sum((x - 2.0) ** 2 + x**4), [1.0, 5.0])
        assert least.success
        np.testing.assert_allclose(least.x, 0.8351223484813665, rtol=1e-12)


def test_a_maximum_on_the_constraint_is_no_success():
    circle = jc.optimize.Constraint(lambda x: x @ x, 4.0, 4.0)
    for start in ([0.1, 0.1], [1.0, -0.5]):
        found = jc.minimize(lambda x: x[0] + x[1], start, constraints=circle)
        assert not found.success or found.fun == pytest.approx(-np.sqrt(8.0), rel=1e-12)


def test_what_the_function_does_not_depend_on_stays():
    found = jc.minimize(lambda x: (x[0] - 1.0) ** 2 + 0.0 * x[1], [5.0, 2.0])
    assert found.success
    np.testing.assert_array_equal(found.x, [1.0, 2.0])


@pytest.mark.parametrize("method", [None, "dogleg", "gauss-newton", "lm-geodesic", "trf"])
def test_a_column_of_rounding_errors_at_the_start(method):
    # Angles turn a tool that is at 0 at the start: the last one's column is 1e-17 there, and no measure of anything.
    rng = np.random.default_rng(1)
    joints = rng.uniform(-2.0, 2.0, (30, 2))

    def tip(p, joints):
        first, second = joints[:, 0] + 0.3, joints[:, 1] + p[0]
        arm = np.stack((np.cos(first), np.sin(first)), axis=1) * p[1]
        c, s = np.cos(first + second), np.sin(first + second)
        lever = (0.1 + 0.2) - 0.3 + p[2]  # 5.6e-17 where p[2] is 0
        return arm + np.stack((c, s), axis=1) * lever

    true = np.array([0.4, 1.5, 0.2])
    measured = tip(true, joints)
    start = np.array([0.0, 1.0, 0.0])
    assert 0.0 < abs(jc.jacobian(lambda p: np.ravel(tip(p, joints)))(start)[:, 0]).max() < 1e-15
    fit = jc.least_squares(lambda p: tip(p, joints) - measured, start, method=method)
    assert fit.success
    np.testing.assert_allclose(fit.x, true, rtol=1e-9)


def test_a_column_that_is_small_for_its_units_counts():
    t = np.linspace(0.0, 5e-9, 20)  # seconds
    true = np.array([1.0, 3e8, -4e16])
    fit = jc.least_squares(
        lambda p: p[0] + p[1] * t + p[2] * t**2 - (true[0] + true[1] * t + true[2] * t**2), np.zeros(3)
    )
    assert (fit.rank, fit.warnings) == (3, ())
    np.testing.assert_allclose(fit.x, true, rtol=1e-9)


# ---- what users of SciPy write ---------------------------------------------------------------------------------------


def test_bounds_as_pairs_for_each_parameter():
    def far(x):
        return np.sum((x - 2.0) ** 2)

    for bounds, expected in (
        ([(0.0, 1.0), (None, None)], [1.0, 2.0]),
        ([(0.0, 1.0), (3.0, 4.0)], [1.0, 3.0]),
        (([0.0, 3.0], [1.0, 4.0]), [1.0, 3.0]),
        (([0.0, None], [1.0, None]), [1.0, 2.0]),
    ):
        start = [0.5, 3.5]
        if isinstance(bounds, list):
            np.testing.assert_allclose(scipy.optimize.minimize(far, start, bounds=bounds).x, expected, atol=1e-6)
        np.testing.assert_allclose(jc.minimize(far, start, bounds=bounds).x, expected, rtol=1e-9)
    three = jc.minimize(far, np.zeros(3), bounds=[(0.0, 1.0), (None, 5.0), (-1.0, None)])
    np.testing.assert_allclose(three.x, [1.0, 2.0, 2.0], rtol=1e-9)
    # Least squares has a pair of sides, as SciPy's has.
    fit = jc.least_squares(lambda x: x - 2.0, [0.5, 3.5], bounds=([0.0, 3.0], [1.0, None]))
    np.testing.assert_allclose(fit.x, [1.0, 3.0], rtol=1e-9)


def test_bounds_that_are_not_numbers():
    with pytest.raises(InvalidInputError, match=r"bounds of x0\[1\] are not numbers: nan and 5.0"):
        jc.least_squares(lambda x: x, [1.0, 2.0], bounds=([0.0, np.nan], 5.0))


@pytest.mark.parametrize(
    ("verb", "keyword", "words"),
    [
        (jc.least_squares, "jac", "leave it out"),
        (jc.least_squares, "max_nfev", "write max_evaluations"),
        (jc.least_squares, "x_scale", "scale"),
        (jc.least_squares, "nonsense", "unexpected keyword argument 'nonsense'$"),
        (jc.root, "jac", "leave it out"),
        (jc.minimize, "tol", "write gtol or xtol"),
        (jc.minimize, "options", "max_iterations"),
    ],
)
def test_keywords_that_there_are_not(verb, keyword, words):
    with pytest.raises(TypeError, match=words):
        verb(lambda x: x - 1.0, [1.0], **{keyword: 1})


def test_one_argument_without_a_tuple():
    y = np.array([1.0, 2.0])
    np.testing.assert_allclose(jc.least_squares(lambda x, y: x - y, [0.0, 0.0], args=y).x, y)
    np.testing.assert_allclose(jc.root(lambda x, y: x - y, [0.0, 0.0], args=y).x, y)
    np.testing.assert_allclose(jc.minimize(lambda x, a: np.sum((x - a) ** 2), [0.0], args=3.0).x, 3.0)
    np.testing.assert_allclose(jc.fixed_point(lambda x, a: np.sqrt(a * x), 1.0, args=3.0).x, 3.0)


def test_a_residual_without_a_return():
    with pytest.raises(InvalidInputError, match="returned None"):
        jc.least_squares(lambda x: None, [1.0])


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: jc.least_squares(lambda x: x, [1.0], method="dogbox"), "with bounds 'trf', without them 'dogleg'"),
        (lambda: jc.least_squares(lambda x: x, [1.0], method="LM"), "write 'lm'"),
        (lambda: jc.root(lambda x: x, [1.0], method="lm"), "jacana.least_squares"),
        (lambda: jc.root(lambda x: x, [1.0], method="broyden1"), "'krylov'"),
        (lambda: jc.fixed_point(np.cos, 1.0, method="del2"), "anderson, iteration .*'newton' converges as fast"),
        (lambda: jc.minimize(lambda x: x @ x, [1.0], method="Nelder-Mead"), "without derivatives"),
    ],
)
def test_methods_of_other_packages_are_translated(call, hint):
    with pytest.raises(InvalidInputError, match=hint):
        call()


@pytest.mark.parametrize("start", [np.array([1, 2], dtype=object), np.array([True, False]), True])
def test_starts_that_are_no_numbers_say_what_to_do(start):
    with pytest.raises(InvalidInputError, match=r"dtype (object|bool); np.asarray\(array, dtype=float\)"):
        jc.least_squares(lambda x: x, start)


# ---- accepted and not obeyed -----------------------------------------------------------------------------------------


def test_a_covariance_that_is_not_symmetric_is_refused():
    noise = np.eye(13)
    noise[2, 1] = 0.5
    with pytest.raises(InvalidInputError, match=r"not symmetric: entry \[1, 2\] is 0.0, entry \[2, 1\] is 0.5"):
        jc.least_squares(decay, START, noise=noise)
    with pytest.raises(InvalidInputError, match="not symmetric"):
        jc.curve_fit(curve, T, Y, START, sigma=noise)


def test_bounds_of_a_tied_parameter_are_refused():
    def residual(p):
        return np.stack([p["a"] - 1.0, p["b"] - 2.0])

    start, ties = {"a": 1.0, "b": 1.0}, {"b": lambda p: 2.0 * p["a"]}
    for bounds in ({"b": (0.0, 1.5)}, (0.0, 9.0)):
        with pytest.raises(InvalidInputError, match=r"x0\['b'\] is tied, so bounds cannot hold it"):
            jc.least_squares(residual, start, ties=ties, bounds=bounds)
    fit = jc.least_squares(residual, {"a": 0.5, "b": 1.0}, ties=ties, bounds={"a": (0.0, 0.7)})
    assert (fit.x["a"], fit.x["b"]) == (0.7, 1.4)


def test_a_square_is_not_linear():
    with pytest.raises(InvalidInputError, match=r"not linear in x0\['a'\]"):
        jc.least_squares(lambda p: p["a"] ** 2 * np.exp(-p["k"] * T) - Y, {"a": 0.0, "k": 1.0}, linear="a")
