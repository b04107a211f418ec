"""The cases of public reports: each makes its files, and raises where what comes of them is not right.

Only names that every version has are imported here, so that an older checkout can run the same cases for comparison.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bind.model.model import BindModel
from tests.serve import tiny

ALIKE = 0.98


@dataclass(frozen=True)
class Case:
    """A case of a part of the work: `run` makes files in an empty folder and raises where it is not right."""

    part: str
    name: str
    run: Callable[[Path], None]


CASES: list[Case] = []


def case(part: str, name: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Registers a function as a case."""

    def register(run: Callable[[Path], None]) -> Callable[[Path], None]:
        CASES.append(Case(part, name, run))
        return run

    return register


@cache
def model() -> BindModel:
    """A model of random weights with all modalities: what it is given is what it compares."""
    return tiny.seven()


def cosine(one: Any, other: Any, modality: str | None = None) -> float:
    """Of the embeddings of two files, texts or arrays. Raises MediaError."""
    vectors = model().embed([one, other], modality=modality).vectors
    return float(vectors[0] @ vectors[1])


def means(one: Any, other: Any, unlike: Any, modality: str | None = None) -> None:
    """Raises AssertionError unless the first two are (nearly) the same and the third is something else."""
    found, apart = cosine(one, other, modality), cosine(other, unlike, modality)
    assert apart < ALIKE, f"the control is not apart ({apart:.3f})"
    assert found > ALIKE, f"is not what it should be (cosine {found:.2f})"


def written(folder: Path, name: str, content: bytes | str) -> Path:
    """A file of a folder."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def outcome(one: Case) -> str:
    """`right`, or why it is not."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        try:
            one.run(Path(folder))
        except (ImportError, AttributeError, TypeError, LookupError) as error:
            return "not there" if isinstance(error, ImportError) else f"not there ({type(error).__name__})"
        except Exception as error:
            reason = str(error).replace(folder, "").partition("\n")[0]
            kind = "wrong" if isinstance(error, AssertionError) else "refused"
            return f"{kind}: {reason.rpartition('/')[2][:90]}"
    return "right"


def outcomes() -> Iterator[tuple[Case, str]]:
    """Every case with what comes of it now."""
    from tests.cases import files, folders, logs  # they register their cases

    assert files and folders and logs
    for one in CASES:
        yield one, outcome(one)


def noise(seed: int, height: int = 64, width: int = 64) -> np.ndarray:
    """(H, W, 3) uint8: large squares of chance colours."""
    small = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    return small.repeat(height // 4, axis=0).repeat(width // 4, axis=1)
