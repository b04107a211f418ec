"""The sound encoder of `small`: a small network distilled from a teacher, an encoder of spoken words, and both heads.

    python -m train.small.sounds DATA PACKAGES SPACE WORDS OUT [--licence free]

DATA holds manifests (`train.small.data`) and the teacher; PACKAGES holds folders of unpacked packages, one of them
`stamps`; SPACE is a checkpoint with texts. OUT gets `audio.safetensors`.

1. Distillation. The teacher, YAMNet (Apache-2.0, by default `yamnet/yamnet.tflite` below DATA), classifies AudioSet's
521 classes. Teacher and student get the same two seconds: sounds of packages and, in the second phase, the sets of
DATA, without labels. The sounds are mixed, made faster or slower, filtered, put in rooms and in noise, and made loud
and quiet.
2. The head of sounds. The probability of each class weights the vector of its name less the mean of all names, which is
fixed. A linear map of the student's features, trained with the available labels, predicts the rest of the texts'
vectors.
3. Words. WORDS is a checkpoint whose encoder of spoken words `train/runs/small-audio.toml` made. Its head is moved into
SPACE by the vectors that texts have in both spaces, and a gate is trained to recognise one person at the microphone.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import bind
from bind import modalities
from bind.encoders.sound import TaggingEncoder
from bind.model.model import BindModel
from preprocess.dsp.filterbank import log_mel
from preprocess.source import Limits, MediaError, Source
from train.small import data
from train.small.splits import side

RATE_HZ = 16_000
CLIP = 2 * RATE_HZ
VIEWS = 5
BINS, FRAMES = 64, 204
SHAPE = (1, BINS, FRAMES)
CLASSES, EMBEDDING = 521, 512

_LOWEST_LOGIT = -11.0
_TEACHER_FRAMES = (0, 51, 102)
"""The first frames of the three stretches of a clip that the teacher gets, 96 frames of 10 ms each."""
_BATCH = 512
PHASES = ((3200, 2e-3), (1400, 1e-3))
"""The steps and the learning rate of both phases: packages alone, then all sounds."""
_FFT = 40_960
_ENDINGS = frozenset({".wav", ".ogg", ".oga", ".flac", ".mp3", ".opus"})
_LONGEST_S, _SHORTEST, _SOFTEST = 12.0, 800, 100
"""Bounds on sounds of packages: the seconds that are kept, the least number of samples, the least peak."""
_SPOKEN, _CLASS_MAP = "stamps", "yamnet_class_map.csv"


class Teacher(nn.Module):
    """YAMNet: (B, samples) at 16 kHz in -1..1 -> features (B, 3, 1024) and logits (B, 3, 521) of three stretches.

    Layers and front end are those of the published TFLite file (MobileNet v1 over 96 x 64 log-mel values), in float32.
    """

    _STRIDE_2 = frozenset({3, 5, 7, 13})
    window: Tensor
    mel: Tensor
    first: Tensor
    first_bias: Tensor
    dense: Tensor
    dense_bias: Tensor

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, weight in weights.items():
            self.register_buffer(name, weight.float())

    @classmethod
    def read(cls, file: Path) -> Teacher:
        """The teacher from the published file, whose 8-bit weights become floats. It needs ai-edge-litert.

        Raises ValueError for another file.
        """
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(file), experimental_preserve_all_tensors=True)
        interpreter.allocate_tensors()
        weights: dict[str, Tensor] = {}
        for tensor in interpreter.get_tensor_details():
            if name := _name_of(tensor["name"], tuple(tensor["shape"])):
                value = torch.from_numpy(interpreter.get_tensor(tensor["index"]).copy()).float()
                scales = torch.from_numpy(tensor["quantization_parameters"]["scales"])
                if tensor["dtype"] is np.int8:
                    sides = [1] * value.ndim
                    sides[tensor["quantization_parameters"]["quantized_dimension"]] = -1
                    value = value * scales.view(sides)
                elif name.startswith("along") and name in weights:
                    continue  # these are the same weights again, which the interpreter unpacked
                weights[name] = _as_torch(name, value)
        expected = {"window", "mel", "first", "first_bias", "dense", "dense_bias"} | {
            f"{kind}{layer}" for layer in range(2, 15) for kind in ("along", "along_bias", "across", "across_bias")
        }
        if lacking := sorted(expected - set(weights)):
            raise ValueError(f"{file}: expected YAMNet as published for TFLite, it lacks {lacking[:4]}")
        return cls(weights)

    def log_mel(self, samples: Tensor) -> Tensor:
        """(B, samples) -> (B, frames, 64)."""
        framed = samples.unfold(1, 400, 160) * self.window
        spectrum = torch.fft.rfft(F.pad(framed, (0, 112))).abs()
        mel: Tensor = torch.log(spectrum @ self.mel + 0.001)
        return mel

    @torch.no_grad()
    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 32000) -> (B, 3, 1024), (B, 3, 521)."""
        mel = self.log_mel(samples)
        x = torch.stack([mel[:, first : first + 96] for first in _TEACHER_FRAMES], 1).flatten(0, 1).unsqueeze(1)
        x = x.to(self.first.dtype).contiguous(memory_format=torch.channels_last)
        x = F.conv2d(F.pad(x, (0, 1, 0, 1)), self.first, self.first_bias, 2).relu()
        for layer in range(2, 15):
            along, along_bias, across, across_bias = (
                getattr(self, f"{kind}{layer}") for kind in ("along", "along_bias", "across", "across_bias")
            )
            stride = 2 if layer in self._STRIDE_2 else 1
            padded = F.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))  # TensorFlow's "same" padding
            x = F.conv2d(padded, along, along_bias, stride, groups=x.shape[1]).relu()
            x = F.conv2d(x, across, across_bias).relu()
        features = x.float().mean((2, 3)).unflatten(0, (len(samples), len(_TEACHER_FRAMES)))
        return features, features @ self.dense + self.dense_bias


