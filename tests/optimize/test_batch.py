"""fit_batch against one fit at a time."""

import itertools

import numpy as np
import pytest

import jacana as jc
from jacana.errors import InvalidInputError
from jacana.optimize import batch, batch_steps
from jacana.run import current_executor, native_available

T = np.linspace(-3.0, 3.0, 31)


@pytest.fixture(params=["side by side", "one by one"], autouse=True)
def way(request, monkeypatch):
    """Both ways must give the same answers."""
    if request.param == "one by one":
        if not native_available() or current_executor() == "numpy":
            pytest.skip("no machine code")
        monkeypatch.setattr(batch, "_WORTH_A_SEARCH", 0)
    return request.param


@pytest.fixture
def taken(monkeypatch):
    """Which way each batch took."""
    ways = []
    original = batch._Fits.one_by_one
    monkeypatch.setattr(batch._Fits, "one_by_one", lambda *args: ways.append(original(*args)) or ways[-1])
    return ways


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
    assert fits.message.shape == fits.status.shape
    assert "not finite" in fits.message[3]
    assert "Converged" in fits.message[0]
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


# Peaks from which a first step that is hardly damped leads far away.
FAR = np.array([[2.627, -0.293, 0.557, 0.733], [1.869, -0.078, 0.521, 0.73], [2.987, 0.295, 0.614, 0.889]])


@pytest.mark.parametrize("count", [40, 100])
def test_first_steps_do_not_run_away(count):
    t = np.linspace(-3.0, 3.0, count)
    data = peak(FAR.T[:, :, None], t)
    fits = jc.fit_batch(lambda p, y: peak(p, t) - y, np.tile([1.0, 0.0, 1.0, 0.0], (3, 1)), args=(data,))
    assert fits.success.all()
    np.testing.assert_allclose(fits.x, FAR, rtol=1e-7)


@pytest.mark.parametrize("bounds", [None, (-1e3, [1e3, 1e3, 1e3, 0.8])])
def test_fits_that_do_not_converge_are_tried_once_more(monkeypatch, bounds):
    started = batch_steps.started
    wild = {batch_steps.FIRST_DAMPING: 1e-3}
    first = batch_steps.FIRST_DAMPING
    monkeypatch.setattr(batch, "started", lambda x, damping=first: started(x, wild.get(damping, damping)))
    t = np.linspace(-3.0, 3.0, 40)
    data = peak(FAR.T[:, :, None], t)
    start = np.tile([1.0, 0.0, 1.0, 0.0], (3, 1))

    def fitted():
        return jc.fit_batch(lambda p, y: peak(p, t) - y, start, args=(data,), bounds=bounds)

    with monkeypatch.context() as patch:
        patch.setattr(batch._Fits, "once_more", lambda *_: None)
        before = fitted()
    after = fitted()
    assert (~before.success).any() or bounds is not None
    assert after.success.all()
    again = ~before.success
    assert (after.nit[again] > before.nit[again]).all()
    np.testing.assert_array_equal(after.nit[~again], before.nit[~again])
    expected = [jc.least_squares(lambda p, y: peak(p, t) - y, start[0], args=(y,), bounds=bounds).cost for y in data]
    np.testing.assert_allclose(after.cost, expected, atol=1e-16, rtol=1e-9)


def test_parameter_without_effect_stays():
    data = problems(3, seed=3)
    fits = jc.fit_batch(
        lambda p, y: peak(p, T) + 0.0 * p[4] - y, np.tile([1.5, 0.0, 1.0, 0.0, 7.0], (3, 1)), args=(data,)
    )
    assert fits.success.all()
    np.testing.assert_array_equal(fits.x[:, 4], 7.0)


