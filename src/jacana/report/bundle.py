"""The Jacobian of a real bundle adjustment: what it looks like, whether it is right, and what it costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from scipy import sparse

from ..datasets.bal import CAMERA_SIZE, POINT_SIZE, BalProblem
from ..differentiate import eliminate
from ..graph.index import Affine, Index, Lookup, from_table
from ..graph.node import Term
from ..graph.printing import axis_name, index_text
from ..record import as_node, record
from ..run import executor, native_available
from ..transforms import jacobian
from .check import Comparison, compare

__all__ = ["BundleReport", "TermGroup", "Timing", "examine", "render"]

SECONDS = 0.6  # how long each executor is measured
MIN_CALLS, MAX_CALLS = 5, 100


@dataclass(frozen=True)
class TermGroup:
    """Terms that differ only in constants of their row and column.

    Attributes:
        domain: the named axes with their sizes, as text.
        row, column: index notation, as text; constants that differ stand in braces.
        terms: how many there are.
        masked: how many of them have a mask.
    """

    domain: str
    row: str
    column: str
    terms: int
    masked: int


@dataclass(frozen=True)
class Timing:
    """What one executor needed.

    Attributes:
        executor: its name.
        first: seconds until the first Jacobian: recording, elimination, planning, compiling and running.
        each: seconds for one Jacobian after that, the median of all calls.
        calls: how many.
    """

    executor: str
    first: float
    each: float
    calls: int


@dataclass(frozen=True)
class BundleReport:
    """What `examine` found.

    Attributes:
        cameras, points, observations: size of the problem.
        shape, nnz: of the Jacobian.
        blocks: every observation has one 2 x 9 block (its camera) and one 2 x 3 block (its point), nothing else.
        vertices: nodes between argument and result that were eliminated.
        groups: the terms of the Jacobian.
        comparison: with finite differences.
        function: seconds for the residual alone, in plain NumPy.
        timings: one for each executor.
        gap: largest difference between the executors, relative to the largest entry; None if there is only one.
    """

    cameras: int
    points: int
    observations: int
    shape: tuple[int, int]
    nnz: int
    blocks: bool
    vertices: int
    groups: tuple[TermGroup, ...]
    comparison: Comparison
    function: float
    timings: tuple[Timing, ...]
    gap: float | None

    @property
    def density(self) -> float:
        """Share of the entries that are stored."""
        return self.nnz / (self.shape[0] * self.shape[1])

    @property
    def ok(self) -> bool:
        """The blocks are as expected, the differences agree, and so do the executors."""
        return self.blocks and self.comparison.ok and (self.gap is None or self.gap < 1e-10)


def examine(problem: BalProblem) -> BundleReport:
    """Derive, time and check the Jacobian of the residuals by all cameras and points, at the start.

    >>> from jacana.datasets import bal
    >>> report = examine(bal.load().first(300))
    >>> report.ok, report.nnz == report.observations * 2 * (9 + 3)
    (True, True)
    """
    x = problem.x0
    names = ("numpy", "native") if native_available() else ("numpy",)
    timings, matrices = zip(*(_timed(problem, x, name) for name in names), strict=True)
    matrix = matrices[0]
    found = record(problem.residual, [x])
    elimination = eliminate([as_node(found.result)], list(found.inputs))
    largest = float(np.abs(matrix.data).max())
    return BundleReport(
        cameras=len(problem.cameras),
        points=len(problem.points),
        observations=len(problem.observations),
        shape=matrix.shape,
        nnz=matrix.nnz,
        blocks=_has_blocks(problem, matrix),
        vertices=elimination.vertices,
        groups=_grouped(elimination.terms[0][0], problem),
        comparison=compare(problem.residual, x, jacobian_of=lambda _: matrix),
        function=_repeated(lambda: problem.residual(x))[0],
        timings=timings,
        gap=float(np.abs(matrices[0].data - matrices[1].data).max()) / largest if len(matrices) == 2 else None,
    )


def _timed(problem: BalProblem, x: Any, name: Any) -> tuple[Timing, sparse.csr_array]:
    J = jacobian(problem.residual, format="csr")
    with executor(name):
        begin = time.perf_counter()
        matrix = J(x)
        first = time.perf_counter() - begin
        each, calls = _repeated(lambda: J(x))
    return Timing(name, first, each, calls), matrix


def _repeated(call: Callable[[], object]) -> tuple[float, int]:
    """The median time of a call, and of how many."""
    seconds: list[float] = []
    while len(seconds) < MIN_CALLS or (sum(seconds) < SECONDS and len(seconds) < MAX_CALLS):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds), len(seconds)


def _has_blocks(problem: BalProblem, matrix: sparse.csr_array) -> bool:
    """Whether both rows of every observation have the columns of its camera and its point, and no others."""
    camera = CAMERA_SIZE * problem.camera_index[:, None] + np.arange(CAMERA_SIZE)
    point = problem.cameras.size + POINT_SIZE * problem.point_index[:, None] + np.arange(POINT_SIZE)
    columns = np.repeat(np.concatenate((camera, point), axis=1), 2, axis=0)
    pointers = np.arange(0, columns.size + 1, columns.shape[1])
    return np.array_equal(matrix.indptr, pointers) and np.array_equal(matrix.indices, columns.ravel())


# --- terms in words -------------------------------------------------------------------------------------------------


def _grouped(terms: Sequence[Term], problem: BalProblem) -> tuple[TermGroup, ...]:
    """Terms whose row and column differ by constants only, counted together, the largest domains first."""
    groups: dict[Any, list[Term]] = {}
    for term in terms:
        rows = tuple(_split(e, term.domain, problem)[0] for e in term.row)
        cols = tuple(_split(e, term.domain, problem)[0] for e in term.col)
        groups.setdefault((term.domain, rows, cols), []).append(term)
    result = []
    for (domain, rows, cols), members in groups.items():
        text = ", ".join(f"{axis_name(a)}: {n:,}" for a, n in enumerate(domain))
        row = ", ".join(
            _with_offsets(part, {_split(t.row[k], domain, problem)[1] for t in members}) for k, part in enumerate(rows)
        )
        column = ", ".join(
            _with_offsets(part, {_split(t.col[k], domain, problem)[1] for t in members}) for k, part in enumerate(cols)
        )
        masked = sum(bool(t.masks) for t in members)
        result.append((int(np.prod(domain)), TermGroup(text, f"({row})", f"({column})", len(members), masked)))
    return tuple(group for _, group in sorted(result, key=lambda pair: (-pair[0], pair[1].column, pair[1].row)))


def _split(expression: Index, domain: Sequence[int], problem: BalProblem) -> tuple[str, int]:
    """An index expression as text without its constant, and the constant; tables of the problem by their names."""
    if isinstance(expression, Affine):
        return index_text(Affine(0, expression.strides)) if expression.strides else "", expression.offset
    assert isinstance(expression, Lookup)
    values, axes = expression.table.values, expression.axes
    for name, stride, index in (
        ("point", POINT_SIZE, problem.point_index),
        ("camera", CAMERA_SIZE, problem.camera_index),
    ):
        if domain[axes[0]] != len(index):
            continue
        rest = values - stride * index.reshape(-1, *(1,) * (values.ndim - 1))
        if (rest == rest[:1]).all():
            remainder = from_table(rest[0], axes[1:])
            assert isinstance(remainder, Affine)
            looked_up = f"{stride}*{name}[{axis_name(axes[0])}]"
            moving = f" + {index_text(Affine(0, remainder.strides))}" if remainder.strides else ""
            return looked_up + moving, remainder.offset
    return index_text(expression), 0


def _with_offsets(text: str, offsets: set[int]) -> str:
    if offsets == {0}:
        return text or "0"
    constants = sorted(offsets)
    spans = len(constants) > 2 and constants == list(range(constants[0], constants[-1] + 1))
    listed = f"{constants[0]}..{constants[-1]}" if spans else ", ".join(map(str, constants))
    constant = listed if len(constants) == 1 else f"{{{listed}}}"
    return f"{constant} + {text}" if text else constant


# --- for the terminal -----------------------------------------------------------------------------------------------


def render(report: BundleReport) -> RenderableType:
    """The report as text and tables."""
    rows, columns = report.shape
    terms = sum(group.terms for group in report.groups)
    only = "" if report.blocks else "NOT just "
    head = (
        f"{report.cameras} cameras, {report.points:,} points, {report.observations:,} observations, two residuals each",
        f"Jacobian: {rows:,} x {columns:,}, {report.nnz:,} entries, density {report.density:.1e}",
        f"structure: {only}one 2 x {CAMERA_SIZE} block (camera) and one 2 x {POINT_SIZE} block (point) per observation",
        f"{terms} terms J[row, column] += coefficient, found by eliminating {report.vertices} nodes:",
    )
    if report.gap is None:
        last = "The native executor is left out: it needs llvmlite (pip install 'jacana[native]')."
    else:
        last = f"largest difference between the executors: {report.gap:.1e} of the largest entry"
    return Group(
        *map(Text, head),
        _terms_table(report.groups),
        Text(_verdict(report.comparison)),
        _timing_table(report),
        Text(last),
    )


def _verdict(check: Comparison) -> str:
    if check.worst is None:
        return "nothing to compare with finite differences"
    outcome = "agree" if check.ok else f"DISAGREE in {check.wrong:,} places"
    return (
        f"finite differences in {check.directions} directions {outcome}: {check.compared:,} entries compared "
        f"to {check.tolerance:.0e}\n"
        f"worst entry: row {check.worst.row}, column {check.worst.column[0]}: {check.worst.jacobian:.9g}, "
        f"differences {check.worst.difference:.9g}"
    )


def _terms_table(groups: Sequence[TermGroup]) -> Table:
    table = Table()
    for heading in ("domain", "row", "column"):
        table.add_column(heading)
    table.add_column("terms", justify="right")
    table.add_column("masked", justify="right")
    for group in groups:
        column = group.column.removeprefix("(").removesuffix(")")
        table.add_row(group.domain, group.row, Text(column), str(group.terms), str(group.masked or ""))
    return table


def _timing_table(report: BundleReport) -> Table:
    table = Table()
    table.add_column("executor")
    for heading in ("first Jacobian, s", "each after that, ms", "residual evaluations"):
        table.add_column(heading, justify="right")
    for timing in report.timings:
        times = timing.each / report.function
        table.add_row(timing.executor, f"{timing.first:.2f}", f"{1e3 * timing.each:.2f}", f"{times:.2f}")
    table.caption = f"one residual evaluation, in plain NumPy: {1e3 * report.function:.1f} ms"
    return table
