"""The NIST problems: the files say what they should, the models are NIST's, and the report compares rightly."""

import re
from importlib import resources
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

import jacana as jc
from jacana.datasets import nist
from jacana.errors import InvalidInputError
from jacana.report import nist as report

NAMES = nist.names()

# Parameters and observations of each problem.
SIZES = {
    "Bennett5": (3, 154), "BoxBOD": (2, 6), "Chwirut1": (3, 214), "Chwirut2": (3, 54), "DanWood": (2, 6),
    "ENSO": (9, 168), "Eckerle4": (3, 35), "Gauss1": (8, 250), "Gauss2": (8, 250), "Gauss3": (8, 250),
    "Hahn1": (7, 236), "Kirby2": (5, 151), "Lanczos1": (6, 24), "Lanczos2": (6, 24), "Lanczos3": (6, 24),
    "MGH09": (4, 11), "MGH10": (3, 16), "MGH17": (5, 33), "Misra1a": (2, 14), "Misra1b": (2, 14),
    "Misra1c": (2, 14), "Misra1d": (2, 14), "Nelson": (3, 128), "Rat42": (3, 9), "Rat43": (4, 15),
    "Roszman1": (4, 25), "Thurber": (7, 37),
}  # fmt: skip


def complex_step(function, b):
    """Jacobian of an analytic function, exact to rounding, without jacana."""
    columns = []
    for k in range(b.size):
        moved = b.astype(complex)
        moved[k] += 1e-100j
        columns.append(function(moved).imag / 1e-100)
    return np.stack(columns, axis=1)


def test_all_27_problems_are_there():
    assert tuple(sorted(SIZES)) == NAMES
    levels = [nist.load(name).level for name in NAMES]
    assert {level: levels.count(level) for level in set(levels)} == {"lower": 8, "average": 11, "higher": 8}


def test_origin_and_licence_travel_with_the_data():
    note = resources.files("jacana.datasets").joinpath("nist_strd", "README.md").read_text()
    assert "public domain" in note
    assert "NIST" in note


@pytest.mark.parametrize("name", NAMES)
def test_sizes_and_types(name):
    problem = nist.load(name)
    parameters, observations = SIZES[name]
    assert problem.name == name
    assert problem.y.shape == (observations,)
    assert problem.x.shape == ((128, 2) if name == "Nelson" else (observations,))
    assert problem.degrees_of_freedom == observations - parameters
    for array in (*problem.starts, problem.certified_values, problem.certified_standard_errors):
        assert array.shape == (parameters,)
        assert array.dtype == np.float64
        assert not array.flags.writeable
    assert not problem.y.flags.writeable
    assert not np.array_equal(*problem.starts)


@pytest.mark.parametrize("name", NAMES)
def test_model_gives_the_certified_sum_of_squares(name):
    problem = nist.load(name)
    r = problem.residual(problem.certified_values)
    total = r @ r
    if name == "Lanczos1":
        # The data have 14 digits and the certified parameters 11, so rounding the latter outweighs the residual itself.
        assert total < 1e-20
    else:
        assert total == pytest.approx(problem.certified_residual_sum_of_squares, rel=2e-10)
    # The certified point is a minimum: as far as 11 digits tell, the residual is orthogonal to the tangent plane.
    jacobian = complex_step(problem.residual, problem.certified_values)
    cosines = (r @ jacobian) / np.linalg.norm(jacobian, axis=0) / np.linalg.norm(r)
    if name != "Lanczos1":
        assert np.abs(cosines).max() < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_certified_numbers_agree_with_each_other(name):
    problem = nist.load(name)
    deviation = np.sqrt(problem.certified_residual_sum_of_squares / problem.degrees_of_freedom)
    assert problem.residual_standard_deviation == pytest.approx(deviation, rel=1e-9)
    jacobian = complex_step(problem.residual, problem.certified_values)
    norms = np.linalg.norm(jacobian, axis=0)
    _, s, rows = np.linalg.svd(jacobian / norms, full_matrices=False)
    sigma = np.sqrt(problem.certified_residual_sum_of_squares / problem.degrees_of_freedom)
    errors = sigma * np.sqrt(((rows / s[:, None]) ** 2).sum(axis=0)) / norms
    np.testing.assert_allclose(errors, problem.certified_standard_errors, rtol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_starts_are_those_in_the_file(name):
    text = resources.files("jacana.datasets").joinpath("nist_strd", f"{name}.dat").read_text()
    words = [line.split() for line in text.splitlines() if re.match(r"\s*b\d+ =", line)]
    problem = nist.load(name)
    for k, line in enumerate(words):
        assert [problem.starts[0][k], problem.starts[1][k]] == [float(line[2]), float(line[3])]
    stated = int(re.search(r"Degrees of Freedom:\s+(\d+)", text)[1])
    assert stated == (9 if name == "Rat43" else problem.degrees_of_freedom), "Rat43's file alone misstates it"
    assert all(np.isfinite(problem.residual(start)).all() for start in problem.starts)


@pytest.mark.parametrize("name", NAMES)
def test_jacobian_of_the_recorded_model(name):
    problem = nist.load(name)
    for b in (*problem.starts, problem.certified_values):
        expected = complex_step(problem.residual, b)
        scale = np.abs(expected).max(axis=0)
        actual = jc.jacobian(problem.residual)(b)
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual / scale, expected / scale, rtol=1e-9, atol=1e-13)


