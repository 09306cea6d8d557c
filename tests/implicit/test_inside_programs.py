"""Solutions as steps of larger programs: their structure, loops around them, settings that are recorded."""

import numpy as np
import pytest
from implicit_differences import central

import jacana as jc

TIMES = np.linspace(0.0, 3.0, 9)
DATA = 3.0 * np.exp(-0.5 * TIMES)


def test_equations_with_an_unknown_each_keep_their_structure():
    n, tables = 50, np.arange(50) // 2

    def solve(t):
        return jc.root(lambda x: np.exp(x) + x - t[tables], np.zeros(n)).x

    t = np.linspace(1.0, 3.0, 25)
    found = jc.jacobian(solve, format="csr")(t)
    assert found.nnz == n and np.array_equal(found.indices, tables)
    assert np.abs(found.data - 1.0 / (np.exp(solve(t)) + 1.0)).max() < 1e-14
    hessian = jc.hessian(lambda t: np.sum(solve(t)), format="csr")(t)
    assert hessian.nnz == 25
    x = solve(t)
    second = -np.exp(x) / (np.exp(x) + 1.0) ** 3
    assert np.abs(hessian.data - second.reshape(25, 2).sum(axis=1)).max() < 1e-13
    with pytest.raises(jc.DifferentiationError, match="not isolated"):
        jc.jacobian(lambda t: jc.root(lambda x: x**2 * t, np.zeros(2)).x)(np.ones(2))


@pytest.mark.parametrize(
    "options", [{"weights": 1}, {"noise": 1}, {"bounds": (0.0, 1)}, {"bounds": {0: (None, 1)}}, {"scale": 1}], ids=str
)
def test_settings_that_depend_on_recorded_values(options):
    def solve(t):
        def given(value):
            if isinstance(value, dict):
                return {k: given(v) for k, v in value.items()}
            if isinstance(value, tuple):
                return tuple(map(given, value))
            return t if value == 1 else value

        chosen = {k: given(v) for k, v in options.items()}
        return jc.least_squares(lambda x: x * TIMES - DATA, [0.5], **chosen).x

    with pytest.raises(jc.RecordingError, match="depend on recorded values"):
        jc.jacobian(solve)(1.0)


def test_curves_are_refused():
    with pytest.raises(jc.RecordingError, match=r"use jacana\.least_squares"):
        jc.jacobian(lambda t: jc.curve_fit(lambda x, a, b: a * x + b * t, TIMES, DATA, [1.0, 1.0])[0])(1.0)


def test_inside_a_loop():
    def solve(c, s):
        return jc.root(lambda x: x**3 + x - s - c, np.ones(())).x

    def looped(t):
        return jc.scan(lambda c, s: (solve(c, s),) * 2, t[0], t)[1]

    def written_out(t):
        found, c = [], t[0]
        for s in t:
            c = solve(c, s)
            found.append(c)
        return np.array(found)

    t = np.array([2.0, 1.5, 0.3])
    assert np.abs(jc.jacobian(looped)(t) - central(written_out, t)).max() < 1e-10
    second = jc.jacobian(jc.jacobian(written_out))(t)
    assert np.abs(jc.jacobian(jc.jacobian(looped))(t) - second).max() < 1e-14
