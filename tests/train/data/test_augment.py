"""Augmentations of sensors against what a sensor that is worn or adjusted otherwise would have read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from preprocess.readers.audio import AudioConfig
from preprocess.readers.depth import DepthConfig
from preprocess.readers.imu import ImuConfig
from tests.train.conftest import table
from train.data import augment
from train.trainer import run as runs
from train.trainer.schema import Augment

IMU = ImuConfig(rate_hz=50, window_s=2, mean=(0, 0, 9, 0, 0, 0), std=(2, 3, 4, 0.5, 0.6, 0.7))
SEEDS = [[seed] for seed in range(40)]


def recordings() -> Tensor:
    """(40, 6, 100) normalised, of a sensor that is moved about: gravity lies along its z on average."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40, 6, 100, generator=generator).cumsum(2) / 10
    values[:, :3] -= values[:, :3].mean(2, keepdim=True)
    values[:, 2] += 9.81
    return normalised(values)


def normalised(values: Tensor) -> Tensor:
    return (values - torch.tensor(IMU.mean)[:, None]) / torch.tensor(IMU.std)[:, None]


def si(x: Tensor) -> Tensor:
    return x * torch.tensor(IMU.std)[:, None] + torch.tensor(IMU.mean)[:, None]


def imu(**settings: float) -> Tensor:
    """(40, 6, 100) in SI units, after augmentation."""
    return si(augment.sense(recordings(), "imu", IMU, SEEDS, Augment(**settings)))  # type: ignore[arg-type]


def test_a_turned_sensor_reads_the_same_motion_in_other_axes() -> None:
    plain, turned, tilted = si(recordings()), imu(turn_deg=180), imu(tilt_deg=20)
    for found in (turned, tilted):
        for group in (slice(0, 3), slice(3, 6)):
            # Lengths and angles between any two moments stay: one rotation for all of a view.
            one, other = (values[:, group].transpose(1, 2) @ values[:, group] for values in (plain, found))
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(turned[:, 2], plain[:, 2], rtol=0, atol=1e-3)  # about gravity: it stays along z
    assert (turned[:, 0] - plain[:, 0]).abs().amax(1).median() > 0.2
    down = torch.nn.functional.normalize(tilted[:, :3].mean(2), dim=1)[:, 2]
    angles = torch.rad2deg(torch.arccos(down.clamp(-1, 1)))
    assert angles.max() <= 20.01
    assert angles.max() > 10
    # Accelerometer and gyroscope sit on one board.
    crossed = [(values[:, :3].transpose(1, 2) @ values[:, 3:]) for values in (plain, turned)]
    torch.testing.assert_close(*crossed, rtol=1e-4, atol=1e-3)


def test_a_shift_moves_in_time_and_mirrors_at_the_ends() -> None:
    plain, shifted = si(recordings()), imu(shift=0.25)
    steps = []
    for one, other in zip(plain, shifted, strict=True):
        mirrored = torch.cat([one.flip(1), one, one.flip(1)], 1)
        found = [s for s in range(-25, 26) if torch.allclose(mirrored[:, 100 + s : 200 + s], other, atol=1e-4)]
        steps += found
    assert len(steps) == 40
    assert len(set(steps)) > 15


def test_scale_is_by_sensor_and_noise_by_its_spread() -> None:
    plain, scaled = si(recordings()), imu(scale=0.1)
    factors = (scaled / plain).median(2).values
    torch.testing.assert_close(scaled, plain * factors[..., None], rtol=1e-4, atol=1e-4)
    assert (factors[:, 0] - factors[:, 2]).abs().max() < 1e-3  # one for the accelerometer
    assert (factors[:, 0] - factors[:, 3]).abs().max() > 0.05  # another for the gyroscope
    assert 0.05 < (factors - 1).abs().max() <= 0.1001
    noise = augment.sense(recordings(), "imu", IMU, SEEDS, Augment(noise=0.5)) - recordings()
    spread = recordings().view(40, 2, 3, 100).std((2, 3))
    torch.testing.assert_close(
        noise.view(40, 2, 3, 100).std((2, 3)) / spread, torch.full((40, 2), 0.5), rtol=0.15, atol=0
    )


def test_depth_is_scaled_in_disparity() -> None:
    config = DepthConfig(size=8)
    values = torch.rand(40, 1, 8, 8) * 0.1
    x = (values - config.mean) / config.std
    found = augment.sense(x, "depth", config, SEEDS, Augment(scale=0.2)) * config.std + config.mean
    factors = found / values
    torch.testing.assert_close(factors, factors[:, :, :1, :1].expand_as(factors), rtol=1e-3, atol=1e-3)
    assert 0.1 < (factors - 1).abs().max() <= 0.2001


def spectrograms(config: AudioConfig) -> Tensor:
    """(40, 1, 16, 20) of noise in a band that depends on the item, over a quiet floor; normalised."""
    values = torch.full((40, 1, 16, 20), -12.0)
    for number in range(40):
        values[number, :, number % 16] = -2.0
    return (values - config.mean) / config.std


