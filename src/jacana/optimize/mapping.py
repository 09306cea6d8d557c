"""Results whose attributes are items too, as in SciPy's ``OptimizeResult``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, ClassVar

__all__ = ["AttributeItems"]


class AttributeItems:
    """A dataclass that is also a mapping of its fields, except the hidden ones."""

    _hidden: ClassVar[tuple[str, ...]] = ()

    def keys(self) -> tuple[str, ...]:
        """Return the names of the attributes that are items."""
        return tuple(f.name for f in fields(self) if f.name not in self._hidden)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)
