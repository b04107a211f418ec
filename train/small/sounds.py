"""The sound encoder of `small`: a small network distilled from a teacher, an encoder of spoken words, and both heads.

    python -m train.small.sounds DATA PACKAGES SPACE WORDS OUT [--licence free]

DATA holds manifests (`train.small.data`) and the teacher; PACKAGES holds folders of unpacked packages, one of them
`stamps`; SPACE is a checkpoint with texts. OUT gets the folder `model`: SPACE with the encoder.

1. Distillation. The teacher, YAMNet (Apache-2.0, by default `yamnet/yamnet.tflite` below DATA), classifies AudioSet's
521 classes. Teacher and student get the same two seconds: sounds of packages and, in the second phase, the sets of
DATA, without labels. The sounds are mixed, made faster or slower, filtered, put in rooms and in noise, and made loud
and quiet.
2. The head of sounds (`train.small.sound_heads`). Its settings are chosen after the first phase, when the encoder has
heard nothing of the sets, so that the table that is printed is of sounds that it never heard.
3. Words. WORDS is a checkpoint whose encoder of spoken words `train/runs/small-audio.toml` made. Where it was bound to
another space than SPACE, its head is moved by the vectors that texts have in both spaces. A gate is trained to
recognise one person at the microphone.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bind
from bind import checkpoint, encoders, modalities
from bind.description import ModalityTable
from bind.encoders.sound import TaggingEncoder
from bind.model.model import BindModel
from bind.model.towers import Tower
from preprocess.source import Limits, MediaError, Source
from train.small import data
from train.small.fetch import is_sound
from train.small.sound_heads import (
    Labelled,
    Settings,
    SoundHead,
    Unlabelled,
    chosen,
    fit_gate,
    fit_head,
    is_measured,
    joined,
    moved,
)
from train.small.sound_pool import BINS, RATE_HZ, SHAPE, VIEWS, Pool, augmented, pictures, shown
from train.small.splits import side
from train.small.teacher import CLASS_MAP, CLASSES, Teacher, class_names
from train.small.widening import widened

EMBEDDING, MULTIPLIER = 512, 1.0
"""The number of features, and the width of the student's blocks (see `TaggingEncoder`)."""
ENCODER: dict[str, Any] = {
    "module": "sound",
    "shape": list(SHAPE),
    "sounds": {"classes": CLASSES, "embedding": EMBEDDING, "multiplier": MULTIPLIER},
}
"""The table of the encoder in a description: that of sounds beside that of spoken words."""
PREPROCESS = {"clips": VIEWS, "num_mel_bins": BINS, "mean": 0.0, "std": 1.0}
"""How a sound is heard: see `preprocess.readers.audio.AudioConfig`."""
_LOWEST_LOGIT = -11.0
"""Logits of the teacher below this one are all the same to the student."""
_BATCH = 512
"""The number of clips of a step of distillation."""
PHASES = ((6500, 2e-3), (1800, 1e-3))
"""The steps and the learning rate of both phases: packages alone, then all sounds."""
_LONGEST_S, _SHORTEST, _SOFTEST = 12.0, 800, 100
"""Bounds on sounds of packages: the seconds that are kept, the least number of samples, the least peak."""
_SPOKEN = "stamps"
"""The package whose sounds are one person at the microphone."""


