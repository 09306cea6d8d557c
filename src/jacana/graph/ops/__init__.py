"""The operations, in families. Importing this package enters every record in ``REGISTRY``."""

from . import (
    contraction,
    elementwise,
    factors,
    linalg,
    matrix_functions,
    movement,
    pivoted,
    reduction,
    spectral,
    spectral_functions,
)

__all__ = [
    "contraction", "elementwise", "factors", "linalg", "matrix_functions", "movement", "pivoted", "reduction",
    "spectral", "spectral_functions",
]  # fmt: skip
