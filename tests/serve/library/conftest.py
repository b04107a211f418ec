"""What most tests of a library begin with: a quick model, and a library over the folder `media` of the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from bind.model.model import BindModel
from serve.library.library import Library
from tests.serve import tiny


@pytest.fixture(scope="session")
def model() -> BindModel:
    return tiny.model()


@pytest.fixture
def library(tmp_path: Path, model: BindModel, media: Path) -> Library:
    library = Library.open(tmp_path / "library", model)
    library.index(media)
    return library
