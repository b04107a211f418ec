"""The commands `crossbind models`, `models get` and `models measure`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from serve.cli.application import app
from serve.cli.options import (
    DEFAULT_MODEL,
    Device,
    Dtype,
    Json,
    failure,
    load_model,
    load_options,
    terminal,
    usage_error,
)

_PATTERNS = {
    "clip-MODEL": "image, text and video of any open_clip model; clip-vit-l-14:TAG, or --weights FILE",
    "st:NAME": "any model of sentence-transformers, by name or folder: its modalities, prompts and preprocessing",
    "clap:NAME": "audio and text of a CLAP in the form of transformers, by name or folder",
    "pe-av:NAME": "audio, video and text of a PE-AV; pe-av:NAME#audio and #video choose the head of its texts",
    "timm:MODEL": "image and video by any timm backbone; timm:resnet18 --weights TAG or FILE",
}
"""Names that stand for the models of a whole package -> what they are."""
_COLUMNS = ("name", "modalities", "width", "size", "speed here", "weights")
"""The columns of the table."""

models_app = typer.Typer(invoke_without_command=True, help="List the models that can be loaded, and get their weights.")
app.add_typer(models_app, name="models")


@models_app.callback()
def models(context: typer.Context, as_json: Json = False) -> None:
    """List the models that can be loaded, the default first, and what other packages add.

    With --json one list: every entry has a `kind`, which is model, preset, pattern, modality, encoder or data set.
    """
    if context.invoked_subcommand is not None:
        return
    from serve.cli.extensions import added

    rows = _rows()
    if as_json:
        rows += [{"kind": "pattern", "name": name, "about": about} for name, about in _PATTERNS.items()]
        rows += [{"kind": x.kind, "name": x.name, "origin": x.origin, "problem": x.problem} for x in added()]
        print(json.dumps(rows))
        return
    from rich.table import Table

    table = Table()
    for column in _COLUMNS:
        table.add_column(column, no_wrap=column == "name")
    for row in rows:
        table.add_row(*_cells(row))
    terminal().print(table)
    for row in rows:
        default = ", the default" if row["name"] == DEFAULT_MODEL else ""
        print(f"{row['name']}{default}: {'; '.join(part for part in (row.get('quality'), row['license']) if part)}")
    for name, about in _PATTERNS.items():
        print(f"{name}: {about}")
    print("A checkpoint folder is a model too. `crossbind models get NAME` fetches weights, or takes a file or folder,")
    print("--from FILE; `crossbind models measure NAME` measures the speed on this machine.")
    for x in added():
        print(f"{x.kind} {x.name}: {x.problem}" if x.problem else f"{x.kind} {x.name}, from {x.origin}")


@models_app.command()
def get(
    name: Annotated[str, typer.Argument(help="A name of `crossbind models`, or clip-MODEL:TAG, st:NAME, timm:MODEL.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="A file or folder with the weights, where there is no network.")
    ] = None,
    digest: Annotated[str | None, typer.Option("--sha256", help="The SHA-256 that the file must have.")] = None,
    as_json: Json = False,
) -> None:
    """Get the weights of a model: from its hub, where a download goes on after an interruption, or from a file."""
    from bind.zoo import fetching

    if digest is not None and source is None:
        usage_error("--sha256 is for --from FILE; the hub's client checks what it downloads")
    try:
        place = fetching.get(name, source, digest)
    except (ValueError, OSError) as error:
        failure(str(error))
    if as_json:
        print(json.dumps({"name": name, "weights": str(place)}))
    else:
        print(f"{name}: weights in {place}; use it with --model {name}")


@models_app.command()
def measure(
    names: Annotated[list[str], typer.Argument(help="Names of models whose weights are here.")],
    weights: Annotated[
        str | None, typer.Option(help="`random` measures without weights: the speed is that of the architecture.")
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Measure how fast models embed pictures and texts on this machine; `crossbind models` then shows it."""
    from bind.zoo import speed

    found = {}
    for name in names:
        model = load_model(load_options(name, weights, device, dtype))
        found[name] = speed.measure(model)
        speed.remember(name, device, found[name])
        if not as_json:
            print(f"{name}: {_speed(found[name]) or 'it embeds neither pictures nor texts'}", flush=True)
    if as_json:
        print(json.dumps(found))


def _rows() -> list[dict[str, Any]]:
    from bind import zoo
    from bind.zoo import presets, speed

    rows: list[dict[str, Any]] = []
    for d in [zoo.describe(name) for name in sorted(zoo.names(), key=lambda name: (name != DEFAULT_MODEL, name))]:
        row = {key: getattr(d, key) for key in ("name", "dim", "license", "about", "source")}
        facts: dict[str, Any] = {"modalities": list(d.modalities), "speed": speed.remembered(d.name)}
        here = not d.source or presets.kept(d.name) is not None
        rows.append(row | facts | {"kind": "model", "here": here})
    listed = {row["name"] for row in rows}
    for name, preset in presets.presets().items():
        facts = preset.model_dump(exclude={"strength"}) | {"modalities": list(preset.modalities)}
        facts |= {"here": presets.is_here(name), "speed": speed.remembered(name)}
        if name in listed:
            next(row for row in rows if row["name"] == name).update(facts | {"kind": "model"})
        else:
            rows.append({"kind": "preset", "name": name} | facts)
    return rows


def _cells(row: dict[str, Any]) -> list[str]:
    size = f"{row['parameters_m']:,.0f} M" if row.get("parameters_m") else ""
    if row.get("memory_gb"):
        size += f", {row['memory_gb']:.1f} GB to load"
    where = "here" if row["here"] else "to get"
    return [row["name"], ", ".join(row["modalities"]), str(row.get("dim") or ""), size, _speed(row["speed"]), where]


def _speed(found: dict[str, float]) -> str:
    words = {"images_per_s": "{:g} pictures/s", "text_ms": "{:g} ms a text"}
    return ", ".join(words[key].format(value) for key, value in found.items() if key in words)


def advise(model: str, free_gb: float | None = None) -> None:
    """After the first run of a library with the default model: which stronger model this machine could run."""
    if model != DEFAULT_MODEL:
        return
    from bind.zoo import presets

    stronger = presets.advice(presets.free_memory_gb() if free_gb is None else free_gb)
    if stronger:
        print(
            f"{DEFAULT_MODEL} is the quick start; this machine could run {stronger}, which knows far more pictures: "
            f"crossbind models get {stronger}",
            file=sys.stderr,
        )
