"""What comes with a fit: intervals, warnings, reports, plots, JSON; callbacks, budgets, checkpoints."""

import io
import json
import math

import numpy as np
import pytest
from scipy.special import fdtri, stdtrit

import jacana as jc
from jacana.datasets import nist
from jacana.errors import InvalidInputError
from jacana.optimize import LeastSquaresResult

T = np.linspace(0.0, 3.0, 13)
Y = 3.0 * np.exp(-0.7 * T) + 0.5 + 0.05 * np.sin(17.0 * np.arange(13))


def decay(p):
    return p["height"] * np.exp(-p["rate"] * T) + p["floor"] - Y


START = {"height": 1.0, "rate": 1.0, "floor": 0.0}


@pytest.fixture(scope="module")
def fit():
    return jc.least_squares(decay, START)


# ---- statistics ------------------------------------------------------------------------------------------------------


def test_wald_intervals(fit):
    found = fit.confidence_intervals(0.9)
    width = stdtrit(10, 0.95)
    for name, value, error in zip(fit.names, fit.flat, np.sqrt(np.diag(fit.covariance)), strict=True):
        low, high = found[name]
        assert low == pytest.approx(value - width * error, rel=1e-12)
        assert high == pytest.approx(value + width * error, rel=1e-12)


def test_profile_intervals_of_a_line_are_the_wald_intervals():
    result = jc.least_squares(lambda p: p[0] + p[1] * T - Y, [0.0, 0.0])
    wald, profile = result.confidence_intervals(), result.confidence_intervals(kind="profile")
    for name in result.names:
        np.testing.assert_allclose(profile[name], wald[name], rtol=1e-6)


def test_profile_intervals_end_where_the_fit_is_significantly_worse(fit):
    found = fit.confidence_intervals(0.95, kind="profile")
    limit = fit.cost * (1.0 + fdtri(1, 10, 0.95) / 10.0)
    for name, key in zip(fit.names, ("floor", "height", "rate"), strict=True):
        for end in found[name]:
            other = jc.least_squares(decay, {**START, key: end}, fixed=key)
            assert other.cost == pytest.approx(limit, rel=1e-6)
        assert found[name][0] < fit.x[key] < found[name][1]


def test_profile_of_the_only_parameter():
    result = jc.least_squares(lambda p: np.exp(-p * T) - np.exp(-0.6 * T) - 0.01 * np.sin(9.0 * T), 1.0)
    (interval,) = result.confidence_intervals(kind="profile").values()
    limit = result.cost * (1.0 + fdtri(1, 12, 0.95) / 12.0)
    for end in interval:
        r = np.exp(-end * T) - np.exp(-0.6 * T) - 0.01 * np.sin(9.0 * T)
        assert 0.5 * r @ r == pytest.approx(limit, rel=1e-5)


def test_profile_that_has_no_end():
    # Beyond some rate the model is a step, which no further rate changes.
    y = np.array([1.0, 0.02, -0.01, 0.01, -0.02])
    t = np.arange(5.0)
    result = jc.least_squares(lambda p: p[0] * np.exp(-p[1] * t) - y, [1.0, 2.0])
    _, high = result.confidence_intervals(0.95, kind="profile")["x[1]"]
    assert high == math.inf


def test_residual_statistics(fit):
    figures = fit.residual_statistics
    r = fit.fun
    assert figures["rms"] == pytest.approx(np.sqrt(np.mean(r**2)), rel=1e-14)
    assert figures["largest"] == np.abs(r).max()
    assert figures["durbin_watson"] == pytest.approx(np.sum((r[1:] - r[:-1]) ** 2) / (r @ r), rel=1e-14)
    assert figures["bic"] - figures["aic"] == pytest.approx(3 * (math.log(13) - 2.0), rel=1e-12)


def test_covariance_of_some_parameters(fit):
    whole = fit.covariance
    np.testing.assert_allclose(fit.covariance_of("rate", "floor"), whole[np.ix_([2, 0], [2, 0])], rtol=1e-12)

    def chained(x):
        return np.concatenate((x[:1] - 1.0, 2.0 * (x[1:] - x[:-1]), x[1:] ** 2 - 0.3))

    large = jc.least_squares(chained, np.ones(4000))
    part = large.covariance_of(3, 1000)
    dense = large.jac.T @ large.jac
    columns = np.zeros((4000, 2))
    columns[[3, 1000], [0, 1]] = 1.0
    from scipy.sparse.linalg import spsolve

    solved = spsolve(dense.tocsc(), columns)[[3, 1000]] * large.residual_variance
    np.testing.assert_allclose(part, solved, rtol=1e-6)
    with pytest.raises(InvalidInputError, match="covariance_of"):
        _ = large.covariance
    assert "converged" in repr(large)
    assert "4000" in str(large) or "more" in str(large)


def test_warnings_name_the_parameters():
    lost = jc.least_squares(lambda p: decay({**p, "floor": p["floor"] + p["shift"]}), {**START, "shift": 0.0})
    assert "does not determine x['floor'], x['shift'] (rank 3 of 4)" in lost.warnings[0]
    near = jc.least_squares(lambda x: np.array([x[0] + x[1] - 2.0, 1e-9 * (x[0] - x[1]), 1.0]), [0.0, 1.0])
    assert "hardly determines a combination of x[0], x[1]" in near.warnings[0]
    assert jc.least_squares(decay, START).warnings == ()
    few = jc.least_squares(lambda x: x - 1.0, [0.0, 3.0])
    assert "no degrees of freedom" in few.warnings[0]
    with pytest.raises(InvalidInputError, match="degrees of freedom"):
        few.confidence_intervals()