def distil(
    student: TaggingEncoder,
    teacher: Teacher,
    pool: Pool,
    weights: Tensor,
    *,
    steps: int,
    rate: float,
    batch: int = _BATCH,
    seed: int = 0,
) -> list[float]:
    """Trains the student, in place, to give each stretch the teacher's class probabilities -> the loss of each step.

    The loss has three terms. The first is the cross-entropy of all classes. The second is the squared distance of
    logits, so that unlikely classes are learned too. The third is the squared distance between a linear map of the
    student's features and the teacher's features. The final weights are an average over steps.
    """
    device = weights.device
    generator = torch.Generator(device).manual_seed(seed)
    torch.manual_seed(seed)
    features, logits = teacher(augmented(pool, weights, batch, generator))
    mean, spread = features.mean((0, 1)), features.std((0, 1)) + 0.05
    with torch.no_grad():
        if not student.classifier.bias.any():
            student.classifier.bias.copy_(logits.clamp(min=-9).mean((0, 1)))
    to_teacher = nn.Linear(student.classifier.in_features, features.shape[2]).to(device)
    parameters = [*student.parameters(), *to_teacher.parameters()]
    wide, thin = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim < 2]
    groups = [{"params": wide, "weight_decay": 0.02}, {"params": thin, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    average = {name: value.clone() for name, value in student.state_dict().items() if value.is_floating_point()}
    losses = []
    student.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 150) * (0.5 + 0.5 * math.cos(math.pi * step / steps) + 0.005)
        x = augmented(pool, weights, batch, generator)
        features, logits = teacher(x)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            stretches = student.stretches(pictures(x))
            student_logits, student_features = student.classifier(stretches), to_teacher(stretches)
        class_loss = F.binary_cross_entropy_with_logits(student_logits.float(), logits.sigmoid(), reduction="none")
        class_loss = class_loss.sum(2).mean()
        logit_loss = (student_logits.float() - logits.clamp(min=_LOWEST_LOGIT)).square().mean()
        feature_loss = (student_features.float() - (features - mean) / spread).square().clamp(max=50).mean()
        loss = class_loss + 2 * logit_loss + 3 * feature_loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        losses.append(loss.detach())
        with torch.no_grad():
            now = student.state_dict()
            decay = min(0.998, (step + 1) / (step + 11))
            torch._foreach_lerp_(list(average.values()), [now[name] for name in average], 1 - decay)
    student.load_state_dict(average, strict=False)
    student.eval()
    return torch.stack(losses).tolist()


@torch.inference_mode()
def features_of(encoder: nn.Module, views: Tensor) -> Tensor:
    """(N, K, 1, 64, 204) views -> (N, K, width) float32."""
    encoder.eval()
    return torch.cat([encoder(some.flatten(0, 1)).unflatten(0, some.shape[:2]) for some in views.split(64)])


@dataclass(frozen=True)
class Sound:
    """A sound to learn from: int16 samples at 16 kHz, its set or package, and the thing it is of ("" where unknown).

    `fold` is its fold in the cross-validation of its set.
    """

    samples: np.ndarray
    origin: str
    thing: str = ""
    prompts: tuple[str, ...] = ()
    fold: int = 0


def read(source: Source, longest_s: float = 30.0) -> np.ndarray | None:
    """A sound file -> int16 samples of its beginning; None for an unreadable file, with a message on stderr."""
    spec = modalities.spec("audio")
    config = spec.config(clips=1, clip_s=longest_s)
    try:
        view = spec.read(source, config, Limits(), "whole")[0].views[0]
    except MediaError as error:
        print(f"left out: {error}", file=sys.stderr)
        return None
    samples: np.ndarray = (view.clip(-1, 1) * (2**15 - 1)).astype(np.int16)
    return samples


def of_packages(folder: Path) -> Iterator[Sound]:
    """The sounds of unpacked packages, without names; stamps of the test side are left out."""
    captions = {path.with_suffix(""): path.read_text("utf-8", "replace") for path in folder.rglob("stamps/**/*.txt")}
    test = {stem for stem, text in captions.items() if side(text.splitlines()[0] if text else "") == "test"}
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if is_sound(path)
        and not any(str(path).startswith(f"{stem}{end}") for stem in _stems(path) & test for end in "_.")
    ]
    with ThreadPoolExecutor() as pool:
        for path, samples in zip(paths, pool.map(_beginning, paths), strict=True):
            if samples is not None and len(samples) > _SHORTEST and np.abs(samples).max() > _SOFTEST:
                yield Sound(samples, path.relative_to(folder).parts[0])


def _beginning(path: Path) -> np.ndarray | None:
    return read(Source.from_path(path), _LONGEST_S)


def _stems(path: Path) -> set[Path]:
    """Of `animals/dog_desc_fr.ogg`: `animals/dog_desc_fr`, `animals/dog_desc`, `animals/dog`."""
    words = path.stem.split("_")
    return {path.parent / "_".join(words[:count]) for count in range(1, len(words) + 1)}


def of_sets(found: data.Data) -> Iterator[Sound]:
    """The sounds of the real data sets, with their things and the prompts of their set."""
    for name in found.names:
        if "audio" not in data.datasets()[name].modalities:
            continue
        whole = found.manifest(name)
        if whole is None:
            continue
        templates = whole.templates or ("the sound of {}",)
        folds = {event.id: number for number, (_, tested) in enumerate(found.folds(name)) for event in tested[name]}
        for event in whole.events:
            samples = read(event.media["audio"]) if "audio" in event.media else None
            if samples is not None and len(samples) > _SHORTEST:
                thing = event.labels[0] if event.labels else ""
                prompts = tuple(template.format(thing) for template in templates) if thing else ()
                yield Sound(samples, name, thing, prompts, folds[event.id])


