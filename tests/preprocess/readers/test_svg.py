from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess.formats import sniff
from preprocess.readers import image
from preprocess.source import Limits, MediaError, Source

CONFIG = image.ImageConfig(mean=(0, 0, 0), std=(1, 1, 1))
HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def seen(text: str, name: str = "drawing.svg") -> image.Segment:
    return image.read(Source(text.encode(), name), CONFIG, Limits(), "whole")[0]


@pytest.mark.parametrize(
    "before",
    [
        "",
        '<?xml version="1.0" encoding="UTF-8"?>\n<!-- made <by> hand -->\n',
        '<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/x.dtd" [<!ENTITY ns "http://x">]>',
    ],
)
def test_a_drawing_is_a_picture_with_its_words(before: str) -> None:
    inside = "<title>Red &amp; blue</title><desc>two halves</desc><text>Hello <tspan>there</tspan></text>"
    halves = '<rect width="20" height="20" fill="red"/><rect x="20" width="20" height="20" fill="#00f"/>'
    found = seen(f'{before}{HEAD} viewBox="0 0 40 20">{inside}{halves}</svg>')
    view = found.views[0]
    assert view.shape == (224, 224, 3)
    assert view[100, 20].tolist() == [255, 0, 0] and view[100, 200].tolist() == [0, 0, 255]
    assert found.metadata == {"title": "Red & blue", "description": "two halves", "text": "Hello there"}


def test_what_is_not_drawn_is_white() -> None:
    view = seen(f'{HEAD} width="4cm" height="4cm"><circle cx="50" cy="50" r="20"/></svg>').views[0]
    assert view[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("attribute", ["href='{}'", 'xlink:href = "{}"', "href='file://{}'", "href='&away;'"])
def test_no_other_file_is_read(tmp_path: Path, attribute: str) -> None:
    red = tmp_path / "red.png"
    Image.new("RGB", (9, 9), "red").save(red)
    entity = f'<!DOCTYPE svg [<!ENTITY away "{red}">]>'
    green = '<rect width="9" height="9" fill="lime"/>'
    image_ = f'<image width="9" height="9" {attribute.format(red)}/>'
    view = seen(f'{entity}{HEAD} width="9" height="9">{green}{image_}</svg>').views[0]
    assert np.unique(view.reshape(-1, 3), axis=0).tolist() == [[0, 255, 0]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f'{HEAD} width="9" height="9"><image href="/etc/passwd" width="9" height="9"/></svg>', "nothing is drawn"),
        (f'<!DOCTYPE svg [<!ENTITY a "<image/>">]>{HEAD}><rect width="9" height="9"/>&a;</svg>', "entities"),
        (f'<!DOCTYPE svg [<!ENTITY a SYSTEM "/etc/passwd">]>{HEAD}><rect width="9" height="9"/></svg>', "entities"),
        (f'{HEAD} width="1e9" height="1"><rect width="9" height="9"/></svg>', "more than 64 to 1"),
        (f'{HEAD} width="9" height="9"><rect', "could not be decoded"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(MediaError, match=reason):
        seen(text)


def test_comments_without_end_are_soon_seen_through() -> None:
    with pytest.raises(MediaError, match="not supported"):
        sniff(Source(b"<!---->" * 500 + b"<x", "x"), Limits())
