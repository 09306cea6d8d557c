"""Fits made again with new functions and new arguments: what was recorded for one serves the others, and only those."""

import functools
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import numpy as np
import pytest

import jacana as jc
from jacana.optimize import small_fits
from jacana.optimize.captured import code_of, taken_apart
from jacana.optimize.repeats import Repeats
from jacana.run import background, executor, native_available

T = np.linspace(0.0, 3.0, 25)
START = np.array([1.0, 1.0])
needs_code = pytest.mark.skipif(not native_available(), reason="needs llvmlite")


def decay(p, t, y):
    return p[0] * np.exp(-p[1] * t) - y


def data(seed):
    rng = np.random.default_rng(seed)
    return rng.uniform(1.0, 4.0) * np.exp(-rng.uniform(0.3, 2.0) * T) + 0.01 * rng.standard_normal(T.size)


def fresh(residual, args=(), **settings):
    return jc.LeastSquares(residual, **settings)(START, args=args)


@pytest.fixture(autouse=True)
def repeats(monkeypatch):
    """Nothing is known yet, and machine code comes soon."""
    known = Repeats()
    monkeypatch.setattr(import_module("jacana.optimize.least_squares"), "_repeats", known)
    monkeypatch.setattr(small_fits, "HOT", 3)
    return known


@pytest.fixture
def answered(monkeypatch):
    """How many searches machine code has done."""
    answers = []
    original = small_fits.SmallFits.search

    def search(fits, x0, args):
        answers.append(original(fits, x0, args))
        return answers[-1]

    monkeypatch.setattr(small_fits.SmallFits, "search", search)
    return lambda: sum(answer is not None for answer in answers)


def by_lambda(y):
    return jc.least_squares(lambda p: decay(p, T, y), START), fresh(lambda p: decay(p, T, y))


def by_nested_functions(y):
    def shifted(t):
        return t + 0.0

    def residual(p, *, weight=2.0):
        return weight * decay(p, shifted(T), y)

    return jc.least_squares(residual, START), fresh(residual)


def by_defaults(y):
    def residual(p, y=y, pair=(T, 1.0)):
        return decay(p, pair[0], y)

    return jc.least_squares(residual, START), fresh(residual)


def by_partial(y):
    residual = functools.partial(decay, t=T, y=y)
    return jc.least_squares(residual, START), fresh(residual)


def by_args(y):
    return jc.least_squares(decay, START, args=(T.copy(), y)), fresh(decay, (T, y))


def by_bounds(y):
    bounds = ([0.0, 0.5], [9.0, 1.0])
    return jc.least_squares(decay, START, args=(T, y), bounds=bounds), fresh(decay, (T, y), bounds=bounds)


WAYS = [by_lambda, by_nested_functions, by_defaults, by_partial, by_args, by_bounds]


@needs_code
@pytest.mark.parametrize("way", WAYS)
def test_a_loop_over_data_becomes_machine_code(way, answered, repeats):
    with executor("auto"):
        for k in range(8):
            found, expected = way(data(k))
            np.testing.assert_allclose(found.x, expected.x, rtol=1e-9)
        background.drain()
        before = answered()
        for k in range(8):
            found, expected = way(data(k))
            np.testing.assert_allclose(found.x, expected.x, rtol=1e-9)
            np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-7)
            np.testing.assert_array_equal(found.active_mask, expected.active_mask)
        assert answered() - before == 8
    assert len(repeats._known) == 1


@pytest.mark.parametrize("name", ["numpy", pytest.param("native", marks=needs_code)])
def test_what_arguments_say_in_plain_numpy_is_not_out_of_date(name):
    def masked(p, t, y):
        return decay(p, t, y) * (t > y.mean())

    fit, y = jc.LeastSquares(masked), data(0)
    with executor(name):
        for k in range(8):
            y = y * 0.7 if k % 2 else np.multiply(y, 0.8, out=y)  # new ones, and the same with new numbers
            expected = fresh(masked, (T, y.copy()))
            np.testing.assert_allclose(fit(START, args=(T, y)).x, expected.x, rtol=1e-9)
            np.testing.assert_allclose(jc.least_squares(masked, START, args=(T, y)).x, expected.x, rtol=1e-9)
            np.testing.assert_allclose(jc.least_squares(lambda p, y=y: masked(p, T, y), START).x, expected.x, rtol=1e-9)


@needs_code
def test_other_numbers_shapes_and_settings_are_other_fits():
    with executor("native"):
        for k in range(6):
            scale = 1.0 + k
            n = 20 + k % 2
            y, t = data(k)[:n], T[:n]
            found = jc.least_squares(lambda p, t=t, y=y, scale=scale: scale * decay(p, t, y), START)
            assert found.cost == pytest.approx(scale**2 * fresh(decay, (t, y)).cost, rel=1e-9)
        for _ in range(4):
            for limit in (0.4, 9.0):
                found = jc.least_squares(decay, START * 0.4, args=(T, data(3)), bounds=(0.0, [9.0, limit]))
                assert (found.x[1] == 0.4) == (limit == 0.4)
            short = jc.least_squares(decay, START, args=(T, data(3)), max_iterations=1)
            assert short.nit == 1
            assert not short.success