def drawn(sounds: Sequence[Sound], real: frozenset[str]) -> Tensor:
    """The weight of each sound in distillation: the root of its length, doubled for sounds of real sets."""
    roots = [min(len(sound.samples) / RATE_HZ, 12.0) ** 0.5 for sound in sounds]
    return torch.tensor([root * (2 if one.origin in real else 1) for root, one in zip(roots, sounds, strict=True)])


@torch.inference_mode()
def taught(teacher: Teacher, pool: Pool, rows: Sequence[int]) -> Tensor:
    """Sounds of a pool -> (N, C) the largest probability of each class that the teacher gives any stretch of them."""
    clip = 2 * RATE_HZ
    found = [
        teacher(F.pad(views, (0, clip - views.shape[1])))[1].sigmoid().amax((0, 1)) for views in map(pool.views, rows)
    ]
    return torch.stack(found)


@dataclass(frozen=True)
class Texts:
    """The things of labelled sounds, with the vectors (T, D) of their prompts, and the vectors (C, D) of class names.

    `said` are all these texts.
    """

    things: tuple[str, ...]
    vectors: Tensor
    names: Tensor
    said: tuple[str, ...]

    @classmethod
    def of(cls, sounds: Sequence[Sound], names: Sequence[str], space: BindModel) -> Texts:
        """Labelled sounds, the teacher's class names and a model with texts -> the vectors."""
        prompts = {sound.thing: sound.prompts for sound in sounds}
        things = tuple(sorted(prompts))
        rows = [F.normalize(_texts(space, prompts[thing]).mean(0), dim=0) for thing in things]
        classes = [f"the sound of {name.lower()}" for name in names]
        said = (*(prompt for thing in things for prompt in prompts[thing]), *classes)
        return cls(things, torch.stack(rows), _texts(space, classes), said)


def labelled(student: TaggingEncoder, sounds: Sequence[Sound], texts: Texts, device: str) -> Labelled:
    """Labelled sounds -> what the head learns from, on the CPU."""
    pool = Pool.of([sound.samples for sound in sounds], device)
    place = {thing: number for number, thing in enumerate(texts.things)}
    sets = {name: number for number, name in enumerate(dict.fromkeys(sound.origin for sound in sounds))}
    return Labelled(
        features_of(student, shown(pool, range(len(sounds)))).cpu(),
        torch.tensor([place[sound.thing] for sound in sounds]),
        texts.vectors,
        torch.tensor([sets[sound.origin] for sound in sounds]),
        torch.tensor([sound.fold for sound in sounds]),
    )


def learned(
    student: TaggingEncoder, teacher: Teacher, packages: Sequence[Sound], sets: Sequence[Sound], texts: Texts
) -> tuple[Labelled, Settings, Unlabelled]:
    """Distils the student in both phases -> the labelled sounds with its features, the settings of the head that were
    chosen between the phases, and the unlabelled sounds.
    """
    device = str(next(student.parameters()).device)
    real = frozenset(sound.origin for sound in sets)
    named = [sound for sound in sets if sound.thing]
    unspoken = [sound.samples for sound in packages if sound.origin != _SPOKEN]
    own = Pool.of(unspoken, device)
    told = taught(teacher, own, range(len(unspoken))).cpu()
    settings = Settings()
    for number, (steps, rate) in enumerate(PHASES):
        heard = packages if number == 0 else [*packages, *sets]
        pool = Pool.of([sound.samples for sound in heard], device)
        weights = drawn(heard, real).to(device)
        losses = distil(student, teacher, pool, weights, steps=steps, rate=rate, seed=number)
        print(f"phase {number}: {len(heard):,} sounds, loss {np.mean(losses[-100:]):.3f}", flush=True)
        parts = [features_of(student, shown(own, rows)).mean(1).cpu() for rows in _batches(len(unspoken))]
        unlabelled = Unlabelled(torch.cat(parts), told)
        rows = labelled(student, named, texts, device)
        if number == 0:
            names = list(dict.fromkeys(sound.origin for sound in named))
            measured = [name for place, name in enumerate(names) if is_measured(rows.of(rows.sets == place))]
            settings, lines = chosen(rows, texts.names, unlabelled, measured)
            print("\n".join(lines), flush=True)
    return rows, settings, unlabelled


