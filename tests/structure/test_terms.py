"""The algebra of terms against dense matrices that are written out entry by entry."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import BOOL, F4, F8, Array, close, examples, index_values, interpret, op, places, ramp, table, total

from jacana.differentiate import dense_jacobians, sparse_jacobian
from jacana.graph import build
from jacana.graph.index import Affine, Index, Lookup, axes_of, evaluate, from_table
from jacana.graph.node import Node, Term, new_input
from jacana.structure.merging import add_outer_products
from jacana.structure.operator import product_node
from jacana.structure.terms import add_terms, coefficient, compose, compose_terms, normalise

Values = dict[Node, Array]


def dense(terms: list[Term], rows: tuple[int, ...], cols: tuple[int, ...], values: Values) -> Array:
    """The matrix of a sum of terms by the definition: no entry where a mask is false, whatever the factors are."""
    matrix = np.zeros((math.prod(rows), math.prod(cols)))
    for term in terms:
        sizes = term.domain
        grid = np.indices(sizes)
        coefficient = np.ones(sizes)
        for node, axes in term.factors:
            assert node.shape == tuple(sizes[a] for a in axes), (term, node)
            (array,) = interpret([node], values)
            coefficient = coefficient * array[tuple(grid[a] for a in axes)]
        keep = np.ones(sizes, dtype=bool)
        for node, axes in term.masks:
            assert node.dtype == BOOL
            assert node.shape == tuple(sizes[a] for a in axes), (term, node)
            (array,) = interpret([node], values)
            keep &= array[tuple(grid[a] for a in axes)]
        row = sum(
            (places(term.row, sizes)[k] * math.prod(rows[k + 1 :]) for k in range(len(rows))), np.zeros(sizes, int)
        )
        col = sum(
            (places(term.col, sizes)[k] * math.prod(cols[k + 1 :]) for k in range(len(cols))), np.zeros(sizes, int)
        )
        np.add.at(matrix, (row[keep], col[keep]), coefficient[keep])
    return matrix


def stored(terms: list[Term], rows: tuple[int, ...], cols: tuple[int, ...], values: Values) -> Array:
    """The same by ``coefficient``, the array that is stored in the end."""
    matrix = np.zeros((math.prod(rows), math.prod(cols)))
    for term in terms:
        (array,) = interpret([coefficient(term)], values)
        plain = Term(term.domain, term.row, term.col)
        assert array.shape == term.domain
        hold = new_input(term.domain, F8)
        matrix += dense([plain._replace(factors=((hold, tuple(range(len(term.domain)))),))], rows, cols, {hold: array})
    return matrix


def check_normal(term: Term) -> None:
    """Every axis is longer than one and occurs in row or column; axes are numbered as they occur."""
    seen = list(dict.fromkeys(a for e in (*term.row, *term.col) for a in axes_of(e)))
    assert seen == list(range(len(term.domain))), term
    assert all(n > 1 for n in term.domain), term
    for e in (*term.row, *term.col):
        if isinstance(e, Lookup):
            assert e.table.values.shape == tuple(term.domain[a] for a in e.axes), (term, e)
        assert np.array_equal(np.broadcast_to(evaluate(e, term.domain), term.domain), index_values(e, term.domain))
    assert len(term.masks) <= 1
    for axes, others in itertools.permutations([axes for _, axes in term.factors], 2):
        assert not set(axes) <= set(others), term


@st.composite
def expressions(draw, sizes: tuple[int, ...]) -> Index:
    """An index expression over a domain, its least value 0 or a little more."""
    rank = len(sizes)
    kinds = ["constant"] + ["axis", "affine", "table", "digits", "axis"] * (rank > 0)
    kind = draw(st.sampled_from(kinds))
    if kind == "constant":
        return Affine(draw(st.integers(0, 2)))
    axes = draw(st.lists(st.integers(0, rank - 1), min_size=1, max_size=2, unique=True))
    if kind == "axis":
        return ramp(axes[0])
    if kind == "table":
        shape = tuple(sizes[a] for a in axes)
        values = draw(st.lists(st.integers(0, 3), min_size=math.prod(shape), max_size=math.prod(shape)))
        return from_table(np.array(values, dtype=np.int64).reshape(shape), axes)
    if kind == "digits":
        return Affine(0, tuple(sorted((a, math.prod(sizes[b] for b in axes[k + 1 :])) for k, a in enumerate(axes))))
    strides = {a: draw(st.sampled_from([1, 1, 2, 3, -1, -2])) for a in axes}
    low = sum(min(0, s * (sizes[a] - 1)) for a, s in strides.items() if sizes[a])
    return Affine(draw(st.integers(0, 2)) - low, tuple(sorted(strides.items())))


def extent(e: Index, sizes: tuple[int, ...]) -> int:
    values = index_values(e, sizes)
    return int(values.max()) + 1 if values.size else 1


@st.composite
def coefficients(draw, sizes: tuple[int, ...], values: Values, rng: np.random.Generator) -> tuple[list, list]:
    """Random factors and masks; where a mask alone decides, the factor over the same axes is not a number."""
    rank = len(sizes)
    subsets = st.lists(st.integers(0, rank - 1), unique=True, max_size=rank) if rank else st.just([])
    factors, masks = [], []
    for _ in range(draw(st.integers(0, 2))):
        axes = tuple(draw(subsets))
        node = new_input(tuple(sizes[a] for a in axes), F8)
        values[node] = rng.uniform(0.5, 1.5, size=node.shape)
        factors.append((node, axes))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        axes = tuple(draw(subsets))
        mask = new_input(tuple(sizes[a] for a in axes), BOOL)
        values[mask] = np.asarray(rng.random(mask.shape) < 0.6)
        masks.append((mask, axes))
        node = new_input(mask.shape, F8)
        values[node] = np.where(values[mask], rng.uniform(0.5, 1.5, size=mask.shape), rng.choice([np.nan, np.inf]))
        factors.append((node, axes))
    return factors, masks


@st.composite
def term_pairs(draw):
    """Terms of ``b <- u`` and ``u <- a``, the shapes of b, u and a, and values for the factors."""
    values: Values = {}
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    ranks = [draw(st.integers(0, 2)) for _ in range(3)]
    domains = [tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 2, 3, 5]), max_size=3))) for _ in range(2)]
    row_b = [draw(expressions(domains[0])) for _ in range(ranks[0])]
    col_u = [draw(expressions(domains[0])) for _ in range(ranks[1])]
    row_u = [draw(expressions(domains[1])) for _ in range(ranks[1])]
    col_a = [draw(expressions(domains[1])) for _ in range(ranks[2])]
    shape_b = tuple(extent(e, domains[0]) for e in row_b)
    shape_u = tuple(max(extent(x, domains[0]), extent(y, domains[1])) for x, y in zip(col_u, row_u, strict=True))
    shape_a = tuple(extent(e, domains[1]) for e in col_a)
    terms = []
    for domain, row, col in ((domains[0], row_b, col_u), (domains[1], row_u, col_a)):
        factors, masks = draw(coefficients(domain, values, rng))
        terms.append(Term(domain, tuple(row), tuple(col), tuple(factors), tuple(masks)))
    return terms[0], terms[1], shape_b, shape_u, shape_a, values


@examples(400)
@given(term_pairs())
def test_composition_is_the_matrix_product(case):
    outer, inner, b, u, a, values = case
    expected = dense([outer], b, u, values) @ dense([inner], u, a, values)
    composed = compose(outer, inner)
    found = [] if composed is None else [composed]
    for term in found:
        check_normal(term)
    close(dense(found, b, a, values), expected, 1e-13, composed)
    close(stored(found, b, a, values), expected, 1e-13, composed)


@examples(200)
@given(term_pairs())
def test_composition_of_normal_forms_is_the_matrix_product(case):
    outer, inner, b, u, a, values = case
    expected = dense([outer], b, u, values) @ dense([inner], u, a, values)
    outers, inners = [t for t in [normalise(outer)] if t], [t for t in [normalise(inner)] if t]
    found = add_terms(compose_terms(tuple(outers), tuple(inners)))
    close(dense(list(found), b, a, values), expected, 1e-13)


@examples(250)
@given(term_pairs())
def test_normal_form_is_the_same_matrix(case):
    for term, rows, cols in ((case[0], case[2], case[3]), (case[1], case[3], case[4])):
        values = case[5]
        found = normalise(term)
        assert found is not None
        check_normal(found)
        expected = dense([term], rows, cols, values)
        close(dense([found], rows, cols, values), expected, 1e-13, found)
        close(stored([found], rows, cols, values), expected, 1e-13, found)


@st.composite
def like_terms(draw):
    """Two to four terms over the same domain, most of them of the same structure."""
    values: Values = {}
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    domain = tuple(draw(st.lists(st.sampled_from([2, 3, 4]), max_size=2)))
    structures = []
    for _ in range(2):
        structures.append((tuple(draw(expressions(domain)) for _ in range(1)), (draw(expressions(domain)),)))
    terms = []
    for _ in range(draw(st.integers(2, 4))):
        row, col = draw(st.sampled_from([structures[0], structures[0], structures[1]]))
        factors, masks = draw(coefficients(domain, values, rng))
        terms.append(Term(domain, row, col, tuple(factors), tuple(masks)))
    every_row, every_col = zip(*structures, strict=True)
    rows = (max(extent(e[0], domain) for e in every_row),)
    cols = (max(extent(e[0], domain) for e in every_col),)
    return terms, rows, cols, values


@examples(300)
@given(like_terms())
def test_addition_is_the_sum_of_matrices(case):
    terms, rows, cols, values = case
    expected = dense(terms, rows, cols, values)
    normal = [t for t in map(normalise, terms) if t is not None]
    found = list(add_terms(normal))
    assert len(found) <= len(normal)
    close(dense(found, rows, cols, values), expected, 1e-13)
    close(stored(found, rows, cols, values), expected, 1e-13)


def test_equal_structures_become_one_term_and_others_do_not():
    x, y = new_input((4,), F8), new_input((4,), F8)
    one = Term((4,), (ramp(0),), (ramp(0),), ((x, (0,)),))
    two = Term((4,), (ramp(0),), (ramp(0),), ((y, (0,)),))
    other = Term((4,), (ramp(0),), (ramp(0, -1, 3),), ((y, (0,)),))
    assert len(add_terms([one, two])) == 1
    assert len(add_terms([one, other, two])) == 2


def test_outer_products_stay_factored():
    x, y = new_input((4,), F8), new_input((5,), F8)
    term = normalise(Term((4, 5), (ramp(0),), (ramp(1),), ((x, (0,)), (y, (1,)))))
    assert term is not None
    assert {node for node, _ in term.factors} == {x, y}


# --- particular joins -------------------------------------------------------------------------------------------


def join(outer: tuple, inner: tuple, u: tuple[int, ...]) -> tuple[Term | None, Array, Array]:
    """``outer`` and ``inner`` are (domain, row, col); every coefficient is random."""
    rng = np.random.default_rng(3)
    values: Values = {}
    terms = []
    for domain, row, col in (outer, inner):
        node = new_input(domain, F8)
        values[node] = rng.uniform(0.5, 1.5, size=domain)
        terms.append(Term(domain, row, col, ((node, tuple(range(len(domain)))),)))
    b = tuple(extent(e, outer[0]) for e in outer[1])
    a = tuple(extent(e, inner[0]) for e in inner[2])
    composed = compose(*terms)
    found = [] if composed is None else [composed]
    expected = dense([terms[0]], b, u, values) @ dense([terms[1]], u, a, values)
    close(dense(found, b, a, values), expected, 1e-13, composed)
    return composed, expected, dense(found, b, a, values)


def test_digits_that_cross():
    # i + 3 j against 3 i' + j', with i = i' and j = j' known already: only i = j is left.
    outer = ((3, 3), (ramp(0), ramp(1)), (ramp(0), ramp(1), Affine(0, ((0, 1), (1, 3)))))
    inner = ((3, 3), (ramp(0), ramp(1), Affine(0, ((0, 3), (1, 1)))), (ramp(0), ramp(1)))
    join(outer, inner, (3, 3, 9))


def test_digits_of_different_lengths_are_cropped():
    outer = ((2, 5), (ramp(0), ramp(1)), (Affine(0, ((0, 1), (1, 4))),))
    inner = ((4, 3), (Affine(0, ((0, 1), (1, 4))),), (ramp(0), ramp(1)))
    composed, _, _ = join(outer, inner, (20,))
    assert composed is not None
    assert composed.domain == (2, 3)


def test_reshape_of_a_reshape_stays_affine():
    merge = ((4, 6), (Affine(0, ((0, 6), (1, 1))),), (ramp(0), ramp(1)))
    split = ((4, 6), (ramp(0), ramp(1)), (Affine(0, ((0, 6), (1, 1))),))
    composed, _, _ = join(split, merge, (24,))
    assert composed is not None
    assert composed.domain == (4, 6)
    assert all(isinstance(e, Affine) for e in (*composed.row, *composed.col))


def test_digits_that_overlap_are_no_digits():
    # i + 2 j with i < 3: two is (2, 0) as well as (0, 1).
    overlapping = Affine(0, ((0, 1), (1, 2)))
    composed, expected, _ = join(
        ((3, 4), (ramp(0), ramp(1)), (overlapping,)), ((3, 4), (overlapping,), (ramp(0), ramp(1))), (9,)
    )
    assert composed is not None
    assert np.count_nonzero(expected) == 18


def test_mixed_radices_that_differ_need_a_table():
    outer = ((3, 8), (ramp(0), ramp(1)), (Affine(0, ((0, 8), (1, 1))),))
    inner = ((4, 6), (Affine(0, ((0, 6), (1, 1))),), (ramp(0), ramp(1)))
    composed, _, _ = join(outer, inner, (24,))
    assert composed is not None
    assert math.prod(composed.domain) == 24


@pytest.mark.parametrize("stride", [1, -1, 2, -2, 3])
@pytest.mark.parametrize("offset", [-4, -1, 0, 2, 5])
@pytest.mark.parametrize("side", ["outer", "inner"])
def test_crops(stride, offset, side):
    # A slice of a longer array meets a part that covers only some of it.
    low = max(0, -min(0, 4 * stride))
    sliced = ((5,), (ramp(0),), (ramp(0, stride, low + 4),))
    part = ((4,), (ramp(0, 1, low + 4 + offset),), (ramp(0),))
    if side == "inner":
        sliced, part = (part[0], part[2], part[1]), (sliced[0], sliced[2], sliced[1])
    join(sliced, part, (low + 30,))


def test_a_crop_shortens_the_tables_over_the_axis():
    # The row is a table of five, the column meets a part of three: the table must lose two entries as well.
    outer = ((5,), (table([2, 0, 2, 1, 4]),), (ramp(0),))
    inner = ((3,), (ramp(0),), (ramp(0),))
    composed, _, _ = join(outer, inner, (5,))
    assert composed is not None
    check_normal(composed)
    composed, _, _ = join((inner[0], inner[2], inner[1]), (outer[0], outer[2], outer[1]), (5,))
    assert composed is not None
    check_normal(composed)


def test_two_tables_are_joined_on_what_they_share():
    left, right = [4, 1, 1, 7, 0, 4], [1, 4, 9, 1, 8]
    outer = ((6,), (ramp(0),), (table(left),))
    inner = ((5,), (table(right),), (ramp(0),))
    composed, expected, _ = join(outer, inner, (10,))
    assert composed is not None
    assert composed.domain == (int(np.count_nonzero(expected)),)


def test_tables_that_never_meet_leave_nothing():
    outer = ((3,), (ramp(0),), (table([0, 2, 5]),))
    inner = ((3,), (table([1, 3, 4]),), (ramp(0),))
    composed, _, _ = join(outer, inner, (6,))
    assert composed is None


def test_constant_against_axis_and_constant():
    one = ((4,), (ramp(0),), (Affine(2), ramp(0)))
    composed, _, _ = join(one, ((3, 4), (ramp(0), ramp(1)), (ramp(1), ramp(0))), (3, 4))
    assert composed is not None
    assert composed.domain == (4,)
    composed, _, _ = join(one, ((4,), (Affine(1), ramp(0)), (ramp(0),)), (3, 4))
    assert composed is None


def test_even_slice_never_meets_odd_part():
    outer = ((4,), (ramp(0),), (ramp(0, 2),))
    inner = ((4,), (ramp(0, 2, 1),), (ramp(0),))
    assert join(outer, inner, (9,))[0] is None


def test_empty_domains_have_no_term():
    assert normalise(Term((3, 0), (ramp(0),), (ramp(1),))) is None
    outer = Term((0,), (ramp(0),), (ramp(0),))
    inner = Term((0,), (ramp(0),), (ramp(0),))
    assert compose(outer, inner) is None


def test_unit_axes_vanish_from_factors():
    x = new_input((1, 3), F8)
    term = normalise(Term((1, 3), (ramp(0), ramp(1)), (ramp(1), ramp(0)), ((x, (0, 1)),)))
    assert term is not None
    assert term.domain == (3,)
    assert term.row == (Affine(0), ramp(0))
    assert term.col == (ramp(0), Affine(0))


def test_a_sum_over_an_untouched_axis_counts():
    term = normalise(Term((5, 3), (ramp(1),), (ramp(1),)))
    assert term is not None
    close(stored([term], (3,), (3,), {}), 5.0 * np.eye(3), 0)


def test_masks_select_before_an_axis_is_summed():
    x, mask = new_input((4, 2), F8), new_input((4, 2), BOOL)
    values = {x: np.array([[1, np.nan], [np.inf, 2], [3, np.nan], [np.nan, np.nan]])}
    values[mask] = np.isfinite(values[x])
    term = normalise(Term((4, 2), (ramp(1),), (ramp(1),), ((x, (0, 1)),), ((mask, (0, 1)),)))
    assert term is not None
    close(stored([term], (2,), (2,), values), np.diag([4.0, 2.0]), 0)
    assert len(term.masks) == 1


# --- masks in whole programs ------------------------------------------------------------------------------------


def where(mask: Node, a: Node) -> Node:
    return op("select", mask, a, build.full(0.0, a.shape, a.dtype))


POINTS = np.array([0.0, -1.0, 4.0, -0.0, 0.25, np.inf])

_DANGEROUS = {
    "log(sqrt(x))": (lambda x: op("log", op("sqrt", x)), lambda x: 0.5 / x, lambda x: -0.5 / x**2),
    "sqrt(x)": (lambda x: op("sqrt", x), lambda x: 0.5 / np.sqrt(x), lambda x: -0.25 * x**-1.5),
    "x log(x)": (lambda x: x * op("log", x), lambda x: np.log(x) + 1, lambda x: 1 / x),
    "1 / x": (lambda x: 1.0 / x, lambda x: -1 / x**2, lambda x: 2 / x**3),
    "sqrt(sqrt(x))": (lambda x: op("sqrt", op("sqrt", x)), lambda x: 0.25 * x**-0.75, lambda x: -3 / 16 * x**-1.75),
    "exp(-1 / x)": (
        lambda x: op("exp", -1.0 / x),
        lambda x: np.exp(-1 / x) / x**2,
        lambda x: np.exp(-1 / x) * (1 - 2 * x) / x**4,
    ),
}


@pytest.mark.parametrize("order", ["forward", "reverse", "cost", "auto"])
@pytest.mark.parametrize("name", _DANGEROUS)
def test_the_branch_not_taken_never_shows(name, order):
    function, first, second = _DANGEROUS[name]
    x = new_input((5,), F8)
    values = {x: POINTS[:5]}
    y = where(x > 0.0, function(x))
    inside = POINTS[:5] > 0
    expected = np.diag([first(v) if keep else 0.0 for v, keep in zip(POINTS[:5], inside, strict=True)])
    (jacobian,) = dense_jacobians([y], [x], order)[0]
    close(interpret([jacobian], values)[0], expected, 1e-13)
    plan = sparse_jacobian(y, x, order)
    assert plan.nnz == 5
    close(interpret([plan.data], values)[0], np.diag(expected), 1e-13)
    # The gradient of the sum, and its Jacobian.
    (gradient,) = dense_jacobians([total(y)], [x], order)[0]
    close(interpret([gradient], values)[0], np.diag(expected), 1e-13)
    (hessian,) = dense_jacobians([gradient], [x], order)[0]
    curved = np.diag([second(v) if keep else 0.0 for v, keep in zip(POINTS[:5], inside, strict=True)])
    close(interpret([hessian], values)[0], curved, 1e-13)


@pytest.mark.parametrize("order", ["forward", "reverse", "cost", "auto"])
def test_masks_pass_through_products_sums_and_tables(order):
    # A masked branch, gathered with repeats, contracted with a matrix and squared: no infinity is ever multiplied.
    x = new_input((4,), F8)
    values = {x: np.array([0.0, 2.0, -1.0, 0.5])}
    y = where(x > 0.0, op("log", op("sqrt", x)))
    gathered = build.index_node(y, (6,), [table([0, 1, 1, 3, 2, 0])])
    w = build.constant_array(np.arange(12.0).reshape(2, 6) - 5)
    h = build.contract_labels([(w, (0, 1)), (gathered, (1,))], (2, 6), (0,))
    z = total(h * h) + total(gathered * gathered)
    (gradient,) = dense_jacobians([z], [x], order)[0]
    (hessian,) = dense_jacobians([gradient], [x], order)[0]
    g, h2 = interpret([gradient, hessian], values)
    assert np.isfinite(g).all()
    assert np.isfinite(h2).all()
    for dead in (0, 2):
        assert g[dead] == 0
        assert not h2[dead].any()
        assert not h2[:, dead].any()
    live = [1, 3]
    v = values[x][live]
    pick = np.zeros((6, 2))
    pick[[1, 2], 0] = 1
    pick[3, 1] = 1
    a = pick.T @ ((np.arange(12.0).reshape(2, 6) - 5).T @ (np.arange(12.0).reshape(2, 6) - 5) + np.eye(6)) @ pick
    y0, d1, d2 = np.log(np.sqrt(v)), 0.5 / v, -0.5 / v**2
    close(g[live], 2 * d1 * (a @ y0), 1e-12)
    close(h2[np.ix_(live, live)], 2 * np.outer(d1, d1) * a + np.diag(2 * d2 * (a @ y0)), 1e-12)


@pytest.mark.parametrize("order", ["forward", "reverse", "cost", "auto"])
def test_both_branches_are_dangerous(order):
    x = new_input((4,), F8)
    values = {x: np.array([-2.0, 0.0, 3.0, -0.0])}
    y = op("select", x > 0.0, op("log", x), op("select", x < 0.0, op("sqrt", -x), build.full(0.0, (4,), F8)))
    (jacobian,) = dense_jacobians([y], [x], order)[0]
    close(interpret([jacobian], values)[0], np.diag([-0.5 / np.sqrt(2), 0, 1 / 3, 0]), 1e-14)


@pytest.mark.parametrize("order", ["forward", "reverse", "cost", "auto"])
def test_an_infinite_partial_that_is_selected_stays_infinite(order):
    # Masks are structure: they must not hide what is really there.
    x = new_input((2,), F8)
    y = where(x >= 0.0, op("sqrt", x))
    (jacobian,) = dense_jacobians([y], [x], order)[0]
    found = interpret([jacobian], {x: np.array([0.0, 4.0])})[0]
    assert found[0, 0] == np.inf
    assert found[1, 1] == 0.25


def test_float32_stays_float32():
    x = new_input((3, 4), F4)
    y = where(x > 0.0, op("log", x))
    (jacobian,) = dense_jacobians([y], [x])[0]
    assert jacobian.dtype == F4
    assert sparse_jacobian(y, x).data.dtype == F4
    w = build.constant_array(np.ones((2, 3), dtype=np.float32))
    z = build.contract_labels([(w, (2, 0)), (y, (0, 1))], (3, 4, 2), (2, 1))
    assert dense_jacobians([total(z)], [x])[0][0].dtype == F4


def test_outer_products_of_equal_places_become_one():
    rng = np.random.default_rng(4)
    a, b, c, d, mask = (new_input((n,), kind) for n, kind in ((3, F8), (4, F8), (3, F8), (4, F4), (4, BOOL)))
    values = {node: rng.standard_normal(node.shape).astype(node.dtype) for node in (a, b, c, d)}
    values[mask] = np.array([True, False, True, False])
    row, col = (ramp(0),), (ramp(1, 2, 1),)
    first = Term((3, 4), row, col, ((a, (0,)), (b, (1,))))
    second = Term((3, 4), row, col, ((c, (0,)), (d, (1,))), ((mask, (1,)),))
    other = Term((3, 4), row, (ramp(1, 2),), ((a, (0,)), (b, (1,))))
    assert len(add_terms([first, second, other])) == 3  # apart, for those who multiply them by something smaller
    merged = add_outer_products([first, second, other])
    assert [len(t.factors) for t in merged] == [1, 2]
    expected = dense([first, second, other], (3,), (8,), values)
    np.testing.assert_allclose(dense(list(merged), (3,), (8,), values), expected, rtol=1e-15)


def test_masks_of_outer_products_that_become_one_stay_structure():
    a, b = new_input((3,), F8), new_input((4,), F8)
    rows_mask, columns_mask = new_input((3,), BOOL), new_input((4,), BOOL)
    values = {a: np.array([1.0, np.inf, 3.0]), b: np.array([1.0, 0.0, np.nan, 4.0])}
    values |= {rows_mask: np.array([True, False, True]), columns_mask: np.array([True, True, False, False])}
    place = ((ramp(0),), (ramp(1),))
    terms = [
        Term((3, 4), *place, ((a, (0,)), (b, (1,))), ((rows_mask, (0,)), (columns_mask, (1,)))),
        Term((3, 4), *place, ((b, (1,)), (a, (0,))), ((rows_mask, (0,)), (columns_mask, (1,)))),
    ]
    merged = list(add_outer_products(terms))
    assert len(merged) == 1
    assert len(merged[0].masks) == 1
    expected = np.array([[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [6.0, 0.0, 0.0, 0.0]])
    assert np.array_equal(dense(merged, (3,), (4,), values), expected)


def test_products_of_terms_with_equal_rows_are_added_in_one_pass():
    n, count = 5, 2
    diagonal, a, b, vectors = (new_input(shape, F8) for shape in ((n,), (n,), (n,), (n, count)))
    rng = np.random.default_rng(9)
    values = {node: rng.standard_normal(node.shape) for node in (diagonal, a, b, vectors)}
    terms = [
        Term((n,), (ramp(0),), (ramp(0),), ((diagonal, (0,)),)),
        Term((n, n), (ramp(0),), (ramp(1),), ((a, (0,)), (b, (1,)))),
    ]
    product = product_node(terms, vectors, (n,), F8)
    assert product.op.name == "add"  # not "assemble", which adds part after part into memory
    (array,) = interpret([product], values)
    expected = dense(terms, (n,), (n,), values) @ values[vectors]
    np.testing.assert_allclose(array, expected, rtol=1e-13)


def test_branches_of_a_choice_are_one_selection():
    """What holds where a condition does, and what holds where it does not, is chosen once, and no mask remains."""
    m, other, a, b = new_input((4,), BOOL), new_input((4,), BOOL), new_input((4,), F8), new_input((4,), F8)
    no = op("logical_not", m)
    every = (ramp(0),)
    values = {
        m: np.array([True, False, True, False]), other: np.array([True, True, False, False]),
        a: np.array([1.0, np.nan, 3.0, 4.0]), b: np.array([np.inf, 6.0, 7.0, 8.0]),
    }  # fmt: skip

    def term(node: Node, *masks: Node) -> Term:
        found = normalise(Term((4,), every, every, ((node, (0,)),), tuple((mask, (0,)) for mask in masks)))
        assert found is not None
        return found

    for masks_a, masks_b, left in (
        ((m,), (no,), 0), ((no,), (m,), 0), ((m, other), (other, no), 1), ((m, other), (m, other), 1),
        ((m,), (other,), 1),
    ):  # fmt: skip
        terms = [term(a, *masks_a), term(b, *masks_b)]
        (found,) = add_terms(terms)
        assert len(found.masks) == left
        np.testing.assert_array_equal(dense([found], (4,), (4,), values), dense(terms, (4,), (4,), values))
