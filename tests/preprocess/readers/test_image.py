from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage
import tifffile
import torch
from PIL import Image, ImageOps
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import read_here
from preprocess.readers.image import ImageConfig, prepare, read, shape
from preprocess.source import Limits, MediaError, Source

CONFIG = ImageConfig()
LIMITS = Limits()
PHOTOS = Path(skimage.__file__).parent / "data"


def reference(config: ImageConfig, interpolation: InterpolationMode = InterpolationMode.BICUBIC) -> Compose:
    return Compose(
        [
            Resize(config.resize, interpolation),
            CenterCrop(config.size),
            ToTensor(),
            Normalize(config.mean, config.std),
        ]
    )


def tensor(content: object, config: ImageConfig = CONFIG, name: str = "x") -> torch.Tensor:
    return prepare(read_here(read, Source(content, name), config, LIMITS, "whole")[0].views, config)


def pixels(content: object) -> np.ndarray:
    return read_here(read, Source(content, "x"), ImageConfig(size=8, resize=8), LIMITS, "whole")[0].views[0]


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("config", [CONFIG, ImageConfig(size=224, resize=256), ImageConfig(interpolation="bilinear")])
@pytest.mark.parametrize("size", [(300, 225), (225, 300), (224, 224), (640, 427), (50, 37), (1, 1), (897, 225)])
def test_equals_torchvision(config: ImageConfig, size: tuple[int, int]) -> None:
    picture = noise(*size)
    got = tensor(encoded(picture, "PNG"), config)
    assert got.shape == (1, *shape(config))
    assert got.dtype == torch.float32
    expected = reference(config, InterpolationMode(config.interpolation))(picture)
    if size[0] == size[1] and config.size == config.resize:  # nothing is cut off
        assert torch.equal(got[0], expected)
    assert_a_few_levels(got[0], expected, config)


def assert_a_few_levels(got: torch.Tensor, expected: torch.Tensor, config: ImageConfig) -> None:
    """One level at most, in fewer than 1 pixel of 200: where sizes are simple ratios, sums often lie on an edge."""
    levels = (got - expected).abs() * 255 * torch.tensor(config.std).view(3, 1, 1)
    assert levels.max() <= 1.001
    assert (levels > 0.5).float().mean() < 5e-3


@pytest.mark.parametrize("size", [(300, 225), (225, 300), (40, 900), (3, 3000)])
def test_a_squashed_picture_equals_torchvision(size: tuple[int, int]) -> None:
    config, picture = ImageConfig(size=64, resize=72, resize_mode="squash"), noise(*size)
    got = tensor(encoded(picture, "PNG"), config)
    steps = [
        Resize((72, 72), InterpolationMode.BICUBIC),
        CenterCrop(64),
        ToTensor(),
        Normalize(config.mean, config.std),
    ]
    assert_a_few_levels(got[0], Compose(steps)(picture), config)
    with pytest.raises(AssertionError):  # negative control: cropped
        assert_a_few_levels(tensor(encoded(picture, "PNG"), ImageConfig(size=64, resize=72))[0], got[0], config)


def test_equals_torchvision_on_photographs() -> None:
    for name in ("astronaut.png", "coffee.png", "rocket.jpg"):
        picture = Image.open(PHOTOS / name).convert("RGB")
        got = tensor(PHOTOS / name)[0]
        assert_a_few_levels(got, reference(CONFIG)(picture), CONFIG)
        # Negative control: another kernel is another picture.
        with pytest.raises(AssertionError):
            assert_a_few_levels(got, reference(CONFIG, InterpolationMode.BILINEAR)(picture), CONFIG)


@pytest.mark.parametrize("size", [(230, 1001), (2000, 333), (12, 700), (3001, 100)])
def test_long_pictures_are_cropped_before_the_resize_with_the_same_result(size: tuple[int, int]) -> None:
    picture = noise(*size)
    config = ImageConfig(mean=(0, 0, 0), std=(1, 1, 1))
    assert_a_few_levels(tensor(encoded(picture, "PNG"), config)[0], reference(config)(picture), config)


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1), (2, 5_000_000)])
def test_extreme_aspect_ratios_need_little_memory(size: tuple[int, int]) -> None:
    # 1 x 30,000 resized whole would be 224 x 6,720,000 pixels, 6 GB.
    with DecodePool(workers=1) as pool:
        limits = Limits(worker_memory_bytes=2 * 2**30)
        source = Source(encoded(Image.new("RGB", size, (9, 8, 7)), "PNG"), "long.png")
        assert (pool.submit(read, source, CONFIG, limits, "whole").result()[0].views == (9, 8, 7)).all()


