"""Fixed and tied parameters, manifolds: what a search moves, and what the residual sees."""

import numpy as np
import pytest

import jacana as jc
from jacana.errors import InvalidInputError
from jacana.optimize import SE3, SO3, Positive, Simplex, Sphere, UnitQuaternion
from jacana.optimize.manifolds import rotation_matrix

T = np.linspace(0.0, 3.0, 13)
Y = 3.0 * np.exp(-0.7 * T) + 0.5 + 0.05 * np.sin(17.0 * np.arange(13))
START = {"height": 1.0, "rate": 1.0, "floor": np.zeros(1)}


def decay(p):
    return p["height"] * np.exp(-p["rate"] * T) + p["floor"][0] - Y


# ---- fixed and tied --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixed", ["rate", ["rate"], [("rate",)]])
def test_fixed_by_name(fixed):
    result = jc.least_squares(decay, {**START, "rate": 0.6}, fixed=fixed)
    assert result.success
    assert result.x["rate"] == 0.6
    design = np.stack([np.exp(-0.6 * T), np.ones_like(T)], axis=1)
    height, floor = np.linalg.lstsq(design, Y)[0]
    assert float(result.x["height"]) == pytest.approx(height, rel=1e-11)
    assert float(result.x["floor"][0]) == pytest.approx(floor, rel=1e-11)
    assert result.standard_errors["rate"] == 0.0
    assert result.names == ("x['floor'][0]", "x['height']")
    assert result.jac.shape == (13, 2)
    assert "(fixed)" in str(result)


def test_fixed_by_path_and_by_mask():
    def residual(p):
        return p["a"] * np.array([1.0, 2.0, 3.0]) - np.array([2.0, 2.0, 2.0])

    result = jc.least_squares(residual, {"a": np.zeros(3)}, fixed=[("a", 1)])
    np.testing.assert_allclose(result.x["a"], [2.0, 0.0, 2.0 / 3.0], rtol=1e-14)
    masked = jc.least_squares(lambda x: x - 5.0, np.zeros(3), fixed=np.array([False, True, False]))
    np.testing.assert_array_equal(masked.x, [5.0, 0.0, 5.0])
    one = jc.least_squares(lambda x: x - 5.0, np.zeros((2, 3)), fixed=[(1, 2)])
    assert one.x[1, 2] == 0.0
    assert one.x.sum() == pytest.approx(25.0)


def test_ties_follow_the_others():
    result = jc.least_squares(decay, START, ties={"height": lambda p: 4.0 - 2.0 * p["floor"][0]})
    assert float(result.x["height"]) == pytest.approx(4.0 - 2.0 * float(result.x["floor"][0]), rel=1e-15)

    def by_hand(q):
        return (4.0 - 2.0 * q[0]) * np.exp(-q[1] * T) + q[0] - Y

    other = jc.least_squares(by_hand, [0.0, 1.0])
    np.testing.assert_allclose(result.cost, other.cost, rtol=1e-12)
    assert float(result.x["rate"]) == pytest.approx(other.x[1], rel=1e-10)
    # The error of a tied parameter is that of what it hangs on.
    errors = result.standard_errors
    assert float(errors["height"]) == pytest.approx(2.0 * float(errors["floor"][0]), rel=1e-12)


def test_ties_may_be_nonlinear_and_meet_fixed_ones():
    result = jc.least_squares(
        lambda x: x - np.array([2.0, 7.0, 3.0]), [1.0, 1.0, 4.0], fixed=[2], ties={1: lambda x: x[0] ** 2 + x[2]}
    )
    a = float(result.x[0])
    assert result.x[2] == 4.0
    assert result.x[1] == pytest.approx(a * a + 4.0, rel=1e-14)
    assert (a - 2.0) + 2.0 * a * (a * a + 4.0 - 7.0) == pytest.approx(0.0, abs=1e-11)


def test_one_recording_serves_other_starts_of_the_free_parameters():
    fit = jc.LeastSquares(decay, fixed="rate")
    assert fit({**START, "rate": 0.6}).x["rate"] == 0.6
    assert fit({**START, "rate": 0.6, "height": 2.0}).x["rate"] == 0.6
    assert fit({**START, "rate": 0.8}).x["rate"] == 0.8


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fixed": "speed"}, "no parameter 'speed'; the parameters are .*height"),
        ({"fixed": [("floor", 3)]}, r"no parameter \('floor', 3\)"),
        ({"fixed": ["rate", "height", "floor"]}, "nothing to fit"),
        ({"fixed": "rate", "ties": {"rate": lambda p: p["height"]}}, "cannot be tied"),
        ({"ties": {"rate": lambda p: p["height"] * np.nan}}, "tie of x0.*rate.*nan at the start"),
        ({"fixed": np.array([True, False])}, "fixed has 2 entries for 3 parameters"),
    ],
)
def test_bad_names(settings, words):
    with pytest.raises(InvalidInputError, match=words):
        jc.least_squares(decay, START, **settings)


# ---- manifolds -------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
POINTS = {
    SO3: rotation_matrix(RNG.standard_normal((2, 3))),
    SE3: SE3.retract(np.broadcast_to(np.eye(4), (2, 4, 4)), RNG.standard_normal((2, 6))),
    UnitQuaternion: UnitQuaternion.projected(RNG.standard_normal((2, 4))),
    Sphere: Sphere.projected(RNG.standard_normal((2, 5))),
    Positive: RNG.random((2, 3)) + 0.1,
    Simplex: Simplex.projected(RNG.random((2, 4)) + 0.1),
}


