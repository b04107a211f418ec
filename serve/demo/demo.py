"""The demonstration: a library of real media, and searches whose results a person can judge by looking."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from serve.demo import samples
from serve.demo.samples import CLIPS, EVERYDAY, SCIENTIFIC, Sample

if TYPE_CHECKING:
    from bind.model.model import BindModel
    from serve.library.items import Hit
    from serve.library.library import Library

DISTRACTORS = ("a dog", "a car", "a beach", "a pizza")
"""Captions of nothing that is there, so that the right one has to be told from more than the others' captions."""


def zero_shot(model: BindModel, chosen: tuple[Sample, ...]) -> list[tuple[Sample, str, float, float]]:
    """For each sample: the sample, the caption nearest to it among all captions, its cosine, and that of the right
    caption.
    """
    captions = [sample.caption for sample in (*EVERYDAY, *SCIENTIFIC)] + list(DISTRACTORS)
    captions += [sample.caption for sample in chosen if sample.caption not in captions]
    pictures = model.embed([sample.path for sample in chosen])
    texts = model.embed(captions, modality="text")
    cosines = pictures.vectors @ texts.vectors.T
    rows = []
    for sample, row in zip(chosen, cosines, strict=True):
        best = int(row.argmax())
        rows.append((sample, captions[best], float(row[best]), float(row[captions.index(sample.caption)])))
    return rows


def searches(media: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """The searches of the demonstration: (title, query, further arguments of `Library.search`)."""
    cat, motorcycle = media / "photos" / "chelsea.png", media / "photos" / "motorcycle_left.png"
    bikes = media / "clips" / "bikes.mp4"
    return [
        ("text -> anything, by content alone", "a cup of coffee", {"keywords": False}),
        ("text -> pictures", "a temple in China", {"want": ["image"], "keywords": False}),
        ("text, with the words of names and captions", "motorcycle", {}),
        ("picture -> pictures", f"image:'{cat}'", {"want": ["image"]}),
        ("video -> pictures", f"video:'{bikes}'", {"want": ["image"]}),
        ("picture -> video", f"image:'{motorcycle}'", {"want": ["video"]}),
        ("depth map -> pictures", f"depth:'{media / 'depth' / 'motorcycle.depth.png'}'", {"want": ["image"]}),
        (
            "thermal image -> pictures",
            f"thermal:'{media / 'thermal' / 'cat-simulated.thermal.png'}'",
            {"want": ["image"]},
        ),
        ("sound -> pictures", f"audio:'{media / 'clips' / 'bigbuckbunny.mp4'}'", {"want": ["image"]}),
        ("motion -> motion", f"imu:'{media / 'motion' / '00.csv'}'", {"want": ["imu"]}),
        ("composed: a picture plus a text", f"image:'{cat}' + text:'a flower'", {"want": ["image"]}),
        (
            "composed: a picture minus a text",
            f"image:'{bikes.parent.parent / 'photos' / 'coffee.png'}' - text:'a cup'",
            {},
        ),
        ("filtered", "a machine", {"where": "folder like '%clips' and duration_s < 8", "keywords": False}),
    ]


def run(library: Library, media: Path, console: Any) -> None:
    """Assembles the samples in `media`, indexes them, and prints the searches and a table of all samples."""
    samples.assemble(media)
    report = library.index(media)
    console.print(
        f"{media}: {report.added} files added, {report.unchanged} unchanged, {len(report.skipped)} skipped, "
        f"in {report.seconds:.1f} s",
        soft_wrap=True,
    )
    reasons: dict[str, list[str]] = {}
    for path, reason in report.skipped:
        reasons.setdefault(reason, []).append(Path(path).name)
    for reason, names in reasons.items():
        console.print(f"  skipped {', '.join(sorted(names))}: {reason}")
    for title, query, more in searches(media):
        console.print(f"\n[bold]{title}[/]: {query.replace(str(media), '...')}", highlight=False)
        for extra in ("want", "where"):
            if extra in more:
                console.print(f"  {extra}: {more[extra]}", highlight=False)
        console.print(table(library.search(query, k=4, **more), media))
    _captions(library.model, console)


def table(hits: list[Hit], below: Path | None = None) -> Any:
    """Hits as a table for people: rank, modality, file, stretch, score and cosine. Paths are relative to `below`."""
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False)
    for column in ("", "kind", "file", "time"):
        found.add_column(column, no_wrap=column != "file", overflow="fold")
    found.add_column("score", justify="right")
    found.add_column("cosine", justify="right")
    for rank, hit in enumerate(hits, 1):
        path = Path(hit.path)
        shown = path.relative_to(below) if below and path.is_relative_to(below) else path
        words = " (words)" if hit.keyword else ""
        name = Text(f"{shown}{words}")
        for line in hit.lines:
            name.append(f"\n  “{line.text}” ({line.place})", style="dim")
        found.add_row(str(rank), hit.modality, name, span(hit), f"{hit.score:.1f}", f"{hit.cosine:.2f}")
    return found


def span(hit: Hit) -> str:
    """`0:05-0:15` for a stretch of a recording, '' for a hit without times."""
    if hit.start_s is None or hit.end_s is None:
        return ""
    return "-".join(f"{int(t // 60)}:{t % 60:04.1f}" for t in (hit.start_s, hit.end_s))


def _captions(model: BindModel, console: Any) -> None:
    """Prints the nearest sentence for each sample; wrong ones are marked and none is left out."""
    from rich.table import Table

    from bind.modalities import specs

    for title, chosen in (("photographs", EVERYDAY), ("scientific pictures", SCIENTIFIC), ("video clips", CLIPS)):
        rows = zero_shot(model, chosen)
        right = sum(sample.caption == best for sample, best, _, _ in rows)
        found = Table(box=None, pad_edge=False)
        for column in ("file", "nearest sentence", "cosine", "expected", "its cosine"):
            found.add_column(column)
        for sample, best, score, expected in rows:
            wrong = best != sample.caption
            marks = (sample.caption, f"{expected:.2f}") if wrong else ("", "")
            found.add_row(sample.path.name, best, f"{score:.2f}", *marks)
        console.print(f"\n[bold]{title}: the nearest sentence is right for {right} of {len(rows)}[/]", highlight=False)
        console.print(found)
    without = [name for name in specs() if name not in model.modalities]
    console.print(
        f"\nModel {model.description.name}: {', '.join(model.modalities)}; space {model.space}, {model.dim} dimensions."
    )
    if without:
        console.print(f"It has no encoder yet for {', '.join(without)}; imagebind-huge has (crossbind models).")
