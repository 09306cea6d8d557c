"""Variable projection, against the fit of all parameters together."""

import numpy as np
import pytest

import jacana as jc

T = np.linspace(0.0, 10.0, 60)
DATA = 2.0 * np.exp(-0.3 * T) + 5.0 * np.exp(-1.7 * T) - 1.0 + 0.01 * np.sin(37.0 * T)


def residual(p):
    return p["heights"] @ np.exp(-p["rates"][:, None] * T) + p["floor"] - DATA


START = {"heights": np.array([1.0, 1.0]), "rates": np.array([0.4, 3.0]), "floor": 0.0}
NONE = {"heights": np.zeros(2), "rates": np.array([0.4, 3.0]), "floor": 0.0}


def by_rate(p):
    """All parameters, the slower decay first: which of the two is which is the search's choice."""
    order = np.argsort(p["rates"])
    return np.concatenate([p["heights"][order], p["rates"][order], [p["floor"]]])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weights": np.linspace(1.0, 2.0, 60)},
        {"noise": 0.1 * np.eye(60) + 0.02},
        {"bounds": {"rates": (0.35, None)}},
        {"fixed": [("rates", 0)]},
        {"ties": {"floor": lambda p: p["heights"][0] - 3.0}},
        {"scale": {"heights": 1.0, "rates": np.array([0.1, 1.0]), "floor": 1.0}},
    ],
    ids=lambda options: next(iter(options), "plain"),
)
@pytest.mark.parametrize("linear", ["heights", ["heights", "floor"]])
def test_as_the_whole_fit(options, linear):
    if "ties" in options and "floor" in linear:
        linear = ["heights"]
    whole = jc.least_squares(residual, START, **options)
    found = jc.least_squares(residual, NONE, linear=linear, **options)
    assert whole.success and found.success
    assert np.abs(by_rate(found.x) - by_rate(whole.x)).max() < 1e-9
    assert abs(found.cost - whole.cost) < 1e-14
    if "bounds" not in options:
        assert np.abs(found.covariance - whole.covariance).max() < 1e-7 * np.abs(whole.covariance).max()


def test_the_projected_jacobian_is_that_of_golub_and_pereyra():
    # Against differences of the projected residual, whose linear parameters are solved for anew each time.
    def projected(rates):
        matrix = np.stack([*np.exp(-rates[:, None] * T), np.ones(60)], axis=1)
        return matrix @ np.linalg.lstsq(matrix, DATA, rcond=None)[0] - DATA

    rates, step = np.array([0.4, 3.0]), 1e-5
    wanted = np.stack(
        [(projected(rates + step * e) - projected(rates - step * e)) / (2.0 * step) for e in np.eye(2)], axis=1
    )
    assert np.abs(jc.jacobian(projected)(rates) - wanted).max() < 1e-9


def test_fewer_steps_and_all_linear():
    whole = jc.least_squares(residual, START)
    found = jc.least_squares(residual, NONE, linear=["heights", "floor"])
    assert found.nit < whole.nit
    matrix, right = np.arange(12.0).reshape(4, 3) ** 2, np.array([1.0, -2.0, 0.5, 3.0])
    fit = jc.least_squares(lambda x: matrix @ x - right, np.zeros(3), linear=[0, 1, 2])
    assert np.abs(fit.x - np.linalg.lstsq(matrix, right, rcond=None)[0]).max() < 1e-11


def test_inside_a_recorded_function():
    def rates(shift):
        def shifted(p):
            return residual(p) - 0.01 * shift * np.cos(T)

        return jc.least_squares(shifted, START, linear=["heights", "floor"]).x["rates"]

    step = 1e-4
    wanted = (rates(step) - rates(-step)) / (2.0 * step)
    assert np.abs(jc.jacobian(rates)(0.0) - wanted).max() < 1e-7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"linear": "rates"}, r"not linear in x0\['rates'\]\[0\], x0\['rates'\]\[1\]"),
        ({"linear": "heights", "loss": "huber"}, "robust loss"),
        ({"linear": "heights", "fixed": "heights"}, "fixed or tied"),
        ({"linear": "heights", "bounds": {"heights": (0.0, None)}}, "has bounds"),
        ({"linear": "nothing"}, "there is no parameter 'nothing'"),
    ],
)
def test_refused(options, message):
    with pytest.raises(jc.JacanaError, match=message):
        jc.least_squares(residual, START, **options)
