"""Whether the five packages of Crossbind are Crossbind's: their names are common ones."""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cache
from pathlib import Path

PACKAGES = ("preprocess", "bind", "data_manifests", "train", "serve")
_ROOT = Path(__file__).resolve().parents[1]


@cache
def check() -> None:
    """Raises ImportError, one sentence, where Python finds somebody else's module under the name of one of ours.

    Nothing is imported for that: a file that lies there by chance, or was put there, does not run.
    """
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin and Path(spec.origin).resolve().parents[1] != _ROOT:
            raise ImportError(foreign(name, spec.origin))


def foreign(name: str, place: str | None) -> str:
    """The sentence about a module `name` of somebody else's, at `place`."""
    return (
        f"Crossbind cannot start: its package {name!r} is hidden by {place}, which Python finds first; "
        "rename that file or folder, or work in another one"
    )


def leave_folder() -> None:
    """Takes the current folder off Python's path, for this process and for those it starts; for commands only.

    `python -m` and `python -c` put it first there, and a `numpy.py` in a folder of downloads would run.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    first = Path(sys.path[0] if sys.path else ".").resolve()
    if not sys.flags.safe_path and first == Path.cwd() and first != _ROOT:
        del sys.path[0]
