"""Commands for a library: index, search, check, backup."""

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
    Decode,
    Device,
    Dtype,
    ExistingLibrary,
    Factory,
    Json,
    LibraryFolder,
    LibraryModel,
    Weights,
    failure,
    limits_of,
    load_options,
    open_library,
    terminal,
    usage_error,
)


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="A folder (or file) to make searchable.")],
    library: LibraryFolder,
    model: LibraryModel = None,
    weights: Weights = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    factory: Factory = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    retry: Annotated[bool, typer.Option("--retry", help="Try files again that failed before.")] = False,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Follow links that lead out of the folder too.")
    ] = False,
    positions: Annotated[
        bool, typer.Option(help="Keep where pictures and films were taken; --no-positions leaves that out.")
    ] = True,
    decode: Decode = "isolated",
    as_json: Json = False,
) -> None:
    """Make a folder searchable; again brings the library up to date, also after an interruption."""
    from tqdm import tqdm

    limits = limits_of(decode, device)
    if not folder.expanduser().exists():
        usage_error(f"{folder}: there is no such folder or file")
    with open_library(library, load_options(model, weights, device, dtype), factory) as opened:
        with tqdm(unit="file", delay=2, disable=None) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            try:
                report = opened.index(
                    folder,
                    progress=progress,
                    batch_size=batch_size,
                    limits=limits,
                    retry=retry,
                    follow_links=follow_links,
                    positions=positions,
                )
            except ValueError as error:
                failure(str(error))
        if as_json:
            print(json.dumps(asdict(report) | {"items": opened.count(), "files": len(opened)}))
        else:
            for path, reason in report.skipped:
                print(f"skipped {path}: {reason}", file=sys.stderr)
            for paths in report.duplicates:
                print(f"the same content: {', '.join(paths)}", file=sys.stderr)
            if report.left_out:
                print(f"left out {report.left_out} links that lead out of the folder (--follow-links)", file=sys.stderr)
            counts = ("added", "updated", "renamed", "removed", "unchanged")
            print(", ".join(f"{getattr(report, name)} {name}" for name in counts), f"in {report.seconds:.1f} s")
            items = ", ".join(f"{number} {name}" for name, number in sorted(opened.count().items()))
            print(f"{library}: {len(opened)} files, {items or 'no items'}")
    if report.skipped:
        raise typer.Exit(1)


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
    min_probability: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave out hits that are less likely to be right, as 0.5.")
    ] = None,
    model: LibraryModel = None,
    weights: Weights = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Make small pictures of the hits, print paths.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Search a library with words, files of any kind, or a mixture."""
    if not library.is_dir():
        usage_error(f"--library: there is no library {library}; `crossbind index FOLDER --library {library}` makes one")
    from serve.library.query import modalities_of

    try:
        # A query of words starts in half the time without the other encoders.
        needed = modalities_of(query)
    except ValueError as error:
        usage_error(str(error))
    with open_library(library, load_options(model, weights, device, dtype, needed), None) as opened:
        try:
            hits = opened.search(
                query, k, want.split(",") if want else None, where, keywords=keywords, min_probability=min_probability
            )
        except ValueError as error:
            usage_error(str(error))
        pictures: dict[int, Path] = {}
        if thumbnails:
            from serve.engine import thumbnails as small_pictures

            pictures = small_pictures.make(opened, hits)
    if as_json:
        rows = [asdict(hit) | {"thumbnail": str(pictures.get(hit.item_id, "")) or None} for hit in hits]
        print(json.dumps(rows, default=str))
        return
    if not hits:
        print("nothing found" if min_probability is None else "nothing here looks like that")
        return
    from serve.demo import demo

    terminal().print(demo.table(hits))
    for hit in hits:
        if hit.item_id in pictures:
            print(pictures[hit.item_id])


@app.command()
def check(
    library: ExistingLibrary,
    repair: Annotated[bool, typer.Option("--repair", help="Make again what can be, and say what cannot.")] = False,
    model: LibraryModel = None,
    weights: Weights = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Compare all of a library with its checksums: catalogue, vectors, index, kept files, thumbnails."""
    from serve.library import check as checks
    from serve.library.library import Library

    options = load_options(model, weights, device, dtype)
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
