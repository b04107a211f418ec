"""The motion encoder of `small`: statistics of windows and a small network, trained against the texts of all sets.

    python -m train.small.motion DATA PACKAGES SPACE OUT [--licence free] [--folds]

DATA holds the real sets (`train.small.data`). PACKAGES is what `train.small.fetch` leaves (seglearn, basicmotions and
simulated scenes, each where it is there). SPACE is a model with the texts to train against. OUT gets the folder
`model`, which is SPACE with the motion encoder, and with `--folds` the table of five folds by person.

Recordings come from sensors at waist and wrist, at 20 to 200 Hz, with and without gyroscope and gravity. Training sees
every recording in all these forms (`worn_otherwise`), so that an unknown device is just another form.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bind import checkpoint, zoo
from bind.description import ModalityTable
from bind.encoders import motion
from bind.model.model import BindModel
from bind.model.towers import Tower
from preprocess import manifest
from preprocess.manifest import Event
from preprocess.readers import imu
from preprocess.source import Limits, MediaError
from train.small import data as datasets
from train.small.widening import widened

RATE_HZ, WINDOW_S = 50.0, 6.0
"""A window holds a fall with the moments before and after it; a watch of 20 Hz loses nothing at this rate."""
CONFIG = imu.ImuConfig(rate_hz=RATE_HZ, window_s=WINDOW_S)
"""The preprocessing of motion in `small`."""
SETS = ("utd", "wisdm", "sisfall")
"""Data sets of motion that are used where they are there (`train/small/data.toml`)."""
PACKAGED = ("seglearn", "basicmotions", "simulated")
"""Data sets of motion that come in packages, or are rendered."""
WIDTHS = (384, 256)  # of the two layers over the statistics
ENCODER = {"module": "motion", "shape": list(imu.shape(CONFIG)), "rate_hz": RATE_HZ, "widths": list(WIDTHS)}
"""The encoder's table in the description of `small`."""
HEAD = {"type": "linear", "bias": True}  # the same for the head
EVERYDAY = ("a person {}", "someone {}", "{}", "motion of a person {}")
"""The templates for a class, besides those of its set."""

# Chosen by five folds over the persons of all sets (LOG.md).
_STEPS, _BATCH, _RATE, _DECAY, _DROPOUT, _TAU, _EVERYTHING = 1200, 256, 2e-3, 0.05, 0.3, 0.04, 0.3
_VARIANTS = 16
"""The number of variants of each window that are drawn before training, besides the window itself."""
_AVERAGED = 0.995  # the decay of the exponential average of weights: it is over the last 200 of 1,200 steps


@dataclass(frozen=True)
class Recordings:
    """One set: `windows` (N, 6, T) of recordings `row` (N,), whose class is `label` (R,) and person `group` (R,).

    `texts` are the texts of each class; `templates` and `classes` are those with which the set is measured.
    """

    name: str
    windows: Tensor
    row: Tensor
    label: Tensor
    group: tuple[str, ...]
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]

    def of(self, rows: Tensor) -> Recordings:
        """The recordings (R',) alone."""
        place = torch.full((len(self.label),), -1)
        place[rows] = torch.arange(len(rows))
        selected = place[self.row] >= 0
        groups = tuple(self.group[row] for row in rows.tolist())
        return Recordings(
            self.name,
            self.windows[selected],
            place[self.row[selected]],
            self.label[rows],
            groups,
            self.classes,
            self.templates,
            self.texts,
        )


def read(name: str, events: Sequence[Event], classes: Sequence[str], templates: Sequence[str]) -> Recordings:
    """Events of a set with motion and one label each -> their windows.

    Unreadable recordings are reported and left out.
    """
    windows, row, group = [], [], []
    label: list[int] = []
    texts_of: list[dict[str, None]] = [{} for _ in classes]
    for event in events:
        try:
            views = imu.read(event.media["imu"], CONFIG, Limits(), "whole")[0].views
        except MediaError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        windows.append(torch.from_numpy(views))
        row += [len(label)] * len(views)
        label.append(list(classes).index(event.labels[0]))
        group.append(event.group or event.id)
        texts_of[label[-1]].update(dict.fromkeys(event.texts))
    for number, entry in enumerate(classes):
        names = entry.split(manifest.OR)
        texts_of[number].update(dict.fromkeys(t.format(one) for one in names for t in (*templates, *EVERYDAY)))
    return Recordings(
        name,
        torch.cat(windows),
        torch.tensor(row),
        torch.tensor(label),
        tuple(group),
        tuple(classes),
        tuple(templates),
        tuple(tuple(texts) for texts in texts_of),
    )