def test_nelson_is_fitted_to_the_logarithm():
    problem = nist.load("Nelson")
    assert problem.log_response
    assert not any(nist.load(name).log_response for name in NAMES if name != "Nelson")
    b = problem.starts[0]
    np.testing.assert_array_equal(problem.residual(b), problem.model(b, problem.x) - np.log(problem.y))


def test_load_caches_and_refuses_unknown_names():
    assert nist.load("ENSO") is nist.load("ENSO")
    with pytest.raises(InvalidInputError, match=r"called 'misra'.*Misra1a"):
        nist.load("misra")


@pytest.mark.parametrize(
    ("estimate", "certified", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 11.0),
        ([1.0 + 1e-14, 2.0], [1.0, 2.0], 11.0),
        ([1.0001, 2.0], [1.0, 2.0], 4.0),
        ([1.0, -2.002], [1.0, -2.0], 3.0),
        ([5.0, 2.0], [1.0, 2.0], 0.0),
        ([np.nan, 2.0], [1.0, 2.0], 0.0),
        ([np.inf, 2.0], [1.0, 2.0], 0.0),
        (0.001, 0.0, 3.0),
    ],
)
def test_digits(estimate, certified, expected):
    assert nist.digits(estimate, certified) == pytest.approx(expected, abs=1e-8)
    assert type(nist.digits(estimate, certified)) is float


@pytest.mark.parametrize(("estimate", "certified"), [([1.0], [1.0, 2.0]), ([], [])])
def test_digits_refuses_what_it_cannot_compare(estimate, certified):
    with pytest.raises(InvalidInputError, match="one shape"):
        nist.digits(estimate, certified)


# ---- the report ------------------------------------------------------------------------------------------------------


def printed(table):
    console = Console(width=200, record=True, file=StringIO())
    console.print(table)
    return console.export_text()


def test_fit_table():
    problem = nist.load("BoxBOD")
    text = printed(report.fit_table(problem, jc.least_squares(problem.residual, problem.starts[0])))
    row = next(line for line in text.splitlines() if "b2" in line)
    assert row.count("5.4723748542e-01") == 2
    assert row.count("1.046e-01") == 2
    assert "Converged" in text


def test_fit_table_refuses_another_problem():
    problem = nist.load("BoxBOD")
    result = jc.least_squares(problem.residual, problem.starts[1])
    with pytest.raises(InvalidInputError, match="Thurber has 7 parameters, the result has 2"):
        report.fit_table(nist.load("Thurber"), result)


def test_run_all_and_summary():
    records = report.run_all(["Thurber", "DanWood"])
    runs = [(run.problem, run.start) for run in records]
    assert runs == [("Thurber", 1), ("Thurber", 2), ("DanWood", 1), ("DanWood", 2)]
    assert all(run.digits > 9 and run.standard_error_digits > 9 and run.success for run in records)
    assert all(0 < run.iterations < run.residual_evaluations and run.seconds > 0 for run in records)
    table = report.summary_table(records)
    text = printed(table)
    assert table.row_count == 4
    assert text.index("DanWood") < text.index("Thurber"), "the easy ones come first"
    assert "4 runs" in text
    assert report.summary_table([]).caption == "no runs"
