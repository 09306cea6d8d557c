"""The operations, in families. Importing this package enters every record in ``REGISTRY``."""

from . import contraction, elementwise, linalg, movement, reduction

__all__ = ["contraction", "elementwise", "linalg", "movement", "reduction"]