def _palette(transparent: bool) -> bytes:
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, 10, 200, 30])
    return encoded(picture, "PNG", transparency=1) if transparent else encoded(picture, "PNG")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(Image.new("RGB", (8, 8), (10, 200, 30)), "PNG"), (10, 200, 30)),
        (encoded(Image.new("RGB", (8, 8), (10, 200, 30)), "BMP"), (10, 200, 30)),
        (encoded(Image.new("RGB", (8, 8), (10, 200, 30)), "TIFF"), (10, 200, 30)),
        (encoded(Image.new("RGB", (8, 8), (10, 200, 30)), "WEBP", lossless=True), (10, 200, 30)),
        (encoded(Image.new("RGB", (8, 8), (10, 200, 30)), "JPEG2000"), (10, 200, 30)),
        (encoded(Image.new("RGB", (8, 8), (10, 200, 30)), "AVIF", quality=100, subsampling="4:4:4"), (10, 200, 30)),
        (encoded(Image.new("L", (8, 8), 77), "PNG"), (77, 77, 77)),
        (encoded(Image.new("L", (8, 8), 77), "JPEG"), (77, 77, 77)),
        (encoded(Image.new("1", (8, 8), 1), "PNG"), (255, 255, 255)),
        (encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "TIFF"), (0, 255, 255)),
        (encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=100), (0, 255, 255)),
        (_palette(transparent=False), (10, 200, 30)),
        (_palette(transparent=True), (255, 255, 255)),
        (encoded(Image.new("RGBA", (8, 8), (10, 200, 30, 0)), "PNG"), (255, 255, 255)),
        (encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 51)), "WEBP", lossless=True), (204, 204, 204)),
        (encoded(Image.new("LA", (8, 8), (0, 51)), "PNG"), (204, 204, 204)),
        (encoded(Image.new("RGB", (8, 8), (1, 2, 3)), "PNG", transparency=(1, 2, 3)), (255, 255, 255)),
        (Image.new("YCbCr", (8, 8), (77, 128, 128)), (77, 77, 77)),
        (np.full((8, 8), 77, np.uint8), (77, 77, 77)),
        (np.full((8, 8, 3), (10, 200, 30), np.uint8), (10, 200, 30)),
        (np.full((8, 8, 4), (10, 200, 30, 0), np.uint8), (255, 255, 255)),
    ],
)
def test_every_mode_becomes_rgb_and_transparency_white(content: object, expected: tuple[int, int, int]) -> None:
    assert np.abs(pixels(content).astype(int) - expected).max() <= 1


def test_transparency_is_noted() -> None:
    (segment,) = read(Source(_palette(transparent=True), "x"), CONFIG, LIMITS, "segments")
    assert segment.start_s is segment.end_s is None
    assert "white" in segment.notes[0]


def test_sixteen_bit_grey_equals_its_eight_bit_version_and_twelve_bits_are_not_black() -> None:
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4 + 3  # up to 255
    for kind in ("PNG", "TIFF"):
        assert (pixels(encoded(Image.fromarray(ramp.astype(np.uint16) * 257), kind))[..., 0] == ramp).all()
    big_endian = io.BytesIO()
    tifffile.imwrite(big_endian, ramp.astype(">u2") * 257, byteorder=">", photometric="minisblack")
    assert (pixels(big_endian.getvalue())[..., 0] == ramp).all()
    twelve = np.rint(ramp * (4095 / 255)).astype(np.uint16)
    assert (pixels(encoded(Image.fromarray(twelve), "PNG"))[..., 0] == ramp).all()


