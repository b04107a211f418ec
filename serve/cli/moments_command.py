"""The command that says when a recording matches a query."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from serve.cli.application import app
from serve.cli.options import (
    Device,
    Dtype,
    Json,
    LibraryFolder,
    LibraryModel,
    Weights,
    load_options,
    open_library,
    usage_error,
)

if TYPE_CHECKING:
    from serve.library.items import Item
    from serve.library.library import Library


@app.command()
def moments(
    recording: Annotated[
        Path, typer.Argument(help="A film, a sound or motion of the library, or the end of its path.")
    ],
    query: Annotated[str, typer.Argument(help="Text, a file of any kind, or terms joined by + and -, as for search.")],
    library: LibraryFolder,
    fine: Annotated[
        bool, typer.Option("--fine", help="Read the file again in stretches of about two seconds; takes longer.")
    ] = False,
    sound: Annotated[bool, typer.Option("--sound", help="Of a film, listen to its sound track.")] = False,
    which: Annotated[Literal["all", "first", "last"], typer.Option(help="All moments, the first or the last.")] = "all",
    min_score: Annotated[float | None, typer.Option(help="The least score of a moment, as 3.")] = None,
    after: Annotated[float | None, typer.Option(min=0, help="Only moments that begin at this second or later.")] = None,
    before: Annotated[
        float | None, typer.Option(min=0, help="Only moments that end at this second or earlier.")
    ] = None,
    model: LibraryModel = None,
    weights: Weights = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Say when a recording matches a query: the stretches that do, in the order of time, each with its best score."""
    if not library.is_dir():
        usage_error(f"--library: there is no library {library}; `crossbind index FOLDER --library {library}` makes one")
    path = str(recording.expanduser().absolute())
    with open_library(library, load_options(model, weights, device, dtype), None) as opened:
        try:
            items = _items(opened, f"path = {_quoted(path)}") or _items(
                opened, f"path like {_quoted(f'%/{recording}')}"
            )
            chosen = [one for one in items if (one.modality == "audio") == sound] or items
            if not chosen:
                usage_error(f"{recording} is no recording of this library; index its folder, or look at its name")
            options = {"fine": fine, "min_score": min_score, "after_s": after, "before_s": before}
            found = opened.moments(chosen[0].item_id, query, which=which, **options)  # type: ignore[arg-type]
        except ValueError as error:
            usage_error(str(error))
    if as_json:
        curve = {"spans": found.spans.tolist(), "scores": found.scores.tolist(), "threshold": found.threshold}
        print(json.dumps({"recording": path, "moments": [asdict(one) for one in found], "curve": curve}))
        return
    for one in found:
        print(f"{clock(one.start_s)} to {clock(one.end_s)}  score {one.score:.1f} at {clock(one.peak_s)}")
    if not found:
        print("nothing in it looks like that")


def _items(library: Library, where: str) -> list[Item]:
    """The stretches of the recordings that a filter passes."""
    return [one for one in library.page(limit=10_000, where=where)[0] if one.start_s is not None]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def clock(seconds: float) -> str:
    """65.25 -> `1:05.2`."""
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"
