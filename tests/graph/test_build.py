"""The builders: reshapes, indices of indices and of assembled arrays, products; what may be simplified."""

from __future__ import annotations

import gc
import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import (
    BOOL,
    EXECUTORS,
    F4,
    F8,
    Array,
    concatenate,
    examples,
    execute,
    interpret,
    op,
    places,
    ramp,
    table,
    take_slice,
    take_table,
)

from jacana.graph import REGISTRY, build
from jacana.graph.index import Affine, Index, bounds, identity
from jacana.graph.node import LITERAL, Node, literal, literal_value, new_input, substitute_nodes, topological
from jacana.graph.ops.movement import AssembleParams, IndexParams
from jacana.graph.ops.peel import peel


def numbered(shape: tuple[int, ...]) -> tuple[Node, Array]:
    """An input whose elements are all different."""
    return new_input(shape, F8), np.arange(1.0, math.prod(shape) + 1).reshape(shape)


def same(node: Node, x: Node, v: Array, expected: Array) -> None:
    """The node is ``expected`` by the interpreter, by the records and by every executor."""
    assert node.shape == expected.shape
    assert np.array_equal(interpret([node], {x: v})[0], expected)
    for executor in EXECUTORS:
        assert np.array_equal(execute(executor, [node], {x: v})[0], expected), executor


# --- reshape ------------------------------------------------------------------------------------------------------

_FACTORS = [
    (), (1,), (1, 1), (1, 1, 1), (6,), (2, 3), (3, 2), (1, 6), (6, 1), (2, 1, 3), (12,), (3, 4), (4, 3), (2, 6),
    (2, 2, 3), (2, 3, 2), (3, 2, 2), (1, 12, 1), (1, 3, 1, 4), (24,), (4, 6), (6, 4), (8, 3), (2, 3, 4), (4, 3, 2),
    (3, 8), (0,), (0, 3), (3, 0), (2, 0, 5), (1, 0), (0, 0),
]  # fmt: skip
RESHAPES = [(a, b) for a, b in itertools.product(_FACTORS, _FACTORS) if math.prod(a) == math.prod(b)]


def test_reshape_of_every_pair_of_shapes():
    nodes, expected, known = [], [], {}
    for old, new in RESHAPES:
        x, v = numbered(old)
        known[x] = v
        nodes.append(build.movement_reshape(x, new))
        expected.append(v.reshape(new))
        assert nodes[-1].shape == new
    for found in (interpret(nodes, known), *(execute(name, nodes, known) for name in EXECUTORS)):
        for pair, one, other in zip(RESHAPES, found, expected, strict=True):
            assert np.array_equal(one, other), pair


@pytest.mark.parametrize(("old", "new"), RESHAPES)
def test_reshape_plan_groups_are_equal_and_smallest(old, new):
    if 0 in old:
        return
    groups = build.reshape_plan(old, new)
    left = [k for g, _ in groups for k in g]
    right = [k for _, g in groups for k in g]
    assert left == [k for k, n in enumerate(old) if n > 1]
    assert right == [k for k, n in enumerate(new) if n > 1]
    for a, b in groups:
        assert math.prod(old[k] for k in a) == math.prod(new[k] for k in b)
        for m, n in itertools.product(range(1, len(a)), range(1, len(b))):
            assert math.prod(old[k] for k in a[:m]) != math.prod(new[k] for k in b[:n]), "a group that splits"


def test_reshape_there_and_back_is_nothing():
    x, _ = numbered((2, 3, 4))
    assert build.movement_reshape(x, (2, 3, 4)) is x
    assert build.movement_reshape(build.movement_reshape(x, (2, 1, 3, 4)), (2, 3, 4)) is x
    assert build.movement_reshape(build.movement_reshape(x, (24,)), (2, 3, 4)) is x


# --- indices of indices, of assembled arrays ----------------------------------------------------------------------


