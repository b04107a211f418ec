"""Files of other projects' tests: what is read of them, and whether other libraries see and hear the same in them."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image, ImageOps

from bind import modalities
from preprocess.decoding.pool import DecodePool
from preprocess.source import Limits, MediaError, OrdinaryPictureError, Source

_NO_MEDIA = {
    *(".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".rst", ".toml", ".cfg", ".yml", ".yaml", ".in", ".sh", ".po", ".out"),
    *(".pm", ".pl", ".t", ".args", ".config", ".fmt", ".typed", ".pod", ".html", ".css", ".js", ".json", ".xml", ".md"),
    *(".txt", ".ini", ".patch", ".cmake", ".pyx", ".m4", ".am", ".cs", ".bat", ".plist", ".csv", ".xmp", ""),
}
"""Of source trees: what nobody would index as a picture, a sound or a film."""
_ALIKE = 14.0
"""Levels of 255 by which the thumbnails of two decoders may differ on average."""


@dataclass(frozen=True)
class Outcome:
    """What came of a file: `read`, `refused` or `wrong`, and the reason, or what another library says of it."""

    path: str
    what: str
    why: str


def outcomes(folder: Path) -> Iterator[Outcome]:
    """Every medium below a folder -> what came of it."""
    limits = Limits(decode_timeout_s=30)
    with DecodePool() as pool:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in _NO_MEDIA or not path.is_file() or not path.stat().st_size:
                continue
            yield _outcome(path, str(path.relative_to(folder)), pool, limits)


def _outcome(path: Path, name: str, pool: DecodePool, limits: Limits) -> Outcome:
    source = Source.from_path(path)
    try:
        modality, _ = modalities.recognise(source, limits)
        spec = modalities.spec(modality)
        try:
            segments = pool.submit(spec.read, source, spec.config(), limits, "whole").result()
        except OrdinaryPictureError:  # its name or its beginning suggested another modality
            modality, spec = "image", modalities.spec("image")
            segments = pool.submit(spec.read, source, spec.config(), limits, "whole").result()
    except MediaError as error:
        return Outcome(name, "refused", error.reason)
    view = segments[0].views
    notes = "; ".join(segments[0].notes)
    if modality == "image":
        other = _picture(path, view.shape[1])
        if other is None or "32-bit grey" in notes:
            return Outcome(name, "read", f"image, by no other library. {notes}")
        apart = float(np.abs(_small(view[0]) - _small(other)).mean())
        return Outcome(name, "read" if apart < _ALIKE else "wrong", f"image, {apart:.1f} levels apart. {notes}")
    if modality == "audio":
        seconds = (segments[-1].end_s or 0) - (segments[0].start_s or 0)
        other_s = _seconds(path)
        if other_s is None:
            return Outcome(name, "read", f"audio, {seconds:.2f} s, by no other library. {notes}")
        fits = abs(seconds - other_s) < 0.15 + 0.05 * other_s
        return Outcome(name, "read" if fits else "wrong", f"audio, {seconds:.2f} s, {other_s:.2f} by others. {notes}")
    return Outcome(name, "read", f"{modality}. {notes}")


def _picture(path: Path, size: int) -> np.ndarray | None:
    """The centre of a picture as Pillow alone decodes it, upright and on white."""
    with contextlib.suppress(Exception), Image.open(path) as opened:
        opened.load()
        picture = ImageOps.exif_transpose(opened)
        if picture.mode.startswith(("I", "F")):
            return None
        if picture.mode in ("P", "LA", "PA", "RGBA", "RGBa", "La") or "transparency" in picture.info:
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
        return np.asarray(ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.BICUBIC))
    return None


def _small(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BOX), np.float32)


def _seconds(path: Path) -> float | None:
    with contextlib.suppress(Exception):
        if path.suffix.lower() != ".mp3":  # whose length libsndfile guesses
            return float(soundfile.info(path).duration)
    with contextlib.suppress(Exception), av.open(path) as container:
        frames = [frame.samples / frame.sample_rate for frame in container.decode(audio=0)]
        return sum(frames)
    return None


def main(folder: Path) -> int:
    """Prints a table of projects, then what was wrong and each reason with its number of files -> 1 if any is wrong."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: Counter[str] = Counter()
    wrong = []
    log = os.environ.get("CASES_LOG")
    with open(log or os.devnull, "w") as file:
        for one in outcomes(folder):
            counts[one.path.split(os.sep)[0]][one.what] += 1
            print(one.what, one.path, one.why, sep="\t", file=file, flush=True)
            if one.what == "wrong":
                wrong.append(one)
            elif one.what == "refused":
                reasons[re.sub(r"\d[\d,.]*", "N", one.why)[:110]] += 1
    print("| project | read | refused | wrong |\n|---|---|---|---|")
    for project, found in counts.items():
        print(f"| {project} | {found['read']} | {found['refused']} | {found['wrong']} |")
    for reason, count in reasons.most_common():
        print(f"{count:5}  {reason}")
    for one in wrong:
        print(f"wrong: {one.path}: {one.why}")
    return 1 if wrong else 0
