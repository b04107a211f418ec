"""JPEGs read many at once equal those read one by one. Here on the CPU, where torchvision decodes as Pillow does."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import read_here
from preprocess.decoding.trusted import TrustedPool
from preprocess.readers import image, image_gpu, raster
from preprocess.readers.image import ImageConfig
from preprocess.readers.image_gpu import read_many, resize_crop
from preprocess.source import Limits, MediaError, Segment, Source

CPU = torch.device("cpu")
LIMITS = Limits()
SMALL = ImageConfig(size=32, resize=32)


def photo(width: int, height: int) -> Image.Image:
    return Image.fromarray(data.coffee()).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(picture: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(photo(61, 47), exif=exif)


def alone(content: object, config: ImageConfig = SMALL, limits: Limits = LIMITS) -> np.ndarray:
    return read_here(image.read, Source(content, "x.jpg"), config, limits, "whole")[0].views


def together(contents: list[bytes], config: ImageConfig = SMALL, limits: Limits = LIMITS) -> list[np.ndarray | None]:
    found = read_many([Source(content, f"{i}.jpg") for i, content in enumerate(contents)], config, limits, CPU)
    return [None if segments is None else segments[0].views for segments in found]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(640, 480), (427, 640), (224, 224), (897, 225), (230, 1001), (100, 150)])
def test_the_resize_is_pillows(size: tuple[int, int], interpolation: str) -> None:
    picture = photo(*size)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    for resize in (224, 256):
        expected, other = (
            np.asarray(raster.resize_crop(picture, resize, 224, Image.Resampling[name.upper()])).astype(int)
            for name in (interpolation, "box")
        )
        found = resize_crop(pixels, ImageConfig(resize=resize, interpolation=interpolation))[0].numpy()  # type: ignore[arg-type]
        assert np.abs(found - expected).max() <= 1
        # Where the ratio of the sizes is simple, as 150 to 336, many sums of the bilinear kernel lie on an edge.
        assert (found != expected).mean() < (0.001 if interpolation == "bicubic" else 0.01)
        if size != (224, 224) or resize != 224:  # else nothing is resized
            assert (found != other).mean() > 0.01


def test_the_squashing_resize_is_pillows() -> None:
    picture, config = photo(640, 300), ImageConfig(resize=240, resize_mode="squash")
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    expected = np.asarray(raster.resize_squashed(picture, 240, 224, Image.Resampling.BICUBIC)).astype(int)
    found = resize_crop(pixels, config)[0].numpy()
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.001


def test_pictures_of_all_sizes_and_samplings_equal_those_read_one_by_one() -> None:
    contents = [
        jpeg(photo(50, 40), subsampling=0),
        jpeg(photo(40, 62), subsampling=1),
        jpeg(photo(51, 41), quality=95),
        jpeg(photo(50, 40), quality=60),
        jpeg(photo(400, 33)),
        *map(turned, range(1, 9)),
    ]
    for config in (SMALL, ImageConfig(size=24, resize=30, interpolation="bilinear")):
        found = together(contents, config)
        for content, views in zip(contents, found, strict=True):
            assert views is not None
            expected = alone(content, config)
            assert views.shape == expected.shape
            assert views.dtype == np.uint8
            levels = np.abs(views.astype(int) - expected)
            assert levels.max() <= (2 if len(content) == len(contents[4]) else 1)  # 2: of 400 x 33 the other cuts first
            assert (levels > 0).mean() < 0.03
        upright, *others = found[5:]
        assert all(np.abs(other.astype(int) - upright).max() > 50 for other in others)  # type: ignore[union-attr,operator]


def test_many_pictures_keep_their_order_beyond_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [jpeg(photo(40 + i % 3, 40)) for i in range(12)]
    whole = together(contents)
    monkeypatch.setattr(image_gpu, "_TOGETHER_PIXELS", 5 * 41 * 40)
    monkeypatch.setattr(image_gpu, "MAX_PIXELS", 2 * 42 * 40)
    for views, expected, content in zip(together(contents), whole, contents, strict=True):
        assert np.array_equal(views, expected)  # type: ignore[arg-type]
        assert np.abs(views.astype(int) - alone(content)).max() <= 1  # type: ignore[union-attr]


def broken() -> bytes:
    """The header is sound; the Huffman tables are none."""
    content = bytearray(jpeg(photo(50, 40)))
    table = content.index(b"\xff\xc4")
    content[table + 5 : table + 21] = b"\xff" * 16
    return bytes(content)


def png() -> bytes:
    buffer = io.BytesIO()
    photo(50, 40).save(buffer, "PNG")
    return buffer.getvalue()


GOOD = jpeg(photo(50, 40))
LEFT_OUT = {
    "png": png(),
    "grey": jpeg(photo(50, 40).convert("L")),
    "cmyk": jpeg(photo(50, 40).convert("CMYK")),
    "red, green, blue": jpeg(photo(50, 40), keep_rgb=True),
    "progressive": jpeg(photo(50, 40), progressive=True),
    "smaller than wanted": jpeg(photo(31, 40)),
    "more pixels than allowed": jpeg(photo(60, 50)),
    "more bytes than allowed": jpeg(photo(50, 40)) + bytes(20_000),
    "cut off": GOOD[:-200],
    "cut off in its header": GOOD[:100],
    "words": b"no picture at all",
    "nothing": b"",
    "broken": broken(),
}
TIGHT = Limits(max_pixels=50 * 50, max_bytes=20_000)


def test_what_is_left_out_is_read_or_refused_as_ever() -> None:
    found = together([GOOD, *LEFT_OUT.values(), GOOD], limits=TIGHT)
    assert [views is not None for views in found] == [True, *[False] * len(LEFT_OUT), True]
    with DecodePool(workers=1) as isolated:
        pool = TrustedPool(read_many, CPU)
        contents = {"good": GOOD, **LEFT_OUT}
        sources = [Source(content, f"{name}.jpg") for name, content in contents.items()]
        futures = [pool.submit(image.read, source, SMALL, TIGHT, "whole", isolated) for source in sources]
        refused = set()
        for source, future in zip(sources, futures, strict=True):
            plain = isolated.submit(image.read, source, SMALL, TIGHT, "whole")
            if error := plain.exception():
                assert isinstance(error, MediaError)
                assert str(future.exception()) == str(error)
                refused.add(source.name)
            else:
                assert np.abs(future.result()[0].views.astype(int) - plain.result()[0].views).max() <= 1
    taken = {"png", "grey", "cmyk", "red, green, blue", "progressive", "smaller than wanted"}
    assert refused == {f"{name}.jpg" for name in set(LEFT_OUT) - taken}


def test_one_decoder_missing_is_said_not_hidden() -> None:
    with pytest.raises(ValueError, match=r'torchvision with nvJPEG for cuda:99, got: .*or leave decode="isolated"'):
        read_many([Source(GOOD, "x")], SMALL, LIMITS, torch.device("cuda:99"))


def test_pool_keeps_apart_what_is_asked_differently_and_hands_on_errors() -> None:
    wide = ImageConfig(size=40, resize=40)

    def failing(*_: object) -> list[list[Segment] | None]:
        raise ValueError("no decoder")

    with DecodePool(workers=1) as isolated:
        pool = TrustedPool(read_many, CPU)
        configs = [SMALL, wide] * 5
        futures = [pool.submit(image.read, Source(GOOD, "x"), c, LIMITS, "whole", isolated) for c in configs]
        assert [future.result()[0].views.shape[1] for future in futures] == [32, 40] * 5
        lost = TrustedPool(failing, CPU).submit(image.read, Source(GOOD, "x"), SMALL, LIMITS, "whole", isolated)
        assert isinstance(lost.exception(), ValueError)