def worn_otherwise(x: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 6, T) windows in m/s2 and rad/s -> the same movements by another device, worn by another person.

    Each window is rotated (mostly a little, at times arbitrarily), shifted in time, made quicker or slower, stronger or
    weaker, sampled at 15 to 50 Hz, and given noise and an offset. At times the gyroscope or gravity is missing.
    """
    count, _, length = x.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    # In time: the window is stretched, shifted and read at a coarser rate, and mirrored at its ends.
    speed, shift = uniform(-0.15, 0.15).exp(), uniform(-0.15, 0.15) * length
    places = (torch.arange(length) - length / 2) * speed[:, None] + length / 2 + shift[:, None]
    coarse = torch.where(uniform(0, 1) < 0.4, uniform(1.0, 3.2), torch.ones(count))[:, None]
    below = _sampled(x, (places / coarse).floor() * coarse)
    above = _sampled(x, ((places / coarse).floor() + 1) * coarse)
    share = (places / coarse - (places / coarse).floor())[:, None]
    x = below * (1 - share) + above * share
    x = torch.where((speed > 0)[:, None, None] & (torch.arange(6) >= 3)[None, :, None], x * speed[:, None, None], x)
    missing_gyroscope = (x[:, 3:] == 0).flatten(1).all(1) | (uniform(0, 1) < 0.2)

    # Rotation: most windows are rotated a little, as by a loose strap, and some arbitrarily.
    angle = torch.where(uniform(0, 1) < 0.15, uniform(0, torch.pi), uniform(0, 0.35))
    axis = F.normalize(torch.randn(count, 3, generator=generator), dim=1)
    x = (_rotations(axis * angle[:, None])[:, None] @ x.view(count, 2, 3, length)).reshape(x.shape)

    # Another person: the effort beyond gravity differs.
    mean = x.mean(2, keepdim=True)
    x = (x - mean) * uniform(-0.2, 0.2, 2).exp().repeat_interleave(3, 1)[:, :, None] + mean
    no_gravity = (uniform(0, 1) < 0.1)[:, None, None] & (torch.arange(6) < 3)[None, :, None]
    x = torch.where(no_gravity, x - mean, x)
    noise = torch.randn(x.shape, generator=generator) * (uniform(0, 1) ** 3)[:, None, None]
    offset = torch.randn(count, 6, 1, generator=generator)
    x = x + (noise * 0.5 + offset * 0.15) * torch.tensor([1.0] * 3 + [0.2] * 3)[:, None]
    x[:, 3:][missing_gyroscope] = 0
    return x


def _sampled(x: Tensor, places: Tensor) -> Tensor:
    """(B, C, T) at the nearest of `places` (B, T), mirrored beyond its ends."""
    length = x.shape[2]
    at = places.round().long() % (2 * length)
    at = torch.where(at < length, at, 2 * length - 1 - at)
    return x.gather(2, at[:, None].expand(-1, x.shape[1], -1))


def _rotations(vectors: Tensor) -> Tensor:
    """(B, 3) axes times angles -> (B, 3, 3) rotations."""
    zero = torch.zeros(len(vectors))
    a, b, c = vectors.unbind(1)
    skew = torch.stack([zero, -c, b, c, zero, -a, -b, a, zero], 1).view(-1, 3, 3)
    return torch.matrix_exp(skew)


@dataclass(frozen=True)
class Bank:
    """Statistics of all windows of all sets in V variants: `values` (V, N, S) and `known` (V, N, S + 2) float16.

    `place` (N,) is the class among those of all sets, `sets` (N,) the set, `row` (N,) the recording of all sets.
    """

    values: Tensor
    known: Tensor
    place: Tensor
    sets: Tensor
    row: Tensor


def bank(sets: Sequence[Recordings], variants: int = _VARIANTS, seed: int = 0) -> Bank:
    """Sets -> the statistics of their windows; variant 0 is the window itself."""
    generator = torch.Generator().manual_seed(seed)
    windows = torch.cat([one.windows for one in sets])
    values, known = [], []
    for form in range(1 + variants):
        parts = [
            motion.statistics(worn_otherwise(part, generator) if form else part, RATE_HZ) for part in windows.split(512)
        ]
        values.append(torch.cat([part[0] for part in parts]).half())
        known.append(torch.cat([part[1] for part in parts]).half())
    firsts = np.cumsum([0, *(len(one.classes) for one in sets)])
    rows = np.cumsum([0, *(len(one.label) for one in sets)])
    place = torch.cat([one.label[one.row] + int(first) for one, first in zip(sets, firsts, strict=False)])
    number = torch.cat([torch.full((len(one.row),), i) for i, one in enumerate(sets)])
    row = torch.cat([one.row + int(first) for one, first in zip(sets, rows, strict=False)])
    return Bank(torch.stack(values), torch.stack(known), place, number, row)


def fit(
    sets: Sequence[Recordings], windows: Bank, train: Tensor, vectors: Mapping[str, Tensor], dim: int, seed: int = 0
) -> Tower:
    """Trains a tower on the statistics of sets.

    `windows` is the bank of the sets' windows, `train` (N,) bool the windows to train on, `vectors` (D,) those of all
    texts. A window is to find the texts of its class among those of its own set, and among those of all sets.
    """
    torch.manual_seed(seed)
    encoder = motion.build({k: v for k, v in ENCODER.items() if k != "module"} | {"dropout": _DROPOUT})
    head = nn.Linear(WIDTHS[-1], dim)
    chosen = train.nonzero().flatten()
    own = windows.values[:, chosen].float().flatten(0, 1)
    encoder.mean, encoder.std = own.mean(0), own.std(0) + 1e-2
    means, text_vectors, counted, allowed, same = _class_texts(sets, vectors)
    # Every class of a set has the same weight, and every set the root of its size.
    counts = torch.bincount(windows.place[chosen], minlength=len(means)).clamp(min=1)
    sizes = torch.bincount(windows.sets[chosen], minlength=len(sets)).float()
    weight = (1 / counts[windows.place[chosen]]) * sizes[windows.sets[chosen]].clamp(min=1).sqrt()
    tau = nn.Parameter(torch.tensor(_TAU).log())
    model = nn.ModuleList([encoder, head])
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(_AVERAGED)
    )
    optimizer = torch.optim.AdamW([*model.parameters(), tau], lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_STEPS, pct_start=0.1)
    for _ in range(_STEPS):
        drawn = chosen[torch.multinomial(weight, _BATCH, replacement=True)]
        form = torch.randint(len(windows.values), (_BATCH,))
        hidden = encoder.over(windows.values[form, drawn].float(), windows.known[form, drawn].float())
        found = F.normalize(head(hidden), dim=1)
        one_of_each = text_vectors[torch.arange(len(text_vectors)), (torch.rand(len(text_vectors)) * counted).long()]
        place = windows.place[drawn]
        others, twins = ~allowed[windows.sets[drawn]], same[place]
        loss = torch.zeros(())
        for target, share in ((means, 0.6), (one_of_each, 0.4)):
            logits = found @ target.T / tau.exp().clamp(min=0.01)
            loss = loss + share * F.cross_entropy(logits.masked_fill(others, -torch.inf), place)
            right = logits.masked_fill(~twins, -torch.inf).logsumexp(1)
            loss = loss + share * _EVERYTHING * (logits.logsumexp(1) - right).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        averaged.update_parameters(model)
    trained = averaged.module
    assert isinstance(trained, nn.ModuleList)
    return Tower(trained[0], trained[1]).eval()


def _class_texts(
    sets: Sequence[Recordings], vectors: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The texts of the G classes of all sets, as tensors.

    Returns their vectors in zero-shot classification (G, D), the vectors of all their texts (G, M, D) and how many
    these are (G,), which classes are of a set (sets, G), and which classes have one name (G, G).
    """
    means, text_vectors, owner, names = [], [], [], []
    for number, one in enumerate(sets):
        for entry, texts in zip(one.classes, one.texts, strict=True):
            means.append(torch.stack([vectors[text] for text in prompts(entry, one.templates)]).mean(0))
            text_vectors.append(torch.stack([vectors[text] for text in texts]))
            owner.append(number)
            names.append(entry.lower())
    same = torch.tensor([[a == b for b in names] for a in names])
    return (
        F.normalize(torch.stack(means), dim=1),
        nn.utils.rnn.pad_sequence(text_vectors, batch_first=True),
        torch.tensor([len(texts) for texts in text_vectors]),
        torch.tensor(owner)[None] == torch.arange(len(sets))[:, None],
        same,
    )


