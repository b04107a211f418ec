"""A model of fixed random weights that embeds anything in microseconds, and small media to embed. For tests."""

from __future__ import annotations

import sqlite3
import wave
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bind import description
from bind.model.model import BindModel
from bind.model.towers import Tower

DIM = 32
PREPROCESS = {
    "image": {"size": 16, "resize": 16},
    "video": {"size": 16, "crops": 1, "clips": 2, "stack_frames": False, "segment_s": 2.0, "clip_s": 1.0},
    "audio": {"num_mel_bins": 16, "segment_s": 2.0},
    "text": {"tokenizer": "minilm", "context_length": 16},
}
SENSORS = {"depth": {"size": 16}, "thermal": {"size": 16}, "imu": {"rate_hz": 100.0, "window_s": 1.0}}
_WIDTHS = {"image": 768, "video": 768, "audio": 16 * 204, "depth": 256, "thermal": 256, "imu": 600}


class _Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(31_000, DIM, mode="sum")

    def forward(self, x: Tensor) -> Tensor:
        summed: Tensor = self.table(x)
        return summed


def seven() -> BindModel:
    """A model with all modalities."""
    return model(preprocess=PREPROCESS | SENSORS)


def model(
    seed: int = 0,
    modalities: Collection[str] | None = None,
    preprocess: Mapping[str, Mapping[str, object]] = PREPROCESS,
) -> BindModel:
    """The same weights for the same seed; another seed is another space."""
    table = {
        "format": 1,
        "name": f"tiny-{seed}",
        "dim": DIM,
        "license": "none",
        "modalities": {
            name: {"encoder": {"module": "tiny"}, "head": {"type": "identity"}, "preprocess": values}
            for name, values in preprocess.items()
        },
    }
    towers: dict[str, Tower] = {}
    for number, name in enumerate(preprocess):
        torch.manual_seed(1000 * seed + number)
        size = _WIDTHS.get(name)
        trunk: nn.Module = _Words() if size is None else nn.Sequential(nn.Flatten(), nn.Linear(size, DIM))
        if modalities is None or name in modalities:
            towers[name] = Tower(trunk, nn.Identity())
    return BindModel(description.parse(table, "tiny"), towers, {"all": str(seed)})


def picture(path: Path, seed: int) -> Path:
    """A picture of its own for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 24, 3), np.uint8)).save(path)
    return path


def pictures(folder: Path, count: int) -> None:
    """`count` different pictures, 100 a folder. Bitmaps, so that making and reading thousands takes no time."""
    for number in range(count):
        picture(folder / f"{number // 100:03}" / f"{number:05}.bmp", number)


def sound(path: Path, hz: float, seconds: float = 1.0) -> Path:
    """A tone."""
    times = np.arange(round(16_000 * seconds)) / 16_000
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes((np.sin(2 * np.pi * hz * times) * 20_000).astype("<i2").tobytes())
    return path


def clip(path: Path, seconds: float = 5.0, hz: float | None = 440.0) -> Path:
    """A film of changing colours, with a tone unless `hz` is None."""
    import av

    with av.open(str(path), "w") as out:
        pictures = out.add_stream("mpeg4", rate=10)
        pictures.width = pictures.height = 32
        pictures.pix_fmt = "yuv420p"
        tone = None if hz is None else out.add_stream("aac", rate=16_000, layout="mono")
        for number in range(round(10 * seconds)):
            colour = np.full((32, 32, 3), (25 * number) % 255, np.uint8)
            out.mux(pictures.encode(av.VideoFrame.from_ndarray(colour, "rgb24")))
        out.mux(pictures.encode(None))
        if tone is not None:
            times = np.arange(round(16_000 * seconds)) / 16_000
            samples = (np.sin(2 * np.pi * (hz or 0) * times) * 0.5).astype(np.float32)[None]
            for start in range(0, samples.shape[1], 1024):
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(samples[:, start : start + 1024]), "fltp", "mono"
                )
                frame.sample_rate = 16_000
                frame.pts = start
                out.mux(tone.encode(frame))
            out.mux(tone.encode(None))
    return path


def as_format_3(connection: sqlite3.Connection) -> None:
    """Takes away what format 4 of a catalogue has more: marks, albums and the order of files."""
    for table in ("members", "albums", "marks"):
        connection.execute(f"DROP TABLE {table}")
    indexes = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'files' AND sql IS NOT NULL"
    for (name,) in connection.execute(indexes).fetchall():
        if name != "files_by_content":
            connection.execute(f"DROP INDEX {name}")
    connection.execute("ALTER TABLE files DROP COLUMN changed")
