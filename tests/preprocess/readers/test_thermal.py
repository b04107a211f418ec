from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize, ToTensor

from preprocess.decoding.protocol import read_here
from preprocess.readers.thermal import ThermalConfig, prepare, read, read_thermal, shape
from preprocess.source import Hints, Limits, MediaError, Source
from tests.preprocess.made import check_that_cut_files_are_refused, check_that_unusable_paths_are_refused, npy, tiff

CONFIG = ThermalConfig()
LIMITS = Limits()
PHOTOS = Path(skimage.__file__).parent / "data"
CELSIUS = np.random.default_rng(0).normal(20, 3, (60, 80)).astype(np.float32)


def view(content: object, hints: Hints = Hints(), config: ThermalConfig = CONFIG) -> np.ndarray:  # noqa: B008 (frozen)
    return read_here(read, Source(content, "x", hints), config, LIMITS, "whole")[0].views[0]


def encoded(values: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind, **options)
    return buffer.getvalue()


def reference(interpolation: InterpolationMode = InterpolationMode.BICUBIC) -> Compose:
    """ImageBind pull request 73, for LLVIP."""
    return Compose([Resize(224, interpolation), CenterCrop(224), ToTensor()])


@pytest.mark.parametrize("name", ["camera.png", "coins.png", "moon.png", "microaneurysms.png"])
def test_8_bit_pictures_equal_the_reference_in_every_bit(name: str) -> None:
    grey = Image.open(PHOTOS / name).convert("L")
    got = prepare(read(Source(PHOTOS / name, name), CONFIG, LIMITS, "whole")[0].views, CONFIG)
    assert got.shape == (1, *shape(CONFIG))
    assert got.dtype == torch.float32
    assert torch.equal(got[0], reference()(grey))
    # Negative control: another kernel is another picture.
    assert not torch.allclose(got[0], reference(InterpolationMode.BILINEAR)(grey), atol=0.01)


def test_grey_saved_as_colour_counts_as_grey_and_false_colour_is_refused() -> None:
    grey = np.asarray(Image.open(PHOTOS / "camera.png"))
    colour = np.repeat(grey[..., None], 3, axis=2)
    expected = view(encoded(grey, "PNG"))
    assert (view(encoded(colour, "PNG")) == expected).all()
    jpeg = encoded((colour + np.array([2, 0, -2])).clip(0, 255).astype(np.uint8), "JPEG", quality=90)
    assert np.abs(view(jpeg) - expected).mean() < 0.01
    false = np.stack([grey, np.roll(grey, 40, axis=0), 255 - grey], axis=2)
    for content in (encoded(false, "PNG"), encoded(false, "JPEG"), PHOTOS / "astronaut.png"):
        with pytest.raises(MediaError, match="colour picture"):
            view(content)
    spot = np.zeros((99, 99, 3), np.uint8)
    spot[:20, :20] = 255, 80, 0  # a small hot object on black
    with pytest.raises(MediaError, match="colour picture"):
        view(encoded(spot, "PNG"))


@pytest.mark.parametrize(
    ("content", "hints"),
    [
        (tiff(CELSIUS), Hints(unit="celsius")),
        (tiff(CELSIUS.astype(np.float64), compression="zlib"), Hints(unit="celsius")),
        (tiff(CELSIUS + np.float32(273.15)), Hints(unit="kelvin")),
        (encoded(np.rint((CELSIUS + 273.15) * 100).astype(np.uint16), "PNG"), Hints(unit="centikelvin")),
        (encoded(np.rint((CELSIUS + 273.15) * 100).astype(np.uint16), "TIFF"), Hints()),
        (npy(CELSIUS), Hints()),
        (CELSIUS, Hints()),
        (Image.fromarray(CELSIUS), Hints()),
    ],
)
def test_radiometric_sources_are_scaled_by_percentiles(content: object, hints: Hints) -> None:
    (segment,) = read(Source(content, "x", hints), CONFIG, LIMITS, "segments")
    low, high = np.percentile(CELSIUS, (1, 99))
    scaled = Image.fromarray(((CELSIUS - low) / (high - low)).clip(0, 1).astype(np.float32))
    expected = np.asarray(scaled.resize((298, 224), Image.Resampling.BICUBIC).crop((37, 0, 261, 224))).clip(0, 1)
    assert segment.views.dtype == np.float32
    np.testing.assert_allclose(segment.views[0], expected, atol=2e-3)
    assert segment.notes[0] == f"unit: {hints.unit or 'not stated'}"
    assert "percentiles 1 to 99" in segment.notes[1]


