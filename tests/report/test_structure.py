"""Structures against the matrices themselves: patterns, names, formulas that are evaluated, pictures that are read."""

from __future__ import annotations

import itertools
import math
import re
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from support import RandomProgram, examples, interpret, programs

import jacana as jc
from jacana.differentiate import eliminate, sparse_jacobian
from jacana.graph.node import topological
from jacana.graph.printing import parse_program, program_leaves
from jacana.report import picture
from jacana.report import structure as report
from jacana.report.structure import Structure
from jacana.results import Stacked

Function = Callable[..., Any]
RNG = np.random.default_rng(3)
W = RNG.normal(size=(4, 3))
CHOSEN = RNG.integers(0, 40, size=90)


def stencil(u: Any) -> Any:
    return u[:-2] * u[1:-1] - 3.0 * np.sin(u[2:])


def gather(x: Any) -> Any:
    return np.where(x[CHOSEN] > 0, np.sin(x[CHOSEN]) * x[:1], 0.0)


def assembly(x: Any) -> Any:
    result = np.zeros(12)
    np.add.at(result, np.array([0, 3, 3, 7, 11]), x**2)
    return result


def batch(x: Any) -> Any:
    return np.tanh(x @ W.T)


def nothing(x: Any) -> Any:
    return np.floor(x)


def early_and_late(x: Any) -> Any:
    """Empty rows and columns between blocks of different sizes."""
    y = np.zeros(9) * x[0]
    y[1:3] = x[0] * x[1]
    y[6] = x[4] + x[5]
    return y


def rational(x: Any) -> Any:
    return (x[1:] - (x[:-1] - 2.0) / x[1:]) ** 2 / (1.0 - (-x[1:]) ** 3.0) - np.maximum(x[1:], x[:-1]) * -2.0


def arrow(x: Any) -> Any:
    return np.concatenate([x[:1] * np.sum(x), x[1:] ** 2 * x[0]])


CASES: dict[str, tuple[Function, Any]] = {
    "stencil": (stencil, np.linspace(0.5, 2.0, 9)),
    "long stencil": (stencil, np.linspace(0.5, 2.0, 300)),
    "gather": (gather, RNG.normal(size=40)),
    "assembly": (assembly, np.arange(1.0, 6.0)),
    "batch": (batch, RNG.normal(size=(5, 3))),
    "no derivative": (nothing, np.ones(3)),
    "empty rows": (early_and_late, np.ones(6)),
    "rational": (rational, np.linspace(1.5, 3.0, 7)),
    "arrowhead": (arrow, np.linspace(1.0, 2.0, 8)),
    "scalar of a vector": (lambda x: np.sum(x**2), np.ones(4)),
    "vector of a scalar": (lambda x: x * np.arange(1.0, 5.0), 2.0),
    "scalars": (np.sin, 0.5),
    "empty": (lambda x: x[1:] * 2.0, np.ones(1)),
    "transpose": (lambda x: x.T * 2.0, np.ones((2, 3))),
}
every_case = pytest.mark.parametrize("case", CASES)


