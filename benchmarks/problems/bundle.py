"""Bundle adjustment, 31,843 observations: reprojection residuals, a sparse Jacobian of 2 x 12 blocks.

The first 31,843 observations of the problem that comes with jacana (as many as the well-known Ladybug-49 problem has).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from jacana.datasets import bal

from . import Call, Contender, Problem, Target, as_float64, csr, jax_double, torch_double, ways

N_OBSERVATIONS = 31_843


@cache
def scene() -> bal.BalProblem:
    return bal.load().first(N_OBSERVATIONS)


@cache
def pattern() -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Column indices and row pointers of the Jacobian, rows in the order of the residuals, and its shape."""
    s = scene()
    camera_columns = bal.CAMERA_SIZE * s.camera_index[:, None] + np.arange(bal.CAMERA_SIZE)
    point_columns = s.cameras.size + bal.POINT_SIZE * s.point_index[:, None] + np.arange(bal.POINT_SIZE)
    columns = np.repeat(np.concatenate((camera_columns, point_columns), axis=1), 2, axis=0)
    indptr = np.arange(0, columns.size + 1, columns.shape[1])
    return columns.ravel().astype(np.int32), indptr.astype(np.int32), (2 * N_OBSERVATIONS, s.x0.size)


@cache
def places() -> ways.Pattern:
    """The same, for blocks that come in another way."""
    indices, indptr, shape = pattern()
    return ways.pattern_of(np.repeat(np.arange(shape[0]), np.diff(indptr)), indices, shape)


def blocks_to_csr(result: tuple[np.ndarray, np.ndarray]) -> sp.csr_array:
    camera_blocks, point_blocks = result
    indices, indptr, shape = pattern()
    return csr(np.concatenate((camera_blocks, point_blocks), axis=2).ravel(), indices, indptr, shape)


def observation_of(xp: Any) -> Any:
    """The residual of one observation, for JAX and PyTorch."""
    cross = xp.linalg.cross

    def rotate(w: Any, X: Any) -> Any:
        angle_squared = xp.dot(w, w)
        small = angle_squared < bal.SMALL_ANGLE_SQUARED
        angle = xp.sqrt(xp.where(small, 1.0, angle_squared))
        along = xp.where(small, 1.0 - angle_squared / 6.0, xp.sin(angle) / angle)
        across = xp.where(small, 0.5 - angle_squared / 24.0, (1.0 - xp.cos(angle)) / (angle * angle))
        turned = cross(w, X)
        return X + along * turned + across * cross(w, turned)

    def one(camera: Any, point: Any, observation: Any) -> Any:
        P = rotate(camera[0:3], point) + camera[3:6]
        p = -P[0:2] / P[2]
        f, k1, k2 = camera[6], camera[7], camera[8]
        r2 = xp.dot(p, p)
        return f * (1.0 + r2 * (k1 + r2 * k2)) * p - observation

    return one


