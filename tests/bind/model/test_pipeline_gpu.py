"""Preparing and decoding on the model's device: equal to doing it item by item on the CPU."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from bind import modalities
from bind.model.model import BatchError, BindModel
from preprocess.readers import image, image_gpu
from preprocess.readers.image import ImageConfig
from preprocess.source import Limits, Source
from tests.preprocess.readers.test_image_gpu import LEFT_OUT, TIGHT, jpeg, photo
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


@pytest.fixture
def moved() -> BindModel:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return model().to("cuda")


@pytest.mark.gpu
def test_embedding_on_a_gpu_equals_the_cpu(moved: BindModel) -> None:
    plain = model()
    items = contents()
    expected = plain.embed(items).vectors
    for batch_size in (7, 64):
        found = moved.embed(items, batch_size=batch_size).vectors
        assert (found * expected).sum(1).min() > 0.99999
    assert (found * np.roll(expected, 2, axis=0)).sum(1).min() < 0.999


def test_decoding_on_a_gpu_needs_a_model_there() -> None:
    with pytest.raises(ValueError, match=r'decode="gpu": expected a model on a CUDA device, got cpu; .*\.to\("cuda"\)'):
        model().embed([jpeg(photo(50, 40))], limits=Limits(decode="gpu"))


def likeness(found: np.ndarray, expected: np.ndarray) -> float:
    """The cosine of two pictures, of their deviations from the mean."""
    a, b = (views.astype(np.float64) - views.mean() for views in (found, expected))
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(photo(400, 300), exif=exif)


def two_in_one() -> bytes:
    """As phones and cameras write them: a second picture follows the first in the file."""
    buffer = io.BytesIO()
    photo(300, 260).save(buffer, "MPO", save_all=True, append_images=[photo(150, 130).convert("L").convert("RGB")])
    return buffer.getvalue()


@pytest.mark.gpu
@pytest.mark.parametrize("config", [ImageConfig(), ImageConfig(resize=256, interpolation="bilinear")])
def test_jpegs_decoded_on_a_gpu_equal_those_of_the_workers(moved: BindModel, config: ImageConfig) -> None:
    contents = {
        **{f"{s} of 4": jpeg(photo(300, 260), subsampling=s) for s in range(3)},
        **{f"quality {q}": jpeg(photo(640, 480), quality=q) for q in (50, 95)},
        **{f"turned {o}": turned(o) for o in range(1, 9)},
        "odd": jpeg(photo(517, 383)),
        "large": jpeg(photo(4000, 3000)),
        "long": jpeg(photo(1500, 300)),
        "restarts": jpeg(photo(500, 300), restart_marker_rows=1),
        "two in one": two_in_one(),
    }
    sources = [Source(content, name) for name, content in contents.items()]
    found = image_gpu.read_many(sources, config, Limits(), moved.device)
    views = {source.name: got[0].views for source, got in zip(sources, found, strict=True) if got}
    expected = {source.name: image.read(source, config, Limits(), "whole")[0].views for source in sources}
    likenesses = {name: likeness(views[name], expected[name]) for name in views}
    print({name: round(value, 5) for name, value in likenesses.items()})
    assert views.keys() == expected.keys()
    assert min(likenesses.values()) > 0.999
    assert likeness(views["turned 1"], expected["turned 3"]) < 0.9


@pytest.mark.gpu
def test_what_is_not_decoded_on_a_gpu_is_embedded_or_refused_as_ever(moved: BindModel) -> None:
    good = {f"{i}.jpg": jpeg(photo(50 + i % 9, 40 + i % 7)) for i in range(600)}
    items = [Source(content, name) for name, content in [*good.items(), *LEFT_OUT.items(), *good.items()]]
    limits = Limits(max_pixels=TIGHT.max_pixels, max_bytes=TIGHT.max_bytes)
    on_gpu = Limits(max_pixels=limits.max_pixels, max_bytes=limits.max_bytes, decode="gpu")
    outcomes = []
    for each in (limits, on_gpu):
        with pytest.raises(BatchError) as caught:
            moved.embed(items, "image", limits=each)
        outcomes.append(caught.value)
    expected, found = outcomes
    assert [str(error) for error in found.errors] == [str(error) for error in expected.errors]
    assert found.rows.tolist() == expected.rows.tolist()
    cosines = (found.embeddings.vectors * expected.embeddings.vectors).sum(1)
    print(f"worst cosine {cosines.min():.5f}")
    assert cosines.min() > 0.999
    assert (found.embeddings.vectors * np.roll(expected.embeddings.vectors, 1, axis=0)).sum(1).min() < 0.9999


@pytest.mark.gpu
def test_large_pictures_take_little_memory(moved: BindModel) -> None:
    sources = [Source(jpeg(photo(4000, 3000)), "large")] * 48
    torch.cuda.reset_peak_memory_stats()
    found = image_gpu.read_many(sources, ImageConfig(), Limits(), moved.device)
    assert all(segments and segments[0].views.shape == (1, 224, 224, 3) for segments in found)
    gib = torch.cuda.max_memory_allocated() / 2**30
    print(f"{gib:.2f} GiB")
    assert gib < 2
