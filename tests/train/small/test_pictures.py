"""How `small`'s heads are trained, on made-up features of a known answer; how its pictures are read and tuned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import bind
import bind.heads
from preprocess.source import Source
from train.small import heads as learning
from train.small import pictures, tables, tuning
from train.small.heads import CLASSES, GATED, POOLED, UNIVERSAL, Classes, Coordinates, Heads, Words
from train.small.pictures import Item
from train.small.splits import side

_STAGES, _TEXT = 784, GATED + UNIVERSAL


def things(count: int, shuffled: bool = False) -> tuple[list[Item], Tensor, dict[str, Tensor], Classes]:
    """`count` things by four hands, in two views: a linear map of the name's vector, a hand's own offset, and noise.

    Each has a name in French too, which MiniLM knows nothing of.
    """
    generator = torch.Generator().manual_seed(0)
    names = [f"thing{number}x" for number in range(count)]
    vectors = torch.nn.functional.normalize(torch.randn(count, 384, generator=generator), dim=1)
    vectors[:, 8:] *= 0.05  # few things differ in more than a few ways, else nothing could be learned from so few
    vectors = torch.nn.functional.normalize(vectors + 0.5 * torch.eye(384)[0], dim=1)
    mixing = torch.randn(384, POOLED + CLASSES + _STAGES, generator=generator)
    items, rows = [], []
    order = torch.randperm(count, generator=generator) if shuffled else torch.arange(count)
    for kind, hand in [("emoji", hand) for hand in ("google", "twitter", "fluent")] + [("stamps", "stamps")]:
        style = torch.randn(mixing.shape[1], generator=generator) * 0.3
        for number, name in enumerate(names):
            noise = 0.3 * torch.randn(mixing.shape[1], generator=generator)
            rows.append(vectors[order[number]] @ mixing + style + noise)
            items.append(Item(kind, hand, name, (name,), side(name), Source(b"", name), {"fr": [f"chose{name}"]}))
    last = items[-count:]
    items += [Item("openclipart", "openclipart", i.name, i.captions, i.side, i.source) for i in last]
    own = torch.stack(rows + rows[-count:])
    features = torch.stack([own, own + 0.3 * torch.randn(own.shape, generator=generator)])
    start, end = POOLED, POOLED + CLASSES
    features[..., start:end] = features[..., start:end].softmax(-1)
    features = torch.cat([features[..., start:end].square(), features], -1)
    weight = torch.randn(CLASSES, POOLED, generator=generator)
    class_names = torch.nn.functional.normalize(torch.randn(CLASSES, 384, generator=generator), dim=1)
    whole = torch.cat([vectors, class_names])
    layers = torch.randn(len(whole), GATED - 384, generator=generator)  # know nothing
    both = torch.nn.functional.pad(whole, (0, UNIVERSAL - 384))
    english = torch.cat([whole, layers, both], 1)
    noise = torch.nn.functional.normalize(torch.randn(count, 384, generator=generator), dim=1)
    french = torch.cat([noise, layers[:count] + 2, both[:count]], 1)
    known = dict(zip(names, english[:count], strict=True))
    known |= {f"chose{name}": vector for name, vector in zip(names, french, strict=True)}
    return items, features, known, Classes(weight, english[count:], torch.arange(CLASSES))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps and directions: made-up things differ in few ways."""
    monkeypatch.setattr(learning, "_STEPS", 80)
    monkeypatch.setattr(learning, "_KEPT", 200)


def fitted(items: list[Item], features: Tensor, vectors: dict[str, Tensor], classes: Classes) -> Heads:
    rows = [row for row, item in enumerate(items) if item.side != "test"]
    return learning.fit([items[row] for row in rows], features[:, rows], vectors, classes, seeds=(0,))


