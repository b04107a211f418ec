"""The command line, `crossbind`. Exit status: 0 done, 1 some inputs failed, 2 usage error."""

from __future__ import annotations

# Nothing heavy is imported here: `crossbind --help` answers at once.
import contextlib
import io
import json
import os
import sys
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
import typer.core

from serve import check_packages

if TYPE_CHECKING:
    import socket

    from bind.model.model import BindModel
    from bind.options import LoadOptions
    from preprocess.source import Limits
    from serve.engine.settings import Settings
    from serve.library.library import Library


class _Commands(typer.core.TyperGroup):
    """What the system refuses (a name that is too long, a folder that may not be read) is told by every command."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except OSError as error:
            place = "" if error.filename is None else f"{os.fsdecode(error.filename)[:200]}: "
            _usage(f"{place}{error.strerror or error}")


app = typer.Typer(
    name="crossbind",
    cls=_Commands,
    help="One embedding space and one search engine for image, text, video, audio, depth, thermal and IMU.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"auto_envvar_prefix": "CROSSBIND"},
    pretty_exceptions_enable=False,
)

Model = Annotated[str, typer.Option("--model", help="A name from `crossbind models`, or a checkpoint folder.")]
Weights = Annotated[str | None, typer.Option(help="Weights file, folder or tag for that model; `random` for none.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Decode = Annotated[
    Literal["isolated", "gpu"],
    typer.Option(help="Where files are decoded; gpu, with --device cuda, takes JPEGs whose origin is trusted only."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command()
def embed(
    paths: Annotated[list[str], typer.Argument(help="Files, folders, `text:WORDS`, or `MODALITY:FILE`.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: .npz or .parquet.")],
    model: Model = "small",
    weights: Weights = None,
    modality: Annotated[str | None, typer.Option(help="What all of them are; recognised when left out.")] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    decode: Decode = "isolated",
    as_json: Json = False,
) -> None:
    """Turn files of any kind into comparable unit vectors."""
    if out.suffix not in (".npz", ".parquet"):
        _usage(f"--out: expected a name that ends in .npz or .parquet, got {out}")
    if not out.parent.is_dir():
        _usage(f"--out: there is no folder {out.parent}")
    limits = _limits(decode, device)
    loaded = _load(_options(model, weights, device, dtype))
    if modality is not None and modality not in loaded.modalities:
        _usage(f"--modality: model {model} has {', '.join(loaded.modalities)}, not {modality}")
    import numpy as np
    from tqdm import tqdm

    from bind.model.pipeline import Embedded, Failed

    items = [item for path in paths for item in _expand(path)]
    done: dict[int, Embedded] = {}
    failed: dict[int, Failed] = {}
    results = loaded.stream(items, modality, batch_size, limits)
    try:
        for result in tqdm(results, total=len(items), unit="item", delay=2, disable=None):
            if isinstance(result, Failed):
                failed[result.position] = result
            else:
                done[result.position] = result
    except ValueError as error:  # no decoder on the GPU
        _failure(str(error))
    rows = sorted(done)
    vectors = np.stack([done[row].vector for row in rows]) if rows else np.zeros((0, loaded.dim), np.float32)
    _write_vectors(out, vectors, [items[row] for row in rows], [done[row].modality for row in rows], loaded.space)
    skipped = [{"path": items[row], "reason": failed[row].error.reason} for row in sorted(failed)]
    if as_json:
        report = {"out": str(out), "embedded": len(rows), "dim": loaded.dim, "space": loaded.space, "skipped": skipped}
        print(json.dumps(report))
    else:
        for row in rows:
            for note in done[row].notes:
                print(f"{items[row]}: {note}", file=sys.stderr)
        for entry in skipped:
            print(f"skipped {entry['path']}: {entry['reason']}", file=sys.stderr)
        print(f"{len(rows)} vectors of {loaded.dim} dimensions, space {loaded.space} -> {out}")
    if skipped:
        raise typer.Exit(1)


@app.command()
def manifest(
    kind: Annotated[str, typer.Argument(help="A data set; data_manifests/README.md describes them.")],
    root: Annotated[Path, typer.Argument(help="Where its official download lies.")],
    out: Annotated[
        Path, typer.Argument(help="The manifest to write; with splits OUT-train.jsonl, OUT-test.jsonl, ...")
    ],
    as_json: Json = False,
) -> None:
    """Turn the official download of a data set into manifests of what belongs together."""
    import data_manifests

    if kind not in data_manifests.builders():
        _usage(f"no data set {kind!r}; known: {', '.join(sorted(data_manifests.builders()))}")
    try:
        report = data_manifests.build(kind, root, out)
    except (ValueError, OSError) as error:
        _failure(str(error))
    if as_json:
        missing = [str(entry) for entry in report.missing]
        print(
            json.dumps({"written": list(map(str, report.written)), "events": dict(report.events), "missing": missing})
        )
    else:
        for entry in report.missing:
            print(f"missing: {entry}", file=sys.stderr)
        for path, (split, count) in zip(report.written, report.events.items(), strict=True):
            print(f"{path}: {count} events" + (f" ({split})" if split else ""))
    if report.missing:
        raise typer.Exit(1)


@app.command()
def train(run: Annotated[Path, typer.Argument(help="A run file; train/runs/ has recipes.")]) -> None:
    """Bind a modality: train on paired data as a run file says. The same command goes on after an interruption."""
    from train.__main__ import main as start

    raise typer.Exit(start([str(run)]))


@app.command(name="eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="A name from `crossbind models`, or a checkpoint folder.")],
    manifests: Annotated[list[Path] | None, typer.Argument(help="The manifests to measure on.")] = None,
    suite: Annotated[
        str | None, typer.Option(help="Instead of manifests: measure on every set of a suite (`real`) in --data.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The folder in which a suite looks for its data sets.")] = None,
    weights: Weights = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    out: Annotated[Path | None, typer.Option(help="A folder for scores.txt, scores.json and scores.svg.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a model: retrieval between all pairs of modalities, zero-shot, few-shot, each with its interval."""
    if bool(manifests) == (suite is not None) or (suite is None) != (data is None):
        _usage("expected either manifests, or --suite with --data")
    loaded = _load(_options(model, weights, device, dtype))
    from train.evaluate import evaluation
    from train.small import suite as suites

    report: evaluation.Report | suites.Report
    try:
        if suite is not None and data is not None:
            report = suites.run(loaded, suite, data)
        else:
            report = evaluation.evaluate(loaded, manifests or [])
        if out is not None:
            evaluation.write(report, out)
    except (ValueError, OSError) as error:
        _usage(str(error))
    print(report.json() if as_json else report.table())
    for path, reason in report.skipped:
        print(f"skipped {path}: {reason}", file=sys.stderr)
    if report.skipped:
        raise typer.Exit(1)


