"""Simplification: the same numbers, bit for bit, NaN, infinities and signed zeros included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import F4, F8, examples, execute, grow, op

from jacana.differentiate import dense_jacobians
from jacana.graph import build
from jacana.graph.node import Node, new_input, topological
from jacana.graph.simplify import simplify

SPECIAL = np.array([0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan])


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal values and signs; NaN equals NaN."""
    return np.array_equal(a, b, equal_nan=True) and np.array_equal(
        np.signbit(a) | np.isnan(a), np.signbit(b) | np.isnan(b)
    )


def filled(value: float, dtype: np.dtype = F8) -> Node:
    return build.full(value, (7,), dtype)


@pytest.mark.parametrize("dtype", [F8, F4])
def test_what_is_left_out_changes_no_number(dtype):
    x = new_input((7,), dtype)
    one, zero, minus = filled(1.0, dtype), filled(0.0, dtype), filled(-0.0, dtype)
    for node in (x * one, one * x, x / one, x - zero, x + minus, minus + x, op("negative", -x)):
        assert simplify([node]) == [x]
    values = SPECIAL.astype(dtype)
    for node in (x + zero, zero + x, x * zero, x - minus, x / x, zero - x):
        assert simplify([node]) == [node]
        assert same_bits(execute("numpy", [node], {x: values})[0], execute("numpy", simplify([node]), {x: values})[0])


def test_numbers_are_computed_once():
    x = new_input((7,), F8)
    node = x * (filled(2.0) * filled(3.0) + filled(0.5))
    (found,) = simplify([node])
    assert len(topological([found])) == 4  # x, 6.5, replicated, times
    assert execute("numpy", [found], {x: np.ones(7)})[0].tolist() == [6.5] * 7


def test_small_constants_are_computed_once_and_functions_are_not():
    a, b = build.constant_array(np.arange(7.0)), build.constant_array(SPECIAL)
    (found,) = simplify([a * b + filled(1.0)])
    assert found.op.name == "constant"
    assert same_bits(found.params.owner.value(), np.arange(7.0) * SPECIAL + 1.0)
    wave = op("sin", a)
    assert simplify([wave]) == [wave]
    large = build.constant_array(np.arange(2000.0))
    assert simplify([large * large]) == [large * large]


def test_a_mask_that_chooses_once_for_all():
    x, y = new_input((3,), F8), new_input((3,), F8)
    yes, no = (build.constant_array(np.full(3, value)) for value in (True, False))
    some = build.constant_array(np.array([True, False, True]))
    choice = op("select", some, x, y)
    assert simplify([op("select", yes, x, y), op("select", no, x, y), op("select", some, x, x), choice]) == [
        x,
        y,
        x,
        choice,
    ]
    inverted = op("select", op("logical_not", no), x, y)
    assert simplify([inverted]) == [x]


def test_integers_are_left_alone():
    k = new_input((2,), np.dtype("i8"))
    one = build.full(1, (2,), k.dtype)
    assert simplify([k * one]) == [k * one]


def test_arrays_that_may_change_are_not_looked_at():
    class Owner:
        live = True

        def value(self) -> np.ndarray:
            raise AssertionError

    a = build.constant(Owner(), (2,), F8)
    assert simplify([a * a]) == [a * a]


@examples(40)
@given(st.integers(0, 2**32 - 1))
def test_random_programs_and_their_jacobians(seed):
    program = grow(seed, 10)
    if program is None:
        return
    nodes = [*program.outputs, *(j for row in dense_jacobians(program.outputs, program.inputs) for j in row)]
    found = simplify(nodes)
    assert len(topological(found)) <= len(topological(nodes))
    before, after = execute("numpy", nodes, program.known), execute("numpy", found, program.known)
    assert all(same_bits(a, b) for a, b in zip(before, after, strict=True))
