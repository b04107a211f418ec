"""The encoders. Each file of this folder is one encoder: the folder is the registry, and entry points add to it.

See `bind.extensions` for encoders of other packages. Each module has
`build(options) -> nn.Module`, which makes a randomly initialised encoder from a TOML table. It may have `load(options,
file) -> nn.Module` for the weights file that the makers of the encoder publish. An encoder maps single views (B,
*shape) to features (B, width) and has the attribute `width`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from bind import extensions

_OF_THE_DESCRIPTION = frozenset({"module", "source", "sha256"})
"""Keys of an encoder's table that say which encoder it is and where its weights are from; the rest are its options."""


def names() -> list[str]:
    """The modules that an encoder table may name: those of this folder and those of other packages' entry points."""
    return sorted({*_own(), *extensions.installed(extensions.ENCODERS)})


def build(table: Mapping[str, Any]) -> nn.Module:
    """`{"module": NAME, ...options}` -> a randomly initialised encoder.

    Raises ValueError for unknown names and options.
    """
    module, options = _split(table)
    if "parts" in options:
        options["parts"] = [build(part) for part in options["parts"]]
    encoder: nn.Module = module.build(options)
    return encoder


def is_published(table: Mapping[str, Any]) -> bool:
    """Whether the weights lie in their makers' files (`source`) and not in a checkpoint, for the encoder or all its
    parts.

    Raises ValueError for a table of which only some parts have a source.
    """
    have = {is_published(part) for part in table.get("parts", ())} or {"source" in table}
    if len(have) > 1:
        raise ValueError("encoder: either all of its parts have a source or none has")
    return have.pop()


def unpublished(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table of an encoder whose weights are stored with the model: without `source`, in its parts too."""
    own = {key: value for key, value in table.items() if key not in ("source", "sha256")}
    return own | ({"parts": [unpublished(part) for part in table["parts"]]} if "parts" in table else {})


def sources(table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The tables that have a `source`: this table or those of its parts."""
    if "parts" in table:
        return [found for part in table["parts"] for found in sources(part)]
    return [table] if "source" in table else []


def load(table: Mapping[str, Any], locate: Callable[[Mapping[str, Any]], Path]) -> nn.Module:
    """The encoder of `table` with the weights of its makers' files; `locate` maps a table to the file of its `source`.

    Raises ValueError where table and file do not fit.
    """
    module, options = _split(table)
    encoder: nn.Module
    if "parts" in options:
        encoder = module.build(options | {"parts": [load(part, locate) for part in options["parts"]]})
    else:
        encoder = module.load(options, locate(table))
    return encoder


def check_options(options: Mapping[str, Any], known: Collection[str]) -> None:
    """Raises ValueError that lists every key of `options` that is not in `known`."""
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"encoder: unknown keys {unknown}; known: {sorted(known)}")


@contextmanager
def shapes_only() -> Iterator[None]:
    """A context in which new modules have parameters without memory (on the meta device), because weights are loaded
    next.
    """
    with torch.device("meta"), _NothingDrawn():
        yield


class _NothingDrawn(TorchFunctionMode):
    # The meta device has no memory to initialise, and drawing there would import torch's compiler, which takes a
    # second.
    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if getattr(function, "__module__", None) == nn.init.__name__:
            return args[0] if args else (kwargs or {})["tensor"]
        return function(*args, **(kwargs or {}))


def _split(table: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    name = table.get("module")
    own, others = _own(), extensions.installed(extensions.ENCODERS)
    if name not in own and name not in others:
        raise ValueError(f"encoder: module is {name!r}, expected one of {names()}")
    options = {key: value for key, value in table.items() if key not in _OF_THE_DESCRIPTION}
    if name in others:
        extensions.check_free(extensions.ENCODERS, name, others[name], own.get(name))
        return others[name].load(), options
    return importlib.import_module(f"{__name__}.{name}"), options


def _own() -> dict[str, str]:
    """The names of this folder's modules -> their files."""
    folder = Path(__file__).parent
    return {module.name: str(folder / f"{module.name}.py") for module in pkgutil.iter_modules([str(folder)])}
