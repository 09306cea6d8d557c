"""Pose graphs: places of a robot to be refined so that they agree with the moves it measured between them.

The problem files are of the kind that g2o reads (Kuemmerle, Grisetti, Strasdat, Konolige, Burgard: *g2o: A general
framework for graph optimization*, ICRA 2011); origin and format are in ``posegraph/README.md`` beside the data. The
residuals are plain NumPy, written for all edges at once.

A pose in the plane is (x, y, angle); a pose in space is (x, y, z) and a rotation vector, six numbers. Lengths are in
metres, angles in radians.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PoseGraph", "load", "multiply", "parse", "quaternion", "residual_2d", "residual_3d", "turn"]

SMALL_ANGLE_SQUARED = 1e-8
"""Below this squared angle (radians squared) two terms of the series of a quaternion's parts are exact to rounding,
while their closed forms lose digits."""


@dataclass(frozen=True, eq=False)
class PoseGraph:
    """A pose graph: the start and the measured moves.

    Attributes:
        poses: shape (n_poses, 3) in the plane: x, y, angle; (n_poses, 6) in space: position and rotation vector.
        first: shape (n_edges,), int64: the pose an edge starts from.
        second: shape (n_edges,), int64: the pose it leads to.
        moves: shape (n_edges, 3) in the plane: x, y, angle; (n_edges, 7) in space: position and unit quaternion
            (x, y, z, w). The second pose as seen from the first.
        weights: shape (n_edges, 3, 3) or (n_edges, 6, 6): upper triangular square roots U of the information matrices
            ``U.T @ U`` of the moves.
    """

    poses: NDArray[np.float64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    moves: NDArray[np.float64]
    weights: NDArray[np.float64]

    @property
    def x0(self) -> NDArray[np.float64]:
        """The start as one flat vector, pose after pose."""
        return self.poses.ravel()

    def residual(self, x: Any) -> Any:
        """Weighted residuals, shape (n_edges, 3) or (n_edges, 6), at one flat vector of all poses.

        Half the sum of their squares is the cost. It does not change when all poses are moved together; a solver
        that cannot bear that holds one of them.

        Args:
            x: shape (n_poses * 3,) in the plane, (n_poses * 6,) in space.
        """
        of_edges = residual_2d if self.poses.shape[1] == 3 else residual_3d
        return of_edges(x.reshape(self.poses.shape), self.first, self.second, self.moves, self.weights)

    def relaxed(self) -> PoseGraph:
        """The same graph with poses to start from that two sparse linear problems give: rotations first, then places.

        A search from the poses of a file may end in a local minimum far above the best one, whatever its method: turned
        poses that disagree around a long loop cannot be turned back by small steps. Rotations as matrices whose
        entries are free, ``R[first] @ moved == R[second]``, have no local minima; what comes out is made a rotation
        again afterwards. The first pose is held; each edge counts by the sizes of its weights. The edges must connect
        all poses.

        Source: D. Martinec and T. Pajdla, "Robust rotation and translation estimation in multiview reconstruction",
        CVPR 2007; L. Carlone, R. Tron, K. Daniilidis and F. Dellaert, "Initialization techniques for 3D SLAM: a survey
        on rotation estimation and its use in pose graph optimization", ICRA 2015, section III.

        Example:
            >>> graph = load("intel")
            >>> cost = lambda g: 0.5 * float(np.sum(g.residual(g.x0) ** 2))
            >>> cost(graph) > 200.0, cost(graph.relaxed()) < 26.0
            (True, True)
        """
        d = 2 if self.poses.shape[1] == 3 else 3
        count, edges = len(self.poses), len(self.moves)
        turned = _matrices(self.moves[:, d:])
        # A row of R[second] is the same row of R[first], turned: every row is a problem of its own, and all are alike.
        size = np.linalg.norm(self.weights[:, d:, d:], axis=(1, 2))[:, None, None]
        step = _differences(self.first, self.second, np.swapaxes(turned, 1, 2) * size, np.eye(d) * size, count)
        rows = _linear(step, _matrices(self.poses[:1, d:])[0].T)
        left, _, right = np.linalg.svd(np.swapaxes(rows.reshape(count, d, d), 1, 2))
        left[:, :, -1] *= np.linalg.det(left @ right)[:, None]
        rotations = left @ right
        size = np.linalg.norm(self.weights[:, :d, :d], axis=(1, 2))[:, None, None]
        step = _differences(self.first, self.second, np.ones((edges, 1, 1)) * size, np.ones((1, 1)) * size, count)
        moves = np.einsum("eij,ej->ei", rotations[self.first], self.moves[:, :d]) * size[:, 0]
        places = _linear(step, self.poses[:1, :d], moves)
        return replace(self, poses=np.concatenate((places, _turns(rotations)), axis=1))


def load(name: str) -> PoseGraph:
    """Load a pose graph that comes with jacana.

    Args:
        name: "intel" (in the plane: 1,728 poses, 2,512 edges) or "tinyGrid3D" (in space: 9 poses, 11 edges).

    Raises:
        ValueError: there is no pose graph of that name.

    Example:
        >>> graph = load("intel")
        >>> graph.poses.shape, graph.moves.shape, graph.weights.shape
        ((1728, 3), (2512, 3), (2512, 3, 3))
    """
    folder = resources.files(__package__).joinpath("posegraph")
    file = folder.joinpath(f"{name}.g2o.xz")
    if not file.is_file():
        known = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".g2o.xz"))
        names = ", ".join(entry.removesuffix(".g2o.xz") for entry in known)
        raise ValueError(f"no pose graph is called {name!r}; there are: {names}")
    return parse(lzma.decompress(file.read_bytes()).decode("ascii"))


_KINDS = {
    "VERTEX_SE2": (1, 3),
    "VERTEX_SE3:QUAT": (1, 7),
    "EDGE_SE2": (2, 3 + 6),
    "EDGE_SE3:QUAT": (2, 7 + 21),
}
"""How many poses a line of each kind names, and how many numbers follow."""


def parse(text: str) -> PoseGraph:
    """Read a pose graph from the text of a g2o file whose poses are all in the plane or all in space.

    Raises:
        ValueError: a line is of another kind or length, names a pose that there is not, gives a quaternion of length
            0 or an information matrix that is not positive definite; or the file mixes plane and space.
    """
    named: dict[str, list[list[int]]] = {kind: [] for kind in _KINDS}
    numbers: dict[str, list[list[float]]] = {kind: [] for kind in _KINDS}
    for count, line in enumerate(text.splitlines(), start=1):
        kind, *fields = line.split() or [""]
        if not kind:
            continue
        if kind not in _KINDS:
            raise ValueError(f"line {count}: {kind!r} is not one of {', '.join(_KINDS)}")
        n_names, n_numbers = _KINDS[kind]
        if len(fields) != n_names + n_numbers:
            raise ValueError(f"line {count}: {kind} takes {n_names + n_numbers} fields, there are {len(fields)}")
        named[kind].append([int(field) for field in fields[:n_names]])
        numbers[kind].append([float(field) for field in fields[n_names:]])
    plane = bool(named["VERTEX_SE2"] or named["EDGE_SE2"])
    if plane and (named["VERTEX_SE3:QUAT"] or named["EDGE_SE3:QUAT"]):
        raise ValueError("the file mixes poses in the plane and in space")
    vertex, edge = ("VERTEX_SE2", "EDGE_SE2") if plane else ("VERTEX_SE3:QUAT", "EDGE_SE3:QUAT")
    n_place, n_errors = (3, 3) if plane else (7, 6)
    poses = np.array(numbers[vertex], dtype=np.float64).reshape(-1, n_place)
    if not plane:
        poses = np.concatenate((poses[:, :3], _rotation_vector(_unit(poses[:, 3:]))), axis=1)
    position = {name: i for i, (name,) in enumerate(named[vertex])}
    try:
        ends = [[position[name] for name in names] for names in named[edge]]
    except KeyError as missing:
        raise ValueError(f"an edge names pose {missing}, which the file does not have") from None
    first, second = np.array(ends, dtype=np.int64).reshape(-1, 2).T
    values = np.array(numbers[edge], dtype=np.float64).reshape(len(ends), _KINDS[edge][1])
    moves = values[:, :n_place].copy()
    if not plane:
        moves[:, 3:] = _unit(moves[:, 3:])
    return PoseGraph(poses, first.copy(), second.copy(), moves, _roots(values[:, n_place:], n_errors))


def _roots(upper: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Upper triangular square roots of information matrices, given by their upper triangles row by row."""
    rows, columns = np.triu_indices(n)
    information = np.zeros((len(upper), n, n))
    information[:, rows, columns] = upper
    information[:, columns, rows] = upper
    try:
        return np.ascontiguousarray(np.swapaxes(np.linalg.cholesky(information), 1, 2))
    except np.linalg.LinAlgError:
        raise ValueError("an information matrix is not positive definite") from None


