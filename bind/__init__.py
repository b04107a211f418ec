"""Models, vectors and the index: seven modalities in one space.

>>> import bind
>>> model = bind.load("small")
>>> embeddings = model.embed(["dog.jpg", "text:a red car"])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bind.arithmetic import combine
    from bind.index.index import Index
    from bind.model.model import BatchError, BindModel
    from bind.space import Embeddings, SpaceError
    from bind.zoo import load, names

_HOME = {
    "BatchError": "bind.model.model",
    "BindModel": "bind.model.model",
    "Embeddings": "bind.space",
    "Index": "bind.index.index",
    "SpaceError": "bind.space",
    "combine": "bind.arithmetic",
    "load": "bind.zoo",
    "names": "bind.zoo",
}
"""Public name -> the module that defines it, which is imported when the name is first used: `import bind` alone loads
no torch."""
__all__ = ["BatchError", "BindModel", "Embeddings", "Index", "SpaceError", "combine", "load", "names"]


def __getattr__(name: str) -> Any:
    # Loaded when first used: `import bind` alone must not cost the import of torch, let alone of model libraries.
    if name not in _HOME:
        raise AttributeError(f"module 'bind' has no attribute {name!r}")
    from bind import origin

    origin.check()
    return getattr(importlib.import_module(_HOME[name]), name)