def test_refused_points_are_counted():
    result = jc.least_squares(lambda x: np.stack([np.log(x[0]) + 3.0, 0.1 * (x[0] - 0.04)]), [2.0])
    assert result.success
    assert result.nrefused > 0
    assert "not finite" in result.warnings[-1]


@pytest.mark.parametrize("name", nist.names())
def test_standard_errors_of_nist(name):
    problem = nist.load(name)
    result = jc.least_squares(problem.residual, problem.starts[1])
    # Lanczos1's residual is 1e-13 beside data of order 1: its own rounding leaves three digits of its variance.
    needed = 2.5 if name == "Lanczos1" else 6.0
    assert nist.digits(result.standard_errors, problem.certified_standard_errors) >= needed


@pytest.mark.parametrize(
    ("level", "kind", "words"), [(1.0, "wald", "between 0 and 1"), (0.9, "bootstrap", "'wald' or 'profile'")]
)
def test_bad_intervals(fit, level, kind, words):
    with pytest.raises(InvalidInputError, match=words):
        fit.confidence_intervals(level, kind=kind)


# ---- reports ---------------------------------------------------------------------------------------------------------


def test_reports(fit):
    from rich.console import Console

    written = io.StringIO()
    Console(width=100, file=written).print(fit)
    text = written.getvalue()
    assert "x['rate']" in text
    assert "Converged" in text
    page = fit._repr_html_()
    assert page.count("<tr>") == 4
    assert "x[&#x27;rate&#x27;]" in page


@pytest.mark.parametrize("kind", ["residuals", "convergence", "correlation", "profiles"])
def test_plots(fit, kind, tmp_path):
    pytest.importorskip("matplotlib")
    figure = fit.plot(kind)
    figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
    with pytest.raises(InvalidInputError, match="no plot 'pie'"):
        fit.plot("pie")


def test_history(fit):
    assert fit.history.cost.size == fit.nit + 1
    assert fit.history.cost[-1] == fit.cost
    # The last steps improve x by less than the cost can show.
    rounding = np.finfo(float).eps * np.linalg.norm(fit.fun) * np.linalg.norm(Y)
    assert (np.diff(fit.history.cost) <= rounding).all()


@pytest.mark.parametrize("settings", [{}, {"loss": "huber", "loss_scale": 0.05}, {"fixed": "rate"}])
def test_json_out_and_in(settings):
    result = jc.least_squares(decay, START, **settings)
    text = result.to_json()
    json.loads(text)
    again = LeastSquaresResult.from_json(text)
    assert str(again) == str(result)
    assert again.x.keys() == result.x.keys()
    np.testing.assert_array_equal(again.covariance, result.covariance)
    np.testing.assert_array_equal(again.jac, result.jac)
    assert again.confidence_intervals() == result.confidence_intervals()
    with pytest.raises(InvalidInputError, match="read from a file"):
        again.confidence_intervals(kind="profile")


def test_json_of_a_sparse_fit_with_a_matrix_and_a_tuple():
    def residual(p):
        matrix, shift = p
        return matrix.ravel() ** 2 + shift - np.arange(100.0)

    result = jc.least_squares(residual, (np.ones((20, 5)), 0.5))
    again = LeastSquaresResult.from_json(result.to_json())
    assert isinstance(again.x, tuple)
    assert again.x[0].shape == (20, 5)
    np.testing.assert_array_equal(again.flat, result.flat)
    np.testing.assert_array_equal((again.jac - result.jac).toarray() if hasattr(again.jac, "toarray") else 0.0, 0.0)


@pytest.mark.parametrize("text", ["{", "[1]", '{"kind": "other"}'])
def test_bad_json(text):
    with pytest.raises(InvalidInputError, match="JSON"):
        LeastSquaresResult.from_json(text)


# ---- on the way ------------------------------------------------------------------------------------------------------


def rosenbrock(x):
    return np.stack([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])


def test_budgets():
    few = jc.least_squares(rosenbrock, [-1.2, 1.0], max_evaluations=5)
    assert (few.nfev, few.status, few.success) == (5, -4, False)
    assert "max_evaluations" in few.message
    late = jc.least_squares(rosenbrock, [-1.2, 1.0], max_seconds=0.0)
    assert (late.nit, late.status) == (0, -3)
    assert "max_seconds" in late.message


@pytest.mark.parametrize("method", ["lm", "trf"])
def test_resumed_search_takes_the_same_path(tmp_path, method):
    file = tmp_path / "search.npz"
    whole = jc.least_squares(rosenbrock, [-1.2, 1.0], method=method)
    jc.least_squares(rosenbrock, [-1.2, 1.0], method=method, max_iterations=6, checkpoint=file)
    rest = jc.least_squares(rosenbrock, [0.0, 0.0], method=method, resume=file)
    assert rest.success
    np.testing.assert_allclose(rest.x, whole.x, atol=1e-14)
    assert rest.nit == pytest.approx(whole.nit, abs=2)
    with pytest.raises(InvalidInputError, match="holds 2 parameters, but this problem has 3"):
        jc.least_squares(lambda x: x - 1.0, np.zeros(3), resume=file)
    assert [entry.name for entry in tmp_path.iterdir()] == ["search.npz"]


def test_progress_tells_the_time_and_shows_nothing_on_a_short_run(capsys):
    seen = []
    jc.least_squares(rosenbrock, [-1.2, 1.0], callback=seen.append, progress=True)
    seconds = [progress.seconds for progress in seen]
    assert seconds == sorted(seconds)
    assert capsys.readouterr() == ("", "")


def test_progress_of_a_long_run(monkeypatch, capsys):
    monkeypatch.setattr("jacana.optimize.search._SHOWN_AFTER", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    jc.least_squares(rosenbrock, [-1.2, 1.0], progress=True)
    assert "iteration" in capsys.readouterr().err
