"""curve_fit against SciPy's, and Model: names, bands, what is refused."""

import math
import threading

import numpy as np
import pytest
import scipy.optimize
from scipy.special import chdtri, fdtri, ndtri, stdtrit

import jacana as jc
from jacana.datasets import nist
from jacana.errors import InvalidInputError

T = np.linspace(0.0, 3.0, 13)
Y = 3.0 * np.exp(-0.7 * T) + 0.5 + 0.05 * np.sin(17.0 * np.arange(13))
SIGMA = 0.03 + 0.02 * np.cos(np.arange(13.0)) ** 2


def decay(t, height, rate, floor):
    return height * np.exp(-rate * t) + floor


def covariance_matrix():
    k = np.arange(13)
    return 0.04**2 * 0.6 ** np.abs(k[:, None] - k)


# ---- curve_fit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("sigma", [None, 0.1, SIGMA, covariance_matrix()], ids=["none", "number", "vector", "matrix"])
@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (0.0, [4.0, 0.65, 2.0])], ids=["free", "bounded"])
def test_results_are_those_of_scipy(sigma, absolute, bounds):
    ours = jc.curve_fit(decay, T, Y, sigma=sigma, absolute_sigma=absolute, bounds=bounds, full_output=True)
    tight = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15}
    sigma = np.full(13, sigma) if np.isscalar(sigma) else sigma  # SciPy 1.17 fails on a number together with jac
    theirs = scipy.optimize.curve_fit(
        decay, T, Y, [2.0, 0.5, 1.0], sigma, absolute, bounds=bounds, full_output=True,
        jac=jc.scipy.curve_fit_jac(decay), **tight,
    )  # fmt: skip
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-7)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5)
    np.testing.assert_allclose(ours[2]["fvec"], theirs[2]["fvec"], rtol=0.0, atol=1e-6)
    assert ours[4] in (1, 2, 3, 4)
    assert isinstance(ours[3], str)


@pytest.mark.parametrize("name", nist.names())
def test_nist(name):
    """Certified values and standard errors, through positional parameters."""
    problem = nist.load(name)

    def model(x, *b):
        return problem.model(np.stack(b), x)

    y = np.log(problem.y) if problem.log_response else problem.y
    popt, pcov = jc.curve_fit(model, problem.x, y, problem.starts[1])
    assert nist.digits(popt, problem.certified_values) > 9.0
    needed = 2.5 if name == "Lanczos1" else 9.0
    assert nist.digits(np.sqrt(np.diag(pcov)), problem.certified_standard_errors) > needed


def test_the_factorisation_gives_the_covariance():
    """As SciPy's leastsq computes it from fjac and ipvt."""
    _, pcov, info, _, _ = jc.curve_fit(decay, T, Y, sigma=SIGMA, absolute_sigma=True, full_output=True)
    assert info["fjac"].shape == (3, 13)
    triangle = info["fjac"].T[:3]
    np.testing.assert_array_equal(triangle, np.triu(triangle))
    inverse = np.empty((3, 3))
    inverse[info["ipvt"]] = np.linalg.inv(triangle)
    np.testing.assert_allclose(inverse @ inverse.T, pcov, rtol=1e-9)
    np.testing.assert_allclose(info["qtf"], 0.0, atol=1e-9)
    assert info["nfev"] >= info["njev"] > 0


def test_start_without_p0():
    """1, or between the bounds, or one from the only bound: what SciPy does, seen through a search of no steps."""
    seen = []

    def model(t, a, b, c, d):
        seen.append([a, b, c, d])
        return a + b * t + c * t**2 + d * t**3

    bounds = ([-np.inf, 2.0, -np.inf, -3.0], [np.inf, 6.0, -5.0, np.inf])
    jc.curve_fit(model, T, Y, bounds=bounds)
    np.testing.assert_array_equal(seen[0], [1.0, 4.0, -6.0, -2.0])


