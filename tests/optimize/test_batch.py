"""fit_batch against one fit at a time."""

import numpy as np
import pytest

import jacana as jc
from jacana.errors import InvalidInputError

T = np.linspace(-3.0, 3.0, 31)


def peak(p, t):
    return p[0] * np.exp(-0.5 * ((t - p[1]) / p[2]) ** 2) + p[3]


def misfit(p, y, t):
    return peak(p, t) - y


def problems(count, seed=0):
    rng = np.random.default_rng(seed)
    true = np.stack(
        [rng.uniform(1.0, 3.0, count), rng.uniform(-1.0, 1.0, count), rng.uniform(0.5, 1.2, count), rng.random(count)]
    )
    return peak(true[:, :, None], T) + 0.02 * rng.standard_normal((count, T.size))


@pytest.mark.parametrize("lanes", [1, 4, 64])
def test_same_answers_as_one_at_a_time(lanes):
    data = problems(13)
    fits = jc.fit_batch(misfit, np.tile([1.5, 0.0, 1.0, 0.0], (13, 1)), args=(data,), shared=(T,), lanes=lanes)
    assert fits.success.all()
    assert repr(fits) == "<BatchResult 13 of 13 fits converged, 4 parameters each>"
    one = jc.LeastSquares(lambda p, y: peak(p, T) - y)
    for k in range(13):
        single = one([1.5, 0.0, 1.0, 0.0], args=(data[k],))
        np.testing.assert_allclose(fits.x[k], single.x, rtol=1e-7, atol=1e-9)
        assert fits.cost[k] == pytest.approx(single.cost, rel=1e-12)
        np.testing.assert_allclose(fits.standard_errors[k], single.standard_errors, rtol=1e-6)
        np.testing.assert_allclose(fits.covariance[k], single.covariance, rtol=1e-5, atol=1e-12)


def test_parameters_by_name():
    data = problems(5, seed=1)

    def named(p, y):
        return p["height"] * np.exp(-0.5 * ((T - p["line"][0]) / p["line"][1]) ** 2) + p["floor"] - y

    start = {"height": np.full(5, 1.5), "line": np.tile([0.0, 1.0], (5, 1)), "floor": np.zeros(5)}
    fits = jc.fit_batch(named, start, args=(data,))
    plain = jc.fit_batch(misfit, np.tile([1.5, 0.0, 1.0, 0.0], (5, 1)), args=(data,), shared=(T,))
    np.testing.assert_allclose(fits.x["height"], plain.x[:, 0], rtol=1e-7)
    np.testing.assert_allclose(fits.x["line"], plain.x[:, 1:3], rtol=1e-7, atol=1e-9)
    assert fits.x["floor"].shape == (5,)


def test_one_bad_fit_does_not_disturb_the_others():
    data = problems(6, seed=2)
    data[3, 7] = np.nan
    start = np.tile([1.5, 0.0, 1.0, 0.0], (6, 1))
    fits = jc.fit_batch(misfit, start, args=(data,), shared=(T,), lanes=2)
    np.testing.assert_array_equal(fits.success, [True, True, True, False, True, True])
    assert fits.status[3] == -5
    assert "not finite" in fits.message(3)
    assert np.isnan(fits.cost[3])
    np.testing.assert_array_equal(fits.x[3], start[3])
    assert np.isnan(fits.standard_errors[3]).all()
    good = [0, 1, 2, 4, 5]
    alone = jc.fit_batch(misfit, start[good], args=(data[good],), shared=(T,))
    np.testing.assert_allclose(fits.x[good], alone.x, rtol=1e-12)


def test_residuals_of_zero_and_limits():
    y = np.array([[2.0, 4.0, 6.0], [1.0, 2.0, 3.0]])
    exact = jc.fit_batch(lambda p, y: p[0] * np.array([1.0, 2.0, 3.0]) - y, np.array([[2.0], [0.0]]), args=(y,))
    assert exact.success.all()
    np.testing.assert_allclose(exact.x[:, 0], [2.0, 1.0], rtol=1e-14)
    none = jc.fit_batch(misfit, np.ones((2, 4)), args=(problems(2),), shared=(T,), max_iterations=0)
    assert (none.status == 0).all()
    np.testing.assert_array_equal(none.x, np.ones((2, 4)))


def test_parameter_without_effect_stays():
    data = problems(3, seed=3)
    fits = jc.fit_batch(
        lambda p, y: peak(p, T) + 0.0 * p[4] - y, np.tile([1.5, 0.0, 1.0, 0.0, 7.0], (3, 1)), args=(data,)
    )
    assert fits.success.all()
    np.testing.assert_array_equal(fits.x[:, 4], 7.0)


@pytest.mark.parametrize(
    ("start", "data", "words"),
    [
        (np.ones(3), np.ones((2, 31)), r"args\[0\] has shape \(2, 31\)"),
        (np.ones((2, 2, 2)), np.ones((2, 31)), "one and the same B"),
        (np.ones((2, 0)), np.ones((2, 31)), "nothing to fit"),
    ],
)
def test_bad_shapes(start, data, words):
    with pytest.raises(InvalidInputError, match=words):
        jc.fit_batch(lambda p, y: p - y, start, args=(data,))


def test_fits_that_depend_on_one_another_are_refused():
    with pytest.raises(InvalidInputError, match="sample"):
        jc.fit_batch(lambda p, y: p[0] - y + np.sum(p[0]), np.ones((3, 1)), args=(np.ones((3, 2)),))
    with pytest.raises(InvalidInputError, match="one row for each fit"):
        jc.fit_batch(lambda p: p[0][:, 0], np.ones((3, 1)))
