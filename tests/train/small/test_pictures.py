"""The training of `small`'s heads, on made-up features that have a known answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from preprocess.source import Source
from train.small import pictures, tables
from train.small.pictures import Classes, Heads, Item
from train.small.splits import side

_STAGES, _LAYERS = 784, 384


def things(count: int, shuffled: bool = False) -> tuple[list[Item], Tensor, dict[str, Tensor], Classes]:
    """`count` things by four hands, in two views: a linear map of the name's vector, a hand's own offset, and noise."""
    generator = torch.Generator().manual_seed(0)
    names = [f"thing{number}x" for number in range(count)]
    vectors = torch.nn.functional.normalize(torch.randn(count, 384, generator=generator), dim=1)
    vectors[:, 8:] *= 0.05  # few things differ in more than a few ways, else nothing could be learned from so few
    vectors = torch.nn.functional.normalize(vectors + 0.5 * torch.eye(384)[0], dim=1)
    mixing = torch.randn(384, pictures.POOLED + pictures.CLASSES + _STAGES, generator=generator)
    items, rows = [], []
    order = torch.randperm(count, generator=generator) if shuffled else torch.arange(count)
    for kind, hand in [("emoji", hand) for hand in ("google", "twitter", "fluent")] + [("stamps", "stamps")]:
        style = torch.randn(mixing.shape[1], generator=generator) * 0.3
        for number, name in enumerate(names):
            noise = 0.3 * torch.randn(mixing.shape[1], generator=generator)
            rows.append(vectors[order[number]] @ mixing + style + noise)
            items.append(Item(kind, hand, name, (name,), Source(b"", name)))
    items += [Item("openclipart", "openclipart", item.name, item.captions, item.source) for item in items[-count:]]
    own = torch.stack(rows + rows[-count:])
    features = torch.stack([own, own + 0.3 * torch.randn(own.shape, generator=generator)])
    start, end = pictures.POOLED, pictures.POOLED + pictures.CLASSES
    features[..., start:end] = features[..., start:end].softmax(-1)
    weight = torch.randn(pictures.CLASSES, pictures.POOLED, generator=generator)
    class_names = torch.nn.functional.normalize(torch.randn(pictures.CLASSES, 384, generator=generator), dim=1)
    layers = torch.randn(count + pictures.CLASSES, _LAYERS, generator=generator)  # know nothing
    texts = torch.cat([torch.cat([vectors, class_names]), layers], 1)
    return items, features, dict(zip(names, texts[:count], strict=True)), Classes(weight, texts[count:])


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps and directions: made-up things differ in few ways."""
    monkeypatch.setattr(pictures, "_STEPS", 80)
    monkeypatch.setattr(pictures, "_KEPT", 200)


def fitted(items: list[Item], features: Tensor, vectors: dict[str, Tensor], classes: Classes) -> Heads:
    rows = [row for row, item in enumerate(items) if item.side != "test"]
    return pictures.fit([items[row] for row in rows], features[:, rows], vectors, classes, seeds=(0,))


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


def test_written_heads_are_those_fitted(tmp_path: Path) -> None:
    items, features, vectors, classes = things(40)
    heads = fitted(items, features, vectors, classes)
    pictures.save(heads, tmp_path)
    read = tables.read_heads(tmp_path)
    assert heads.image[0].shape == (features.shape[2], pictures.DIM)
    cosines = (heads.pictures(features[0]) * read.pictures(features[0])).sum(1)
    assert cosines.min() > 0.9999
    assert (tmp_path / "SHA256SUMS").read_text().count("safetensors") == 2


def test_weights_of_coordinates_go_back_to_features() -> None:
    _, features, _, classes = things(40)
    features = features[0]
    coordinates = pictures._Coordinates(features, classes)
    generator = torch.Generator().manual_seed(1)
    x = coordinates(features)
    weight, bias = torch.randn(x.shape[1], 5, generator=generator), torch.randn(5, generator=generator)
    back, shift = coordinates.back(weight, bias)
    torch.testing.assert_close(features @ back + shift, x @ weight + bias, rtol=1e-3, atol=5e-2)


def drawn(folder: Path, colours: tuple[str, ...]) -> list[Item]:
    """A picture of each colour; `broken` is a file that is none."""
    items = []
    for number, colour in enumerate(colours):
        path = folder / f"{number}.png"
        if colour == "broken":
            path.write_bytes(b"no picture")
        else:
            Image.new("RGB", (40, 30), colour).save(path)
        items.append(Item("emoji", "google", colour, (colour,), Source(path, str(path))))
    return items


def test_interrupted_features_go_on_and_leave_out_what_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "VIEWS", 1)
    monkeypatch.setattr(pictures, "_PICTURES_AT_ONCE", 2)
    items, trunks = drawn(tmp_path, ("red", "broken", "blue", "green")), pictures.Trunks()
    good, whole = pictures.features_of(items, trunks, tmp_path / "whole.npy")
    assert [item.name for item in good] == ["red", "blue", "green"]
    assert whole.shape[:2] == (2, 3)
    torch.testing.assert_close(
        whole[0, 2].float(), trunks.pictures(trunks.read(items[3].source)[None])[0].half().float()
    )
    assert not torch.equal(whole[0], whole[1])  # a view is another picture

    def stop(source: Source) -> Tensor:
        if source.name.endswith("2.png"):
            raise KeyboardInterrupt
        return read(source)

    read = trunks.read
    monkeypatch.setattr(trunks, "read", stop)
    with pytest.raises(KeyboardInterrupt):
        pictures.features_of(items, trunks, tmp_path / "parts.npy")
    monkeypatch.setattr(
        trunks, "read", lambda source: pytest.fail("read again") if "0.png" in source.name else read(source)
    )
    assert torch.equal(pictures.features_of(items, trunks, tmp_path / "parts.npy")[1], whole)
    with pytest.raises(ValueError, match="belongs to other pictures"):
        pictures.features_of(items[:3], trunks, tmp_path / "whole.npy")


def test_views_differ_keep_their_range_and_let_white_in() -> None:
    black = torch.full((64, 3, 32, 32), -1.0)
    views = pictures.varied(black, torch.Generator().manual_seed(0))
    assert views.shape == black.shape
    assert views.min() >= -1 and views.max() <= 1
    centre, corner = views[:, :, 16, 16].mean(1), views[:, :, 0, 0].mean(1)
    assert (centre < -0.5).all()
    assert (corner > 0.5).any() and (corner < -0.5).any()  # zoomed out, zoomed in
    assert torch.equal(views, pictures.varied(black, torch.Generator().manual_seed(0)))