def test_equal_bounds_fix():
    popt, pcov = jc.curve_fit(decay, T, Y, [1.0, 1.0, 0.4], bounds=([-9.0, -9.0, 0.4], [9.0, 9.0, 0.4]))
    other, covariance = scipy.optimize.curve_fit(lambda t, h, r: decay(t, h, r, 0.4), T, Y, ftol=1e-15, xtol=1e-15)
    np.testing.assert_allclose(popt, [*other, 0.4], rtol=1e-6)
    np.testing.assert_allclose(pcov[:2, :2], covariance, rtol=1e-5)
    np.testing.assert_array_equal(pcov[2], 0.0)


def test_bounds_object_and_loss():
    bounds = scipy.optimize.Bounds(0.0, [4.0, 0.65, 2.0])
    spoilt = Y.copy()
    spoilt[4] += 3.0
    options = {"loss": "soft_l1", "f_scale": 0.1}
    ours = jc.curve_fit(decay, T, spoilt, [2.0, 0.5, 1.0], bounds=bounds, **options)
    theirs = scipy.optimize.curve_fit(
        decay, T, spoilt, [2.0, 0.5, 1.0], bounds=bounds, ftol=1e-15, xtol=1e-15, gtol=1e-15, **options
    )
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)


def test_nan_policy():
    x, y = T.copy(), Y.copy()
    x[2], y[7] = np.nan, np.nan
    kept = ~(np.isnan(x) | np.isnan(y))
    for sigma in (None, SIGMA, covariance_matrix()):
        part = None if sigma is None else sigma[np.ix_(kept, kept)] if sigma.ndim == 2 else sigma[kept]
        ours = jc.curve_fit(decay, x, y, sigma=sigma, nan_policy="omit")
        expected = jc.curve_fit(decay, T[kept], Y[kept], sigma=part)
        np.testing.assert_allclose(ours[0], expected[0], rtol=1e-12)
        np.testing.assert_allclose(ours[1], expected[1], rtol=1e-9)
    with pytest.raises(ValueError, match=r"ydata\[7\] is nan"):
        jc.curve_fit(decay, T, y)
    with pytest.raises(ValueError, match=r"xdata\[2\] is nan"):
        jc.curve_fit(decay, x, Y, nan_policy="raise")
    with pytest.raises(InvalidInputError, match="every point"):
        jc.curve_fit(decay, T, np.full(13, np.nan), nan_policy="omit")


def test_several_predictors_and_data_of_two_axes():
    grid = np.stack(np.meshgrid(np.linspace(-1.0, 1.0, 5), np.linspace(0.0, 1.0, 3)))
    z = 2.0 * np.exp(-(grid[0] ** 2)) + 0.3 * grid[1]
    popt, _ = jc.curve_fit(lambda xy, a, b: a * np.exp(-(xy[0] ** 2)) + b * xy[1], grid, z)
    np.testing.assert_allclose(popt, [2.0, 0.3], rtol=1e-12)


def test_underdetermined_parameters_are_said():
    with pytest.warns(scipy.optimize.OptimizeWarning, match="could not be estimated"):
        _, pcov = jc.curve_fit(lambda t, a, b: a + b + t, T, Y)
    assert np.isinf(pcov).all()
    with pytest.warns(scipy.optimize.OptimizeWarning):
        popt, pcov = jc.curve_fit(lambda t, a, b: a + b * t, T[:2], Y[:2])
    np.testing.assert_allclose(popt[0] + popt[1] * T[:2], Y[:2], rtol=1e-12)
    assert np.isinf(pcov).all()


