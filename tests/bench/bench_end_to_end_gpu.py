"""From JPEG and WAV bytes in memory to vectors, beside the reference's own path; and the filterbank on the GPU.

The reference path is ImageBind's `data.py`: Pillow and torchvision (soundfile and torchaudio), one item after the
other, then its model as shipped, in float32. Ours decodes in isolated processes, and pictures a second time with
`Limits(decode="gpu")`. `python -m tests.bench end_to_end_gpu`.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import soundfile
import torch
import torchaudio
from PIL import Image
from torch import Tensor
from torchvision import transforms

from bind import description, zoo
from bind.model import loading
from bind.model.model import BindModel
from preprocess.dsp.filterbank import log_mel
from preprocess.readers.audio import AudioConfig, clip_starts
from preprocess.readers.image import ImageConfig
from preprocess.source import Limits
from tests.bench.bench_encode_gpu import VIT_B32
from tests.bench.gpu import milliseconds, result

BATCH = 256
COMPARED = 64
SMALL, LARGE = (640, 480), (4000, 3000)
"""A web picture (COCO's size) and a phone's photo."""
SOUND_S = 10
FILTERBANK_CLIPS = 4096
COSINE = 0.999
IDLE_SHARE = 0.2
FILTERBANK_GOAL = 376_000

Decode = Literal["isolated", "gpu"]


def photographs(sizes: Sequence[tuple[int, int]]) -> list[bytes]:
    """JPEGs of quality 90 with the spectrum of photographs, 1 / frequency, a few edges and the noise of a sensor."""
    found = []
    for number, size in enumerate(sizes):
        rng = np.random.default_rng(number)
        total = np.zeros((480, 640, 3), np.float32)
        for octave in range(2, 10):
            noise = Image.fromarray(rng.integers(0, 256, (2**octave, 2**octave, 3), np.uint8))
            total += np.asarray(noise.resize((640, 480), Image.Resampling.BICUBIC), np.float32) * 0.8**octave
        x, y = np.sort(rng.integers(0, 640, 2)), np.sort(rng.integers(0, 480, 2))
        total[y[0] : y[1], x[0] : x[1]] *= 0.5
        picture = Image.fromarray((total * (240 / total.max())).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
        pixels = np.asarray(picture) + rng.integers(0, 12, (size[1], size[0], 1), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def sounds(count: int) -> list[bytes]:
    """WAVs of 16 bits and 16 kHz: tones that glide, in noise."""
    found = []
    seconds = np.arange(SOUND_S * 16_000) / 16_000
    for number in range(count):
        rng = np.random.default_rng(number)
        tone = np.sin(2 * np.pi * (rng.uniform(100, 2000) + rng.uniform(-50, 50) * seconds) * seconds)
        buffer = io.BytesIO()
        soundfile.write(buffer, 0.3 * tone + rng.normal(0, 0.05, len(seconds)), 16_000, "PCM_16", format="WAV")
        found.append(buffer.getvalue())
    return found


def reference_images(contents: Sequence[bytes], config: ImageConfig) -> Tensor:
    """`load_and_transform_vision_data` of the reference: (N, 3, size, size) on the GPU."""
    transform = transforms.Compose(
        [
            transforms.Resize(config.resize, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(config.size),
            transforms.ToTensor(),
            transforms.Normalize(config.mean, config.std),
        ]
    )
    pictures = (Image.open(io.BytesIO(content)).convert("RGB") for content in contents)
    return torch.stack([transform(picture).cuda() for picture in pictures])


def reference_sounds(contents: Sequence[bytes], config: AudioConfig) -> Tensor:
    """`load_and_transform_audio_data` of the reference: (N, clips, 1, num_mel_bins, frames) on the GPU."""
    items = []
    size = round(config.clip_s * config.rate_hz)
    for content in contents:
        wave, _ = soundfile.read(io.BytesIO(content), dtype="float32")
        clips = []
        for start in clip_starts(len(wave), config):
            clip = torch.from_numpy(wave[start : start + size])[None]
            energies = torchaudio.compliance.kaldi.fbank(
                clip - clip.mean(),
                htk_compat=True,
                sample_frequency=config.rate_hz,
                use_energy=False,
                window_type="hanning",
                num_mel_bins=config.num_mel_bins,
                dither=0.0,
            ).T
            padded = torch.nn.functional.pad(energies, (0, max(config.frames - energies.shape[1], 0)))
            clips.append(((padded[None, :, : config.frames] - config.mean) / config.std).cuda())
        items.append(torch.stack(clips))
    return torch.stack(items)


@contextmanager
def busy() -> Iterator[list[float]]:
    """Samples NVML's share of time in which a kernel ran, while the block runs."""
    samples: list[float] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.05):
            samples.append(torch.cuda.utilization() / 100)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def vit_b32(dtype: torch.dtype) -> BindModel:
    """A tower of ViT-B/32's size, random weights."""
    table = {
        "format": 1,
        "name": "vit-b32",
        "dim": 512,
        "license": "none",
        "about": "random weights",
        "trained": [],
        "modalities": {"image": {"encoder": {"module": "transformer", **VIT_B32}, "head": {"type": "linear"}}},
    }
    return loading.random(description.parse(table, "vit-b32"), "cuda", dtype, None)