@pytest.mark.parametrize("shuffled", [False, True])
def test_held_out_names_are_found_unless_names_are_shuffled(shuffled: bool) -> None:
    made = things(150, shuffled)
    heads = fitted(*made)
    items, features, vectors, _ = made
    found_by = tables.figures(items, features[0], vectors, heads)
    figures = {figure.name.partition(",")[0]: figure for figure in found_by}
    found = figures["emoji: text -> picture"]
    held_out = sum(side(f"thing{number}x") == "test" for number in range(150))
    assert found.count == 3 * held_out
    assert found.chance == pytest.approx(10 / held_out)
    assert found.low <= found.share <= found.high
    if shuffled:
        assert found.share < found.chance + 0.2
    else:
        assert found.share > found.chance + 0.25


def test_names_in_another_language_find_their_pictures() -> None:
    items, features, vectors, classes = things(150)
    heads = fitted(items, features, vectors, classes)
    (figure,) = tables.in_languages(items, features[0], vectors, heads)
    assert figure.name.startswith("emoji by their names in fr")
    assert figure.share > figure.chance + 0.2
    # The gate is what tells them apart: it is shut to French, open to English.
    gate = heads.text["gate.weight"][0], heads.text["gate.bias"]
    for texts, is_open in ((["thing1x", "thing2x"], True), (["chosething1x", "chosething2x"], False)):
        through = torch.stack([vectors[text] for text in texts]) @ gate[0] + gate[1]
        assert ((through.sigmoid() > 0.5) == is_open).all()


def test_the_first_directions_hold_most() -> None:
    items, features, vectors, classes = things(150)
    heads = fitted(items, features, vectors, classes)
    found = heads.pictures(features[0])
    assert found[:, :64].square().sum() > 4 * found[:, 64:128].square().sum()
    first = Heads(heads.image, heads.text)
    assert torch.equal(first.pictures(features[0]), found)


def test_certain_classes_are_added_to_photographs_only() -> None:
    generator = torch.Generator().manual_seed(0)
    own = torch.rand(60, POOLED + CLASSES + _STAGES, generator=generator)
    photographs = torch.arange(60) < 30
    own[:30, -_STAGES:] += 1
    names = torch.randn(CLASSES, _TEXT, generator=generator)
    text = {
        "gate.weight": torch.zeros(1, _TEXT),
        "gate.bias": torch.full((1,), 9.0),
        "mean": torch.zeros(GATED),
        "linear.weight": torch.randn(8, _TEXT, generator=generator),
        "linear.bias": torch.zeros(8),
    }
    weight, bias = torch.zeros(own.shape[1], 8), torch.ones(8)
    classes = Classes(torch.zeros(CLASSES, POOLED), names, torch.arange(CLASSES))
    heads = learning.certain(weight, bias, text, own, photographs, classes)
    sure = torch.zeros(60, CLASSES)
    sure[:, 7] = 1
    shown = learning._gated(heads.image, torch.cat([sure, own], 1)) - bias
    said = heads.texts(names)
    wanted = learning._CERTAIN * (said[7] - said.mean(0))
    torch.testing.assert_close(shown[:30], wanted.expand(30, 8), atol=0.1, rtol=0.1)
    assert shown[30:].abs().max() < 0.1
    closed = learning.certain(weight, bias, text, own, torch.zeros(60, dtype=torch.bool), classes)
    assert (learning._gated(closed.image, torch.cat([sure, own], 1)) - bias).abs().max() < 1e-3