def test_data_are_not_remembered():
    """Fits of one curve share a recording, not their data."""
    first = jc.curve_fit(decay, T, Y, sigma=SIGMA)[0]
    data = 2.0 * Y
    second = jc.curve_fit(decay, T, data, sigma=SIGMA)[0]
    np.testing.assert_allclose(second, first * [2.0, 1.0, 2.0], rtol=1e-9)
    moved = jc.curve_fit(decay, T + 1.0, Y, sigma=SIGMA)[0]
    np.testing.assert_allclose(moved[1:], first[1:], rtol=1e-9)
    assert moved[0] == pytest.approx(first[0] * math.exp(first[1]), rel=1e-9)
    t = T.copy()
    jc.curve_fit(decay, t, Y)
    t += 1.0
    np.testing.assert_allclose(jc.curve_fit(decay, t, Y, sigma=SIGMA)[0], moved, rtol=1e-9)


def test_a_model_that_reads_outside_state_is_read_anew():
    offset = np.zeros(13)

    def model(t, a, b):
        return a + b * t + offset

    first = jc.curve_fit(model, T, Y)[0]
    offset += 1.0
    np.testing.assert_allclose(jc.curve_fit(model, T, Y)[0], first - [1.0, 0.0], rtol=1e-9)


def test_threads():
    expected = {k: jc.curve_fit(decay, T, k * Y)[0] for k in range(1, 5)}
    found = {}

    def fit(k):
        found[k] = [jc.curve_fit(decay, T, k * Y)[0] for _ in range(10)]

    threads = [threading.Thread(target=fit, args=(k,)) for k in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, answers in found.items():
        for answer in answers:
            np.testing.assert_allclose(answer, expected[k], rtol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((decay, T, []), {}, "must not be empty"),
        ((decay, T, Y), {"method": "cobyla"}, "method must be"),
        ((decay, T, Y), {"method": "lm", "bounds": (0.0, 1.0)}, "takes no bounds"),
        ((decay, T, Y), {"bounds": (0.0, [1.0, 2.0])}, "length 3"),
        ((decay, T, Y), {"p0": [1.0, 1.0, 5.0], "bounds": (0.0, 2.0)}, "outside its bounds"),
        ((decay, T, Y), {"sigma": SIGMA[:5]}, r"sigma has shape \(5,\)"),
        ((decay, T, Y), {"sigma": -SIGMA}, "above 0"),
        ((decay, T, Y), {"sigma": np.ones((13, 13))}, "not positive definite"),
        ((decay, T, Y), {"nan_policy": "propagate"}, "nan_policy"),
        ((decay, T, Y), {"tolerance": 1.0}, "no option 'tolerance'"),
        ((decay, T, Y[:5]), {}, r"returns shape \(13,\), but the data have shape \(5,\)"),
        ((decay, T, Y[:, None]), {}, r"returns shape \(13,\), but the data have shape \(13, 1\)"),
        ((decay, T, Y + 1j), {}, "complex"),
        ((decay, T, ["a"]), {}, "real numbers"),
        ((lambda t: t, T, Y), {}, "names no parameters"),
        ((lambda t, *p: p[0] * t, T, Y), {}, "names no parameters"),
        ((lambda t, a: np.log(a) + t, T, Y), {"p0": -1.0}, r"nan at the start"),
    ],
)
def test_what_is_refused(arguments, options, message):
    with np.errstate(all="ignore"), pytest.raises(InvalidInputError, match=message):
        jc.curve_fit(*arguments, **options)


def test_failure_is_an_error():
    with pytest.raises(RuntimeError, match="Optimal parameters not found"):
        jc.curve_fit(decay, T, Y, maxfev=2)


# ---- Model -----------------------------------------------------------------------------------------------------------

START = {"height": 1.0, "rate": 1.0, "floor": 0.0}


@pytest.fixture(scope="module")
def fit():
    return jc.Model(decay).fit(T, Y, start=START)


def by_hand(theta, x):
    """Derivatives of `decay` by its parameters, shape (M, 3)."""
    height, rate, _ = theta
    return np.stack([np.exp(-rate * x), -height * x * np.exp(-rate * x), np.ones_like(x)], axis=1)


