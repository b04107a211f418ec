"""The linear heads of `small`'s sounds, fitted in closed form, and how well they name sounds that they never learned.

A head maps a clip's class probabilities and features into the space. The part of the probabilities is fixed: each class
weights the vector of its name less the mean of all names. A ridge regression of the features adds what names do not
tell. It learns from labelled sounds and, so that it stays harmless where nothing was labelled, from unlabelled sounds
too, whose target is the teacher's own closed map. `chosen` takes the settings that do best on sounds of other folds and
of other data sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

CLOSED, DECAY, SHARE = (0.5, 1.0), (0.01, 0.03, 0.1), (0.0, 0.3, 1.0, 3.0)
"""What `chosen` tries: the weight of class names, the ridge, and the weight of all unlabelled sounds for each of all
labelled ones."""


@dataclass(frozen=True)
class SoundHead:
    """A linear map of views (C + E,): `closed` (C, D) of classes, `learned` (E, D) of features, and `bias` (D,)."""

    closed: Tensor
    learned: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """(N, K, C + E) -> (N, D) unit rows: the normalised mean of the unit vectors of the views."""
        views = F.normalize(features @ torch.cat([self.closed, self.learned]) + self.bias, dim=2)
        return F.normalize(views.mean(1), dim=1)


@dataclass(frozen=True)
class Settings:
    """How a head is fitted: the weight of class names, the ridge, and the weight of unlabelled sounds."""

    closed: float = 0.5
    decay: float = 0.01
    share: float = 0.0


@dataclass(frozen=True)
class Unlabelled:
    """Sounds without a label: the means of their views (N, C + E), and the teacher's largest probabilities (N, C)."""

    features: Tensor
    taught: Tensor


@dataclass(frozen=True)
class Labelled:
    """Labelled sounds of several sets.

    `features` (N, K, C + E) are their views, `things` (N,) what they are of, as rows of `texts` (T, D), the vectors of
    the things' prompts. `sets` (N,) are the sets by number, `folds` their folds of cross-validation.
    """

    features: Tensor
    things: Tensor
    texts: Tensor
    sets: Tensor
    folds: Tensor

    def of(self, rows: Tensor) -> Labelled:
        """The sounds of some rows (a mask)."""
        return replace(
            self, features=self.features[rows], things=self.things[rows], sets=self.sets[rows], folds=self.folds[rows]
        )


def fit_head(labelled: Labelled, names: Tensor, settings: Settings, unlabelled: Unlabelled | None = None) -> SoundHead:
    """Sounds and the unit vectors of the teacher's class names (C, D) -> the head.

    Each thing has the weight of the root of its number of sounds. An unlabelled sound's target is the direction of the
    teacher's closed map, and its weight the length of that map, which is short where the teacher is unsure.
    """
    classes = len(names)
    centred_names = names - names.mean(0)
    fixed = settings.closed * centred_names
    count = torch.bincount(labelled.things, minlength=len(labelled.texts))
    weights = 1 / count[labelled.things].clamp(min=1).sqrt()
    rows, targets = labelled.features.mean(1), labelled.texts[labelled.things]
    if unlabelled is not None and settings.share:
        map_ = unlabelled.taught @ centred_names
        length = map_.norm(dim=1)
        share = length * settings.share * weights.sum() / length.sum().clamp(min=1e-6)
        rows, weights = torch.cat([rows, unlabelled.features]), torch.cat([weights, share])
        targets = torch.cat([targets, map_ / length.clamp(min=1e-6)[:, None]])
    embedding = rows[:, classes:]
    # The scale of a feature is that of the labelled sounds, so that one ridge means the same with unlabelled ones.
    views = labelled.features[..., classes:]
    mean, spread = views.mean((0, 1)), views.std((0, 1)) + 0.02
    x = (embedding - mean) / spread
    weights = (weights / weights.sum())[:, None]
    left = targets - rows[:, :classes] @ fixed
    x_mean, left_mean = (weights * x).sum(0), (weights * left).sum(0)
    centred = x - x_mean
    square = (centred * weights).T @ centred
    square = square + settings.decay * square.diagonal().mean() * torch.eye(len(square), device=x.device)
    weight = torch.linalg.solve(square, (centred * weights).T @ (left - left_mean)) / spread[:, None]
    return SoundHead(fixed, weight, left_mean - (x_mean * spread + mean) @ weight)