def test_a_written_model_is_the_one_fitted(tmp_path: Path) -> None:
    trunk = pictures.Trunks().image
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        trunk.classifier.bias += 0.1  # tuned
        trunk.half().float()
    width = int(trunk.width)
    states = []
    for features, gated in ((width, CLASSES), (_TEXT, GATED)):
        head = bind.heads.Gated(features, pictures.DIM, gated)
        states.append({name: part.half().float() for name, part in head.state_dict().items()})
    heads = Heads(*states)
    pictures.save(trunk, heads, tmp_path / "model", "small")
    model = bind.load(tmp_path / "model")
    assert model.modalities == ("image", "video", "text")
    picture = Image.fromarray(torch.randint(256, (224, 224, 3), generator=generator, dtype=torch.uint8).numpy())
    pixels = torch.from_numpy(np.array(picture))[None]
    with torch.inference_mode():
        wanted = heads.pictures(trunk(tuning.prepared(pixels)))
    torch.testing.assert_close(torch.from_numpy(model.embed([picture]).vectors), wanted, rtol=0, atol=2e-3)
    shipped = tables.Shipped(model)
    features = trunk(tuning.prepared(pixels)).detach()
    torch.testing.assert_close(shipped.pictures(features), wanted, rtol=0, atol=1e-4)
    texts = torch.randn(2, _TEXT, generator=generator)
    torch.testing.assert_close(shipped.texts(texts), heads.texts(texts), rtol=0, atol=1e-4)


def test_weights_of_coordinates_go_back_to_features() -> None:
    _, features, _, classes = things(40)
    features = features[0, :, CLASSES:]
    coordinates = Coordinates(features, classes.weight, classes.names[:, :384])
    generator = torch.Generator().manual_seed(1)
    x = coordinates(features)
    weight, bias = torch.randn(x.shape[1], 5, generator=generator), torch.randn(5, generator=generator)
    back, shift = coordinates.back(weight, bias)
    torch.testing.assert_close(features @ back + shift, x @ weight + bias, rtol=1e-3, atol=5e-2)


def test_weights_of_words_go_back_to_a_gated_head() -> None:
    _, _, vectors, classes = things(40)
    english = torch.stack([vector for text, vector in vectors.items() if text.startswith("thing")])
    french = torch.stack([vector for text, vector in vectors.items() if text.startswith("chose")])
    words = Words(english, french, classes.names)
    generator = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(_TEXT, 5, generator=generator), torch.randn(5, generator=generator)
    for texts in (english, french):
        wanted = words(texts) @ weight + bias
        torch.testing.assert_close(learning._gated(words.back(weight, bias), texts), wanted, rtol=1e-3, atol=1e-2)


def drawn(folder: Path, colours: tuple[str, ...]) -> list[Item]:
    """A picture of each colour; `broken` is a file that is none."""
    items = []
    for number, colour in enumerate(colours):
        path = folder / f"{number}.png"
        if colour == "broken":
            path.write_bytes(b"no picture")
        else:
            Image.new("RGB", (40, 30), colour).save(path)
        items.append(Item("emoji", "google", colour, (colour,), "train", Source(path, str(path))))
    return items


def test_interrupted_pixels_go_on_and_leave_out_what_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_PICTURES_AT_ONCE", 2)
    items = drawn(tmp_path, ("red", "broken", "blue", "green"))
    good, whole = pictures.pixels_of(items, tmp_path / "whole.npy")
    assert [item.name for item in good] == ["red", "blue", "green"]
    assert whole.shape == (3, 224, 224, 3)
    assert whole[:, 100, 100].tolist() == [[255, 0, 0], [0, 0, 255], [0, 128, 0]]
    read = pictures.reading.read

    def stop(source: Source, *rest: Any) -> Any:
        if source.name.endswith("2.png"):
            raise KeyboardInterrupt
        return read(source, *rest)

    monkeypatch.setattr(pictures.reading, "read", stop)
    with pytest.raises(KeyboardInterrupt):
        pictures.pixels_of(items, tmp_path / "parts.npy")
    monkeypatch.setattr(
        pictures.reading,
        "read",
        lambda source, *rest: pytest.fail("read again") if "0.png" in source.name else read(source, *rest),
    )
    assert np.array_equal(pictures.pixels_of(items, tmp_path / "parts.npy")[1], whole)
    with pytest.raises(ValueError, match="belongs to other pictures"):
        pictures.pixels_of(items[:3], tmp_path / "whole.npy")


