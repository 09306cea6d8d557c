"""Programs that are the same but for their leaves have the same digest, others do not."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from support import F4, F8, examples, op, programs, take_slice, take_table

from jacana.graph import build
from jacana.graph.fingerprint import fingerprint
from jacana.graph.node import Node, literal, new_input, substitute_nodes
from jacana.graph.ops.reduction import AxesParams


def digest(inputs: Any, *outputs: Node, content: bool = True) -> bytes:
    found = fingerprint(inputs, outputs, content)
    assert found is not None
    return found.digest


def everything(x: Node, y: Node, at: Any = (3, 0, 1, 1), data: Any = (1.0, 2.0), number: float = 2.0) -> list[Node]:
    """A bit of each family."""
    taken = take_table(x, 0, np.array(at))
    scaled = op("multiply", taken, build.broadcast_to(literal(number, F8), taken.shape))
    held = op("add", y, build.constant_array(np.array(data)))
    squares = build.contract_labels([(held, (0,)), (held, (0,))], (2,), ())
    return [scaled, squares, op("max", held, params=AxesParams((0,)))]


def made(content: bool = True, **k: Any) -> bytes:
    x, y = new_input((5,), F8), new_input((2,), F8)
    return digest((x, y), *everything(x, y, **k), content=content)


def test_leaves_do_not_count_but_structure_does():
    assert made() == made()
    assert made() != made(data=(7.0, -3.0))
    assert made(content=False) == made(data=(7.0, -3.0), content=False)
    assert len({made(), made(at=(3, 0, 1, 2)), made(number=2.5), made(number=-0.0), made(number=0.0)}) == 5


def test_order_shape_and_dtype_count():
    x, y = new_input((3,), F8), new_input((3,), F8)
    assert digest((x, y), op("subtract", x, y)) != digest((x, y), op("subtract", y, x))
    assert digest((x, y), op("subtract", x, y)) == digest((y, x), op("subtract", y, x))
    assert digest((x, y), x, y) != digest((x, y), y, x)
    single = new_input((3,), F4)
    other = new_input((4,), F8)
    assert len({digest((z,), op("exp", z)) for z in (x, single, other)}) == 3
    assert digest((x,), take_slice(x, 0, 0, 2)) != digest((x,), take_slice(x, 0, 1, 3))


def test_the_zeros_of_structural_constants_count():
    def banded(places: Any) -> bytes:
        x = new_input((6,), F8)
        matrix = np.zeros((6, 6))
        matrix[tuple(places)] = np.random.default_rng().uniform(1, 2, len(places[0]))
        return digest(
            (x,),
            build.contract_labels([(build.constant_array(matrix), (0, 1)), (x, (1,))], (6, 6), (0,)),
            content=False,
        )

    assert banded(([1, 2], [2, 3])) == banded(([1, 2], [2, 3])) != banded(([1, 2], [2, 4]))


def test_what_cannot_be_told_has_no_digest():
    x, y = new_input((3,), F8), new_input((3,), F8)
    assert fingerprint((x,), (op("add", x, y),)) is None


@given(programs())
@examples(30)
def test_random_programs_with_other_leaves(program):
    fresh = {x: new_input(x.shape, x.dtype) for x in program.inputs}
    moved = substitute_nodes(program.outputs, dict(fresh))
    assert digest(program.inputs, *program.outputs) == digest(tuple(fresh.values()), *moved)