@app.command()
def models(as_json: Json = False) -> None:
    """List the models that can be loaded."""
    from bind import zoo

    found = [zoo.describe(name) for name in zoo.names()]
    if as_json:
        keys = ("name", "dim", "license", "about", "source")
        print(json.dumps([{k: getattr(d, k) for k in keys} | {"modalities": list(d.modalities)} for d in found]))
        return
    for d in found:
        weights = (
            f"--weights, {d.source} unless you say otherwise" if d.source else "come with Crossbind and its packages"
        )
        print(f"{d.name}  ({d.dim} dimensions: {', '.join(d.modalities)})")
        print(f"    {d.about}\n    weights: {weights}\n    licence: {d.license}")
    print("Also: clip-MODEL for any open_clip model (clip-vit-l-14 --weights TAG or FILE), or a checkpoint folder.")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what works on this machine, and what to install for the rest."""
    from serve.cli import doctor as checks

    found = checks.check()
    if as_json:
        print(json.dumps([{"name": c.name, "state": c.state, "detail": c.detail} for c in found]))
    else:
        for c in found:
            print(f"{c.state:<9} {c.name}: {c.detail}")
    if any(c.state == "missing" for c in found):
        raise typer.Exit(1)


LibraryFolder = Annotated[Path, typer.Option("--library", help="The library's folder; made when missing.")]
LibraryModel = Annotated[
    str | None, typer.Option("--model", help="Left out: the library's own, `small` for a new one.")
]
Factory = Annotated[
    str | None,
    typer.Option(help="How to search: any FAISS factory string (HNSW32, IVF1024,PQ64); left out: as before, or Flat."),
]


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
    decode: Decode = "isolated",
    as_json: Json = False,
) -> None:
    """Make a folder searchable; again brings the library up to date, also after an interruption."""
    from tqdm import tqdm

    limits = _limits(decode, device)
    if not folder.expanduser().exists():
        _usage(f"{folder}: there is no such folder or file")
    with _library(library, _options(model, weights, device, dtype), factory) as opened:
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
                )
            except ValueError as error:
                _failure(str(error))
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
        _usage(f"--library: there is no library {library}; `crossbind index FOLDER --library {library}` makes one")
    from serve.library.query import modalities_of

    try:
        # A query of words starts in half the time without the other encoders.
        needed = modalities_of(query)
    except ValueError as error:
        _usage(str(error))
    with _library(library, _options(model, weights, device, dtype, needed), None) as opened:
        try:
            hits = opened.search(
                query, k, want.split(",") if want else None, where, keywords=keywords, min_probability=min_probability
            )
        except ValueError as error:
            _usage(str(error))
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

    console = _console()
    console.print(demo.table(hits))
    for hit in hits:
        if hit.item_id in pictures:
            print(pictures[hit.item_id])


Host = Annotated[str, typer.Option(help="The address to listen on. Other than loopback ones need API keys.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")]


@app.command()
def serve(
    library: LibraryFolder,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    model: LibraryModel = None,
    weights: Weights = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    factory: Factory = None,
    api_keys_file: Annotated[
        Path | None, typer.Option(help="Keys that are asked for, one a line; also in CROSSBIND_API_KEYS.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A name that the server answers to; may be given several times.")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Nothing can be added or deleted.")] = False,
    page: Annotated[bool, typer.Option(help="The web page on /, beside the API.")] = True,
    max_body_mb: Annotated[int, typer.Option(min=1, help="The largest request.")] = 64,
    max_terms: Annotated[int, typer.Option(min=1, help="Texts and media of one request.")] = 256,
    max_waiting: Annotated[int, typer.Option(min=1, help="Texts and media of all requests; then 429.")] = 1024,
    max_batch: Annotated[int, typer.Option(min=1, help="Texts and media encoded together.")] = 32,
    max_connections: Annotated[int, typer.Option(min=1)] = 2000,
    body_timeout_s: Annotated[float, typer.Option(help="The time to send a request.")] = 30.0,
    deadline_s: Annotated[float, typer.Option(help="The time to answer one; then 504.")] = 30.0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    as_json: Json = False,
) -> None:
    """Serve a library: web page on /, API on /v1, /health, /ready, /metrics."""
    from serve.engine.settings import Settings, SettingsError

    if log_level not in ("debug", "info", "warning", "error"):
        _usage(f"--log-level: expected debug, info, warning or error, got {log_level!r}")
    try:
        settings = Settings(
            host=host,
            port=port,
            api_keys=_api_keys(api_keys_file),
            allowed_hosts=tuple(name.lower() for name in allowed_host or ()),
            read_only=read_only,
            max_body_bytes=max_body_mb * 2**20,
            max_bodies_bytes=max(512, 2 * max_body_mb) * 2**20,
            max_terms=max_terms,
            max_waiting=max_waiting,
            max_batch=max_batch,
            max_connections=max_connections,
            body_timeout_s=body_timeout_s,
            deadline_s=deadline_s,
        )
    except SettingsError as error:
        _usage(str(error))
    options = _options(model, weights, device, dtype)
    listening = _listen(settings)
    with _library(library, options, factory) as opened:
        _serve(opened, settings, listening, page, log_level, as_json)


ExistingLibrary = Annotated[Path, typer.Argument(metavar="LIBRARY", help="The library's folder.")]


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

    options = _options(model, weights, device, dtype)
    try:
        report = checks.check(library, repair, lambda: Library.open(library, options))
    except (ValueError, OSError) as error:
        _usage(str(error))
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
            _usage(f"there is no folder {file.parent}")
        report = backups.backup(library, file)
    except (ValueError, OSError) as error:
        _usage(str(error))
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        size = f"{report.size_bytes / 1e6:.1f} MB"
        print(f"{library} -> {file}: {report.files} files known, {report.kept} kept in the library, {size}")


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Where to keep it; in the user's cache folder when left out.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--serve", help="Open the web page on it afterwards.")] = False,
    host: Host = "127.0.0.1",
    port: Port = 8000,
) -> None:
    """Assemble a sample library from installed packages, index it, and print a few any-to-any searches."""
    from bind.cache import cache_folder
    from serve.demo import demo as shown
    from serve.engine.settings import Settings, SettingsError

    try:
        settings = Settings(host=host, port=port, api_keys=_api_keys(None)) if open_page else None
    except SettingsError as error:
        _usage(str(error))
    listening = _listen(settings) if settings else None
    place = folder or cache_folder() / "demo"
    model = _load(_options("small", None, "cpu", "float32"))
    # A newer `small` has another space: it gets a library of its own beside that of the older.
    with _library(place / f"library-{model.space}", model, None) as library:
        try:
            shown.run(library, place / "media", _console())
        except (ValueError, OSError) as error:
            _failure(str(error))
        if settings is not None and listening is not None:
            _serve(library, settings, listening, True, "warning", False)


def main() -> None:
    """Runs the command line; a bad input never ends in a traceback."""
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    try:
        check_packages()
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    from bind import origin

    origin.leave_folder()
    try:
        app()
    except KeyboardInterrupt:
        print("crossbind: interrupted", file=sys.stderr)
        sys.exit(130)


def _options(
    model: str | None, weights: str | None, device: str, dtype: str, modalities: Collection[str] | None = None
) -> LoadOptions:
    """What a command's options say of the model. Ends with a usage error before anything is loaded or made."""
    from bind.options import LoadOptions

    options = LoadOptions(model, weights, device, dtype, modalities)
    try:
        options.check()
    except ValueError as error:
        _usage(str(error))
    return options


