"""Kernels that follow one another are one function, and what only they need lives on its stack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jacana as jc
from jacana.run.native.recipe import Buffer, Recipe

pytestmark = pytest.mark.skipif(not jc.native_available(), reason="llvmlite is not installed")

ENDS = np.array([[0, 1], [1, 2], [2, 0], [0, 3], [3, 4]])


def springs(x: Any) -> Any:
    """Forces in a net of springs: a gather, lengths, a scatter that starts from zeros, and a sum of everything."""
    along = x[ENDS[:, 1]] - x[ENDS[:, 0]]
    length = np.sqrt(np.sum(along**2, axis=1))
    pull = (length - 1.0)[:, None] * along / length[:, None]
    force = np.zeros_like(x)
    np.add.at(force, ENDS[:, 0], pull)
    np.add.at(force, ENDS[:, 1], -pull)
    return force / np.sum(force**2)


def through_numpy(x: Any) -> Any:
    """A step that NumPy does, between two stages that share an array."""
    centred = x - np.mean(x, axis=0)
    spectrum = np.fft.rfft(centred, axis=0)
    power = np.sum(spectrum.real**2 + spectrum.imag**2, axis=0)
    return centred / power


def recipe_of(function: Any, x: Any) -> Recipe:
    from jacana.run.native.executor import emit_program

    return emit_program(jc.value_and_jacobian(function)._replay.program((x,), {})).recipe


@pytest.fixture(params=[2**16, 200, 0])
def stack(request, monkeypatch):
    from jacana import plans
    from jacana.run.native import stages

    monkeypatch.setattr(stages, "STACK", request.param)
    monkeypatch.setenv("JACANA_CACHE_DIR", "")
    plans.forget()
    yield request.param
    plans.forget()


@pytest.mark.parametrize(("function", "launches"), [(springs, 1), (through_numpy, None)])
def test_the_numbers_are_those_of_numpy(function, launches, stack):
    x = np.random.default_rng(0).normal(size=(5, 2))
    with jc.executor("numpy"):
        wanted = jc.value_and_jacobian(function)(x)
    native = jc.value_and_jacobian(function)
    with jc.executor("native"):
        recipe = recipe_of(function, x)
        for _ in range(3):  # the second call takes the shortest way, if there is one
            for one, other in zip(native(x), wanted, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-15)
    if launches is not None:
        assert len(recipe.steps) == launches
    own = [source for source in recipe.sources if isinstance(source, Buffer)]
    if stack == 2**16 and launches is not None:
        assert len(own) == len(recipe.results) and recipe.entered
    elif launches is not None:
        assert len(own) > len(recipe.results)
    else:
        assert 1 < len(recipe.launches) < len(recipe.steps)