def accuracy(head: SoundHead, labelled: Labelled) -> float:
    """The share of sounds of one set whose own thing is the nearest of all things of the set."""
    things = labelled.things.unique()
    scores = head(labelled.features) @ F.normalize(labelled.texts[things], dim=1).T
    return float((things[scores.argmax(1)] == labelled.things).float().mean())


def is_measured(own: Labelled) -> bool:
    """Whether every thing of one set is in several folds, so that it can be measured by cross-validation."""
    return all(len(own.folds[own.things == thing].unique()) > 1 for thing in own.things.unique().tolist())


def held_out(
    labelled: Labelled, names: Tensor, settings: Settings, unlabelled: Unlabelled | None
) -> tuple[list[float], list[float]]:
    """The accuracy on each set by cross-validation over its folds, and of heads that learned only from other sets.

    Sets that have all sounds of a thing in one fold (recordings in pieces) are only learned from.
    """
    crossed, left_out = [], []
    for number in labelled.sets.unique().tolist():
        own = labelled.of(labelled.sets == number)
        if not is_measured(own):
            continue
        hits = 0.0
        for fold in own.folds.unique().tolist():
            test = (labelled.sets == number) & (labelled.folds == fold)
            head = fit_head(labelled.of(~test), names, settings, unlabelled)
            things = own.things.unique()
            tested = labelled.of(test)
            scores = head(tested.features) @ F.normalize(labelled.texts[things], dim=1).T
            hits += float((things[scores.argmax(1)] == tested.things).sum())
        crossed.append(hits / len(own.things))
        others = labelled.of(labelled.sets != number)
        left_out.append(accuracy(fit_head(others, names, settings, unlabelled), own))
    return crossed, left_out


def chosen(
    labelled: Labelled, names: Tensor, unlabelled: Unlabelled | None, sets: Sequence[str]
) -> tuple[Settings, Iterator[str]]:
    """The settings that do best in `held_out`, and the table of all settings, line by line.

    Cross-validation counts twice, because most sounds that are searched for are of kinds that have labels. Choosing on
    the measured folds flatters the figures a little.
    """
    measured: Mapping[Settings, tuple[list[float], list[float]]] = {
        settings: held_out(labelled, names, settings, unlabelled)
        for settings in (Settings(*values) for values in product(CLOSED, DECAY, SHARE))
    }
    best = max(measured, key=lambda settings: 2 * sum(measured[settings][0]) + sum(measured[settings][1]))

    def lines() -> Iterator[str]:
        yield f"by fold, then the set left out: {', '.join(sets)}"
        for settings, (crossed, left_out) in measured.items():
            figures = "; ".join(", ".join(f"{value:.3f}" for value in row) for row in (crossed, left_out))
            yield f"{settings}: {figures}{' (chosen)' if settings == best else ''}"

    return best, lines()


def moved(weight: Tensor, before: Tensor, after: Tensor, decay: float = 0.02) -> Tensor:
    """A head (width, D) of one space -> of another, by the vectors (N, D) of the same texts or pictures in both."""
    square = before.T @ before + decay * len(before) / before.shape[1] * torch.eye(before.shape[1])
    there: Tensor = weight @ torch.linalg.solve(square, before.T @ after)
    return there


def fit_gate(features: Tensor, spoken: Tensor, steps: int = 300) -> tuple[Tensor, Tensor]:
    """(N, width) features of single views, and (N,) whether one person speaks -> weight (width,) and bias of
    the gate.
    """
    mean, spread = features.mean(0), features.std(0) + 0.02
    x = (features - mean) / spread
    weight, bias = (torch.zeros(size, device=x.device, requires_grad=True) for size in (x.shape[1], 1))
    optimizer = torch.optim.Adam([weight, bias], 0.02)
    balance = (~spoken).sum() / spoken.sum()
    for _ in range(steps):
        loss = F.binary_cross_entropy_with_logits(x @ weight + bias, spoken.float(), pos_weight=balance)
        loss = loss + 1e-3 * weight.square().sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    weight, bias = weight.detach() / spread, bias.detach()
    return weight, bias - mean @ weight


def joined(words: Tensor, sounds: SoundHead) -> Tensor:
    """The heads of words (width, D) and of sounds -> the head of `HearingEncoder`, (width, D): words, sounds, (1 -
    gate).
    """
    return torch.cat([words, sounds.closed, sounds.learned, sounds.bias[None]])
