"""Hand-written C as a limit: the bundle-adjustment residual and its CSR Jacobian, next to jacana's.

    python benchmarks/limits.py

The C program does what somebody would write who knows the problem: one pass over the observations, everything in
registers, the two rows of fifteen entries stored where they belong. It is compiled with the system's compiler
(``cc -O3 -march=native``) into a temporary folder; without one the comparison is left out. Both write into memory of
their own at every call; jacana also allocates what it returns. One thread each, unless ``JACANA_NUM_THREADS`` says
otherwise.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JACANA_NUM_THREADS", "1")

import numpy as np

import jacana as jc

SOURCE = r"""
#include <math.h>
#include <stdint.h>

/* One camera is (w, t, f, k1, k2): X' = R(w) X + t, p = -X'_xy / X'_z, r = f (1 + k1 |p|^2 + k2 |p|^4) p - z.
   For each observation two residuals, and two rows of nine and three entries: by the camera, by the point. */
void bundle(int64_t count, const double *restrict cameras, const double *restrict points,
            const int32_t *restrict camera_of, const int32_t *restrict point_of, const double *restrict seen,
            double *restrict residual, double *restrict data)
{
    #pragma GCC ivdep
    for (int64_t i = 0; i < count; i++) {
        const double *c = cameras + 9 * (int64_t)camera_of[i], *X = points + 3 * (int64_t)point_of[i];
        double a = c[0], b = c[1], d = c[2], x = X[0], y = X[1], z = X[2];
        double t2 = a * a + b * b + d * d, t = sqrt(t2), it = 1.0 / t;
        double u = a * it, v = b * it, w = d * it;                 /* the axis */
        double cs = cos(t), sn = sin(t), k = 1.0 - cs;
        double dot = u * x + v * y + w * z;
        double cx = v * z - w * y, cy = w * x - u * z, cz = u * y - v * x;
        double P[3] = {cs * x + sn * cx + k * dot * u + c[3], cs * y + sn * cy + k * dot * v + c[4],
                       cs * z + sn * cz + k * dot * w + c[5]};
        double R[3][3] = {{cs + k * u * u, k * u * v - sn * w, k * u * w + sn * v},
                          {k * u * v + sn * w, cs + k * v * v, k * v * w - sn * u},
                          {k * u * w - sn * v, k * v * w + sn * u, cs + k * w * w}};
        double e[3] = {u, v, w}, q[3] = {x, y, z}, cr[3] = {cx, cy, cz}, D[3][3];
        /* d(R X)/d(w_m): along the angle e[m], and along the axis by (1 - e e^T) / t */
        for (int m = 0; m < 3; m++) {
            double h[3], dh = 0.0;
            for (int j = 0; j < 3; j++) h[j] = ((m == j) - e[m] * e[j]) * it;
            for (int j = 0; j < 3; j++) dh += h[j] * q[j];
            double hx[3] = {h[1] * z - h[2] * y, h[2] * x - h[0] * z, h[0] * y - h[1] * x};
            for (int j = 0; j < 3; j++)
                D[j][m] = e[m] * (cs * cr[j] - sn * q[j] + sn * dot * e[j]) + sn * hx[j] + k * (dh * e[j] + dot * h[j]);
        }
        double iz = -1.0 / P[2], px = P[0] * iz, py = P[1] * iz, n = px * px + py * py;
        double f = c[6], s = 1.0 + n * (c[7] + n * c[8]), g = 2.0 * f * (c[7] + 2.0 * n * c[8]);
        residual[2 * i] = f * s * px - seen[2 * i];
        residual[2 * i + 1] = f * s * py - seen[2 * i + 1];
        double A[2][2] = {{f * s + g * px * px, g * px * py}, {g * px * py, f * s + g * py * py}};
        double p[2] = {px, py}, B[2][3];
        for (int r = 0; r < 2; r++) {
            B[r][0] = A[r][0] * iz; B[r][1] = A[r][1] * iz;
            B[r][2] = (A[r][0] * px + A[r][1] * py) * iz;
        }
        for (int r = 0; r < 2; r++) {
            double *row = data + 24 * i + 12 * r;
            for (int m = 0; m < 3; m++) {
                row[m] = B[r][0] * D[0][m] + B[r][1] * D[1][m] + B[r][2] * D[2][m];
                row[3 + m] = B[r][m];
                row[9 + m] = B[r][0] * R[0][m] + B[r][1] * R[1][m] + B[r][2] * R[2][m];
            }
            row[6] = s * p[r]; row[7] = f * n * p[r]; row[8] = f * n * n * p[r];
        }
    }
}
"""


def compiled(folder: str) -> Any:
    """The C kernel, or None where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform == "win32":
        return None
    source, library = Path(folder, "bundle.c"), Path(folder, "bundle.so")
    source.write_text(SOURCE)
    command = [compiler, "-O3", "-march=native", "-fno-math-errno", "-shared", "-fPIC", str(source), "-o", str(library)]
    subprocess.run([*command, "-lm"], check=True, timeout=120)
    return ctypes.CDLL(str(library)).bundle


