"""Run files: one TOML a training run, typed; every fault is reported at once, before a weight or a picture is read.

name = "depth"
out = "out/depth"                 # state, log and finished model; relative to the run file, as all its paths are

[base]
model = "small"                   # a name of the zoo, or a checkpoint folder

[modalities.depth]                # what is trained; a modality of a pair needs no table, its anchor is frozen without
preprocess = { size = 64 }

[train]
epochs = 16
learning_rate = 1e-3

[[train.pairs]]
modality = "depth"                # its encoder is trained ...
anchor = "image"                  # ... against this frozen one
manifests = ["train.jsonl"]
batch_size = 256
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from bind import modalities
from bind.checkpoint import TABLE
from bind.files import SUMS, sha256
from train.trainer import checks
from train.trainer.schema import Base, Run, Teacher


class RunError(ValueError):
    """The run cannot start: the message lists every fault."""


def read(path: str | Path) -> Run:
    """A run file -> Run, with absolute paths and the default anchors.

    Args:
        path: a TOML file, as the module's docstring shows it.

    Raises:
        RunError: the file cannot be read, or the run has faults; the message lists all of them.

    Example:
        >>> run = read("depth.toml")
        >>> run.trained, run.train.pairs[0].name
        (('depth',), 'depth-image')
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RunError(f"{path}: {error}") from None
    return parse(table, path.parent, path.name)


def parse(table: Mapping[str, Any], folder: Path, name: str = "run") -> Run:
    """A parsed table -> Run, as `read` makes it of a file; relative paths are relative to `folder`."""
    faults: list[str] = []
    run: Run | None = None
    try:
        run = Run.model_validate(table)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        run = _what_is_left(table, error)
    if run is not None:
        run = _resolved(run, folder.resolve())
        faults.extend(checks.faults(run))
    if faults or run is None:
        raise RunError("\n  ".join([f"{name}: {len(faults)} error(s)", *faults]))
    return run


def changed(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Two dumped runs -> a line `key: old -> new` for every key in which they differ."""
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from changed(before, after, f"{prefix}{key}.")
        elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
            numbered = [{str(i): value for i, value in enumerate(values)} for values in (before, after)]
            yield from changed(numbered[0], numbered[1], f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}: {before!r} -> {after!r}"


def identity(dumped: Mapping[str, Any], contents: Mapping[str, str]) -> dict[str, Any]:
    """A dumped run and the SHA-256 of each of its manifests by path -> the facts on which its course depends.

    These facts leave out where files lie and what is logged, so that a run can continue in another folder and with
    another `log_every`.
    """
    found = copy.deepcopy({key: value for key, value in dumped.items() if key not in ("out", "cache")})
    for key in ("log_every", "save_every"):
        found["train"].pop(key, None)
    for table in (*found["train"]["pairs"], found["evaluate"]):
        table["manifests"] = [Path(manifest).name for manifest in table["manifests"]]
    for model in (found["base"], *filter(None, (pair.get("teacher") for pair in found["train"]["pairs"]))):
        folder = Path(model["model"])
        if (folder / TABLE).is_file():
            listing = folder / SUMS
            model["model"] = f"SHA-256 {sha256(listing if listing.is_file() else folder / TABLE)}"
        if model["weights"] and Path(model["weights"]).exists():
            model["weights"] = Path(model["weights"]).name
    numbered = {f"{number} {Path(path).name}": digest for number, (path, digest) in enumerate(contents.items())}
    return found | {"content of manifests": numbered}


_Model = TypeVar("_Model", Base, Teacher)


def _resolved(run: Run, folder: Path) -> Run:
    def absolute(path: str) -> str:
        return str(folder / path)

    def located(model: _Model) -> _Model:
        found = (folder / model.model / TABLE).is_file()
        return model.model_copy(update={"model": absolute(model.model)}) if found else model

    pairs = []
    for pair in run.train.pairs:
        known = modalities.specs().get(pair.modality)
        anchor = pair.anchor or (known.anchor if known else None) or ""
        manifests = tuple(map(absolute, pair.manifests))
        teacher = pair.teacher and located(pair.teacher)
        pairs.append(pair.model_copy(update={"anchor": anchor, "manifests": manifests, "teacher": teacher}))
    return run.model_copy(
        update={
            "out": absolute(run.out),
            "base": located(run.base),
            "train": run.train.model_copy(update={"pairs": tuple(pairs)}),
            "cache": run.cache.model_copy(update={"folder": absolute(run.cache.folder)}),
            "evaluate": run.evaluate.model_copy(update={"manifests": tuple(map(absolute, run.evaluate.manifests))}),
        }
    )


def _what_is_left(table: Mapping[str, Any], error: ValidationError) -> Run | None:
    """The run without its faulty keys, so that the rest can be checked too; None where the keys cannot be left out."""
    left = copy.deepcopy(dict(table))
    for fault in error.errors():
        place: Any = left
        *outer, last = fault["loc"] or ("",)
        try:
            for key in outer:
                place = place[key]
            del place[last]
        except (KeyError, IndexError, TypeError):
            place = None
    left.setdefault("name", "unnamed")
    left.setdefault("out", "out")
    try:
        return Run.model_validate(left)
    except ValidationError:
        return None
