"""Folders of models that others publish, by name: `st:`, `clap:` and `pe-av:`, and the repositories of a hub."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from bind import description, published
from bind.description import Description
from preprocess.extras import needs

KINDS = {
    "st:": "sentence_transformers",
    "clap:": "clap",
    "pe-av:": "pe_av",
}
"""The beginning of a model's name -> the encoder that reads its folder."""
_ABOUT = {
    "sentence_transformers": "a model of sentence-transformers, frozen",
    "clap": "CLAP (arXiv 2211.06687) in the form of transformers, frozen",
    "pe_av": "Perception Encoder Audiovisual in the form of transformers, frozen",
}
"""What the description of a model says of it, by its encoder."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
"""A revision that no later push to a repository changes."""
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""The name of a repository, with or without its owner."""
_UNNEEDED = ("*.md", "*.png", "*.jpg", "*.onnx", "onnx/*", "openvino/*", "*.gguf", "*.msgpack", "*.h5", "*.ot")
"""Files of a repository that are not fetched: texts, pictures, and weights in other formats."""


def is_name(name: str) -> bool:
    """Whether a model's name is one of a published folder."""
    return name.startswith(tuple(KINDS))


def describe(name: str, trust_remote_code: bool = False) -> tuple[Description, Any]:
    """`st:FOLDER`, `st:REPOSITORY` or `st:REPOSITORY@REVISION`, and so on for `KINDS` -> the description, and the
    model, which is loaded.

    `pe-av:NAME#audio` chooses the head of its texts, see `bind.encoders.pe_av`. What lies in the hub's local cache is
    taken from there, without a network. Raises ValueError where there is no such model, it cannot be had, it is
    damaged, or it has code of its own that is not trusted.
    """
    prefix = next(one for one in KINDS if name.startswith(one))
    kind = KINDS[prefix]
    wanted, _, texts = name.removeprefix(prefix).partition("#") if prefix == "pe-av:" else (name[len(prefix) :], "", "")
    if trust_remote_code and prefix != "st:":
        raise ValueError(f"{name}: trust_remote_code is for models of st:NAME@COMMIT only")
    if Path(wanted).is_dir():
        folder, source = Path(wanted).resolve(), f"folder:{Path(wanted).resolve()}"
        name = f"{prefix}{folder}" + (f"#{texts}" if texts else "")
    else:
        repository, _, revision = wanted.partition("@")
        if trust_remote_code and not _COMMIT.fullmatch(revision):
            raise ValueError(
                f"{name}: code of others is trusted at a pinned revision only; name the commit, {prefix}{repository}"
                "@ and its 40 hexadecimal digits"
            )
        folder = snapshot(repository, revision or None)
        source = f"hub:{repository}@{folder.name}"
    with needs("st", f"the model {name}"):
        module: Any = importlib.import_module(f"bind.encoders.{kind}")
        model = module.opened(folder, trust_remote_code)
    encoder: dict[str, Any] = {"module": kind, "source": source, "sha256": published.digest(folder)}
    if trust_remote_code:
        encoder["remote_code"] = True
    tables = {
        modality: {
            "encoder": encoder | {"modality": modality} | ({"text": texts} if texts and modality == "text" else {}),
            "head": {"type": "identity"},
            "preprocess": module.preprocess(model, modality),
        }
        for modality in module.modalities(model)
    }
    table = {
        "format": 1,
        "name": name,
        "dim": module.width(model),
        "license": "see the weights",
        "about": _ABOUT[kind],
        "shorter": module.shorter(model),
        "modalities": tables,
    }
    return description.parse(table, name), model


def snapshot(repository: str, revision: str | None = None) -> Path:
    """A repository of the hub -> its folder in the hub's local cache, whose name is the commit; fetched where it is not
    there.

    Raises ValueError for what is no name of a repository, and where it cannot be fetched.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(f"no model {repository!r}: there is no such folder, and it is no name of a repository")
    with needs("st", "a model of the hub"):
        from huggingface_hub import snapshot_download
    options: dict[str, Any] = {"revision": revision, "ignore_patterns": _UNNEEDED}
    try:
        return Path(snapshot_download(repository, local_files_only=True, **options))
    except Exception:  # nothing or not all of it is there
        pass
    try:
        return Path(snapshot_download(repository, **options))
    except Exception as error:  # each version of the hub's client has errors of its own
        raise ValueError(
            f"{repository}: the model could not be fetched; get its folder where there is a network and name the "
            f"folder in its place ({published.first_line(error)})"
        ) from None
