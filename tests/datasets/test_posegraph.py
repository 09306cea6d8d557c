"""The pose graphs: read in full, and residuals that agree with SciPy's rotations and with consistent graphs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg

import jacana as jc
from jacana.datasets import posegraph
from jacana.datasets.posegraph import PoseGraph
from jacana.optimize import SE3

transform = pytest.importorskip("scipy.spatial.transform")


@pytest.fixture(scope="module")
def intel() -> PoseGraph:
    return posegraph.load("intel")


@pytest.fixture(scope="module")
def grid() -> PoseGraph:
    return posegraph.load("tinyGrid3D")


def test_shapes_and_dtypes(intel: PoseGraph, grid: PoseGraph) -> None:
    shapes = ((intel, (1728, 3, 2512, 3, 3)), (grid, (9, 6, 11, 7, 6)))
    for graph, (n_poses, size, n_edges, n_move, n_errors) in shapes:
        assert graph.poses.shape == (n_poses, size)
        assert graph.x0.shape == (n_poses * size,)
        assert graph.first.shape == graph.second.shape == (n_edges,)
        assert graph.moves.shape == (n_edges, n_move)
        assert graph.weights.shape == (n_edges, n_errors, n_errors)
        assert graph.first.dtype == graph.second.dtype == np.int64
        assert graph.poses.dtype == graph.moves.dtype == graph.weights.dtype == np.float64


def test_first_and_last_line_of_intel_are_those_of_the_file(intel: PoseGraph) -> None:
    assert intel.poses[1].tolist() == [0.144012, -0.004462, -0.017453]
    assert (intel.first[-1], intel.second[-1]) == (1514, 1702)
    assert intel.moves[-1].tolist() == [0.000535, 0.101042, -2.31277]
    information = intel.weights[-1].T @ intel.weights[-1]
    np.testing.assert_allclose(
        information,
        [[136.087, -18.871, 21.7699], [-18.871, 129.504, -16.8313], [21.7699, -16.8313, 140.379]],
        rtol=1e-13,
    )
    assert np.array_equal(intel.weights, np.triu(intel.weights))


def test_every_pose_has_an_edge(intel: PoseGraph, grid: PoseGraph) -> None:
    for graph in (intel, grid):
        assert np.array_equal(np.union1d(graph.first, graph.second), np.arange(len(graph.poses)))


def test_quaternions_of_the_grid_come_back(grid: PoseGraph) -> None:
    expected = np.array([0.3171845, -0.2366641, 0.1427899, 0.9071908])  # of pose 1, as the file rounds it
    np.testing.assert_allclose(posegraph.quaternion(grid.poses[:, 3:])[1], expected, atol=1e-7)


def test_residual_in_the_plane_is_the_error_of_g2o(intel: PoseGraph) -> None:
    def matrix(pose: np.ndarray) -> np.ndarray:
        c, s = np.cos(pose[2]), np.sin(pose[2])
        return np.array([[c, -s, pose[0]], [s, c, pose[1]], [0.0, 0.0, 1.0]])

    rng = np.random.default_rng(5)
    x = intel.x0 + rng.standard_normal(intel.x0.size)
    r, poses = intel.residual(x), x.reshape(-1, 3)
    assert r.shape == (2512, 3)
    for e in (0, 5, 1800, 2511):
        a, b, move = (matrix(p) for p in (poses[intel.first[e]], poses[intel.second[e]], intel.moves[e]))
        E = np.linalg.inv(move) @ np.linalg.inv(a) @ b
        expected = intel.weights[e] @ [E[0, 2], E[1, 2], np.arctan2(E[1, 0], E[0, 0])]
        np.testing.assert_allclose(r[e], expected, rtol=0, atol=1e-10)


def test_residual_in_space_is_the_error_of_g2o(grid: PoseGraph) -> None:
    rng = np.random.default_rng(6)
    x = grid.x0 + rng.standard_normal(grid.x0.size)
    r, poses = grid.residual(x), x.reshape(-1, 6)
    assert r.shape == (11, 6)
    Rotation = transform.Rotation
    for e in range(11):
        a, b, move = poses[grid.first[e]], poses[grid.second[e]], grid.moves[e]
        Ra, Rb, Rm = Rotation.from_rotvec(a[3:]), Rotation.from_rotvec(b[3:]), Rotation.from_quat(move[3:])
        position = Rm.inv().apply(Ra.inv().apply(b[:3] - a[:3]) - move[:3])
        q = (Rm.inv() * Ra.inv() * Rb).as_quat(canonical=True)
        np.testing.assert_allclose(r[e], grid.weights[e] @ np.concatenate((position, q[:3])), rtol=0, atol=1e-12)


def test_moves_without_noise_leave_nothing() -> None:
    text = """
        VERTEX_SE2 7 1 2 0.5
        VERTEX_SE2 3 1 2 3.6415926535897931
        EDGE_SE2 7 3 0 0 -3.1415926535897931 1 0 0 2 0 3
    """
    graph = posegraph.parse(text)
    assert (graph.first.tolist(), graph.second.tolist()) == ([0], [1])
    assert np.abs(graph.residual(graph.x0)).max() < 1e-15


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.99e-4, 1.01e-4, 0.3, 2.0, 3.1])
def test_quaternion_agrees_with_scipy(angle: float) -> None:
    axes = np.random.default_rng(3).standard_normal((5, 3))
    rotation = angle * axes / np.linalg.norm(axes, axis=1, keepdims=True)
    expected = transform.Rotation.from_rotvec(rotation).as_quat(canonical=True)
    np.testing.assert_allclose(posegraph.quaternion(rotation), expected, rtol=0, atol=2e-16)


@pytest.mark.parametrize("name", ["intel", "grid"])
def test_jacobian_agrees_with_differences(name: str, request: pytest.FixtureRequest) -> None:
    graph = request.getfixturevalue(name)
    jacobian = jc.jacobian(lambda x: graph.residual(x).ravel(), format="csr")
    rng = np.random.default_rng(8)
    x, v = graph.x0 + 1e-2 * rng.standard_normal(graph.x0.size), rng.standard_normal(graph.x0.size)
    J, h = jacobian(x), 1e-6
    assert J.shape == (graph.residual(x).size, x.size)
    assert np.diff(J.indptr).max() <= 2 * graph.poses.shape[1]
    difference = (graph.residual(x + h * v) - graph.residual(x - h * v)).ravel() / (2 * h)
    np.testing.assert_allclose(J @ v, difference, rtol=0, atol=1e-7 * np.abs(difference).max())


def test_unknown_name_says_what_there_is() -> None:
    with pytest.raises(ValueError, match="there are: intel, tinyGrid3D"):
        posegraph.load("sphere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FIX 0", "line 1: 'FIX' is not one of VERTEX_SE2"),
        ("VERTEX_SE2 0 1 2", "line 1: VERTEX_SE2 takes 4 fields, there are 3"),
        ("VERTEX_SE2 0 0 0 0\nEDGE_SE2 0 1 0 0 0 1 0 0 1 0 1", "names pose 1, which the file does not have"),
        ("VERTEX_SE2 0 0 0 0\nEDGE_SE2 0 0 0 0 0 1 0 0 -1 0 1", "not positive definite"),
        ("VERTEX_SE2 0 0 0 0\nVERTEX_SE3:QUAT 0 0 0 0 0 0 0 1", "mixes"),
        ("VERTEX_SE3:QUAT 0 0 0 0 0 0 0 0", "a quaternion has length 0"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        posegraph.parse(text)


def perturbed(poses: np.ndarray, noise: float, seed: int) -> np.ndarray:
    moved = poses + noise * np.random.default_rng(seed).standard_normal(poses.shape)
    moved[0] = poses[0]
    return moved


@pytest.mark.parametrize("size", [3, 6])
def test_relaxed_graph_without_noise_is_exact_from_any_poses(size: int) -> None:
    rng = np.random.default_rng(4)
    poses = rng.uniform(-2.0, 2.0, (7, size))
    first = np.array([0, 1, 2, 3, 4, 5, 6, 1])
    second = np.array([1, 2, 3, 4, 5, 6, 0, 4])
    rotation = transform.Rotation
    d = 2 if size == 3 else 3
    if d == 2:
        turned = rotation.from_euler("z", poses[:, 2:])
        places = np.column_stack((poses[:, :2], np.zeros(7)))
    else:
        turned, places = rotation.from_rotvec(poses[:, 3:]), poses[:, :3]
    moves = turned[first].inv().apply(places[second] - places[first])[:, :d]
    turns = turned[first].inv() * turned[second]
    turns = turns.as_euler("xyz")[:, 2:] if d == 2 else turns.as_quat()
    weights = np.triu(rng.uniform(0.5, 2.0, (8, size, size)))
    graph = PoseGraph(perturbed(poses, 3.0, 5), first, second, np.concatenate((moves, turns), axis=1), weights)
    assert np.abs(graph.residual(graph.x0)).max() > 0.1
    relaxed = graph.relaxed()
    np.testing.assert_allclose(relaxed.residual(relaxed.x0), 0.0, atol=1e-12)
    np.testing.assert_array_equal(relaxed.poses[0, :d], poses[0, :d])


def test_relaxed_start_leads_to_the_best_minimum_of_intel(intel: PoseGraph) -> None:
    graph = intel.relaxed()
    scattered = PoseGraph(perturbed(intel.poses, 2.0, 6), intel.first, intel.second, intel.moves, intel.weights)
    np.testing.assert_allclose(scattered.relaxed().poses[1:, :2], graph.poses[1:, :2], rtol=1e-6, atol=1e-6)
    fit = jc.least_squares(lambda x: graph.residual(np.concatenate((graph.poses[0], x))), graph.x0[3:])
    assert fit.success
    assert fit.cost == pytest.approx(22.5023479, rel=1e-8)  # what GTSAM finds


def torus(rings: int, around: int, noise: float) -> tuple[PoseGraph, PoseGraph]:
    """A robot that winds around a torus and sees where it was one ring before: from anywhere, and from where it was."""
    rng = np.random.default_rng(7)
    rotation = transform.Rotation
    place = np.arange(rings * around).reshape(rings, around)
    u, v = (2.0 * np.pi * np.indices(place.shape) / np.array([rings, around])[:, None, None]).reshape(2, -1)
    position = np.stack(((8 + 3 * np.cos(v)) * np.cos(u), (8 + 3 * np.cos(v)) * np.sin(u), 3 * np.sin(v)), axis=1)
    turn = rotation.from_euler("zy", np.stack((u, v), axis=1))
    first = np.concatenate((place.ravel()[:-1], place.ravel()))
    second = np.concatenate((place.ravel()[1:], np.roll(place, -1, axis=0).ravel()))
    turns = turn[first].inv() * turn[second] * rotation.from_rotvec(noise * rng.standard_normal((first.size, 3)))
    shifts = turn[first].inv().apply(position[second] - position[first]) + noise * rng.standard_normal((first.size, 3))
    poses = np.concatenate(
        (8.0 * rng.standard_normal((u.size, 3)), rotation.random(u.size, rng=rng).as_rotvec()), axis=1
    )
    weights = np.tile(np.eye(6) / noise, (first.size, 1, 1))
    graph = PoseGraph(poses, first, second, np.concatenate((shifts, turns.as_quat()), axis=1), weights)
    return graph, replace(graph, poses=np.concatenate((position, turn.as_rotvec()), axis=1))


def test_relaxed_start_finds_what_a_search_from_anywhere_does_not() -> None:
    graph, true = torus(6, 10, 0.05)
    costs = []
    for start in (graph, graph.relaxed(), true):
        fit = jc.least_squares(lambda x, g: g.residual(np.concatenate((g.poses[0], x))), start.x0[6:], args=(start,))
        costs.append(fit.cost)
    assert costs[1] == pytest.approx(costs[2], rel=1e-8)
    assert costs[0] > 2.0 * costs[1]


def test_logarithms_of_se3_have_a_sparse_jacobian():
    # Cheapest first keeps apart what would have to be multiplied for this: some 250 terms for every entry.
    rng = np.random.default_rng(3)
    count = 200
    first, second = np.arange(count - 1), np.arange(1, count)
    noise = 0.1 * rng.standard_normal((count - 1, 6))
    turned, moved = transform.Rotation.from_rotvec(noise[:, :3]).as_matrix(), noise[:, 3:] + [1.0, 0.0, 0.0]
    weights = np.linalg.cholesky(np.eye(6) + 0.1 * np.ones((6, 6))) * np.ones((count - 1, 1, 1))
    start = np.tile(np.eye(4), (count, 1, 1))
    start[:, 0, 3] = np.arange(count)

    def across(a, b):
        (a0, a1, a2), (b0, b1, b2) = a.T, b.T
        return np.stack((a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0), 1)

    def residual(free):
        every = np.concatenate((start[:1], free))
        a, b = every[first], every[second]
        seen = np.einsum("eji,ej->ei", a[:, :3, :3], b[:, :3, 3] - a[:, :3, 3])
        shift = np.einsum("eji,ej->ei", turned, seen - moved)
        turn = np.einsum("eji,ejk->eik", turned, np.einsum("eji,ejk->eik", a[:, :3, :3], b[:, :3, :3]))
        skew = turn - np.swapaxes(turn, 1, 2)
        axis = 0.5 * np.stack((skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]), 1)
        sine, cosine = np.sqrt(np.sum(axis**2, axis=1)), 0.5 * (np.trace(turn, axis1=1, axis2=2) - 1.0)
        angle = np.arctan2(sine, cosine)
        w, half = (angle / sine)[:, None] * axis, 0.5 * angle
        c = (1.0 - half * np.cos(half) / np.sin(half)) / angle**2
        along = np.sum(w * shift, axis=1)
        tangent = (1.0 - c * angle**2)[:, None] * shift - 0.5 * across(w, shift) + (c * along)[:, None] * w
        return np.einsum("eij,ej->ei", weights, np.concatenate((tangent, w), axis=1))

    # The logarithm is what scipy.linalg says it is.
    wrong = np.linalg.inv(np.block([[turned[7], moved[7][:, None]], [np.zeros(3), 1.0]])) @ np.eye(4)
    wrong[:3, 3] += turned[7].T @ [1.0, 0.0, 0.0]
    logarithm = scipy.linalg.logm(wrong).real
    expected = np.array([*logarithm[:3, 3], logarithm[2, 1], logarithm[0, 2], logarithm[1, 0]])
    np.testing.assert_allclose(residual(start[1:])[7], weights[7] @ expected, rtol=1e-9)
    fit = jc.least_squares(residual, SE3(start[1:]), max_iterations=2)
    assert fit.jac.nnz <= 6 * 12 * (count - 1)
