"""Inertial measurements: CSV, parquet, `.npy` or array of accelerometer and gyroscope -> windows of (6, samples).

Channels are always acceleration x, y, z in m/s2, then rotation rate x, y, z in rad/s; rows are moments in time.
What is repaired or assumed (sorted rows, filled gaps, unknown units, a missing gyroscope) is said in `notes`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from preprocess.decoding.protocol import Returns, reads_beside, returns
from preprocess.readers.imu.layouts import recording_of
from preprocess.readers.imu.series import ImuSeries, read_imu
from preprocess.readers.imu.units import CHANNELS
from preprocess.readers.imu.windows import Gaps, ImuConfig, shape, spans, stretch, view
from preprocess.source import Limits, MediaError, Plan, Segment, Source

if TYPE_CHECKING:
    import torch

__all__ = ["CHANNELS", "ImuConfig", "ImuSeries", "prepare", "read", "read_imu", "shape"]


def prepare(views: np.ndarray, config: ImuConfig) -> torch.Tensor:
    """Views (K, 6, samples) in m/s2 and rad/s -> float32 (x - mean) / std. Raises ValueError for another shape."""
    import torch  # decode workers import this module and need no torch

    if views.shape[1:] != shape(config):
        raise ValueError(f"imu: expected views (K, {shape(config)[0]}, {shape(config)[1]}), got {views.shape}")
    mean, std = (np.asarray(constant, dtype=np.float64)[:, None] for constant in (config.mean, config.std))
    return torch.from_numpy(np.ascontiguousarray((views - mean) / std, dtype=np.float32))


def _declare(config: ImuConfig, limits: Limits, plan: Plan) -> Returns:
    if plan == "whole":
        return Returns("float32", shape(config), config.clips)
    return Returns("float32", shape(config), 1, 1 + math.ceil(limits.max_duration_s / config.window_s))


@reads_beside(recording_of)
@returns(_declare)
def read(source: Source, config: ImuConfig, limits: Limits, plan: Plan) -> list[Segment]:
    """A recording -> views (K, 6, samples) float32 in m/s2 and rad/s at `rate_hz`, K windows of `window_s`.

    Content: CSV or TSV with a header, parquet, `.npy`, or an array (T, 6) or (T, 3) in memory; see `read_imu`. Windows
    follow one another, the last one ends with the recording (it may overlap the one before). `whole`: up to `clips`
    of them, evenly spaced; `segments`: each is a segment. Windows that are mostly gap are left out; shorter gaps are
    interpolated. A recording shorter than a window is mirrored back and forth to fill it. `hints.start_s` and `end_s`
    confine all this to a part.

    Raises MediaError for what `read_imu` refuses, less than 0.5 s, more than `max_duration_s`, and a rate below
    1 / `max_gap_s`.
    """
    series = read_imu(source, limits)
    if series.period_s > config.max_gap_s:
        raise MediaError(
            source.name,
            f"is sampled at {1 / series.period_s:.3g} Hz; expected at least {1 / config.max_gap_s:.3g} Hz"
            " (raise max_gap_s to allow it)",
        )
    begin_s, end_s = stretch(source, series, limits)
    windows = spans(begin_s, end_s, config.window_s, series.period_s)
    gaps = Gaps(series.time_s, config.max_gap_s)
    usable = [span for span in windows if gaps.between(*span) <= 0.5 * (span[1] - span[0])]
    if not usable:
        raise MediaError(source.name, f"is mostly gaps: {gaps.describe(begin_s, end_s)[0]}; record it again or cut it")
    notes = series.notes
    if len(usable) < len(windows):
        notes += (f"{len(windows) - len(usable)} of {len(windows)} windows were mostly gap: left out",)
    if end_s - begin_s < config.window_s - series.period_s:
        notes += (f"{end_s - begin_s:.2f} s do not fill the {config.window_s:g} s window: mirrored to fill it",)
    if plan == "segments":
        return [
            Segment(
                view(series, first_s, last_s, config)[None], first_s, last_s, notes + gaps.describe(first_s, last_s)
            )
            for first_s, last_s in usable
        ]
    chosen = np.linspace(0, len(usable) - 1, min(config.clips, len(usable))).round().astype(int)
    views = np.stack([view(series, usable[i][0], usable[i][1], config) for i in chosen])
    return [Segment(views, begin_s, end_s, notes + gaps.describe(begin_s, end_s))]