@st.composite
def movements(draw):
    """A chain of slices, gathers, transposes, reshapes, concatenations and scatters of different numbers."""
    x, v = numbered(draw(st.sampled_from([(5,), (2, 3), (3, 4), (2, 3, 2), (7,), (1, 4), ()])))
    node, value = x, v
    for _ in range(draw(st.integers(1, 6))):
        if node.ndim == 0:
            node, value = build.broadcast_to(node, (2, 3)), np.broadcast_to(value, (2, 3))
        k = draw(st.integers(0, node.ndim - 1))
        n = node.shape[k]
        match draw(st.integers(0, 8)):
            case 0:
                start, step = draw(st.integers(0, n - 1)), draw(st.sampled_from([1, 2, -1]))
                stop = n if step > 0 else -1
                chosen = list(range(start, stop, step))
                node, value = take_slice(node, k, start, len(chosen), step), np.take(value, chosen, k)
            case 1:
                chosen = draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=4))
                node, value = take_table(node, k, chosen), np.take(value, chosen, k)
            case 2:
                order = draw(st.permutations(range(node.ndim)))
                node, value = build.transpose(node, order), value.transpose(order)
            case 3:
                shape = draw(st.sampled_from([(node.size,), (1, node.size), (*node.shape, 1), (node.size // n, n)]))
                node, value = build.movement_reshape(node, shape), value.reshape(shape)
            case 4:
                node, value = (
                    concatenate([node, take_slice(node, k, 0, 1)], k),
                    np.concatenate([value, np.take(value, [0], k)], k),
                )
            case 5:
                place = draw(st.integers(0, n - 1))
                rest = iter(range(node.ndim))
                indices = [Affine(place) if j == k else ramp(next(rest)) for j in range(node.ndim)]
                node = build.index_node(node, tuple(m for j, m in enumerate(node.shape) if j != k), indices)
                value = np.take(value, place, k)
            case 6:
                before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
                shape = tuple(before + m + after if j == k else m for j, m in enumerate(node.shape))
                rows = tuple(ramp(j, 1, before if j == k else 0) for j in range(node.ndim))
                node = build.assembled([(node, rows)], shape, F8, disjoint=True)
                value = np.pad(value, [(before, after) if j == k else (0, 0) for j in range(value.ndim)])
            case 7:
                chosen = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
                rows = tuple(table(chosen, k) if j == k else ramp(j) for j in range(node.ndim))
                shape = tuple(3 if j == k else m for j, m in enumerate(node.shape))
                node = build.assembled([(node, rows)], shape, F8, disjoint=False)
                target = np.zeros(shape)
                np.add.at(target, tuple(chosen if j == k else slice(None) for j in range(value.ndim)), value)
                value = target
            case _:
                node, value = build.broadcast_to(node, (2, *node.shape)), np.broadcast_to(value, (2, *value.shape))
        if node.size > 60 or node.ndim > 4:
            break
    return x, v, node, np.asarray(value)


@examples(250)
@given(movements())
def test_movements_are_what_numpy_does(case):
    x, v, node, expected = case
    assert node.shape == expected.shape
    assert np.array_equal(interpret([node], {x: v})[0], expected)
    assert np.array_equal(execute("numpy", [node], {x: v})[0], expected)


@examples(40)
@given(movements())
def test_native_movements_are_what_numpy_does(case):
    x, v, node, expected = case
    for executor in EXECUTORS:
        assert np.array_equal(execute(executor, [node], {x: v})[0], expected)


def test_an_index_of_an_index_is_one_index():
    x, v = numbered((5, 4))
    node = build.transpose(take_slice(take_slice(x, 0, 4, 5, -1), 1, 1, 3), (1, 0))
    assert node.op is REGISTRY["index"]
    assert node.inputs == (x,)
    same(node, x, v, v[::-1, 1:].T)


def test_an_index_that_changes_nothing_is_its_source():
    x, _ = numbered((3, 4))
    assert build.index_node(x, (3, 4), identity(2)) is x
    assert build.transpose(build.transpose(x, (1, 0)), (1, 0)) is x
    assert take_slice(take_slice(x, 0, 2, 3, -1), 0, 2, 3, -1) is x
    assert build.broadcast_to(x, (3, 4)) is x


def test_a_table_is_not_joined_with_another_without_need():
    # Composing two tables would make a third: the reading stays in two steps.
    x, v = numbered((6,))
    node = take_table(take_table(x, 0, [5, 0, 3, 3]), 0, [3, 0, 1, 1])
    same(node, x, v, v[[5, 0, 3, 3]][[3, 0, 1, 1]])


def test_reading_one_part_of_a_concatenation():
    x, v = numbered((3, 2))
    y = op("sin", x)
    joined = concatenate([x, y, x * 2.0], 0)
    assert take_slice(joined, 0, 0, 3) is x
    assert take_slice(joined, 0, 3, 3) is y
    assert take_slice(joined, 0, 4, 2) is take_slice(y, 0, 1, 2)
    assert take_slice(joined, 0, 5, 3, -1) is take_slice(y, 0, 2, 3, -1)
    across = take_slice(joined, 0, 2, 3)
    same(across, x, v, np.concatenate([v, np.sin(v), v * 2])[2:5])


def test_reading_scalars_back():
    x, _ = numbered((4,))
    scalars = [op("sin", build.index_node(x, (), [Affine(k)])) for k in range(4)]
    stacked = build.assembled([(s, (Affine(k),)) for k, s in enumerate(scalars)], (4,), F8, disjoint=True)
    for k in range(4):
        assert build.index_node(stacked, (), [Affine(k)]) is scalars[k]
    many = [op("sin", build.index_node(x, (), [Affine(0)])) * float(k) for k in range(200)]
    stacked = build.assembled([(s, (Affine(k),)) for k, s in enumerate(many)], (200,), F8, disjoint=True)
    assert build.index_node(stacked, (), [Affine(150)]) is many[150]


def test_sums_are_never_read_as_one_part():
    # Parts that overlap add up: reading where one of them is must not forget the other.
    x, v = numbered((3,))
    both = build.assembled([(x, (ramp(0),)), (x * 10.0, (ramp(0),))], (3,), F8, disjoint=False)
    same(take_slice(both, 0, 0, 3), x, v, 11 * v)
    same(take_slice(both, 0, 2, 1), x, v, 11 * v[2:])
    s = build.index_node(x, (), [Affine(0)])
    twice = build.assembled([(s, (Affine(1),)), (s, (Affine(1),))], (3,), F8, disjoint=False)
    same(build.index_node(twice, (), [Affine(1)]), x, v, np.asarray(2 * v[0]))


def test_reading_between_the_parts():
    x, v = numbered((3,))
    spread = build.assembled([(x, (ramp(0, 2, 1),))], (8,), F8, disjoint=True)
    expected = np.zeros(8)
    expected[1:7:2] = v
    same(spread, x, v, expected)
    same(take_slice(spread, 0, 0, 4, 2), x, v, np.zeros(4))
    same(take_slice(spread, 0, 1, 3, 2), x, v, v)
    same(take_slice(spread, 0, 6, 3, -2), x, v, np.zeros(3))
    same(build.index_node(spread, (), [Affine(7)]), x, v, np.zeros(()))


def test_a_permutation_of_axes_is_no_copy():
    x, v = numbered((2, 3))
    node = build.assembled([(x, (ramp(1), ramp(0)))], (3, 2), F8, disjoint=True)
    assert node is build.transpose(x, (1, 0))
    assert build.assembled([(x, identity(2))], (2, 3), F8, disjoint=True) is x
    same(build.assembled([(x, (ramp(0), Affine(0), ramp(1)))], (2, 1, 3), F8, disjoint=True), x, v, v.reshape(2, 1, 3))


def test_assembling_nothing():
    x, v = numbered((0, 3))
    same(build.assembled([(x, identity(2))], (4, 3), F8, disjoint=True), x, v, np.zeros((4, 3)))
    same(build.assembled([], (), F8, disjoint=True), x, v, np.zeros(()))
    same(build.zeros((2, 3), F8), x, v, np.zeros((2, 3)))


def test_a_diagonal_written_twice_adds_up():
    # Row (i, i) is one to one; row (i + j) is not, and the builder has to see the difference by itself.
    x, v = numbered((3, 2))
    same(build.assembled([(x, (Affine(0, ((0, 1), (1, 1))),))], (4,), F8, disjoint=False), x, v,
         np.array([v[0, 0], v[0, 1] + v[1, 0], v[1, 1] + v[2, 0], v[2, 1]]))  # fmt: skip
    y, w = numbered((3,))
    same(build.assembled([(y, (ramp(0), ramp(0)))], (3, 4), F8, disjoint=False), y, w, np.diag(w) @ np.eye(3, 4))


# --- literals, casts, products ------------------------------------------------------------------------------------


def test_literals_keep_every_bit():
    for value in (0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 0.1):
        node = literal(value, F8)
        assert literal(value, F8) is node
        assert np.array(literal_value(node)).tobytes() == np.array(value).tobytes()
    assert literal(0.0, F8) is not literal(-0.0, F8)
    assert literal(1.0, F8) is not literal(1.0, F4)
    assert literal(True, BOOL) is not literal(1, np.dtype("i8"))
    assert literal(0.1, F4) is literal(np.float32(0.1), F4)


def test_literal_value_of_replicated_numbers_only():
    x, _ = numbered((3,))
    assert literal_value(build.full(2.5, (2, 3), F8)) == 2.5
    assert literal_value(x) is None
    assert literal_value(build.constant_array(np.full(3, 2.5))) is None
    assert not build.is_one(build.full(math.nan, (3,), F8))
    assert build.is_one(build.full(1, (), np.dtype("i8")))


def test_casting_a_number_is_a_number():
    assert build.cast_to(build.full(0.5, (2, 3), F8), F4) is build.full(0.5, (2, 3), F4)
    x, _ = numbered((3,))
    assert build.cast_to(x, F8) is x


def test_casting_a_view_casts_what_is_smaller():
    x, v = numbered((3,))
    node = build.cast_to(build.broadcast_to(x, (4, 3)), F4)
    assert node.op is REGISTRY["index"]
    assert node.inputs[0].size == 3
    (found,) = execute("numpy", [node], {x: v})
    assert np.array_equal(found, np.broadcast_to(v, (4, 3)).astype("f4"))


HARD = np.array([0.0, -0.0, math.nan, math.inf, -math.inf, 2.0])


def test_nothing_is_simplified_that_is_wrong_for_some_number():
    x = new_input((6,), F8)
    zero = build.full(0.0, (6,), F8)
    with np.errstate(all="ignore"):
        rows = _hard_rows(x, zero)
    expected = [np.asarray(v) for _, v in rows.values()]
    for name in EXECUTORS:
        for row, one, other in zip(
            rows, execute(name, [n for n, _ in rows.values()], {x: HARD}), expected, strict=True
        ):
            assert np.array_equal(one, other, equal_nan=True), (name, row)
            zeros = other == 0
            assert np.array_equal(np.signbit(one[zeros]), np.signbit(other[zeros])), (name, row)


def _hard_rows(x: Node, zero: Node) -> dict[str, tuple[Node, Array]]:
    return {
        "0 * x": (zero * x, 0.0 * HARD),
        "x * 0": (x * 0.0, HARD * 0.0),
        "x / x": (x / x, HARD / HARD),
        "x - x": (x - x, HARD - HARD),
        "x + 0": (x + 0.0, HARD + 0.0),
        "x - 0": (x - 0.0, HARD - 0.0),
        "-0 + x": (-0.0 + x, -0.0 + HARD),
        "0 - x": (0.0 - x, 0.0 - HARD),
        "product": (build.product(zero, x), 0.0 * HARD),
        "x ** 0": (x**0.0, HARD**0.0),
        "twice negated": (op("negative", -x), HARD),
        "x * -1": (x * -1.0, HARD * -1.0),
    }


def test_a_factor_of_one_is_left_out_of_products():
    x, _ = numbered((3,))
    one = build.full(1.0, (3,), F8)
    assert build.product(one, x) is x
    assert build.product(x, one) is x
    narrow = build.full(1.0, (3,), F4)
    assert build.product(narrow, x) is x
    y = new_input((3,), F4)
    assert build.product(y, one).dtype == F8


# --- contractions -------------------------------------------------------------------------------------------------


@st.composite
def contractions(draw):
    sizes = tuple(draw(st.lists(st.integers(0 if draw(st.integers(0, 9)) == 0 else 1, 3), min_size=1, max_size=4)))
    factors, known = [], {}
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    for _ in range(draw(st.integers(1, 4))):
        labels = tuple(draw(st.lists(st.integers(0, len(sizes) - 1), unique=True, max_size=len(sizes))))
        node = new_input(tuple(sizes[a] for a in labels), draw(st.sampled_from([F8, F8, F4])))
        known[node] = np.asarray(rng.uniform(0.5, 1.5, size=node.shape), dtype=node.dtype)
        factors.append((node, labels))
    used = sorted({a for _, labels in factors for a in labels})
    out = tuple(draw(st.permutations(used)))[: draw(st.integers(0, len(used)))]
    return factors, sizes, out, known


@examples(150)
@given(contractions())
def test_contractions_are_einsum(case):
    factors, sizes, out, known = case
    node = build.contract_labels(factors, sizes, out)
    arrays = [x for f, labels in factors for x in (known[f].astype(float), list(labels))]
    expected = np.einsum(*arrays, list(out))
    assert node.dtype == np.result_type(*(f.dtype for f, _ in factors))
    assert node.shape == expected.shape
    tolerance = 1e-13 if node.dtype == F8 else 1e-5
    for found in (interpret([node], known)[0], execute("numpy", [node], known)[0]):
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_a_contraction_that_sums_nothing_is_elementwise():
    a, b = new_input((3,), F8), new_input((4,), F8)
    node = build.contract_labels([(a, (0,)), (b, (1,))], (3, 4), (1, 0))
    assert node.op is REGISTRY["multiply"]


def test_sum_axes():
    x, v = numbered((2, 3, 4))
    assert build.sum_axes(x, ()) is x
    for axes in ((0,), (1,), (2,), (0, 2), (0, 1, 2)):
        same(build.sum_axes(x, axes), x, v, v.sum(axis=axes))


# --- interning ----------------------------------------------------------------------------------------------------


def test_equal_nodes_are_one():
    x = new_input((4,), F8)
    assert op("sin", x) is op("sin", x)
    assert x * 2.0 is x * 2.0
    assert take_table(x, 0, [3, 1, 1]) is take_table(x, 0, [3, 1, 1])
    assert take_table(x, 0, [3, 1, 1]) is not take_table(x, 0, [3, 1, 2])
    assert build.constant_array(np.eye(3)) is build.constant_array(np.eye(3))
    assert build.constant_array(np.eye(3)) is not build.constant_array(-np.eye(3))
    assert build.constant_array(np.zeros(2)) is not build.constant_array(-np.zeros(2))
    assert build.constant_array(np.zeros((2, 3))) is not build.constant_array(np.zeros((3, 2)))
    assert new_input((4,), F8) is not new_input((4,), F8)
    assert build.constant_array(np.array(2.5)).op is LITERAL


def test_constants_are_copies():
    data = np.ones(3)
    node = build.constant_array(data)
    data[0] = 7
    assert node.params.owner.value().tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="read-only"):
        node.params.owner.value()[0] = 2


def test_nodes_are_freed():
    x = new_input((4,), F8)
    import weakref

    kept = weakref.ref(op("sin", x * 3.25))
    gc.collect()
    assert kept() is None


def test_interning_from_many_threads():
    x = new_input((4,), F8)

    def work(k: int) -> list[Node]:
        y = x
        found = []
        for j in range(200):
            y = op("sin", y * (1.0 + j))
            found.append(y)
        return found

    with ThreadPoolExecutor(8) as pool:
        first, *others = pool.map(work, range(8))
    for other in others:
        assert all(a is b for a, b in zip(first, other, strict=True))


def test_topological_order_of_a_deep_program():
    x = new_input((), F8)
    y = x
    for _ in range(5000):
        y = y * 1.5
    order = topological([y, x, y])
    assert len(order) == len(set(order)) == 5002
    seen: set[Node] = set()
    for node in order:
        assert all(i in seen for i in node.inputs)
        seen.add(node)


def test_substitution_of_nodes():
    x, z = new_input((3,), F8), new_input((3,), F8)
    y = op("sin", x) * x
    (moved,) = substitute_nodes([y], {x: z})
    assert moved is op("sin", z) * z
    assert substitute_nodes([y], {}) == [y]
    (middle,) = substitute_nodes([y], {op("sin", x): z})
    assert middle is z * x


def test_peeling_stops_at_what_is_no_plain_broadcast():
    x = new_input((3,), F8)
    for shape, axes in (((2, 3), (1,)), ((3, 2), (0,)), ((2, 3, 4), (1,))):
        node = build.broadcast_axes(x, shape, axes)
        assert peel(node, tuple(range(10, 10 + len(shape)))) == (x, (10 + axes[0],))
    unit = new_input((1, 3), F8)
    spread = build.broadcast_to(unit, (2, 3))
    node, labels = peel(spread, (0, 1))
    assert node.shape == tuple((2, 3)[a] for a in labels)
    matrix = new_input((3, 3), F8)
    diagonal = build.index_node(matrix, (3,), [ramp(0), ramp(0)])
    assert peel(diagonal, (0,)) == (diagonal, (0,))
    flipped = take_slice(x, 0, 2, 3, -1)
    assert peel(flipped, (0,)) == (flipped, (0,))
    part = take_slice(x, 0, 0, 2)
    assert peel(part, (0,)) == (part, (0,))
    assert peel(build.full(2.0, (2, 3), F8), (0, 1)) == (literal(2.0, F8), ())


# --- records refuse what does not fit -------------------------------------------------------------------------------


def test_rows_outside_an_assembled_array_are_refused():
    x = new_input((3,), F8)
    for rows, shape in (((ramp(0, 1, 1),), (3,)), ((ramp(0, -1, 1),), (3,)), ((table([0, 5, 1], 0),), (3,))):
        with pytest.raises(AssertionError):
            REGISTRY["assemble"](x, params=AssembleParams(shape, F8, (rows,), True, False))


def test_shapes_and_dtypes_have_to_agree():
    x, y, z = new_input((3,), F8), new_input((2,), F8), new_input((3,), F4)
    for other in (y, z):
        with pytest.raises(AssertionError):
            op("add", x, other)
    with pytest.raises(AssertionError):
        op("select", x, x, x)


def test_movement_records_evaluate_as_the_reference_does():
    # The records' own evaluation, on contiguous, strided and reversed arrays.
    rng = np.random.default_rng(0)
    sources = [
        rng.normal(size=(4, 5)),
        rng.normal(size=(5, 4)).T,
        rng.normal(size=(8, 10))[::2, ::-2],
        np.asfortranarray(rng.normal(size=(4, 5))),
    ]
    expressions: list[tuple[tuple[int, ...], list[Index]]] = [
        ((5, 4), [ramp(1), ramp(0)]),
        ((3, 2), [ramp(0, -1, 3), ramp(1, 2, 1)]),
        ((2, 3), [table([3, 0], 0), ramp(1)]),
        ((4,), [ramp(0), ramp(0)]),
        ((2, 3), [table([[0, 1, 3], [2, 2, 0]], 0, 1), table([[4, 1, 3], [2, 0, 0]], 0, 1)]),
        ((), [Affine(2), Affine(3)]),
        ((3,), [Affine(1), Affine(4)]),
        ((0, 2), [ramp(0), ramp(1)]),
    ]
    for source in sources:
        for shape, indices in expressions:
            for e, n in zip(indices, (4, 5), strict=True):
                if 0 not in shape:
                    low, high = bounds(e, shape)
                    assert low >= 0
                    assert high < n
            expected = source[places(indices, shape)]
            x = new_input((4, 5), F8)
            node = REGISTRY["index"](x, params=IndexParams(shape, tuple(indices)))
            assert np.array_equal(node.op.evaluate(node.params, source), expected)
            rows = REGISTRY["assemble"](node, params=AssembleParams((4, 5), F8, (tuple(indices),), False, False))
            target = np.zeros((4, 5))
            np.add.at(target, places(indices, shape), expected)
            np.testing.assert_allclose(rows.op.evaluate(rows.params, expected), target, rtol=1e-15)