def _name_of(tensor: str, shape: tuple[int, ...]) -> str | None:
    """A tensor's name in the TFLite file and its shape -> its name here, or None for a tensor that is not needed."""
    if tensor.endswith("tf_op_layer_Mul/Mul/y"):
        return "window"
    if shape == (64, 257):
        return "mel"
    if shape == (521, 1024):
        return "dense"
    if shape == (521,):
        return "dense_bias"
    layer = re.search(r"layer(\d+)/(conv|depthwise_conv|pointwise_conv)", tensor)
    if not layer or len(shape) not in (1, 4) or (len(shape) == 4 and shape[0] == 1 and shape[1:3] != (3, 3)):
        return None
    number, kind = int(layer[1]), layer[2]
    if kind == "conv":
        return "first_bias" if len(shape) == 1 else "first" if shape[1:3] == (3, 3) and shape[3] == 1 else None
    name = f"{'along' if kind == 'depthwise_conv' else 'across'}{number}"
    return f"{name.replace(str(number), '')}_bias{number}" if len(shape) == 1 else name


def _as_torch(name: str, value: Tensor) -> Tensor:
    """A tensor in TensorFlow's order -> in torch's order, as `Teacher.forward` expects it."""
    if name == "window":
        return value.flatten()
    if name in ("mel", "dense"):
        return value.T.contiguous()
    if value.ndim == 4:
        return value.permute(3, 0, 1, 2) if name.startswith("along") else value.permute(0, 3, 1, 2)
    return value


