"""Windows of a recording: where they lie, how much of each is gap, and their samples at one rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from preprocess.readers.imu.series import ImuSeries
from preprocess.readers.imu.units import CHANNELS, SHORTEST_S
from preprocess.source import Hints, Limits, MediaError, Source

_MAX_DECIMATION = 64
"""The largest factor of decimation, which bounds the length of its low-pass filter: 10 kHz become 156 Hz."""


@dataclass(frozen=True)
class ImuConfig:
    """Preprocessing constants. ImageBind takes 6 x 2000 for 5 s (arXiv 2305.05665, app. B: Ego4D clips).

    Its normalisation is not published, so the default leaves m/s2 and rad/s as they are. `clips` windows at most
    stand for a whole recording; `max_gap_s` is the longest pause between samples that is no gap.
    """

    rate_hz: float = 400.0
    window_s: float = 5.0
    mean: tuple[float, ...] = (0.0,) * 6
    std: tuple[float, ...] = (1.0,) * 6
    max_gap_s: float = 0.2
    clips: int = 3


def shape(config: ImuConfig) -> tuple[int, int]:
    """(6 channels, samples of one window)."""
    return (len(CHANNELS), round(config.rate_hz * config.window_s))


def stretch(source: Source, series: ImuSeries, limits: Limits) -> tuple[float, float]:
    """The part to use, in seconds."""
    hints: Hints = source.hints
    begin_s = max(0.0, 0.0 if hints.start_s is None else hints.start_s)
    end_s = min(series.duration_s, math.inf if hints.end_s is None else hints.end_s)
    if not end_s - begin_s >= SHORTEST_S:
        which = "lasts" if (begin_s, end_s) == (0.0, series.duration_s) else "has between start_s and end_s only"
        raise MediaError(source.name, f"{which} {max(0.0, end_s - begin_s):.3f} s, expected at least {SHORTEST_S} s")
    if end_s - begin_s > limits.max_duration_s:
        raise MediaError(
            source.name,
            f"lasts {end_s - begin_s:,.0f} s, the limit is {limits.max_duration_s:,.0f} s (max_duration_s); "
            "choose a stretch with start_s and end_s",
        )
    return begin_s, end_s


def spans(begin_s: float, end_s: float, window_s: float, period_s: float) -> list[tuple[float, float]]:
    """Windows that cover all of it; the last one ends with it. A rest shorter than a sample's period is no window."""
    count = max(1, math.ceil((end_s - begin_s - 0.999 * period_s) / window_s))
    last_s = max(begin_s, end_s - window_s)
    starts = [min(begin_s + i * window_s, last_s) for i in range(count)]
    return [(start_s, min(start_s + window_s, end_s)) for start_s in starts]


class Gaps:
    """The pauses longer than `max_gap_s` between samples."""

    def __init__(self, time_s: np.ndarray, max_gap_s: float) -> None:
        before = np.flatnonzero(np.diff(time_s) > max_gap_s)
        self._edges = np.stack([time_s[before], time_s[before + 1]], axis=1)
        lengths = self._edges[:, 1] - self._edges[:, 0]
        self._passed = np.stack([np.cumsum(lengths) - lengths, np.cumsum(lengths)], axis=1)

    def between(self, begin_s: float, end_s: float) -> float:
        """Seconds of gap in a stretch."""
        if not len(self._edges):
            return 0.0
        begun, ended = np.interp([begin_s, end_s], self._edges.reshape(-1), self._passed.reshape(-1))
        return float(ended - begun)

    def describe(self, begin_s: float, end_s: float) -> tuple[str, ...]:
        """One note that names the first gaps of a stretch, or none."""
        inside = self._edges[(self._edges[:, 1] > begin_s) & (self._edges[:, 0] < end_s)]
        if not len(inside):
            return ()
        named = ", ".join(f"{first:.2f}-{last:.2f} s" for first, last in inside[:5])
        more = f" and {len(inside) - 5} more" if len(inside) > 5 else ""
        return (f"gaps without samples, interpolated: {named}{more}",)


def view(series: ImuSeries, begin_s: float, end_s: float, config: ImuConfig) -> np.ndarray:
    """(6, samples) float32 at `rate_hz` from `begin_s` on: interpolated linearly, low-passed if that is slower."""
    samples = shape(config)[1]
    wanted = min(samples, max(2, round((end_s - begin_s) * config.rate_hz)))
    # Interpolate on a grid at least as fine as the samples, then low-pass and keep every `step`-th of it. A rate
    # that is a few per cent above, by jitter, is taken as equal.
    step = min(_MAX_DECIMATION, max(1, math.ceil(1 / (series.period_s * config.rate_hz) - 0.05)))
    margin = 16 if step > 1 else 0  # the filter of resample_poly reaches 10 output samples to either side
    grid = begin_s + np.arange(-margin * step, (wanted + margin) * step) / (config.rate_hz * step)
    first, last = np.searchsorted(series.time_s, grid[[0, -1]])
    near = slice(max(0, int(first) - 1), int(last) + 1)
    times, values = series.time_s[near], series.values[near]
    view = np.stack([np.interp(grid, times, values[:, i]) for i in range(values.shape[1])])
    if step > 1:
        from scipy.signal import resample_poly  # slow to import, and needed by fast sensors only

        view = resample_poly(view, 1, step, axis=1, padtype="line")[:, margin : margin + wanted]
    # Mirrored, not repeated: a jump where the end meets the start would look like a blow.
    return np.pad(view, ((0, 0), (0, samples - wanted)), mode="reflect").astype(np.float32)