def test_photographs_are_read_with_their_side_and_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    header = {"manifest": 1, "name": "x", "root": ".", "license": "CC0-1.0", "classes": ["hat"], "templates": ["a {}"]}
    event = {"id": "a", "image": {"path": "a.png"}, "text": ["a photo of a hat"], "labels": ["hat"]}
    file = tmp_path / "clothing-train.jsonl"
    file.write_text("\n".join(map(json.dumps, (header, event))))
    (item,) = pictures.read_photographs(tmp_path, pictures.SETS, "train")
    assert (item.name, item.captions, item.side) == ("hat", ("a photo of a hat", "a hat"), "train")
    assert item.is_photograph
    assert "flickr8k-train" in capsys.readouterr().err
    assert pictures.is_free(file)
    file.write_text(json.dumps(header | {"license": "research and education only"}))
    assert not pictures.is_free(file)


class _Trunk(nn.Module):
    """As wide as the real one, and quick: the same of every block, of a picture's mean colour."""

    width = 2 * CLASSES + POOLED + _STAGES

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.head = nn.Linear(4, self.width)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.head(self.stem(x.mean((2, 3))).relu())
        probabilities = whole[:, CLASSES + POOLED :][:, :CLASSES].softmax(1)
        parts = [
            probabilities.square(),
            whole[:, CLASSES:][:, :POOLED],
            probabilities,
            whole[:, 2 * CLASSES + POOLED :],
        ]
        return torch.cat(parts, 1)


def test_tuning_moves_the_late_stages_and_keeps_the_early_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "BATCH", 16)
    items, _, vectors, classes = things(20)
    torch.manual_seed(0)
    trunk = _Trunk()
    pixels = torch.randint(256, (len(items), 16, 16, 3), dtype=torch.uint8)
    own = pictures.features_of(trunk, items, pixels, 1)
    assert own.shape == (2, len(items), trunk.width)
    assert not torch.equal(own[0], own[1])
    material = learning.Material(items, own[0, :, CLASSES:].float(), vectors, classes)
    tuned, learned = tuning.tune(trunk, items, pixels, material, material.start(), own[0, :, CLASSES:], steps=4)
    before = trunk.state_dict()
    assert torch.equal(tuned["stem.weight"], before["stem.weight"])
    assert not torch.equal(tuned["head.weight"], before["head.weight"])
    assert not torch.equal(learned.weight, material.start().weight)
    assert all(part.isfinite().all() for part in (*tuned.values(), learned.weight, learned.text_weight))
    half = tuning.between(before, tuned, 0.5)["head.weight"]
    torch.testing.assert_close(half, (before["head.weight"] + tuned["head.weight"]) / 2)
    assert tuning._stays("blocks.4.project.weight") and not tuning._stays("blocks.15.project.weight")


def test_views_differ_keep_their_range_and_let_white_in() -> None:
    black = torch.full((64, 3, 32, 32), -1.0)
    views = tuning.varied(black, torch.Generator().manual_seed(0))
    assert views.shape == black.shape
    assert views.min() >= -1 and views.max() <= 1
    centre, corner = views[:, :, 16, 16].mean(1), views[:, :, 0, 0].mean(1)
    assert (centre < -0.5).all()
    assert (corner > 0.5).any() and (corner < -0.5).any()  # zoomed out, zoomed in
    assert torch.equal(views, tuning.varied(black, torch.Generator().manual_seed(0)))


def test_views_of_photographs_are_pieces_of_them() -> None:
    x = torch.linspace(-0.9, -0.5, 32)[None, None, None].expand(64, 3, 32, 32)
    views = tuning.cropped(x, torch.Generator().manual_seed(0))
    assert views.min() >= -1 and views.max() <= 1
    rising = views[:, 0, 16, -1] > views[:, 0, 16, 0]
    assert rising.any() and not rising.all()  # mirrored
    assert (views < 0.5).all()  # no white comes in
    photographs = torch.arange(64) % 2 == 0
    shown = tuning.view(x.contiguous(), photographs, torch.Generator().manual_seed(0))
    assert (shown[~photographs].amax((1, 2, 3)) > 0.5).any()
    assert not (shown[photographs].amax((1, 2, 3)) > 0.5).any()