def brute_blocks(pattern: Any) -> list[tuple[int, int]] | None:
    """Cut greedily, by the definition."""
    m, n = pattern.shape
    if m < 2 or n < 2 or not pattern.any():
        return None
    places, last = [], 0
    for r in range(1, m):
        above, below = np.flatnonzero(pattern[:r].any(axis=0)), np.flatnonzero(pattern[r:].any(axis=0))
        low, high = (above.max() + 1 if above.size else 0), (below.min() if below.size else n)
        if low <= high:
            c = min(max(r * n // m, low), high)
            assert c >= last
            places.append((r, c))
            last = c
    if not places:
        return None
    edges = [(0, 0), *places, (m, n)]
    return [(r - p, c - q) for (p, q), (r, c) in itertools.pairwise(edges)]


def check_pattern(found: Structure, matrix: Any) -> None:
    pattern = sparse.csr_array((np.ones(matrix.nnz, bool), matrix.indices, matrix.indptr), matrix.shape).toarray()
    row, column = np.nonzero(pattern)
    assert found.shape == matrix.shape
    assert found.exact
    assert found.nnz == matrix.nnz == len(row)
    if matrix.size or min(matrix.shape):
        assert found.density == len(row) / pattern.size
    else:
        assert math.isnan(found.density)
    assert found.entries is not None
    assert np.array_equal(found.entries[0], row)
    assert np.array_equal(found.entries[1], column)
    assert not found.entries[0].flags.writeable
    assert np.array_equal(found.pattern.toarray(), pattern)
    assert found.bandwidth == (max((row - column).max(initial=0), 0), max((column - row).max(initial=0), 0))
    expected = brute_blocks(pattern)
    assert (found.blocks is None) == (expected is None)
    if found.blocks is not None:
        assert list(map(tuple, found.blocks.tolist())) == expected
        assert tuple(found.blocks.sum(axis=0)) == found.shape


@every_case
def test_pattern_is_that_of_the_matrix(case: str) -> None:
    function, x = CASES[case]
    check_pattern(jc.jacobian(function).structure(x), jc.jacobian(function, format="csr")(x))


def energy(x: Any) -> Any:
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def test_hessians_gauss_newton_and_gradients() -> None:
    x = np.linspace(0.5, 2.0, 12)
    found = jc.hessian(energy).structure(x)
    check_pattern(found, jc.hessian(energy, format="csr")(x))
    assert found.bandwidth == (1, 1)
    assert list(found.rows) == list(found.columns) == ["x"]
    found = jc.gauss_newton(stencil).structure(x)
    check_pattern(found, jc.gauss_newton(stencil, format="csr")(x))
    assert found.bandwidth == (2, 2)
    found = jc.grad(energy).structure(x)
    assert (found.shape, found.nnz) == ((1, 12), 12)
    assert jc.value_and_jacobian(stencil).structure(x).nnz == 30
    with pytest.raises(jc.InvalidInputError, match=r"diagonal has no structure; ask one of jacobian, "):
        jc.diagonal(lambda x: x * 2.0).structure(x)


@examples(60)
@given(programs(steps=8))
def test_random_programs_have_the_pattern_of_their_sparse_jacobians(program: RandomProgram) -> None:
    y, x = program.outputs[0], program.inputs[0]
    plan = sparse_jacobian(y, x)
    stacked = Stacked(eliminate([y], [x]).terms[0][0], y.shape, x.shape, np.dtype("f8"))
    row, column = report._entries(stacked, plan.shape)
    assert np.array_equal(row, plan.rows)
    assert np.array_equal(column, plan.cols)
    lower, upper = report._reach(stacked)
    assert lower >= max((row - column).max(initial=0), 0) and upper >= max((column - row).max(initial=0), 0)


@examples(200)
@given(st.integers(0, 2**32 - 1))
def test_blocks_of_random_patterns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pattern = np.zeros((rng.integers(0, 9), rng.integers(0, 9)), dtype=bool)
    r = c = 0
    while r < pattern.shape[0] and c < pattern.shape[1]:
        m, n = rng.integers(0, 4, size=2)
        part = pattern[r : r + m, c : c + n]
        part[...] = rng.random(part.shape) < 0.8
        r, c = r + m, c + n
    row, column = np.nonzero(pattern)
    found = report._blocks(row, column, pattern.shape)
    assert (None if found is None else list(map(tuple, found.tolist()))) == brute_blocks(pattern)


# --- names ----------------------------------------------------------------------------------------------------------


def tree(p: Any, scale: float = 1.0, *, shift: Any) -> Any:
    return {"r": np.tanh(p["W"] @ p["x"]) * scale, "s": [np.sum(p["x"] ** 2) + shift]}


def test_leaves_have_names_and_ranges() -> None:
    p = {"W": W, "x": np.ones(3)}
    found = jc.jacobian(tree).structure(p, 2.0, shift=1.0)
    assert dict(found.rows) == {"y['r']": range(0, 4), "y['s'][0]": range(4, 5)}
    assert dict(found.columns) == {"p['W']": range(0, 12), "p['x']": range(12, 15)}
    with pytest.raises(TypeError):
        found.rows["other"] = range(1)  # type: ignore[index]
    assert "J[y['s'][0], p['x'][i]] += 2*p['x'][i]" in str(found)
    found = jc.jacobian(lambda a, b: a * b, (0, 1)).structure(np.ones(2), np.ones(2))
    assert list(found.columns) == ["a", "b"]
    found = jc.hessian(lambda q: np.sum(q["a"] * q["b"])).structure({"a": np.ones(2), "b": np.ones(2)})
    assert list(found.rows) == list(found.columns) == ["q['a']", "q['b']"]


def test_arguments_without_a_name() -> None:
    assert list(jc.jacobian(np.sin).structure(np.ones(2)).columns) == ["x"]
    found = jc.jacobian(lambda *a: a[0] * a[1], 1).structure(np.ones(2), np.ones(2))
    assert list(found.columns) == ["x1"]


# --- terms ----------------------------------------------------------------------------------------------------------


def rebuilt(found: Structure, names: dict[str, Any]) -> Any:
    """The matrix by reading the printed formulas as Python."""
    written = [(t.domain, t.row, t.column, t.coefficient, t.condition) for t in found.terms]
    nodes = topological(reversed(found._formulas.nodes))
    called = {node: name for node, name in found._formulas._names.items() if node in nodes}
    known = {node: np.asarray(names[name], dtype=float) for node, name in called.items() if name in names}
    values = dict(zip(nodes, interpret(nodes, known), strict=True))
    scope = {name: getattr(np, name) for name in dir(np)}
    scope |= {name: values[node] for node, name in called.items()}
    scope |= {name: table.values for name, table in found._formulas.tables().items()}
    scope |= {f"n{k}": values[node] for k, node in enumerate(nodes)}
    matrix = np.zeros((*found._stacked.rows, *found._stacked.cols))

    def read(text: str, at: dict[str, int]) -> Any:
        text = re.sub(r"%(\d+)", r"n\1", text)
        text = re.sub(r"(\[[\d, \[\]]+\])\[", r"array(\1)[", text)
        return eval(text, {**scope, **at})

    for domain, row, column, coefficient, condition in written:
        for point in np.ndindex(*domain.values()):
            at = dict(zip(domain, point, strict=True))
            if not condition or read(condition, at):
                r, c = read(row, at), read(column, at)
                place = (*(r if isinstance(r, tuple) else (r,)), *(c if isinstance(c, tuple) else (c,)))
                matrix[place] += read(coefficient, at)
    return matrix.reshape(found.shape)


@every_case
def test_printed_formulas_are_the_jacobian(case: str) -> None:
    function, x = CASES[case]
    found = jc.jacobian(function).structure(x)
    name = next(iter(found.columns))
    expected = jc.jacobian(function, format="csr")(x).toarray()
    np.testing.assert_allclose(rebuilt(found, {name: np.asarray(x)}), expected, rtol=1e-12, atol=1e-12)


def test_printed_formulas_are_the_hessian() -> None:
    x = np.linspace(0.5, 2.0, 6)
    found = jc.hessian(energy).structure(x)
    np.testing.assert_allclose(rebuilt(found, {"x": x}), jc.hessian(energy)(x), rtol=1e-12)
    assert "{i: 5}  J[i + 1, i] += -400*x[i]" in map(str, found.terms)


def test_page_of_a_stencil() -> None:
    page = str(jc.jacobian(stencil, order="forward").structure(np.linspace(0.5, 2.0, 6)))
    assert page == (
        "jacobian of stencil\n"
        "  shape      4 x 6\n"
        "  rows       y [0:4]\n"
        "  columns    u [0:6]\n"
        "  entries    12, 50%\n"
        "  bandwidth  0 below and 2 above the diagonal\n"
        "  blocks     not block-diagonal\n"
        f"{next(line for line in page.splitlines() if line.startswith('  order      forward: 7 vertices, about '))}\n"
        "  auto       dense: a matrix of 24 entries is not worth indices (up to 4,096)\n"
        "  terms      3\n"
        f"{chr(10).join(page.splitlines()[10:13])}\n"
        "  ┌──────┐\n"
        "  │•••···│\n"
        "  │·•••··│\n"
        "  │··•••·│\n"
        "  │···•••│\n"
        "  └──────┘"
    )
    assert sorted(page.splitlines()[10:13]) == [
        "    {i: 4}  J[i, i + 1] += u[i]",
        "    {i: 4}  J[i, i + 2] += -3*cos(u[i + 2])",
        "    {i: 4}  J[i, i] += u[i + 1]",
    ]


def test_masks_tables_and_many_terms() -> None:
    page = str(jc.jacobian(gather).structure(RNG.normal(size=40)))
    assert "J[i, t0[i]] += x[0]*cos(x[t0[i]])  where x[t0[i]] > 0" in page
    assert f"t0: a table of 90 integers, {CHOSEN.min()} to {CHOSEN.max()}" in page

    def unrolled(x: Any) -> Any:
        bodies = (np.sin, np.cos, np.exp)  # too few copies of each to be rolled into a vector
        return np.array([x[0] * bodies[k % 3](x[k]) for k in range(25)])

    found = jc.jacobian(unrolled).structure(np.ones(25))
    assert len(found.terms) > 40
    assert f"... and {len(found.terms) - 16} more" in str(found)
    assert "and 1 more" not in str(found)


def test_long_coefficients_are_numbered_in_the_program() -> None:
    def long(x: Any) -> Any:
        return np.exp(np.sin(np.cos(np.tanh(np.sinh(x) * x) + x) * x) + np.log(x))

    found = jc.jacobian(long).structure(np.ones(3))
    (term,) = found.terms
    number = re.fullmatch(r"%(\d+)\[i\]", term.coefficient)
    assert number is not None
    assert f"%{number[1]} = " in found.program
    assert found.program.splitlines()[0] == "  # x0 is x"
    assert found.program.splitlines()[-1] == f"return %{number[1]}"
    (node,) = parse_program(found.program, program_leaves(found._formulas.nodes))
    assert node is term.term.factors[0][0]


# --- orders and formats ---------------------------------------------------------------------------------------------


def test_orders_are_compared() -> None:
    def tall(x: Any) -> Any:
        return np.tanh(np.exp(np.sum(x) * np.arange(50.0)))

    found = jc.jacobian(tall).structure(np.ones(2))
    costs = {estimate.order: estimate.cost for estimate in found.orders}
    assert set(costs) == {"forward", "reverse", "cost"}
    assert all(estimate.complete for estimate in found.orders)
    assert costs[found.order] == min(costs.values())
    for order, cost in costs.items():
        asked = jc.jacobian(tall, order=order).structure(np.ones(2))  # type: ignore[arg-type]
        assert (asked.order, asked.orders[0].cost) == (order, cost)
        assert {estimate.order: estimate.cost for estimate in asked.orders} == costs


def test_planning_stays_sane(monkeypatch: pytest.MonkeyPatch) -> None:
    def chain(x: Any) -> Any:
        for _ in range(30):
            x = np.sin(x)
        return x

    monkeypatch.setattr(report, "MAX_COMPARED", 29)
    found = jc.jacobian(chain).structure(np.ones(3))
    assert [estimate.order for estimate in found.orders] == [found.order]
    assert "other orders are compared up to 29 vertices" in str(found)
    monkeypatch.setattr(report, "MAX_COMPARED", 400)
    monkeypatch.setattr(report, "MAX_PAIRS", 5)
    found = jc.jacobian(chain).structure(np.ones(3))
    assert [estimate.complete for estimate in found.orders] == [True, False, False]
    assert "more than" in str(found)


def rank_one(x: Any) -> Any:
    return x * np.sum(x)


@pytest.mark.parametrize(
    ("function", "size", "expected"),
    [(stencil, 20, "dense"), (stencil, 200, "csr"), (rank_one, 100, "dense"), (rank_one, 5000, "operator")],
)
def test_auto_is_what_a_call_does(function: Function, size: int, expected: str) -> None:
    x = np.linspace(0.5, 2.0, size)
    found = jc.jacobian(function).structure(x)
    kind = type(jc.jacobian(function, format="auto")(x)).__name__
    assert found.format == expected == {"ndarray": "dense", "csr_array": "csr", "JacobianOperator": "operator"}[kind]
    assert f"  auto       {expected}: " in str(found)


# --- too many entries to count --------------------------------------------------------------------------------------


@every_case
def test_uncounted_structures_are_bounds(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, x = CASES[case]
    exact = jc.jacobian(function).structure(x)
    monkeypatch.setattr(report, "MAX_COUNTED", -1)
    found = jc.jacobian(function).structure(x)
    assert not found.exact
    assert found.entries is None and found.blocks is None
    assert exact.nnz <= found.nnz <= found.shape[0] * found.shape[1]
    assert all(a <= b for a, b in zip(exact.bandwidth, found.bandwidth, strict=True))
    assert "at most" in str(found)
    assert found.picture() == exact.picture()
    with pytest.raises(jc.InvalidInputError, match="was not written out"):
        _ = found.pattern


def test_a_trillion_entries() -> None:
    found = jc.jacobian(rank_one).structure(np.ones(10**6))
    assert found.shape == (10**6, 10**6)
    assert found.nnz == 10**12
    assert not found.exact
    assert found.format == "operator"
    assert found.grid(10, 20).shape == (10, 10)
    assert found.grid(10, 20).all()
    assert "⣿" in str(found)


def test_a_large_pattern_takes_little_memory() -> None:
    J = jc.jacobian(stencil)
    J.structure(np.ones(50))
    x = np.ones(300_000)
    tracemalloc.start()
    try:
        found = J.structure(x)
        str(found)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.nnz == 3 * (len(x) - 2)
    # The entries themselves take 8 bytes each; sorting them 8 more for the keys and 8 for the room to merge.
    assert peak < 60 * found.nnz


# --- pictures -------------------------------------------------------------------------------------------------------


@examples(100)
@given(st.integers(0, 2**32 - 1))
def test_braille_and_cells_can_be_read_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 30, size=2))
    count = int(rng.integers(0, 40))
    row, column = (rng.integers(0, n, size=count) for n in shape)
    grid_shape = picture.grid_size(shape, int(rng.integers(1, 20)), int(rng.integers(1, 20)))
    assert all(1 <= g <= n for g, n in zip(grid_shape, shape, strict=True))
    grid = picture.cells(row, column, shape, grid_shape)
    expected = np.zeros(grid_shape, dtype=bool)
    for r, c in zip(row, column, strict=True):
        expected[r * grid_shape[0] // shape[0], c * grid_shape[1] // shape[1]] = True
    assert np.array_equal(grid, expected)
    order = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 0), (3, 1)]  # of the Unicode standard
    back = np.zeros((4 * -(-grid_shape[0] // 4), 2 * -(-grid_shape[1] // 2)), dtype=bool)
    for k, line in enumerate(picture.braille(grid)):
        for n, c in enumerate(line):
            for bit, (i, j) in enumerate(order):
                back[4 * k + i, 2 * n + j] = (ord(c) - 0x2800) >> bit & 1
    assert np.array_equal(back[: grid_shape[0], : grid_shape[1]], grid)
    assert back.sum() == grid.sum()


@pytest.mark.parametrize(("rows", "columns"), [(24, 48), (25, 48), (24, 49), (1, 10_000), (10_000, 1), (500, 1000)])
def test_pictures_fit_a_terminal(rows: int, columns: int) -> None:
    place = np.arange(rows) * columns // rows
    found = jc.jacobian(lambda x: x[place] * 2.0).structure(np.ones(columns))
    lines = found.picture().splitlines()
    assert len({len(line) for line in lines}) == 1
    exact = (rows, columns) == (24, 48)
    assert len(lines[0]) <= 62 and len(lines) <= 26
    assert any("•" in line for line in lines) == exact
    assert all(set(line[1:-1]) != {"⠀"} for line in lines[1:-1])  # something of the diagonal in every line


def test_html_and_svg_are_well_formed_and_show_every_entry() -> None:
    found = jc.jacobian(lambda x: np.tanh(x @ W.T)).structure(np.ones((5, 3)))
    svg = ElementTree.fromstring(found._repr_svg_())
    space = "{http://www.w3.org/2000/svg}"
    path = svg.find(f"{space}path")
    assert path is not None
    runs = re.findall(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z", path.attrib["d"])
    shown = np.zeros(found.shape, dtype=bool)
    for start, line, length, back in runs:
        assert length == back
        shown[int(line), int(start) : int(start) + int(length)] = True
    assert np.array_equal(shown, found.pattern.toarray())
    assert len(svg.findall(f"{space}rect")) == 1 + 5  # the frame and five blocks
    page = found._repr_html_()
    assert "jacobian of &lt;lambda&gt;" in page
    ElementTree.fromstring(page)
    empty = jc.jacobian(lambda x: x[1:]).structure(np.ones(1))
    ElementTree.fromstring(empty._repr_html_())
    two = jc.jacobian(tree).structure({"W": W, "x": np.ones(3)}, shift=0.0)
    assert len(ElementTree.fromstring(two._repr_svg_()).findall(f"{space}line")) == 2


def test_plot_marks_blocks_and_band() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = jc.jacobian(lambda x: np.tanh(x @ W.T)).structure(np.ones((5, 3)))
    figure, ax = pyplot.subplots()
    assert found.plot(ax) is ax
    assert len(ax.patches) == 5
    assert np.array_equal(ax.images[0].get_array().astype(bool), found.pattern.toarray())
    assert ax.images[0].get_extent() == [-0.5, 14.5, 19.5, -0.5]
    banded = jc.jacobian(stencil).structure(np.ones(3000))
    other = banded.plot()
    assert len(other.lines) == 2
    assert max(other.images[0].get_array().shape) == picture.PLOT_CELLS
    figure.canvas.draw()
    other.figure.canvas.draw()
    pyplot.close("all")


def test_plot_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'jacana\[plot\]'"):
        jc.jacobian(stencil).structure(np.ones(5)).plot()