@pytest.mark.parametrize("bounds", [None, (-10.0, 10.0)])
def test_columns_of_rounding_errors_at_the_start(bounds):
    # An angle turns a tool that is at 0 at the start: its column is 1e-17 there, and no measure of anything.
    rng = np.random.default_rng(1)
    joints = rng.uniform(-2.0, 2.0, (2, 30))

    def tip(p):
        lever = (0.1 + 0.2) - 0.3 + p[2]  # 5.6e-17 where p[2] is 0
        arms = [p[1] * f(joints[0]) + lever * f(joints[0] + joints[1] + p[0]) for f in (np.cos, np.sin)]
        return np.concatenate(arms, axis=-1)

    true = np.stack((rng.uniform(0.2, 0.6, 7), rng.uniform(1.2, 1.8, 7), rng.uniform(0.1, 0.3, 7)))
    starts = np.tile([0.0, 1.0, 0.0], (7, 1))
    starts[3] = [0.3, 1.0, 0.2]  # a plain one among them
    columns = jc.jacobian(lambda p: tip(p))(starts[0])[:, 0]
    assert 0.0 < abs(columns).max() < 1e-15
    fits = jc.fit_batch(lambda p, y: tip(p) - y, starts, args=(tip(true[:, :, None]),), bounds=bounds)
    assert fits.success.all()
    np.testing.assert_allclose(fits.x, true.T, rtol=1e-8)


def test_columns_that_are_small_for_their_units_count():
    t = np.linspace(0.0, 5e-9, 20)  # seconds
    true = np.array([[1.0, 3e8, -4e16], [2.0, -1e8, 3e16]])
    data = true[:, :1] + true[:, 1:2] * t + true[:, 2:] * t**2
    fits = jc.fit_batch(lambda p, y: p[0] + p[1] * t + p[2] * t**2 - y, np.zeros((2, 3)), args=(data,))
    assert fits.success.all()
    np.testing.assert_allclose(fits.x, true, rtol=1e-6)


def test_a_search_that_was_made_before_sees_what_has_changed(monkeypatch, way):
    made = []
    original = batch._recorded_fit
    monkeypatch.setattr(batch, "_recorded_fit", lambda *args: made.append(1) or original(*args))
    factor, times, true = [2.0], np.linspace(0.5, 2.0, 9), np.array([[1.0], [3.0], [2.5], [-4.0]])

    def fitted(t, **options):
        data = 6.0 * true * times
        found = jc.fit_batch(
            lambda p, y, t: factor[0] * p[0] * t + 0.0 * t.max() - y,
            np.ones((4, 1)),
            args=(data,),
            shared=(t,),
            **options,
        )
        assert found.success.all()
        return found.x

    np.testing.assert_allclose(fitted(times), 3.0 * true)
    np.testing.assert_allclose(fitted(times), 3.0 * true)
    assert len(made) == (way == "one by one")
    factor[0] = 4.0
    np.testing.assert_allclose(fitted(times), 1.5 * true)
    np.testing.assert_allclose(fitted(2.0 * times), 0.75 * true)
    np.testing.assert_allclose(fitted(times), 1.5 * true)
    times *= 2.0  # in place: the data double too
    np.testing.assert_allclose(fitted(times), 1.5 * true)
    np.testing.assert_allclose(fitted(times, bounds=(-9.0, 9.0)), 1.5 * true)


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


def test_fits_that_share_data_unsaid_are_refused():
    data = problems(3, seed=4)
    with pytest.raises(InvalidInputError, match="goes into shared"):
        jc.fit_batch(lambda p, y: peak(p, T) - y / y.max(), np.ones((3, 4)), args=(data,))


def test_what_serves_one_fit_serves_a_later_batch_of_another_size(taken, way):
    for count in (7, 3):
        data = problems(count, seed=count)
        fits = jc.fit_batch(misfit, np.tile([1.5, 0.0, 1.0, 0.0], (count, 1)), args=(data,), shared=(T,))
        assert fits.success.all()
        assert fits.x.shape == (count, 4)
    assert taken == ([] if way == "side by side" else [True, True])


def test_models_that_look_at_values_take_the_way_that_can(taken, way):
    def bent(p, y):
        return (p[0] * T if p[1].max() > 0.0 else p[0] * T**2) + p[1] - y

    data = np.stack([2.0 * T + 0.5, -1.0 * T + 0.25])
    fits = jc.fit_batch(bent, np.ones((2, 2)), args=(data,))
    np.testing.assert_allclose(fits.x, [[2.0, 0.5], [-1.0, 0.25]], rtol=1e-10)
    assert taken == ([] if way == "side by side" else [False])


def test_fits_that_depend_on_one_another_are_refused():
    with pytest.raises(InvalidInputError, match="sample"):
        jc.fit_batch(lambda p, y: p[0] - y + np.sum(p[0]), np.ones((3, 1)), args=(np.ones((3, 2)),))
    with pytest.raises(InvalidInputError, match="one row for each fit"):
        jc.fit_batch(lambda p: p[0][:, 0], np.ones((3, 1)))


