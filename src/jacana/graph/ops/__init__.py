"""The operations, in families. Importing this package enters every record in ``REGISTRY``."""

from . import contraction, control, elementwise, linalg, movement, position, reduction

__all__ = ["contraction", "control", "elementwise", "linalg", "movement", "position", "reduction"]