def _load(options: LoadOptions) -> BindModel:
    try:
        return options.load()
    except (ValueError, OSError) as error:
        _usage(str(error))


@contextlib.contextmanager
def _library(folder: Path, model: LoadOptions | BindModel, factory: str | None) -> Iterator[Library]:
    """An open library. What fails in it because its catalogue is damaged is told so, and never as a traceback."""
    from serve.library.library import Library

    try:
        opened = Library.open(folder, model, factory)
    except (ValueError, OSError) as error:
        _usage(str(error))
    with opened:
        try:
            yield opened
        except (typer.Exit, KeyboardInterrupt):
            raise
        except Exception as error:
            from serve.library import check

            if isinstance(error, (ValueError, OSError)) and not isinstance(error, (TypeError, LookupError)):
                _failure(str(error))
            if damage := check.check(opened.folder).findings:
                _failure(
                    f"{folder} is damaged: {damage[0].what}; `crossbind check {folder} --repair` says what can be done"
                )
            raise


def _api_keys(file: Path | None) -> tuple[str, ...]:
    """The keys of CROSSBIND_API_KEYS and of a file, without its comments. No option: others can read the arguments."""
    keys = os.environ.get("CROSSBIND_API_KEYS", "").replace(",", " ").split()
    if file is not None:
        try:
            lines = file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            _usage(f"--api-keys-file: {file} could not be read: {error}")
        keys += [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not keys:
            _usage(f"--api-keys-file: {file} has no key")
    return tuple(keys)


def _listen(settings: Settings) -> socket.socket:
    """The address to serve on, taken before anything is loaded."""
    from serve.http import server

    try:
        return server.bind(settings)
    except OSError as error:
        _failure(f"{settings.host} port {settings.port}: {error.strerror}; choose another with --port")


def _serve(
    library: Library, settings: Settings, listening: socket.socket, page: bool, log_level: str, as_json: bool
) -> None:
    from serve.engine.service import Service
    from serve.http import api, server

    address = server.address(listening)

    def announce() -> None:
        if as_json:
            print(json.dumps({"address": address, "library": str(library.folder)}), flush=True)
            return
        ways = f"{address} (page on /, API on /v1)" if page else f"{address}/v1"
        print(f"Crossbind serves {library.folder} on {ways}. Ctrl-C ends it.", flush=True)

    server.configure_logging(log_level)
    app = api.create_app(Service(library, settings), page=page)
    server.server(app, settings, announce).run(sockets=[listening])


def _limits(decode: Literal["isolated", "gpu"], device: str) -> Limits:
    from preprocess.source import Limits

    if decode == "gpu" and not device.startswith("cuda"):
        _usage(f"--decode gpu: expected --device cuda beside it, got {device}")
    return Limits(decode=decode)


def _failure(message: str) -> NoReturn:
    print(f"crossbind: {message}", file=sys.stderr)
    raise typer.Exit(1)


def _usage(message: str) -> NoReturn:
    print(f"crossbind: {message}", file=sys.stderr)
    raise typer.Exit(2)


def _console() -> Any:
    from rich.console import Console

    return Console()


def _expand(path: str) -> Iterator[str]:
    """A folder stands for the files below it, without hidden ones and sidecars (`x.png.json`)."""
    if not os.path.isdir(path):
        yield path
        return
    for file in sorted(Path(path).rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        sidecar = file.suffix == ".json" and file.with_suffix("").is_file()
        if file.is_file() and not hidden and not sidecar:
            yield str(file)


def _write_vectors(out: Path, vectors: Any, paths: list[str], modalities: list[str], space: str) -> None:
    try:
        if out.suffix == ".npz":
            import numpy as np

            np.savez(
                out, vectors=vectors, paths=np.array(paths, str), modalities=np.array(modalities, str), space=space
            )
            return
        import pyarrow as pa
        from pyarrow import parquet

        from serve.library.catalogue import shown

        values = pa.array(vectors.reshape(-1), pa.float32())
        columns = {
            "path": pa.array([shown(path) for path in paths], pa.string()),
            "modality": pa.array(modalities, pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(values, vectors.shape[1]),
        }
        parquet.write_table(pa.table(columns).replace_schema_metadata({"space": space}), out)
    except OSError as error:
        _usage(f"--out: {out} could not be written: {error}")


if __name__ == "__main__":
    main()
