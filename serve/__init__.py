"""What a person or a program talks to: command line, library, HTTP API, web page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serve.library import Library

__all__ = ["Library"]


def __getattr__(name: str) -> Any:
    # Loaded when first used: the command line's --help must not wait for numpy and SQLite.
    if name != "Library":
        raise AttributeError(f"module 'serve' has no attribute {name!r}")
    from serve.library import Library

    return Library
