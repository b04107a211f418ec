from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bind.encoders import motion

RATE_HZ = 50.0


def shaken(hertz: float, count: int = 300, seed: int = 0) -> Tensor:
    """(1, 6, T): gravity along z, an oscillation along x and about y, a little noise."""
    generator = torch.Generator().manual_seed(seed)
    time_s = torch.arange(count) / RATE_HZ
    x = 0.01 * torch.randn(1, 6, count, generator=generator)
    x[0, 0] += 3 * torch.sin(2 * math.pi * hertz * time_s)
    x[0, 2] += 9.81
    x[0, 4] += torch.cos(2 * math.pi * hertz * time_s)
    return x


def built() -> motion.Motion:
    torch.manual_seed(0)
    return motion.build({"shape": (6, 300), "rate_hz": RATE_HZ, "widths": (16, 8)}).eval()


def test_statistics_are_finite_and_as_many_as_said() -> None:
    still = torch.zeros(2, 6, 300)  # no gravity, no gyroscope, nothing
    for x in (still, shaken(2.0), 1e5 * shaken(2.0)):
        values, known = motion.statistics(x, RATE_HZ)
        assert values.shape == (len(x), motion.statistics_count())
        assert known.shape == (len(x), motion.statistics_count() + 2)
        assert values.isfinite().all()


def test_the_energy_is_in_the_band_of_the_oscillation() -> None:
    spectra = motion._spectra(torch.stack([shaken(1.2)[0, :1], shaken(5.0)[0, :1]]), RATE_HZ)[:, 0]
    bands = len(motion._BANDS_HZ)
    slow, fast = spectra[:, :bands].argmax(1).tolist()
    edges = (0.1, *motion._BANDS_HZ)
    assert edges[slow] <= 1.2 < edges[slow + 1]
    assert edges[fast] <= 5.0 < edges[fast + 1]


def test_a_missing_gyroscope_is_said_and_never_read() -> None:
    with_it, without = shaken(2.0), shaken(2.0)
    without[:, 3:] = 0
    _, known = motion.statistics(torch.cat([with_it, without]), RATE_HZ)
    assert known[:, -2].tolist() == [1, 0]
    assert known[1].sum() < known[0].sum()
    # Whatever the statistics of a missing gyroscope were in training, they change nothing.
    encoder = built()
    before = encoder(without)
    needs = known[0, :-2] != known[1, :-2]
    encoder.mean[needs] += 3
    torch.testing.assert_close(encoder(without), before)
    assert (encoder(with_it) - built()(with_it)).abs().max() > 1e-3


def test_missing_gravity_is_said() -> None:
    linear = shaken(2.0)
    linear[:, 2] -= 9.81
    _, known = motion.statistics(torch.cat([shaken(2.0), linear]), RATE_HZ)
    assert known[:, -1].tolist() == [1, 0]


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 6, 300\)"):
        built()(torch.zeros(1, 6, 200))
    with pytest.raises(ValueError, match="6 channels"):
        motion.build({"shape": (3, 300), "rate_hz": 50.0, "widths": (8,)})
    with pytest.raises(ValueError, match=r"missing keys \['rate_hz'\]"):
        motion.build({"shape": (6, 300), "widths": (8,)})
    with pytest.raises(ValueError, match=r"unknown keys \['depth'\]"):
        motion.build({"shape": (6, 300), "rate_hz": 50.0, "widths": (8,), "depth": 2})
