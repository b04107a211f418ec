"""Named models: one TOML file for each, and a folder of the same name where we ship its weights."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bind import checkpoint, description, devices
from bind.description import Description
from bind.files import sha256
from bind.modalities import specs
from bind.model import loading
from bind.model.model import BindModel
from bind.zoo import hub, presets

if TYPE_CHECKING:
    from bind.encoders.openclip import Settings

_HERE = Path(__file__).parent
"""The folder of the named models: one TOML is one name."""


def names() -> list[str]:
    """The names of the models in the zoo; `load` takes short names (`bind.zoo.presets`), checkpoint folders, `clip-*`,
    `st:*` and `timm:*` too.
    """
    return sorted(file.stem for file in _HERE.glob("*.toml") if file.stem != presets.__name__.rpartition(".")[2])


def describe(name: str) -> Description:
    """The description of a named model, of `clip-MODEL` and `clip-MODEL:TAG` for any model of open_clip, of
    `timm:MODEL` for any model of timm, or of a published folder (`st:NAME`, `clap:NAME`, `pe-av:NAME`, see
    `bind.zoo.hub`).

    TAG names published weights, whose settings are used. Raises ValueError for other names.
    """
    name = _meant(name)
    if name in names():
        file = _HERE / f"{name}.toml"
        return description.read(file)
    if name.startswith("clip-"):
        return _any_clip(name)
    if name.startswith("timm:"):
        return _any_timm(name)
    if hub.is_name(name):
        return hub.describe(name)[0]
    raise ValueError(
        f"no model {name!r}; known: {', '.join([*names(), *presets.presets()])}, clip-MODEL or clip-MODEL:TAG for any "
        "open_clip model, timm:MODEL for the pictures of any timm model, st:NAME or st:FOLDER for any model of "
        "sentence-transformers, or a checkpoint folder"
    )


def load(
    name: str | os.PathLike[str] = "small",
    weights: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    modalities: Collection[str] | None = None,
    trust_remote_code: bool = False,
) -> BindModel:
    """A named model or a checkpoint folder -> BindModel, in evaluation mode.

    Args:
        name: a name that `bind.names()` lists, `clip-MODEL` (or `clip-MODEL:TAG`, with published weights) for any model
            of open_clip, `timm:MODEL` for the pictures of any model of timm, `st:NAME` or `st:FOLDER` for any model of
            sentence-transformers (`clap:` and `pe-av:` for CLAP and PE-AV), or a checkpoint folder.
        weights: None (as the model's description says), "random" (right shapes, no file is read), a tag of open_clip's
            or timm's hub, a file (the official ImageBind `.pth`, a checkpoint of open_clip or timm) or a checkpoint
            folder.
        device: "cpu", "cuda", "cuda:1" or "mps".
        dtype: the type of the weights: "float32", "bfloat16" or "float16".
        modalities: the only modalities to load; None loads all of them.
        trust_remote_code: whether an `st:NAME@COMMIT` may run code of its own, with all rights of this process.

    Raises:
        ValueError: the model, a modality, the device or the type is unknown.
        CheckpointError: a file is damaged or missing (a ValueError too).

    Example:
        >>> model = bind.load("small", modalities=["image", "text"])
        >>> model.modalities, model.dim
        (('image', 'text'), 384)
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
    if hub.is_name(meant := _meant(os.fspath(name))):
        if weights is not None:
            raise ValueError(f"{name} brings its own weights; leave out weights=")
        found, published = hub.describe(meant, trust_remote_code)
        model = loading.load_described(found, _HERE / "none", device, number, modalities)
        del published  # it was kept, so that the towers share it
        return model
    if trust_remote_code:
        raise ValueError(f"{name}: trust_remote_code is for models of st:NAME@COMMIT only")
    if weights is None and (own := presets.kept(os.fspath(name))):
        weights = own
    found = describe(os.fspath(name))
    if weights == "random":
        return loading.random(found, device, number, modalities)
    if weights is None and not found.source and _modules(found) != {"openclip"}:
        return loading.load_described(found, _HERE / found.name, device, number, modalities)
    return _from_weights(found, weights, device, number, modalities)


def _meant(name: str) -> str:
    """A short name -> the name of its model, with the folder of its weights where they are kept; others as they are."""
    preset = presets.presets().get(name)
    if preset is None:
        return name
    own = presets.kept(name)
    return f"{preset.model.partition(':')[0]}:{own}" if own and hub.is_name(preset.model) else preset.model


def _from_weights(
    found: Description,
    weights: str | os.PathLike[str] | None,
    device: str,
    dtype: torch.dtype,
    modalities: Collection[str] | None,
) -> BindModel:
    wanted = os.fspath(weights) if weights is not None else found.source
    path = Path(wanted)
    modules = _modules(found)
    if wanted and (path / checkpoint.TABLE).is_file():
        return loading.load(path, device, dtype, modalities)
    if modules == {"imagebind"}:
        from bind.zoo import official

        return loading.load(official.converted(path, found), device, dtype, modalities)
    if modules == {"openclip"}:
        return loading.load_described(_clip_with_weights(found, wanted), path, device, dtype, modalities)
    if modules == {"timm"}:
        from bind.encoders import timm

        if not path.is_file():
            if weights is not None:  # a tag, whose preprocessing need not be that of the default one
                found = _any_timm(f"timm:{found.source.partition('.')[0]}.{wanted}")
            path = timm.download(found.source)
        return loading.load_described(_with_source(found, path), path, device, dtype, modalities)
    raise ValueError(f"model {found.name!r} takes no weights={wanted!r}; leave it out, or pass 'random'")


def _with_source(found: Description, file: Path) -> Description:
    """A description -> the same model, with the weights of all its encoders in one file."""
    where = {"source": f"file:{file.resolve()}", "sha256": sha256(file)}
    tables = {
        name: table.model_copy(update={"encoder": table.encoder and table.encoder | where})
        for name, table in found.modalities.items()
    }
    return found.model_copy(update={"modalities": tables})


def _modules(found: Description) -> set[str]:
    return {table.encoder["module"] for table in found.modalities.values() if table.encoder}


def _clip_with_weights(found: Description, wanted: str) -> Description:
    """A model of open_clip with a file, or a tag of published weights, and with the settings that these want."""
    from bind.encoders import openclip

    model = next(str(table.encoder["model"]) for table in found.modalities.values() if table.encoder)
    if Path(wanted).is_file():
        file, tag = Path(wanted), found.source or None
    elif not wanted:
        raise ValueError(f"{found.name}: say which weights, {found.name}:TAG or weights=TAG or a file; {_tags(model)}")
    else:
        file, tag = None, wanted
    settings = openclip.settings(model, tag, file)
    return _with_source(_with_settings(found, settings), file or openclip.download(model, wanted))


def _tags(model: str) -> str:
    from open_clip.pretrained import list_pretrained_tags_by_model

    return f"published are {', '.join(list_pretrained_tags_by_model(model)) or 'none'}"


def _with_settings(found: Description, settings: Settings) -> Description:
    tables = dict(found.modalities)
    for name in ("image", "video"):
        if table := tables.get(name):
            given = {key: value for key, value in settings.preprocess.items() if name == "image" or key != "resize"}
            tables[name] = table.model_copy(update={"preprocess": table.preprocess | given})
    for name, table in tables.items():
        if table.encoder and settings.quick_gelu:
            tables[name] = table.model_copy(update={"encoder": table.encoder | {"quick_gelu": True}})
    return found.model_copy(update={"modalities": tables})


def _any_clip(name: str) -> Description:
    from bind.encoders import openclip

    spelled, _, tag = name.removeprefix("clip-").partition(":")
    model = openclip.find_model(spelled)
    if model is None:
        raise ValueError(f"no model {name!r}: open_clip has none of that name; open_clip.list_models() lists them")
    facts = openclip.describe(model)
    table = {
        "format": 1,
        "name": name,
        "dim": facts["dim"],
        "license": "see the weights",
        "about": f"open_clip's {model}, frozen",
        "source": tag,
        "trained": [["image", "text"]],
        "modalities": {
            "image": {
                "encoder": {"module": "openclip", "model": model, "tower": "image"},
                "head": {"type": "identity"},
            },
            "text": {
                "encoder": {"module": "openclip", "model": model, "tower": "text"},
                "head": {"type": "identity"},
                "preprocess": {"tokenizer": facts["tokenizer"], "context_length": facts["context_length"]},
            },
            "video": {"shares": "image", "preprocess": {"stack_frames": False, "crops": 1}},
        },
    }
    return _with_settings(description.parse(table, name), openclip.settings(model, tag or None))


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
            "video": {
                "shares": "image",
                "preprocess": frames | {"resize_mode": picture["resize_mode"], "stack_frames": False, "crops": 1},
            },
        },
    }
    return description.parse(table, name)
