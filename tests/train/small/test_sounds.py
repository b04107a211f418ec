"""How the sounds of `small` are learned: what is heard, what the student takes from the teacher, and the heads."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from bind.encoders.sound import TaggingEncoder
from train.small import sound_heads as heads
from train.small import sound_pool, sounds, teacher
from train.small.sound_heads import Labelled, Settings, SoundHead, Unlabelled
from train.small.sound_pool import Pool

RATE = sound_pool.RATE_HZ


def tone(hertz: float, seconds: float, seed: int = 0) -> np.ndarray:
    """Int16 samples of a tone in a little noise."""
    time_s = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).standard_normal(len(time_s))
    return (8000 * np.sin(2 * np.pi * hertz * time_s) + 80 * noise).astype(np.int16)


def random_teacher(classes: int = 5) -> teacher.Teacher:
    """A teacher of the published layout with random weights and few classes."""
    generator = torch.Generator().manual_seed(0)
    widths = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * (2 / max(np.prod(shape[1:]), 1)) ** 0.5

    weights = {"window": torch.hann_window(400), "mel": torch.rand(257, 64, generator=generator) / 257}
    weights |= {"first": random(32, 1, 3, 3), "first_bias": torch.zeros(32)}
    for layer, (narrow, wide) in enumerate(itertools.pairwise(widths), 2):
        weights |= {f"along{layer}": random(narrow, 1, 3, 3), f"along_bias{layer}": torch.zeros(narrow)}
        weights |= {f"across{layer}": random(wide, narrow, 1, 1), f"across_bias{layer}": torch.zeros(wide)}
    weights |= {"dense": random(classes, 1024).T.contiguous(), "dense_bias": torch.zeros(classes)}
    return teacher.Teacher(weights)


def test_the_teachers_front_end_is_the_published_one() -> None:
    """Log of the mel sums of magnitudes of 25 ms every 10 ms, plus 0.001, against numpy, one frame at a time."""
    network = random_teacher()
    samples = tone(440, 2.0).astype(np.float32) / 2**15
    got = network.log_mel(torch.from_numpy(samples)[None])[0]
    assert got.shape == (198, 64)
    for frame in (0, 101, 197):
        piece = samples[160 * frame :][:400] * network.window.numpy()
        expected = np.log(np.abs(np.fft.rfft(piece, 512)) @ network.mel.numpy() + 0.001)
        np.testing.assert_allclose(got[frame].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_the_teacher_hears_three_stretches() -> None:
    network = random_teacher()
    x = torch.from_numpy(tone(440, 2.0)).float()[None] / 2**15
    silent_end = x.clone()
    silent_end[:, 24_000:] = 0
    features, logits = network(x)
    assert features.shape == (1, 3, 1024)
    assert logits.shape == (1, 3, 5)
    changed = (network(silent_end)[1] - logits).abs().amax((0, 2))
    assert changed[0] < 1e-5 < changed[2]  # the first second does not know what follows


def test_pieces_are_loud_enough_finite_and_drawn_by_weight() -> None:
    """Of tones and silence only tones are drawn; pieces differ, and their peaks lie between full scale and -40 dB."""
    pool = Pool.of([tone(1000, 3.0), tone(200, 0.3), np.zeros(RATE, np.int16)], "cpu")
    weights = torch.tensor([1.0, 1.0, 0.0])
    x = sound_pool.augmented(pool, weights, 32, torch.Generator().manual_seed(0))
    assert x.shape == (32, sound_pool.CLIP)
    assert torch.isfinite(x).all()
    peak = x.abs().amax(1)
    assert peak.max() <= 1 and peak.min() > 0.009
    assert len(x.unique(dim=0)) == 32
    again = sound_pool.augmented(pool, weights, 32, torch.Generator().manual_seed(0))
    assert torch.equal(again, x)


def test_views_are_those_of_the_model() -> None:
    """Evenly spaced clips from the first to the last sample, as `preprocess` takes them; a short sound as it is."""
    pool = Pool.of([tone(300, 5.0), tone(500, 0.5)], "cpu")
    long = pool.views(0)
    assert long.shape == (sound_pool.VIEWS, sound_pool.CLIP)
    whole = pool.samples[: 5 * RATE].float() / 2**15
    assert torch.equal(long[0], whole[: sound_pool.CLIP])
    assert torch.equal(long[-1], whole[-sound_pool.CLIP :])
    assert pool.views(1).shape == (1, RATE // 2)
    shown = sound_pool.shown(pool, [0, 1])
    assert shown.shape == (2, sound_pool.VIEWS, 1, 64, 204)
    torch.testing.assert_close(shown[0], sound_pool.pictures(long))
    assert torch.equal(shown[1, 0], shown[1, 4])


def test_a_student_comes_closer_to_its_teacher() -> None:
    torch.manual_seed(0)
    student = TaggingEncoder(sound_pool.SHAPE, classes=5, embedding=16, multiplier=0.34)
    pool = Pool.of([tone(hertz, 2.5) for hertz in (150, 400, 1100, 3000)], "cpu")
    losses = sounds.distil(student, random_teacher(), pool, torch.ones(4), steps=16, rate=0.1, batch=8)
    assert len(losses) == 16  # the rate rises over 150 steps, so it is a tenth of this at most
    assert np.mean(losses[-4:]) < 0.95 * np.mean(losses[:4])
    assert not student.training


CLASSES, WIDE, DIM = 6, 8, 16


def sounds_of_two_sets() -> tuple[Labelled, torch.Tensor]:
    """60 sounds of three things in two sets, and unit vectors of the teacher's classes.

    The teacher's classes say nothing about the things; the features do, in both sets alike.
    """
    generator = torch.Generator().manual_seed(0)
    things = torch.arange(60) % 3
    centres = torch.randn(3, WIDE, generator=generator)
    felt = centres[things][:, None] + 0.3 * torch.randn(60, 2, WIDE, generator=generator)
    said = torch.rand(60, 2, CLASSES, generator=generator)
    vectors = F.normalize(torch.randn(3 + CLASSES, DIM, generator=generator), dim=1)
    sets, folds = torch.arange(60) // 30, torch.arange(60) // 3 % 5
    return Labelled(torch.cat([said, felt], 2), things, vectors[:3], sets, folds), vectors[3:]


def test_the_head_learns_what_class_names_do_not_tell() -> None:
    labelled, names = sounds_of_two_sets()
    tested = labelled.folds == 4
    head = heads.fit_head(labelled.of(~tested), names, Settings())
    assert heads.accuracy(head, labelled.of(tested)) > 0.9
    closed = SoundHead(names - names.mean(0), torch.zeros(WIDE, DIM), torch.zeros(DIM))
    assert heads.accuracy(closed, labelled.of(tested)) < 0.7
    shuffled = replace(labelled, things=labelled.things[torch.randperm(60, generator=torch.Generator().manual_seed(1))])
    chance = heads.fit_head(shuffled.of(~tested), names, Settings())
    assert heads.accuracy(chance, labelled.of(tested)) < 0.7


def test_a_head_held_small_is_the_closed_one() -> None:
    labelled, names = sounds_of_two_sets()
    head = heads.fit_head(labelled, names, Settings(closed=1.0, decay=1e6))
    torch.testing.assert_close(head.closed, names - names.mean(0))
    assert head.learned.abs().max() < 0.01


def test_a_head_that_hears_unlabelled_sounds_says_what_the_teacher_says_of_them() -> None:
    labelled, names = sounds_of_two_sets()
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(200, CLASSES + WIDE, generator=generator)
    features[:, :CLASSES] = torch.rand(200, CLASSES, generator=generator)
    # One feature tells which class the teacher hears.
    taught = F.one_hot((features[:, -1] > 0).long(), CLASSES).float()
    unlabelled = Unlabelled(features, taught)
    target = F.normalize(taught @ (names - names.mean(0)), dim=1)

    def agreement(settings: Settings) -> float:
        head = heads.fit_head(labelled, names, settings, unlabelled)
        return float((head(features[:, None]) * target).sum(1).mean())

    assert agreement(Settings(share=10.0)) > agreement(Settings(share=0.0)) + 0.2


def test_settings_are_chosen_by_what_was_held_out() -> None:
    """Every fold and every set is measured by a head that did not learn it; a set in pieces is only learned from."""
    labelled, names = sounds_of_two_sets()
    crossed, left_out = heads.held_out(labelled, names, Settings(), None)
    assert len(crossed) == len(left_out) == 2
    assert min(crossed) > 0.9
    assert min(left_out) > 0.9
    pieces = replace(labelled, folds=torch.where(labelled.sets == 1, labelled.things, labelled.folds))
    assert len(heads.held_out(pieces, names, Settings(), None)[0]) == 1
    # The control: things that are drawn by lot cannot be known of sounds that were held out.
    drawn = torch.randint(3, (60,), generator=torch.Generator().manual_seed(3))
    crossed, _ = heads.held_out(replace(labelled, things=drawn), names, Settings(), None)
    assert max(crossed) < 0.7
    best, lines = heads.chosen(labelled, names, None, ["first", "second"])
    assert [line for line in lines if "(chosen)" in line] == [
        line for line in heads.chosen(labelled, names, None, ["first", "second"])[1] if str(best) in line
    ]


def test_a_head_moves_with_its_space() -> None:
    """What was nearest to a text in one space is so in a turned one."""
    generator = torch.Generator().manual_seed(0)
    texts = F.normalize(torch.randn(100, DIM, generator=generator), dim=1)
    turn = torch.linalg.qr(torch.randn(DIM, DIM, generator=generator))[0]
    weight, x = torch.randn(5, DIM, generator=generator), torch.randn(20, 5, generator=generator)
    before = (x @ weight) @ texts.T
    after = (x @ heads.moved(weight, texts, texts @ turn, decay=1e-6)) @ (texts @ turn).T
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


def test_the_gate_tells_speech_from_the_rest() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 6, generator=generator)
    spoken = features[:, 2] > 0.8
    weight, bias = heads.fit_gate(features[:150], spoken[:150])
    found = features[150:] @ weight + bias > 0
    assert (found == spoken[150:]).float().mean() > 0.9


def test_joined_heads_are_one_linear_map() -> None:
    """Words times the gate, sounds times the rest, and the bias times the rest."""
    head = SoundHead(torch.randn(CLASSES, DIM), torch.randn(WIDE, DIM), torch.randn(DIM))
    words = torch.randn(5, DIM)
    weight = heads.joined(words, head)
    features, said, gate = torch.randn(3, CLASSES + WIDE), torch.randn(3, 5), torch.rand(3, 1)
    inputs = torch.cat([gate * said, (1 - gate) * features, 1 - gate], 1)
    sound = features @ torch.cat([head.closed, head.learned]) + head.bias
    torch.testing.assert_close(inputs @ weight, gate * (said @ words) + (1 - gate) * sound, rtol=1e-4, atol=1e-4)


def test_names_of_the_published_file() -> None:
    """What YAMNet's TFLite file calls its tensors; what it computes on the way is none of its weights."""
    layer = "yamnet_frames/layer11"
    assert teacher._name_of(f"{layer}/pointwise_conv/Conv2D", (512, 1, 1, 512)) == "across11"
    assert teacher._name_of(f"{layer}/pointwise_conv/bn/FusedBatchNormV3", (512,)) == "across_bias11"
    assert teacher._name_of(f"{layer}/depthwise_conv/bn/FusedBatchNormV3;{layer}/depthwise_con", (1, 3, 3, 512)) == (
        "along11"
    )
    assert teacher._name_of(f"{layer}/depthwise_conv/bn/FusedBatchNormV3", (512,)) == "along_bias11"
    assert teacher._name_of("yamnet_frames/layer1/conv/Conv2D", (32, 3, 3, 1)) == "first"
    assert teacher._name_of("yamnet_frames/layer1/conv/bn/FusedBatchNormV3", (32,)) == "first_bias"
    assert teacher._name_of("yamnet_frames/tf_op_layer_Mul/Mul/y", (1, 400)) == "window"
    assert teacher._name_of(f"{layer}/pointwise_conv/relu/Relu;{layer}/pointwise_conv/bn", (1, 6, 4, 512)) is None
