"""The depth and thermal encoders of `small`: one image trunk, tuned to pictures without colours, and a head each.

    python -m train.small.sensors DATA PACKAGES SPACE OUT [--licence free] [--folds]

DATA holds the real sets (`train.small.data`), PACKAGES simulated scenes where there are any, SPACE is a model whose
pictures and texts are the targets. OUT gets `depth.safetensors`, `thermal.safetensors` and `sensors.json`.

Real pairs are few (221 roads, 227 rooms), photographs are many. So most of what the trunk learns from are photographs
turned into what another sensor could have seen (`as_another_sensor`): a random mixture of their colours through a
random tone curve, polarity turned at places, blurred, with noise and fixed patterns, beside the photograph itself as
the target. Who recognises a photograph by its shapes, whatever the tones, recognises a thermal picture as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bind.encoders import sensor

SIZE = 224
OUTPUTS = ("pooled", "quarters")
"""Quarters tell pictures of one kind of place apart (LOG.md), pooled features know what is in them."""
ENCODER = {"module": "sensor", "model": "tf_efficientnet_lite0", "outputs": list(OUTPUTS), "low": 1.0, "high": 99.0}
HEAD = {"type": "linear", "bias": True}

# Chosen without roads, rooms and drones (LOG.md).
_RATE, _HEAD_RATE, _DECAY, _AVERAGED, _TAU = 4e-4, 1e-3, 0.02, 0.99, 0.05
_FEATURE_SHARE, _TEXT_SHARE = 0.5, 0.3
_BATCH = {"photographs": 320, "thermal": 64, "depth": 64, "said_thermal": 48, "said_depth": 48}
_SKETCHES = 512
"""Directions of the image trunk's features that the sensor's features are to tell apart, too."""


@dataclass
class Sets:
    """What there is to learn from, on one device.

    `photographs` (N, 3, S, S) uint8; `pairs` by sensor: pictures (M, 3, S, S) uint8 and the sensor's views
    (M, 1, S, S) float16; `said` by sensor: views (K, 1, S, S) and the number (K,) of what is said of each in `texts`
    (T, D) unit rows.
    """

    photographs: Tensor
    pairs: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    said: dict[str, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)


class Tuned(nn.Module):
    """The encoder and a head for each sensor, over features standardised by `mean` and `std`."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: sensor.Sensor, dim: int, names: Sequence[str] = ("depth", "thermal")) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict({name: nn.Linear(encoder.width, dim) for name in names})
        self.sketch = nn.Linear(encoder.width, _SKETCHES)
        self.register_buffer("mean", torch.zeros(encoder.width))
        self.register_buffer("std", torch.ones(encoder.width))
        self.taus = nn.Parameter(torch.full((3,), _TAU).log())

    def standard(self, x: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, W) standardised features."""
        standard: Tensor = (self.encoder(x).float() - self.mean) / self.std
        return standard

    def folded(self, name: str) -> nn.Linear:
        """The head of a sensor as it is applied to the encoder's own features."""
        weight, bias = self.heads[name].weight.detach(), self.heads[name].bias.detach()
        folded = nn.Linear(len(self.mean), len(bias)).to(weight.device)
        folded.weight.data = weight / self.std
        folded.bias.data = bias - weight @ (self.mean / self.std)
        return folded


