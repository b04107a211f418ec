"""The offset between the clocks of a gyroscope and a camera, from what both see: how fast the device turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_CORRELATION = 0.3
"""A weaker correlation of motion and pictures is taken as chance."""
_LEAST_LEAD = 1.1
"""What the best offset must correlate more than any other one that is not beside it."""
_GRID_HZ = 100.0
"""The rate at which both signals are compared; an offset is known to 10 ms."""
_LEAST_S = 3.0
"""Seconds in which both signals have to be there; fewer correlate by chance."""
_BESIDE_S = 0.5
"""The second best offset is looked for so far from the best one, whose own peak is about so wide."""


@dataclass(frozen=True)
class Offset:
    """`seconds` to add to times of the motion so that they are those of the pictures, and how well both then agree.

    `is_sure` says whether it stands out; where not, `seconds` is 0.
    """

    seconds: float
    correlation: float
    is_sure: bool

    def __str__(self) -> str:
        if not self.is_sure:
            return f"no offset between motion and pictures found (correlation {self.correlation:.2f}): clocks kept"
        if self.seconds == 0:
            return f"motion and pictures agree as they are (correlation {self.correlation:.2f})"
        word = "late" if self.seconds < 0 else "early"
        return f"motion is {abs(self.seconds):.3f} s {word} (correlation {self.correlation:.2f}): moved"


def find_offset(
    motion_s: np.ndarray, rotation: np.ndarray, frame_s: np.ndarray, change: np.ndarray, most_s: float
) -> Offset:
    """The offset between two clocks, of at most `most_s` seconds.

    Args:
        motion_s: (T,) times of the gyroscope in s, ascending.
        rotation: (T, 3) rates in rad/s.
        frame_s: (N,) times of pictures in s, ascending.
        change: (N - 1,) how much each picture differs from the one before (mean absolute difference).
        most_s: The largest offset that is tried, in s.

    The magnitude of the rotation and the change are brought to one grid at 100 Hz and cross-correlated (Pearson's
    correlation of what overlaps); the peak is refined by a parabola.
    """
    if len(frame_s) < 4 or len(motion_s) < 4:
        return Offset(0.0, 0.0, False)
    # A difference is that of the time between two pictures, and the motion is averaged over as long.
    period_s = float(np.median(np.diff(frame_s)))
    middle_s = (frame_s[1:] + frame_s[:-1]) / 2
    begin, end = max(motion_s[0], middle_s[0]) - most_s, min(motion_s[-1], middle_s[-1]) + most_s
    grid = np.arange(begin, end, 1 / _GRID_HZ)
    turning = np.linalg.norm(rotation, axis=1)
    passed = np.concatenate([[0.0], np.cumsum((turning[1:] + turning[:-1]) / 2 * np.diff(motion_s))])
    around = [np.interp(grid + sign * period_s / 2, motion_s, passed) for sign in (1, -1)]
    one = np.where((grid >= motion_s[0]) & (grid <= motion_s[-1]), around[0] - around[1], np.nan)
    other = np.interp(grid, middle_s, change, left=np.nan, right=np.nan)
    lags = np.arange(-round(most_s * _GRID_HZ), round(most_s * _GRID_HZ) + 1)
    found = np.array([_correlation(one, other, int(lag)) for lag in lags])
    best = int(np.argmax(found))
    peak = float(found[best])
    others = found[np.abs(lags - lags[best]) > _BESIDE_S * _GRID_HZ]
    second = float(others.max()) if len(others) else 0.0
    at_the_edge = best in (0, len(lags) - 1)
    if peak < LEAST_CORRELATION or peak < _LEAST_LEAD * second or at_the_edge:
        return Offset(0.0, max(peak, 0.0), False)
    left, right = found[best - 1], found[best + 1]
    bend = left - 2 * peak + right
    refined = lags[best] + (0.5 * (left - right) / bend if bend < 0 else 0.0)
    seconds = float(refined) / _GRID_HZ
    return Offset(0.0 if abs(seconds) < 1 / (2 * _GRID_HZ) else seconds, peak, True)


def _correlation(one: np.ndarray, other: np.ndarray, lag: int) -> float:
    """Of `one`, moved to later by `lag` steps, with `other`, where both are known; -1 where that is too short."""
    a, b = (one[: len(one) - lag], other[lag:]) if lag >= 0 else (one[-lag:], other[:lag])
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < _LEAST_S * _GRID_HZ:
        return -1.0
    a, b = a[both] - a[both].mean(), b[both] - b[both].mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0 else -1.0
