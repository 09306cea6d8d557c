"""The table of docs/hard-points.md: ``python tests/hard/hard_page.py`` writes it anew."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from hard_points import EACH, HEAD, WHOLE, Row

PAGE = Path(__file__).parents[2] / "docs" / "hard-points.md"


def _number(value: float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "-inf" if value < 0 else "inf"
    return f"{value:.4g}"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return f"[{', '.join(_shown(v) for v in value)}]"
    return _number(value)


def _table(title: str, rows: list[Row]) -> list[str]:
    head = [f"## {title}\n", "| where | program | at | first derivative | second derivative |", "|---|---|---|---|---|"]
    return [
        *head,
        *(f"| {r.where} | `{r.program}` | {_shown(r.point)} | {_shown(r.first)} | {_shown(r.second)} |" for r in rows),
        "",
    ]


def text() -> str:
    """The whole page."""
    return HEAD + "\n".join(
        [*_table("Element by element", EACH), *_table("Functions of several numbers", WHOLE)]
    )  # fmt: skip


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
