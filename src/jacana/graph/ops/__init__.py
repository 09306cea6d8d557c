"""The operations, in families. Importing this package enters every record in ``REGISTRY``."""

from . import complex, complex_linalg, contraction, elementwise, fourier, linalg, movement, reduction

__all__ = ["complex", "complex_linalg", "contraction", "elementwise", "fourier", "linalg", "movement", "reduction"]
