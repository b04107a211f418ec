"""Retrieval by sound: spoken captions and sound effects of held-out stamps, against pictures and English captions.

    python -m train.small.hearing MODEL FOLDER

FOLDER holds the manifests that `crossbind manifest stamps` and `spoken` make and `train.small.splits` divides:
`stamps-test` (pictures, captions, effects) and `stamps-spoken-test` (recordings). Where they are there,
`stamps-spoken-train` (by people) and `spoken-train` (from a synthesiser) tell which words the model heard in training.
Languages with fewer than twenty recordings are only in the rows of all speech.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import hypergeom

import bind
from bind.model.model import BindModel
from bind.model.pipeline import Failed
from data_manifests.datasets.spoken import core
from preprocess import manifest
from preprocess.manifest import Event
from preprocess.source import Source
from train.evaluate.metrics import ranks

K = 10
_RESAMPLES = 1000
"""Bootstrap samples for an interval of 95 %."""
_LANGUAGE = re.compile(r"_([a-z]{2,3}(?:_[A-Za-z]{2})?(?:@\w+)?)\.\w+$")
"""The language at the end of the name of a spoken stamp: `cat_desc_de.ogg`."""
SIGNS = re.compile(r"The (Spanish )?letter |(Zero|One|Two|Three|Four|Five|Six|Seven|Eight|Nine)\.")
"""Captions that share a beginning with many others: a model that recognises "letter" has already found one of few."""
FEWEST = 20
"""The least number of recordings for which a language has a row of its own; English always has one."""
HEADER = f"{'sounds':<34} {'targets':<9} {'R@10':<5}  {'95 % interval':<14}  chance  times      n names"
"""The first line of the printed table."""


@dataclass(frozen=True)
class Row:
    """Recall@10 of `n` sounds of `things` names, its 95 % interval (bootstrap over names), and chance."""

    sounds: str
    targets: str
    recall: float
    low: float
    high: float
    chance: float
    n: int
    things: int

    def __str__(self) -> str:
        times = f"{self.recall / self.chance:4.1f} x"
        spread = f"{self.low:.3f} .. {self.high:.3f}"
        measured = f"{self.recall:.3f}  {spread}  {self.chance:.3f}  {times}"
        return f"{self.sounds:<34} {self.targets:<9} {measured}  {self.n:>5} {self.things:>5}"


@dataclass(frozen=True)
class Sounds:
    """Vectors (N, D) of recordings, and for each its language, its name, and whether its words were heard in
    training.
    """

    vectors: np.ndarray
    languages: np.ndarray
    names: np.ndarray
    by_people: np.ndarray
    by_synthesiser: np.ndarray


def rows(model: BindModel, folder: Path) -> Iterator[Row]:
    """A model and a folder of manifests -> the table. Raises ManifestError, OSError where one cannot be read."""
    shown = [event for event in manifest.read(folder / "stamps-test.jsonl").events if "image" in event.media]
    pictures = embed(model, "image", [event.media["image"] for event in shown])
    picture_names = np.array([event.group for event in shown])
    captions = np.unique(picture_names)
    texts = model.embed([str(caption) for caption in captions], "text").vectors
    galleries = (("pictures", pictures, picture_names), ("captions", texts, captions))

    effects = [event for event in shown if "audio" in event.media]
    effect_vectors = embed(model, "audio", [event.media["audio"] for event in effects])
    names = np.array([event.group for event in effects])
    for target, vectors, labels in galleries:
        yield score("sound effects", target, effect_vectors, names, vectors, labels)

    speech = spoken(model, folder, set(captions.tolist()))
    unheard = ~(speech.by_people | speech.by_synthesiser)
    wholes = [
        ("speech", np.ones(len(speech.names), bool)),
        ("speech, no letters and digits", np.array([not SIGNS.match(name) for name in speech.names])),
        ("speech, word not heard in training", unheard),
        ("speech, word heard from people", speech.by_people),
        ("speech, word heard synthesised", speech.by_synthesiser & ~speech.by_people),
    ]
    counts = zip(*np.unique(speech.languages, return_counts=True), strict=True)
    frequent = [language for language, count in counts if count >= FEWEST or language == "en"]
    wholes += [(f"speech, {language}", speech.languages == language) for language in frequent]
    for target, vectors, labels in galleries:
        for title, chosen in wholes:
            if chosen.any():
                yield score(title, target, speech.vectors[chosen], speech.names[chosen], vectors, labels)
        # The control: the same sounds, each with the name of another.
        shuffled = np.random.default_rng(0).permutation(speech.names)
        yield score("speech, names shuffled", target, speech.vectors, shuffled, vectors, labels)


def spoken(model: BindModel, folder: Path, names: set[str]) -> Sounds:
    """The recordings of the things in `names`; words count without articles, in the recording's language."""
    events = [e for e in manifest.read(folder / "stamps-spoken-test.jsonl").events if e.group in names]
    events = [e for e in events if "audio" in e.media]
    by_people, by_synthesiser = (_words(folder / f"{name}-train.jsonl") for name in ("stamps-spoken", "spoken"))
    words = [(language_of(e), core(language_of(e), e.texts[0])) if e.texts else None for e in events]
    return Sounds(
        embed(model, "audio", [e.media["audio"] for e in events]),
        np.array([language_of(e) for e in events]),
        np.array([e.group for e in events]),
        np.array([word in by_people for word in words]),
        np.array([word in by_synthesiser for word in words]),
    )


