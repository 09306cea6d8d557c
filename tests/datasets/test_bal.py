"""The bundle adjustment problem: read in full, and at the start it costs what the literature says."""

from __future__ import annotations

import numpy as np
import pytest

from jacana.datasets import bal


@pytest.fixture(scope="module")
def problem() -> bal.BalProblem:
    return bal.load()


def test_shapes_and_dtypes(problem: bal.BalProblem) -> None:
    assert problem.cameras.shape == (16, 9)
    assert problem.points.shape == (22106, 3)
    assert problem.observations.shape == (83718, 2)
    assert problem.camera_index.shape == problem.point_index.shape == (83718,)
    assert problem.camera_index.dtype == problem.point_index.dtype == np.int64
    assert problem.cameras.dtype == problem.points.dtype == problem.observations.dtype == np.float64


def test_every_camera_and_every_point_is_observed(problem: bal.BalProblem) -> None:
    assert np.array_equal(np.unique(problem.camera_index), np.arange(16))
    assert np.array_equal(np.unique(problem.point_index), np.arange(22106))


def test_first_and_last_observation_are_those_of_the_file(problem: bal.BalProblem) -> None:
    assert (problem.camera_index[0], problem.point_index[0]) == (0, 0)
    assert problem.observations[0].tolist() == [-385.99, 387.12]
    assert (problem.camera_index[-1], problem.point_index[-1]) == (15, 22105)
    assert problem.observations[-1].tolist() == [-196.32, 512.68]


def test_cost_at_the_start(problem: bal.BalProblem) -> None:
    r = problem.residual(problem.x0)
    assert r.shape == (83718, 2)
    assert 0.5 * np.sum(r**2) == pytest.approx(4.185660e6, abs=0.5)


def test_pack_and_unpack_are_inverse(problem: bal.BalProblem) -> None:
    assert problem.x0.shape == (16 * 9 + 22106 * 3,)
    cameras, points = bal.unpack(problem.x0, 16)
    assert np.array_equal(cameras, problem.cameras)
    assert np.array_equal(points, problem.points)


def test_first_observations_are_a_problem_of_their_own(problem: bal.BalProblem) -> None:
    part = problem.first(31_843)
    assert part.observations.shape == (31_843, 2)
    assert len(part.points) == part.point_index.max() + 1 < len(problem.points)
    assert np.array_equal(part.residual(part.x0), problem.residual(problem.x0)[:31_843])


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.99e-4, 1.01e-4, 0.3, 2.0, 3.1])
def test_rotate_agrees_with_scipy(angle: float) -> None:
    transform = pytest.importorskip("scipy.spatial.transform")
    rng = np.random.default_rng(3)
    axes = rng.standard_normal((5, 3))
    rotation = angle * axes / np.linalg.norm(axes, axis=1, keepdims=True)
    vectors = rng.standard_normal((5, 3))
    expected = transform.Rotation.from_rotvec(rotation).apply(vectors)
    np.testing.assert_allclose(bal.rotate(rotation, vectors), expected, rtol=0, atol=2e-15)


def test_unknown_name_says_what_there_is() -> None:
    with pytest.raises(ValueError, match="problem-16-22106-pre"):
        bal.load("ladybug")


def test_text_cut_short_is_refused() -> None:
    with pytest.raises(ValueError, match="announces 19 numbers, the text holds 8"):
        bal.parse("1 1 1\n0 0 1.5 2.5\n0.1\n")


def test_index_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"names a point outside 0\.\.0"):
        bal.parse("1 1 1\n0 1 1.5 2.5\n" + "0.0\n" * 12)
