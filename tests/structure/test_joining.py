"""Joins by short ways against the general ones."""

import importlib
import math
import random

import numpy as np
import pytest

from jacana.graph.build import _first_pair, _operations
from jacana.graph.index import Affine, Index, Lookup, Table, axis, from_table
from jacana.graph.node import new_input
from jacana.structure import packing

joining = importlib.import_module("jacana.structure.joining")


def plain(rng: random.Random, rank: int) -> Index:
    return axis(rng.randrange(rank)) if rank and rng.random() < 0.65 else Affine(rng.randrange(4))


def anything(rng: random.Random, rank: int) -> Index:
    if not rank:
        return Affine(rng.randrange(4))
    a = rng.randrange(rank)
    table = Table(np.arange(30) ** 2 % 7)
    return rng.choice([axis(a), Affine(2, ((a, 2),)), Lookup(table, (a,)), Affine(rng.randrange(4))])


@pytest.mark.parametrize("seed", range(8))
def test_axes_and_constants_meet_as_the_general_solution_says(seed: int) -> None:
    rng = random.Random(seed)
    met = 0
    for _ in range(500):
        outer = tuple(rng.choice([0, 1, 2, 3, 3, 4, 5]) for _ in range(rng.randrange(4)))
        inner = tuple(rng.choice([1, 2, 3, 3, 4, 5]) for _ in range(rng.randrange(4)))
        rank = rng.randrange(1, 4)
        col = tuple(plain(rng, len(outer)) for _ in range(rank))
        row = tuple(plain(rng, len(inner)) for _ in range(rank))
        first = tuple(anything(rng, len(outer)) for _ in range(rng.randrange(3)))
        last = tuple(anything(rng, len(inner)) for _ in range(rng.randrange(3)))
        general = joining._Join(outer, col, inner, row).solution()
        short = joining._plain_meeting(outer, col, inner, row)
        expected, found = (
            None
            if met is joining.NEVER
            else joining._Meeting(met[0], met[1][: len(outer)], met[1][len(outer) :]).arranged(first, last)
            for met in (general, short)
        )
        assert found == expected
        met += expected is not None
    assert met > 50


@pytest.mark.parametrize("seed", range(20))
def test_three_factors_are_multiplied_in_the_order_of_fewest_operations(seed: int) -> None:
    path = pytest.importorskip("opt_einsum")
    rng = random.Random(seed)
    sizes = [rng.choice([2, 3, 5, 7]) for _ in range(5)]
    labels = [tuple(rng.sample(range(5), rng.randrange(1, 4))) for _ in range(3)]
    used = sorted({x for part in labels for x in part})
    out = tuple(rng.sample(used, rng.randrange(len(used) + 1)))
    operands = [(new_input(tuple(sizes[x] for x in part), np.dtype(float)), part) for part in labels]
    arrays = [x for node, part in operands for x in (np.empty(node.shape), part)]
    theirs = sorted(path.contract_path(*arrays, out, optimize="optimal")[0][0])
    chosen = _first_pair(operands, sizes, out)
    assert _operations(chosen, operands, sizes, out) <= _operations((theirs[0], theirs[1]), operands, sizes, out)


@pytest.mark.parametrize("seed", range(4))
def test_entries_that_are_found_slot_by_slot(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, size = 3000, 2**40
    line = np.arange(n) * 2**20
    slots = [line + rng.integers(0, 50, n) for _ in range(5)]
    arrays = [
        np.stack([slots[k] for k in rng.integers(0, 5, width)], axis=1).reshape(n, *shape)
        for width, shape in ((6, (2, 3)), (1, ()), (4, (4,)))
    ]
    arrays += [np.arange(7), np.array(12), slots[2][: n // 2]]
    first, which = packing._distinct_slots(arrays, size)
    everything = np.concatenate([a.ravel() for a in arrays])
    expected = list(dict.fromkeys(everything.tolist()))
    assert first.tolist() == expected
    np.testing.assert_array_equal(first[which], everything)


@pytest.mark.parametrize("shape", [(40,), (5, 8), (2, 3, 4)])
def test_tables_are_affine_exactly_where_every_element_is(shape: tuple[int, ...]) -> None:
    axes = list(range(len(shape)))
    values = 3 + np.arange(math.prod(shape)).reshape(shape)
    assert isinstance(from_table(values, axes), Affine)
    for place in range(values.size):
        changed = values.copy()
        changed.flat[place] += 1
        assert isinstance(from_table(changed, axes), Lookup)


def test_tables_are_equal_by_content() -> None:
    values = np.arange(5000) ** 2
    other = values.copy()
    other[4321] += 1
    assert Table(values) == Table(values.copy()) and hash(Table(values)) == hash(Table(values.copy()))
    assert Table(values) != Table(other) and Table(values).digest != Table(other).digest
    assert Table(values) != Table(values.reshape(50, 100))
    assert Table(values).digest == Table(values.copy()).digest
