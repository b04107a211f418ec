from __future__ import annotations

import numpy as np
import pytest
import soxr
import torch
import torchaudio

from preprocess.dsp import resampling
from preprocess.dsp.resampling import resampled

WANTED = 16_000


def noise(rate: int, seconds: float) -> np.ndarray:
    return np.random.default_rng(rate).uniform(-1, 1, round(rate * seconds)).astype(np.float32)


def reference(samples: np.ndarray, rate: int) -> np.ndarray:
    return torchaudio.functional.resample(torch.from_numpy(samples).double()[None], rate, WANTED)[0].numpy()


def ours(samples: np.ndarray, rate: float, block: int = 65_536) -> np.ndarray:
    blocks = (samples[start : start + block] for start in range(0, len(samples), block))
    return np.concatenate(list(resampled(blocks, rate, WANTED)))


@pytest.mark.parametrize("rate", [1_000, 7_350, 8_000, 11_025, 22_050, 32_000, 44_056, 44_100, 48_000, 96_000, 192_000])
def test_it_is_the_references(rate: int) -> None:
    samples = noise(rate, 1.3)
    expected = reference(samples, rate)
    found = ours(samples, rate)
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_tolerance_above_notices_another_filter() -> None:
    samples = noise(44_100, 1)
    expected = reference(samples, 44_100)
    other = soxr.resample(samples, 44_100, WANTED)[: len(expected)]
    assert np.abs(other - expected).max() > 0.01


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
@pytest.mark.parametrize("block", [1, 7, 441, 1_000])
def test_blocks_of_any_size_give_the_same(rate: int, block: int) -> None:
    samples = noise(rate, 0.05)
    np.testing.assert_allclose(ours(samples, rate, block), ours(samples, rate), atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 440, 441, 442, 5_000])
def test_lengths_are_the_references(count: int) -> None:
    samples = noise(44_100, 1)[:count]
    found = list(resampled(iter([samples]), 44_100, WANTED))
    assert sum(map(len, found)) == -(-count * WANTED // 44_100)


def test_the_same_rate_is_passed_on() -> None:
    samples = noise(WANTED, 0.1)
    np.testing.assert_array_equal(ours(samples, WANTED, 100), samples)


@pytest.mark.parametrize("rate", [44_100.5, 999_983])
def test_odd_rates_go_through_soxr(rate: float) -> None:
    time_s = np.arange(round(rate / 4)) / rate
    found = ours(np.sin(2 * np.pi * 1000 * time_s).astype(np.float32), rate)
    expected = np.sin(2 * np.pi * 1000 * np.arange(len(found)) / WANTED)
    assert abs(len(found) - WANTED / 4) <= 1
    np.testing.assert_allclose(found[400:-400], expected[400:-400], atol=1e-3)


def test_filters_are_made_once() -> None:
    assert resampling._filters(44_100, WANTED) is resampling._filters(44_100, WANTED)
