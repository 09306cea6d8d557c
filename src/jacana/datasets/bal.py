"""Bundle adjustment: cameras and points to be refined so that the points are seen where the photographs show them.

The problem file and the camera model come from *Bundle Adjustment in the Large* (Agarwal, Snavely, Seitz, Szeliski,
ECCV 2010); origin, licence and format are in ``bal/README.md`` beside the data. The residual is plain NumPy, written
for all observations at once.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CAMERA_SIZE", "POINT_SIZE", "BalProblem", "load", "pack", "parse", "residual", "rotate", "unpack"]

CAMERA_SIZE = 9
"""Numbers of one camera: rotation vector (3), translation (3), focal length (pixels), radial distortion k1 and k2."""

POINT_SIZE = 3
"""Coordinates of one point."""

SMALL_ANGLE_SQUARED = 1e-8
"""Below this squared angle (radians squared) two terms of the series of Rodrigues' coefficients are exact to rounding,
while their closed forms lose digits."""


@dataclass(frozen=True, eq=False)
class BalProblem:
    """A bundle adjustment problem: the start and the observations.

    Attributes:
        cameras: shape (n_cameras, 9): rotation vector (radians), translation, focal length (pixels), k1, k2.
        points: shape (n_points, 3).
        camera_index: shape (n_observations,), int64: the camera of each observation.
        point_index: shape (n_observations,), int64: the point of each observation.
        observations: shape (n_observations, 2): where the point was seen (pixels, origin at the centre of the image).
    """

    cameras: NDArray[np.float64]
    points: NDArray[np.float64]
    camera_index: NDArray[np.int64]
    point_index: NDArray[np.int64]
    observations: NDArray[np.float64]

    @property
    def x0(self) -> NDArray[np.float64]:
        """The start as one flat vector, cameras first; see `pack`."""
        return pack(self.cameras, self.points)

    def residual(self, x: Any) -> Any:
        """Residuals, shape (n_observations, 2), at one flat vector of all unknowns.

        Args:
            x: shape (9 * n_cameras + 3 * n_points,), in the order of `pack`.
        """
        cameras, points = unpack(x, len(self.cameras))
        return residual(cameras, points, self.camera_index, self.point_index, self.observations)

    def first(self, n_observations: int) -> BalProblem:
        """The problem of the first `n_observations` observations: all cameras, the points up to the last one seen."""
        point_index = self.point_index[:n_observations]
        n_points = int(point_index.max(initial=-1)) + 1
        return BalProblem(
            self.cameras,
            self.points[:n_points],
            self.camera_index[:n_observations],
            point_index,
            self.observations[:n_observations],
        )


def load(name: str = "problem-16-22106-pre") -> BalProblem:
    """Load a problem that comes with jacana.

    Args:
        name: only "problem-16-22106-pre" at present: 16 cameras, 22,106 points, 83,718 observations.

    Raises:
        ValueError: there is no problem of that name.

    Example:
        >>> problem = load()
        >>> problem.cameras.shape, problem.points.shape, problem.observations.shape
        ((16, 9), (22106, 3), (83718, 2))
    """
    folder = resources.files(__package__).joinpath("bal")
    file = folder.joinpath(f"{name}.txt.xz")
    if not file.is_file():
        known = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".txt.xz"))
        names = ", ".join(entry.removesuffix(".txt.xz") for entry in known)
        raise ValueError(f"no bundle adjustment problem is called {name!r}; there is: {names}")
    return parse(lzma.decompress(file.read_bytes()))


def parse(text: bytes | str) -> BalProblem:
    """Read a problem from the text of a file in the format of *Bundle Adjustment in the Large*.

    Raises:
        ValueError: the text does not hold as many numbers as its first line announces, or an index is out of range.
    """
    numbers = np.array(text.split(), dtype=np.float64)
    n_cameras, n_points, n_observations = (int(count) for count in numbers[:3])
    sizes = (4 * n_observations, CAMERA_SIZE * n_cameras, POINT_SIZE * n_points)
    if numbers.size != 3 + sum(sizes):
        raise ValueError(f"the first line announces {3 + sum(sizes)} numbers, the text holds {numbers.size}")
    seen, cameras, points = np.split(numbers[3:], np.cumsum(sizes)[:2])
    seen = seen.reshape(n_observations, 4)
    camera_index, point_index = seen[:, 0].astype(np.int64), seen[:, 1].astype(np.int64)
    for index, count, what in ((camera_index, n_cameras, "camera"), (point_index, n_points, "point")):
        if index.size and (index.min() < 0 or index.max() >= count):
            raise ValueError(f"an observation names a {what} outside 0..{count - 1}")
    return BalProblem(
        cameras.reshape(n_cameras, CAMERA_SIZE).copy(),
        points.reshape(n_points, POINT_SIZE).copy(),
        camera_index,
        point_index,
        seen[:, 2:].copy(),
    )


def pack(cameras: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """All unknowns as one flat vector: the cameras, then the points, each in C order."""
    return np.concatenate((np.ravel(cameras), np.ravel(points)))


def unpack(x: Any, n_cameras: int) -> tuple[Any, Any]:
    """Cameras (n_cameras, 9) and points (n_points, 3) of a flat vector made by `pack`."""
    return x[: CAMERA_SIZE * n_cameras].reshape(-1, CAMERA_SIZE), x[CAMERA_SIZE * n_cameras :].reshape(-1, POINT_SIZE)


def rotate(rotation: Any, vectors: Any) -> Any:
    """Turn each of the vectors by its rotation vector, both of shape (n, 3).

    Rodrigues' formula, with its series near the angle 0, where it is smooth.
    """
    angle_squared = np.sum(rotation * rotation, axis=1, keepdims=True)
    small = angle_squared < SMALL_ANGLE_SQUARED
    angle = np.sqrt(np.where(small, 1.0, angle_squared))
    along = np.where(small, 1.0 - angle_squared / 6.0, np.sin(angle) / angle)
    across = np.where(small, 0.5 - angle_squared / 24.0, (1.0 - np.cos(angle)) / (angle * angle))
    turned = np.cross(rotation, vectors)
    return vectors + along * turned + across * np.cross(rotation, turned)


def residual(cameras: Any, points: Any, camera_index: Any, point_index: Any, observations: Any) -> Any:
    """Where the cameras see the points, less where the photographs show them.

    Args:
        cameras: shape (n_cameras, 9).
        points: shape (n_points, 3).
        camera_index: shape (n_observations,), integers.
        point_index: shape (n_observations,), integers.
        observations: shape (n_observations, 2), pixels.

    Returns:
        Shape (n_observations, 2), pixels.
    """
    camera = cameras[camera_index]
    position = rotate(camera[:, 0:3], points[point_index]) + camera[:, 3:6]
    image = -position[:, 0:2] / position[:, 2:3]
    focal, k1, k2 = camera[:, 6:7], camera[:, 7:8], camera[:, 8:9]
    radius_squared = np.sum(image * image, axis=1, keepdims=True)
    return focal * (1.0 + radius_squared * (k1 + radius_squared * k2)) * image - observations
