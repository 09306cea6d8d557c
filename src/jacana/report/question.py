"""The question that the project began with, asked and answered as a Python session that is really run."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

import numpy as np

import jacana
from jacana import Variable

__all__ = ["PROGRAM", "QuestionReport", "answer", "transcript"]

PROGRAM = """\
W = jc.Variable(np.arange(15).reshape(3, 5).astype("f"))
x = jc.Variable(np.arange(5).astype("f"))
y = jc.functions.matmul(W, x)
y.grad = np.ones(3, dtype="f")
y.backward()                    # classic: the rows of W summed
x.grad
y.backward(jacobian=True)       # the whole Jacobian instead
x.grad
y.jacobian(x)                   # the same, as a value
"""
"""W x has three outputs. How does one get the whole Jacobian as x.grad, without a loop over the outputs?"""


@dataclass(frozen=True)
class QuestionReport:
    """The session and whether it says what it should.

    Attributes:
        session: the program with what Python answered, as in an interpreter.
        ok: the classic gradient is [15, 18, 21, 24, 27], and both Jacobians are W.
    """

    session: str
    ok: bool


def answer() -> QuestionReport:
    """Run `PROGRAM`.

    >>> answer().ok
    True
    """
    names: dict[str, Any] = {"np": np, "jc": jacana}
    session, results = transcript(PROGRAM, names)
    classic, whole, value = results
    weights = names["W"].data
    ok = classic.tolist() == [15, 18, 21, 24, 27] and all(np.array_equal(weights, J) for J in (whole, value))
    return QuestionReport(session, ok)


def transcript(program: str, names: dict[str, Any]) -> tuple[str, list[Any]]:
    """Run ``program`` in the namespace ``names``; return it as a session and the values of its expressions.

    A value counts as long as it is not None; arrays are copied when they are shown.

    >>> transcript("a = 2\\na + 1", {})
    ('>>> a = 2\\n>>> a + 1\\n3', [3])
    """
    lines = program.splitlines()
    session: list[str] = []
    values: list[Any] = []
    for statement in ast.parse(program).body:
        last = statement.end_lineno or statement.lineno
        first, *rest = lines[statement.lineno - 1 : last]
        session += [f">>> {first}", *(f"... {line}" for line in rest)]
        if not isinstance(statement, ast.Expr):
            exec(compile(ast.Module([statement], []), "<session>", "exec"), names)
            continue
        value = eval(compile(ast.Expression(statement.value), "<session>", "eval"), names)
        if value is not None:
            session += repr(value).splitlines()
            values.append(value.copy() if isinstance(value, (np.ndarray, Variable)) else value)
    return "\n".join(session), values
