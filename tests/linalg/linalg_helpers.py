"""Functions of linear algebra at points where they are smooth, and differences of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg

RNG = np.random.default_rng(7)
A = RNG.normal(size=(3, 3))
TALL = RNG.normal(size=(4, 2))
WIDE = RNG.normal(size=(2, 3))
SPD = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 5.5]])
REAL = np.array([[1.0, 0.3, 0.2], [0.1, 2.0, 0.3], [0.2, -0.1, 4.0]])  # a real spectrum, not symmetric
BATCH = np.stack([SPD, 0.7 * SPD + np.diag([0.0, 1.0, 0.4])])
SMALL = 0.4 * A
TALL_BATCH = np.stack([TALL, TALL + 0.5])

Function = Callable[[Any], Any]
la, sl = np.linalg, scipy.linalg

NUMPY: dict[str, tuple[Function, np.ndarray]] = {
    "eigh": (lambda x: la.eigh(x), SPD),
    "eigh upper": (lambda x: la.eigh(x, "U"), SPD),
    "eigh batch": (lambda x: la.eigh(x), BATCH),
    "eigvalsh": (lambda x: la.eigvalsh(x), SPD),
    "eig": (lambda x: la.eig(x), REAL),
    "eigvals": (lambda x: la.eigvals(x), REAL),
    "svd square": (lambda x: la.svd(x), A),
    "svd tall": (lambda x: la.svd(x, full_matrices=False), TALL),
    "svd wide": (lambda x: la.svd(x, full_matrices=False), WIDE),
    "svd batch": (lambda x: la.svd(x, full_matrices=False), TALL_BATCH),
    "svdvals": (lambda x: la.svdvals(x), TALL),
    "svd symmetric": (lambda x: la.svd(x + x.T, hermitian=True), A),
    "qr": (lambda x: la.qr(x), TALL),
    "qr wide": (lambda x: la.qr(x), WIDE),
    "qr r": (lambda x: la.qr(x, "r"), TALL),
    "qr batch": (lambda x: la.qr(x), TALL_BATCH),
    "slogdet": (lambda x: la.slogdet(x)[1], A),
    "det": (lambda x: la.det(x), A),
    "inv": (lambda x: la.inv(x), A),
    "solve": (lambda x: la.solve(x, x[:, :2] ** 2), SPD),
    "solve vector": (lambda x: la.solve(x, np.sin(x[0])), SPD),
    "pinv tall": (lambda x: la.pinv(x), TALL),
    "pinv wide": (lambda x: la.pinv(x), WIDE),
    "pinv batch": (lambda x: la.pinv(x), TALL_BATCH),
    "lstsq": (lambda x: la.lstsq(x, np.sin(x[:, :1]))[:2], TALL),
    "lstsq wide": (lambda x: la.lstsq(x, np.sin(x[:, 0]))[0], WIDE),
    "cholesky": (lambda x: la.cholesky(x), SPD),
    "cholesky upper": (lambda x: la.cholesky(x, upper=True), BATCH),
    "matrix_power": (lambda x: la.matrix_power(x, -2), SPD),
    "norm nuc": (lambda x: la.norm(x, "nuc"), A),
    "norm 2": (lambda x: la.norm(x, 2), TALL),
    "norm -2": (lambda x: la.norm(x, -2), TALL),
    "norm 3": (lambda x: la.norm(x, 3, axis=1), TALL),
    "cond": (lambda x: la.cond(x), SPD),
    "cond 1": (lambda x: la.cond(x, 1), SPD),
    "tensorsolve": (lambda x: la.tensorsolve(x.reshape(3, 1, 3), x[:, :1]), SPD),
    "tensorinv": (lambda x: la.tensorinv(x.reshape(3, 1, 3)), SPD),
}

SCIPY: dict[str, tuple[Function, np.ndarray]] = {
    "solve": (lambda x: sl.solve(x, x[:, :1] ** 2), SPD),
    "solve pos": (lambda x: sl.solve(x, x[0], assume_a="pos"), SPD),
    "solve sym lower": (lambda x: sl.solve(x, x[0], assume_a="sym", lower=True), SPD - 4 * np.eye(3)),
    "solve upper": (lambda x: sl.solve(x, x[0], assume_a="upper triangular"), SPD),
    "solve transposed": (lambda x: sl.solve(x, x[0], transposed=True), A),
    "solve_triangular": (lambda x: sl.solve_triangular(x, x[0], lower=True), SPD),
    "solve_triangular unit": (
        lambda x: sl.solve_triangular(x, x[0], trans="T", unit_diagonal=True), SPD),
    "inv": (lambda x: sl.inv(x), A),
    "det": (lambda x: sl.det(x), A),
    "norm": (lambda x: sl.norm(x, 1), A),
    "cholesky": (lambda x: sl.cholesky(x, lower=True), SPD),
    "cho_factor": (lambda x: sl.cho_factor(x)[0], SPD),
    "cho_solve": (lambda x: sl.cho_solve(sl.cho_factor(x), x[:, 0]), SPD),
    "cho_solve lower": (lambda x: sl.cho_solve(sl.cho_factor(x, lower=True), np.ones((3, 2))), SPD),
    "lu_factor": (lambda x: sl.lu_factor(x)[0], A),
    "lu_solve": (lambda x: sl.lu_solve(sl.lu_factor(x), x[:, 0]), A),
    "lu_solve transposed": (lambda x: sl.lu_solve(sl.lu_factor(x), x, trans=1), A),
    "lu": (lambda x: sl.lu(x)[1:], A),
    "lu permuted": (lambda x: sl.lu(x, permute_l=True), A),
    "qr": (lambda x: sl.qr(x), A),
    "qr economic": (lambda x: sl.qr(x, mode="economic"), TALL),
    "qr r": (lambda x: sl.qr(x, mode="r"), TALL),
    "qr pivoting": (lambda x: sl.qr(x, mode="economic", pivoting=True)[:2], TALL),
    # The signs of SciPy's eigenvectors jump: squares for differences, signs in test_scipy_linalg.py.
    "eigh": (lambda x: (sl.eigh(x)[0], sl.eigh(x)[1] ** 2), SPD),
    "eigh pair": (lambda x: [r**2 for r in sl.eigh(x, np.eye(3) + 0.1 * x)], SPD),
    "eigvalsh": (lambda x: sl.eigvalsh(x), SPD),
    "eigvalsh pair": (lambda x: sl.eigvalsh(np.diag([1.0, 2.0, 5.0]), x), SPD),
    "svd": (lambda x: sl.svd(x), A),
    "svd tall": (lambda x: sl.svd(x, full_matrices=False), TALL),
    "svdvals": (lambda x: sl.svdvals(x), TALL),
    "lstsq": (lambda x: sl.lstsq(x, np.sin(x[:, 0]))[:2], TALL),
    "lstsq matrix": (lambda x: sl.lstsq(x, np.sin(x))[:2], TALL),
    "pinv": (lambda x: sl.pinv(x), TALL),
    "pinv atol": (lambda x: sl.pinv(x, atol=1e-3, return_rank=True)[0], TALL),
    "pinvh": (lambda x: sl.pinvh(x), SPD),
    "expm": (lambda x: sl.expm(x), SMALL),
    "expm batch": (lambda x: sl.expm(x), 0.2 * BATCH),
    "expm_frechet": (lambda x: sl.expm_frechet(x, x.T * 2), SMALL[:2, :2]),
    "sqrtm": (lambda x: sl.sqrtm(x), REAL),
    "logm": (lambda x: sl.logm(x), REAL[1:, 1:]),
    "sinm": (lambda x: sl.sinm(x), SMALL[:2, :2]),
    "cosm": (lambda x: sl.cosm(x), SMALL[:2, :2]),
    "tanm": (lambda x: sl.tanm(x), SMALL[:2, :2]),
    "sinhm": (lambda x: sl.sinhm(x), SMALL[:2, :2]),
    "coshm": (lambda x: sl.coshm(x), SMALL[:2, :2]),
    "tanhm": (lambda x: sl.tanhm(x), SMALL[:2, :2]),
    "signm": (lambda x: sl.signm(x), REAL - 1.5 * np.eye(3)),
    "fractional_matrix_power": (lambda x: sl.fractional_matrix_power(x, 0.4), SPD[1:, 1:]),
    "solve_sylvester": (lambda x: sl.solve_sylvester(x, x.T + 0.3 * np.eye(3), np.sin(x)), SPD),
    "solve_continuous_lyapunov": (lambda x: sl.solve_continuous_lyapunov(x, x.T), SPD),
    "solve_discrete_lyapunov": (lambda x: sl.solve_discrete_lyapunov(0.1 * x, x), SPD),
    "polar": (lambda x: sl.polar(x), TALL),
    "polar left": (lambda x: sl.polar(x, side="left"), WIDE),
    "orthogonal_procrustes": (lambda x: sl.orthogonal_procrustes(x, x + x[::-1] ** 2), TALL),
    "toeplitz": (lambda x: sl.toeplitz(x[:, 0], x[0]), TALL),
    "toeplitz symmetric": (lambda x: sl.toeplitz(x[:, 0]), TALL),
    "hankel": (lambda x: (sl.hankel(x[:, 0], x[-1]), sl.hankel(x[:, 0])), TALL),
    "circulant": (lambda x: sl.circulant(x[:, 0]), TALL),
    "companion": (lambda x: sl.companion(x[:, 0]), TALL),
    "leslie": (lambda x: sl.leslie(x[:, 0], x[1:, 1]), TALL),
    "fiedler": (lambda x: sl.fiedler(x[:, 0]), TALL),
    "convolution_matrix": (
        lambda x: [sl.convolution_matrix(x[:, 0], n, m) for n in (3, 6) for m in ("full", "same", "valid")], TALL),
    "khatri_rao": (lambda x: sl.khatri_rao(x, x[:3] ** 2), TALL),
    "block_diag": (lambda x: sl.block_diag(x, x[:1], x[0, 0], np.eye(2), [1.0, 2.0]), TALL),
    "matmul_toeplitz": (lambda x: sl.matmul_toeplitz((x[:, 0], x[0]), x[:2, 1]), TALL),
    "solve_toeplitz": (lambda x: sl.solve_toeplitz(x[:, 0] + 4 * np.eye(4)[0], x[:, 1]), TALL),
    "solve_circulant": (lambda x: sl.solve_circulant(x[:, 0] + 4 * np.eye(4)[0], x[:, 1]), TALL),
    "solve_banded": (lambda x: sl.solve_banded((1, 1), x, x[0]), np.array([[0, 1, 2, 1.], [5, 6, 7, 5], [1, 2, 1, 0]])),
    "solveh_banded": (lambda x: sl.solveh_banded(x, x[1]), np.array([[0, 1, 2, 1.0], [5, 6, 7, 5]])),
    "solveh_banded lower": (lambda x: sl.solveh_banded(x, x[0], lower=True), np.array([[5, 6, 7, 5], [1, 2, 1, 0.0]])),
    "eigvals_banded": (lambda x: sl.eigvals_banded(x), np.array([[0, 1, 2, 1.0], [5, 6, 9, 5]])),
    "eigvalsh_tridiagonal": (
        lambda x: sl.eigvalsh_tridiagonal(x[1], x[0, 1:]), np.array([[0, 1, 2, 1.0], [5, 6, 9, 5]])),
}  # fmt: skip


def flat(result: Any) -> Any:
    """All results of a function as one vector."""
    parts = list(result) if isinstance(result, (tuple, list)) else [result]
    return np.concatenate([np.ravel(p) for p in parts])


def differences(function: Function, x: np.ndarray, step: float = 3e-4) -> np.ndarray:
    """The Jacobian by central differences of sixth order."""
    weights = {1: 45.0, 2: -9.0, 3: 1.0}
    columns = []
    for k in range(x.size):

        def at(t: float, k: int = k) -> np.ndarray:
            moved = np.array(x)
            moved.reshape(-1)[k] += t
            return np.asarray(function(moved)).ravel()

        columns.append(sum(w * (at(m * step) - at(-m * step)) for m, w in weights.items()) / (60 * step))
    return np.stack(columns, axis=-1)
