"""A check that Python finds Crossbind's five packages and not others of the same name, as their names are common."""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cache
from pathlib import Path

PACKAGES = ("preprocess", "bind", "data_manifests", "train", "serve")
"""The packages that have to come from one installation."""
_ROOT = Path(__file__).resolve().parents[1]
"""The folder from which this package was imported."""


@cache
def check() -> None:
    """Raises ImportError, with one sentence, where another project's module has the name of one of our packages.

    The check imports nothing, so a file that lies there by accident or by intent does not run.
    """
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin and Path(spec.origin).resolve().parents[1] != _ROOT:
            raise ImportError(foreign(name, spec.origin))


def foreign(name: str, place: str | None) -> str:
    """The sentence about another project's module `name` at `place`."""
    return (
        f"Crossbind cannot start: its package {name!r} is hidden by {place}, which Python finds first; "
        "rename that file or folder, or work in another one"
    )


def leave_folder() -> None:
    """Removes the current folder from Python's path, for this process and those it starts; only commands call this.

    `python -m` and `python -c` put the current folder first, so a `numpy.py` in a folder of downloads would run.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    first = Path(sys.path[0] if sys.path else ".").resolve()
    if not sys.flags.safe_path and first == Path.cwd() and first != _ROOT:
        del sys.path[0]
