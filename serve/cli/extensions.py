"""Modalities, encoders and data sets that other packages and folders add, for `crossbind models` and `doctor`."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KINDS = {"modality": "crossbind.modalities", "encoder": "crossbind.encoders", "data set": "crossbind.datasets"}
"""What can be added, and the group of entry points of each."""
FOLDERS = "CROSSBIND_MODALITIES"
"""The environment variable with folders of modalities, which stands in place of a group of entry points."""


@dataclass(frozen=True)
class Added:
    """One extension: its kind (see `KINDS`), name, and where it comes from; `problem` is '' where it can be used.

    `group` is its group of entry points, or `FOLDERS`. A clash of names is one of these too, named after its group.
    """

    kind: str
    name: str
    group: str
    origin: str
    problem: str = ""


def added() -> list[Added]:
    """Every extension of this installation, each of them tried."""
    return [*_of_packages(), *_of_folders()]


def _of_packages() -> Iterator[Added]:
    from bind import extensions

    for kind, group in KINDS.items():
        try:
            found = extensions.installed(group)
        except ValueError as error:  # two of one name
            yield Added(kind, "", group, "", str(error))
            continue
        for one in found.values():
            try:
                _check_kind(kind, one.name, one.load())
                extensions.check_free(group, one.name, one, _own(kind).get(one.name))
            except ValueError as error:
                problem = str(error) if one.origin in str(error) else f"{one.origin}: {error}"
                yield Added(kind, one.name, group, one.origin, problem)
            else:
                yield Added(kind, one.name, group, one.origin)


def _check_kind(kind: str, name: str, loaded: object) -> None:
    from bind.modalities import ModalitySpec
    from data_manifests import Builder

    match kind:
        case "modality" if not isinstance(loaded, ModalitySpec) or loaded.name != name:
            raise ValueError(f"expected a ModalitySpec named {name!r}, got {loaded!r:.80}")
        case "encoder" if not hasattr(loaded, "build"):
            raise ValueError(f"expected a module with build(options), got {loaded!r:.80}")
        case "data set" if not isinstance(loaded, Builder):
            raise ValueError(f"expected a Builder, got {loaded!r:.80}")


def _own(kind: str) -> dict[str, str]:
    """The names of a kind that Crossbind itself has, and where each lies."""
    from bind import encoders, modalities
    from data_manifests import datasets

    package = {"modality": modalities, "encoder": encoders, "data set": datasets}[kind]
    folder = next(iter(package.__path__))
    return {module.name: str(Path(folder) / f"{module.name}.py") for module in pkgutil.iter_modules([folder])}


def _of_folders() -> Iterator[Added]:
    from bind import modalities

    for folder in list(modalities.__path__)[1:]:
        for module in pkgutil.iter_modules([folder]):
            file = str(Path(folder) / f"{module.name}.py")
            try:
                is_one = module.name in modalities.specs()  # a file without a SPEC is a helper of the others
            except Exception as error:  # code of somebody else's
                yield Added("modality", module.name, FOLDERS, file, f"{type(error).__name__}: {error}")
            else:
                if is_one:
                    yield Added("modality", module.name, FOLDERS, file)
