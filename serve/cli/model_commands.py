"""Commands for models and data sets: embed, manifest, train, eval, doctor."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from serve.cli.application import app
from serve.cli.options import (
    DEFAULT_MODEL,
    Decode,
    Device,
    Dtype,
    Json,
    Model,
    TrustRemoteCode,
    Weights,
    failure,
    limits_of,
    load_model,
    load_options,
    usage_error,
)

if TYPE_CHECKING:
    from bind.model.model import BindModel


@app.command()
def embed(
    paths: Annotated[list[str], typer.Argument(help="Files, folders, `text:WORDS`, or `MODALITY:FILE`.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: .npz or .parquet.")],
    model: Model = DEFAULT_MODEL,
    weights: Weights = None,
    modality: Annotated[str | None, typer.Option(help="What all of them are; recognised when left out.")] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    trust_remote_code: TrustRemoteCode = False,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    decode: Decode = "isolated",
    as_json: Json = False,
) -> None:
    """Turn files of any kind into comparable unit vectors."""
    if out.suffix not in (".npz", ".parquet"):
        usage_error(f"--out: expected a name that ends in .npz or .parquet, got {out}")
    if not out.parent.is_dir():
        usage_error(f"--out: there is no folder {out.parent}")
    limits = limits_of(decode, device)
    loaded = load_model(load_options(model, weights, device, dtype, None, trust_remote_code))
    if modality is not None and modality not in loaded.modalities:
        usage_error(f"--modality: model {model} has {', '.join(loaded.modalities)}, not {modality}")
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
    except ValueError as error:  # there is no decoder on the GPU
        failure(str(error))
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
    kind: Annotated[
        str,
        typer.Argument(
            help="A data set; data_manifests/README.md describes them. Packages add more through the entry points "
            "`crossbind.datasets`; an unknown name lists all. `log`: recordings of robots, phones and drones."
        ),
    ],
    root: Annotated[Path, typer.Argument(help="Where its official download lies; of a log, the recording or several.")],
    out: Annotated[
        Path | None,
        typer.Argument(
            help="The manifest to write; with splits OUT-train.jsonl, OUT-test.jsonl, ... Of a log it may be left out."
        ),
    ] = None,
    anchor: Annotated[
        str | None, typer.Option(help="Of a log: the topic of its pictures, or a folder of pictures named by time.")
    ] = None,
    sensor: Annotated[
        list[str] | None, typer.Option(help="Of a log: a topic of motion or depth; may be given several times.")
    ] = None,
    window: Annotated[str, typer.Option(help="Of a log: the length of an event, as 2s or 500ms.")] = "2s",
    max_offset: Annotated[
        str, typer.Option(help="Of a log: the largest offset between motion and pictures that is looked for.")
    ] = "2s",
    as_json: Json = False,
) -> None:
    """Turn the official download of a data set, or a recording, into manifests of what belongs together."""
    import data_manifests

    if kind == "log":
        if anchor is None or not sensor:
            usage_error("log: expected --anchor TOPIC and --sensor TOPIC")
        _manifest_of_log(root, out or Path(f"{root.stem}.jsonl"), anchor, sensor, window, max_offset, as_json)
        return
    if kind not in data_manifests.builders():
        usage_error(f"no data set {kind!r}; known: log, {', '.join(sorted(data_manifests.builders()))}")
    if out is None:
        usage_error("expected the manifest to write (OUT)")
    if anchor is not None or sensor:
        usage_error("--anchor and --sensor are of logs")
    try:
        report = data_manifests.build(kind, root, out)
    except (ValueError, OSError) as error:
        failure(str(error))
    missing = [str(entry) for entry in report.missing]
    _print_report(
        {"written": list(map(str, report.written)), "events": dict(report.events), "missing": missing}, as_json
    )
    if report.missing:
        raise typer.Exit(1)


def _manifest_of_log(
    root: Path, out: Path, anchor: str, sensors: list[str], window: str, max_offset: str, as_json: bool
) -> None:
    from data_manifests import logs

    seconds = {"--window": _seconds(window, "--window"), "--max-offset": _seconds(max_offset, "--max-offset")}
    try:
        report = logs.build(
            root,
            out,
            anchor=anchor,
            sensors=sensors,
            window_s=seconds["--window"],
            max_offset_s=seconds["--max-offset"],
        )
    except (ValueError, OSError) as error:
        failure(str(error))
    sessions = [
        {
            "name": one.name,
            "events": one.events,
            "offset_s": one.offset.seconds,
            "correlation": round(one.offset.correlation, 4),
            "offset_found": one.offset.is_sure,
            "notes": list(one.notes),
        }
        for one in report.sessions
    ]
    if not as_json:
        for one in report.sessions:
            for note in (str(one.offset), *one.notes):
                print(f"{one.name}: {note}")
    summary = {"written": list(map(str, report.written)), "events": report.events, "missing": list[str]()}
    _print_report(summary | ({"sessions": sessions} if as_json else {}), as_json)


def _seconds(text: str, option: str) -> float:
    """`2s`, `500ms` or `2` -> seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|ms|)", text.strip())
    if match is None:
        usage_error(f"{option}: expected a time as 2s or 500ms, got {text!r}")
    return float(match[1]) / (1000 if match[2] == "ms" else 1)


