"""Functions of complex arrays: everything that recording knows about them, each as a line.

A case takes one complex array of shape (2, 3). It is compared with NumPy and differentiated on both parts.
"""

from __future__ import annotations

import numpy as np

RNG = np.random.default_rng(11)


def complex_array(*shape):
    return RNG.normal(size=shape) + 1j * RNG.normal(size=shape)


Z = complex_array(2, 3)
C32 = complex_array(3, 2)
REAL = RNG.normal(size=(2, 3))
SQUARE = complex_array(2, 2) + 2 * np.eye(2)


def filled_buffer(z):
    out = np.zeros((2, 3), dtype=complex)
    out[0] = z[0]
    out[1, 1:] = 1j * z[1, 1:]
    out *= 2
    out[:, 0] += 1
    out.imag[1] = z.real[0]
    return out


def aliased(z):
    y = z.copy()
    view = y[1:]
    view *= 3j
    y.real[0] = 7
    return y


def with_out(z):
    y = np.empty_like(z)
    np.multiply(z, 2j, out=y)
    np.add(y, z, out=y)
    return y


def added_at(z):
    y = np.zeros(3, complex)
    np.add.at(y, [0, 2, 0], z[0])
    np.subtract.at(y, [1], z[1, :1])
    return y


def masked(z):
    y = z.copy()
    y[np.abs(z) > 1] = 0.5j
    return y


def filled(z):
    y = z.copy()
    y.fill(z[0, 0])
    return y * z


def power_by_squaring(z):
    result = 1
    for _ in range(3):
        result = result * z
    return result