def language_of(event: Event) -> str:
    """The language of a recording of the stamps or of the synthesiser, from its file's name; English has no code."""
    path = str(event.media["audio"].content)
    if path.endswith(".flac"):
        return Path(path).parent.name
    found = _LANGUAGE.search(path)
    return found[1].split("_")[0] if found else "en"


def score(
    sounds: str, targets: str, queries: np.ndarray, names: np.ndarray, gallery: np.ndarray, labels: np.ndarray
) -> Row:
    """(Q, D) sounds with names (Q,), (G, D) targets with labels (G,), unit rows -> their row of the table.

    A hit is a target of the same name among the ten best; others of the same score stand before it.
    """
    return row(sounds, targets, *hits(queries, names, gallery, labels), names)


def hits(
    queries: np.ndarray, names: np.ndarray, gallery: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As `score` -> (Q,) whether each sound is a hit, and (Q,) the probability of a hit by chance."""
    # Chance: ten targets drawn at random include a right one.
    right = (names[:, None] == labels).sum(1)
    chances = hypergeom.sf(0, len(labels), right, min(K, len(labels)))
    return ranks(queries, gallery, names, labels) <= K, chances


def row(sounds: str, targets: str, found: np.ndarray, chances: np.ndarray, names: np.ndarray) -> Row:
    """(Q,) hits and chances of sounds with names (Q,) -> their row of the table."""
    # Recordings of one name are not independent, so the bootstrap draws names and not recordings.
    groups = np.unique(names, return_inverse=True)[1]
    counts = np.stack([np.bincount(groups, found), np.bincount(groups)], 1)
    drawn = counts[np.random.default_rng(0).integers(len(counts), size=(_RESAMPLES, len(counts)))].sum(1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], (2.5, 97.5))
    chance = float(chances.mean())
    return Row(sounds, targets, float(found.mean()), float(low), float(high), chance, len(found), len(counts))


def embed(model: BindModel, modality: str, sources: Sequence[Source]) -> np.ndarray:
    """Sources -> (N, D) unit rows. Raises the MediaError of the first source that cannot be read."""
    vectors = np.zeros((len(sources), model.dim), np.float32)
    for result in model.stream(sources, modality, 64, None):
        if isinstance(result, Failed):
            raise result.error
        vectors[result.position] = result.vector
    return vectors


def _words(path: Path) -> set[tuple[str, str]]:
    """(language, word) of the events of a manifest; empty where there is none."""
    if not path.is_file():
        return set()
    events = [event for event in manifest.read(path).events if event.texts and "audio" in event.media]
    return {(language_of(event), core(language_of(event), event.texts[0])) for event in events}


def main() -> None:
    """Prints the table."""
    model, folder = sys.argv[1:]
    print(HEADER)
    for line in rows(bind.load(model), Path(folder)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