def compare(
    what: str,
    modality: str,
    ours: BindModel,
    plain: BindModel,
    contents: list[bytes],
    counts: Mapping[Decode | Literal["reference"], int],
    goal: float,
) -> list[dict[str, Any]]:
    """Items/s of the reference's path and of ours for each way to decode in `counts`, over so many items.

    Also how idle the GPU was and how equal the vectors are.
    """
    config = plain.config(modality)

    def repeated(count: int) -> list[bytes]:
        return [contents[i % len(contents)] for i in range(count)]

    def read(contents: list[bytes]) -> Tensor:
        if modality == "image":
            return reference_images(contents, config)[:, None]
        return reference_sounds(contents, config)

    def reference(contents: list[bytes]) -> Tensor:
        parts = (contents[at : at + COMPARED] for at in range(0, len(contents), COMPARED))
        return torch.cat([plain.encode(modality, read(part)) for part in parts])

    few = repeated(counts["reference"])
    reference(few[:8])
    start = time.perf_counter()
    expected = reference(few).cpu()
    reference_rate = len(few) / (time.perf_counter() - start)
    x = read(few[:COMPARED]).bfloat16()
    x = x.repeat(-(-BATCH // len(x)), *[1] * (x.ndim - 1))[:BATCH]
    alone = 1000 * BATCH / milliseconds(lambda: ours.encode(modality, x), least_s=0.5)
    compared = min(COMPARED, len(few))

    def row(decode: Decode, count: int) -> dict[str, Any]:
        limits, many = Limits(decode=decode), repeated(count)
        warm = ours.embed(many[: 4 * BATCH], modality, batch_size=BATCH, limits=limits).vectors
        cosine = float(torch.nn.functional.cosine_similarity(torch.tensor(warm[:compared]), expected[:compared]).min())
        with busy() as shares:
            start = time.perf_counter()
            ours.embed(many, modality, batch_size=BATCH, limits=limits)
            rate = len(many) / (time.perf_counter() - start)
        idle = 1 - float(np.mean(shares[2:-2] or [0.0]))
        note = f"cosine {cosine:.5f}; GPU idle {idle:.0%} by NVML, {1 - rate / alone:.0%} of encoding alone"
        met = bool(rate >= goal * reference_rate and cosine >= COSINE)
        if "ViT-H" in what:
            met &= idle < IDLE_SHARE
            note += f" (goal < {IDLE_SHARE:.0%})"
        return result(
            what + (', decode="gpu"' if decode == "gpu" else ""),
            "items/s",
            rate,
            peer=reference_rate,
            peer_is="the reference's path, float32",
            ceiling=alone,
            ceiling_is="encoding alone",
            goal=f">= {goal:g} times" if goal else "",
            met=met if goal else None,
            note=f"{note}; {len(os.sched_getaffinity(0))} cores",
        )

    return [row(way, count) for way, count in counts.items() if way != "reference"]


def filterbank() -> dict[str, Any]:
    """Clips of 2 s a second, all on the GPU, beside torchaudio's filterbank in a loop."""
    waves = 0.1 * torch.randn(FILTERBANK_CLIPS, 32_000, device="cuda")
    rate = 1000 * FILTERBANK_CLIPS / milliseconds(lambda: log_mel(waves), least_s=0.5)

    def loop() -> list[Tensor]:
        options: dict[str, Any] = {"htk_compat": True, "use_energy": False, "window_type": "hanning"}
        return [
            torchaudio.compliance.kaldi.fbank(wave[None], num_mel_bins=128, dither=0.0, **options)
            for wave in waves[:64]
        ]

    peer = 1000 * 64 / milliseconds(loop, rounds=3)
    error = float((torch.stack(loop()) - log_mel(waves[:64])).abs().max())
    return result(
        "log-mel filterbank, clips of 2 s on the GPU",
        "clips/s",
        rate,
        peer=peer,
        peer_is="torchaudio on the GPU, one by one",
        goal=f">= {FILTERBANK_GOAL:,}",
        met=rate >= FILTERBANK_GOAL,
        note=f"largest difference {error:.1e}",
    )


def run() -> list[dict[str, Any]]:
    """The filterbank, pictures through two sizes of model, sounds."""
    torch.backends.cuda.matmul.allow_tf32 = False
    rows = [filterbank()]
    rng = np.random.default_rng(0)
    small, large, wavs = photographs([SMALL] * 32), photographs([LARGE] * 2), sounds(32)
    mixed = photographs([(int(width), int(height)) for width, height in rng.integers(300, 900, (64, 2))])
    plain, ours = vit_b32(torch.float32), vit_b32(torch.bfloat16)
    ours.accelerate()
    for what, contents, isolated, on_gpu, reference in (
        ("640 x 480 JPEG", small, 8192, 32_768, 512),
        ("JPEG of 300 to 900 pixels, 64 sizes,", mixed, 4096, 16_384, 256),
        ("12-megapixel JPEG", large, 512, 1024, 16),
    ):
        counts = {"reference": reference, "isolated": isolated, "gpu": on_gpu}
        rows += compare(f"{what} to vector, ViT-B/32's size", "image", ours, plain, contents, counts, 10)
    huge: dict[str, Any] = {"weights": "random", "device": "cuda", "modalities": ["image", "audio"]}
    plain, ours = zoo.load("imagebind-huge", **huge), zoo.load("imagebind-huge", dtype="bfloat16", **huge)
    ours.accelerate()
    counts = {"reference": 256, "isolated": 6144, "gpu": 6144}
    rows += compare("640 x 480 JPEG to vector, ViT-H/14", "image", ours, plain, small, counts, 3)
    counts = {"reference": 256, "isolated": 6144}
    what = f"WAV of {SOUND_S} s to vector, ImageBind's audio tower"
    return rows + compare(what, "audio", ours, plain, wavs, counts, 0)
