"""Small media of many kinds, made for tests."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import tifffile

from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import Read, read_here
from preprocess.source import Limits, MediaError, Source

RATE = 22_050


def tone(hz: float, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """(T,) float32, half of full scale."""
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def sound(
    samples: list[np.ndarray], container: str, codec: str, rate: int = RATE, default: int = 0, pictures: str = ""
) -> bytes:
    """Mono tracks -> a file with them, `default` being the one that players take; `pictures` is a codec of a film."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        film = None
        if pictures:
            film = file.add_stream(pictures, rate=25)
            film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        streams = [file.add_stream(codec, rate=rate) for _ in samples]
        for number, stream in enumerate(streams):
            stream.layout, stream.bit_rate = "mono", 64_000
            stream.disposition = av.stream.Disposition.default if number == default else 0
        if film is not None:
            for number in range(50):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * number, np.uint8))
                frame.pts, frame.time_base = number, Fraction(1, 25)
                file.mux(film.encode(frame))
            file.mux(film.encode())
        for stream, track in zip(streams, samples, strict=True):
            kind = stream.codec_context.format.name
            resampler = av.AudioResampler(format=kind, layout="mono", rate=rate)
            frame = av.AudioFrame.from_ndarray(track[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, 0
            fifo = av.AudioFifo()
            for part in resampler.resample(frame):
                fifo.write(part)
            size = stream.codec_context.frame_size or 1024
            while piece := fifo.read(size, partial=True):
                file.mux(stream.encode(piece))
            file.mux(stream.encode(None))
    return out.getvalue()


def film(
    pixels: np.ndarray, container: str = "mp4", codec: str = "libx264", aspect: Fraction | None = None, frames: int = 10
) -> bytes:
    """(H, W, 3) uint8 -> a film of one second that shows it; `aspect` is that of a pixel."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=25 if codec == "dvvideo" else frames)
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = "yuv422p" if codec == "mpeg2video" and container == "mxf" else "yuv420p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(pixels)
            frame.pts, frame.time_base = number, 1 / Fraction(stream.average_rate or frames)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return out.getvalue()


def npy(values: np.ndarray) -> bytes:
    """An array as NumPy stores it."""
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


def tiff(values: np.ndarray, **options: Any) -> bytes:
    """An array as a TIFF of one channel."""
    out = io.BytesIO()
    tifffile.imwrite(out, values, photometric="minisblack", **options)
    return out.getvalue()


def check_that_cut_files_are_refused(read: Read, config: Any, data: bytes, suffix: str) -> None:
    """Reads nine tenths of a file, eight tenths and so on, and then all of it, which is one view (1, 224, 224)."""
    with DecodePool(workers=1) as pool:
        for tenth in range(10):
            source = Source(data[: len(data) * tenth // 10], f"cut.{suffix}")
            with pytest.raises(MediaError, match=r"^cut\."):
                pool.submit(read, source, config, Limits(), "whole").result()
        whole = pool.submit(read, Source(data, f"whole.{suffix}"), config, Limits(), "whole").result()[0]
    assert whole.views.shape == (1, 224, 224)


def check_that_unusable_paths_are_refused(read: Read, config: Any, misnamed: Path, content: bytes) -> None:
    """A file of another kind than its name says, a folder, and nothing at all are errors with their paths."""
    misnamed.write_bytes(content)
    folder, missing = misnamed.with_name("folder.npy"), misnamed.with_name("missing.npy")
    folder.mkdir()
    for path in (misnamed, folder, missing):
        with pytest.raises(MediaError) as caught:
            read_here(read, Source.from_path(path), config, Limits(), "whole")
        assert caught.value.path == str(path)