def test_float_grey_is_stretched_and_its_gaps_are_black() -> None:
    values = np.linspace(-3, 5, 64, dtype=np.float32).reshape(8, 8)
    values[0, 1] = np.nan
    got = pixels(encoded(Image.fromarray(values), "TIFF"))[..., 0]
    assert (got[0, 0], got[0, 1], got[-1, -1]) == (0, 0, 255)
    with pytest.raises(MediaError, match="NaN"):
        pixels(encoded(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"))
    assert (pixels(encoded(Image.fromarray(np.full((8, 8), 3.0, np.float32)), "TIFF")) == 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation(kind: str, orientation: int) -> None:
    stored = noise(40, 23)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    for content in (data, Image.open(io.BytesIO(data))):
        assert_a_few_levels(tensor(content)[0], reference(CONFIG)(upright), CONFIG)
    if orientation > 1:  # negative control
        assert not torch.equal(tensor(data)[0], reference(CONFIG)(stored))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of the damage
def test_damaged_exif_does_not_cost_the_picture() -> None:
    assert (pixels(encoded(Image.new("L", (8, 8), 5), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\0\0")) == 5).all()


def test_animations_and_multi_page_files_give_their_first_frame() -> None:
    for name in ("no_time_for_that_tiny.gif", "multipage.tif"):
        first = Image.open(PHOTOS / name).convert("RGBA")
        assert torch.equal(tensor(PHOTOS / name)[0], reference(CONFIG)(first.convert("RGB"))), name


def test_large_jpegs_are_decoded_at_a_fraction_with_little_effect() -> None:
    path = PHOTOS / "retina.jpg"  # 1411 x 1411: decoded at half its size
    got = tensor(path, ImageConfig(mean=(0, 0, 0), std=(1, 1, 1)))[0].flatten().double()
    plain = reference(ImageConfig(mean=(0, 0, 0), std=(1, 1, 1)))(Image.open(path)).flatten().double()
    assert not torch.equal(got, plain)  # the fast path did run
    assert torch.nn.functional.cosine_similarity(got, plain, dim=0) > 0.9998
    assert (got - plain).abs().mean() * 255 < 0.5
    # Nothing is gained below twice the target: exact.
    assert torch.equal(
        tensor(path, ImageConfig(size=384, resize=384))[0], reference(ImageConfig(384, 384))(Image.open(path))
    )


def _png_of(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_too_many_pixels_are_refused_from_the_header() -> None:
    gif = encoded(noise(9, 9), "GIF")
    for content in (_png_of(30_000, 30_000), gif[:6] + struct.pack("<HH", 30_000, 30_000) + gif[10:]):
        with pytest.raises(MediaError, match=r"30,000 x 30,000 pixels, the limit is 200,000,000 \(max_pixels\)"):
            read_here(read, Source(content, "big"), CONFIG, LIMITS, "whole")
    for content in (encoded(noise(50, 50), "JPEG"), noise(50, 50), np.asarray(noise(50, 50))):
        with pytest.raises(MediaError, match="max_pixels"):
            read_here(read, Source(content, "big"), CONFIG, Limits(max_pixels=2499), "whole")


def test_pillows_own_pixel_limit_neither_warns_nor_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(noise(600, 400), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))
    assert tensor(data).shape == (1, 3, 224, 224)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "AVIF"])
def test_truncated_pictures_are_media_errors(kind: str) -> None:
    data = encoded(noise(61, 67), kind)
    assert pixels(data).shape == (8, 8, 3)
    for tenth in range(10):
        with pytest.raises(MediaError, match=r"^cut\.x: "):
            read_here(read, Source(data[: len(data) * tenth // 10], "cut.x"), CONFIG, LIMITS, "whole")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of the damage
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP"])
def test_flipped_bytes_never_give_another_error(kind: str) -> None:
    data = encoded(noise(61, 67).convert("P") if kind == "GIF" else noise(61, 67), kind)
    random = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(data)
        for at in random.integers(0, min(len(data), 400), 3):
            damaged[at] = random.integers(0, 256)
        with contextlib.suppress(MediaError):
            assert pixels(bytes(damaged)).shape == (8, 8, 3)


def test_bad_files_are_media_errors_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = encoded(noise(9, 9), "PNG")
    for name, data in {
        "empty.png": b"",
        "sound.png": b"RIFF\0\0\0\0WAVEfmt ",
        "picture.wav": good,
        "picture.npy": good,
        "list.m3u8": b"#EXTM3U\nhttp://example.com/x.png",
        "unknown.png": b"no picture at all",
        "photo.heic": b"\0\0\0\x18ftypheic" + bytes(64),
        "post.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "nothing.gif": b"GIF89a" + bytes(20),
    }.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder.png").mkdir()
    bad = [*sorted(tmp_path.iterdir()), tmp_path / "missing.png"]
    (tmp_path / "good.png").write_bytes(good)
    with DecodePool(workers=1) as pool:
        for path in bad:
            with pytest.raises(MediaError) as caught:
                pool.submit(read, Source.from_path(path), CONFIG, LIMITS, "whole").result()
            assert caught.value.path == str(path)
        segment = pool.submit(read, Source.from_path(tmp_path / "good.png"), CONFIG, LIMITS, "whole").result()[0]
    assert torch.equal(prepare(segment.views, CONFIG), tensor(good))


@pytest.mark.parametrize(
    "content",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros(8),
        3,
        "x",
    ],
)
def test_other_values_in_memory_are_media_errors(content: object) -> None:
    with pytest.raises(MediaError):
        pixels(content)


def test_wrong_views_and_configs_are_value_errors() -> None:
    with pytest.raises(ValueError, match=r"\('K', 224, 224, 3\) uint8"):
        prepare(np.zeros((1, 224, 224, 3), np.float32), CONFIG)
    with pytest.raises(ValueError, match=r"preprocess\.readers\.image\.read"):
        prepare(np.zeros((1, 3, 224, 224), np.uint8), CONFIG)
    with pytest.raises(ValueError, match="padding"):
        ImageConfig(size=224, resize=200)


def test_raw_views_are_the_whole_picture_in_its_proportions() -> None:
    config = ImageConfig(raw=True, size=64, resize=64)
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)
    (whole,) = read_here(read, Source(small, "x"), config, LIMITS, "whole")
    assert np.array_equal(whole.views[0], small)  # nothing is resized, cut or normalised
    assert torch.equal(prepare(whole.views, config), torch.from_numpy(small)[None])
    assert shape(config) == (None, None, 3)
    wide = rng.integers(0, 256, (40, 400, 3), dtype=np.uint8)
    first, *parts = read_here(read, Source(wide, "x"), config, LIMITS, "segments")
    assert first.views.shape == (1, 6, 64, 3) and len(parts) == 10
    assert {part.views.shape for part in parts} == {(1, 40, 40, 3)}