def _print_report(report: dict[str, Any], as_json: bool) -> None:
    """Prints what was written."""
    if as_json:
        print(json.dumps(report))
        return
    for entry in report["missing"]:
        print(f"missing: {entry}", file=sys.stderr)
    for path, (split, count) in zip(report["written"], report["events"].items(), strict=True):
        print(f"{path}: {count} events" + (f" ({split})" if split else ""))


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
    mteb: Annotated[
        str | None,
        typer.Option(metavar="TASKS", help="Instead: tasks of mteb by name, or manifests as such tasks, with commas."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The folder in which a suite looks for its data sets.")] = None,
    weights: Weights = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    trust_remote_code: TrustRemoteCode = False,
    out: Annotated[Path | None, typer.Option(help="A folder for scores.txt, scores.json and scores.svg.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a model: retrieval between all pairs of modalities, zero-shot, few-shot, each with its interval."""
    if bool(manifests) + (suite is not None) + (mteb is not None) != 1 or (suite is None) != (data is None):
        usage_error("expected either manifests, or --suite with --data, or --mteb")
    loaded = load_model(load_options(model, weights, device, dtype, None, trust_remote_code))
    if mteb is not None:
        _scoreboard(loaded, mteb.split(","), as_json)
        return
    from train.evaluate import evaluation
    from train.evaluate import report as reports
    from train.small import suite as suites

    report: reports.Report | suites.Report
    try:
        if suite is not None and data is not None:
            report = suites.run(loaded, suite, data)
        else:
            report = evaluation.evaluate(loaded, manifests or [])
        if out is not None:
            reports.write(report, out)
    except (ValueError, OSError) as error:
        usage_error(str(error))
    print(report.json() if as_json else report.table())
    for path, reason in report.skipped:
        print(f"skipped {path}: {reason}", file=sys.stderr)
    if report.skipped:
        raise typer.Exit(1)


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


def _scoreboard(model: BindModel, tasks: list[str], as_json: bool) -> None:
    """Runs tasks of mteb and prints a row for each."""
    from train.evaluate import scoreboard

    try:
        rows = scoreboard.run(model, tasks)
    except (ValueError, OSError) as error:
        usage_error(str(error))
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['task']}: {row['metric']} {row['score']:.4f}")


def _expand(path: str) -> Iterator[str]:
    """The files that a path stands for: for a folder, those below it, without hidden ones and sidecars
    (`x.png.json`).
    """
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
        from preprocess.extras import needs

        with needs("sensors", "a .parquet file"):
            import pyarrow as pa
            from pyarrow import parquet

        from serve.library.text import shown

        values = pa.array(vectors.reshape(-1), pa.float32())
        columns = {
            "path": pa.array([shown(path) for path in paths], pa.string()),
            "modality": pa.array(modalities, pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(values, vectors.shape[1]),
        }
        parquet.write_table(pa.table(columns).replace_schema_metadata({"space": space}), out)
    except OSError as error:
        usage_error(f"--out: {out} could not be written: {error}")