def test_a_fixed_range_in_the_files_unit() -> None:
    values = np.full((9, 9), 30_315, np.uint16)  # 30 degrees Celsius
    hints = Hints(unit="centikelvin", low=29_315, high=31_315)
    (segment,) = read(Source(encoded(values, "PNG"), "x", hints), CONFIG, LIMITS, "whole")
    assert segment.views == pytest.approx(0.5)
    assert "fixed range 29315..31315" in segment.notes[1]
    assert view(np.full((9, 9), 51, np.uint8), Hints(low=0, high=102)) == pytest.approx(0.5)
    assert view(np.full((9, 9), 51.0), Hints(low=60, high=102)).max() == 0


def test_even_images_and_small_hot_objects() -> None:
    (segment,) = read(Source(np.full((9, 9), 7.0), "x"), CONFIG, LIMITS, "whole")
    assert (segment.views == 0.5).all()
    assert "mid-grey" in segment.notes[1]
    hot = np.zeros((224, 224), np.float32)
    hot[100:103, 100:103] = 90
    (segment,) = read(Source(hot, "x"), CONFIG, LIMITS, "whole")
    assert segment.views[0, 101, 101] == 1
    assert segment.views.min() == 0
    assert "minimum and maximum" in segment.notes[1]


def test_values_stay_in_range_although_bicubic_overshoots() -> None:
    checkers = np.kron(np.indices((20, 20)).sum(axis=0) % 2, np.ones((9, 9))).astype(np.float32)
    got = view(checkers)
    assert got.min() == 0
    assert got.max() == 1


def test_holes_are_filled_and_noted_and_the_values_keep_their_unit() -> None:
    values = CELSIUS.copy()
    values[0, :8], values[1, :4] = np.nan, np.inf
    filled, notes = read_thermal(Source(npy(values), "x", Hints(unit="celsius")), LIMITS)
    assert filled.dtype == np.float32
    assert np.isfinite(filled).all()
    assert (filled[2:] == CELSIUS[2:]).all()
    assert notes == ("unit: celsius", "holes filled from the nearest valid pixel (0.25% of the picture)")
    with pytest.raises(MediaError, match="no valid pixel"):
        view(np.full((4, 4), np.nan))
    assert read_thermal(Source(encoded(np.full((2, 2), 200, np.uint8), "PNG"), "x"), LIMITS)[0].max() == 200


@pytest.mark.parametrize(
    ("content", "hints", "reason"),
    [
        (CELSIUS, Hints(unit="mm"), "expected a thermal unit"),
        (CELSIUS, Hints(low=3.0), "both given"),
        (CELSIUS, Hints(low=3.0, high=3.0), "`low` < `high`"),
        (CELSIUS, Hints(low=float("-inf"), high=3.0), "`low` < `high`"),
        (np.zeros((4, 9, 9)), Hints(), "expected an array"),
        (np.zeros((9, 9, 3)), Hints(), "expected an array"),
        (b"", Hints(), "empty"),
        (b"\x93NUMPY\3\0" + bytes(90), Hints(), "plain numbers"),
        (b"\x93NUMPY\1\0\x10\0{'descr': garbage", Hints(), "could not be decoded"),
        (b"v/1\1" + bytes(90), Hints(), "could not be decoded"),
        (b"RIFF\0\0\0\0WAVEfmt ", Hints(), "expected a picture"),
    ],
)
def test_bad_input_is_a_media_error(content: object, hints: Hints, reason: str) -> None:
    with pytest.raises(MediaError, match=rf"^x: .*{reason}"):
        view(content, hints)


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "tiff64", "npy"])
def test_truncated_files_are_media_errors_and_the_rest_goes_on(kind: str) -> None:
    raw = np.rint((CELSIUS + 273.15) * 100).astype(np.uint16)
    data = {
        "jpeg": encoded((raw // 256).astype(np.uint8), "JPEG"),
        "png": encoded(raw, "PNG"),
        "tiff": encoded(raw, "TIFF"),
        "tiff64": tiff(CELSIUS.astype(np.float64)),
        "npy": npy(CELSIUS),
    }[kind]
    check_that_cut_files_are_refused(read, CONFIG, data, kind[:4])


def test_missing_files_directories_and_wrong_names_are_media_errors(tmp_path: Path) -> None:
    check_that_unusable_paths_are_refused(read, CONFIG, tmp_path / "thermal.wav", npy(CELSIUS))


def test_wrong_views_are_value_errors() -> None:
    with pytest.raises(ValueError, match=r"\('K', 224, 224\) float32"):
        prepare(np.zeros((1, 1, 224, 224), np.float32), CONFIG)