def _unit(q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quaternions scaled to length 1: a file gives few digits."""
    length = np.linalg.norm(q, axis=1, keepdims=True)
    if not np.all(length > 0.0):
        raise ValueError("a quaternion has length 0")
    return np.asarray(q / length, dtype=np.float64)


def _rotation_vector(q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation vectors of unit quaternions (x, y, z, w), of an angle of at most pi."""
    q = np.where(q[:, 3:] < 0.0, -q, q)
    sine = np.linalg.norm(q[:, :3], axis=1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, q[:, 3:])
    factor = np.where(sine > 0.0, angle / np.where(sine > 0.0, sine, 1.0), 2.0)
    return np.asarray(q[:, :3] * factor, dtype=np.float64)


def _matrices(turns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrices of angles (n, 1), rotation vectors (n, 3) or unit quaternions (n, 4)."""
    from scipy.spatial.transform import Rotation

    match turns.shape[1]:
        case 1:
            cosine, sine = np.cos(turns[:, 0]), np.sin(turns[:, 0])
            return np.stack((cosine, -sine, sine, cosine), axis=1).reshape(-1, 2, 2)
        case 3:
            return np.asarray(Rotation.from_rotvec(turns).as_matrix())
        case _:
            return np.asarray(Rotation.from_quat(turns).as_matrix())


def _turns(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles (n, 1) or rotation vectors (n, 3) of rotation matrices."""
    from scipy.spatial.transform import Rotation

    if matrices.shape[1] == 2:
        return np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0])[:, None]
    return np.asarray(Rotation.from_matrix(matrices).as_rotvec())


