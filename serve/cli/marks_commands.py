"""Commands for what a library holds: tag, duplicates."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from serve.cli.application import app
from serve.cli.options import (
    Device,
    Dtype,
    ExistingLibrary,
    Json,
    LibraryModel,
    Weights,
    load_options,
    open_library,
    refuse_no_library,
    usage_error,
)
from serve.cli.progress import say


@app.command()
def tag(
    library: ExistingLibrary,
    words: Annotated[
        list[str] | None, typer.Argument(help="What to look for; left out: the tags that there are.")
    ] = None,
    min_probability: Annotated[
        float, typer.Option(min=0, max=1, help="The least probability with which a file gets a word.")
    ] = 0.5,
    want: Annotated[str | None, typer.Option(help="Modalities to tag, as image,audio; left out: all.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Delete these tags instead.")] = False,
    model: LibraryModel = None,
    weights: Weights = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Tag every file that shows what a word says, and list the tags. `--where "tag = 'dog'"` filters by one."""
    refuse_no_library(library)
    options = load_options(model, weights, device, dtype, {"text"} if words else None)
    with open_library(library, options, None) as opened:
        try:
            if words and remove:
                known = {one.name: one.album_id for one in opened.tags()}
                if missing := [word for word in words if word not in known]:
                    usage_error(f"there is no tag {missing[0]!r}; known: {', '.join(known) or 'none'}")
                for word in words:
                    opened.delete_album(known[word], "tag")
            elif words:
                if not as_json:
                    say(f"{len(opened):,} files are compared with {len(words)} words")
                opened.tag(words, min_probability=min_probability, want=want.split(",") if want else None)
        except ValueError as error:
            usage_error(str(error))
        found = opened.tags()
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
        return
    for one in found:
        print(f"{one.name}: {one.count} files")


@app.command()
def duplicates(
    library: ExistingLibrary,
    threshold: Annotated[
        float, typer.Option(min=0.5, max=1, help="The least cosine of near-duplicates; 1 for equal ones.")
    ] = 0.98,
    model: LibraryModel = None,
    weights: Weights = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """List the files that are the same or nearly so, a group each. No file is changed."""
    refuse_no_library(library)
    with open_library(library, load_options(model, weights, device, dtype), None) as opened:
        groups = opened.duplicates(threshold)
    if as_json:
        print(json.dumps([asdict(group) for group in groups]))
        return
    from serve.library.export import one_line

    for group in groups:
        print(f"cosine {group.cosine:.3f} or more:")
        for path in group.paths:
            print(f"  {one_line(path)}")
    print(f"{library}: {len(groups)} groups of duplicates")
