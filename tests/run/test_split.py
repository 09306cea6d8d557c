"""Long straight-line programs: cut into pieces, the same numbers bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from support import examples, programs

import jacana as jc
from jacana import plans
from jacana.run import Program

pytestmark = pytest.mark.skipif(not jc.native_available(), reason="llvmlite is not installed")


def pieces_of(monkeypatch: Any, piece: int, whole: int) -> list[str]:
    """Cut like this; gives what has been cut."""
    from jacana.run.native import executor, split

    found: list[str] = []
    cut = split.split_straight

    def spy(function: Any) -> str | None:
        text = cut(function)
        if text is not None:
            found.append(text)
        return text

    monkeypatch.setattr(executor, "split_straight", spy)
    monkeypatch.setattr(split, "PIECE", piece)
    monkeypatch.setattr(split, "WHOLE", whole)
    return found


def lorenz(p: Any) -> Any:
    x, y, z = p[0], p[1], p[2]
    for _ in range(25):
        x, y, z = x + 0.01 * (10 * (y - x)), y + 0.01 * (x * (28.0 - z) - y), z + 0.01 * (np.sin(x) * y - z)
    return np.array([x, y, z, np.where(x > y, x, z)])


@pytest.mark.parametrize("long", [0, 10_000])
@pytest.mark.parametrize("piece", [1, 7, 100])
def test_pieces_change_no_bit(piece, long, monkeypatch):
    from jacana.run.native import engine

    monkeypatch.setattr(engine, "LONG", long)
    p = np.array([1.0, 0.5, 20.0])
    with jc.executor("native"):
        whole = jc.value_and_jacobian(lorenz)(p)
        found = pieces_of(monkeypatch, piece, 10)
        plans.forget()
        cut = jc.value_and_jacobian(lorenz)(p)
    assert found and found[0].count("define internal") > 400 // piece
    for one, other in zip(whole, cut, strict=True):
        assert one.tobytes() == other.tobytes()


@given(programs())
@examples(20)
def test_random_programs_in_pieces(program):
    from jacana.plan import native_plan
    from jacana.run.native import compile_native

    values = [np.random.default_rng(k).uniform(0.5, 1.5, x.shape) for k, x in enumerate(program.inputs)]
    made = Program(tuple(program.inputs), tuple(program.outputs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_plan, "STRAIGHT", 500)
        whole = compile_native(made)(values)
        pieces_of(patch, 9, 9)
        for one, other in zip(whole, compile_native(made)(values), strict=True):
            assert one.tobytes() == other.tobytes()