def _differences(first: Any, second: Any, of_first: Any, of_second: Any, count: int) -> Any:
    """The sparse matrix with the rows ``of_second @ x[second] - of_first @ x[first]`` of every edge, (e, d, d) each."""
    from scipy import sparse

    edges, d = of_first.shape[:2]
    row = np.broadcast_to((d * np.arange(edges)[:, None] + np.arange(d))[:, :, None], (edges, d, d))
    columns = [np.broadcast_to(d * end[:, None, None] + np.arange(d), (edges, d, d)).ravel() for end in (first, second)]
    entries = np.concatenate((-of_first.ravel(), np.broadcast_to(of_second, (edges, d, d)).ravel()))
    places = (np.tile(row.ravel(), 2), np.concatenate(columns))
    return sparse.csc_array(sparse.coo_array((entries, places), shape=(d * edges, d * count)))


def _linear(matrix: Any, head: NDArray[np.float64], right: Any = 0.0) -> NDArray[np.float64]:
    """The X of least ``|matrix @ X - right|`` that begins with the rows `head`."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    rest = matrix[:, len(head) :]
    factor = splu(
        sparse.csc_array(rest.T @ rest),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    return np.concatenate((head, factor.solve(rest.T @ (right - matrix[:, : len(head)] @ head))))


def quaternion(rotation: Any) -> Any:
    """Unit quaternions (x, y, z, w), shape (n, 4), of rotation vectors, shape (n, 3), with the series near angle 0."""
    angle_squared = np.sum(rotation * rotation, axis=1, keepdims=True)
    small = angle_squared < SMALL_ANGLE_SQUARED
    angle = np.sqrt(np.where(small, 1.0, angle_squared))
    along = np.where(small, 0.5 - angle_squared / 48.0, np.sin(0.5 * angle) / angle)
    real = np.where(small, 1.0 - angle_squared / 8.0, np.cos(0.5 * angle))
    return np.concatenate((along * rotation, real), axis=1)


def multiply(p: Any, q: Any) -> Any:
    """Products of quaternions (x, y, z, w), shape (n, 4): turn by q, then by p."""
    a, b = p[:, :3], q[:, :3]
    vector = p[:, 3:] * b + q[:, 3:] * a + np.cross(a, b)
    real = p[:, 3:] * q[:, 3:] - np.sum(a * b, axis=1, keepdims=True)
    return np.concatenate((vector, real), axis=1)


def turn(q: Any, vectors: Any) -> Any:
    """Turn each of the vectors, shape (n, 3), by its unit quaternion (x, y, z, w), shape (n, 4)."""
    axis = q[:, :3]
    return vectors + 2.0 * np.cross(axis, np.cross(axis, vectors) + q[:, 3:] * vectors)


def residual_2d(poses: Any, first: Any, second: Any, moves: Any, weights: Any) -> Any:
    """How far each edge in the plane is from the move that was measured, weighted.

    The error is the pose (x, y, angle) by which the second pose misses its place, as seen from that place, with the
    angle between -pi and pi; this is what g2o calls the error of an ``EDGE_SE2``.

    Args:
        poses: shape (n_poses, 3): x, y, angle.
        first: shape (n_edges,), integers.
        second: shape (n_edges,), integers.
        moves: shape (n_edges, 3): x, y, angle of the second pose as seen from the first.
        weights: shape (n_edges, 3, 3).

    Returns:
        Shape (n_edges, 3).
    """
    a, b = poses[first], poses[second]
    dx, dy = b[:, 0] - a[:, 0], b[:, 1] - a[:, 1]
    cosine, sine = np.cos(a[:, 2]), np.sin(a[:, 2])
    x, y = cosine * dx + sine * dy - moves[:, 0], cosine * dy - sine * dx - moves[:, 1]
    cosine, sine = np.cos(moves[:, 2]), np.sin(moves[:, 2])
    angle = b[:, 2] - a[:, 2] - moves[:, 2]
    error = np.stack((cosine * x + sine * y, cosine * y - sine * x, np.arctan2(np.sin(angle), np.cos(angle))), axis=1)
    return np.einsum("eij,ej->ei", weights, error)


def residual_3d(poses: Any, first: Any, second: Any, moves: Any, weights: Any) -> Any:
    """How far each edge in space is from the move that was measured, weighted.

    The error is the position by which the second pose misses its place, as seen from that place, and the vector part
    of the unit quaternion (with w at least 0) by which it is turned wrongly; this is what g2o calls the error of an
    ``EDGE_SE3:QUAT``.

    Args:
        poses: shape (n_poses, 6): position and rotation vector.
        first: shape (n_edges,), integers.
        second: shape (n_edges,), integers.
        moves: shape (n_edges, 7): position and unit quaternion of the second pose as seen from the first.
        weights: shape (n_edges, 6, 6).

    Returns:
        Shape (n_edges, 6).
    """
    a, b = poses[first], poses[second]
    conjugate = np.array([-1.0, -1.0, -1.0, 1.0])
    back, undo = quaternion(a[:, 3:]) * conjugate, moves[:, 3:] * conjugate
    position = turn(undo, turn(back, b[:, :3] - a[:, :3]) - moves[:, :3])
    wrong = multiply(undo, multiply(back, quaternion(b[:, 3:])))
    rotation = np.where(wrong[:, 3:] < 0.0, -wrong[:, :3], wrong[:, :3])
    return np.einsum("eij,ej->ei", weights, np.concatenate((position, rotation), axis=1))
