from __future__ import annotations

import io
import math
import struct

import numpy as np
import pytest
from PIL import Image

from bind import modalities
from bind.modalities import Guess
from preprocess.readers import thermal
from preprocess.source import Limits, OrdinaryPictureError, Source

# Of a FLIR E40, as its files have them.
R1, R2, B, F, O = 15_106.8, 0.0125258, 1416.7, 1.0, -7340  # noqa: E741
LIMITS = Limits()


def value_of(kelvin: np.ndarray | float) -> np.ndarray | float:
    return R1 / (R2 * (np.exp(B / kelvin) - F)) - O


def radiometric(
    celsius: np.ndarray, emissivity: float = 0.95, around_c: float = 20.0, as_png: bool = True, order: str = "<"
) -> bytes:
    """A JPEG of one colour with the FLIR segments of a sensor that saw these temperatures."""
    height, width = celsius.shape
    seen = emissivity * value_of(celsius + 273.15) + (1 - emissivity) * value_of(around_c + 273.15)
    raw = np.rint(seen).astype(np.uint16)
    if as_png:
        out = io.BytesIO()
        Image.fromarray(raw.byteswap()).save(out, "PNG")
        content = out.getvalue()
    else:
        content = raw.astype(f"{order}u2").tobytes()
    values = struct.pack(f"{order}HHH", 2, width, height).ljust(32, b"\0") + content
    camera = bytearray(0x400)
    struct.pack_into(f"{order}H", camera, 0, 2)
    struct.pack_into(f"{order}f", camera, 0x20, emissivity)
    struct.pack_into(f"{order}f", camera, 0x28, around_c + 273.15)
    struct.pack_into(f"{order}3f", camera, 0x58, R1, B, F)
    struct.pack_into(f"{order}if", camera, 0x308, O, R2)
    head, directory, at = b"FFF\0".ljust(0x14, b"\0") + struct.pack(">III", 101, 64, 2), b"", 128
    for kind, content in ((1, values), (0x20, bytes(camera))):
        directory += struct.pack(">HHIIII", kind, 1, 100, 0, at, len(content)).ljust(32, b"\0")
        at += len(content)
    stream = head.ljust(64, b"\0") + directory + values + bytes(camera)
    pieces = [stream[start : start + 60_000] for start in range(0, len(stream), 60_000)]
    segments = b"".join(
        b"\xff\xe1" + struct.pack(">H", len(piece) + 10) + b"FLIR\0\1" + bytes([number, len(pieces) - 1]) + piece
        for number, piece in enumerate(pieces)
    )
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), (255, 80, 0)).save(picture, "JPEG")
    return picture.getvalue()[:20] + segments + picture.getvalue()[20:]


@pytest.mark.parametrize(("as_png", "order"), [(True, "<"), (False, "<"), (False, ">")])
@pytest.mark.parametrize("emissivity", [1.0, 0.9])
def test_temperatures_are_those_that_the_sensor_saw(as_png: bool, order: str, emissivity: float) -> None:
    celsius = np.linspace(-5, 120, 240 * 320).reshape(240, 320)
    source = Source(radiometric(celsius, emissivity, as_png=as_png, order=order), "IMG_0001.jpg")
    found, notes = thermal.read_thermal(source, LIMITS)
    assert np.abs(found - celsius).max() < 0.05
    assert notes[0].startswith("unit: celsius")


def test_the_formula_is_planck_s() -> None:
    assert math.isclose(B / math.log(R1 / (R2 * (float(value_of(300.0)) + O)) + F), 300.0, rel_tol=1e-9)


def test_a_radiometric_jpeg_is_thermal_whatever_its_name_is() -> None:
    content = radiometric(np.full((48, 64), 30.0))
    found = modalities.detect(Source(content, "holiday.jpg"), LIMITS)
    assert (found, isinstance(found, Guess)) == ("thermal", True)
    plain = io.BytesIO()
    Image.new("RGB", (64, 48)).save(plain, "JPEG")
    assert modalities.detect(Source(plain.getvalue(), "holiday.jpg"), LIMITS) == "image"


@pytest.mark.parametrize("damage", [b"\xff\xe1\0\x0cFLIR\0\1\0\0xx", b"\xff\xe1\0\x0aFLIR\0\1\0\0"])
def test_without_its_values_it_is_an_ordinary_picture(damage: bytes) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), (255, 80, 0)).save(picture, "JPEG")
    content = picture.getvalue()[:2] + damage + picture.getvalue()[2:]
    with pytest.raises(OrdinaryPictureError, match="temperatures could not be read"):
        thermal.read_thermal(Source(content, "x.jpg"), LIMITS)
