"""The interfaces for people and programs: command line, library, HTTP API and web page."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serve.client import Client
    from serve.engine.terms import Term
    from serve.library.library import Library

_HOME = {"Client": "serve.client", "Library": "serve.library.library", "Term": "serve.engine.terms"}
"""Public name -> the module that defines it, which is imported when the name is first used."""
__all__ = ["Client", "Library", "Term"]


def check_packages() -> None:
    """Raises ImportError, with one sentence, where another project's file has the name of one of our packages."""
    import bind

    try:
        from bind import origin
    except ImportError:
        raise ImportError(
            f"Crossbind cannot start: its package 'bind' is hidden by {bind.__file__}, which Python finds first; "
            "rename that file or folder, or work in another one"
        ) from None
    origin.check()


def __getattr__(name: str) -> Any:
    # The modules are imported when first used: the command line's --help must not wait for numpy and SQLite.
    if name not in _HOME:
        raise AttributeError(f"module 'serve' has no attribute {name!r}")
    check_packages()
    from preprocess.extras import needs

    with needs("serve", f"serve.{name}"):
        return getattr(importlib.import_module(_HOME[name]), name)
