"""The problems and everybody who solves them.

A problem is one function written in plain NumPy, and a list of peers: the same mathematics as somebody who knows the
other library well would write it. Everybody gets an ndarray and gives ndarrays (or a `scipy.sparse.csr_array`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

Call = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class Contender:
    """One way to get the Jacobian of a problem.

    Attributes:
        name: shown in the tables.
        module: what has to be importable; a contender whose module is missing is skipped, and that is said.
        build: prepares (colours, traces symbolically, ...) and gives the function that is timed.
        canonical: turns the timed function's result into an ndarray or a csr_array for comparison; not timed.
        counts: whether the target's ratio is taken against this contender (the fastest that counts is the rival).
        note: what a reader should know about this way.
        slow: prepared once only, and left out of the repeated first-answer runs.
        enter: run before each timed batch, not timed (selects jacana's executor).
    """

    name: str
    module: str
    build: Callable[[], Call]
    canonical: Callable[[Any], Any] = lambda result: result
    counts: bool = True
    note: str = ""
    slow: bool = False
    enter: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Target:
    """What jacana promises on a problem; None where there is no promise."""

    ratio: float | None = None
    microseconds: float | None = None
    first_answer_milliseconds: float | None = None


@dataclass(frozen=True)
class Problem:
    """A benchmark problem: the function in plain NumPy, inputs to call it with, and the peers.

    Attributes:
        format: what jacana is asked for.
        inputs: ndarrays, or tuples of them.
        derivative: "jacobian" or "hessian".
        ours: prepares jacana where there is more to it than ``jc.jacobian(function, format=format)``.
        canonical: turns jacana's result into an ndarray or a csr_array for comparison; not timed.
    """

    name: str
    title: str
    function: Call
    format: str
    inputs: tuple[Any, ...]
    peers: tuple[Contender, ...]
    target: Target = field(default_factory=Target)
    derivative: str = "jacobian"
    ours: Callable[[], Call] | None = None
    canonical: Callable[[Any], Any] = lambda result: result


def jax_double() -> Any:
    """JAX in double precision, as every other contender computes."""
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


def torch_double() -> Any:
    """PyTorch in double precision."""
    import torch

    torch.set_default_dtype(torch.float64)
    return torch


def as_float64(result: Any) -> np.ndarray:
    """The ndarray of a JAX array, waiting for it to be computed; refuses single precision, which would be unfair."""
    array = np.asarray(result.block_until_ready())
    if array.dtype != np.float64:
        raise TypeError(f"float64 expected, got {array.dtype}")
    return array


def csr(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, int]) -> sp.csr_array:
    """A csr_array around arrays that are known to be in order: no copy and no check beyond SciPy's own constructor."""
    return sp.csr_array((data, indices, indptr), shape=shape, copy=False)


def disagreement(result: Any, reference: Any) -> float:
    """Largest difference between two Jacobians in double precision, over the largest entry of the reference."""
    if result.dtype != np.float64:
        raise TypeError(f"float64 expected, got {result.dtype}")
    if result.shape != reference.shape:
        raise ValueError(f"shapes differ: {result.shape} and {reference.shape}")
    scale = float(abs(reference).max())
    difference = result - reference
    largest = float(abs(difference).max())
    if not np.isfinite(largest):
        return float("inf")
    return largest / scale
