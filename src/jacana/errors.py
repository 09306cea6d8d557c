"""The public exceptions. Each class's docstring is its documentation page: what happened, and how to mend it."""

from __future__ import annotations

__all__ = [
    "ConvergenceError",
    "DifferentiationError",
    "InvalidInputError",
    "JacanaError",
    "RecordingError",
    "UnsupportedOperationError",
]


class JacanaError(Exception):
    """Base class of every error that jacana raises by itself.

    Errors that belong to NumPy (an ``IndexError``, a ``LinAlgError``, shapes that do not broadcast) keep NumPy's class.
    """


class InvalidInputError(JacanaError, ValueError):
    """An argument has the wrong shape, dtype, length or value.

    The message names the argument, says what was received and what is accepted. Typical cases: an integer array
    as the argument to differentiate with respect to (use ``x.astype(float)``), a complex array, a function that
    returns something that is not an array.
    """


class DifferentiationError(JacanaError, ValueError):
    """A derivative was asked for that does not exist in the form asked for.

    Typical cases: ``grad`` of a function whose result is not a scalar (use ``jacobian``), ``y.backward()`` of a
    vector without ``y.grad`` (set ``y.grad`` for a vector-Jacobian product, or call ``y.backward(jacobian=True)``
    for the whole Jacobian).
    """


class ConvergenceError(JacanaError, RuntimeError):
    """A solver inside a recorded function did not end at a solution, so there is no value to go on with.

    The message names the solver, why it ended, and the line of your program that called it. Start nearer to the
    solution, loosen its limits, or choose another method; the program may also have been called with arguments for
    which there is no solution.
    """


class RecordingError(JacanaError, TypeError):
    """The program did something with a recorded value that a recording cannot follow.

    A recorded value stands for an array that depends on the arguments being differentiated. When such a value is
    handed to code that only takes numbers (``np.asarray``, a C function, assignment into an array that was made
    outside the recorded function) its dependence would be lost without a word, so jacana refuses. The message says
    what to write instead and gives the line of your program.
    """


class UnsupportedOperationError(RecordingError):
    """A NumPy function, ufunc method or option for which jacana has no derivative rule.

    The message names the function and the line of your program. Write the step with functions that are supported,
    or open an issue that names the function.
    """
