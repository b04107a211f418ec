"""A folder of cases in the layout `imu/`, `media/`, `names/`, `attack/`: what comes of each file, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

import bind
from bind import modalities
from preprocess.decoding.pool import DecodePool
from preprocess.source import Limits, MediaError, OrdinaryPictureError, Segment, Source

_ALIKE = 0.98


def _read(pool: DecodePool, path: Path, modality: str | None = None) -> tuple[str, list[Segment]]:
    source = Source.from_path(path)
    name = modality or str(modalities.recognise(source, Limits())[0])
    read = partial(pool.submit, source=source, limits=Limits(), plan="whole")
    try:
        return name, read(modalities.spec(name).read, config=modalities.spec(name).config()).result()
    except OrdinaryPictureError:  # its name suggested another modality
        return "image", read(modalities.spec("image").read, config=modalities.spec("image").config()).result()


def _motion(folder: Path) -> Iterator[tuple[str, str]]:
    """`plain.csv` is read rightly; all others mean the same motion."""
    model = bind.load("small", modalities=["imu", "image"])
    files = sorted(folder.glob("*.*"))
    for path in files:
        try:
            vectors = model.embed([path, folder / "plain.csv"], modality="imu").vectors
        except MediaError as error:
            yield path.name, f"refused: {error.reason}"
            continue
        found = float(vectors[0] @ vectors[1])
        yield path.name, f"{'right' if found >= _ALIKE else 'wrong'}: cosine {found:.3f}"


def _media(folder: Path) -> Iterator[tuple[str, str]]:
    """Sounds are no silence; a film is as its twin of square pixels (`x_sar.mp4` and `x.mp4`)."""
    with DecodePool() as pool:
        for path in sorted(folder.glob("*.*")):
            try:
                name, segments = _read(pool, path)
                notes = "; ".join(segments[0].notes)
                twin = path.with_name(path.name.replace("_sar.", "."))
                if name == "video" and twin != path:
                    other = _read(pool, twin)[1][0].views.astype(np.float32)
                    apart = float(np.abs(segments[0].views - other).mean())
                    yield path.name, f"{'right' if apart < 4 else 'wrong'}: {apart:.1f} levels from {twin.name}"
                    continue
                if name == "video":
                    with_sound = _read(pool, path, "audio")[1] if "silent" in path.name else segments
                    segments, name = with_sound, f"{name} with its default track" if "silent" in path.name else name
                loud = float(segments[0].views.astype(np.float32).std())
                yield path.name, f"{'right' if loud > 1e-3 else 'wrong: silence'}: {name}. {notes}"
            except MediaError as error:
                yield path.name, f"refused: {error.reason}"


def _names(folder: Path) -> Iterator[tuple[str, str]]:
    """Photographs, whatever they and their sidecars are called."""
    with DecodePool() as pool:
        for path in sorted(folder.glob("*.jpg")):
            try:
                name, _ = _read(pool, path)
                yield path.name, "right" if name == "image" else f"wrong: {name}"
            except MediaError as error:
                yield path.name, f"refused: {error.reason}"


def _costs(folder: Path) -> Iterator[tuple[str, str]]:
    """Small files that cost much: read or refused, within seconds."""
    with DecodePool() as pool:
        for path in sorted(folder.glob("*.*")):
            started = time.monotonic()
            try:
                what = _read(pool, path)[0]
            except MediaError as error:
                what = f"refused: {error.reason[:80]}"
            seconds = time.monotonic() - started
            yield path.name, f"{'right' if seconds < 5 else 'wrong'}: {seconds:.1f} s, {what}"


def main(folder: Path) -> int:
    """Prints a row for each file of a folder of cases -> 1 where one is not right."""
    kinds = {"imu": _motion, "media": _media, "names": _names, "attack": _costs}
    bad = 0
    print("| file | outcome |\n|---|---|")
    for name, look in kinds.items():
        for file, outcome in look(folder / name) if (folder / name).is_dir() else ():
            bad += not outcome.startswith("right")
            print(f"| {name}/{file} | {outcome} |", flush=True)
    return 1 if bad else 0
