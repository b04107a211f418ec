"""`model.toml`, the description of a model: one typed table for checkpoint folders and for the models of the zoo."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from bind import modalities


class ModalityTable(BaseModel):
    """One `[modalities.NAME]` table.

    `shares` names the modality whose encoder this modality uses. It uses that modality's head too, unless it has a
    `head` of its own. `encoder.source` says where the makers' weights lie (`package:PATH` inside an installed package,
    `file:PATH`, `folder:PATH`, `timm:NAME` of timm's hub, or `hub:REPOSITORY@COMMIT`). The weights of an encoder
    without a source lie in the checkpoint folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: dict[str, Any] | None = None
    head: dict[str, Any] | None = None
    shares: str | None = None
    preprocess: dict[str, Any] = {}


class Description(BaseModel):
    """A whole `model.toml`.

    `source` is the default of `weights=`, for models whose weights come from elsewhere. `trained` lists the pairs of
    modalities that the model was trained on, as `["image", "audio"]`. `trained_on` lists the manifests it was trained
    on, by the names in their headers (patterns with `*`), as far as they were recorded. `digests` identifies weights
    that have no file with a SHA-256, such as random weights by their seed. `shorter` lists the lengths to which a
    vector may be cut from the front and then normalised again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1]
    name: str
    dim: int
    license: str
    about: str = ""
    source: str = ""
    trained: tuple[tuple[str, str], ...] = ()
    trained_on: tuple[str, ...] = ()
    shorter: tuple[int, ...] = ()
    digests: dict[str, str] = {}
    modalities: dict[str, ModalityTable]

    def towers(self) -> dict[str, str]:
        """Modality -> the modality whose table holds its encoder: the modality itself, or the one whose encoder it
        shares.
        """
        return {name: table.shares or name for name, table in self.modalities.items()}

    def preprocess(self, modality: str) -> Any:
        """The typed preprocessing constants of a modality. Raises ValueError for unknown keys and wrong types."""
        spec = modalities.spec(modality)
        table = self.modalities[modality].preprocess
        known = {field.name for field in fields(spec.config)}
        if unknown := sorted(set(table) - known):
            raise ValueError(f"unknown keys {unknown}; known: {sorted(known)}")
        return TypeAdapter(spec.config).validate_python(table)

    def space(self, digests: Mapping[str, str]) -> str:
        """The identity of the space, 16 hex digits: a hash over the configuration and the weights of all its
        modalities.

        `digests` has one entry for each file of weights. The hash covers the revisions of the preprocessing code. It
        does not cover names, licences and remarks.
        """
        content = {
            name: {
                "encoder": {k: v for k, v in (table.encoder or {}).items() if k != "source"},
                "head": table.head,
                "shares": table.shares,
                "preprocess": _constants(self.preprocess(name)),
            }
            | modalities.spec(name).identity
            for name, table in self.modalities.items()
        }
        text = json.dumps([self.dim, content, dict(digests)], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def write(self, file: Path) -> None:
        """Writes the table as TOML."""
        file.write_text(tomli_w.dumps(self.model_dump(exclude_none=True, exclude_defaults=True) | {"format": 1}))


def _constants(config: Any) -> dict[str, Any]:
    """The constants that distinguish one preprocessing from another, for the hash of a space.

    A later version may have added a constant (`added` in the metadata of its field). That constant is left out where it
    has the value that stands for the earlier behaviour, so that earlier spaces keep their identity.
    """
    added = {one.name for one in fields(config) if "added" in one.metadata and getattr(config, one.name) == one.default}
    return {key: value for key, value in asdict(config).items() if key not in added}


def read(file: Path) -> Description:
    """A `model.toml` -> its description. Raises ValueError that lists every error of the file at once."""
    try:
        return parse(tomllib.loads(file.read_text()), file.name)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{file}: {error}") from None


def parse(table: Mapping[str, Any], name: str) -> Description:
    """A parsed table -> its description. Raises ValueError that lists every error at once."""
    errors: list[str] = []
    try:
        description = Description.model_validate(table)
    except ValidationError as error:
        raise ValueError(_listed(name, _messages(error, ()))) from None
    if any(not 0 < length < description.dim for length in description.shorter):
        errors.append(f"shorter: expected lengths from 1 to {description.dim - 1}, got {list(description.shorter)}")
    for modality, entry in description.modalities.items():
        where = f"modalities.{modality}"
        if modality not in modalities.specs():
            errors.append(f"{where}: unknown modality; known: {', '.join(modalities.specs())}")
            continue
        shared = description.modalities.get(entry.shares) if entry.shares else None
        if entry.shares and (shared is None or shared.encoder is None):
            errors.append(f"{where}.shares: {entry.shares!r} has no encoder here")
        if bool(entry.encoder) == bool(entry.shares):
            errors.append(f"{where}: needs either an encoder or `shares`")
        if entry.encoder and not entry.head:
            errors.append(f"{where}: needs a head")
        try:
            description.preprocess(modality)
        except ValidationError as error:
            errors.extend(_messages(error, (where, "preprocess")))
        except ValueError as error:
            errors.append(f"{where}.preprocess: {error}")
    if errors:
        raise ValueError(_listed(name, errors))
    return description


def _messages(error: ValidationError, prefix: tuple[str, ...]) -> list[str]:
    return [f"{'.'.join([*prefix, *map(str, e['loc'])])}: {e['msg']}" for e in error.errors()]


def _listed(name: str, errors: list[str]) -> str:
    return "\n  ".join([f"{name}: {len(errors)} error(s)", *errors])
