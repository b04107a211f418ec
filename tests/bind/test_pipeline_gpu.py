"""Preparing on the model's device: equal to preparing item by item on the CPU."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from bind import modalities
from tests.serve.tiny import model

VIEWS = {"image": ((4, 224, 224, 3), np.uint8), "audio": ((6, 32_000), np.float32)}


def views(name: str, seed: int) -> np.ndarray:
    shape, dtype = VIEWS[name]
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, shape, np.uint8) if dtype == np.uint8 else rng.normal(0, 0.1, shape).astype(np.float32)


def test_views_of_several_items_prepare_as_one_by_one() -> None:
    found = {name for name, spec in modalities.specs().items() if spec.prepare_tensor}
    assert found == set(VIEWS)
    for name in found:
        spec = modalities.spec(name)
        config, items = spec.config(), [views(name, seed) for seed in range(3)]
        assert spec.prepare_tensor
        together = spec.prepare_tensor(torch.from_numpy(np.concatenate(items)), config)
        apart = torch.cat([spec.prepare(item, config) for item in items])
        torch.testing.assert_close(together, apart, rtol=0, atol=1e-5)
        assert not torch.allclose(together, apart.flip(0), atol=1e-2)


def contents() -> list[bytes]:
    """Pictures and sounds in turn; the sounds of several lengths, some shorter than a clip."""
    found = []
    for number in range(12):
        rng = np.random.default_rng(number)
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (90, 120, 3), np.uint8)).resize((300, 240)).save(buffer, "PNG")
        found.append(buffer.getvalue())
        buffer = io.BytesIO()
        soundfile.write(buffer, rng.normal(0, 0.1, 16_000 * (1 + number % 4)), 16_000, "PCM_16", format="WAV")
        found.append(buffer.getvalue())
    return found


@pytest.mark.gpu
def test_embedding_on_a_gpu_equals_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    plain, moved = model(), model().to("cuda")
    items = contents()
    expected = plain.embed(items).vectors
    for batch_size in (7, 64):
        found = moved.embed(items, batch_size=batch_size).vectors
        assert (found * expected).sum(1).min() > 0.99999
    assert (found * np.roll(expected, 2, axis=0)).sum(1).min() < 0.999