@dataclass(frozen=True)
class Pool:
    """Sounds of all lengths, concatenated: `samples` int16 at 16 kHz, `starts` and `lengths` (N,), all on one
    device.
    """

    samples: Tensor
    starts: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, sounds: Sequence[np.ndarray], device: str) -> Pool:
        """Int16 arrays -> the pool."""
        lengths = torch.tensor([len(sound) for sound in sounds])
        starts = lengths.cumsum(0) - lengths
        return cls(torch.from_numpy(np.concatenate(sounds)).to(device), starts.to(device), lengths.to(device))

    def views(self, row: int) -> Tensor:
        """(K, 32000) samples in -1..1: the evenly spaced clips that `preprocess` takes; a short sound gives one padded
        clip.
        """
        start, length = int(self.starts[row]), int(self.lengths[row])
        sound = self.samples[start : start + length].float() / 2**15
        if length <= CLIP:
            return sound[None]
        return torch.stack([sound[i * (length - CLIP) // (VIEWS - 1) :][:CLIP] for i in range(VIEWS)])


def pictures(samples: Tensor) -> Tensor:
    """(B, samples up to 32000) -> (B, 1, 64, 204) log energies, as `preprocess` makes them for `small`."""
    energies = log_mel(samples - samples.mean(1, keepdim=True), RATE_HZ, BINS)
    shown = energies.new_zeros(len(samples), 1, BINS, FRAMES)
    shown[:, 0, :, : energies.shape[1]] = energies.transpose(1, 2)
    return shown


def augmented(pool: Pool, weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """A pool and the weight of each sound -> (count, 32000) samples: random pieces with random distortions.

    Half of the pieces have another speed (0.7 to 1.4), half are mixed with another sound (25 dB below to 3 dB above), a
    tenth with white noise, and half are filtered. Some sound as through a telephone or in a room. Each is up to 40 dB
    softer than full scale.
    """
    device = weights.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, 1, device=device, generator=generator) * (high - low) + low

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, generator=generator)

    rows = torch.multinomial(weights, count, replacement=True, generator=generator)
    rate = torch.where(uniform(0, 1) < 0.5, uniform(-0.35, 0.35).exp(), torch.ones(count, 1, device=device))
    length, span = pool.lengths[rows, None].float(), rate * CLIP
    spare = length - span
    first = torch.where(spare > 0, uniform(0, 1) * spare, uniform(0, 1) * spare.clamp(max=0))
    place = first + torch.arange(CLIP, device=device) * rate
    before = place.floor()
    inside = (before >= 0) & (before < length - 1)
    index = pool.starts[rows, None] + before.clamp(min=0).minimum(length - 2).long()
    part = place - before
    x = (pool.samples[index].float() * (1 - part) + pool.samples[index + 1].float() * part) * inside / 2**15

    x = x / (x.square().mean(1, keepdim=True).sqrt() + 1e-5)
    other = x[torch.randperm(count, device=device, generator=generator)]
    x = x + (uniform(0, 1) < 0.5) * other * 10 ** (uniform(-25, 3) / 20)
    x = x + (uniform(0, 1) < 0.1) * noise(count, CLIP) * 10 ** (uniform(-35, -5) / 20)

    frequencies = torch.fft.rfftfreq(_FFT, 1 / RATE_HZ).to(device)
    knots = 4 * noise(count, 1, 8) * (uniform(0, 1) < 0.5)[..., None]
    response = 10 ** (F.interpolate(knots, size=len(frequencies), mode="linear")[:, 0] / 20)
    above = torch.where(uniform(0, 1) < 0.15, uniform(7.2, 8.8).exp(), torch.full((count, 1), 1e5, device=device))
    below = torch.where(uniform(0, 1) < 0.1, uniform(100, 400), torch.zeros(count, 1, device=device))
    response = response / (1 + (frequencies / above) ** 12).sqrt() / (1 + (below / (frequencies + 1)) ** 8).sqrt()
    time_s = torch.arange(RATE_HZ // 2, device=device) / RATE_HZ
    room = noise(count, RATE_HZ // 2) * (-time_s / uniform(0.03, 0.25)).exp()
    room = room * (uniform(0, 1) < 0.2) * uniform(0.02, 0.1)
    room[:, 0] = 1
    x = torch.fft.irfft(torch.fft.rfft(x, _FFT) * response * torch.fft.rfft(room, _FFT), _FFT)[:, :CLIP]
    loud: Tensor = (x / (x.abs().amax(1, keepdim=True) + 1e-6) * 10 ** (uniform(-40, 0) / 20)).clamp(-1, 1)
    return loud


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


def shown(pool: Pool, rows: Sequence[int]) -> Tensor:
    """Sounds of a pool -> (N, K, 1, 64, 204) log energies of their views; the view of a short sound is repeated K
    times.
    """
    parts = pool.samples.new_zeros(len(rows), VIEWS, *SHAPE, dtype=torch.float32)
    long = [place for place, row in enumerate(rows) if pool.lengths[row] > CLIP]
    for some in (long[i : i + 64] for i in range(0, len(long), 64)):
        clips = torch.cat([pool.views(rows[place]) for place in some])
        parts[some] = pictures(clips).unflatten(0, (len(some), VIEWS))
    for place in set(range(len(rows))) - set(long):
        parts[place] = pictures(pool.views(rows[place]))
    return parts


@torch.inference_mode()
def features_of(encoder: nn.Module, views: Tensor) -> Tensor:
    """(N, K, 1, 64, 204) views -> (N, K, width) float32."""
    encoder.eval()
    return torch.cat([encoder(some.flatten(0, 1)).unflatten(0, some.shape[:2]) for some in views.split(64)])


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


def fit_head(
    features: Tensor,
    things: Tensor,
    texts: Tensor,
    names: Tensor,
    *,
    weights: Tensor,
    closed: float = 0.5,
    decay: float = 0.01,
) -> SoundHead:
    """Features (N, K, C + E) of labelled sounds, the things (N,) that they are of, and their texts (T, D) -> the head.

    `names` (C, D) are the unit vectors of the teacher's class names, which are weighted by `closed` times the
    probabilities. A ridge regression from the means of the views predicts the rest of the texts' vectors; each thing
    has the weight of the root of its number of sounds. `weights` (N,) are the weights of the sounds; 0 leaves a sound
    out.
    """
    classes = len(names)
    fixed = closed * (names - names.mean(0))
    embedding = features[..., classes:]
    mean, spread = embedding.mean((0, 1)), embedding.std((0, 1)) + 0.02
    x = ((embedding - mean) / spread).mean(1)
    count = torch.bincount(things, weights=weights, minlength=len(texts))
    weights = weights / count[things].clamp(min=1).sqrt()
    weights = (weights / weights.sum())[:, None]
    left = texts[things] - (features[..., :classes] @ fixed).mean(1)
    x_mean, left_mean = (weights * x).sum(0), (weights * left).sum(0)
    centred = x - x_mean
    square = (centred * weights).T @ centred
    square = square + decay * square.diagonal().mean() * torch.eye(len(square), device=x.device)
    weight = torch.linalg.solve(square, (centred * weights).T @ (left - left_mean)) / spread[:, None]
    return SoundHead(fixed, weight, left_mean - (x_mean * spread + mean) @ weight)


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


@dataclass(frozen=True)
class Sound:
    """A sound to learn from: int16 samples at 16 kHz, its set or package, and the thing it is of ("" where unknown)."""

    samples: np.ndarray
    origin: str
    thing: str = ""
    prompts: tuple[str, ...] = ()


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
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in _ENDINGS or not path.is_file() or path.is_symlink():
            continue
        if any(str(path).startswith(f"{stem}{end}") for stem in _stems(path) & test for end in ("_", ".")):
            continue
        samples = read(Source.from_path(path), _LONGEST_S)
        if samples is not None and len(samples) > _SHORTEST and np.abs(samples).max() > _SOFTEST:
            yield Sound(samples, path.relative_to(folder).parts[0])


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
        for event in whole.events:
            samples = read(event.media["audio"]) if "audio" in event.media else None
            if samples is not None and len(samples) > _SHORTEST:
                thing = event.labels[0] if event.labels else ""
                prompts = tuple(template.format(thing) for template in templates) if thing else ()
                yield Sound(samples, name, thing, prompts)


def drawn(sounds: Sequence[Sound], real: frozenset[str]) -> Tensor:
    """The weight of each sound in distillation: the root of its length, doubled for sounds of real sets."""
    roots = [min(len(sound.samples) / RATE_HZ, 12.0) ** 0.5 for sound in sounds]
    return torch.tensor([root * (2 if one.origin in real else 1) for root, one in zip(roots, sounds, strict=True)])


def main() -> None:
    """Runs the three parts and writes OUT/audio.safetensors, the weights for the audio part of a description."""
    parser = argparse.ArgumentParser(prog="python -m train.small.sounds", description=__doc__)
    for name in ("data", "packages", "space", "words", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--licence", choices=("all", "free"), default="all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    found = data.find(options.data, options.licence)
    print("\n".join(f"left out: {reason}" for reason in found.left_out), file=sys.stderr)
    with ThreadPoolExecutor() as reading:
        package_sounds, set_sounds = reading.map(
            lambda sounds: list[Sound](sounds), (of_packages(options.packages), of_sets(found))
        )
    teacher_file = next(iter(sorted(options.data.rglob("yamnet.tflite"))), None)
    if teacher_file is None:
        parser.error(f"{options.data}: expected yamnet.tflite somewhere below it")
    teacher = Teacher.read(teacher_file).to(device)
    student = TaggingEncoder(SHAPE, classes=CLASSES, embedding=EMBEDDING).to(device)
    real = frozenset(sound.origin for sound in set_sounds)
    for number, (steps, rate) in enumerate(PHASES):
        heard_now = package_sounds if number == 0 else [*package_sounds, *set_sounds]
        pool = Pool.of([sound.samples for sound in heard_now], str(device))
        losses = distil(student, teacher, pool, drawn(heard_now, real).to(device), steps=steps, rate=rate, seed=number)
        print(f"phase {number}: {len(heard_now):,} sounds, loss {np.mean(losses[-100:]):.3f}", flush=True)

    named = [sound for sound in set_sounds if sound.thing]
    pool = Pool.of([sound.samples for sound in named], str(device))
    features = features_of(student, shown(pool, range(len(named)))).cpu()
    space = bind.load(str(options.space), modalities=["text"])
    before = bind.load(str(options.words), modalities=["text", "audio"])
    prompts = {sound.thing: sound.prompts for sound in named}
    things = sorted(prompts)
    rows = [F.normalize(_texts(space, prompts[thing]).mean(0), dim=0) for thing in things]
    classes = [f"the sound of {name.lower()}" for name in class_names(teacher_file.with_name(_CLASS_MAP))]
    place = {thing: number for number, thing in enumerate(things)}
    labels = torch.tensor([place[sound.thing] for sound in named])
    head = fit_head(features, labels, torch.stack(rows), _texts(space, classes), weights=torch.ones(len(named)))

    tower = before.tower("audio")
    shared = [prompt for thing in things for prompt in prompts[thing]] + classes
    words = moved(tower.head.get_parameter("weight").detach().float().T, _texts(before, shared), _texts(space, shared))
    spoken = [sound.samples for sound in package_sounds if sound.origin == _SPOKEN]
    speech_pool = Pool.of(spoken, str(device))
    speech = features_of(student, shown(speech_pool, range(len(spoken))))[:, 0].cpu()
    everything = torch.cat([speech, features.flatten(0, 1)])
    gate, bias = fit_gate(everything, torch.arange(len(everything)) < len(speech))
    spoken_features = features_of(tower.encoder.to(device), shown(speech_pool, range(len(spoken))))[:, 0].cpu()
    loud = (features @ torch.cat([head.closed, head.learned]) + head.bias).norm(dim=2).median()
    weight = joined(words * loud / (spoken_features @ words).norm(dim=1).median(), head)
    state = {f"encoder.words.{name}": value for name, value in tower.encoder.state_dict().items()}
    state |= {f"encoder.sounds.{name}": value for name, value in student.state_dict().items()}
    state |= {"encoder.gate.weight": gate[None], "encoder.gate.bias": bias, "head.weight": weight.T}
    options.out.mkdir(parents=True, exist_ok=True)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    save_file({name: value.cpu().contiguous() for name, value in halves.items()}, options.out / "audio.safetensors")


def _texts(model: BindModel, texts: Sequence[str]) -> Tensor:
    """(N, D) unit rows."""
    return torch.from_numpy(model.embed(list(texts), "text").vectors)


def class_names(file: Path) -> list[str]:
    """The teacher's class names, in order, from its table of index, identifier and name."""
    with file.open(newline="", encoding="utf-8") as lines:
        return [row["display_name"] for row in csv.DictReader(lines)]


if __name__ == "__main__":
    main()
