"""ESC-10: 400 environmental sounds of 5 s, 10 classes, five folds; a part of ESC-50 (Piczak, 2015)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from data_manifests import Builder, Download, Entry, Split
from data_manifests.shared.templates import SOUND

_NAMES = {
    "Dog bark": "dog barking",
    "Rain": "rain",
    "Sea waves": "sea waves",
    "Baby cry": "a crying baby",
    "Clock tick": "a ticking clock",
    "Person sneeze": "a person sneezing",
    "Helicopter": "a helicopter",
    "Chainsaw": "a chainsaw",
    "Rooster": "a rooster crowing",
    "Fire crackling": "a crackling fire",
}
"""Category in a folder's name -> the words that stand in a sentence."""
_CLIPS = 40
"""The number of clips of each class."""
_FOLDER = re.compile(r"\d{3}\s*-\s*(.+)")
"""`001 - Dog bark`."""
_CLIP = re.compile(r"(\d)-(\d+)-[A-Z]")
"""A file's name gives the fold, the recording at Freesound and the take."""


def splits(download: Download) -> Iterator[Split]:
    """One manifest a fold; clips cut from one recording share a group."""
    clips: dict[str, list[Entry]] = {}
    for folder in sorted(path for path in download.path.iterdir() if path.is_dir()):
        named = _FOLDER.fullmatch(folder.name)
        if named is None or named[1] not in _NAMES:
            continue
        label = _NAMES[named[1]]
        paths = sorted(folder.glob("*.ogg"))
        for number in range(len(paths), _CLIPS):
            download.lacks("clip", f"{folder.name}: {number + 1} of {_CLIPS}")
        for path in paths:
            entry = _event(download, folder.name, path, label)
            if entry is not None:
                clips.setdefault(path.name[0], []).append(entry)
    if not clips:
        download.lacks("folder", "001 - Dog bark")
    for fold, entries in sorted(clips.items()):
        yield Split(f"fold{fold}", entries, sorted(_NAMES.values()), SOUND)


def _event(download: Download, folder: str, path: Path, label: str) -> Entry | None:
    named = _CLIP.fullmatch(path.stem)
    if named is None:
        download.lacks("name of the form FOLD-RECORDING-TAKE", path.name)
        return None
    if not download.has(f"{folder}/{path.name}", "audio"):
        return None
    return {
        "id": path.stem,
        "audio": {"path": f"{folder}/{path.name}"},
        "text": f"the sound of {label}",
        "labels": [label],
        "group": named[2],
    }


BUILDER = Builder(
    title="ESC-10.",
    license="CC BY 3.0 (clips CC0 or CC BY)",
    obtain="the ESC-10 repository of Karol J. Piczak on GitHub (karolpiczak/ESC-10), downloaded as an archive",
    layout="the folders '001 - Dog bark' to '010 - Fire crackling' with FOLD-RECORDING-TAKE.ogg",
    splits=splits,
)