def problem(observations: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    cameras = np.concatenate([rng.normal(0, 0.3, (49, 3)), rng.normal(0, 1, (49, 2)), rng.normal(-8, 1, (49, 1)),
                              rng.uniform(300, 500, (49, 1)), rng.normal(0, 1e-2, (49, 2))], axis=1)  # fmt: skip
    points = rng.normal(0, 1, (observations // 4, 3))
    camera_of = np.sort(rng.integers(0, 49, observations)).astype(np.int32)
    point_of = rng.integers(0, len(points), observations).astype(np.int32)
    return cameras, points, camera_of, point_of, rng.normal(0, 100, (observations, 2))


def residual(cameras, points, camera_of, point_of, seen):  # type: ignore[no-untyped-def]
    c, X = cameras[camera_of], points[point_of]
    angle = np.sqrt(np.sum(c[:, :3] ** 2, axis=1))[:, None]
    axis = c[:, :3] / angle
    dot = np.sum(axis * X, axis=1)[:, None]
    P = np.cos(angle) * X + np.sin(angle) * np.cross(axis, X) + (1.0 - np.cos(angle)) * dot * axis + c[:, 3:6]
    p = -P[:, :2] / P[:, 2:]
    n = np.sum(p**2, axis=1)[:, None]
    return c[:, 6:7] * (1.0 + n * (c[:, 7:8] + n * c[:, 8:9])) * p - seen


def median(call: Any, rounds: int = 41) -> float:
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return sorted(times)[rounds // 2]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        kernel = compiled(folder)
        if kernel is None:
            print("no C compiler: the limit is left out")
            return
        for observations in (31_843, 1_000_000):
            cameras, points, camera_of, point_of, seen = problem(observations)
            transform = jc.value_and_jacobian(
                lambda c, x, k=camera_of, j=point_of, z=seen: residual(c, x, k, j, z), argnums=(0, 1), format="csr"
            )
            with jc.executor("native"):
                value, matrix = transform(cameras, points)
            out, data = np.empty((observations, 2)), np.empty((2 * observations, 12))
            count = ctypes.c_int64(observations)
            arrays = (cameras, points, camera_of, point_of, seen, out, data)
            pointers = [ctypes.c_void_p(a.ctypes.data) for a in arrays]

            def in_c(count: Any = count, pointers: Any = pointers) -> None:
                kernel(count, *pointers)

            def ours(c: Any = cameras, x: Any = points, transform: Any = transform) -> None:
                with jc.executor("native"):
                    transform(c, x)

            in_c()
            np.testing.assert_allclose(out, value, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(data.ravel(), matrix.data, rtol=1e-8, atol=1e-8)
            rounds = 41 if observations < 10**5 else 9
            limit, mine = median(in_c, rounds), median(ours, rounds)
            print(
                f"{observations:,} observations: C {1e3 * limit:.2f} ms, jacana {1e3 * mine:.2f} ms, {mine / limit:.2f}"
            )


if __name__ == "__main__":
    main()