# ---- bounds and losses -----------------------------------------------------------------------------------------------

START = np.tile([1.5, 0.0, 1.0, 0.1], (13, 1))


@pytest.mark.parametrize("lanes", [1, 4, 64])
def test_bounds_are_those_of_one_at_a_time(lanes):
    data = problems(13)
    lower, upper = np.array([0.0, -0.3, 0.7, 0.0]), np.array([2.2, 0.4, 3.0, 0.6])
    fits = jc.fit_batch(misfit, START, args=(data,), shared=(T,), bounds=(lower, upper), lanes=lanes)
    assert fits.success.all()
    assert ((fits.x >= lower) & (fits.x <= upper)).all()
    for k in range(13):
        single = jc.least_squares(lambda p, y: peak(p, T) - y, START[k], args=(data[k],), bounds=(lower, upper))
        assert single.success
        np.testing.assert_allclose(fits.x[k], single.x, rtol=1e-6, atol=1e-8)
        assert fits.cost[k] == pytest.approx(single.cost, rel=1e-9)
        np.testing.assert_array_equal(fits.active_mask[k], single.active_mask)
    assert (fits.active_mask != 0).any() and (fits.active_mask == 0).any()


def test_bounds_by_name_for_each_fit_and_equal_ones():
    data = problems(13)

    def named(p, y):
        return p["height"] * np.exp(-0.5 * ((T - p["line"][0]) / p["line"][1]) ** 2) + p["floor"] - y

    start = {"height": START[:, 0], "line": START[:, 1:3], "floor": START[:, 3]}
    most = np.linspace(1.6, 2.5, 13)
    fits = jc.fit_batch(
        named, start, args=(data,), bounds={"height": (None, most), "line": ([-9.0, 0.1], None), "floor": (0.25, 0.25)}
    )
    assert fits.success.all()
    np.testing.assert_array_equal(fits.x["floor"], 0.25)
    assert (fits.x["height"] <= most).all() and (fits.x["height"] == most).any()
    sides = [np.full((13, 4), side) for side in (-np.inf, np.inf)]
    sides[1][:, 0], sides[0][:, 3], sides[1][:, 3] = most, 0.25, 0.25
    plain = jc.fit_batch(misfit, START, args=(data,), shared=(T,), bounds=tuple(sides))
    np.testing.assert_allclose(fits.x["line"], plain.x[:, 1:3], rtol=1e-6, atol=1e-8)
    tree = ({"height": 0.0, "line": np.array([-9.0, 0.1]), "floor": np.zeros(13)}, None)
    np.testing.assert_allclose(
        jc.fit_batch(named, start, args=(data,), bounds=tree).x["height"],
        jc.fit_batch(misfit, START, args=(data,), shared=(T,), bounds=([0.0, -9.0, 0.1, 0.0], None)).x[:, 0],
        rtol=1e-6,
    )


