"""The native executor: fused loops as machine code through llvmlite."""

from __future__ import annotations

from .executor import compile_native, recall_native


def available() -> bool:
    """Whether machine code can be made here."""
    from .engine import machine

    try:
        machine()
    except (RuntimeError, OSError):
        return False
    return True


__all__ = ["available", "compile_native", "recall_native"]
