"""Models of sentence-transformers by name, `st:NAME_OR_FOLDER`, and the folders of a hub's repositories."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bind import description
from bind.description import Description
from preprocess.extras import needs

PREFIX = "st:"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
_LONGEST_PX = 2048
"""Pictures with a longer side are reduced before a model's own preprocessing sees them."""
_FILM_PX = 448
_CLIP_S = 10.0
_MOST_CHARACTERS = 16_384
"""The most characters of a text that a model gets at once; a longer text is cut into such parts first."""
_CHARACTERS_PER_TOKEN = 8
_UNNEEDED = ("*.md", "*.png", "*.jpg", "*.onnx", "onnx/*", "openvino/*", "*.gguf", "*.msgpack", "*.h5", "*.ot")


def describe(name: str, trust_remote_code: bool = False) -> tuple[Description, Any]:
    """`st:FOLDER`, `st:REPOSITORY` or `st:REPOSITORY@REVISION` -> the description, and the model, which is loaded.

    What lies in the hub's local cache is taken from there, without a network. Raises ValueError where there is no such
    model, it cannot be had, it is damaged, or it has code of its own that is not trusted.
    """
    with needs("st", "a sentence-transformers model"):
        from bind.encoders import sentence_transformers as published

    wanted = name.removeprefix(PREFIX)
    if Path(wanted).is_dir():
        folder, source = Path(wanted).resolve(), f"folder:{Path(wanted).resolve()}"
        name = f"{PREFIX}{folder}"
    else:
        repository, _, revision = wanted.partition("@")
        if trust_remote_code and not _COMMIT.fullmatch(revision):
            raise ValueError(
                f"{name}: code of others is trusted at a pinned revision only; name the commit, {PREFIX}{repository}"
                "@ and its 40 hexadecimal digits"
            )
        folder = snapshot(repository, revision or None)
        source = f"st:{repository}@{folder.name}"
    model = published.opened(folder, trust_remote_code)
    encoder: dict[str, Any] = {"module": "sentence_transformers", "source": source}
    encoder["sha256"] = published.digest(folder)
    if trust_remote_code:
        encoder["remote_code"] = True
    tables = {
        modality: {
            "encoder": encoder | {"modality": modality},
            "head": {"type": "identity"},
            "preprocess": _preprocess(model, modality),
        }
        for modality in published.modalities(model)
    }
    table = {
        "format": 1,
        "name": name,
        "dim": published.width(model),
        "license": "see the weights",
        "about": "a model of sentence-transformers, frozen",
        "shorter": published.shorter(model),
        "modalities": tables,
    }
    return description.parse(table, name), model


def snapshot(repository: str, revision: str | None = None) -> Path:
    """A repository of the hub -> its folder in the hub's local cache, whose name is the commit; fetched where it is not
    there.

    Raises ValueError for what is no name of a repository, and where it cannot be fetched.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(f"no model {PREFIX}{repository}: there is no such folder, and it is no name of a repository")
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
        cause = str(error).strip().splitlines()
        raise ValueError(
            f"{PREFIX}{repository}: the model could not be fetched; get its folder where there is a network and name "
            f"{PREFIX}FOLDER ({type(error).__name__}: {cause[0][:200] if cause else ''})"
        ) from None


def _preprocess(model: Any, modality: str) -> dict[str, Any]:
    from bind.encoders import sentence_transformers as published

    if modality == "text":
        most = published.context(model)
        length = _MOST_CHARACTERS if most is None else min(_MOST_CHARACTERS, _CHARACTERS_PER_TOKEN * most)
        return {"tokenizer": "characters", "context_length": length + 1, "roles": True}
    if modality == "image":
        return {"raw": True, "size": _LONGEST_PX, "resize": _LONGEST_PX}
    if modality == "audio":
        return {"raw": True, "rate_hz": published.rate_hz(model), "clip_s": _CLIP_S, "segment_s": _CLIP_S}
    frames = round(_CLIP_S * published.FRAMES_HZ)
    return {"raw": True, "size": _FILM_PX, "clips": 3, "clip_s": _CLIP_S, "frames_per_clip": frames, "crops": 1}