def test_values_are_those_of_curve_fit(fit):
    popt, pcov = scipy.optimize.curve_fit(decay, T, Y, jac=jc.scipy.curve_fit_jac(decay), ftol=1e-15, xtol=1e-15)
    assert fit.names == ("height", "rate", "floor")
    np.testing.assert_allclose(list(fit.values.values()), popt, rtol=1e-7)
    np.testing.assert_allclose(fit.covariance, pcov, rtol=1e-6)
    np.testing.assert_allclose(list(fit.errors.values()), np.sqrt(np.diag(pcov)), rtol=1e-6)
    assert fit.success and "converged" in repr(fit).lower() and fit.message in str(fit)


@pytest.mark.parametrize("x", [None, np.array([-1.0, 0.4, 10.0])], ids=["data", "elsewhere"])
def test_bands(fit, x):
    at = T if x is None else x
    theta = np.array(list(fit.values.values()))
    rows = by_hand(theta, at)
    error = np.sqrt(np.einsum("ij,jk,ik->i", rows, fit.covariance, rows))
    np.testing.assert_allclose(fit.predict(x), decay(at, *theta), rtol=1e-12)
    np.testing.assert_allclose(fit.standard_error(x), error, rtol=1e-9)
    low, high = fit.confidence_band(x, 0.9)
    np.testing.assert_allclose((high - low) / 2, stdtrit(10, 0.95) * error, rtol=1e-9)
    np.testing.assert_allclose((high + low) / 2, fit.predict(x), rtol=1e-12)
    low, high = fit.confidence_band(x, 0.9, simultaneous=True)
    np.testing.assert_allclose((high - low) / 2, math.sqrt(3 * fdtri(3, 10, 0.9)) * error, rtol=1e-9)
    low, high = fit.prediction_band(x, 0.9)
    spread = np.sqrt(error**2 + fit.result.residual_variance)
    np.testing.assert_allclose((high - low) / 2, stdtrit(10, 0.95) * spread, rtol=1e-9)


def test_bands_of_a_line_are_those_of_the_textbook():
    """N. R. Draper and H. Smith, Applied Regression Analysis, 3rd edition, 1998, equations 1.4.8 and 3.1.7."""
    result = jc.Model(lambda t, a=0.0, b=0.0: a + b * t).fit(T, Y)
    slope, intercept = np.polyfit(T, Y, 1)
    s = math.sqrt(np.sum((Y - intercept - slope * T) ** 2) / 11)
    x = np.array([-2.0, 1.0, 7.0])
    share = 1.0 / 13.0 + (x - T.mean()) ** 2 / np.sum((T - T.mean()) ** 2)
    low, high = result.confidence_band(x)
    np.testing.assert_allclose((high - low) / 2, stdtrit(11, 0.975) * s * np.sqrt(share), rtol=1e-10)
    low, high = result.prediction_band(x)
    np.testing.assert_allclose((high - low) / 2, stdtrit(11, 0.975) * s * np.sqrt(1.0 + share), rtol=1e-10)


def test_coverage():
    """A 90 % band covers the true line in about 90 % of 400 experiments."""
    rng = np.random.default_rng(5)
    model = jc.Model(lambda t, a=0.0, b=0.0: a + b * t)
    covered = np.zeros((2, 2))
    for _ in range(400):
        result = model.fit(T, 1.0 + 2.0 * T + 0.3 * rng.standard_normal(13))
        for k, band in enumerate((result.confidence_band, result.prediction_band)):
            low, high = band(np.array([0.5, 4.0]), 0.9)
            truth = np.array([2.0, 9.0]) + k * 0.3 * rng.standard_normal(2)
            covered[k] += (low <= truth) & (truth <= high)
    np.testing.assert_allclose(covered / 400, 0.9, atol=0.045)  # three standard deviations of a share of 400


