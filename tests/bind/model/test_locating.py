"""Locating: the hottest place is the right one, boxes have exact scores, and bad input is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import bind
from bind.encoders.efficientnet import EfficientNet
from bind.encoders.openclip import ClipTower
from bind.encoders.transformer import PatchEncoder, Patches, Transformer
from bind.model import locating
from bind.query import QueryError, Term
from bind.space import Embeddings
from preprocess.source import MediaError
from serve.demo.samples import EVERYDAY
from tests.bench.bench_locate import SIDE, mosaics, square
from tests.serve import tiny


@pytest.fixture(scope="module")
def model() -> bind.BindModel:
    return tiny.seven()


def noise(seed: int, side: int = 32) -> np.ndarray:
    """A picture of black and white blocks of four pixels."""
    blocks = np.random.default_rng(seed).integers(0, 2, (side // 4, side // 4, 1), np.uint8) * 255
    return np.repeat(np.kron(blocks, np.ones((4, 4, 1), np.uint8)), 3, 2)


def quarter_of(heat: np.ndarray) -> int:
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    return int(2 * (2 * row // heat.shape[0]) + 2 * column // heat.shape[1])


def test_small_points_at_the_photograph_that_is_asked_for() -> None:
    small = bind.load("small", modalities=["image"])
    tiles = [square(Image.open(sample.path)) for sample in EVERYDAY[:5]]
    queries = small.embed([tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for tile in tiles])
    hits, moved, overlaps = 0, 0, []
    for canvas, chosen in mosaics(tiles, 2):
        for place, number in enumerate(chosen):
            found = small.locate(canvas, Embeddings(queries.vectors[[number]], small.space))
            assert found.heat.dtype == np.float32 and (found.width, found.height) == canvas.size
            hits += quarter_of(found.heat) == place
            moved += quarter_of(found.heat) == (place + 1) % 4  # the control
            x, y = place % 2 * SIDE, place // 2 * SIDE
            overlaps.append(locating.overlap(found.boxes[0], (x, y, x + SIDE, y + SIDE)))
    assert hits >= 7 and moved <= 2, (hits, moved)
    assert np.mean(overlaps) > 0.4, overlaps


def test_windows_point_where_an_encoder_has_no_places(model: bind.BindModel) -> None:
    tiles = [noise(seed) for seed in range(4)]
    canvas = np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])
    queries = model.embed(tiles, modality="image").vectors
    found = [model.locate(canvas, Embeddings(one[None], model.space), "image") for one in queries]
    assert [quarter_of(one.heat) for one in found] == [0, 1, 2, 3]


def test_the_score_of_a_box_is_that_of_its_cut_out(model: bind.BindModel, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    picture = Image.fromarray(np.vstack([noise(1), noise(2)]))
    picture.save(file)
    boxes = [(0, 0, 32, 32), (0, 32, 32, 64), (0, 1, 32, 33)]
    shown: list[tuple[int, int]] = []

    def propose(given: Image.Image) -> list[tuple[int, int, int, int]]:
        shown.append(given.size)
        return boxes

    query = "text:a boat - 0.5*text:a tree"
    found = model.locate(file, query, proposals=propose)
    parts = model.embed(["text:a boat", "text:a tree"])
    wanted = bind.combine(parts, [1, -0.5]).vectors[0]
    expected = model.embed([picture.crop(box) for box in boxes]).vectors @ wanted
    assert shown == [(32, 64)]
    by_box = {box[:4]: box[4] for box in found.boxes}
    assert len(by_box) == 2  # of two that are nearly the same the better one stays
    for box, score in by_box.items():
        assert score == pytest.approx(expected[boxes.index(box)], abs=2e-3)
    assert [box[4] for box in found.boxes] == sorted(by_box.values(), reverse=True)
    same = model.locate(picture, [Term("text", "a boat"), Term(None, "a tree", -0.5)])
    np.testing.assert_allclose(same.heat, found.heat, atol=1e-5)


def test_depth_thermal_and_long_pictures(model: bind.BindModel) -> None:
    values = np.random.default_rng(0).uniform(1, 4, (40, 60)).astype(np.float32)
    for modality in ("depth", "thermal"):
        found = model.locate(values, "a room", modality)
        assert (found.width, found.height) == (60, 40) and np.isfinite(found.heat).all()
        assert all(0 <= x0 < x1 <= 60 and 0 <= y0 < y1 <= 40 for x0, y0, x1, y1, _ in found.boxes)
    long = np.concatenate([np.zeros((3000, 20, 3), np.uint8), np.full((200, 20, 3), 255, np.uint8)])
    found = model.locate(long, "a room", "image")
    assert found.heat.shape[0] > found.heat.shape[1] and found.height == 3200


def test_a_picture_of_one_colour_has_no_box(model: bind.BindModel) -> None:
    assert model.locate(np.full((40, 40, 3), 90, np.uint8), "a dog", "image").boxes == []


def test_what_cannot_be_located_is_refused(model: bind.BindModel, tmp_path: Path) -> None:
    sound, picture = tiny.sound(tmp_path / "a.wav", 440), tiny.picture(tmp_path / "a.png", 0)
    with pytest.raises(MediaError, match="depth, image, thermal"):
        model.locate(sound, "a dog")
    with pytest.raises(MediaError, match="exist"):
        model.locate(tmp_path / "none.png", "a dog")
    with pytest.raises(MediaError, match="exist"):
        model.locate(picture, "image:none.png")
    with pytest.raises(QueryError):
        model.locate(picture, "dog + ")
    with pytest.raises(ValueError, match="cancel"):
        model.locate(picture, "text:a dog - text:a dog")
    with pytest.raises(ValueError, match="at least one term"):
        model.locate(picture, [])
    with pytest.raises(ValueError, match="expected one embedding"):
        model.locate(picture, Embeddings(model.embed(["text:a"]).vectors, "another"))
    for bad in ((0, 0, 5), (0, 0, float("nan"), 5), (30, 30, 40, 40)):
        with pytest.raises(ValueError, match="proposals: expected boxes"):
            model.locate(picture, "a dog", proposals=lambda _, bad=bad: [bad])  # type: ignore[misc]


def test_the_overlay_shows_heat_and_boxes() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0] = 1
    located = locating.Located(heat, [(0, 0, 20, 20, 0.9)], 80, 80)
    pixels = np.asarray(locating.overlay(located, Image.new("RGB", (40, 40))))
    assert pixels.shape == (80, 80, 3)
    assert pixels[10, 10, 0] > 100 and pixels[70, 70].tolist() == [0, 0, 0]
    assert pixels[0, 10].tolist() == [255, 255, 0]


def test_places_of_a_single_place_are_the_features_of_the_picture() -> None:
    torch.manual_seed(0)
    outputs = ("pooled", "probabilities", "certainties", "stages", "deviations", "maxima", "quarters")
    trunk = EfficientNet("tf_efficientnet_lite0", outputs).eval()
    x = torch.rand(2, 3, 32, 32)
    whole, placed = trunk(x), trunk.places(x)
    assert placed.shape == (2, trunk.width, 1, 1)
    quarters = 1280 + 2000 + 3 * sum((16, 24, 40, 80, 112, 192, 320))
    torch.testing.assert_close(placed[:, :quarters, 0, 0], whole[:, :quarters], atol=1e-4, rtol=1e-3)
    assert trunk.places(torch.rand(1, 3, 64, 96)).shape == (1, trunk.width, 2, 3)


def test_the_place_of_a_patch_follows_the_patch() -> None:
    torch.manual_seed(0)
    encoder = PatchEncoder(Patches((1, 32, 32), (8, 8), (8, 8), 16), Transformer(16, 1, 2)).eval()
    first = encoder.places(torch.zeros(1, 1, 48, 48))
    x = torch.zeros(1, 1, 48, 48)
    x[0, 0, 8:16, 16:24] = torch.rand(8, 8)
    changed = (encoder.places(x) - first).abs().sum(1)[0] > 1e-6
    assert first.shape == (1, 16, 6, 6) and changed.nonzero().tolist() == [[1, 2]]


def test_places_of_open_clip() -> None:
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(0)

    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = VisionTransformer(32, 8, 16, 1, 2, 2.0, output_dim=12)

    tower = ClipTower(Clip().eval(), "image", 12)
    assert tower.places is not None and ClipTower(Clip(), "text", 12).places is None
    first, x = tower.places(torch.zeros(1, 3, 32, 32)), torch.zeros(1, 3, 32, 32)
    x[0, :, 8:16, 16:24] = torch.rand(3, 8, 8)
    changed = (tower.places(x) - first).abs().sum(1)[0] > 1e-6
    assert first.shape == (1, 12, 4, 4) and changed.nonzero().tolist() == [[1, 2]]
    assert tower.places(torch.zeros(1, 3, 64, 64)).shape == (1, 12, 8, 8)
