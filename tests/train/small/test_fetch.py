"""What is rendered of SVG collections; nothing is downloaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from tests import wordnet
from train.small import fetch

DISC = '<circle cx="12" cy="12" r="6" fill="currentColor"/>'


def put(root: Path, name: str, content: object) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def shown(path: Path) -> np.ndarray:
    """The coverage of a rendered drawing, (H, W) uint8."""
    return np.asarray(Image.open(path).convert("RGBA"))[..., 3]


def test_icons_of_things_are_rendered_once(tmp_path: Path) -> None:
    wordnet.write(tmp_path / "wordnet")
    put(tmp_path, "park/package.json", {"name": "@iconify-json/park"})
    drawings = {"apple-core": {"body": DISC}, "car": {"body": "<circle"}, "menu": {"body": DISC}}
    put(tmp_path, "park/icons.json", {"prefix": "park", "icons": drawings, "width": 24, "height": 24})
    assert fetch.render_icons(tmp_path) == 1
    (picture,) = (tmp_path / "park/png").iterdir()
    assert picture.name == "apple-core.png"
    coverage = shown(picture)
    assert coverage.shape == (224, 224)
    assert coverage[112, 112] == 255 and coverage[0, 0] == 0
    # A disc of radius 6 in a box of 24: pi / 16 of it.
    assert coverage.mean() / 255 == pytest.approx(np.pi / 16, abs=0.005)
    assert fetch.render_icons(tmp_path) == 0


def test_icons_need_wordnet(tmp_path: Path) -> None:
    with pytest.raises(fetch.FetchError, match="wordnet-base"):
        fetch.render_icons(tmp_path)


def test_emoji_are_rendered_under_their_code(tmp_path: Path) -> None:
    put(tmp_path, "openmoji/data/openmoji.json", [{"annotation": "woman's hat", "hexcode": "1F452"}])
    put(tmp_path, "emoji-datasource-google/emoji.json", [{"name": "WAVING HAND SIGN", "unified": "1F44B-FE0F"}])
    drawings = {"waving-hand-sign-1": {"body": DISC}, "u1f452-woman-s-hat": {"body": DISC}, "hat": {"body": DISC}}
    put(tmp_path, "iconify-json-some/icons.json", {"icons": drawings, "width": 24, "height": 12})
    assert fetch.render_emoji(tmp_path) == 2
    pictures = sorted((tmp_path / "iconify-json-some/png").iterdir())
    assert [picture.name for picture in pictures] == ["1f44b.png", "1f452.png"]
    assert shown(pictures[0]).shape == (112, 224)


def test_emoji_of_a_font_are_drawn_if_it_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "openmoji/data/openmoji.json", [])
    named = {"EARTH": "2295", "A": "0041", "HERD": "1FFF0", "PAIR": "2295-2297"}
    names = [{"name": name, "unified": code} for name, code in named.items()]
    put(tmp_path, "emoji-datasource-google/emoji.json", names)
    font = next(Path(matplotlib.get_data_path(), "fonts/ttf").glob("DejaVuSans.ttf"))
    (tmp_path / "fonts").mkdir()
    shutil.copy(font, tmp_path / "fonts")
    monkeypatch.setattr(fetch, "_FONTS", {"fonts": "DejaVuSans.ttf"})
    assert fetch.render_emoji(tmp_path) == 1
    (picture,) = (tmp_path / "fonts/png").iterdir()
    assert picture.name == "2295.png"
    ink = 255 - np.asarray(Image.open(picture))
    assert ink.shape == (224, 224) and ink[0, 0] == 0 and ink.max() == 255
    rows, columns = np.nonzero(ink > 127)
    assert rows.max() - rows.min() == pytest.approx(224 / 1.1, abs=4)  # as large as fits, in the middle
    assert rows.max() + rows.min() == pytest.approx(224, abs=4) == columns.max() + columns.min()
