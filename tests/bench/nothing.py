"""Does a search say "nothing here looks like that" when it should?

    python -m tests.bench.nothing DATA [MODEL]

`imagen-five-per-synset` of DATA has five photographs of each of 200 kinds, which nothing was trained on. A library
holds those of one half of the kinds, another library those of the other half. "a photo of a KIND" is asked of the
library that has it (200 queries present) and of the other one (200 absent). Photographs are copied under numbers, so
that no word of a name answers a query. The report gives the share of queries that get "nothing", with the model's
calibration where it has one, and by scores alone.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

import bind
from bind.model.model import BindModel
from preprocess.manifest import Event
from serve.library.library import Library
from train.small.data import find


def stocked(folder: Path, model: BindModel, events: list[Event]) -> Library:
    """A library of the photographs of some events."""
    (folder / "media").mkdir(parents=True)
    for number, event in enumerate(events):
        picture = Path(str(event.media["image"].content))
        shutil.copyfile(picture, folder / "media" / f"{number:04}{picture.suffix}")
    library = Library.open(folder / "library", model)
    report = library.index(folder / "media")
    assert not report.skipped, report.skipped[:3]
    return library


def main(data: str, name: str = "small") -> None:
    """Prints the shares."""
    model = bind.load(name, modalities=["image", "text"])
    events = find(data, "all").events("imagen", "test")
    kinds = [str(kind) for kind in np.random.default_rng(0).permutation(sorted({event.labels[0] for event in events}))]
    halves = [set(kinds[0::2]), set(kinds[1::2])]
    with tempfile.TemporaryDirectory() as place:
        libraries = [
            stocked(Path(place) / str(number), model, [event for event in events if event.labels[0] in half])
            for number, half in enumerate(halves)
        ]
        known = model.calibration
        for way, calibration in (("by its calibration", known), ("by scores alone", None)):
            if way == "by its calibration" and known is None:
                print(f"{name} has no calibration")
                continue
            model.calibration = calibration
            nothing: dict[bool, list[bool]] = {True: [], False: []}
            for library, half in zip(libraries, halves, strict=True):
                for kind in kinds:
                    hits = library.search(f"text:'a photo of a {kind}'", k=10)
                    nothing[kind in half].append(hits.nothing)
            shares = {present: f"{np.mean(told):.3f}" for present, told in nothing.items()}
            print(
                f"{name} {way}: nothing for {shares[False]} of {len(nothing[False])} absent queries, "
                f"for {shares[True]} of {len(nothing[True])} present ones"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
