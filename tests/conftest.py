"""For all tests: a slow machine is no failure of a property, and a command that ran in this process leaves no trace."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """The environment as it was: a command changes its process's own, and that of the processes it starts."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)
