"""Pose graphs from g2o files: cost, steps and seconds of `least_squares` with default settings.

    python benchmarks/pose_graphs.py sphere2500.g2o torus3D.g2o

Each file is solved from its own poses and from relaxed ones, the first call and later ones; the first pose is held. It
is solved with the logarithms of SE(2) or SE(3) as errors, which is what GTSAM has (poses in space as an `SE3`), and as
the residual of `jacana.datasets.posegraph` has it ("vectors").
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

import jacana as jc
from jacana.datasets import posegraph
from jacana.optimize import SE3


def logarithms(graph: posegraph.PoseGraph) -> tuple[Callable[[Any], Any], Any]:
    """Residual and start of a graph in space, its poses as homogeneous matrices.

    The logarithm of a rotation R and a shift t is the rotation vector w of R and ``V^-1 t``, with
    ``V^-1 t = t - w x t / 2 + c w x (w x t)`` and ``c = (1 - |w| / 2 cot(|w| / 2)) / |w|^2``.
    """
    poses = np.tile(np.eye(4), (len(graph.poses), 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(graph.poses[:, 3:]).as_matrix()
    poses[:, :3, 3] = graph.poses[:, :3]
    turned = Rotation.from_quat(graph.moves[:, 3:]).as_matrix()

    def residual(free: Any) -> Any:
        every = np.concatenate((poses[:1], free))
        a, b = every[graph.first], every[graph.second]
        seen = np.einsum("eji,ej->ei", a[:, :3, :3], b[:, :3, 3] - a[:, :3, 3])
        shift = np.einsum("eji,ej->ei", turned, seen - graph.moves[:, :3])
        turn = np.einsum("eji,ejk->eik", turned, np.einsum("eji,ejk->eik", a[:, :3, :3], b[:, :3, :3]))
        axis = 0.5 * np.stack(
            (turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0], turn[:, 1, 0] - turn[:, 0, 1]), 1
        )
        square = np.sum(axis**2, axis=1)
        small = square < 1e-14
        sine = np.sqrt(np.where(small, 1.0, square))
        cosine = 0.5 * (turn[:, 0, 0] + turn[:, 1, 1] + turn[:, 2, 2] - 1.0)
        angle = np.arctan2(sine, cosine)
        w = np.where(small, 1.0, angle / sine)[:, None] * axis
        half = 0.5 * np.where(small, 1.0, angle)
        c = np.where(small, 1.0 / 12.0, 0.25 * (1.0 - half * np.cos(half) / np.sin(half)) / half**2)
        along = np.sum(w * shift, axis=1)  # w x (w x t) = w (w . t) - t |w|^2
        moved = (1.0 - c * np.sum(w * w, axis=1))[:, None] * shift - 0.5 * across(w, shift) + (c * along)[:, None] * w
        return np.einsum("eij,ej->ei", graph.weights, np.concatenate((moved, w), axis=1))

    return residual, SE3(poses[1:])


def plane_logarithms(graph: posegraph.PoseGraph) -> tuple[Callable[[Any], Any], Any]:
    """Residual and start of a graph in the plane with the logarithms of SE(2) as errors.

    The logarithm of a turn by w and a shift t is ``k t - w (-t_y, t_x) / 2`` with ``k = w / 2 cot(w / 2)``, and w.
    """

    def turned(angle: Any, x: Any, y: Any) -> tuple[Any, Any]:
        """Seen from where the angle has been turned to."""
        cosine, sine = np.cos(angle), np.sin(angle)
        return cosine * x + sine * y, cosine * y - sine * x

    measured = graph.moves

    def residual(free: Any) -> Any:
        every = np.concatenate((graph.poses[:1], free))
        a, b = every[graph.first], every[graph.second]
        x, y = turned(a[:, 2], b[:, 0] - a[:, 0], b[:, 1] - a[:, 1])
        x, y = turned(measured[:, 2], x - measured[:, 0], y - measured[:, 1])
        angle = b[:, 2] - a[:, 2] - measured[:, 2]
        w = np.arctan2(np.sin(angle), np.cos(angle))
        small = np.abs(w) < 1e-5
        half = 0.5 * np.where(small, 1.0, w)
        k = np.where(small, 1.0 - w**2 / 12.0, half * np.cos(half) / np.sin(half))
        return np.einsum("eij,ej->ei", graph.weights, np.stack((k * x + 0.5 * w * y, k * y - 0.5 * w * x, w), 1))

    return residual, graph.poses[1:]


def across(a: Any, b: Any) -> Any:
    """Cross products of rows."""
    (a0, a1, a2), (b0, b1, b2) = a.T, b.T
    return np.stack((a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0), 1)


def vectors(graph: posegraph.PoseGraph) -> tuple[Callable[[Any], Any], Any]:
    """Residual and start of a graph as the data set has it."""
    head = graph.poses[0]
    return lambda x: graph.residual(np.concatenate((head, x))), graph.x0[head.size :]


def main(files: list[str]) -> None:
    for file in files:
        own = posegraph.parse(Path(file).read_text())
        begin = time.perf_counter()
        relaxed = own.relaxed()
        print(f"{Path(file).stem}: {len(own.poses)} poses, {len(own.first)} edges, relaxed in "
              f"{time.perf_counter() - begin:.2f} s")  # fmt: skip
        kinds = (vectors, logarithms if own.poses.shape[1] == 6 else plane_logarithms)
        for kind in kinds:
            for name, graph in (("own poses", own), ("relaxed", relaxed)):
                residual, start = kind(graph)
                solve, seconds = jc.LeastSquares(residual), []
                for _ in range(5):
                    begin = time.perf_counter()
                    fit = solve(start)
                    seconds.append(time.perf_counter() - begin)
                print(f"  {kind.__name__:16} {name:9} cost {fit.cost:.6g} in {fit.nit} steps, "
                      f"first {seconds[0]:.2f} s, then {min(seconds[1:]):.2f} s: {fit.message}")  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
