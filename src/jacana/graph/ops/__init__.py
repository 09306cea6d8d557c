"""The operations, in families. Importing this package enters every record in ``REGISTRY``."""

from . import complex, contraction, elementwise, fourier, linalg, movement, reduction

__all__ = ["complex", "contraction", "elementwise", "fourier", "linalg", "movement", "reduction"]
