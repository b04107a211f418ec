"""Sound of one rate -> another, by the filter that ImageBind was trained with: torchaudio's `functional.resample`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import soxr

# torchaudio's defaults: a sinc cut off at 0.99 of Nyquist, of 6 zero crossings to either side, under a Hann window.
_ROLLOFF, _CROSSINGS = 0.99, 6
# Outputs of one matrix product: with fewer, products are small; with more, most of the matrix is zeros.
_BAND = 24
_LEAST_PERIOD = 120  # outputs. One step from period to period is then longer than the filter, which BLAS needs.
_MOST_WEIGHTS = 2**22


def resampled(blocks: Iterator[np.ndarray], rate_hz: float, wanted_hz: int) -> Iterator[np.ndarray]:
    """Blocks (T,) of float samples at `rate_hz` -> blocks float32 at `wanted_hz`; T samples become T * wanted / rate.

    Equal to torchaudio in float64 to 1e-6 of full scale; in float32 it rounds its filter's arguments and is 1e-5 to
    1e-4 off. Rates that are no whole numbers, and such as would need a large matrix, go through soxr, whose filter is
    steeper.
    """
    if rate_hz == wanted_hz:
        return blocks
    filters = _filters(int(rate_hz), wanted_hz) if rate_hz == int(rate_hz) else None
    return _by_soxr(blocks, rate_hz, wanted_hz) if filters is None else _filtered(blocks, filters)


class _Band(NamedTuple):
    """Outputs [first, last) of a period: inputs from `low` on times `weights` (inputs, outputs)."""

    first: int
    last: int
    low: int
    weights: np.ndarray


class _Filters(NamedTuple):
    """`inputs` samples give `outputs`, period after period; the first input of the first is `before` samples early."""

    inputs: int
    outputs: int
    before: int
    bands: tuple[_Band, ...]


@lru_cache(maxsize=16)
def _filters(rate_hz: int, wanted_hz: int) -> _Filters | None:
    """The matrices from one rate to another; None where they would be too large."""
    common = math.gcd(rate_hz, wanted_hz)
    periods = math.ceil(_LEAST_PERIOD * common / wanted_hz)
    inputs, outputs = periods * rate_hz // common, periods * wanted_hz // common
    cutoff = min(inputs, outputs) * _ROLLOFF
    reach = _CROSSINGS * inputs / cutoff
    if outputs * (2 * reach + _BAND * inputs / outputs) > _MOST_WEIGHTS:
        return None
    before = math.ceil(reach)
    bands = []
    for first in range(0, outputs, _BAND):
        last = min(first + _BAND, outputs)
        low = math.floor(first * inputs / outputs - reach)
        at = np.arange(low, math.ceil((last - 1) * inputs / outputs + reach) + 1)
        t = (at[:, None] / inputs - np.arange(first, last) / outputs) * cutoff
        t = t.clip(-_CROSSINGS, _CROSSINGS)
        weights = np.sinc(t) * np.cos(t * np.pi / _CROSSINGS / 2) ** 2 * cutoff / inputs
        bands.append(_Band(first, last, low + before, weights.astype(np.float32)))
    return _Filters(inputs, outputs, before, tuple(bands))


def _filtered(blocks: Iterator[np.ndarray], filters: _Filters) -> Iterator[np.ndarray]:
    inputs, outputs, before, bands = filters
    span = max(band.low + len(band.weights) for band in bands)

    def periods(samples: np.ndarray, count: int) -> np.ndarray:
        out = np.empty((count, outputs), np.float32)
        for first, last, low, weights in bands:
            shape, strides = (count, len(weights)), (4 * inputs, 4)
            rows: np.ndarray = np.ndarray(
                shape, np.float32, samples, 4 * low, strides
            )  # as_strided takes longer than the product
            np.matmul(rows, weights, out=out[:, first:last])
        return out.reshape(-1)

    waiting, came, given = np.zeros(before, np.float32), 0, 0
    for block in blocks:
        came += len(block)
        waiting = np.concatenate([waiting, block], dtype=np.float32)
        if (count := (len(waiting) - span) // inputs + 1) > 0:
            given += count * outputs
            yield periods(waiting, count)
            waiting = waiting[count * inputs :]
    left = -(-came * outputs // inputs) - given
    if left > 0:
        count = -(-left // outputs)
        padded = np.zeros(span + (count - 1) * inputs, np.float32)
        padded[: len(waiting)] = waiting[: len(padded)]
        yield periods(padded, count)[:left]


def _by_soxr(blocks: Iterator[np.ndarray], rate_hz: float, wanted_hz: int) -> Iterator[np.ndarray]:
    resampler = soxr.ResampleStream(rate_hz, wanted_hz, 1, dtype="float32")
    for block in blocks:
        yield resampler.resample_chunk(block.astype(np.float32, copy=False))
    yield resampler.resample_chunk(np.empty(0, np.float32), last=True)
