"""Programs as text: what is printed, and that what is printed is the program."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import BOOL, F4, F8, RandomProgram, concatenate, examples, matmul, op, programs, ramp, take_slice, total

from jacana.differentiate import dense_jacobians, sparse_jacobian
from jacana.errors import InvalidInputError
from jacana.graph import build
from jacana.graph.index import Affine, Lookup, Table
from jacana.graph.node import LITERAL, LiteralParams, Node, Operation, literal, new_input, topological
from jacana.graph.ops.contraction import ContractParams
from jacana.graph.ops.movement import AssembleParams, IndexParams, assemble
from jacana.graph.ops.reduction import AxesParams, AxisParams
from jacana.graph.printing import index_text, parse_program, program_leaves, program_text


def round_trip(*outputs: Node) -> str:
    """The text, after it was seen to parse back to the same nodes, in the same order, and to print the same again."""
    text, leaves = program_text(outputs), program_leaves(outputs)
    parsed = parse_program(text, leaves)
    assert len(parsed) == len(outputs)
    assert all(a is b for a, b in zip(parsed, outputs, strict=True)), text
    assert program_text(parsed) == text
    return text


# --- golden texts ---------------------------------------------------------------------------------------------------


def test_the_example_of_the_internals_page() -> None:
    u = new_input((6,), F8)
    y = op("exp", take_slice(u, 0, 1, 4)) * take_slice(u, 0, 2, 4)
    assert round_trip(y) == (
        "%0 = input(x0) float64[6]\n"
        "%1 = index(%0, (i + 1)) float64[4]\n"
        "%2 = exp(%1) float64[4]\n"
        "%3 = index(%0, (i + 2)) float64[4]\n"
        "%4 = multiply(%2, %3) float64[4]\n"
        "return %4"
    )


def test_inputs_are_numbered_as_they_were_made_and_constants_as_they_are_met() -> None:
    a, b = new_input((2, 3), F8), new_input((3, 2), F8)
    c = build.constant_array(np.ones((2, 3)))
    text = round_trip(matmul(a * c, b), total(a))
    assert text == (
        "%0 = input(x0) float64[2,3]\n"
        "%1 = constant(c0) float64[2,3]\n"
        "%2 = multiply(%0, %1) float64[2,3]\n"
        "%3 = input(x1) float64[3,2]\n"
        "%4 = contract(%2, %3, ij,jk->ik) float64[2,2]\n"
        "%5 = contract(%0, ij->) float64[]\n"
        "return %4, %5"
    )
    swapped = round_trip(b, a)
    assert swapped.splitlines()[0] == "%0 = input(x1) float64[3,2]"


def test_parts_reductions_casts_and_flags() -> None:
    x = new_input((2, 3), F4)
    disjoint = concatenate([x, x], 0)
    scattered = assemble(
        x, params=AssembleParams((4,), F4, ((Lookup(Table(np.array([3, 0, 3])), (1,)),),), False, False)
    )
    text = round_trip(
        disjoint,
        scattered,
        op("max", x, params=AxesParams((0, 1))),
        op("argmax", x, params=AxisParams(1)),
        build.cast_to(x, F8),
        build.zeros((0, 2), F8),
        build.zeros((), F8),
    )
    assert text == (
        "%0 = input(x0) float32[2,3]\n"
        "%1 = assemble(%0 at (i, j), %0 at (i + 2, j), disjoint, full) float32[4,3]\n"
        "%2 = assemble(%0 at ([3, 0, 3][j])) float32[4]\n"
        "%3 = max(%0, (0, 1)) float32[]\n"
        "%4 = argmax(%0, 1) int64[2]\n"
        "%5 = cast(%0) float64[2,3]\n"
        "%6 = assemble(disjoint, full) float64[0,2]\n"
        "%7 = assemble(disjoint) float64[]\n"
        "return %1, %2, %3, %4, %5, %6, %7"
    )


def test_what_a_text_says_without_leaves() -> None:
    text = (
        "%7 = input(x0) float64[3]\n\n%9 = sin(%7) float64[3]  # a remark\n%2 = add(%9, %7) float64[3]\nreturn %2, %9"
    )
    first, second = parse_program(text)
    assert first.inputs[0] is second
    assert second.op.name == "sin"
    assert parse_program(text)[0] is not first  # a new argument
    other = new_input((3,), F8)
    moved = parse_program(text, {"x0": other})
    assert moved[0] is op("sin", other) + other


# --- leaves ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (0.1, F8, "literal(0.1) float64[]"),
        (0.1, F4, "literal(0.10000000149011612) float32[]"),
        (-0.0, F8, "literal(-0.0) float64[]"),
        (np.inf, F8, "literal(inf) float64[]"),
        (-np.inf, F4, "literal(-inf) float32[]"),
        (np.nan, F8, "literal(nan) float64[]"),
        (5e-324, F8, "literal(5e-324) float64[]"),
        (True, BOOL, "literal(True) bool[]"),
        (-(2**63), np.dtype("i8"), "literal(-9223372036854775808) int64[]"),
        (255, np.dtype("u1"), "literal(255) uint8[]"),
    ],
)
def test_literals_are_exact(value: Any, dtype: Any, text: str) -> None:
    node = literal(value, dtype)
    assert round_trip(node).splitlines()[0] == f"%0 = {text}"


def test_literals_that_no_number_spells() -> None:
    quiet = np.array(0x7FF8000000000123, dtype=np.uint64).view(F8)
    text = round_trip(LITERAL(params=LiteralParams(F8, quiet.tobytes())))
    assert "bytes:23010000000" in text
    round_trip(literal(np.longdouble(1) / 3, np.dtype(np.longdouble)))
    round_trip(LITERAL(params=LiteralParams(np.dtype(">f8"), np.array(1.5, ">f8").tobytes())))


def test_equal_arrays_that_are_not_the_same_constant_stay_apart() -> None:
    class Owner:
        def value(self) -> Any:
            return np.ones(2)

    a, b = (build.constant(Owner(), (2,), F8) for _ in range(2))
    text = round_trip(a - b)
    assert "constant(c0)" in text and "constant(c1)" in text


def test_tables_small_and_large() -> None:
    x = new_input((50,), F8)
    rng = np.random.default_rng(0)
    large = Table(rng.integers(0, 50, size=(4, 5)))
    other = Table(large.values.reshape(5, 4))  # the same bytes in another shape
    small = Table(np.array([[7, 0, 3], [1, 2, 2]]))
    empty = Table(np.empty((0, 3)))
    nodes = [
        build.index_node(x, (4, 5), [Lookup(large, (0, 1))]),
        build.index_node(x, (4, 5), [Lookup(other, (1, 0))]),
        build.index_node(x, (2, 3), [Lookup(small, (0, 1))]),
        op("index", x, params=IndexParams((0, 3), (Lookup(empty, (0, 1)),))),
        op("index", x, params=IndexParams((), (Lookup(Table(np.array(3)), ()),))),
    ]
    text = round_trip(*nodes)
    assert "([[7, 0, 3], [1, 2, 2]][i, j])" in text
    names = [name for name in program_leaves(nodes) if name.startswith("table:")]
    assert sorted(name.rpartition(":")[2] for name in names) == ["", "0x3", "4x5", "5x4"]
    assert all(text.count(name) == 1 for name in names)


def test_index_expressions() -> None:
    assert index_text(Affine(0)) == "0"
    assert index_text(Affine(-2, ((0, -1), (3, 5), (30, -7)))) == "-1*i + 5*l - 7*i30 - 2"
    x = new_input((30,), F8)
    many = tuple([2] * 28)
    wide = op("index", new_input((2,) * 28, F8), params=IndexParams(many, tuple(ramp(27 - k) for k in range(28))))
    assert "(i27, i26, h, g, " in round_trip(wide)
    round_trip(op("index", x, params=IndexParams((4, 3), (Affine(20, ((0, -3), (1, -2))),))))


def test_contractions_with_many_labels_or_one_that_nobody_has() -> None:
    v = new_input((2,), F8)
    labels = ContractParams((1,) * 27 + (2,), ((27,),), (27,))
    assert "i27->i27; 1x1x1" in round_trip(op("contract", v, params=labels))
    s = new_input((), F8)
    text = round_trip(op("contract", s, v, params=ContractParams((2,), ((), (0,)), ())))
    assert "contract(%0, %1, ,i->)" in text


def test_parameters_of_an_operation_that_the_printer_does_not_know() -> None:
    class Strange(NamedTuple):
        order: int
        name: str

    strange = Operation("strange", "special", lambda p, x: x, lambda p, x: (x.shape, x.dtype), lambda n: (None,))
    from jacana.graph import node as module

    module.REGISTRY["strange"] = strange
    try:
        x = new_input((2,), F8)
        text = round_trip(strange(x, params=Strange(3, "a, (b")), strange(x, params=Strange(4, "%")))
    finally:
        del module.REGISTRY["strange"]
    assert text.splitlines()[1] == "%1 = strange(%0, p0) float64[2]  # p0 = Strange(order=3, name='a, (b')"


# --- what cannot be read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%1 = sine(%0) float64[3]", "there is no operation 'sine'"),
        ("%1 = sin(%5) float64[3]", "%5 has not been computed"),
        ("%1 = sin(%0) float64[4]", "this would be float64 of shape (3,)"),
        ("%1 = sin(%0) float32[3]", "this would be float64 of shape (3,)"),
        ("%1 = sin(%0) floaty[3]", "'floaty' is not a dtype"),
        ("%1 = constant(c0) float64[3]", "leaves has nothing called 'c0'"),
        ("%1 = index(%0, (table:00:3[i])) float64[3]", "leaves has nothing called 'table:00:3'"),
        ("%1 = index(%0, (i ** 2)) float64[3]", "is not an index expression"),
        ("%1 = index(%0, i) float64[3]", "are not indices in parentheses"),
        ("%1 = assemble(%0 at (i + 1), disjoint) float64[3]", "these arguments do not fit assemble"),
        ("%1 = contract(%0, ij->) float64[]", "these arguments do not fit contract"),
        ("%1 = add(%0) float64[3]", "add takes 2 arrays, not 1"),
        ("%1 = literal(one) float64[]", "'one' is not a number"),
        ("%1 = max(%0, p0) float64[]", "leaves has nothing called 'p0'"),
        ("what is this", "not of the form"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(line: str, message: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        parse_program(f"%0 = input(x0) float64[3]\n{line}\nreturn %0", {"x0": new_input((3,), F8)})
    assert str(refused.value).startswith("line 2 of the program")
    assert message in str(refused.value)


def test_leaves_of_another_kind_and_a_missing_return() -> None:
    line = "%0 = input(x0) float64[3]"
    with pytest.raises(InvalidInputError, match="does not end with return"):
        parse_program(line)
    with pytest.raises(InvalidInputError, match="'x0' in leaves is a int, not a Node"):
        parse_program(f"{line}\nreturn %0", {"x0": 3})
    with pytest.raises(InvalidInputError, match=r"this would be float64 of shape \(2,\)"):
        parse_program(f"{line}\nreturn %0", {"x0": new_input((2,), F8)})


# --- random programs ------------------------------------------------------------------------------------------------


@examples(150)
@given(programs(), st.booleans())
def test_random_programs_come_back_as_themselves(program: RandomProgram, with_inputs: bool) -> None:
    outputs = [*program.outputs, *(program.inputs if with_inputs else [])]
    text = round_trip(*outputs)
    assert len(text.splitlines()) == len(topological(outputs)) + 1


@examples(40)
@given(programs(steps=8), st.booleans())
def test_so_do_their_jacobians(program: RandomProgram, sparse: bool) -> None:
    if sparse:
        round_trip(*(sparse_jacobian(y, x).data for y in program.outputs for x in program.inputs))
    else:
        round_trip(*(node for row in dense_jacobians(program.outputs, program.inputs) for node in row))
