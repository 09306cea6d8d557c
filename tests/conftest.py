"""Fixtures of several rooms. Being here also puts this folder on the path: ``from support import ...``."""

from __future__ import annotations

import os
from typing import Any

import pytest

os.environ["JACANA_CACHE_DIR"] = ""  # every test compiles what it tests

from jacana.run import native_available


@pytest.fixture(params=["as it is", "short loops", "four lanes"])
def lanes(request: Any, monkeypatch: Any) -> None:
    """The native executor as it is here; with loops where it would write straight code; and as without AVX-512."""
    if request.param == "as it is":
        return
    if not native_available():
        pytest.skip("there are no loops without llvmlite")
    from jacana.plan import native_plan
    from jacana.run.native.engine import machine

    monkeypatch.setattr(native_plan, "STRAIGHT", 7)
    if request.param == "four lanes":
        monkeypatch.setattr(machine(), "lanes", 4)
