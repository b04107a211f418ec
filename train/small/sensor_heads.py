"""Heads of the depth and thermal encoders of `small`: a ridge regression in closed form, and its cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Chosen by cross-validation (LOG.md): the ridge as a share of the mean squared size of a row, how far targets are
# whitened and what is added to their variances, and the weight of a row of each kind relative to a photograph's.
_RIDGE, _WHITENED, _FLOOR = 0.5, 1.0, 0.1
_WEIGHTS = {"photographs": 1.0, "pairs": 2.0, "pictures": 1.0, "described": 2.0}
_WITHIN = 5.0
"""The weight of the vectors of real pairs, relative to photographs', in the whitening of targets."""
_CAMERA = 20.0
"""The weight of the rows that map the mean of each camera to the same place."""
_LARGEST = 4.0
"""Standard deviations at which a feature is cut off."""


@dataclass(frozen=True)
class Part:
    """Rows to learn from: features (N, W), targets (N, D) and (N,) their place or kind, whose mean is subtracted.

    `pictures` (N, W), where there are any, are the same trunk's features of the pictures themselves.
    """

    name: str
    kind: str
    features: Tensor
    targets: Tensor
    place: tuple[str, ...]
    group: tuple[str, ...] = ()
    pictures: Tensor | None = None

    def of(self, rows: Tensor) -> Part:
        """These rows (N',) alone."""
        place = tuple(self.place[row] for row in rows.tolist())
        pictures = None if self.pictures is None else self.pictures[rows]
        group = tuple(self.group[row] for row in rows.tolist()) if self.group else ()
        features, targets = self.features[rows], self.targets[rows]
        return replace(self, features=features, targets=targets, place=place, group=group, pictures=pictures)


def fit(parts: Sequence[Part]) -> nn.Linear:
    """Parts -> a head (W -> D): ridge regression from standardised features to whitened targets."""
    all_rows = torch.cat([part.features for part in parts])
    mean, std = all_rows.mean(0), all_rows.std(0)
    std = std + 0.01 * std.mean()
    seen = [part for part in parts if part.kind != "described"]
    described = [part for part in parts if part.kind == "described"]
    rows, wanted = [], []
    for family in (seen, described):
        if not family:
            continue
        centred = [_less_means(part.targets, part.place) for part in family]
        counts = [_WITHIN if part.kind == "pairs" else 1.0 for part in family]
        white = _whitening(torch.cat([c * count**0.5 for c, count in zip(centred, counts, strict=True)]))
        size = (torch.cat(centred) @ white).square().sum(1).mean().sqrt()
        for part, target in zip(family, centred, strict=True):
            weight = _WEIGHTS[part.kind] ** 0.5
            rows.append(weight * _less_means(((part.features - mean) / std).clamp(-_LARGEST, _LARGEST), part.place))
            wanted.append(weight * target @ white / size)
            if part.pictures is not None and part.kind == "pairs":
                own = (part.pictures - part.pictures.mean(0)) / (part.pictures.std(0) + 0.01 * std.mean())
                weight = _WEIGHTS["pictures"] ** 0.5
                rows.append(weight * _less_means(own.clamp(-_LARGEST, _LARGEST), part.place))
                wanted.append(weight * target @ white / size)
    # A difference between the means of two cameras is no information, so it is mapped to 0.
    middle = torch.stack([part.features.mean(0) for part in parts]).mean(0)
    for part in parts:
        rows.append(_CAMERA * ((part.features.mean(0) - middle) / std)[None])
        wanted.append(torch.zeros(1, part.targets.shape[1]))
    x, y = torch.cat(rows), torch.cat(wanted)
    gram = x @ x.T
    ridge = _RIDGE * gram.diagonal()[: -len(parts)].mean()
    weight = (x.T @ torch.linalg.solve(gram + ridge * torch.eye(len(gram)), y)).T / std
    head = nn.Linear(*weight.T.shape)
    head.weight.data, head.bias.data = weight.contiguous(), -weight @ middle
    return head.requires_grad_(False)


def contrasts(quarters: Tensor) -> Tensor:
    """(N, 4 C) features of the quarters, a channel's four side by side -> the same, less a channel's mean of them."""
    channels: Tensor = quarters.reshape(len(quarters), -1, 4)
    return (channels - channels.mean(2, keepdim=True)).flatten(1)


def _less_means(x: Tensor, place: Sequence[str]) -> Tensor:
    """(N, W) less the mean of the rows of the same place."""
    order = sorted(set(place))
    number = torch.tensor([order.index(one) for one in place])
    sums = torch.zeros(len(order), x.shape[1]).index_add_(0, number, x)
    return x - (sums / torch.bincount(number)[:, None])[number]


def _whitening(centred: Tensor) -> Tensor:
    """(N, D) -> (D, D), a map that gives all directions the same variance, except those of almost no variance."""
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    values = values.clamp(min=0) + _FLOOR * values.mean()
    root: Tensor = vectors @ torch.diag(values ** (-_WHITENED)) @ vectors.T
    return root


def measured(parts: Sequence[Part], groups: Mapping[str, Sequence[str]], count: int = 5) -> dict[str, dict[str, float]]:
    """Parts and the groups of their rows -> by part, the retrieval of rows whose group was not trained on.

    For pairs, these are recall@1 and recall@10 of the picture: among the pictures of its own place where places recur,
    else among all. For pictures with texts only, they are those of the text.
    """
    found = {}
    for tested in parts:
        if tested.name not in groups:
            continue
        order = sorted(set(groups[tested.name]))
        fold = torch.tensor([order.index(group) % count for group in groups[tested.name]])
        vectors = torch.zeros_like(tested.targets)
        for number in range(min(count, len(order))):
            rest = [part.of((fold != number).nonzero().flatten()) if part is tested else part for part in parts]
            held_out = fold == number
            vectors[held_out] = F.normalize(fit(rest)(tested.features[held_out]), dim=1)
        found[tested.name] = recalls(tested, vectors)
        others = [part for part in parts if part is not tested]
        found[f"{tested.name}, set not trained on"] = recalls(tested, F.normalize(fit(others)(tested.features), dim=1))
    return found


def recalls(part: Part, vectors: Tensor) -> dict[str, float]:
    """A part and vectors (N, D) of its rows -> recall@1, recall@10 and chance@10, by place and over all."""
    if part.kind == "described":
        texts, number = part.targets.unique(dim=0, return_inverse=True)
        scores = vectors @ texts.T
        ranks = (scores > scores.gather(1, number[:, None])).sum(1)
        return {"R@1": _share(ranks < 1), "R@10": _share(ranks < 10), "chance@10": min(1.0, 10 / len(texts))}
    result: dict[str, float] = {}
    for place in sorted(set(part.place)):
        rows = torch.tensor([one == place for one in part.place]).nonzero().flatten()
        scores = vectors[rows] @ part.targets[rows].T
        ranks = (scores > scores.diagonal()[:, None]).sum(1)
        result |= {f"{place} R@1": _share(ranks < 1), f"{place} R@10": _share(ranks < 10)}
        result[f"{place} chance@10"] = min(1.0, 10 / len(rows))
    return result


def _share(hits: Tensor) -> float:
    return round(float(hits.float().mean()), 3)
