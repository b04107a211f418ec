"""Weights for a named model: from its hub, or from a file or folder of one's own."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bind.zoo import hub, presets


def get(name: str, source: Path | None = None, digest: str | None = None) -> Path:
    """The weights of a model -> where they are now, complete and of the right architecture.

    Args:
        name: a short name, or what `bind.load` takes for a model of a hub.
        source: a file or folder to take them from, for a short name; None fetches them, and the hub's client goes on
            with an interrupted download and checks it.
        digest: the SHA-256 that the file must have.

    Raises:
        ValueError: an unknown name, no such file, a file of something else, or a hub that cannot be reached.
        OSError: the disk is full, or the folder of the cache cannot be written.
    """
    preset = presets.presets().get(name)
    if source is not None:
        if preset is None:
            raise ValueError(f"--from is for {', '.join(presets.presets())}; name the file of {name} with --weights")
        return presets.keep(name, source, partial(_check, preset.model), digest)
    model = preset.model if preset else name
    if hub.is_name(model):
        return hub.snapshot(model.partition(":")[2].partition("#")[0].partition("@")[0])
    model = _with_tag(model)
    if model.startswith("clip-") and ":" in model:
        from bind.encoders import openclip

        spelled, _, tag = model.removeprefix("clip-").partition(":")
        known = openclip.find_model(spelled)
        if known is None:
            raise ValueError(f"no model {name!r}: open_clip has none of that name; open_clip.list_models() lists them")
        return openclip.download(known, tag)
    if model.startswith("timm:"):
        from bind.encoders import timm

        return timm.download(model.removeprefix("timm:"))
    if preset is not None:
        raise ValueError(
            f"{name} lies on no hub; get {name.replace('-', '_')}.pth from its makers and name it, --from FILE"
        )
    raise ValueError(f"no weights to get for {name!r}; known: {', '.join(presets.presets())}, clip-MODEL:TAG, st:NAME")


def _with_tag(model: str) -> str:
    """A model of open_clip with a name of its own in the zoo -> `clip-MODEL:TAG`; others as they are."""
    from bind import zoo

    if model not in zoo.names():
        return model
    found = zoo.describe(model)
    tables = [table.encoder for table in found.modalities.values() if table.encoder]
    return f"clip-{tables[0]['model']}:{found.source}" if tables[0]["module"] == "openclip" else model


def _check(model: str, place: Path) -> None:
    """Raises ValueError where a copy is not what the model takes, by loading it."""
    from bind import zoo

    if hub.is_name(model):
        zoo.load(f"{model.partition(':')[0]}:{place}")
    else:
        zoo.load(model, weights=place)