def test_louder_is_a_shift_of_the_logarithm_and_mixed_powers_add() -> None:
    config = AudioConfig(num_mel_bins=16, frames=20)
    x = spectrograms(config)
    louder = (augment.sense(x, "audio", config, SEEDS, Augment(gain_db=10)) - x) * config.std * 10 / np.log(10)
    torch.testing.assert_close(louder, louder[..., :1, :1].expand_as(louder), rtol=1e-3, atol=1e-3)
    assert 5 < louder.abs().max() <= 10.001
    mixed = augment.mix(x, x.roll(1, 0), config, SEEDS, Augment(mix=0.5)) * config.std + config.mean
    own = x * config.std + config.mean
    changed = (mixed - own).abs().amax((1, 2, 3)) > 1e-6
    assert 10 < changed.sum() < 30
    for number in torch.nonzero(changed).flatten().tolist():
        power = (mixed[number].exp() - own[number].exp())[0, (number - 1) % 16, 0]
        assert 10**-2.0 * 0.9 < power / np.exp(-2.0) < 1.1  # the other's band, 0 to 20 dB softer
        assert mixed[number, 0, :, 0].argmax() == number % 16


def test_each_item_has_its_own_randomness() -> None:
    """The same in whatever batch it stands, and another in another step."""
    settings = Augment(turn_deg=90, tilt_deg=10, shift=0.1, scale=0.1, noise=0.1)
    whole = augment.sense(recordings(), "imu", IMU, SEEDS, settings)
    part = augment.sense(recordings()[7:9], "imu", IMU, SEEDS[7:9], settings)
    torch.testing.assert_close(whole[7:9], part, rtol=0, atol=1e-5)
    assert (augment.sense(recordings()[7:9], "imu", IMU, [[99], [98]], settings) - part).abs().max() > 0.1
    assert torch.equal(augment.sense(recordings(), "imu", IMU, SEEDS, Augment()), recordings())


def test_settings_for_another_sensor_are_refused(data: Path, tmp_path: Path) -> None:
    wrong: dict[str, Any] = {"turn_deg": 30, "gain_db": 6, "noise": 0.1}
    with pytest.raises(runs.RunError) as caught:
        runs.parse(table(tmp_path, pair={"augment": wrong}), data)
    assert "augment.turn_deg: is for imu" in str(caught.value)
    assert "augment.gain_db: is for audio" in str(caught.value)
    assert "2 error(s)" in str(caught.value)


SETTINGS = Augment(views=4, crop=0.3, flip=True, jitter=0.3)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 50))
def test_crops_are_aligned_and_reproducible(item: bytes, view: int) -> None:
    depth = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    picture = depth.expand(1, 3, 16, 16) * 2
    variants = augment.variants([item], [view], SETTINGS)
    torch.testing.assert_close(augment.crop(picture, variants)[:, :1], augment.crop(depth, variants) * 2)
    assert torch.equal(variants, augment.variants([item], [view], SETTINGS))
    scale = variants[0, :2].abs()
    assert (scale <= 1).all()
    assert scale.prod() >= 0.3 * 0.9  # a crop that would stick out at one side is cut there
    assert (variants[0, 2:4].abs() + scale <= 1 + 1e-6).all()


def test_crop_is_exact_on_a_quarter_and_a_flip() -> None:
    x = torch.arange(64.0).view(1, 1, 8, 8)
    assert torch.equal(augment.crop(x, torch.tensor([[1.0, 1, 0, 0, 1, 1, 0]])), x)
    flipped = augment.crop(x, torch.tensor([[1.0, 1, 0, 0, -1, 1, 0]]))
    torch.testing.assert_close(flipped, x.flip(-1))
    quarter = augment.crop(x, torch.tensor([[0.5, 0.5, -0.5, -0.5, 1, 1, 0]]))
    expected = torch.nn.functional.interpolate(x[..., :5, :5], scale_factor=2, mode="bilinear")[..., :8, :8]
    torch.testing.assert_close(quarter[..., :7, :7], expected[..., :7, :7])


def test_spectrograms_lose_rows_and_columns_and_pictures_rectangles() -> None:
    spectrograms = torch.ones(50, 1, 20, 30)
    augment.blank(spectrograms, [[n] for n in range(50)], Augment(frequency_mask=4, time_mask=6, erase=1.0))
    for view in spectrograms[:, 0]:
        assert (view == 0).all(1).sum() <= 4
        assert (view == 0).all(0).sum() <= 6
        gone = (view == 0).all(1)[:, None] | (view == 0).all(0)
        assert ((view == 0) == gone).all()
    assert (spectrograms == 0).any()
    pictures = augment.blank(torch.ones(50, 1, 20, 20), [[n] for n in range(50)], Augment(erase=0.5))
    erased = (pictures == 0).flatten(1).float().mean(1)
    assert 10 < (erased > 0).sum() < 40
    assert erased.max() <= 1 / 3
