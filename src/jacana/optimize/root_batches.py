"""Roots of many samples at once: the steps of `Newton` for a whole batch.

Samples are solved side by side, by programs of the equations and of their Jacobian for the whole batch. Each takes the
steps that the search for it alone would take (Powell's dogleg in a trust region), so it comes to the same root. A
sample that meets anything out of the ordinary (a singular Jacobian, many refusals, a step that rounding hides) is not
decided here: it gets the search of its own.
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
from .newton import Newton

__all__ = ["newton_batches"]

LARGEST = 32  # unknowns up to which a sample's Jacobian is stored as a square array
MOST_STEPS = 100
_FLOOR = 1e-290  # residuals this small have no digits left to improve
_NEAR_ROUNDING = 32.0  # roundings within which the size of the residual says nothing any more
MOST_REFUSALS = 8  # in a row
_MEASURABLE = 512.0  # roundings from which a relative change of the squared norm can be measured
_ACCEPT, _POOR, _GOOD = 1e-4, 0.25, 0.75  # gain ratios: see `TrustRegion` and `Radius`

Batch = Callable[[ImplicitParams, Array, Sequence[Array]], "tuple[Array, Array] | None"]


def newton_batches(method: Any) -> Batch | None:
    """What solves batches for a method of `jacana.root`, or None where it takes other steps than Newton's.

    The function returned takes the problem of one sample, starts of shape (count, n) and the arguments of all samples.
    It returns x, shape (count, n), and which samples are solved, shape (count,); None where no program does for all.
    """
    if type(method) is not Newton or type(method.linear_solver) is not SquareLU or method.control != Radius():
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


def _newton(evaluate: Callable[[Array], Sequence[Array]], start: Array, method: Newton) -> tuple[Array, Array]:
    """The search for all samples: x, and which of them have arrived."""
    eps = float(np.finfo(np.float64).eps)
    x = np.array(start)
    residual, jacobian = evaluate(x)
    norm, norms = _lengths(residual), np.sqrt(np.sum(jacobian**2, axis=1))
    scale = np.where(norms > 0.0, norms, 1.0)
    extent = _lengths(scale * np.abs(x))
    extent = np.where(extent > 0.0, extent, np.where(norm > 0.0, norm, 1.0))
    solved, refusals = np.zeros(len(x), dtype=bool), np.zeros(len(x), dtype=np.int64)
    going = np.isfinite(norm) & np.isfinite(jacobian).all(axis=(1, 2))
    trust: Array | None = None
    for _ in range(min(MOST_STEPS, method.max_iterations)):
        rounding = eps * (np.sum(norms * np.abs(x), axis=1) + norm)
        arrived = (norm <= _FLOOR) | ((refusals == 0) & (norm <= rounding))
        if method.tol > 0.0:
            arrived |= np.abs(residual).max(axis=1) <= method.tol
        solved |= going & arrived
        going &= ~arrived
        if not going.any():
            break
        newton, regular = _steps(jacobian, residual, going)
        full_length = _lengths(scale * newton)
        if trust is None:
            trust = np.minimum(extent, np.where(full_length > 0.0, full_length, extent))
        # What rounding has spoilt, and searches that are held up, are judged by the search of the sample itself.
        polishing = (refusals == 0) & (norm <= _NEAR_ROUNDING * rounding)
        going &= regular & np.isfinite(full_length) & (refusals <= MOST_REFUSALS)
        step = _dogleg(newton, jacobian, residual, scale, np.where(polishing, np.inf, trust))
        full = polishing | (full_length <= trust)
        following = np.where(going[:, None], x + step, x)
        new_residual, new_jacobian = evaluate(following)
        new_norm = _lengths(new_residual)
        image = np.einsum("bij,bj->bi", jacobian, step)
        slope = np.where(full, 1.0, -np.sum(residual * image, axis=1) / norm**2)
        predicted = np.where(full, 1.0, 2.0 * slope - (_lengths(image) / norm) ** 2)
        length = _lengths(scale * step)
        going &= polishing | ((predicted > _MEASURABLE * eps) & (_lengths(image) > _NEAR_ROUNDING * rounding))
        actual = 1.0 - (new_norm / norm) ** 2
        finite = np.isfinite(new_norm) & np.isfinite(new_jacobian).all(axis=(1, 2))
        gain = np.where(finite, actual / predicted, -np.inf)
        taken = np.where(polishing, finite & (new_norm < norm), gain >= _ACCEPT)
        solved |= going & polishing & ~taken  # as near as the arithmetic allows
        going &= taken | ~polishing
        shrinkage = np.where(actual >= 0.0, 0.5, np.clip(0.5 * slope / (slope - 0.5 * actual), 0.1, 0.5))
        shrinkage = np.where(finite, shrinkage, 0.1)
        grown = np.where((gain >= _GOOD) | full, 2.0 * length, trust)
        trust = np.where(taken & (gain > _POOR), grown, shrinkage * np.minimum(trust, 10.0 * length))
        refusals = np.where(taken, 0, refusals + 1)
        moved = going & taken
        x = np.where(moved[:, None], following, x)
        residual = np.where(moved[:, None], new_residual, residual)
        jacobian = np.where(moved[:, None, None], new_jacobian, jacobian)
        norm = np.where(moved, new_norm, norm)
        norms = np.sqrt(np.sum(jacobian**2, axis=1))
        scale = np.maximum(scale, norms)
    return x, solved


def _lengths(vectors: Array) -> Array:
    return np.asarray(np.sqrt(np.sum(vectors**2, axis=1)))


def _steps(jacobian: Array, residual: Array, going: Array) -> tuple[Array, Array]:
    """Newton's steps, and where there is one."""
    regular = np.asarray(np.linalg.det(jacobian) != 0.0) & going
    matrix = np.where(regular[:, None, None], jacobian, np.eye(jacobian.shape[1]))
    return -np.linalg.solve(matrix, residual[:, :, None])[:, :, 0], regular


def _dogleg(newton: Array, jacobian: Array, residual: Array, scale: Array, trust: Array) -> Array:
    """Newton's steps where the region has room for them, else Powell's: see `Dogleg.propose`."""
    down = -np.einsum("bij,bi->bj", jacobian, residual) / scale**2
    share = np.sum((scale * down) ** 2, axis=1) / np.sum(np.einsum("bij,bj->bi", jacobian, down) ** 2, axis=1)
    cauchy = share[:, None] * down
    reach = _lengths(scale * cauchy)
    leg = newton - cauchy
    a, b = (_lengths(scale * leg) / trust) ** 2, np.sum(scale**2 * cauchy * leg, axis=1) / trust**2
    c = 1.0 - (reach / trust) ** 2
    bent = cauchy + (c / (b + np.sqrt(np.maximum(b * b + a * c, 0.0))))[:, None] * leg
    short = np.where((reach >= trust)[:, None], cauchy * (trust / reach)[:, None], bent)
    return np.where((_lengths(scale * newton) <= trust)[:, None], newton, short)
