"""`crossbind index` and its parts beside the ways others go, over the same weights, in turns in one process.

`python -m tests.bench peers` prints a table, for 0.4 of the pictures and all sounds; `python -m tests.bench.bench_peers
1` runs on all (200 of 12 megapixels, 1,000 of 500 pixels, 500 sounds), 0.1 on a tenth of the pictures and a quarter of
the sounds.

Pictures: ViT-B/32 of open_clip with random weights, for `Library.index`, for sentence-transformers' `encode` on opened
pictures (its image processor is transformers' CLIPImageProcessor), and for open_clip's own transform and
`encode_image`, 32 pictures at a time. Sound: one encoder, so small that the way to it counts, behind `Library.index`
and behind ImageBind's path (its `data.py`: load, resample, cut, `kaldi.fbank` clip by clip). Video: reading alone,
against ImageBind's sampling, which decodes every frame of five clips of two seconds through pytorchvideo, keeps two of
each, and crops three times.
"""

from __future__ import annotations

import io
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import open_clip
import soundfile
import torch
import torchaudio
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from torch import Tensor
from transformers import CLIPImageProcessor

import bind
from bind import description
from bind.model import loading, pipeline
from bind.model.model import BindModel
from preprocess.readers import audio, video
from preprocess.source import Limits, Source
from serve.library.library import Library
from tests.bench import bench_video
from tests.bench.cpu import in_turns, ratio, result

PARTS = 4
BATCH = 32
LARGE, SMALL, SOUNDS = 200, 1000, 500
MIXED_RATE_HZ, SOUND_S = 44_100, 6