def test_results_belong_to_their_own_data():
    fits = [jc.least_squares(lambda p, k=k: decay(p, T, data(k)), START) for k in range(2)]
    kept = []
    for k in range(8):
        y = data(k)
        kept.append(jc.least_squares(lambda p, y=y: decay(p, T, y), START))
        fits.append(jc.least_squares(decay, START, args=(T, y)))
    for k in (2, 5):
        expected = fresh(decay, (T, data(k))).confidence_intervals(kind="profile")
        for fit in (kept[k], fits[2 + k]):
            found = fit.confidence_intervals(kind="profile")
            for name, interval in expected.items():
                np.testing.assert_allclose(found[name], interval, rtol=1e-6)


def test_variables_of_enclosing_functions_stay_the_users():
    calls = 0

    def counted(y):
        def residual(p):
            nonlocal calls
            calls += 1
            return decay(p, T, y)

        return residual

    for k in range(6):
        before = calls
        jc.least_squares(counted(data(k)), START)
        assert calls > before
    seen = []
    for k in range(6):
        y = data(k)
        jc.least_squares(lambda p, y=y, k=k: (seen.append(k), decay(p, T, y))[1], START)
    assert set(seen) == set(range(6))


def test_derivatives_by_captured_variables():
    def rate(y):
        return jc.least_squares(lambda p: decay(p, T, y), START).x[1]

    for k in range(5):
        y = data(k)
        h = 1e-6 * (np.arange(T.size) == 4)
        slope = jc.grad(rate)(y)[4]
        assert slope == pytest.approx((rate(y + h) - rate(y - h)) / 2e-6, rel=1e-4)


def test_several_threads():
    expected = [fresh(decay, (T, data(k))).x for k in range(6)]

    def both(k):
        y = data(k % 6)
        one = jc.least_squares(lambda p: decay(p, T, y), START).x
        return one, shared(START, args=(T, y)).x

    shared = jc.LeastSquares(decay)
    with ThreadPoolExecutor(4) as pool:
        for k, found in enumerate(pool.map(both, range(36))):
            for x in found:
                np.testing.assert_allclose(x, expected[k % 6], rtol=1e-9)


@needs_code
def test_curve_fit_of_functions_made_anew(answered, monkeypatch):
    curves = import_module("jacana.optimize.curves")
    monkeypatch.setattr(curves, "_searches", curves.Searches(8))

    def fitted(k):
        base = np.sin(T + k)  # captured, and another one each time
        y = data(k) + base
        return jc.curve_fit(lambda t, a, b: a * np.exp(-b * t) + base, T, y, START), (y, base)

    with executor("auto"):
        for k in range(5):
            fitted(k)
        background.drain()
        before = answered()
        for k in range(5):
            (popt, pcov), (y, base) = fitted(k)
            expected = fresh(decay, (T, y - base))
            np.testing.assert_allclose(popt, expected.x, rtol=1e-9)
            np.testing.assert_allclose(pcov, expected.covariance, rtol=1e-7)
        assert answered() - before == 5


# ---- functions taken apart -------------------------------------------------------------------------------------------


def test_keys_tell_functions_apart():
    def made(y, scale=1.0, other=decay):
        return lambda p: scale * other(p, T, y)

    key = taken_apart(made(T)).key
    assert taken_apart(made(T + 1.0)).key == key
    assert taken_apart(made(T[:-1])).key != key
    assert taken_apart(made(T.astype(np.float32))).key != key
    assert taken_apart(made(T, 2.0)).key != key
    assert taken_apart(made(T, 1)).key != key
    assert taken_apart(made(T, 1.0, lambda p, t, y: p)).key != key
    assert taken_apart(made(list(T))).key != taken_apart(made(list(T))).key
    assert taken_apart(made(T, -0.0)).key != taken_apart(made(T, 0.0)).key


def test_functions_put_together_again_have_arrays_of_their_own():
    y, t = np.ones(3), np.arange(3.0)

    def function(p, t=t, *, more=y):
        """Its words."""
        return p * t + more + y

    captured = taken_apart((function, y))
    (other, own), arrays = captured.owned()
    assert len(arrays) == 4
    assert own is not y
    for array in arrays:
        array += 1.0
    np.testing.assert_array_equal(other(2.0), 2.0 * (t + 1.0) + 4.0)
    np.testing.assert_array_equal(function(2.0), 2.0 * t + 2.0)
    assert (other.__name__, other.__qualname__, other.__module__) == (
        function.__name__,
        function.__qualname__,
        function.__module__,
    )


def test_what_is_not_taken_apart():
    count = 0

    def counting(p):
        nonlocal count
        count += 1
        return p

    assert taken_apart(counting) is None
    recorded = jc.Variable(np.ones(2))
    assert taken_apart(lambda p: p * recorded) is None
    assert taken_apart((np.zeros(60_000),)) is None

    def late(p):
        return p * later

    assert taken_apart(late) is None
    later = 1.0
    assert taken_apart(late) is not None
    assert code_of(np.sin) is None
    assert code_of(functools.partial(decay, t=T)) is decay.__code__