@pytest.mark.parametrize("loss", ["huber", "soft_l1", "cauchy", "arctan", "tukey", lambda z: z / (1.0 + z)])
def test_losses_are_those_of_one_at_a_time(loss):
    data = problems(7, seed=4)
    plain = jc.fit_batch(misfit, START[:7], args=(data,), shared=(T,))  # before there are outliers
    data[:, 5] += 2.0
    data[3, 20] -= 4.0
    fits = jc.fit_batch(misfit, plain.x, args=(data,), shared=(T,), loss=loss, loss_scale=0.1)
    assert fits.success.all()
    for k in range(7):
        single = jc.least_squares(lambda p, y: peak(p, T) - y, plain.x[k], args=(data[k],), loss=loss, loss_scale=0.1)
        assert fits.cost[k] == pytest.approx(single.cost, rel=1e-9)
        np.testing.assert_allclose(fits.x[k], single.x, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(fits.standard_errors[k], single.standard_errors, rtol=1e-4)


def test_loss_of_blocks_and_a_lane_of_nan():
    from jacana.optimize import Loss
    from jacana.optimize.losses import LOSSES

    data = problems(5, seed=6)[:, :30]
    data[1, 3], data[2] = 9.0, np.nan
    t = T[:30]
    pairs = Loss(LOSSES["cauchy"], scale=0.1, block=2)
    fits = jc.fit_batch(misfit, START[:5], args=(data,), shared=(t,), loss=pairs, lanes=2)
    assert fits.success.tolist() == [True, True, False, True, True]
    for k in (0, 1, 3, 4):
        single = jc.least_squares(lambda p, y: peak(p, t) - y, START[k], args=(data[k],), loss=pairs)
        assert fits.cost[k] == pytest.approx(single.cost, rel=1e-9)
    with pytest.raises(InvalidInputError, match="blocks of 2, but there are 31"):
        jc.fit_batch(misfit, START[:5], args=(problems(5),), shared=(T,), loss=pairs)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ((1.0, 0.0), "crossed"),
        ((np.nan, 1.0), "crossed"),
        ((0.5, 9.0), "fit 0 starts with parameter 1 at 0.0, outside"),
        (([0.0, 1.0], None), r"do not fit starts of shape \(13, 4\)"),
        ("positive", "pair"),
        ({"height": (0.0, 1.0)}, "by name"),
    ],
)
def test_bad_bounds(bounds, words):
    with pytest.raises(InvalidInputError, match=words):
        jc.fit_batch(misfit, START, args=(problems(13),), shared=(T,), bounds=bounds)


@pytest.mark.parametrize("loss", [None, "soft_l1", "cauchy"])
def test_no_step_goes_uphill_where_it_is_cut_at_bounds(loss):
    t = np.linspace(0.0, 12.0, 90)
    lower, upper = np.array([0.5, 0.06, 1.5, -0.35, -2.0]), np.array([3.5, 0.28, 1.95, 0.35, 2.0])

    def wave(p, t):
        return p[0] * np.exp(-p[1] * t) * np.cos(p[2] * t + p[3]) + p[4]

    rng = np.random.default_rng(1)
    start = np.tile([2.0, 0.15, 1.75, 0.0, 0.0], (150, 1))
    true = start + rng.uniform(-1.0, 1.0, start.shape) * [0.8, 0.05, 0.1, 0.2, 0.5]
    data = wave(true.T[:, :, None], t) + 0.08 * rng.standard_normal((150, 90))
    fits = [
        jc.fit_batch(
            lambda p, y: wave(p, t) - y, start, args=(data,), bounds=(lower, upper), loss=loss, loss_scale=0.1,
            max_iterations=most,
        )
        for most in (0, 1, 2, 3, 5, 8, 100)
    ]  # fmt: skip
    assert fits[-1].success.all()
    for before, after in itertools.pairwise(fits):
        assert (after.cost <= before.cost * (1.0 + 1e-12)).all()
        assert (after.flat >= lower).all()
        assert (after.flat <= upper).all()


@pytest.mark.parametrize("settings", [{}, {"bounds": (0.0, 5.0)}, {"loss": "soft_l1"}])
def test_no_fits_at_all(settings):
    """An empty selection of many data sets is a batch like any other, but for what it says of residuals."""
    fits = jc.fit_batch(misfit, np.ones((0, 3)), args=(np.ones((0, 13)),), shared=(T,), **settings)
    assert fits.x.shape == (0, 3) and fits.success.shape == (0,) and fits.residuals == 0
    assert fits.covariance.shape == (0, 3, 3) and fits.standard_errors.shape == (0, 3)
    assert fits.message.tolist() == [] and fits.message.dtype.kind == "U"
    assert repr(fits) == "<BatchResult 0 of 0 fits converged, 3 parameters each>"
    named = jc.fit_batch(
        lambda p, y: p["a"] * y - p["b"][0], {"a": np.ones(0), "b": np.ones((0, 2))}, args=(np.ones((0, 4)),)
    )
    assert named.x["a"].shape == (0,) and named.x["b"].shape == (0, 2) and named.flat.shape == (0, 3)
    with pytest.raises(InvalidInputError, match="must count the 0 fits"):
        jc.fit_batch(misfit, np.ones((0, 3)), args=(np.ones((2, 13)),), shared=(T,), **settings)
    with pytest.raises(InvalidInputError, match="holds no numbers"):
        jc.fit_batch(misfit, np.ones((0, 0)), args=(np.ones((0, 13)),), shared=(T,), **settings)
