"""The command that says where in a picture something is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from serve.cli.application import app
from serve.cli.options import (
    DEFAULT_MODEL,
    Device,
    Dtype,
    Json,
    Model,
    TrustRemoteCode,
    Weights,
    failure,
    load_model,
    load_options,
    usage_error,
)


@app.command()
def locate(
    picture: Annotated[str, typer.Argument(help="A picture, `depth:FILE` or `thermal:FILE`.")],
    query: Annotated[str, typer.Argument(help="Text, a file of any kind, or terms joined by + and -, as for search.")],
    model: Model = DEFAULT_MODEL,
    weights: Weights = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    trust_remote_code: TrustRemoteCode = False,
    out: Annotated[Path | None, typer.Option("--out", help="The picture to write: heat and boxes over it.")] = None,
    as_json: Json = False,
) -> None:
    """Say where a picture shows what a query asks for: boxes in its pixels, best first, each with its cosine."""
    from PIL import Image

    if out is not None and (out.suffix.lower() not in Image.registered_extensions() or not out.parent.is_dir()):
        usage_error(f"--out: expected a picture in a folder that exists, such as overlay.png, got {out}")
    loaded = load_model(load_options(model, weights, device, dtype, None, trust_remote_code))
    from bind.model import locating
    from bind.model.model import source_of
    from bind.query import QueryError
    from preprocess.source import Limits, MediaError

    try:
        vector = locating.query_vector(loaded, query)
        shown = locating.read(loaded, *source_of(picture), Limits())
    except QueryError as error:
        usage_error(str(error))
    except (MediaError, ValueError) as error:
        failure(str(error))
    found = locating.search(loaded, shown, vector)
    if out is not None:
        try:
            locating.overlay(found, locating.shown(shown)).save(out)
        except (OSError, ValueError) as error:
            failure(f"--out: {out} could not be written: {error}")
    if as_json:
        boxes = [dict(zip(("x0", "y0", "x1", "y1", "score"), box, strict=True)) for box in found.boxes]
        size = {"width": found.width, "height": found.height}
        print(json.dumps({"picture": picture, **size, "boxes": boxes, "heat": found.heat.tolist()}))
        return
    for x0, y0, x1, y1, score in found.boxes:
        print(f"{score:.3f}  {x0:.0f},{y0:.0f} to {x1:.0f},{y1:.0f}")
    if not found.boxes:
        print("no place differs from the others")
    if out is not None:
        print(f"-> {out}")
