from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from preprocess.readers import image
from preprocess.readers.jpeg import FILM_NOTE
from preprocess.source import Limits, MediaError, Source
from tests.preprocess import made


def photograph(size: tuple[int, int] = (320, 240)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, "JPEG")
    return out.getvalue()


def seen(content: bytes, max_pixels: int = 10**8) -> image.Segment:
    limits = Limits(max_pixels=max_pixels)
    return image.read(Source(content, "IMG.jpg"), image.ImageConfig(), limits, "whole")[0]


@pytest.mark.parametrize("between", [b"", b"\0\0\x30\x0a\x10\0\0\0MotionPhoto_Data"])
@pytest.mark.parametrize("filling", [0, 2**20 - 700])
def test_a_motion_photo_is_its_picture_whatever_its_film_holds(between: bytes, filling: int) -> None:
    film = made.film(np.zeros((48, 64, 3), np.uint8))
    comment = b"".join(b"\xff\xfe\xea\x62" + bytes(60_000) for _ in range(filling // 60_004))
    content = photograph()
    content = content[:2] + comment + content[2:] + between + film + b"\xff\xda" * 30_000
    found = seen(content)
    assert FILM_NOTE in found.notes
    assert (found.views[0, 100, 100].astype(int) - [254, 0, 0]).max() <= 1


def test_scans_are_still_counted() -> None:
    content = photograph((2000, 2000))
    with pytest.raises(MediaError, match="scans"):
        seen(content[:-2] + b"\xff\xda" * 600 + content[-2:])
    assert seen(photograph()).notes == ()
