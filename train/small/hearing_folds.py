"""Cross-validated retrieval by sound: each recording is scored once, by an encoder that was not trained on its name.

    python -m train.small.hearing_folds RUN.toml FOLDER OUT [FOLD ...]

FOLDER holds the whole manifests `stamps`, `stamps-spoken` and any others whose `-train` or `-validation` parts the run
names. There are five folds (`splits.fold`; fold 0 is the test side). For each, the run is trained without validation on
all sounds whose names are in the other four, in every language. The held-out recordings are then scored against all
stamps' pictures and captions of the fold's names. OUT stores finished folds, so that folds may run side by side, each
named on a command line of its own. Once all are there, the table is printed.

The heads of pictures and texts were trained on names of the folds 1 to 4, so only fold 0 is new to them.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import bind
from bind.model.model import BindModel
from preprocess import manifest
from train.small.hearing import FEWEST, HEADER, SIGNS, Row, embed, hits, language_of, row
from train.small.splits import FOLDS, fold, key, write
from train.trainer import run as runs
from train.trainer.loop import TrainError, train

TARGETS = ("pictures", "captions")
"""What a sound is to find: the drawing of its thing, or the caption."""


@dataclass(frozen=True)
class Heard:
    """Held-out sounds (N,): kind ("speech", "effect", "effect elsewhere"), language, caption, key, and the results.

    For each of `TARGETS`, (N, 2) says whether the sound was a hit, and the probability of a hit by chance.
    """

    kinds: np.ndarray
    languages: np.ndarray
    captions: np.ndarray
    keys: np.ndarray
    hits: np.ndarray
    chances: np.ndarray


def model_without(run_file: Path, folder: Path, out: Path, held_out: Sequence[int]) -> Path:
    """Trains the run on the manifests in `folder` without the names of some folds -> the model, `OUT/run/model`.

    Raises RunError where the run names a manifest that does not end in `-train` or `-validation`, TrainError where a
    signal stopped the training, and the errors of `train`.
    """
    table = tomllib.loads(run_file.read_text())
    for pair in table["train"]["pairs"]:
        stems = [Path(path).stem.rpartition("-") for path in pair["manifests"]]
        if unexpected := [stem for stem, _, part in stems if part not in ("train", "validation")]:
            raise runs.RunError(f"{run_file}: expected manifests NAME-train.jsonl or -validation, got {unexpected}")
        # A manifest that is named twice counts twice.
        chosen = [stem for stem, _, part in stems if part == "train" or (stem, "-", "train") not in stems]
        for stem in chosen:
            write(folder / f"{stem}.jsonl", out, lambda name: None if fold(name) in held_out else "train")
        pair["manifests"] = [f"{stem}-train.jsonl" for stem in chosen]
    table.pop("evaluate", None)
    result = train(runs.parse(table | {"out": "run"}, out, run_file.name))
    if result.model is None or result.reason != "finished":
        raise TrainError(
            f"{out}: stopped by {result.reason} at step {result.step}; the same command goes on from there"
        )
    return result.model


def hear(model: BindModel, folder: Path, number: int) -> Heard:
    """A model and the number of a fold -> its results for the sounds of the fold whose key is that of a stamp."""
    stamps = [
        e for e in manifest.read(folder / "stamps.jsonl").events if "image" in e.media and fold(e.group) == number
    ]
    pictures = embed(model, "image", [event.media["image"] for event in stamps])
    captions = sorted({event.group for event in stamps})
    texts = model.embed(captions, "text").vectors
    galleries = (
        (pictures, np.array([key(event.group) for event in stamps])),
        (texts, np.array([key(caption) for caption in captions])),
    )
    keys = set(galleries[0][1].tolist())
    spoken = manifest.read(folder / "stamps-spoken.jsonl").events
    named = [("speech", event) for event in spoken] + [("effect", event) for event in stamps]
    elsewhere = folder / "sounds-effects.jsonl"
    own = {str(event.media["audio"].content) for event in stamps if "audio" in event.media}
    for event in manifest.read(elsewhere).events if elsewhere.is_file() else ():
        place = str(event.media["audio"].content)
        if place not in own:  # a sound is taken once, however many drawings it belongs to
            named.append(("effect elsewhere", event))
            own.add(place)
    found = [(k, e) for k, e in named if "audio" in e.media and fold(e.group) == number and key(e.group) in keys]
    vectors = embed(model, "audio", [event.media["audio"] for _, event in found])
    names = np.array([key(event.group) for _, event in found])
    scored = [hits(vectors, names, gallery, labels) for gallery, labels in galleries]
    return Heard(
        np.array([kind for kind, _ in found]),
        np.array([language_of(event) if kind == "speech" else "" for kind, event in found]),
        np.array([event.group for _, event in found]),
        names,
        np.stack([of_target for of_target, _ in scored], 1),
        np.stack([chance for _, chance in scored], 1),
    )


def rows(parts: Sequence[Heard]) -> Iterator[Row]:
    """The results of some folds -> the table's rows over all their sounds."""
    whole = Heard(*(np.concatenate([getattr(part, name) for part in parts]) for name in Heard.__annotations__))
    speech = whole.kinds == "speech"
    signs = np.array([bool(SIGNS.match(caption)) for caption in whole.captions])
    kinds = [
        ("sound effects of stamps", whole.kinds == "effect"),
        ("sound effects of others", whole.kinds == "effect elsewhere"),
        ("sound effects", ~speech),
        ("speech", speech),
        ("speech, no letters and digits", speech & ~signs),
        ("speech, en, no letters and digits", speech & ~signs & (whole.languages == "en")),
    ]
    for language, count in zip(*np.unique(whole.languages[speech], return_counts=True), strict=True):
        if count >= FEWEST or language == "en":
            kinds.append((f"speech, {language}", whole.languages == language))
    for number, target in enumerate(TARGETS):
        for title, chosen in kinds:
            if chosen.any():
                yield row(title, target, whole.hits[chosen, number], whole.chances[chosen, number], whole.keys[chosen])


def save(heard: Heard, file: Path) -> None:
    """Writes results to a file, for `load`."""
    np.savez(file, **{name: getattr(heard, name) for name in Heard.__annotations__})


def load(file: Path) -> Heard:
    """Reads the results that `save` wrote."""
    with np.load(file) as stored:
        return Heard(*(stored[name] for name in Heard.__annotations__))


def main() -> None:
    """Trains and scores the named folds, or all; prints the table once all are there."""
    run_file, folder, out = map(Path, sys.argv[1:4])
    files = [out / f"fold-{number}" / "heard.npz" for number in range(FOLDS)]
    for number in map(int, sys.argv[4:] or range(FOLDS)):
        if not files[number].is_file():
            model = model_without(run_file, folder, files[number].parent, [number])
            device = "cuda" if torch.cuda.is_available() else "cpu"
            save(hear(bind.load(str(model), device=device), folder, number), files[number])
    if all(file.is_file() for file in files):
        for title, chosen in (("all folds", files), ("fold 0, new to the heads of pictures and texts", files[:1])):
            print(f"{title}\n{HEADER}", *rows([load(file) for file in chosen]), sep="\n")


if __name__ == "__main__":
    main()
