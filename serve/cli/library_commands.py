"""Commands for a library: search, check, backup."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    terminal,
    usage_error,
)

if TYPE_CHECKING:
    from serve.library.items import Hits


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
    as_json: Json = False,
) -> None:
    """Search a library with words, files of any kind, or a mixture."""
    if not library.is_dir():
        usage_error(f"--library: there is no library {library}; `crossbind index FOLDER --library {library}` makes one")
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
    if as_json:
        rows = [asdict(hit) | {"thumbnail": str(pictures.get(hit.item_id, "")) or None} for hit in hits]
        print(json.dumps(rows, default=str))
    else:
        _print_hits(hits, nearest or cursor is not None, pictures)
    if hits.next is not None:
        print(f"more: --cursor {hits.next}", file=sys.stderr)


def _print_hits(hits: Hits, nearest: bool, pictures: Mapping[int, Path]) -> None:
    """Prints the hits of a page, those that are probably wrong only as a number where others or none are likely."""
    if hits.nothing:
        print("nothing here looks like that" + ("; the nearest:" if nearest and hits else ""))
        if hits and not nearest:
            print(f"(--nearest shows the nearest {len(hits)})")
    shown = hits if nearest else hits[: hits.likely]
    if shown:
        from serve.demo import demo

        terminal().print(demo.table(shown))
    for hit in shown:
        if hit.item_id in pictures:
            print(pictures[hit.item_id])
    if not hits.nothing and len(shown) < len(hits):
        print(f"{len(hits) - len(shown)} more are probably not what was asked for (--nearest shows them)")


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
    from serve.cli.folder_commands import show_progress
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