def prompts(entry: str, templates: Sequence[str]) -> list[str]:
    """A class of a manifest (its first name) -> its texts in zero-shot classification."""
    return [template.format(entry.split(manifest.OR)[0]) for template in templates]


def vectors_of(sets: Sequence[Recordings], model: BindModel) -> dict[str, Tensor]:
    """Every text of the classes -> its vector (D,)."""
    texts = sorted({text for one in sets for group in one.texts for text in group})
    found = torch.tensor(model.embed(texts, "text").vectors)
    return dict(zip(texts, found, strict=True))


@torch.inference_mode()
def named(one: Recordings, tower: Tower, vectors: Mapping[str, Tensor]) -> Tensor:
    """Recordings -> (R,) bool: whether the class whose texts are nearest is the right one."""
    views = F.normalize(tower(one.windows), dim=1)
    recordings = torch.zeros(len(one.label), views.shape[1]).index_add_(0, one.row, views)
    texts = [torch.stack([vectors[text] for text in prompts(entry, one.templates)]).mean(0) for entry in one.classes]
    return (F.normalize(recordings, dim=1) @ F.normalize(torch.stack(texts), dim=1).T).argmax(1) == one.label


def folds(
    sets: Sequence[Recordings], windows: Bank, vectors: Mapping[str, Tensor], dim: int, count: int = 5
) -> dict[str, Tensor]:
    """Cross-validation: sets and the bank of their windows -> by set (R,) whether towers recognise unseen people's
    motion.
    """
    fold = [_fold_of(one.group, count) for one in sets]
    of_windows = torch.cat([of[one.row] for one, of in zip(sets, fold, strict=True)])
    right = {one.name: torch.zeros(len(one.label), dtype=torch.bool) for one in sets}
    for number in range(count):
        tower = fit(sets, windows, of_windows != number, vectors, dim, seed=number)
        for one, of in zip(sets, fold, strict=True):
            if len(rows := (of == number).nonzero().flatten()):
                right[one.name][rows] = named(one.of(rows), tower, vectors)
    return right


