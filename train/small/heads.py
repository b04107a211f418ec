"""The image and text heads of `small`: two linear maps of the features of frozen trunks.

The learned map is trained with InfoNCE on four kinds of pairs: pictures and their captions in sixteen languages,
drawings of one thing by two artists, two views of one picture, and the classifier's class directions and class names.
In addition, a picture should give ImageNet's classes the probabilities that the trunk's own classifier gives.

The closed map has no training: the class probabilities p_c weight the vectors a_c of the class names, less their mean.
So a picture is [W x, b sum_c p_c a_c] and a text is [V t, c a(t)]. Of these 768 directions, the 384 with the most
variance over pictures and texts are kept, in descending order, so that the first 64, 128 or 256 may be used alone. For
photographs, but not for drawings, the names of those classes are added of which the trunk is certain (`certain`).

A text is encoded by MiniLM, which knows English, and by a sentence encoder of sixteen languages. A gate estimates
whether a text is English, and multiplies MiniLM's features by that probability.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bind.heads import Gated
from train.small.splits import key

if TYPE_CHECKING:
    from train.small.pictures import Item

DIM = 384
"""The dimension of the space of `small`."""
POOLED, CLASSES, SENTENCE, GATED, UNIVERSAL = 1280, 1000, 384, 1536, 512
"""Widths: the trunk's pooled features and classes; MiniLM's sentence, all of MiniLM, the multilingual encoder."""

# Chosen by cross-validation (LOG.md): directions of the pooled features, steps, batch, learning rate, dropout, and the
# share of pictures that are replaced by a view.
_KEPT, _STEPS, _BATCH, _RATE, _DROPOUT, _VIEWED = 800, 300, 3072, 5e-4, 0.5, 0.5
_WHITENED, _TEXT_RATE, _TAU = 0.5, 1.0, 0.07
_CLASS_WEIGHT, _CLASS_EVIDENCE, _CLASSES_AT_ONCE = 0.5, 0.4, 256
_NAMING = 0.25
"""The weight of the loss that names classes as the classifier does."""
OFTEN = {
    "emoji": 1.0,
    "stamps": 1.5,
    "openclipart": 0.5,
    "icons": 0.15,
    "flickr8k-train": 0.5,
    "caltech101-train": 2.0,
    "grocery-train": 2.0,
    "clothing-train": 2.0,
}
"""Set -> how often a name of the set is drawn, or a picture of a set without names."""
_OTHER = 1.0
"""The same for a set that is not listed."""
_TOGETHER = 16
"""The number of pictures of one name that are drawn as one; a name with more pictures is drawn more often in
proportion.
"""
_FOREIGN = 0.4
"""The share of captions that are drawn in another language, where there is one."""
_SPREAD = 10.0
"""The factor on the block of class probabilities, which gives its gradients the size of the others'."""
_WORDS = 1.0
"""The size of the features of MiniLM's layers and the multilingual encoder beside MiniLM's sentence vector."""
_GAIN, _CLOSED_IMAGE, _CLOSED_TEXT = 2.0, 1.5, 1.0
"""The weights of the learned map's class probabilities after training, and of the closed map on both sides."""
_CERTAIN = 1.25
"""The weight of the names of classes of which the trunk is certain."""
_SHUT = 20.0
"""A bias that closes the gate for every picture, where there are no photographs to tell from drawings."""
_RIDGE = 3e-3
"""The weight of the ridge relative to the mean variance of the features; it was chosen with the other constants."""
SEEDS = (0, 1, 2, 3, 4)
"""Seeds of the learned map, which is the mean over them."""


@dataclass(frozen=True)
class Heads:
    """Both heads, the tensors of a `bind.heads.Gated` each."""

    image: Mapping[str, Tensor]
    text: Mapping[str, Tensor]

    def pictures(self, features: Tensor) -> Tensor:
        """(N, W) -> (N, D) unit rows."""
        return F.normalize(_gated(self.image, features), dim=1)

    def texts(self, vectors: Tensor) -> Tensor:
        """(N, V) -> (N, D) unit rows."""
        return F.normalize(_gated(self.text, vectors), dim=1)


