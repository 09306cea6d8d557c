"""Searches that are machine code as a whole, against those in the ordinary way."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import jacana as jc
from jacana.datasets import nist
from jacana.errors import InvalidInputError
from jacana.optimize import curves, small_fits
from jacana.optimize.checks import agrees
from jacana.run import background, executor, native_available

pytestmark = pytest.mark.skipif(not native_available(), reason="needs llvmlite")

T = np.linspace(-3.0, 3.0, 40)
START = np.array([1.5, 0.0, 1.0, 0.0])


def peak(t, height, centre, width, floor):
    return height * np.exp(-0.5 * ((t - centre) / width) ** 2) + floor


def data(seed=0):
    rng = np.random.default_rng(seed)
    return peak(T, 2.0 + 0.2 * rng.random(), 0.3, 0.8, 0.5) + 0.02 * rng.standard_normal(T.size)


def made(residual, start, **settings):
    """A fit whose machine code is there."""
    fit = jc.LeastSquares(residual, **settings)
    with executor("native"):
        fit(start)
        fit(start)
    return fit


@pytest.fixture
def searches(monkeypatch):
    """The answers that machine code gave, None where it left a search to the ordinary way."""
    answers = []
    original = small_fits.SmallFits.search

    def search(fits, x0, args):
        answers.append(original(fits, x0, args))
        return answers[-1]

    monkeypatch.setattr(small_fits.SmallFits, "search", search)
    return answers


@pytest.mark.parametrize("name", ["Misra1b", "DanWood", "Chwirut2", "Rat42", "Gauss1", "Hahn1", "Roszman1", "BoxBOD"])
def test_same_steps_and_same_answers(name, searches):
    problem = nist.load(name)
    with np.errstate(all="ignore"):
        fit = made(problem.residual, problem.starts[0])
        for start in problem.starts:
            found, expected = fit(start), jc.LeastSquares(problem.residual)(start)
            assert searches[-1] is not None
            np.testing.assert_allclose(found.x, expected.x, rtol=1e-11)
            assert nist.digits(found.x, problem.certified_values) > 10.0
            assert found.cost == pytest.approx(expected.cost, rel=1e-12)
            assert abs(found.nit - expected.nit) <= 1
            steps = min(found.nit, expected.nit) - 2  # the last ones are the work of rounding
            for part in ("cost", "step_length", "trust"):
                one, other = getattr(found.history, part)[:steps], getattr(expected.history, part)[:steps]
                np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8 * other.max())
            np.testing.assert_array_equal(found.history.accepted[:steps], expected.history.accepted[:steps])
            np.testing.assert_allclose(found.fun, expected.fun, rtol=1e-7, atol=1e-9 * expected.cost)
            np.testing.assert_allclose(found.jac, expected.jac, rtol=1e-9)
            np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-9)
            np.testing.assert_allclose(found.standard_errors, problem.certified_standard_errors, rtol=1e-6)
            assert (found.rank, found.status, found.message) == (expected.rank, expected.status, expected.message)
            assert found.condition == pytest.approx(expected.condition, rel=1e-6)
            assert found.optimality < 1e-6


def nearly(found, expected):
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-11)
    np.testing.assert_array_equal(found.active_mask, expected.active_mask)
    assert found.cost == pytest.approx(expected.cost, rel=1e-11)
    assert abs(found.nit - expected.nit) <= 3  # the last ones are the work of rounding
    assert (found.rank, found.message, found.method) == (expected.rank, expected.message, expected.method)
    assert found.warnings == expected.warnings
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-8, atol=1e-300)


@pytest.mark.parametrize("name", ["Misra1b", "DanWood", "Chwirut2", "Rat43", "Gauss3", "Hahn1", "Eckerle4", "BoxBOD"])
def test_bounds_that_are_wide_and_bounds_that_are_in_the_way(name, searches):
    problem = nist.load(name)
    start, best = problem.starts[1], problem.certified_values
    wide = 9.0 * np.abs(best) + 9.0 * np.abs(start - best)
    between = best[-1] + 0.3 * (start[-1] - best[-1])
    cut = {best.size - 1: (None, between) if start[-1] < best[-1] else (between, None)}
    for bounds in ((best - wide, best + wide), cut):
        with np.errstate(all="ignore"):
            found = made(problem.residual, start, bounds=bounds)(start)
            expected = jc.LeastSquares(problem.residual, bounds=bounds)(start)
        assert searches[-1] is not None
        nearly(found, expected)
        assert found.active_mask.any() == (bounds is cut)
        np.testing.assert_allclose(found.history.cost[:3], expected.history.cost[:3], rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_starts_on_and_between_bounds_that_differ(seed, searches):
    rng = np.random.default_rng(seed)
    true = rng.uniform(0.5, 3.0, 3)
    t = np.linspace(0.0, 4.0, 30)
    y = true[0] * np.exp(-true[1] * t) + true[2] * t / (1.0 + t) + 0.1 * rng.standard_normal(30)
    lower = true * rng.uniform(0.2, 1.4, 3)
    upper = np.where(rng.random(3) < 0.3, np.inf, lower + true * rng.uniform(0.1, 2.0, 3))
    high = np.where(np.isfinite(upper), upper, lower + 3.0)

    def residual(p):
        return p[0] * np.exp(-p[1] * t) + p[2] * t / (1.0 + t) - y

    starts = [lower + (high - lower) * rng.random(3) for _ in range(4)] + [np.where(rng.random(3) < 0.5, lower, high)]
    fit = made(residual, starts[0], bounds=(lower, upper))
    plain = jc.LeastSquares(residual, bounds=(lower, upper))
    hot = 0
    for start in starts:
        found = fit(start)
        hot += searches[-1] is not None
        with executor("numpy"):
            nearly(found, plain(start))
    assert hot >= 3


def test_bounds_are_those_that_were_given(searches):
    y = data()
    upper = np.array([9.0, 9.0, 9.0, 0.4])
    fit = made(lambda p: peak(T, *p) - y, START, bounds=(-9.0, upper))
    upper[3] = 9.0  # the fit has its own
    assert fit(START).x[3] == 0.4
    assert searches[-1] is not None
    with pytest.raises(InvalidInputError, match="outside its bounds"):
        fit(START + 0.5)
    assert searches[-1] is None
    free = made(lambda p: peak(T, *p) - y, START, bounds=(-np.inf, None))
    assert free(START).method == "LevenbergMarquardt"
    assert searches[-1] is not None
    assert made(lambda p: peak(T, *p) - y, START, bounds=(-9.0, 9.0), method="trf")(START).method == "Reflective"


def test_new_data_in_place_and_in_a_closure(searches):
    y = data()

    def residual(p):
        return peak(T, *p) - y

    fit = made(residual, START)
    first = fit(START)
    y[:] = data(1)
    second = fit(START)
    assert None not in searches[1:]
    np.testing.assert_allclose(second.x, jc.least_squares(residual, START).x, rtol=1e-11)
    assert np.abs(second.x - first.x).max() > 1e-3
    y = data(2)  # another array: what was recorded does not hold any more
    np.testing.assert_allclose(fit(START).x, jc.least_squares(residual, START).x, rtol=1e-11)
    assert searches[-2] is None or searches[-1] is None


def test_parameters_by_name(searches):
    y = data()
    start = {"line": np.array([[0.0], [1.0]]), "height": 1.5, "floor": 0.0}

    def residual(p):
        return peak(T, p["height"], p["line"][0, 0], p["line"][1, 0], p["floor"]) - y

    fit = made(residual, start)
    found, expected = fit(start), jc.least_squares(residual, start)
    assert searches[-1] is not None
    assert found.x["line"].shape == (2, 1)
    np.testing.assert_allclose(found.flat, expected.flat, rtol=1e-11)
    assert found.names == expected.names
    assert found.covariance_of("height") == pytest.approx(expected.covariance_of("height"), rel=1e-9)
    with pytest.raises(InvalidInputError, match="finite"):
        fit({**start, "floor": np.inf})
    assert fit({**start, "line": np.array([0.0, 1.0])[:, None]}).nit == expected.nit


def test_results_are_the_callers_own():
    y = data()
    fit = made(lambda p: peak(T, *p) - y, START)
    start = START.copy()
    one = fit(start)
    kept = one.x.copy()
    start[:] = 7.0
    one.x[:] = 0.0
    np.testing.assert_array_equal(fit(START).x, kept)
    assert START[0] == 1.5


def test_what_is_badly_conditioned_or_not_finite_is_left_to_the_ordinary_way(searches):
    fit = made(lambda p: (p[0] + p[1]) * T - 2.0 * T + 0.5, [1.0, 3.0])
    result = fit(np.array([1.0, 3.0]))
    assert searches[-1] is None
    assert result.success
    assert result.rank == 1

    y = data()
    fit = made(lambda p: peak(T, *p) - y, START)
    with pytest.raises(InvalidInputError, match="must be finite"):
        fit(np.array([1.5, 0.0, 0.0, np.nan]))
    y[3] = np.nan
    with pytest.raises(InvalidInputError, match=r"\[3\]"):
        fit(START)
    assert searches[-1] is None


def test_other_calls_take_the_ordinary_way(searches):
    y = data()
    scale = np.ones(T.size)
    fit = jc.LeastSquares(lambda p, s: (peak(T, *p) - y) * s)
    with executor("native"):
        for _ in range(2):
            expected = fit(START, args=(scale,))
    seen = []
    assert fit(START, args=(scale,), callback=lambda at: seen.append(at.iteration)).nit == expected.nit
    assert seen == list(range(1, expected.nit + 1))
    count = len(searches)
    assert fit(START, args=(scale,)).nit == expected.nit
    assert searches[count:] == [searches[-1]] != [None]
    np.testing.assert_allclose(fit(START, args=(2.0 * scale,)).cost, 4.0 * expected.cost)
    assert searches[-1] is None
    np.testing.assert_allclose(fit(list(START), args=(scale,)).x, expected.x, rtol=1e-11)
    np.testing.assert_allclose(fit(START.astype(np.float32), args=(scale,)).x, expected.x, rtol=1e-3)
    with executor("numpy"):
        np.testing.assert_allclose(fit(START, args=(scale,)).x, expected.x, rtol=1e-11)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "huber"},
        {"fixed": 1},
        {"bounds": ([0.0] * 4, [9.0, 0.0, 9.0, 9.0])},  # equal bounds fix a parameter
        {"method": "dogleg"},
        {"xtol": 1e-3},
    ],
)
def test_other_settings_take_the_ordinary_way(settings):
    y = data()
    assert made(lambda p: peak(T, *p) - y, START, **settings).small is None


def test_a_derivative_of_the_fit_takes_the_ordinary_way():
    def centre(y):
        return jc.least_squares(lambda p: peak(T, *p) - y, START).x[1]

    y = data()
    slope = jc.grad(centre)(y)
    h = 1e-5
    for k in (3, 20):
        e = h * (np.arange(T.size) == k)
        assert slope[k] == pytest.approx((centre(y + e) - centre(y - e)) / (2 * h), rel=1e-5, abs=1e-9)


def far(p):
    return peak(T, *p) - peak(T, 2.0, 0.3, 0.8, 0.5)


def test_copies_record_for_themselves():
    fit = made(far, START)
    for other in (copy.copy(fit), copy.deepcopy(fit), pickle.loads(pickle.dumps(fit))):
        np.testing.assert_array_equal(other(START).x, jc.least_squares(far, START).x)


def test_what_goes_wrong_in_the_background_is_said(monkeypatch):
    def broken(_):
        raise OSError("no room")

    monkeypatch.setattr(small_fits, "HOT", 2)
    monkeypatch.setattr(small_fits.Recorded, "compiled", broken)
    fit = jc.LeastSquares(far)
    with executor("auto"):
        fit(START)
        fit(START)
        background.drain()
        with pytest.raises(OSError, match="no room"):
            fit(START)
        assert fit(START).success


def test_machine_code_comes_after_some_searches(monkeypatch, searches):
    monkeypatch.setattr(small_fits, "HOT", 3)
    y = data()
    fit = jc.LeastSquares(lambda p: peak(T, *p) - y)
    with executor("auto"):
        results = [fit(START) for _ in range(4)]
        background.drain()
        results.append(fit(START))
    assert searches[-1] is not None
    for result in results[1:]:
        np.testing.assert_allclose(result.x, results[0].x, rtol=1e-12)


# ---- curve_fit -------------------------------------------------------------------------------------------------------


def test_curve_fit_again_and_again(monkeypatch, searches):
    monkeypatch.setattr(small_fits, "HOT", 2)

    def curve(t, height, centre, width, floor):
        return peak(t, height, centre, width, floor)

    first = curves.Searches(8)
    monkeypatch.setattr(curves, "_searches", first)
    with executor("auto"):
        for _ in range(3):
            expected = jc.curve_fit(curve, T, data(), START)
        background.drain()
        for given in (T, T.copy()):
            found = jc.curve_fit(curve, given, data(), START)
            assert searches[-1] is not None
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-14)
        # Other data, from 1, 1, 1, 1; another x; data that cannot be fitted.
        by_scipy = pytest.importorskip("scipy.optimize").curve_fit
        found, wanted = jc.curve_fit(curve, T, data(5)), by_scipy(curve, T, data(5), START)
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-4)
        moved = jc.curve_fit(curve, T + 1.0, data(), START + np.eye(4)[1])
        np.testing.assert_allclose(moved[0], expected[0] + np.eye(4)[1], rtol=1e-9)
        bad = data()
        bad[7] = np.inf
        with pytest.raises(ValueError, match=r"ydata\[7\]"):
            jc.curve_fit(curve, T, bad, START)
        with pytest.raises(ValueError, match="shape"):
            jc.curve_fit(curve, T, data()[:-1], START)
        weighted = jc.curve_fit(curve, T, data(), START, sigma=np.full(T.size, 0.02), absolute_sigma=True)
        np.testing.assert_allclose(weighted[0], expected[0], rtol=1e-9)


def test_curve_fits_differ_in_how_many_parameters_are_fitted(monkeypatch, searches):
    """Without a start, those with defaults count too, whatever the fits before left out."""
    monkeypatch.setattr(small_fits, "HOT", 2)
    monkeypatch.setattr(curves, "_searches", curves.Searches(8))

    def line(t, slope, floor=0.25):
        return slope * t + floor

    y = 2.0 * T + 1.0 + 0.1 * np.sin(40.0 * T)
    with executor("auto"):
        for _ in range(3):
            jc.curve_fit(line, T, y, [1.0])
        background.drain()
        one, _ = jc.curve_fit(line, T, y, [1.0])
        assert searches[-1] is not None
        two, _ = jc.curve_fit(line, T, y)
    np.testing.assert_allclose(one, np.sum(T * (y - 0.25)) / np.sum(T * T))
    np.testing.assert_allclose(two, np.polyfit(T, y, 1), rtol=1e-9)


def test_curve_fits_where_x_is_zero_of_either_sign(monkeypatch, searches):
    """The places that a curve is recorded at are compared by their bits, so that 1 / x is right."""
    monkeypatch.setattr(small_fits, "HOT", 2)
    monkeypatch.setattr(curves, "_searches", curves.Searches(8))

    def curve(t, a, b):
        return a + b * np.arctan(1.0 / t)

    t = np.array([0.0, 1.0, 2.0, 3.0])
    y = np.array([3.0, 2.0, 1.5, 1.4])
    other = np.array([-0.0, 1.0, 2.0, 3.0])
    with executor("auto"), np.errstate(divide="ignore"):
        for _ in range(4):
            jc.curve_fit(curve, t, y, [1.0, 1.0])
            background.drain()
        assert searches[-1] is not None
        for x in (t, other, t):
            rows = np.stack([np.ones(4), np.arctan(1.0 / x)], axis=1)
            found, _ = jc.curve_fit(curve, x, y, [1.0, 1.0])
            np.testing.assert_allclose(found, np.linalg.lstsq(rows, y)[0], rtol=1e-9)


def test_curve_fits_in_threads(monkeypatch):
    monkeypatch.setattr(small_fits, "HOT", 2)
    monkeypatch.setattr(curves, "_searches", curves.Searches(8))
    expected = [jc.curve_fit(peak, T, data(k), START)[0] for k in range(12)]
    background.drain()
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda k: jc.curve_fit(peak, T, data(k % 12), START)[0], range(96)))
    for k, one in enumerate(found):
        np.testing.assert_allclose(one, expected[k % 12], rtol=1e-10)


@pytest.mark.filterwarnings("ignore:overflow")  # searches silence it
@pytest.mark.parametrize("scale", [1.0, 1e-170, 1e-320, 1e160])
def test_residuals_agree_at_any_magnitude(scale):
    """Sums of squares that overflow or vanish say nothing; the largest difference does."""
    values = scale * np.array([1.0, -2.0, 0.5])
    x, jacobian = np.zeros(1), np.zeros((3, 1))
    assert agrees(values, values.copy(), jacobian, x)
    assert not agrees(values, 1.001 * values if scale > 1e-300 else 2.0 * values, jacobian, x)
    assert not agrees(values, np.array([*values[:2], np.nan]), jacobian, x)
    assert not agrees(np.array([3, 4, 5]), np.array([3.0, 4.0, 6.0]), jacobian, x)
    assert agrees(np.array([3, 4, 5]), np.array([3.0, 4.0, 5.0]), jacobian, x)
    assert agrees(np.full(3, 1e9), np.full(3, 1e9) + 0.001, jacobian, x)
    assert not agrees(np.array([1e9, 1.0, 1.0]), np.array([1e9 + 0.1, 1.0, 1.0]), jacobian, x)
