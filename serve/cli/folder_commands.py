"""Commands that keep a library in step with folders: index, roots, forget, skipped."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from serve.cli import models_command
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
    TrustRemoteCode,
    Weights,
    failure,
    limits_of,
    load_options,
    open_library,
    similar,
    usage_error,
)
from serve.cli.progress import say, show_progress

if TYPE_CHECKING:
    from serve.library.catalogue import Catalogue
    from serve.library.errors import LibraryError
    from serve.library.library import Library
    from serve.library.reports import IndexReport

Verbose = Annotated[bool, typer.Option("--verbose", help="List also what earlier runs skipped.")]

Positions = Annotated[
    bool | None,
    typer.Option(help="Store where pictures and films were taken, or leave that out; remembered.", show_default=False),
]
Ocr = Annotated[
    bool | None,
    typer.Option(help="Read the words in pictures, for the search for words; remembered.", show_default=False),
]
Speech = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="Hear words in speech, with a folder's model or `en-us`; remembered. '' for none."
    ),
]


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="A folder (or file) to make searchable.")],
    library: LibraryFolder,
    model: LibraryModel = None,
    weights: Weights = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    trust_remote_code: TrustRemoteCode = False,
    factory: Factory = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    retry: Annotated[bool, typer.Option("--retry", help="Try files again that failed before.")] = False,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Follow links that lead out of the folder too.")
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Leave out what matches, as in a .gitignore; remembered. '' takes all back."),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Take only files that match one of these; remembered. '' takes all again."),
    ] = None,
    allow_removal: Annotated[
        bool,
        typer.Option("--allow-removal", help="Forget the files of a folder that is missing, empty or mostly gone."),
    ] = False,
    positions: Positions = None,
    ocr: Ocr = None,
    speech: Speech = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C, as the folder changes.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 where files were skipped that no earlier run named.")
    ] = False,
    verbose: Verbose = False,
    decode: Decode = "isolated",
    as_json: Json = False,
) -> None:
    """Make a folder searchable; again brings the library up to date, also after an interruption."""
    if not folder.expanduser().exists() and not _is_known(library, folder):
        usage_error(f"{folder}: there is no such folder or file{similar(folder.expanduser().absolute())}")
    options: dict[str, Any] = {"batch_size": batch_size, "follow_links": follow_links, "ocr": ocr}
    options |= {"exclude": exclude, "include": include, "allow_removal": allow_removal}
    options |= {"positions": positions, "speech": speech, "limits": limits_of(decode, device)}
    loading = load_options(model, weights, device, dtype, None, trust_remote_code)
    if not as_json:
        say(f"{folder} is indexed; the model is loaded first, which takes some seconds")
    with open_library(library, loading, factory) as opened:
        if watch:
            _watch(opened, folder, options, as_json)
            return
        with show_progress() as progress:
            try:
                report = opened.index(folder, progress=progress, retry=retry, **options)
            except ValueError as error:
                failure(str(error))
        _say(report, opened, library, verbose, as_json)
    if strict and report.skipped:
        raise typer.Exit(1)


@app.command()
def roots(library: ExistingLibrary, as_json: Json = False) -> None:
    """List the folders that a library was made of: how many files of each it knows, and whether it is there."""
    from serve.library import roots as all_roots

    with _catalogue(library) as catalogue:
        found = all_roots.states(catalogue)
        elsewhere = catalogue.count_files() - sum(root.files for root in found)
    if as_json:
        print(json.dumps([asdict(root) for root in found]))
        return
    for root in found:
        state = "there" if root.is_there else "missing"
        rules = "".join(f", exclude {one!r}" for one in root.exclude) + "".join(
            f", include {x!r}" for x in root.include
        )
        words = (", ocr" if root.ocr else "") + (f", speech {root.speech}" if root.speech else "")
        counts = f"{root.files} files, {root.skipped} skipped, {state}"
        print(f"{root.path}: {counts}, last run {root.last_run}{rules}{words}")
    if elsewhere > 0:
        print(f"{elsewhere} files are uploads, or of folders that were indexed before roots were remembered")


@app.command()
def forget(
    folder: Annotated[Path, typer.Argument(help="A folder (or file), which may be gone.")],
    library: Annotated[Path, typer.Option("--library", help="The library's folder.")],
    as_json: Json = False,
) -> None:
    """Take a folder and all its files out of a library. Nothing in the folder changes."""
    from serve.engine import thumbnails
    from serve.library import roots as all_roots

    place = str(folder.expanduser().absolute())
    with _catalogue(library) as catalogue:
        try:
            with catalogue.write() as writer:
                count = all_roots.forget(writer, place, catalogue.folder)
            with contextlib.suppress(OSError):
                thumbnails.sweep(catalogue.folder, catalogue.existing)
        except ValueError as error:
            failure(str(error))
        left = catalogue.count_files()
    print(
        json.dumps({"forgotten": count, "files": left}) if as_json else f"{place}: {count} files forgotten, {left} left"
    )


@app.command()
def skipped(
    library: ExistingLibrary,
    retry: Annotated[bool, typer.Option("--retry", help="Try all of them again.")] = False,
    model: LibraryModel = None,
    weights: Weights = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """List the files that a library could not use, with the reasons."""
    tried: IndexReport | None = None
    with _catalogue(library) as catalogue:
        found = catalogue.skipped()
    if retry and found:
        with (
            open_library(library, load_options(model, weights, device, dtype, None, trust_remote_code), None) as opened,
            show_progress() as progress,
        ):
            try:
                tried = opened.retry_skipped(progress=progress)
            except ValueError as error:
                failure(str(error))
            found = opened.skipped()
    if as_json:
        rows = [{"path": path, "reason": reason} for path, reason in found]
        print(json.dumps({"skipped": rows, "added": tried.added if tried else 0}))
        return
    for path, reason in found:
        print(f"{path}: {reason}")
    print(f"{library}: {len(found)} skipped" + (f", {tried.added} can be used now" if tried else ""))


def _watch(opened: Library, folder: Path, options: dict[str, Any], as_json: bool) -> None:
    """Keeps the library in step until the process is interrupted or asked to end."""
    import threading

    def end(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    def say(report: IndexReport | LibraryError) -> None:
        if isinstance(report, ValueError):
            print(json.dumps({"problem": str(report)}) if as_json else f"crossbind: {report}", flush=True)
        else:
            _say(report, opened, opened.folder, False, as_json)

    signal.signal(signal.SIGTERM, end)
    try:
        opened.watch(folder, stop=threading.Event(), report=say, **options)
    except KeyboardInterrupt:
        print("crossbind: stopped watching; the library is whole", file=sys.stderr)
    except ValueError as error:
        failure(str(error))


def _say(report: IndexReport, opened: Library, library: Path, verbose: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(report) | {"items": opened.count(), "files": len(opened)}), flush=True)
        return
    for path, reason in report.skipped + (report.skipped_before if verbose else []):
        print(f"skipped {path}: {reason}", file=sys.stderr)
    if report.skipped_before and not verbose:
        print(
            f"{len(report.skipped_before)} files are skipped as before (--verbose, or `crossbind skipped {library}`)",
            file=sys.stderr,
        )
    for paths in report.duplicates:
        print(f"the same content: {', '.join(paths)}", file=sys.stderr)
    if report.left_out:
        print(f"left out {report.left_out} links that lead out of the folder (--follow-links)", file=sys.stderr)
    if report.excluded:
        rules = ", ".join(f"{rule} {count}" for rule, count in sorted(report.excluded.items()))
        print(f"left out {sum(report.excluded.values())} files and folders by rules: {rules}", file=sys.stderr)
    for path, reason in report.wordless:
        print(f"no words of {path}: {reason}", file=sys.stderr)
    for kind, count in report.words.items():
        print(f"looked for words in {count} {'pictures' if kind == 'ocr' else 'sounds and films'} (--{kind})")
    counts = ("added", "updated", "renamed", "removed", "unchanged")
    print(", ".join(f"{getattr(report, name)} {name}" for name in counts), f"in {report.seconds:.1f} s", flush=True)
    items = ", ".join(f"{number} {name}" for name, number in sorted(opened.count().items()))
    print(f"{library}: {len(opened)} files, {items or 'no items'}", flush=True)
    if report.added and report.added == len(opened):
        models_command.advise(opened.model.origin)


@contextlib.contextmanager
def _catalogue(library: Path) -> Iterator[Catalogue]:
    """The catalogue of a library that exists, without its model."""
    from serve.library.catalogue import Catalogue

    folder = library.expanduser().absolute()
    try:
        facts = Catalogue.peek(folder)
        if not facts:
            usage_error(f"there is no library in {library}")
        opened = Catalogue(folder, facts["space"], facts["dim"], facts["model"])
    except (ValueError, OSError) as error:
        usage_error(str(error))
    with contextlib.closing(opened):
        yield opened


def _is_known(library: Path, folder: Path) -> bool:
    """Whether a library has files of a folder that is not there."""
    from serve.library.catalogue import Catalogue

    place = library.expanduser().absolute()
    if not place.is_dir():
        return False
    try:
        if not Catalogue.peek(place):
            return False
    except ValueError:
        return False
    with _catalogue(library) as catalogue:
        return catalogue.count_below(str(folder.expanduser().absolute()))[0] > 0