MOVEMENT = {
    "reshape": lambda z: z.reshape(3, 2),
    "reshape F": lambda z: np.reshape(z, (3, 2), order="F"),
    "ravel": np.ravel,
    "flatten": lambda z: z.flatten(),
    "T": lambda z: z.T,
    "mT": lambda z: z.mT,
    "swapaxes": lambda z: np.swapaxes(z, 0, 1),
    "moveaxis": lambda z: np.moveaxis(z, 0, 1),
    "expand_dims": lambda z: np.expand_dims(z, 1),
    "squeeze": lambda z: z[:1].squeeze(),
    "atleast": lambda z: np.atleast_3d(z),
    "broadcast_to": lambda z: np.broadcast_to(z, (4, 2, 3)),
    "broadcast_arrays": lambda z: np.broadcast_arrays(z, REAL[0]),
    "concatenate": lambda z: np.concatenate([z, z[:1]]),
    "concatenate real": lambda z: np.concatenate([z, np.ones((1, 3))]),
    "concatenate parts": lambda z: np.concatenate([z, z.real, 1j * z.imag], axis=1),
    "stack": lambda z: np.stack([z, 2 * z, np.zeros((2, 3))], 1),
    "vstack": lambda z: np.vstack([z, z]),
    "hstack": lambda z: np.hstack((z, z)),
    "dstack": lambda z: np.dstack([z, z]),
    "column_stack": lambda z: np.column_stack([z[0], z[1]]),
    "block": lambda z: np.block([[z, z], [z, 1j * z]]),
    "append": lambda z: np.append(z, 1j),
    "split": lambda z: np.split(z, 3, 1),
    "array_split": lambda z: np.array_split(z, 2, 1),
    "flip": np.flip,
    "fliplr": np.fliplr,
    "rot90": np.rot90,
    "roll": lambda z: np.roll(z, 1, 1),
    "tile": lambda z: np.tile(z, (2, 1)),
    "repeat": lambda z: np.repeat(z, 2, axis=1),
    "take": lambda z: np.take(z, [1, 0], axis=1),
    "take method": lambda z: z.take(1),
    "take_along_axis": lambda z: np.take_along_axis(z, np.array([[1], [0]]), 1),
    "compress": lambda z: np.compress([True, False, True], z, axis=1),
    "extract": lambda z: np.extract(np.abs(z) > 0.5, z),
    "delete": lambda z: np.delete(z, 1, axis=1),
    "insert": lambda z: np.insert(z, 1, 2 + 1j, axis=1),
    "diag": lambda z: np.diag(z[0]),
    "diagonal": lambda z: np.diagonal(z),
    "tril": np.tril,
    "triu": np.triu,
    "pad": lambda z: np.pad(z, 1),
    "pad constant": lambda z: np.pad(z, ((0, 1), (2, 0)), constant_values=1 + 2j),
    "pad wrap": lambda z: np.pad(z, 1, mode="wrap"),
    "index": lambda z: z[1, ::2],
    "index array": lambda z: z[:, [2, 0]],
    "index mask": lambda z: z[np.abs(z) > 1],
    "index element": lambda z: z[1, 2] * z[0],
    "iteration": lambda z: sum(row for row in z),
    "sliding_window_view": lambda z: np.lib.stride_tricks.sliding_window_view(z, 2, axis=1),
    "meshgrid": lambda z: np.meshgrid(z[0], z[1])[0],
    "linspace": lambda z: np.linspace(z[0, 0], 1j, 5),
    "fftshift": np.fft.fftshift,
    "ifftshift": lambda z: np.fft.ifftshift(z, axes=1),
    "copy": lambda z: z.copy(),
    "astype": lambda z: z.astype(complex),
    "array": lambda z: np.array([[z[0, 0], 1j], [2.0, z[1, 1]]]),
    "array of rows": lambda z: np.array([z[0], 2 * z[1]]),
    "full": lambda z: np.full((2, 2), z[0, 1]),
    "full_like": lambda z: np.full_like(z, z[0, 0]),
    "zeros_like": lambda z: np.zeros_like(z) + z,
    "buffer": filled_buffer,
    "alias": aliased,
    "out": with_out,
    "add.at": added_at,
    "mask assignment": masked,
    "fill": filled,
}
CHOICE = {
    "where": lambda z: np.where(np.abs(z) > 1, z, 0),
    "where numbers": lambda z: np.where(z.real > 0, 1j, 2.0) * z,
    "where plain": lambda z: np.where(np.array([True, False, True]), Z, z),
    "select": lambda z: np.select([np.abs(z) > 1, np.abs(z) > 0.5], [z, 1j * z], 0.5),
    "choose": lambda z: np.choose([0, 1, 0], [z[0], z[1]]),
    "nan_to_num": np.nan_to_num,
    "equal": lambda z: (z == z) * z,
    "not_equal": lambda z: (z != 1) * z,
    "less": lambda z: (z < z[::-1]) * z,
    "less_equal": lambda z: (z <= z) * z,
    "greater": lambda z: (z > 0.1j) * z,
    "greater_equal": lambda z: (z >= z[:1]) * z,
    "isfinite": lambda z: np.isfinite(z) * z,
    "isclose": lambda z: np.isclose(z, z + 1e-9) * z,
    "logical_and": lambda z: np.logical_and(z, 1) * z,
    "any": lambda z: np.any(z) * z,
    "nonzero": lambda z: z[np.nonzero(z)],
    "count_nonzero": lambda z: np.count_nonzero(z) * z,
    "array_equal": lambda z: np.array_equal(z, z) * z,
    "allclose": lambda z: np.allclose(z, z) * z,
    "isreal": lambda z: np.iscomplex(z) * z,
    "iscomplexobj": lambda z: np.iscomplexobj(z) * np.size(z) * z.ndim * len(z) * z,
    "text": lambda z: (f"{z}", repr(z), str(z), z)[3],
}
PARTS = {
    "real": np.real,
    "imag": lambda z: z.imag,
    "conj": np.conj,
    "conjugate method": lambda z: z.conj(),
    "abs": abs,
    "angle": np.angle,
    "angle in degrees": lambda z: np.angle(z, deg=True),
    "sign": np.sign,
    "power spectrum": lambda z: np.abs(z) ** 2,
    "real_if_close": lambda z: np.real_if_close(z * z.conj()),
    "from parts": lambda z: z.imag + 1j * z.real,
}
ARITHMETIC = {
    "neg": lambda z: -z,
    "pos": lambda z: +z,
    "square": np.square,
    "z * z": lambda z: z * z[::-1],
    "real * z": lambda z: REAL * z,
    "number * z": lambda z: (1 + 2j) * z * 2,
    "i * z": lambda z: 1j * z,
    "plain * real part": lambda z: Z * z.real,
    "z / z": lambda z: z / (1 + z * z),
    "1 / z": lambda z: 1 / z,
    "real / z": lambda z: REAL / z,
    "z / real": lambda z: z / REAL,
    "z / real part": lambda z: z / z.real,
    "z / number": lambda z: z / 3,
    "z / complex number": lambda z: z / (2 - 1j),
    "1 - z": lambda z: 1 - z,
    "z - i": lambda z: z - 1j,
    "z**0": lambda z: z**0 + z,
    "z**1": lambda z: z**1,
    "z**3": lambda z: z**3,
    "z**-1": lambda z: z**-1,
    "z**0.5": lambda z: z**0.5,
    "z**2.5": lambda z: z**2.5,
    "z**(1+2i)": lambda z: z ** (1 + 2j),
    "2**z": lambda z: 2.0**z,
    "z**z": lambda z: z**z,
    "x**i": lambda z: z.real ** np.array(1j),
    "float_power": lambda z: np.float_power(z, 2),
    "reciprocal": np.reciprocal,
    "loop": power_by_squaring,
}
REDUCTIONS = {
    "sum": np.sum,
    "sum axis": lambda z: z.sum(0, keepdims=True),
    "mean": lambda z: z.mean(axis=1),
    "average": lambda z: np.average(z, axis=1, weights=[1, 2, 3.0]),
    "cumsum": lambda z: np.cumsum(z, 1),
    "prod": np.prod,
    "prod axis": lambda z: z.prod(axis=1),
    "prod keepdims": lambda z: np.prod(z, axis=(0, 1), keepdims=True),
    "cumprod": lambda z: np.cumprod(z, axis=1),
    "cumprod flat": np.cumprod,
    "var": np.var,
    "var axis": lambda z: z.var(axis=0, ddof=1),
    "std": lambda z: np.std(z, 1, keepdims=True),
    "trace": np.trace,
    "diff": lambda z: np.diff(z, axis=1),
    "diff prepend": lambda z: np.diff(z[0], prepend=1j),
    "ediff1d": lambda z: np.ediff1d(z, to_end=1j),
    "gradient": lambda z: np.gradient(z[0], 0.5),
    "trapezoid": lambda z: np.trapezoid(z, dx=0.1, axis=1),
    "add.reduce": lambda z: np.add.reduce(z, axis=1),
    "multiply.reduce": lambda z: np.multiply.reduce(z, axis=1),
    "add.accumulate": lambda z: np.add.accumulate(z, axis=1),
    "polyval": lambda z: np.polyval(z[0], 0.5),
    "polyval at": lambda z: np.polyval([1, 2, 3.0], z),
}
PRODUCTS = {
    "dot": lambda z: np.dot(z, z.T),
    "dot method": lambda z: z.dot(Z.T),
    "dot real": lambda z: np.dot(REAL.T, z),
    "matmul": lambda z: z @ z.T,
    "matmul plain": lambda z: C32 @ z,
    "matmul real": lambda z: REAL.T @ z,
    "real part @ plain": lambda z: z.real @ C32,
    "inner": lambda z: np.inner(z, z),
    "outer": lambda z: np.outer(z[0], z[1]),
    "vdot": lambda z: np.vdot(z[0], z[1]),
    "vecdot": lambda z: np.vecdot(z, 1j * z),
    "tensordot": lambda z: np.tensordot(z, z, axes=([1], [1])),
    "kron": lambda z: np.kron(z, 1j * np.eye(2)),
    "cross": lambda z: np.cross(z[0], z[1]),
    "convolve": lambda z: np.convolve(z[0], z[1]),
    "correlate": lambda z: np.correlate(z[0], z[1], "full"),
    "correlate same": lambda z: np.correlate(z[0], [1j, 2], "same"),
    "einsum": lambda z: np.einsum("ij,kj,k->i", z, z.conj(), np.array([1, 2j])),
    "einsum of one": lambda z: np.einsum("ij->j", z),
    "multiply.outer": lambda z: np.multiply.outer(z[0], z[1]),
    "multi_dot": lambda z: np.linalg.multi_dot([z, z.T, z]),
}
if hasattr(np, "matvec"):
    PRODUCTS["matvec"] = lambda z: np.matvec(z, z[0])
    PRODUCTS["vecmat"] = lambda z: np.vecmat(z[:, 0], z)
