"""Where a long recording may be cut: at the onsets of sound behind pauses."""

from __future__ import annotations

import itertools

import numpy as np

FRAME_S = 0.01
"""The length of a frame whose loudness is measured; an onset is known to this precision."""
_LOUD_PERCENTILE = 95
"""The loudness of a recording in percent of its frames. Its maximum would be that of a single click."""
_BELOW_DB = 30.0
"""A frame is quiet when it is so much softer than the loud frames (the percentile above) of the recording."""
_PAUSE_S = 0.3
"""The shortest pause: pauses between the words of a sentence are shorter."""


class Loudness:
    """The mean square of each frame of a signal that comes in blocks."""

    def __init__(self, rate_hz: float) -> None:
        self.frame = max(1, round(rate_hz * FRAME_S))
        self._rest = np.empty(0, np.float32)
        self._powers: list[np.ndarray] = []

    def add(self, block: np.ndarray) -> None:
        """The next samples (T,)."""
        samples = np.concatenate([self._rest, block])
        whole = len(samples) // self.frame * self.frame
        frames = samples[:whole].reshape(-1, self.frame)
        self._powers.append(np.einsum("nt,nt->n", frames, frames, dtype=np.float64) / self.frame)
        self._rest = samples[whole:]

    def onsets(self) -> list[int]:
        """The sample numbers at which sound begins again behind a pause."""
        powers = np.concatenate([*self._powers, np.empty(0)])
        if not len(powers) or not powers.any():
            return []
        quiet = powers < np.percentile(powers, _LOUD_PERCENTILE) * 10 ** (-_BELOW_DB / 10)
        changes = np.flatnonzero(np.diff(quiet.astype(np.int8), prepend=0, append=0))
        pauses = changes.reshape(-1, 2)  # (first quiet frame, first loud one)
        return [
            int(end) * self.frame for start, end in pauses if end - start >= _PAUSE_S / FRAME_S and end < len(powers)
        ]


def edges(count: int, onsets: list[int], shortest: int, longest: int) -> list[int]:
    """`count` samples and the onsets in them -> the edges of segments, from 0 to `count`.

    A segment begins at an onset and ends at the next one that leaves both sides `shortest` samples. One that has more
    than `longest` is cut every `longest`, and a rest shorter than `shortest` joins the segment before it.
    """
    found = [0]
    for onset in onsets:
        if onset - found[-1] >= shortest and count - onset >= shortest:
            found.append(onset)
    found.append(count)
    cut: list[int] = []
    for first, last in itertools.pairwise(found):
        cut += range(first, max(first + 1, last - shortest + 1), max(shortest, longest))
    return [*cut, count]
