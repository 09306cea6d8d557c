"""What operators of large Jacobians keep, and that they do not follow arrays that change afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jacana as jc
from jacana.structure.operator import LARGE

N = LARGE + 3


def diagonal_plus_rank_one(x: Any) -> Any:
    return x**2 * np.sum(x)


def by_hand(x: Any, v: Any) -> tuple[Any, Any]:
    return 2 * x * x.sum() * v + x**2 * v.sum(), 2 * x * x.sum() * v + (x**2) @ v


@pytest.mark.parametrize("executor", ["numpy", "native", "auto"])
def test_products_equal_those_by_hand_after_the_argument_has_changed(executor: Any) -> None:
    if executor == "native":
        pytest.importorskip("llvmlite")
    rng = np.random.default_rng(1)
    x, v = rng.standard_normal((2, N))
    with jc.executor(executor):
        operator = jc.jacobian(diagonal_plus_rank_one, format="operator")(x)
        pushed, pulled = by_hand(x, v)
        x[:] = np.nan
        for _ in range(2):
            np.testing.assert_allclose(operator @ v, pushed, rtol=1e-12, atol=1e-9)
            np.testing.assert_allclose(operator.T @ v, pulled, rtol=1e-12, atol=1e-9)


def test_cheap_factors_are_made_again_and_dear_ones_are_kept() -> None:
    pytest.importorskip("llvmlite")

    def kept(function: Any, executor: Any, n: int) -> int:
        x = np.random.default_rng(2).standard_normal(n)
        with jc.executor(executor):
            return sum(a.size for a in jc.jacobian(function, format="operator")(x)._arrays)

    # Lengths differ because plans are found again by the structure of the program, whatever the executor.
    assert kept(diagonal_plus_rank_one, "auto", N + 1) == N + 1 + 1
    assert kept(diagonal_plus_rank_one, "numpy", N + 2) == 2 * (N + 2)
    assert kept(lambda x: np.exp(x) * np.sum(x), "auto", N + 3) == N + 3 + 1  # exp is its own derivative
    assert kept(np.sin, "auto", N + 4) == N + 4
