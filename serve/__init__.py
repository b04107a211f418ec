"""What a person or a program talks to: command line, library, HTTP API, web page."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serve.client import Client
    from serve.library import Library
    from serve.terms import Term

_HOME = {"Client": "serve.client", "Library": "serve.library", "Term": "serve.terms"}
__all__ = ["Client", "Library", "Term"]


def __getattr__(name: str) -> Any:
    # Loaded when first used: the command line's --help must not wait for numpy and SQLite.
    if name not in _HOME:
        raise AttributeError(f"module 'serve' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
