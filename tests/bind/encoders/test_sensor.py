from __future__ import annotations

import pytest
import torch

from bind import checkpoint
from bind.encoders import efficientnet, load, sensor
from train.small import sensors

OPTIONS = {"model": "tf_efficientnet_lite0", "outputs": ("pooled", "quarters")}


def views(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_unit_and_range_do_not_matter() -> None:
    torch.manual_seed(0)
    encoder = sensor.build(OPTIONS).eval()
    kelvin = 290 + 20 * views()
    with torch.inference_mode():
        features, of_kelvin, turned = encoder(views()), encoder(kelvin), encoder(1 - views())
    assert features.shape == (2, encoder.width) == (2, 1280 + 2816)
    torch.testing.assert_close(of_kelvin, features, rtol=1e-3, atol=1e-3)
    assert (turned - features).abs().max() > 0.01  # polarity does


def test_a_picture_without_contrast_is_grey() -> None:
    assert (sensor.stretched(torch.full((1, 1, 30, 30), 7.0), 1, 99) == 0.5).all()
    outlier = torch.rand(1, 1, 90, 90)
    outlier[0, 0, 0, 0] = 1e6
    stretched = sensor.stretched(outlier, 1, 99)
    assert stretched.min() == 0
    assert stretched.max() == 1
    assert 0.4 < stretched.mean() < 0.6


def test_the_package_trunk_sees_grey() -> None:
    encoder = load(sensors.ENCODER, checkpoint.locate).eval()
    table = {"module": "efficientnet"} | {key: sensors.ENCODER[key] for key in ("model", "outputs", "source", "sha256")}
    trunk = load(table, checkpoint.locate).eval()
    assert isinstance(trunk, efficientnet.EfficientNet)
    x = views()
    x[:, 0, 0, :3], x[:, 0, 3, :3] = 0, 1
    grey = sensor.stretched(x, 1, 99).expand(-1, 3, -1, -1) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(encoder(x), trunk(grey), rtol=1e-4, atol=1e-4)


def test_wrong_options_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 1, H, W\)"):
        sensor.build(OPTIONS)(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="no classifier"):
        sensor.build(OPTIONS | {"outputs": ("probabilities",)})
    with pytest.raises(ValueError, match="percentiles"):
        sensor.build(OPTIONS | {"low": 99.0, "high": 1.0})
    with pytest.raises(ValueError, match=r"missing keys \['outputs'\]"):
        sensor.build({"model": "tf_efficientnet_lite0"})
