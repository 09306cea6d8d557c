"""Programs are made anew in every test of this room: plans of tests before it would bring theirs, compiled or not."""

from __future__ import annotations

import pytest

from jacana import plans


@pytest.fixture(autouse=True)
def new_plans() -> None:
    plans.forget()