class Targets:
    """The frozen image tower: `vectors` in the space and `sketches`, its features' whitened directions of most variance."""

    def __init__(self, tower: nn.Module, photographs: Tensor) -> None:
        self.encoder, self.head = tower.encoder, tower.head  # type: ignore[union-attr]
        features = torch.cat([self.features(as_floats(part)) for part in photographs[:4096].split(256)])
        self.mean, self.std = features.mean(0), features.std(0) + 1e-3
        standard = (features - self.mean) / self.std
        _, values, directions = torch.svd_lowrank(standard, min(_SKETCHES, *standard.shape), niter=3)
        scale = values / len(standard) ** 0.5
        self.directions = directions / (scale + 0.3 * scale[0] * 0.1 + 1e-6)
        self.vectors_mean = self._vectors(features).mean(0)

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) in 0..1 -> (B, W) float32."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
            features: Tensor = self.encoder(x * 2 - 1)
        return features.float()

    def _vectors(self, features: Tensor) -> Tensor:
        return F.normalize(self.head(features), dim=1)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) in 0..1 -> vectors (B, D) and sketches (B, 512), unit rows."""
        features = self.features(x)
        sketches = ((features - self.mean) / self.std) @ self.directions
        return self._vectors(features), F.normalize(F.pad(sketches, (0, _SKETCHES - sketches.shape[1])), dim=1)


def as_floats(x: Tensor) -> Tensor:
    """uint8 -> float32 in 0..1."""
    return x.float() / 255


class Chance:
    """Random numbers for one batch after another, on a device."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)
        self.device = device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Values of this shape between `low` and `high`."""
        return torch.rand(shape, generator=self.generator, device=self.device) * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        """Standard normal values of this shape."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def rows(self, count: int, of: int) -> Tensor:
        """`count` rows of `of`, each once while they last."""
        drawn = torch.cat(
            [torch.randperm(of, generator=self.generator, device=self.device) for _ in range(-(-count // of))]
        )
        return drawn[:count]

    def some(self, share: float, count: int) -> Tensor:
        """(count, 1, 1, 1) bool: true for about this share."""
        return self.uniform(0, 1, count, 1, 1, 1) < share


def places(count: int, chance: Chance, least: float = 0.45) -> tuple[Tensor, Tensor]:
    """-> affine maps (B, 2, 3) of two crops at the same place; the second is off by a little, as no two cameras agree."""
    area = chance.uniform(least, 1, count).sqrt()
    aspect = chance.uniform(-0.2, 0.2, count).exp()
    wide, high = (area * aspect).clamp(max=1), (area / aspect).clamp(max=1)
    across, down = chance.uniform(-1, 1, count) * (1 - wide), chance.uniform(-1, 1, count) * (1 - high)
    mirrored = torch.where(chance.uniform(0, 1, count) < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(wide)
    first = torch.stack([wide * mirrored, zero, across, zero, high, down], 1).view(-1, 2, 3)
    off = 0.03 * chance.normal(count, 2, 3) * torch.tensor([1.0, 0.5, 1.0], device=chance.device)
    return first, first + off * first.diagonal(dim1=1, dim2=2).abs().mean(1)[:, None, None]


def cropped(x: Tensor, theta: Tensor) -> Tensor:
    """(B, C, S, S) and (B, 2, 3) -> (B, C, S, S), what comes in from outside mirrored."""
    grid = F.affine_grid(theta, [len(x), x.shape[1], SIZE, SIZE], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def as_another_sensor(photographs: Tensor, chance: Chance) -> Tensor:
    """(B, 3, S, S) in 0..1 -> (B, 1, S, S) in 0..1: what a sensor that knows no colours could have seen of them."""
    count = len(photographs)
    mixture = chance.normal(count, 3) * 0.6 + torch.tensor([0.3, 0.5, 0.2], device=photographs.device)
    grey = sensor.stretched((photographs * mixture[:, :, None, None]).sum(1, keepdim=True), 1, 99)
    curved = _through_curve(grey, chance)
    # Polarity is another at places: what is dark may be hot or cold.
    field_ = _smooth_field(count, 5, chance)
    turned = torch.sigmoid(8 * field_)
    curved = torch.where(chance.some(0.25, count), curved * turned + (1 - curved) * (1 - turned), curved)
    # The ground is near and the sky is cold: brightness that depends on the place alone.
    slope = torch.linspace(-1, 1, SIZE, device=photographs.device).view(1, 1, -1, 1)
    amount = chance.uniform(-0.6, 0.9, count, 1, 1, 1) * chance.some(0.4, count)
    curved = curved + amount * slope + chance.uniform(0, 0.5, count, 1, 1, 1) * _smooth_field(count, 6, chance)
    return sensor.stretched(curved, 1, 99)


def _through_curve(x: Tensor, chance: Chance, knots: int = 6) -> Tensor:
    """(B, 1, S, S) in 0..1 through a curve of each picture's own: mostly rising, often falling, at times neither."""
    count = len(x)
    steps = chance.uniform(0, 1, count, knots - 1) ** 2 + 0.02
    steps = steps * torch.where(
        (chance.uniform(0, 1, count, 1) < 0.25) & (chance.uniform(0, 1, count, knots - 1) < 0.3), -1.0, 1.0
    )
    heights = F.pad(steps.cumsum(1), (1, 0))
    heights = heights - heights.min(1, keepdim=True).values
    heights = heights / heights.max(1, keepdim=True).values
    heights = torch.where(chance.uniform(0, 1, count, 1) < 0.4, 1 - heights, heights)
    at = (x.clamp(0, 1) * (knots - 1)).flatten(1)
    below = at.floor().long().clamp(max=knots - 2)
    low, high = heights.gather(1, below), heights.gather(1, below + 1)
    return (low + (high - low) * (at - below)).view_as(x)


def _smooth_field(count: int, cells: int, chance: Chance) -> Tensor:
    """-> (B, 1, S, S) smooth noise of size about 1."""
    return F.interpolate(chance.normal(count, 1, cells, cells), (SIZE, SIZE), mode="bicubic", align_corners=False)


def measured(x: Tensor, chance: Chance, polarity: float) -> Tensor:
    """(B, 1, S, S) views on any scale -> in 0..1, by a camera of other optics, gain, noise and resolution.

    `polarity` is the share whose black and white change places.
    """
    count = len(x)
    x = sensor.stretched(x, 1, 99)
    x = x ** (0.5 * chance.normal(count, 1, 1, 1)).clamp(-1, 1).exp()
    x = torch.where(chance.some(polarity, count), 1 - x, x)
    coarse = F.interpolate(F.avg_pool2d(x, 3, 3), (SIZE, SIZE), mode="bilinear", align_corners=False)
    x = torch.where(chance.some(0.3, count), coarse, x)
    soft = F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), 5, 1)
    share = chance.uniform(-0.6, 1, count, 1, 1, 1).clamp(min=-0.4)  # below 0: sharpened, as cameras do
    x = x * (1 - share) + soft * share
    noise = chance.uniform(0, 1, count, 1, 1, 1) ** 2 * 0.12
    x = x + noise * chance.normal(count, 1, SIZE, SIZE)
    stripes = chance.normal(count, 1, 1, SIZE) * chance.some(0.2, count) * 0.06
    x = x + stripes + 0.25 * _smooth_field(count, 4, chance) * chance.some(0.3, count)
    # Dropped values: blocks without a measurement.
    gaps = F.interpolate(chance.normal(count, 1, 28, 28), (SIZE, SIZE)) > chance.uniform(1.8, 3.5, count, 1, 1, 1)
    x = torch.where(gaps & chance.some(0.3, count), chance.uniform(0, 1, count, 1, 1, 1).round(), x)
    rows = torch.arange(SIZE, device=x.device)
    centre, half = chance.uniform(0, SIZE, count, 2), chance.uniform(15, 50, count, 2)
    inside = (rows - centre[:, :1]).abs().lt(half[:, :1])[:, None, :, None]
    inside = inside & (rows - centre[:, 1:]).abs().lt(half[:, 1:])[:, None, None, :]
    return torch.where(inside & chance.some(0.25, count), torch.full_like(x, 0.5), x).clamp(0, 1)


def start(encoder: sensor.Sensor, targets: Targets, photographs: Tensor, seed: int = 0) -> Tuned:
    """The image trunk as it is, and heads from the closed form: a photograph as grey, standardised -> its vector, by ridge."""
    dim = int(targets.vectors_mean.shape[0])
    model = Tuned(encoder, dim).to(photographs.device)
    chance = Chance(seed, photographs.device)
    with torch.no_grad():
        kept = [as_floats(part) for part in photographs[:2048].split(256)]
        features = torch.cat([encoder(as_another_sensor(part, chance)).float() for part in kept])
        model.mean, model.std = features.mean(0), features.std(0) + 0.05 * features.std(0).mean()
        standard = (features - model.mean) / model.std
        said = [targets(part) for part in kept]
        gram = standard @ standard.T
        for layers, target in (
            (list(model.heads.values()), torch.cat([one[0] for one in said]) - targets.vectors_mean),
            ([model.sketch], torch.cat([one[1] for one in said])),
        ):
            ridge = 0.3 * gram.diagonal().mean()
            weight = standard.T @ torch.linalg.solve(gram + ridge * torch.eye(len(gram), device=gram.device), target)
            for layer in layers:
                layer.weight.data, layer.bias.data = weight.T.contiguous(), torch.zeros_like(layer.bias)
    return model


def tune(
    model: Tuned, targets: Targets, sets: Sets, seconds: float, steps: int, seed: int, trunk_rate: float = _RATE
) -> Tuned:
    """Trains all of `model` for so many steps, or seconds, whichever ends first; -> the average over its last steps."""
    device = sets.photographs.device
    chance = Chance(seed, device)
    groups = [
        {"params": list(model.encoder.parameters()), "lr": trunk_rate},
        {"params": [p for name, p in model.named_parameters() if not name.startswith("encoder.")], "lr": _HEAD_RATE},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=_DECAY)
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(_AVERAGED), use_buffers=False
    )
    rates = [group["lr"] for group in groups]
    begun = time.monotonic()
    for step in range(steps):
        spent = max(step / steps, (time.monotonic() - begun) / seconds)
        if spent >= 1:
            break
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1.0, (step + 1) / 20) * min(1.0, 2.0 * (1 - spent))
        loss = _loss(model, targets, sets, chance)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        averaged.update_parameters(model)
        if step % 50 == 0:
            print(f"step {step}, {time.monotonic() - begun:.0f} s, loss {float(loss.detach()):.3f}", flush=True)
    trained = averaged.module
    assert isinstance(trained, Tuned)
    return trained


def _loss(model: Tuned, targets: Targets, sets: Sets, chance: Chance) -> Tensor:
    shown, seen, owner = [], [], []  # pictures, what the sensor saw of them, whose head it is
    names = list(model.heads)
    count = _BATCH["photographs"]
    photographs = as_floats(sets.photographs[chance.rows(count, len(sets.photographs))])
    first, second = places(count, chance)
    shown.append(cropped(photographs, first))
    seen.append(measured(as_another_sensor(cropped(photographs, second), chance), chance, 0.0))
    owner += [names.index("depth")] * (count // 4) + [names.index("thermal")] * (count - count // 4)
    for name, (pictures, views) in sets.pairs.items():
        count = _BATCH[name]
        rows = chance.rows(count, len(pictures))
        first, second = places(count, chance, 0.55)
        shown.append(cropped(as_floats(pictures[rows]), first))
        seen.append(measured(cropped(views[rows].float(), second), chance, 0.3 if name == "thermal" else 0.1))
        owner += [names.index(name)] * count
    pictures = torch.cat(shown)
    wanted = []
    for name, (views, numbers, _) in sets.said.items():
        count = _BATCH[f"said_{name}"]
        rows = chance.rows(count, len(views))
        _, second = places(count, chance, 0.8)
        seen.append(measured(cropped(views[rows].float(), second), chance, 0.1))
        wanted.append((name, numbers[rows]))
    vectors, sketches = targets(pictures)
    with torch.autocast(pictures.device.type, torch.bfloat16, enabled=pictures.is_cuda):
        features = model.encoder(torch.cat(seen))
    standard = (features.float() - model.mean) / model.std
    paired = standard[: len(pictures)]
    each = torch.stack([head(paired) for head in model.heads.values()])
    found = F.normalize(each[owner, torch.arange(len(paired), device=pictures.device)], dim=1)
    loss = _both_ways(found, vectors, targets.vectors_mean, model.taus[0])
    drawn = F.normalize(model.sketch(paired), dim=1)
    loss = loss + _FEATURE_SHARE * _both_ways(drawn, sketches, torch.zeros_like(sketches[0]), model.taus[1])
    at = len(pictures)
    for name, numbers in wanted:
        texts = sets.said[name][2]
        found = F.normalize(model.heads[name](standard[at : at + len(numbers)]), dim=1)
        loss = loss + _TEXT_SHARE * F.cross_entropy(found @ texts.T / model.taus[2].exp().clamp(min=0.02), numbers)
        at += len(numbers)
    return loss


def _both_ways(found: Tensor, vectors: Tensor, centre: Tensor, log_tau: Tensor) -> Tensor:
    """InfoNCE: a sensor's view finds its picture, and, less what all pictures share, the picture its view."""
    tau = log_tau.exp().clamp(min=0.01)
    own = torch.arange(len(found), device=found.device)
    there = F.cross_entropy(found @ vectors.T / tau, own)
    back = F.cross_entropy(F.normalize(vectors - centre, dim=1) @ found.T / tau, own)
    return there + 0.3 * back


@torch.no_grad()
def features(encoder: nn.Module, views: Tensor) -> Tensor:
    """(N, 1, S, S) -> (N, W) float32."""
    found = []
    for part in views.split(256):
        with torch.autocast(part.device.type, torch.bfloat16, enabled=part.is_cuda):
            found.append(encoder(part.float()).float())
    return torch.cat(found)


def recall(found: Tensor, vectors: Tensor, k: int) -> float:
    """(N, D) and (N, D) unit rows -> the share of rows whose own partner is among the k nearest."""
    scores = found @ vectors.T
    return float(((scores > scores.diagonal()[:, None]).sum(1) < k).float().mean())


def parts_of(total: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """-> (train, test) rows of each of `count` folds."""
    fold = torch.arange(total) % count
    for number in range(count):
        yield (fold != number).nonzero().flatten(), (fold == number).nonzero().flatten()


def without(sets: Sets, **rows: Tensor) -> Sets:
    """The sets with only these rows of the pairs of the named sensors."""
    pairs = {name: (p[rows[name]], v[rows[name]]) if name in rows else (p, v) for name, (p, v) in sets.pairs.items()}
    return Sets(sets.photographs, pairs, sets.said)


__all__ = ["Mapping"]
