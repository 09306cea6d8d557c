"""Roots of many samples at once: the steps of `NaturalNewton` for a whole batch.

Samples are solved side by side, by programs of the equations and of their Jacobian for the whole batch. Each takes the
steps that the search for it alone would take, so it comes to the same root. A sample that meets anything out of the
ordinary (a singular Jacobian, many refusals, a step that rounding hides) is not decided here: it gets the search of its
own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..differentiate import dense_jacobians
from ..errors import UnsupportedOperationError
from ..graph.batching import batched
from ..graph.node import Array, new_input
from ..graph.ops.implicit import ImplicitParams
from ..graph.simplify import simplify
from ..run import Program, compile_numpy
from .controls import Radius
from .linear.square import SquareLU
from .natural import CONVERGING, LEAST_CUT, NaturalNewton
from .newton import CREDIBLE, NEAR
from .root_stages import FALLEN

__all__ = ["newton_batches"]

LARGEST = 32  # unknowns up to which a sample's Jacobian is stored as a square array
MOST_STEPS = 100
_FLOOR = 1e-290  # residuals this small have no digits left to improve
MOST_REFUSALS = 8  # in a row
_LEAST_DAMPING = 1e-3

Batch = Callable[[ImplicitParams, Array, Sequence[Array]], "tuple[Array, Array] | None"]


def newton_batches(method: Any) -> Batch | None:
    """What solves batches for a method of `jacana.root`, or None where it takes other steps than Newton's.

    The function returned takes the problem of one sample, starts of shape (count, n) and the arguments of all samples.
    It returns x, shape (count, n), and which samples are solved, shape (count,); None where no program does for all.
    """
    if type(method) is not NaturalNewton or type(method.linear_solver) is not SquareLU or method.control != Radius():
        return None
    programs: dict[tuple[ImplicitParams, int], Callable[..., list[Array]] | None] = {}

    def solve(params: ImplicitParams, start: Array, arguments: Sequence[Array]) -> tuple[Array, Array] | None:
        count, n = start.shape
        if not 0 < n <= LARGEST or start.dtype != np.float64:
            return None
        key = params, count
        if key not in programs:
            programs.clear()
            programs[key] = _program(params, count)
        run = programs[key]
        if run is None:
            return None
        with np.errstate(all="ignore"):
            return _newton(lambda x: run([np.ascontiguousarray(x), *arguments]), start, method)

    return solve


def _program(params: ImplicitParams, count: int) -> Callable[..., list[Array]] | None:
    """Equations, shape (count, n), and Jacobians, shape (count, n, n)."""
    leaves = (params.unknown, *params.arguments)
    wide = [new_input((count, *node.shape), node.dtype) for node in leaves]
    one = [params.equations, dense_jacobians([params.equations], [params.unknown])[0][0]]
    try:
        nodes = batched(one, dict(zip(leaves, wide, strict=True)), count)
    except UnsupportedOperationError:
        return None
    run = compile_numpy(Program(tuple(wide), tuple(simplify(nodes))))
    return lambda arrays: run([np.asarray(a, order="C") for a in arrays])


def _newton(evaluate: Callable[[Array], Sequence[Array]], start: Array, method: NaturalNewton) -> tuple[Array, Array]:
    """The search for all samples: x, and which of them have arrived. See `NaturalNewton.step`."""
    eps = float(np.finfo(np.float64).eps)
    x = np.array(start)
    residual, jacobian = evaluate(x)
    norm, norms = _lengths(residual), np.sqrt(np.sum(jacobian**2, axis=1))
    first = norm
    scale = np.where(norms > 0.0, norms, 1.0)
    extent = _lengths(scale * np.abs(x))
    trust = np.where(extent > 0.0, extent, np.inf)
    solved, refusals = np.zeros(len(x), dtype=bool), np.zeros(len(x), dtype=np.int64)
    going = np.isfinite(norm) & np.isfinite(jacobian).all(axis=(1, 2))
    going &= _regular(jacobian)
    newton = _steps(jacobian, residual, going)
    for _ in range(min(MOST_STEPS, method.max_iterations)):
        terms = eps * np.einsum("bij,bj->bi", np.abs(jacobian), np.abs(x))
        rounding = eps * (np.sum(norms * np.abs(x), axis=1) + norm)
        believed = (norm <= FALLEN * first) | (np.abs(residual) <= CREDIBLE * terms).all(axis=1)
        arrived = (norm <= _FLOOR) | (believed & (refusals == 0) & (norm <= rounding))
        if method.tol > 0.0:
            arrived |= np.abs(residual).max(axis=1) <= method.tol
        solved |= going & arrived
        going &= ~arrived
        if not going.any():
            break
        length = _lengths(scale * newton)
        damping = np.where(length > trust, trust / length, 1.0)
        # What is held up by refusals or a vanishing damping is left to the search of the sample itself.
        going &= np.isfinite(length) & (refusals <= MOST_REFUSALS) & (damping > _LEAST_DAMPING)
        following = np.where(going[:, None], x + damping[:, None] * newton, x)
        new_residual, new_jacobian = evaluate(following)
        going &= np.isfinite(new_residual).all(axis=1) & np.isfinite(new_jacobian).all(axis=(1, 2))
        going &= _regular(new_jacobian)
        simplified, new_newton = _steps(jacobian, new_residual, going), _steps(new_jacobian, new_residual, going)
        passed = _lengths(scale * simplified) < (1.0 - 0.25 * damping) * length
        whole, converging = damping == 1.0, _lengths(scale * new_newton) <= CONVERGING * length
        moved = going & (passed | (whole & (refusals == 0) & converging))
        held = going & whole & ~converging & (norm <= NEAR * rounding)
        solved |= held & believed  # as near as the arithmetic allows
        moved &= ~held | (_lengths(new_residual) < norm)
        refusals = np.where(moved, 0, refusals + 1)
        bent = _lengths(scale * (simplified - (1.0 - damping)[:, None] * newton))
        cut = np.clip(0.5 * damping * length / bent, LEAST_CUT, 0.5)
        norms = np.where(moved[:, None], np.sqrt(np.sum(new_jacobian**2, axis=1)), norms)
        scale = np.maximum(scale, norms)
        turned = _lengths(scale * (simplified - new_newton))
        further = np.where(passed & (turned > 0.0), damping * length * _lengths(scale * simplified) / turned, np.inf)
        trust = np.where(moved, further, cut * damping * length)
        x = np.where(moved[:, None], following, x)
        residual = np.where(moved[:, None], new_residual, residual)
        jacobian = np.where(moved[:, None, None], new_jacobian, jacobian)
        newton = np.where(moved[:, None], new_newton, newton)
        norm = np.where(moved, _lengths(new_residual), norm)
        going &= ~held
    return x, solved


def _lengths(vectors: Array) -> Array:
    return np.asarray(np.sqrt(np.sum(vectors**2, axis=1)))


def _regular(jacobian: Array) -> Array:
    return np.asarray(np.linalg.det(jacobian) != 0.0)


def _steps(jacobian: Array, residual: Array, going: Array) -> Array:
    """Newton's steps of those samples that are still going; the others' are of no account."""
    matrix = np.where(going[:, None, None], jacobian, np.eye(jacobian.shape[1]))
    return -np.linalg.solve(matrix, residual[:, :, None])[:, :, 0]
