"""The operations, in families. Importing this package enters every record in ``REGISTRY``."""

from . import contraction, control, custom, elementwise, linalg, movement, position, reduction

__all__ = ["contraction", "control", "custom", "elementwise", "linalg", "movement", "position", "reduction"]