def _batches(count: int) -> Iterator[range]:
    return (range(start, min(start + 512, count)) for start in range(0, count, 512))


def words_of(model: BindModel, space: BindModel, texts: Texts) -> Tensor:
    """The head (width, D) of the encoder of words, in the space of `space`; 0 where all texts are 0."""
    weight = model.tower("audio").head.get_parameter("weight").detach().float().T
    there = _texts(space, texts.said)
    if model.digests["text"] != space.digests["text"]:
        weight = moved(weight, _texts(model, texts.said), there)
    return weight * (there.abs().amax(0) > 0)


def main() -> None:
    """Runs the three parts and writes OUT/model."""
    parser = argparse.ArgumentParser(prog="python -m train.small.sounds", description=__doc__)
    for name in ("data", "packages", "space", "words", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--licence", choices=("all", "free"), default="all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    found = data.find(options.data, options.licence)
    print("\n".join(f"left out: {reason}" for reason in found.left_out), file=sys.stderr)
    teacher_file = next(iter(sorted(options.data.rglob("yamnet.tflite"))), None)
    if teacher_file is None:
        parser.error(f"{options.data}: expected yamnet.tflite somewhere below it")
    packages, sets = list(of_packages(options.packages)), list(of_sets(found))
    teacher = Teacher.read(teacher_file).to(device)
    student = TaggingEncoder(SHAPE, classes=CLASSES, embedding=EMBEDDING, multiplier=MULTIPLIER).to(device)
    space = bind.load(str(options.space))
    names = class_names(teacher_file.with_name(CLASS_MAP))
    texts = Texts.of([sound for sound in sets if sound.thing], names, space)
    rows, settings, unlabelled = learned(student, teacher, packages, sets, texts)
    head = fit_head(rows, texts.names, settings, unlabelled)

    before = bind.load(str(options.words), modalities=["text", "audio"])
    words, encoder = words_of(before, space, texts), before.tower("audio").encoder
    spoken = [sound.samples for sound in packages if sound.origin == _SPOKEN]
    tower = hearing(student, encoder.to(device), head, words, rows, Pool.of(spoken, str(device)))
    table = ModalityTable(encoder=dict(ENCODER), head={"type": "linear"}, preprocess=dict(PREPROCESS))
    pairs = (("image", "audio"), ("text", "audio"))
    checkpoint.write(options.out / "model", *widened(space, {"audio": table}, {"audio": tower.half()}, pairs))


def hearing(
    student: TaggingEncoder, words: nn.Module, head: SoundHead, words_head: Tensor, rows: Labelled, speech: Pool
) -> Tower:
    """Both encoders, both heads, labelled sounds and recordings of one person at the microphone -> the tower.

    Words and sounds get the same length, so that a clip between the two is near both.
    """
    spoken = shown(speech, range(len(speech.lengths)))
    heard = features_of(student, spoken)[:, 0].cpu()
    everything = torch.cat([heard, rows.features.flatten(0, 1)])
    gate, bias = fit_gate(everything, torch.arange(len(everything)) < len(heard))
    loud = (rows.features @ torch.cat([head.closed, head.learned]) + head.bias).norm(dim=2).median()
    of_words = features_of(words, spoken)[:, 0].cpu() @ words_head
    weight = joined(words_head * loud / of_words.norm(dim=1).median(), head)
    state = {f"words.{name}": value.cpu() for name, value in words.state_dict().items()}
    state |= {f"sounds.{name}": value.cpu() for name, value in student.state_dict().items()}
    encoder = encoders.build(ENCODER)
    encoder.load_state_dict(state | {"gate.weight": gate[None], "gate.bias": bias})
    linear = nn.Linear(weight.shape[0], weight.shape[1], bias=False)
    linear.load_state_dict({"weight": weight.T})
    return Tower(encoder.eval(), linear)


def _texts(model: BindModel, texts: Sequence[str]) -> Tensor:
    """(N, D) unit rows."""
    return torch.from_numpy(model.embed(list(texts), "text").vectors)


if __name__ == "__main__":
    main()