def _fold_of(groups: Sequence[str], count: int) -> Tensor:
    order = sorted(set(groups))
    return torch.tensor([order.index(group) % count for group in groups])


def interval(right: Tensor, groups: Sequence[str], seed: int = 0) -> tuple[float, float]:
    """(R,) hits and the person of each -> the 95 % interval of their share, by bootstrap over persons."""
    order = sorted(set(groups))
    number = torch.tensor([order.index(group) for group in groups])
    hits = torch.zeros(len(order)).index_add_(0, number, right.float())
    counts = torch.bincount(number).float()
    drawn = torch.randint(len(order), (2000, len(order)), generator=torch.Generator().manual_seed(seed))
    shares = hits[drawn].sum(1) / counts[drawn].sum(1)
    return float(shares.quantile(0.025)), float(shares.quantile(0.975))


def found_in(data: datasets.Data, packages: Path) -> list[Recordings]:
    """All available motion sets: the real ones, and manifests `NAME-train.jsonl` of `PACKAGED` in the other folder."""
    there = [data.manifest(name) for name in SETS]
    there += [manifest.read(file) for name in PACKAGED if (file := packages / f"{name}-train.jsonl").is_file()]
    sets = []
    for one in there:
        events = [event for event in one.events if "imu" in event.media and event.labels] if one else []
        if one and events:
            sets.append(read(one.name, events, one.classes, one.templates or ("{}",)))
    return sets


def main(arguments: Sequence[str]) -> int:
    """Command line -> exit status; writes OUT/model, with `--folds` also OUT/folds.json."""
    parser = argparse.ArgumentParser(prog="python -m train.small.motion", description="Trains the motion encoder.")
    parsed, data = datasets.command(
        parser,
        arguments,
        space="a model of the zoo or a checkpoint folder, with texts",
        folds="measure on persons that were not trained on, too",
    )
    sets = found_in(data, parsed.packages)
    if not sets:
        print(f"motion: no set of {', '.join((*SETS, *PACKAGED))} was found", file=sys.stderr)
        return 1
    space = zoo.load(parsed.space, modalities=None)
    vectors = vectors_of(sets, space)
    parsed.out.mkdir(parents=True, exist_ok=True)
    windows = bank(sets)
    tower = fit(sets, windows, torch.ones(len(windows.place), dtype=torch.bool), vectors, space.dim)
    table = ModalityTable(encoder=dict(ENCODER), head=dict(HEAD), preprocess={"rate_hz": RATE_HZ, "window_s": WINDOW_S})
    checkpoint.write(parsed.out / "model", *widened(space, {"imu": table}, {"imu": tower}, [("text", "imu")]))
    if parsed.folds:
        rows = []
        for one, right in zip(sets, folds(sets, windows, vectors, space.dim).values(), strict=True):
            low, high = interval(right, one.group)
            share, persons = float(right.float().mean()), len(set(one.group))
            rows.append((one.name, share, low, high, len(one.classes), len(right), persons))
            print(f"{one.name}: {share:.3f} ({low:.3f} to {high:.3f}); classes {len(one.classes)}, persons {persons}")
        (parsed.out / "folds.json").write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