def build_jax(assemble: bool) -> Call:
    """One observation written for itself, its Jacobian by reverse mode (2 outputs, 12 inputs), vmap over them all."""
    jax = jax_double()
    jnp = jax.numpy

    s = scene()
    camera_index, point_index = jnp.asarray(s.camera_index), jnp.asarray(s.point_index)
    observations = jnp.asarray(s.observations)
    each = jax.vmap(jax.jacrev(observation_of(jnp), argnums=(0, 1)))

    @jax.jit
    def blocks(x: Any) -> tuple[Any, Any]:
        cameras, points = bal.unpack(x, len(s.cameras))
        return each(cameras[camera_index], points[point_index], observations)

    if not assemble:

        def call_blocks(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            camera_blocks, point_blocks = blocks(x)
            return as_float64(camera_blocks), as_float64(point_blocks)

        return call_blocks

    indices, indptr, shape = pattern()
    data = jax.jit(lambda x: jnp.concatenate(blocks(x), axis=2).ravel())
    return lambda x: csr(as_float64(data(x)), indices, indptr, shape)


def build_asdex() -> Call:
    """All observations at once; asdex finds the pattern."""
    jax = jax_double()
    jnp = jax.numpy
    s = scene()
    camera_index, point_index = jnp.asarray(s.camera_index), jnp.asarray(s.point_index)
    observations = jnp.asarray(s.observations)
    each = jax.vmap(observation_of(jnp))

    def residual(x: Any) -> Any:
        cameras, points = bal.unpack(x, len(s.cameras))
        return each(cameras[camera_index], points[point_index], observations).reshape(-1)

    return ways.asdex_jacobian(residual, s.x0.size)


def build_torch() -> Call:
    torch = torch_double()
    s = scene()
    camera_index, point_index = torch.from_numpy(s.camera_index), torch.from_numpy(s.point_index)
    observations = torch.from_numpy(s.observations)
    each = torch.func.vmap(torch.func.jacrev(observation_of(torch), argnums=(0, 1)))
    indices, indptr, shape = pattern()

    def call(x: np.ndarray) -> sp.csr_array:
        cameras, points = bal.unpack(torch.from_numpy(x), len(s.cameras))
        blocks = each(cameras[camera_index], points[point_index], observations)
        return csr(torch.concatenate(blocks, 2).reshape(-1).numpy(), indices, indptr, shape)

    return call


def build_casadi() -> Call:
    import casadi as ca

    s = scene()

    def rotate(w: Any, X: Any) -> Any:
        angle_squared = ca.sumsqr(w)
        small = angle_squared < bal.SMALL_ANGLE_SQUARED
        angle = ca.sqrt(ca.if_else(small, 1.0, angle_squared))
        along = ca.if_else(small, 1.0 - angle_squared / 6.0, ca.sin(angle) / angle)
        across = ca.if_else(small, 0.5 - angle_squared / 24.0, (1.0 - ca.cos(angle)) / (angle * angle))
        turned = ca.cross(w, X)
        return X + along * turned + across * ca.cross(w, turned)

    def one(v: Any, observation: Any) -> Any:
        P = rotate(v[0:3], v[9:12]) + v[3:6]
        p = -P[0:2] / P[2]
        r2 = ca.sumsqr(p)
        return v[6] * (1.0 + r2 * (v[7] + r2 * v[8])) * p - observation

    def variables(x: np.ndarray) -> np.ndarray:
        cameras, points = bal.unpack(x, len(s.cameras))
        return np.concatenate((cameras[s.camera_index], points[s.point_index]), axis=1)

    return ways.casadi_blocks(one, (12, 2), variables, s.observations, places())


def problem() -> Problem:
    s = scene()
    places()  # known by hand, before anybody's clock runs
    rng = np.random.default_rng(16)
    return Problem(
        name="bundle",
        title=f"bundle adjustment, {N_OBSERVATIONS:,} observations, CSR Jacobian {pattern()[2][0]:,} x {s.x0.size:,}",
        function=lambda x: s.residual(x).reshape(-1),
        format="csr",
        inputs=tuple(s.x0 * (1.0 + 1e-6 * rng.standard_normal(s.x0.size)) for _ in range(4)),
        peers=(
            Contender(
                "JAX jit(vmap(jacrev)), blocks",
                "jax",
                lambda: build_jax(assemble=False),
                blocks_to_csr,
                note="gives (n, 2, 9) and (n, 2, 3) blocks, not assembled",
            ),
            Contender(
                "JAX jit(vmap(jacrev)), CSR",
                "jax",
                lambda: build_jax(assemble=True),
                note="columns and row pointers made by hand beforehand",
            ),
            Contender("asdex, CSR", "asdex", build_asdex, slow=True),
            Contender("CasADi SX map, CSR", "casadi", build_casadi, note="block by block, places by hand"),
            Contender("PyTorch vmap(jacrev), CSR", "torch", build_torch, note="columns and row pointers by hand"),
        ),
        target=Target(ratio=6.0),
    )