def test_absolute_sigma():
    loose = jc.Model(decay).fit(T, Y, start=START, sigma=SIGMA)
    result = jc.Model(decay).fit(T, Y, start=START, sigma=SIGMA, absolute_sigma=True)
    _, pcov = jc.curve_fit(decay, T, Y, sigma=SIGMA, absolute_sigma=True)
    np.testing.assert_allclose(result.covariance, pcov, rtol=1e-9)
    np.testing.assert_allclose(result.covariance * loose.result.residual_variance, loose.covariance, rtol=1e-9)
    error = result.standard_error()
    low, high = result.confidence_band()
    np.testing.assert_allclose((high - low) / 2, ndtri(0.975) * error, rtol=1e-10)
    low, high = result.confidence_band(simultaneous=True)
    np.testing.assert_allclose((high - low) / 2, math.sqrt(chdtri(3, 0.05)) * error, rtol=1e-10)
    low, high = result.prediction_band()
    np.testing.assert_allclose((high - low) / 2, ndtri(0.975) * np.sqrt(error**2 + SIGMA**2), rtol=1e-10)
    with pytest.raises(InvalidInputError, match="sigma for each point"):
        result.prediction_band(np.array([1.0]))
    low, high = result.prediction_band(np.array([1.0]), sigma=0.1)
    expected = ndtri(0.975) * np.sqrt(result.standard_error(np.array([1.0])) ** 2 + 0.01)
    np.testing.assert_allclose((high - low) / 2, expected, rtol=1e-10)
    low, high = result.confidence_intervals()["rate"]
    assert (high - low) / 2 == pytest.approx(ndtri(0.975) * math.sqrt(pcov[1, 1]), rel=1e-9)
    exact = jc.Model(lambda t, a=0.0, b=0.0: a + b * t).fit(T[:2], Y[:2], sigma=0.1, absolute_sigma=True)
    np.testing.assert_allclose(exact.standard_error(), 0.1, rtol=1e-9)  # no degree of freedom, yet known errors
    assert not exact.warnings


def test_profiles_belong_to_their_fit():
    """Fits of one model share arrays; a later fit must not change what an earlier one says."""
    model = jc.Model(decay)
    first = model.fit(T, Y, start=START)
    before = first.confidence_intervals(kind="profile")
    model.fit(T, 3.0 * Y + T, start=START)
    after = first.confidence_intervals(kind="profile")
    for name, interval in before.items():
        np.testing.assert_allclose(after[name], interval, rtol=1e-9)
    expected = jc.least_squares(lambda p: decay(T, *p) - Y, [1.0, 1.0, 0.0]).confidence_intervals(kind="profile")
    np.testing.assert_allclose(list(before.values()), list(expected.values()), rtol=1e-6)


def test_fixed_bounds_and_ties():
    model = jc.Model(decay, bounds={"rate": (0.0, 0.65)}, fixed={"floor": 0.4})
    result = model.fit(T, Y, start={"height": 1.0, "rate": 0.5})
    assert result.values["floor"] == 0.4 and result.errors["floor"] == 0.0
    assert result.names == ("height", "rate")
    assert result.values["rate"] <= 0.65
    wider = model.fit(T, Y, start={"height": 1.0, "rate": 0.5}, bounds={"rate": (0.0, None)}, fixed={"floor": 0.55})
    assert wider.values["rate"] > 0.65 and wider.values["floor"] == 0.55
    tied = jc.Model(decay).fit(T, Y, start={"height": 1.0, "rate": 0.5}, ties={"floor": lambda p: 3.5 - p["height"]})
    assert tied.values["height"] + tied.values["floor"] == pytest.approx(3.5, rel=1e-14)
    gap = np.abs(tied.standard_error(np.array([0.0])))  # at t = 0 the curve is height + floor, which is given
    np.testing.assert_allclose(gap, 0.0, atol=1e-12)


