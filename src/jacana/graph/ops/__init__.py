"""The operations, in families. Importing this package enters every record in ``REGISTRY``."""

from . import (
    complex,
    complex_linalg,
    contraction,
    elementwise,
    factors,
    fourier,
    linalg,
    matrix_functions,
    movement,
    pivoted,
    reduction,
    spectral,
    spectral_functions,
)

__all__ = [
    "complex", "complex_linalg", "contraction", "elementwise", "factors", "fourier", "linalg", "matrix_functions",
    "movement", "pivoted", "reduction", "spectral", "spectral_functions",
]  # fmt: skip
