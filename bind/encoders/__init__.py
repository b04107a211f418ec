"""Encoders. The only place that imports open_clip. The folder is the registry, and
entry points of other packages add to it (see `bind.extensions`).

Each module has `build(options) -> nn.Module`, which makes a randomly initialised encoder from a TOML-able table, and
may have `load(options, file) -> nn.Module` for the weights file that its makers publish. An encoder maps single views
(B, *shape) to features (B, width) and has the attribute `width`.
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


def names() -> list[str]:
    """The modules an encoder table may name: those of this folder, and those of other packages' entry points."""
    return sorted({*_own(), *extensions.installed(extensions.ENCODERS)})


def build(table: Mapping[str, Any]) -> nn.Module:
    """`{"module": NAME, ...options}` -> a randomly initialised encoder. Raises ValueError for what it does not know."""
    module, options = _split(table)
    if "parts" in options:
        options["parts"] = [build(part) for part in options["parts"]]
    encoder: nn.Module = module.build(options)
    return encoder


def is_published(table: Mapping[str, Any]) -> bool:
    """Whether the weights are in files of their makers (`source`), not in a checkpoint; so are those of all its parts.

    Raises ValueError for a table of which only some parts have a source.
    """
    have = {is_published(part) for part in table.get("parts", ())} or {"source" in table}
    if len(have) > 1:
        raise ValueError("encoder: either all of its parts have a source or none has")
    return have.pop()


def sources(table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The tables inside that have a `source`, this one or its parts."""
    if "parts" in table:
        return [found for part in table["parts"] for found in sources(part)]
    return [table] if "source" in table else []


def load(table: Mapping[str, Any], locate: Callable[[Mapping[str, Any]], Path]) -> nn.Module:
    """The encoder of `table` with the weights of its makers' files, which `locate` finds by a table's `source`.

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
    """Raises ValueError that lists every key of `options` which is not among `known`."""
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"encoder: unknown keys {unknown}; known: {sorted(known)}")


@contextmanager
def shapes_only() -> Iterator[None]:
    """Modules constructed inside have parameters without numbers (on the meta device), for weights that are read."""
    with torch.device("meta"), _NothingDrawn():
        yield


class _NothingDrawn(TorchFunctionMode):
    # On the meta device there is nothing to fill in, and drawing there would import torch's compiler, a second's work.
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
    """The modules of this folder -> where each lies."""
    folder = Path(__file__).parent
    return {module.name: str(folder / f"{module.name}.py") for module in pkgutil.iter_modules([str(folder)])}