LINALG = {
    "norm": lambda z: np.linalg.norm(z),
    "norm axis": lambda z: np.linalg.norm(z, axis=1),
    "norm 1": lambda z: np.linalg.norm(z, 1, axis=1),
    "norm inf": lambda z: np.linalg.norm(z, np.inf),
    "norm fro": lambda z: np.linalg.norm(z, "fro", keepdims=True),
    "vector_norm": lambda z: np.linalg.vector_norm(z, axis=0),
    "inv": lambda z: np.linalg.inv(z[:, :2]),
    "solve vector": lambda z: np.linalg.solve(z[:, :2], z[:, 2]),
    "solve matrix": lambda z: np.linalg.solve(SQUARE, z),
    "solve real": lambda z: np.linalg.solve(z[:, :2], [1.0, 2.0]),
    "det": lambda z: np.linalg.det(z[:, :2]),
    "det of many": lambda z: np.linalg.det(np.stack([z[:, :2], 1j * z[:, 1:]])),
    "matrix_power": lambda z: np.linalg.matrix_power(z[:, :2], 3),
    "matrix_power negative": lambda z: np.linalg.matrix_power(z[:, :2], -2),
}
FUNCTIONS = {
    name: getattr(np, name)
    for name in (
        "sqrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh",
        "arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh",
    )
}  # fmt: skip
CASES = {
    **MOVEMENT, **CHOICE, **PARTS, **ARITHMETIC, **REDUCTIONS, **PRODUCTS, **LINALG, **FUNCTIONS,
    "rint": lambda z: np.rint(3 * z) + z,
    "round": lambda z: np.round(z, 1) + z,
}  # fmt: skip
