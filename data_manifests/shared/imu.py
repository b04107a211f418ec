"""Writers of motion recordings, in the formats that `preprocess.readers.imu` reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from preprocess.readers.imu import CHANNELS


def write_csv(path: Path, values: np.ndarray, rate_hz: float, units: tuple[str, str] | None) -> None:
    """Writes `values` (T, 6) in the order of `CHANNELS` as a CSV with times.

    `units` (acceleration, rotation) go into its header; without them the reader takes m/s2 and rad/s.
    """
    per_channel = [""] * 6 if units is None else [f" [{units[0]}]"] * 3 + [f" [{units[1]}]"] * 3
    titles = ["time [s]", *(name + unit for name, unit in zip(CHANNELS, per_channel, strict=True))]
    rows = np.column_stack([np.arange(len(values)) / rate_hz, values])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, rows, fmt="%.7g", delimiter=",", header=",".join(titles), comments="")


def write_npy(path: Path, values: np.ndarray) -> None:
    """Writes `values` (T, 6) in the order of `CHANNELS` as a `.npy`; the manifest has the rate and the units."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values.astype(np.float32))
