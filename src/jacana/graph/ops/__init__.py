"""The operations, in families. Importing this package enters every record in ``REGISTRY``."""

from . import (
    cofactors,
    complex,
    complex_linalg,
    contraction,
    control,
    convolution,
    custom,
    elementwise,
    factors,
    flat,
    fourier,
    implicit,
    implicit_batch,
    integral_batch,
    integrals,
    linalg,
    matrix_functions,
    minors,
    movement,
    pivoted,
    position,
    reduction,
    spectral,
    spectral_functions,
    spline,
)

__all__ = [
    "cofactors", "complex", "complex_linalg", "contraction", "control", "convolution", "custom", "elementwise",
    "factors", "flat", "fourier", "implicit", "implicit_batch", "integral_batch", "integrals", "linalg",
    "matrix_functions", "minors", "movement", "pivoted", "position", "reduction", "spectral", "spectral_functions",
    "spline",
]  # fmt: skip
