"""Fits of the NIST regressions beside the certified values, one problem in detail or all 54 runs at a glance.

``rich.print(summary_table(run_all()))`` prints the second.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.table import Table

from ..datasets import nist
from ..errors import InvalidInputError
from ..optimize import LeastSquaresResult, least_squares

__all__ = ["NistRun", "fit_table", "run_all", "summary_table"]

_LEVELS = ("lower", "average", "higher")
_THRESHOLDS = (4, 6, 9)  # digits at which runs are counted, the usual ones in comparisons of solvers


@dataclass(frozen=True)
class NistRun:
    """One fit of one problem from one start.

    Attributes:
        problem: its name.
        level: NIST's level of difficulty.
        start: 1 (far) or 2 (near).
        digits: correct digits of the worst parameter, 0 to 11.
        standard_error_digits: the same for the standard errors.
        iterations: trial steps.
        residual_evaluations: points at which the residual was evaluated.
        success: whether the solver said that it converged.
        seconds: wall-clock time of the whole fit, with the recording of the residual.
    """

    problem: str
    level: str
    start: int
    digits: float
    standard_error_digits: float
    iterations: int
    residual_evaluations: int
    success: bool
    seconds: float


def run_all(names: Iterable[str] | None = None) -> list[NistRun]:
    """Fit every problem (or those in `names`) from both starts with default settings; return one record for each run.

    Raises:
        InvalidInputError: a name is not that of a problem.

    >>> [run.digits > 9 for run in run_all(["Misra1a"])]
    [True, True]
    """
    problems = [nist.load(name) for name in (nist.names() if names is None else names)]
    return [_run(problem, start) for problem in problems for start in (1, 2)]


def _run(problem: nist.NistProblem, start: int) -> NistRun:
    begin = time.perf_counter()
    result = least_squares(problem.residual, problem.starts[start - 1])
    seconds = time.perf_counter() - begin
    return NistRun(
        problem=problem.name,
        level=problem.level,
        start=start,
        digits=nist.digits(result.x, problem.certified_values),
        standard_error_digits=nist.digits(result.standard_errors, problem.certified_standard_errors),
        iterations=result.nit,
        residual_evaluations=result.nfev,
        success=result.success,
        seconds=seconds,
    )


def fit_table(problem: nist.NistProblem, result: LeastSquaresResult) -> Table:
    """Return a table with a row for each parameter: estimate and standard error, the certified ones, correct digits.

    Args:
        problem: the problem that was fitted.
        result: the fit, with as many parameters as the problem has.

    Raises:
        InvalidInputError: the numbers of parameters differ.

    >>> problem = nist.load("Misra1a")
    >>> fit_table(problem, least_squares(problem.residual, problem.starts[1])).row_count
    2
    """
    count = problem.certified_values.size
    if result.flat.size != count:
        raise InvalidInputError(f"{problem.name} has {count} parameters, the result has {result.flat.size}")
    title = f"NIST {problem.name} ({problem.level} level of difficulty)"
    table = Table(title=title, caption=result.message, box=box.SIMPLE, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("estimate", "std. error", "certified", "std. error", "digits"):
        table.add_column(heading, justify="right", no_wrap=True)
    deviations = np.sqrt(result.covariance.diagonal())
    rows = zip(result.flat, deviations, problem.certified_values, problem.certified_standard_errors, strict=True)
    for k, (estimate, deviation, certified, certified_deviation) in enumerate(rows, start=1):
        digits = nist.digits(estimate, certified)
        fitted = (f"{estimate:.10e}", f"{deviation:.3e}")
        reference = (f"{certified:.10e}", f"{certified_deviation:.3e}")
        table.add_row(f"b{k}", *fitted, *reference, f"{digits:.1f}")
    return table


def summary_table(records: Sequence[NistRun]) -> Table:
    """Return a table with a row for each run, its digits coloured, and below how many runs reach 4, 6 and 9 digits.

    >>> table = summary_table(run_all(["Misra1a", "Thurber"]))
    >>> table.row_count, table.caption
    (4, '4 runs; digits >= 4: 4, >= 6: 4, >= 9: 4; mean 10.7')
    """
    table = Table(title="NIST StRD nonlinear regression", caption=_caption(records), box=box.SIMPLE, pad_edge=False)
    table.add_column("problem", no_wrap=True)
    table.add_column("level", no_wrap=True)
    for heading in ("start", "digits", "of errors", "steps", "residuals", "ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in sorted(records, key=lambda run: (_LEVELS.index(run.level), run.problem, run.start)):
        table.add_row(
            run.problem,
            run.level,
            str(run.start),
            _coloured(run.digits),
            _coloured(run.standard_error_digits),
            str(run.iterations),
            str(run.residual_evaluations),
            f"{1e3 * run.seconds:.1f}",
        )
    return table


def _caption(records: Sequence[NistRun]) -> str:
    if not records:
        return "no runs"
    digits = np.array([run.digits for run in records])
    counts = ", ".join(f">= {limit}: {int(np.count_nonzero(digits >= limit))}" for limit in _THRESHOLDS)
    return f"{digits.size} runs; digits {counts}; mean {digits.mean():.1f}"


def _coloured(digits: float) -> str:
    colour = "green" if digits >= _THRESHOLDS[1] else "yellow" if digits >= _THRESHOLDS[0] else "red"
    return f"[{colour}]{digits:.1f}[/]"
