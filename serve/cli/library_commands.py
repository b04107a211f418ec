"""Commands for a library: search, check, backup."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
import typer.core

from serve.cli.application import app
from serve.cli.options import (
    Device,
    Dtype,
    ExistingLibrary,
    Json,
    LibraryFolder,
    LibraryModel,
    TrustRemoteCode,
    Weights,
    failure,
    load_options,
    open_library,
    refuse_no_library,
    usage_error,
)
from serve.cli.showing import HitFormat, copy_files, format_or_default, open_files, show


@app.command()
def search(
    query: Annotated[
        str, typer.Argument(help="Words, a file, or terms joined by + and -: \"image:a.jpg - text:'x'\".")
    ],
    library: LibraryFolder,
    k: Annotated[int, typer.Option("--k", min=1, max=100_000, help="How many hits.")] = 10,
    want: Annotated[str | None, typer.Option(help="Modalities to find, as image,audio.")] = None,
    where: Annotated[str | None, typer.Option(help="A filter: \"folder = 'trip' and duration_s < 30\".")] = None,
    keywords: Annotated[bool | None, typer.Option(help="Look for the words in names and captions too.")] = None,
    min_score: Annotated[float | None, typer.Option(help="Leave out hits with a lower score, as 3.")] = None,
    min_probability: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave out hits that are less likely to be right, as 0.5.")
    ] = None,
    every_segment: Annotated[
        bool, typer.Option("--every-segment", help="Each stretch of a recording is a hit of its own.")
    ] = False,
    nearest: Annotated[
        bool, typer.Option("--nearest", help="Show the nearest hits too where nothing looks like the query.")
    ] = False,
    cursor: Annotated[
        str | None, typer.Option(help="The next page: what the page before printed, for the same query and options.")
    ] = None,
    model: LibraryModel = None,
    weights: Weights = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    trust_remote_code: TrustRemoteCode = False,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Make small pictures of the hits, print paths.")
    ] = False,
    form: Annotated[
        HitFormat | None, typer.Option("--format", help="Left out: a table on a terminal, else paths, one a line.")
    ] = None,
    open_hits: Annotated[bool, typer.Option("--open", help="Open the files of the first hits (10 at most).")] = False,
    copy_to: Annotated[Path | None, typer.Option(metavar="DIR", help="Copy the files of the hits into it.")] = None,
    as_json: Json = False,
) -> None:
    """Search a library with words, files of any kind, or a mixture."""
    refuse_no_library(library)
    from serve.library.query import modalities_of, path_notes, unmarked_texts

    try:
        # A query of words starts in half the time without the other encoders.
        needed = modalities_of(query)
    except ValueError as error:
        usage_error(str(error))
    with open_library(library, load_options(model, weights, device, dtype, needed, trust_remote_code), None) as opened:
        try:
            hits = opened.search(
                query,
                k,
                want.split(",") if want else None,
                where,
                keywords=keywords,
                every_segment=every_segment,
                min_score=min_score,
                min_probability=min_probability,
                cursor=cursor,
            )
        except ValueError as error:
            usage_error(str(error))
        for note in path_notes(unmarked_texts(query), hits):
            print(f"note: {note} (put text: before it where words are meant)", file=sys.stderr)
        pictures: dict[int, Path] = {}
        if thumbnails:
            from serve.engine import thumbnails as small_pictures

            pictures = small_pictures.make(opened, hits)
    if as_json or form == "json":
        rows = [asdict(hit) | {"thumbnail": str(pictures.get(hit.item_id, "")) or None} for hit in hits]
        print(json.dumps(rows, default=str))
    else:
        show(hits, format_or_default(form), nearest or cursor is not None)
        for hit in hits:
            if hit.item_id in pictures:
                print(pictures[hit.item_id])
    if hits.next is not None:
        print(f"more: --cursor {hits.next}", file=sys.stderr)
    if open_hits:
        open_files(hits)
    if copy_to is not None:
        copy_files(hits, copy_to)


@app.command()
def check(
    library: ExistingLibrary,
    repair: Annotated[bool, typer.Option("--repair", help="Make again what can be, and say what cannot.")] = False,
    model: LibraryModel = None,
    weights: Weights = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Compare all of a library with its checksums: catalogue, vectors, index, kept files, thumbnails."""
    from serve.library import check as checks
    from serve.library.library import Library

    options = load_options(model, weights, device, dtype, None, trust_remote_code)
    try:
        report = checks.check(library, repair, lambda: Library.open(library, options))
    except (ValueError, OSError) as error:
        usage_error(str(error))
    if as_json:
        print(json.dumps(asdict(report) | {"whole": report.is_whole}))
    else:
        for found in report.findings:
            print(f"{'repaired' if found.repaired else 'damaged'}: {found.part}: {found.what} ({found.action})")
        looked = ", ".join(f"{number} {name}" for name, number in report.looked_at.items())
        print(f"{library}: {len(report.findings) or 'no'} findings in {looked or 'nothing that could be read'}")
    if not report.is_whole:
        raise typer.Exit(1)


@app.command()
def migrate(
    library: ExistingLibrary,
    model: Annotated[str, typer.Option("--model", help="The new model: a name, or a checkpoint folder.")],
    weights: Weights = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="FILE", help="Keep the old library in this file, as `backup` does.")
    ] = None,
    allow_removal: Annotated[
        bool, typer.Option("--allow-removal", help="Files that the new model cannot be given become skipped files.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Change a library's model without a stop: searching goes on, and an interrupted run goes on where it was."""
    from serve.cli.progress import show_progress
    from serve.library.errors import LibraryError
    from serve.library.library import Library

    options = load_options(model, weights, device, dtype, None, trust_remote_code)
    if not (library / "catalogue.sqlite").exists():
        usage_error(f"there is no library in {library}")  # said before a model is loaded
    with show_progress() as progress:
        try:
            report = Library.migrate(
                library, options, keep=keep, allow_removal=allow_removal, progress=progress, batch_size=batch_size
            )
        except (LibraryError, OSError) as error:
            failure(str(error))
        except ValueError as error:  # of the model that is asked for
            usage_error(str(error))
    if as_json:
        print(json.dumps(asdict(report)))
        return
    for path, reason in report.dropped:
        print(f"skipped {path}: {reason}", file=sys.stderr)
    print(f"{library}: {report.files} files with model {report.model}, {report.embedded} embedded in this run")


@app.command()
def backup(
    library: ExistingLibrary,
    file: Annotated[Path, typer.Argument(help="The one file (a tar archive) to write, or to restore from.")],
    restore: Annotated[bool, typer.Option("--restore", help="The other way: make LIBRARY from the file.")] = False,
    as_json: Json = False,
) -> None:
    """Copy a library, also while it is in use, to one file; --restore makes the library from it."""
    from serve.library import backup as backups

    try:
        if restore:
            backups.restore(file, library)
            print(json.dumps({"restored": str(library)}) if as_json else f"{file} -> {library}")
            return
        if not file.absolute().parent.is_dir():
            usage_error(f"there is no folder {file.parent}")
        report = backups.backup(library, file)
    except (ValueError, OSError) as error:
        usage_error(str(error))
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        size = f"{report.size_bytes / 1e6:.1f} MB"
        print(f"{library} -> {file}: {report.files} files known, {report.kept} kept in the library, {size}")