def _gated(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    head = Gated(x.shape[1], len(state["linear.bias"]), len(state["mean"])).to(x.device)
    head.load_state_dict(dict(state))
    with torch.no_grad():
        projected: Tensor = head(x)
    return projected


@dataclass(frozen=True)
class Classes:
    """The classifier: `weight` (1000, 1280), the vectors `names` (M, V) of its class names, and the class of each name.

    `of` (M,) counts up from 0 to 999; a class may have several names.
    """

    weight: Tensor
    names: Tensor
    of: Tensor


class Coordinates:
    """The coordinates of the learned map: (N, W) features -> (N, 800 + 384 + the rest), and the way back for its
    weights.

    Pooled features are projected to the directions of most variance and half whitened. Class probabilities become
    mixtures of class names. The features of the stages are standardised.
    """

    def __init__(self, train: Tensor, weight: Tensor, names: Tensor) -> None:
        """`train` (N, W) features, the classifier's `weight` (1000, 1280), its class `names` (1000, 384)."""
        self.mean = train.mean(0)
        centred = train[:, :POOLED] - self.mean[:POOLED]
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(train))
        self.rotate = vectors[:, -_KEPT:] / values[-_KEPT:].clamp(min=1e-6) ** (_WHITENED / 2)
        self.rotate = self.rotate / (centred @ self.rotate).std()
        self.mixture = 2 * _SPREAD * (names - names.mean(0))
        self.deviation = train[:, POOLED + CLASSES :].std(0) + 1e-3
        # The features of a class itself: its direction among those of pictures, and its probability of 1.
        weight = (weight - weight.mean(0)) @ self.rotate
        evidence = _CLASS_EVIDENCE * self.mixture
        rest = torch.zeros(CLASSES, len(self.deviation), device=train.device)
        self.prototypes = torch.cat([weight / weight.std(), evidence, rest], 1)

    def __call__(self, features: Tensor) -> Tensor:
        """(N, W) -> (N, coordinates)."""
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


