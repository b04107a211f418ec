"""Named models: one TOML file each, and a folder of the same name where its weights are shipped with us."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import torch

from bind import checkpoint, description, devices
from bind.description import Description
from bind.files import sha256
from bind.modalities import specs
from bind.model import loading
from bind.model.model import BindModel

_HERE = Path(__file__).parent


def names() -> list[str]:
    """The names `load` knows besides checkpoint folders, `clip-*` and `timm:*`."""
    return sorted(file.stem for file in _HERE.glob("*.toml"))


def describe(name: str) -> Description:
    """The description of a named model, of `clip-MODEL` for any model of open_clip, or of `timm:MODEL` for any of timm.

    Raises ValueError for others.
    """
    file = _HERE / f"{name}.toml"
    if file.is_file() and file.parent == _HERE:
        return description.read(file)
    if name.startswith("clip-"):
        return _any_clip(name)
    if name.startswith("timm:"):
        return _any_timm(name)
    raise ValueError(
        f"no model {name!r}; known: {', '.join(names())}, clip-MODEL for any open_clip model, timm:MODEL for the "
        "pictures of any timm model, or a checkpoint folder"
    )


def load(
    name: str | os.PathLike[str] = "small",
    weights: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    modalities: Collection[str] | None = None,
) -> BindModel:
    """A named model or a checkpoint folder -> BindModel, in evaluation mode.

    Args:
        name: a name that `bind.names()` lists, `clip-MODEL` for any model of open_clip, `timm:MODEL` for the pictures
            of any model of timm, or a checkpoint folder.
        weights: None (where the model's own description says), "random" (right shapes, nothing is read), a tag of
            open_clip's or timm's hub, a file (the official ImageBind `.pth`, a checkpoint of open_clip or timm) or a
            checkpoint folder.
        device: "cpu", "cuda", "cuda:1" or "mps".
        dtype: the type of the weights: "float32", "bfloat16" or "float16".
        modalities: the only modalities to load; None loads all of them.

    Raises:
        ValueError: the model, a modality, the device or the type is unknown.
        CheckpointError: a file is damaged or missing (a ValueError too).

    Example:
        >>> model = bind.load("small", modalities=["image", "text"])
    """
    devices.check(device, dtype, modalities)
    for modality in modalities or ():
        if modality not in specs():
            raise ValueError(f"no modality {modality!r}; known: {', '.join(specs())}")
    number: torch.dtype = getattr(torch, dtype)
    if (Path(name) / checkpoint.TABLE).is_file():
        if weights is not None:
            raise ValueError(f"{name} is a checkpoint folder and brings its own weights; leave out weights=")
        model = loading.load(Path(name), device, number, modalities)
        model.origin = os.path.abspath(name)
        return model
    found = describe(os.fspath(name))
    if weights == "random":
        return loading.random(found, device, number, modalities)
    if weights is None and not found.source:
        return loading.load_described(found, _HERE / found.name, device, number, modalities)
    return _from_weights(found, weights, device, number, modalities)


def _from_weights(
    found: Description,
    weights: str | os.PathLike[str] | None,
    device: str,
    dtype: torch.dtype,
    modalities: Collection[str] | None,
) -> BindModel:
    wanted = os.fspath(weights) if weights is not None else found.source
    path = Path(wanted)
    modules = {table.encoder["module"] for table in found.modalities.values() if table.encoder}
    if (path / checkpoint.TABLE).is_file():
        return loading.load(path, device, dtype, modalities)
    if modules == {"imagebind"}:
        from bind.zoo import official

        return loading.load(official.converted(path, found), device, dtype, modalities)
    if modules == {"openclip"}:
        from bind.encoders import openclip

        model = next(table.encoder["model"] for table in found.modalities.values() if table.encoder)
        file = path if path.is_file() else openclip.download(model, wanted)
        return loading.load_described(_with_source(found, file), path, device, dtype, modalities)
    if modules == {"timm"}:
        from bind.encoders import timm

        if not path.is_file():
            if weights is not None:  # a tag, whose preprocessing need not be that of the default one
                found = _any_timm(f"timm:{found.source.partition('.')[0]}.{wanted}")
            path = timm.download(found.source)
        return loading.load_described(_with_source(found, path), path, device, dtype, modalities)
    raise ValueError(f"model {found.name!r} takes no weights={wanted!r}; leave it out, or pass 'random'")


def _with_source(found: Description, file: Path) -> Description:
    """The same model, the weights of all its encoders in one file."""
    where = {"source": f"file:{file.resolve()}", "sha256": sha256(file)}
    tables = {
        name: table.model_copy(update={"encoder": table.encoder and table.encoder | where})
        for name, table in found.modalities.items()
    }
    return found.model_copy(update={"modalities": tables})


def _any_clip(name: str) -> Description:
    from bind.encoders import openclip

    model = openclip.find_model(name.removeprefix("clip-"))
    if model is None:
        raise ValueError(f"no model {name!r}: open_clip has none of that name; open_clip.list_models() lists them")
    facts = openclip.describe(model)
    picture = {key: facts[key] for key in ("size", "mean", "std")}
    frames = {"stack_frames": False, "crops": 1, "interpolation": "bicubic"}
    table = {
        "format": 1,
        "name": name,
        "dim": facts["dim"],
        "license": "see the weights",
        "about": f"open_clip's {model}, frozen",
        "trained": [["image", "text"]],
        "modalities": {
            "image": {
                "encoder": {"module": "openclip", "model": model, "tower": "image"},
                "head": {"type": "identity"},
                "preprocess": picture | {"resize": facts["size"]},
            },
            "text": {
                "encoder": {"module": "openclip", "model": model, "tower": "text"},
                "head": {"type": "identity"},
                "preprocess": {"tokenizer": facts["tokenizer"], "context_length": facts["context_length"]},
            },
            "video": {"shares": "image", "preprocess": picture | frames},
        },
    }
    return description.parse(table, name)


def _any_timm(name: str) -> Description:
    from bind.encoders import timm

    model = timm.find_model(name.removeprefix("timm:"))
    facts = timm.describe(model)
    picture = facts["preprocess"]
    frames = {key: picture[key] for key in ("size", "mean", "std", "interpolation")}
    table = {
        "format": 1,
        "name": name,
        "dim": facts["dim"],
        "license": "see the weights",
        "about": f"the image trunk of timm's {model}, frozen",
        "source": model,
        "modalities": {
            "image": {
                "encoder": {"module": "timm", "model": model, "shape": [3, picture["size"], picture["size"]]},
                "head": {"type": "identity"},
                "preprocess": picture,
            },
            "video": {"shares": "image", "preprocess": frames | {"stack_frames": False, "crops": 1}},
        },
    }
    return description.parse(table, name)