class ClipImages(InputModule):
    """A CLIP's image tower as a module of sentence-transformers."""

    def __init__(self, clip: torch.nn.Module) -> None:
        super().__init__()
        self.clip = clip
        self.processor = CLIPImageProcessor()

    @property
    def modalities(self) -> list[str]:
        return ["image"]

    def preprocess(self, inputs: Sequence[Image.Image], **_: Any) -> dict[str, Tensor]:
        return dict(self.processor(images=list(inputs), return_tensors="pt"))

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        return features | {"sentence_embedding": self.clip.encode_image(features["pixel_values"])}

    def save(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError


def photographs() -> list[Image.Image]:
    """Photographs of scikit-image."""
    import skimage.data

    names = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry")
    return [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in names]


def write_pictures(folder: Path, count: int, width: int, height: int) -> list[Path]:
    """JPEGs of photographs at this size with the noise of a sensor, ten different ones over and over."""
    rng = np.random.default_rng(0)
    encoded = []
    for number, picture in enumerate(itertools.islice(itertools.cycle(photographs()), min(10, count))):
        turned = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number >= 5 else picture
        pixels = np.asarray(turned.resize((width, height), Image.Resampling.BICUBIC))
        noise = rng.integers(-6, 7, pixels.shape, np.int8)
        file = io.BytesIO()
        Image.fromarray(np.clip(pixels + noise.astype(np.int16), 0, 255).astype(np.uint8)).save(
            file, "JPEG", quality=88
        )
        encoded.append(file.getvalue())
    paths = []
    for number in range(count):
        path = folder / f"{number:05}.jpg"
        # Bytes behind the end of a JPEG are not looked at, but make it another file: none is a duplicate.
        path.write_bytes(encoded[number % len(encoded)] + str(number).encode())
        paths.append(path)
    return paths


def picture_rows(scratch: Path, large: int, small: int) -> list[dict[str, Any]]:
    """`index` on pictures of 12 megapixels and of 500 pixels."""
    torch.manual_seed(0)
    clip, _, transform = open_clip.create_model_and_transforms("ViT-B-32")
    weights = scratch / "clip.pt"
    torch.save(clip.eval().state_dict(), weights)
    model = bind.load("clip-vit-b32", weights=weights, modalities=["image"])
    sentences = SentenceTransformer(modules=[ClipImages(clip)], device="cpu")
    found: dict[str, np.ndarray] = {}

    def ours(paths: list[Path]) -> None:
        with Library.open(scratch / f"library-{time.perf_counter_ns()}", model) as library:
            report = library.index(paths[0].parent)
            assert report.added == len(paths), report

    def theirs(paths: list[Path]) -> None:
        found["sentence-transformers"] = sentences.encode([Image.open(path) for path in paths], batch_size=BATCH)

    def loop(paths: list[Path]) -> None:
        rows = []
        with torch.inference_mode():
            for start in range(0, len(paths), BATCH):
                batch = [transform(Image.open(path)) for path in paths[start : start + BATCH]]
                rows.append(clip.encode_image(torch.stack(batch)))
        found["open_clip"] = torch.cat(rows).numpy()

    rows = []
    contenders = {"crossbind": ours, "sentence-transformers": theirs, "open_clip": loop}
    for what, count, size, goal in (
        ("12 megapixels", large, (4000, 3000), 2.0),
        ("500 x 375 pixels", small, (500, 375), 1.2),
    ):
        parts = _parts(scratch / what.split()[0], count, lambda folder, n, size=size: write_pictures(folder, n, *size))
        for contender in contenders.values():
            contender(parts[0])
        cosines = _cosines(model.embed(parts[0]).vectors, found["open_clip"])
        seconds = in_turns(contenders, parts[1:])
        ours_s, theirs_s, loop_s = (seconds[name] for name in contenders)
        best = ratio(ours_s, theirs_s, loop_s)
        done = len(parts[0]) * (len(parts) - 1)
        for name, taken in (("sentence-transformers", theirs_s), ("open_clip, plain loop", loop_s)):
            rows.append(
                result(
                    f"index, {done} JPEGs of {what}, ViT-B/32",
                    "files/s",
                    done / sum(ours_s),
                    peer=done / sum(taken),
                    peer_is=name,
                    ratio=ratio(ours_s, taken),
                    goal=f">= {goal:g} x the better one",
                    met=best >= goal,
                    note=f"cosine to the loop >= {cosines.min():.5f}",
                )
            )
    return rows


def sound_model() -> BindModel:
    """A very small convolutional encoder of sound with random weights."""
    encoder = {"module": "convnet", "shape": [1, 128, 204], "widths": [8, 16]}
    table = {"encoder": encoder, "head": {"type": "linear"}}
    parsed = description.parse(
        {"format": 1, "name": "sound", "dim": 128, "license": "none", "modalities": {"audio": table}}, "sound"
    )
    return loading.random(parsed, "cpu", torch.float32)


def write_sounds(folder: Path, count: int) -> list[Path]:
    """Stereo WAVs of 16 bits: gliding tones over noise."""
    rng = np.random.default_rng(1)
    time_s = np.arange(MIXED_RATE_HZ * SOUND_S) / MIXED_RATE_HZ
    paths = []
    for number in range(count):
        tone = np.sin(2 * np.pi * rng.uniform(80, 900) * time_s * (1 + rng.uniform(0, 0.5) * time_s))
        samples = 0.4 * tone[:, None] + 0.05 * rng.standard_normal((len(time_s), 1)).repeat(2, 1)
        path = folder / f"{number:05}.wav"
        soundfile.write(path, samples, MIXED_RATE_HZ, "PCM_16")
        paths.append(path)
    return paths


def reference_audio(path: Path, starts: Callable[[int], list[int]], mean: float, std: float) -> Tensor:
    """(3, 1, 128, 204), as ImageBind's `load_and_transform_audio_data`; for `torchaudio.load` stands soundfile."""
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    waveform = torch.from_numpy(samples.T.copy())
    if rate_hz != 16_000:
        waveform = torchaudio.functional.resample(waveform, rate_hz, 16_000)
    clips = []
    for start in starts(waveform.shape[1]):
        clip = waveform[:, start : start + 32_000]
        clip = clip - clip.mean()
        fbank = torchaudio.compliance.kaldi.fbank(
            clip,
            htk_compat=True,
            sample_frequency=16_000,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=128,
            dither=0.0,
            frame_length=25,
            frame_shift=10,
        ).T
        padded = torch.nn.functional.pad(fbank, (0, 204 - fbank.shape[1]))
        clips.append((padded.unsqueeze(0) - mean) / std)
    return torch.stack(clips)


def sound_rows(scratch: Path, count: int) -> list[dict[str, Any]]:
    """`index` on WAVs, which it cuts into no more than one segment of three clips."""
    model = sound_model()
    config = model.config("audio")
    found: list[np.ndarray] = []

    def ours(paths: list[Path]) -> None:
        with Library.open(scratch / f"library-{time.perf_counter_ns()}", model) as library:
            report = library.index(paths[0].parent)
            assert report.added == len(paths), report

    def reference(paths: list[Path]) -> None:
        rows = [
            model.encode(
                "audio", reference_audio(path, lambda n: audio.clip_starts(n, config), config.mean, config.std)[None]
            )
            for path in paths
        ]
        found[:] = [torch.cat(rows).numpy()]

    parts = _parts(scratch / "sounds", count, write_sounds)
    for contender in (ours, reference):
        contender(parts[0])
    cosines = _cosines(model.embed(parts[0]).vectors, found[0])

    def front(paths: list[Path]) -> None:
        pool, limits = pipeline.shared_pool(), Limits()
        reading = [pool.submit(audio.read, Source.from_path(path), config, limits, "segments") for path in paths]
        for future in reading:
            for segment in future.result():
                audio.prepare(segment.views, config)

    def reference_front(paths: list[Path]) -> None:
        for path in paths:
            reference_audio(path, lambda n: audio.clip_starts(n, config), config.mean, config.std)

    contenders = {"crossbind": ours, "reference": reference, "front": front, "reference front": reference_front}
    seconds = in_turns(contenders, parts[1:])
    times = ratio(seconds["crossbind"], seconds["reference"])
    front_times = ratio(seconds["front"], seconds["reference front"])
    done = len(parts[0]) * (len(parts) - 1)
    return [
        result(
            f"{done} stereo WAVs of {SOUND_S} s at 44.1 kHz to log-mel pictures",
            "files/s",
            done / sum(seconds["front"]),
            peer=done / sum(seconds["reference front"]),
            peer_is="ImageBind's audio path",
            ratio=front_times,
            goal=">= 3 x",
            met=front_times >= 3,
            note="by `audio.read` in the decode workers and `audio.prepare`",
        ),
        result(
            f"index, {done} stereo WAVs of {SOUND_S} s at 44.1 kHz, very small encoder",
            "files/s",
            done / sum(seconds["crossbind"]),
            peer=done / sum(seconds["reference"]),
            peer_is="ImageBind's audio path",
            ratio=times,
            goal=">= 3 x",
            met=times >= 3,
            note=f"cosine >= {cosines.min():.5f}; the two channels are equal: ours averages, the reference takes one",
        ),
    ]


def reference_video(path: Path, size: int) -> Tensor:
    """(15, 3, 2, size, size): what ImageBind's `load_and_transform_video_data` samples, by PyAV as in pytorchvideo.

    Every frame of each clip is decoded and turned into RGB at full size and float32; two are kept, scaled, and cropped
    three times.
    """
    views = []
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert stream.time_base is not None and stream.duration is not None
        duration_s = float(stream.duration * stream.time_base)
        for number in range(5):
            start_s = number * (duration_s - 2) / 4
            file.seek(int(start_s / stream.time_base), stream=stream, backward=True)
            frames = []
            for frame in file.decode(stream):
                assert frame.time is not None
                if frame.time >= start_s + 2:
                    break
                if frame.time >= start_s:
                    frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
            # `EncodedVideoDecord.get_clip` hands out the whole clip as float32 (C, T, H, W).
            whole = torch.stack(frames).to(torch.float32).permute(3, 0, 1, 2)
            clip = whole[:, [0, -1]].permute(1, 0, 2, 3) / 255
            scale = size / min(clip.shape[2:])
            height, width = (round(side * scale) for side in clip.shape[2:])
            clip = torch.nn.functional.interpolate(clip, (height, width), mode="bilinear", align_corners=False)
            clip = (clip - 0.45) / 0.27
            for left in (0, (width - size) // 2, width - size):
                views.append(clip[:, :, :size, left : left + size].transpose(0, 1))
    return torch.stack(views)


def video_rows(scratch: Path) -> list[dict[str, Any]]:
    """Reading and preparing one video of 79 s, with a keyframe every one or two seconds."""
    frames = bench_video.street_scene()
    config, limits = video.VideoConfig(), Limits()
    rows = []
    for gop in (24, 48):
        path = scratch / f"gop-{gop}.mp4"
        bench_video.write(path, frames, "libx264", gop)

        def ours(_: int, path: Path = path) -> None:
            for segment in video.read(Source.from_path(path), config, limits, "whole"):
                video.prepare(segment.views, config)

        def reference(_: int, path: Path = path) -> None:
            reference_video(path, config.size)

        ours(0)
        reference(0)
        seconds = in_turns({"crossbind": ours, "reference": reference}, range(5))
        times = ratio(seconds["crossbind"], seconds["reference"])
        rows.append(
            result(
                f"a video of 79 s, 640 x 360, keyframe every {gop / bench_video.RATE:g} s, to 15 views",
                "ms",
                1000 * statistics.median(seconds["crossbind"]),
                peer=1000 * statistics.median(seconds["reference"]),
                peer_is="ImageBind's sampling",
                ratio=times,
                goal=">= 5 x",
                met=times >= 5,
                note="resized while YUV, with antialias; the reference interpolates RGB without",
            )
        )
    return rows


def _parts(folder: Path, count: int, write: Callable[[Path, int], list[Path]]) -> list[list[Path]]:
    """A small part to warm up, then `PARTS` of them with `count` files in all."""
    parts = []
    size = max(1, count // PARTS)
    for number in range(PARTS + 1):
        part = folder / str(number)
        part.mkdir(parents=True)
        paths = write(part, size)
        for path in paths:
            path.read_bytes()  # all sides find the files in memory
        parts.append(paths)
    return parts


def _cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    cosines: np.ndarray = (ours * theirs).sum(1) / np.linalg.norm(theirs, axis=1)
    return cosines


def run(share: float = 0.4) -> list[dict[str, Any]]:
    """All rows, on `share` of the pictures: `make bench` has ten minutes for everything. Sounds: all from 0.4 on."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        return [
            *picture_rows(scratch, round(share * LARGE), round(share * SMALL)),
            *sound_rows(scratch, round(min(1, share / 0.4) * SOUNDS)),
            *video_rows(scratch),
        ]


if __name__ == "__main__":
    for row in run(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0):
        print(row)