class Words:
    """The coordinates of texts in the learned map: (N, V) vectors -> (N, V), and the way back for its weights.

    MiniLM's part is multiplied by the probability that a text is English; the rest is standardised to the same size.
    """

    def __init__(self, english: Tensor, foreign: Tensor, names: Tensor) -> None:
        """Vectors (N, V) of English texts, of texts in other languages (none: the gate is open), of class names."""
        device = english.device
        self.gate = _logistic(english, foreign) if len(foreign) else (torch.zeros(english.shape[1], device=device), 9.0)
        # The mean of a sentence vector is that of class names, because pictures are compared with mixtures of these.
        mean = english.mean(0)
        mean[:SENTENCE] = names[:, :SENTENCE].mean(0)
        self.mean = mean
        size = english[:, :SENTENCE].std(0).mean()
        self.scale = _WORDS * size / english.std(0).clamp(min=1e-6)
        self.scale[:SENTENCE] = 1
        # This predicts MiniLM's vector of an English text from the multilingual encoder's vector.
        vectors = self(english)
        u, m = vectors[:, GATED:], vectors[:, :SENTENCE]
        among = u.T @ u / len(u)
        ridge = _RIDGE * among.diagonal().mean() * torch.eye(len(among), device=device)
        to = torch.linalg.solve(among + ridge, u.T @ m / len(u))
        half = torch.eye(SENTENCE, device=device) / 2
        self.anchor = torch.cat([half, torch.zeros(GATED - SENTENCE, SENTENCE, device=device), to / 2])

    def __call__(self, texts: Tensor) -> Tensor:
        """(N, V) -> (N, V)."""
        weight, bias = self.gate
        gate = (texts @ weight + bias).sigmoid()[:, None]
        x = (texts - self.mean) * self.scale
        return torch.cat([x[:, :GATED] * gate, x[:, GATED:]], 1)

    def back(self, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """A linear map of these coordinates -> the `bind.heads.Gated` of the texts' vectors that computes the same."""
        weight = weight * self.scale[:, None]
        gate, shift = self.gate
        return {
            "gate.weight": gate[None],
            "gate.bias": torch.as_tensor(shift, device=weight.device).reshape(1).float(),
            "mean": self.mean[:GATED],
            "linear.weight": weight.T.contiguous(),
            "linear.bias": bias - self.mean[GATED:] @ weight[GATED:],
        }


def _logistic(yes: Tensor, no: Tensor) -> tuple[Tensor, float]:
    """Two sets of vectors (N, V) -> weight (V,) and bias of the logistic regression that separates them."""
    x = torch.cat([yes, no])
    mean, deviation = x.mean(0), x.std(0).clamp(min=1e-6)
    x = (x - mean) / deviation
    target = torch.cat([torch.ones(len(yes)), torch.zeros(len(no))]).to(x.device)
    balance = torch.where(target > 0, len(x) / (2 * len(yes)), len(x) / (2 * len(no)))
    weight = torch.zeros(x.shape[1], device=x.device, requires_grad=True)
    bias = torch.zeros((), device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = F.binary_cross_entropy_with_logits(x @ weight + bias, target, balance) + 1e-3 * weight.square().sum()
        found.backward()
        return found

    optimizer.step(loss)
    weight = weight.detach() / deviation
    return weight, float(bias.detach() - mean @ weight)


@dataclass(frozen=True)
class Learned:
    """The learned map: weight and bias for coordinates of pictures, weight and bias for `Words`."""

    weight: Tensor
    bias: Tensor
    text_weight: Tensor
    text_bias: Tensor


def fit(
    items: Sequence[Item],
    features: Tensor,
    vectors: Mapping[str, Tensor],
    classes: Classes,
    seeds: tuple[int, ...] = SEEDS,
) -> Heads:
    """Pictures to train on, their features (1 + views, N, W), and vectors (V,) of all their captions -> both heads.

    The first features are the certainties. The learned map is the mean over all seeds. Everything runs on the device of
    the features.
    """
    rest = features[..., CLASSES:]
    own = rest[0].float()
    material = Material(items, own, vectors, classes)
    learned = [learn(material, rest, seed) for seed in seeds]
    parts = zip(*((one.weight, one.bias, one.text_weight, one.text_bias) for one in learned), strict=True)
    (weight, bias), text = material.joined(Learned(*(torch.stack(list(part)).mean(0) for part in parts)), own)
    photographs = torch.tensor([item.is_photograph for item in items], device=own.device)
    return certain(weight, bias, text, own, photographs, classes)


def certain(
    weight: Tensor, bias: Tensor, text: Mapping[str, Tensor], own: Tensor, photographs: Tensor, classes: Classes
) -> Heads:
    """A linear head of pictures and the text's head -> both, with certainties before the features of pictures.

    A certainty adds the vector of its class's name. A gate lets it through for photographs only, because for a drawing
    the trunk is certain of the wrong class. The gate is a logistic regression on the features of the stages, fitted to
    features `own` (N, W) and which of them are `photographs` (N,). Without photographs, nothing is let through.
    """
    device = own.device
    name_vectors = F.normalize(_gated(text, classes.names.to(device).float()), dim=1)
    of = classes.of.to(device)
    names = torch.zeros(CLASSES, name_vectors.shape[1], device=device).index_add_(0, of, name_vectors)
    names /= torch.bincount(of, minlength=CLASSES)[:, None]
    gate, shift = torch.zeros(CLASSES + len(weight), device=device), -_SHUT
    if photographs.any() and not photographs.all():
        stages = own[:, POOLED + CLASSES :]
        gate[CLASSES + POOLED + CLASSES :], shift = _logistic(stages[photographs], stages[~photographs])
    image = {
        "gate.weight": gate[None],
        "gate.bias": torch.full((1,), shift, device=device),
        "mean": torch.zeros(CLASSES, device=device),
        "linear.weight": torch.cat([_CERTAIN * (names - names.mean(0)), weight]).T.contiguous(),
        "linear.bias": bias,
    }
    return Heads(image, text)


class Material:
    """The training data of both heads: pictures, their captions, and the coordinates of both."""

    def __init__(self, items: Sequence[Item], own: Tensor, vectors: Mapping[str, Tensor], classes: Classes) -> None:
        """Takes pictures and their features `own` (N, W), the vectors (V,) of all their captions, and the
        classifier.
        """
        device = own.device
        english = sorted({caption for item in items for caption in item.captions})
        foreign = sorted({caption for item in items for caption in item.foreign} - set(english))
        texts = torch.stack([vectors[caption] for caption in (*english, *foreign)]).to(device).float()
        names = classes.names.to(device).float()
        self.words = Words(texts[: len(english)], texts[len(english) :], names)
        self.texts, self.text_vectors = texts, self.words(texts)
        self.class_texts = self.words(names)
        self._names, self._first, self._of = _ragged(_listed(classes.of.tolist()))
        anchors = self.class_texts @ self.words.anchor
        of = classes.of.to(device)
        self.anchors = torch.zeros(CLASSES, SENTENCE, device=device).index_add_(0, of, anchors)
        self.anchors /= torch.bincount(of, minlength=CLASSES)[:, None]
        self.coordinates = Coordinates(own, classes.weight.to(device).float(), self.anchors)
        self.drawn = Drawn(items, {caption: number for number, caption in enumerate((*english, *foreign))})

    def named(self, rng: np.random.Generator) -> Tensor:
        """One name of each class, (1000, V)."""
        chosen = self._names[_one(rng, self._first, self._of)]
        return self.class_texts[torch.from_numpy(chosen).to(self.class_texts.device)]

    def start(self) -> Learned:
        """The map that training starts from, which is the closed one."""
        device = self.text_vectors.device
        weight = torch.zeros(self.coordinates.prototypes.shape[1], SENTENCE, device=device)
        weight[_KEPT : _KEPT + SENTENCE] = torch.eye(SENTENCE) / _SPREAD
        none = torch.zeros(SENTENCE, device=device)
        return Learned(weight, none, self.words.anchor.clone(), none.clone())

    def joined(self, learned: Learned, own: Tensor) -> tuple[tuple[Tensor, Tensor], dict[str, Tensor]]:
        """The learned map and the closed one, side by side, projected to the directions with the most variance.

        Returns weight (W, D) and bias (D,) of pictures, and the head of texts.
        """
        device = own.device
        size = (self.coordinates(own) @ learned.weight + learned.bias).norm(dim=1).mean()
        text_size = (self.text_vectors @ learned.text_weight + learned.text_bias).norm(dim=1).mean()
        weight = learned.weight.clone()
        weight[_KEPT : _KEPT + SENTENCE] *= _GAIN
        weight, bias = self.coordinates.back(weight, learned.bias)
        closed = torch.zeros(len(weight), SENTENCE, device=device)
        closed[POOLED : POOLED + CLASSES] = _CLOSED_IMAGE * (self.anchors - self.anchors.mean(0))
        none = torch.zeros(SENTENCE, device=device)
        image = torch.cat([weight / size, closed], 1), torch.cat([bias / size, none])
        text_weight = torch.cat([learned.text_weight / text_size, _CLOSED_TEXT * self.words.anchor], 1)
        text_bias = torch.cat([learned.text_bias / text_size, none])
        a = F.normalize(own @ image[0] + image[1], dim=1)
        b = F.normalize(self.text_vectors @ text_weight + text_bias, dim=1)
        _, directions = torch.linalg.eigh(a.T @ a / len(a) + b.T @ b / len(b))
        kept = directions[:, -DIM:].flip(1)
        # Rows then have a norm of about 1 before they are normalised, which suits float16.
        weight, bias = image[0] @ kept, image[1] @ kept
        size = (own @ weight + bias).norm(dim=1).mean()
        text_weight, text_bias = text_weight @ kept, text_bias @ kept
        text_size = (self.text_vectors @ text_weight + text_bias).norm(dim=1).mean()
        return (weight / size, bias / size), self.words.back(text_weight / text_size, text_bias / text_size)


class Drawn:
    """The items of a batch: drawn names, two pictures of each, and captions of the first."""

    def __init__(self, items: Sequence[Item], numbers: Mapping[str, int]) -> None:
        groups: dict[tuple[str, str, int], list[int]] = defaultdict(list)
        have: dict[tuple[str, str], int] = defaultdict(int)
        for row, item in enumerate(items):
            apart = item.kind, item.name if item.kind in ("emoji", "stamps") else key(item.name)
            groups[*apart, have[apart] // _TOGETHER].append(row)
            have[apart] += 1
        keys = {name: number for number, name in enumerate(sorted({key(item.name) for item in items}))}
        often = np.array([OFTEN.get(kind, _OTHER) for kind, _, _ in groups])
        self._often = often / often.sum()
        self._rows, self._starts, self._counts = _ragged(list(groups.values()))
        self._keys = np.array([keys[key(items[rows[0]].name)] for rows in groups.values()])
        self._captions = [
            _ragged([[numbers[c] for c in captions] for captions in side])
            for side in ([item.captions for item in items], [item.foreign or item.captions for item in items])
        ]
        self.size = min(_BATCH, len(groups))

    def batch(self, rng: np.random.Generator, size: int | None = None) -> tuple[np.ndarray, ...]:
        """Rows of pictures, of other pictures of the same names, numbers of captions, and numbers of the names'
        keys.
        """
        chosen = rng.choice(len(self._often), min(size or self.size, self.size), replace=False, p=self._often)
        rows, others = (self._rows[_one(rng, self._starts[chosen], self._counts[chosen])] for _ in range(2))
        return rows, others, self.sample_captions(rows, rng), self._keys[chosen]

    def sample_captions(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Rows of pictures -> the number of a random caption of each."""
        english, foreign = (values[_one(rng, starts[rows], counts[rows])] for values, starts, counts in self._captions)
        chosen: np.ndarray = np.where(rng.random(len(rows)) < _FOREIGN, foreign, english)
        return chosen


def _listed(of: Sequence[int]) -> list[list[int]]:
    """(N,) owners -> the positions of owner 0, those of owner 1, and so on."""
    found: list[list[int]] = [[] for _ in range(max(of) + 1)]
    for number, owner in enumerate(of):
        found[owner].append(number)
    return found


def _ragged(lists: Collection[Collection[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lists -> their values in one array, the start of each list, and its length."""
    counts = np.array([len(values) for values in lists])
    return np.concatenate([np.array(values) for values in lists]), np.cumsum(counts) - counts, counts


def _one(rng: np.random.Generator, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    chosen: np.ndarray = starts + (rng.random(len(starts)) * counts).astype(int)
    return chosen


class Losses:
    """The losses of a batch, with the learned map's parameters; used for heads alone and for a tuned trunk."""

    def __init__(self, material: Material, learned: Learned) -> None:
        device = material.text_vectors.device
        self._material = material
        scale = torch.tensor(1 / _TAU, device=device).log()
        parts = (learned.weight, learned.bias, learned.text_weight, learned.text_bias, scale)
        self.weight, self.bias, self.text_weight, self.text_bias, self.scale = (
            part.clone().requires_grad_() for part in parts
        )

    def groups(self, rate: float) -> list[dict[str, object]]:
        """The parameters, each with its learning rate."""
        rates = (rate, 0.3 * rate, _TEXT_RATE * rate, 0.3 * rate, 3 * rate)
        parameters = (self.weight, self.bias, self.text_weight, self.text_bias, self.scale)
        return [{"params": [one], "lr": at} for one, at in zip(parameters, rates, strict=True)]

    def learned(self) -> Learned:
        """The map as it is now."""
        return Learned(*(part.detach() for part in (self.weight, self.bias, self.text_weight, self.text_bias)))

    def __call__(
        self,
        x: Tensor,
        y: Tensor,
        again: Tensor,
        captions: np.ndarray,
        keys: np.ndarray,
        probabilities: Tensor,
        rng: np.random.Generator,
    ) -> Tensor:
        """A batch -> its loss.

        The batch is the coordinates of pictures and of other pictures of the same names; where these are different
        pictures; captions and the keys of the names; and the classifier's probabilities (B, 1000).
        """
        device, material = x.device, self._material
        same = torch.from_numpy(keys[:, None] == keys).fill_diagonal_(False).to(device)
        some = torch.from_numpy(rng.choice(CLASSES, _CLASSES_AT_ONCE, replace=False)).to(device)
        target = torch.arange(len(x), device=device)
        sharpness = self.scale.exp().clamp(max=100)
        shown = self._picture(F.dropout(x, _DROPOUT))
        text_vectors = self._text(material.text_vectors[torch.from_numpy(captions).to(device)])
        loss = _nce((shown @ text_vectors.T * sharpness).masked_fill(same, -1e4))
        if again.any():
            alike = (shown @ self._picture(y).T * sharpness).masked_fill(same, -1e4)
            loss = loss + F.cross_entropy(alike[again], target[again])
        names = self._text(material.named(rng))
        prototypes = self._picture(material.coordinates.prototypes[some])
        loss = loss + _CLASS_WEIGHT * _nce(prototypes @ names[some].T * sharpness)
        naming = F.cross_entropy(shown @ names.T * sharpness, probabilities)
        return loss + _NAMING * naming

    def _picture(self, coordinates: Tensor) -> Tensor:
        return F.normalize(coordinates @ self.weight + self.bias, dim=1)

    def _text(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors @ self.text_weight + self.text_bias, dim=1)


def learn(material: Material, features: Tensor, seed: int) -> Learned:
    """Features (1 + views, N, W) of the material's pictures -> the learned map."""
    device = features.device
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    losses = Losses(material, material.start())
    groups = losses.groups(_RATE)
    optimizer = torch.optim.AdamW(groups, weight_decay=0, betas=(0.9, 0.98))
    rates = [float(group["lr"]) for group in groups]  # type: ignore[arg-type]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=_STEPS, pct_start=0.1)

    def look(rows: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """Rows -> the view that is taken of each (0 is the picture itself), and its features."""
        views = rng.integers(1, max(len(features), 2), len(rows)) * (rng.random(len(rows)) < _VIEWED)
        views = np.minimum(views, len(features) - 1)
        return views, features[torch.from_numpy(views), torch.from_numpy(rows)].float()

    for _ in range(_STEPS):
        rows, others, captions, keys = material.drawn.batch(rng)
        views, x = look(rows)
        other_views, y = look(others)
        again = torch.from_numpy((rows != others) | (views != other_views)).to(device)
        probabilities = x[:, POOLED : POOLED + CLASSES]
        seen = material.coordinates(x), material.coordinates(y)
        loss = losses(*seen, again, captions, keys, probabilities, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return losses.learned()


def _nce(logits: Tensor) -> Tensor:
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