@pytest.mark.parametrize("kind", POINTS)
def test_frame_is_the_derivative_of_retract(kind):
    value = POINTS[kind]
    frame = kind.frame(value)
    stack, count = value.shape[: value.ndim - kind.point_rank], frame.shape[-1]
    np.testing.assert_allclose(kind.retract(value, np.zeros((*stack, count))), value, atol=1e-14)
    for t in range(count):
        tangent = np.zeros((*stack, count))
        tangent[..., t] = 1e-6
        difference = (kind.retract(value, tangent) - kind.retract(value, -tangent)) / 2e-6
        np.testing.assert_allclose(difference, frame[..., t], atol=1e-8)


@pytest.mark.parametrize("kind", POINTS)
def test_retract_stays_on_the_manifold(kind):
    value = POINTS[kind]
    count = kind.frame(value).shape[-1]
    moved = kind.retract(value, RNG.standard_normal((*value.shape[: value.ndim - kind.point_rank], count)))
    np.testing.assert_allclose(kind(moved).value, moved, atol=1e-12)
    assert np.abs(moved - value).max() > 0.01


def test_rotation_between_two_sets_of_points():
    rng = np.random.default_rng(2)
    turn = rotation_matrix(np.array([1.0, -2.0, 0.5]))
    before = rng.standard_normal((10, 3))
    after = before @ turn.T + 0.01 * rng.standard_normal((10, 3))
    # The best rotation in closed form (Kabsch).
    left, _, right = np.linalg.svd(after.T @ before)
    best = left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
    for start in (np.eye(3), rotation_matrix(np.array([0.0, 0.0, 2.5]))):
        result = jc.least_squares(lambda r: before @ r.T - after, SO3(start))
        assert result.success
        np.testing.assert_allclose(result.x, best, atol=1e-9)
        assert result.jac.shape == (30, 3)
    assert result.names == ("x tangent 0", "x tangent 1", "x tangent 2")


def test_quaternion_gives_the_same_rotation():
    rng = np.random.default_rng(3)
    turn = rotation_matrix(np.array([0.3, 0.2, -0.4]))
    before = rng.standard_normal((8, 3))
    after = before @ turn.T

    def rotated(q, v):
        w, u = q[0], q[1:]
        return v + 2.0 * (w * np.cross(np.broadcast_to(u, v.shape), v) + np.cross(u, np.cross(u, v)))

    result = jc.least_squares(lambda p: rotated(p["q"], before) - after, {"q": UnitQuaternion([1.0, 0.0, 0.0, 0.0])})
    assert result.success
    assert np.linalg.norm(result.x["q"]) == pytest.approx(1.0, abs=1e-14)
    np.testing.assert_allclose(rotated(result.x["q"], np.eye(3)).T, turn, atol=1e-9)


def test_pose_with_a_free_number_beside_it():
    rng = np.random.default_rng(4)
    pose = SE3.retract(np.eye(4), np.array([0.5, -1.0, 2.0, 0.4, -0.3, 0.2]))
    points = rng.standard_normal((12, 3))
    seen = 1.7 * (points @ pose[:3, :3].T) + pose[:3, 3]

    def residual(p):
        return p["size"] * (points @ p["pose"][:3, :3].T) + p["pose"][:3, 3] - seen

    result = jc.least_squares(residual, {"pose": SE3(np.eye(4)), "size": 1.0})
    assert result.success
    np.testing.assert_allclose(result.x["pose"], pose, atol=1e-9)
    assert float(result.x["size"]) == pytest.approx(1.7, rel=1e-10)
    assert result.grad.size == 7
    held = jc.least_squares(residual, {"pose": SE3(pose), "size": 1.0}, fixed=["pose"])
    assert held.grad.size == 1
    np.testing.assert_allclose(held.x["pose"], pose, atol=1e-15)


def test_positive_numbers_and_shares():
    target = np.array([1e-3, 5.0])
    result = jc.least_squares(lambda x: np.log(x / target), Positive([1.0, 1.0]))
    np.testing.assert_allclose(result.x, target, rtol=1e-10)
    shares = np.array([0.1, 0.2, 0.7])
    mixed = jc.least_squares(lambda s: s - shares, Simplex(np.full(3, 1.0 / 3.0)))
    np.testing.assert_allclose(mixed.x, shares, atol=1e-10)
    assert mixed.jac.shape == (3, 2)


def test_errors_on_a_manifold_lie_in_its_tangents():
    rng = np.random.default_rng(5)
    seen = np.array([0.6, 0.0, 0.8]) + 0.01 * rng.standard_normal((50, 3))
    result = jc.least_squares(lambda u: u - seen, Sphere([0.0, 0.0, 1.0]))
    mean = seen.mean(axis=0)
    np.testing.assert_allclose(result.x, mean / np.linalg.norm(mean), atol=1e-9)
    # No error along the direction itself: the variances sum to that of two coordinates.
    each = np.sqrt(result.residual_variance / 50.0)
    assert np.sum(result.standard_errors**2) == pytest.approx(2.0 * each**2, rel=1e-2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SO3(np.ones((3, 3))), "not on that manifold"),
        (lambda: SO3(np.eye(4)), "rotation matrices, shape"),
        (lambda: Sphere([1.0, 1.0]), "not on that manifold"),
        (lambda: Positive([1.0, -1.0]), "not on that manifold"),
        (lambda: Simplex([0.5, 0.6]), "not on that manifold"),
        (lambda: UnitQuaternion([1.0, 0.0, np.nan, 0.0]), "finite"),
        (lambda: jc.least_squares(lambda p: p - 1.0, Positive(2.0), bounds=(0.0, 3.0)), "cannot be combined"),
        (lambda: jc.least_squares(lambda p: p - 1.0, Sphere([1.0, 0.0]), fixed=[0]), "only be fixed as a whole"),
    ],
)
def test_bad_manifolds(make, words):
    with pytest.raises(InvalidInputError, match=words):
        make()
