"""A name is evidence, never a verdict."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from bind import modalities
from bind.modalities import Guess
from preprocess.source import Hints, Limits, Source

LIMITS = Limits()


def picture(kind: str = "JPEG", mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    values = (
        Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64))
        if mode == "I;16"
        else Image.new(mode, (64, 64))
    )
    values.save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize(
    "name",
    ["depth of field.jpg", "Thermal baths Budapest.jpg", "ir a la playa.jpg", "my thermal 2.png", "a disp b.webp"],
)
def test_a_word_in_a_phrase_makes_a_photograph_nothing_else(name: str) -> None:
    kind = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[name[-4:].strip(".")]
    modality, notes = modalities.recognise(Source(picture(kind), name), LIMITS)
    assert (modality, isinstance(modality, Guess)) == ("image", False)
    assert "is an ordinary picture" in notes[0] or "it is an ordinary picture" in notes[0]


@pytest.mark.parametrize(
    ("name", "kind", "mode", "expected"),
    [
        ("room.depth.png", "PNG", "I;16", "depth"),
        ("depth_0001.png", "PNG", "I;16", "depth"),
        ("depth map of a room.png", "PNG", "I;16", "depth"),
        ("infrared/0001.jpg", "JPEG", "RGB", "thermal"),
        ("street-thermal.jpg", "JPEG", "L", "thermal"),
        ("depth/17.thermal.png", "PNG", "L", "thermal"),
        ("my holiday.thermal.tif", "TIFF", "L", "thermal"),
    ],
)
def test_a_tag_is_a_guess_that_pixels_may_refute(name: str, kind: str, mode: str, expected: str) -> None:
    found = modalities.detect(Source(picture(kind, mode), name), LIMITS)
    assert found == expected
    assert isinstance(found, Guess)


def test_a_sidecar_may_say_what_it_is() -> None:
    for modality in ("image", "thermal"):
        source = Source(picture(), "thermal/x.jpg", Hints(modality=modality))
        found = modalities.detect(source, LIMITS)
        assert (found, isinstance(found, Guess)) == (modality, False)
    wrong = Source(picture(), "x.jpg", Hints(modality="audio"))
    assert modalities.detect(wrong, LIMITS) == "image", "a sidecar cannot make sound of a picture"
