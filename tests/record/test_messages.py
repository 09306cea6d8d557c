"""What is said when a program asks for plain numbers, in recordings and define-by-run; and text, which is guarded."""

import io

import numpy as np
import other_module_helper
import pytest
import scipy.integrate
import scipy.optimize

import jacana as jc

X = np.array([0.3, 0.7, 1.1])


@pytest.mark.parametrize("ask", [float, complex, np.asarray, lambda v: v.item(), lambda v: v.tolist()])
def test_numbers_of_a_variable_define_by_run(ask):
    loss = np.sum(jc.Variable(X) ** 2)
    with pytest.raises(jc.RecordingError, match=r"write y\.array"):
        ask(loss)
    assert float(loss.array) == float(np.sum(X**2))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, np.save, np.savetxt])
def test_files_hold_plain_numbers(save):
    with pytest.raises(jc.UnsupportedOperationError, match=r"write y\.array for y"):
        save(io.BytesIO(), jc.Variable(X))
    save(io.BytesIO(), jc.Variable(X).array)


@pytest.mark.parametrize("write", [str, repr, lambda v: f"{v:.3f}", lambda v: f"{v}"])
def test_text_holds_for_the_number_it_shows(write):
    def f(x):
        digits = "".join(c for c in write(x[0]) if c in "0123456789")
        return x * float(digits)

    derivative = jc.jacobian(f)
    for first in (0.3, 0.31, 0.3, 0.299):
        at = X.copy()
        at[0] = first
        expected = float("".join(c for c in write(at[0]) if c in "0123456789")) if write is not repr else None
        if expected is not None:
            np.testing.assert_array_equal(derivative(at), expected * np.eye(3))
        else:
            assert not np.array_equal(derivative(at), derivative(at + np.array([0.5, 0, 0])))


def test_functions_of_other_modules_that_name_functions_of_scipy():
    M = np.array([[0.1, 0.4], [-0.3, 0.2]])

    def f(M):
        return other_module_helper.flow(M)

    found = jc.jacobian(f)(M)
    step = 1e-5 * np.array([[1.0, 0.0], [0.0, 0.0]])
    expected = (other_module_helper.flow(M + step) - other_module_helper.flow(M - step)) / 2e-5
    np.testing.assert_allclose(found[..., 0, 0], expected, atol=1e-9)


def test_whole_numbers_are_guarded_and_object_arrays_refused():
    derivative = jc.jacobian(lambda x: x * (2.0 if x[0].is_integer() else 3.0))
    np.testing.assert_array_equal(derivative(np.array([1.0, 0.5])), 2.0 * np.eye(2))
    np.testing.assert_array_equal(derivative(np.array([1.5, 0.5])), 3.0 * np.eye(2))
    with pytest.raises(jc.RecordingError, match="dtype object"):
        jc.jacobian(lambda x: np.array(x, dtype=object).sum())(X)
    with pytest.raises(jc.RecordingError, match=r"as_integer_ratio.*np\.mean"):
        jc.jacobian(lambda x: x * x[0].as_integer_ratio()[0])(X)


SOLVERS = {
    "solve_ivp": lambda a: scipy.integrate.solve_ivp(lambda t, y: -a * y, (0, 1), [1.0]),
    "quad": lambda a: scipy.integrate.quad(lambda t: a * t, 0, 1),
    "root": lambda a: scipy.optimize.root(lambda x: x * x - a, [1.0]),
    "fsolve": lambda a: scipy.optimize.fsolve(lambda x: x * x - a, 1.0),
    "brentq": lambda a: scipy.optimize.brentq(lambda x: x * x - a, 0.0, 2.0),
    "least_squares": lambda a: scipy.optimize.least_squares(lambda x: x - a, [1.0]),
    "minimize": lambda a: scipy.optimize.minimize(lambda x: np.sum((x - a) ** 2), [1.0]),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_define_by_run_name_themselves_the_line_and_what_to_write(name):
    with pytest.raises((jc.RecordingError, ValueError)) as caught:
        SOLVERS[name](jc.Variable(np.array(2.0)))
    error = caught.value.__cause__ if name == "minimize" else caught.value  # SciPy says something else, because of it
    assert isinstance(error, jc.RecordingError)
    for part in (f"{name} of scipy", "jacana.jacobian(f)(x)", "test_messages.py:"):
        assert part in str(error)