def test_arrays_and_several_variables():
    def surface(x, y, weights, tilt=0.0):
        return weights[0] * np.exp(-(x**2)) + weights[1] * x + tilt * y

    x, y = np.linspace(-1.0, 1.0, 9), np.cos(np.arange(9.0))
    z = 2.0 * np.exp(-(x**2)) - x + 0.3 * y
    model = jc.Model(surface, independent=2)
    result = model.fit((x, y), z, start={"weights": [1.0, 0.0]})
    np.testing.assert_allclose(result.values["weights"], [2.0, -1.0], rtol=1e-12)
    assert result.names == ("weights[0]", "weights[1]", "tilt")
    np.testing.assert_allclose(result.predict((1.0, 2.0)), 2.0 * math.exp(-1.0) - 1.0 + 0.6, rtol=1e-12)
    with pytest.raises(InvalidInputError, match="tuple of the model's 2"):
        result.predict(x)


def test_a_prediction_may_be_determined_where_parameters_are_not():
    result = jc.Model(lambda t, a=1.0, b=1.0, c=0.0: a + b + c * t).fit(T, Y)
    line = jc.Model(lambda t, a=1.0, c=0.0: a + c * t).fit(T, Y)
    x = np.array([0.5, 9.0])
    np.testing.assert_allclose(result.standard_error(x), line.standard_error(x), rtol=1e-9)
    assert "x['a'], x['b']" in result.warnings[0]
    local = jc.Model(lambda t, a=1.0, b=1.0: a + np.where(t > 3.5, b, 0.0)).fit(T, Y)
    error = local.standard_error(np.array([1.0, 4.0]))
    assert error[1] == np.inf
    assert error[0] == pytest.approx(np.std(Y, ddof=1) / math.sqrt(13), rel=1e-9)


def test_reuse_and_bad_arguments():
    model = jc.Model(decay)
    assert repr(model) == "<Model decay with parameters height, rate, floor>"
    assert model(0.0, 1.0, 2.0, floor=3.0) == 4.0
    for scale in (1.0, 2.0, 3.0):
        assert model.fit(T, scale * Y, start=START).values["rate"] == pytest.approx(0.68756822, rel=1e-6)
    with pytest.raises(InvalidInputError, match="no starting value for rate"):
        model.fit(T, Y, start={"height": 1.0, "floor": 0.0})
    with pytest.raises(InvalidInputError, match="start names 'heigth'"):
        model.fit(T, Y, start={"heigth": 1.0})
    with pytest.raises(InvalidInputError, match="fixed names 'slope'"):
        jc.Model(decay, fixed="slope")
    with pytest.raises(InvalidInputError, match="bounds names 'slope'"):
        jc.Model(decay, bounds={"slope": (0.0, 1.0)})
    with pytest.raises(InvalidInputError, match="returns shape"):
        model.fit(T, Y[:4], start=START)
    with pytest.raises(InvalidInputError, match="one independent variable"):
        jc.Model(decay, independent=0)
    with pytest.raises(InvalidInputError, match="between 0 and 1"):
        model.fit(T, Y, start=START).confidence_band(level=95)
    with pytest.raises(InvalidInputError, match="no degrees of freedom"):
        model.fit(T[:3], Y[:3], start=START).confidence_band()


def test_plot(fit):
    pytest.importorskip("matplotlib")
    figure = fit.plot()
    assert len(figure.axes[0].collections) == 2


def test_fewer_data_than_parameters_as_scipy_has_it():
    def parabola(t, a, b, c):
        return a * t * t + b * t + c

    t, y = np.array([1.0, 2.0]), np.array([1.0, 5.0])
    for given in ({}, {"method": "lm"}, {"p0": [1.0, 2.0, 3.0]}):
        with pytest.raises(TypeError, match=r"parameters, 3, must not exceed the number of data points, 2"):
            jc.curve_fit(parabola, t, y, **given)
    for given in ({"method": "trf"}, {"bounds": (-9.0, 9.0)}):
        with pytest.warns(scipy.optimize.OptimizeWarning):
            popt, pcov = jc.curve_fit(parabola, t, y, **given)
        np.testing.assert_allclose(parabola(t, *popt), y, rtol=1e-10)
        assert np.isinf(pcov).all()
