"""The encoders of words and sounds: what they may depend on and what not, and that they learn to tell sounds apart."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from bind import encoders
from bind.encoders.sound import HearingEncoder, SoundEncoder, TaggingEncoder, varied

SHAPE = (1, 32, 96)
SILENCE = math.log(torch.finfo(torch.float32).eps)


def encoder(**options: object) -> SoundEncoder:
    torch.manual_seed(0)
    built = encoders.build({"module": "sound", "shape": SHAPE, "channels": 32, "blocks": 4, **options})
    assert isinstance(built, SoundEncoder)
    return built


def melodies(count: int) -> torch.Tensor:
    """(2 * count, 1, 32, 96) log energies: rising and falling tones in turn, from different heights, in noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2 * count, *SHAPE, generator=generator) * 2 - 14
    for row, first in enumerate(torch.randint(4, 14, (2 * count,), generator=generator).tolist()):
        for frame in range(20, 70):
            step = (frame - 20) // 5
            x[row, 0, first + (step if row % 2 else 9 - step), frame] = 0.0
    return x


def test_padding_is_silence() -> None:
    """Zeros after a short sound, as `readers.audio.prepare` pads, mean the same as the floor of the filterbank."""
    network = encoder().eval()
    x = melodies(1)
    padded, silent, loud = x.clone(), x.clone(), x.clone()
    padded[..., 70:], silent[..., 70:] = 0.0, SILENCE
    loud[..., 70:] = torch.linspace(-1, 1, 32)[:, None]
    torch.testing.assert_close(network(padded), network(silent))
    assert (network(padded) - network(loud)).abs().max() > 0.1


def test_varies_in_training_only() -> None:
    network, x = encoder(), melodies(2)
    network.eval()
    assert torch.equal(network(x), network(x))
    network.train()
    torch.manual_seed(1)
    first, second = network(x), network(x)
    assert (first - second).abs().max() > 0.1
    torch.manual_seed(1)
    assert torch.equal(network(x), first)  # the loop seeds each step


def test_variation_keeps_most_of_a_picture() -> None:
    x = melodies(50)
    other = varied(x, 1.0)
    assert other.shape == x.shape
    assert other.min() >= SILENCE - 1e-4
    assert not torch.equal(other, x)
    # Its own original is nearer than another picture's, by loudness over time.
    one, two = (F.normalize((y - y.mean((2, 3), keepdim=True)).amax(2).flatten(1), dim=1) for y in (x, other))
    own = (one * two).sum(1).mean()
    assert own > 0.5


@pytest.mark.parametrize("shuffled", [False, True], ids=["real", "control"])
def test_learns_the_order_of_tones(shuffled: bool) -> None:
    """Rising and falling tones hold the same energies; on other heights than in training, with labels that are chance
    as the control."""
    network, x = encoder(), melodies(96)
    labels = torch.arange(len(x)) % 2
    known = labels[torch.randperm(len(x), generator=torch.Generator().manual_seed(1))] if shuffled else labels
    head = torch.nn.Linear(network.width, 2)
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], 3e-3)
    for step in range(40):
        rows = torch.arange(32) + 32 * (step % 4)
        loss = F.cross_entropy(head(network(x[rows])), known[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        right = (head(network(x[128:])).argmax(1) == labels[128:]).float().mean()
    assert (right < 0.75) if shuffled else (right > 0.9)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"expected a shape \(1, bins, frames\), bins a multiple of 8"):
        encoder(shape=(1, 30, 96))
    with pytest.raises(ValueError, match="4 blocks or more, got 32, 2"):
        encoder(blocks=2)
    with pytest.raises(ValueError, match="unknown keys"):
        encoder(width=3)
    with pytest.raises(ValueError, match=r"missing keys \['shape'\]"):
        encoders.build({"module": "sound"})
    with pytest.raises(ValueError, match=r"expected \(B, 1, 32, 96\)"):
        encoder()(torch.zeros(1, 1, 32, 95))


def hearing(**sounds: object) -> HearingEncoder:
    torch.manual_seed(0)
    options = {"classes": 7, "embedding": 16, "multiplier": 0.34, **sounds}
    built = encoders.build({"module": "sound", "shape": SHAPE, "channels": 32, "blocks": 4, "sounds": options})
    assert isinstance(built, HearingEncoder)
    return built.eval()


def test_tags_are_probabilities_and_padding_is_silence() -> None:
    tagger = hearing().sounds
    x = melodies(1)
    padded, silent = x.clone(), x.clone()
    padded[..., 70:], silent[..., 70:] = 0.0, SILENCE
    features = tagger(padded)
    assert features.shape == (2, tagger.width) == (2, 7 + 16)
    assert features[:, :7].min() >= 0 and features[:, :7].max() <= 1
    torch.testing.assert_close(features, tagger(silent))


def test_a_class_counts_where_it_is_heard_most() -> None:
    """The probability of a clip is the largest of three stretches; the features are the mean of the three."""
    tagger = hearing().sounds
    stretches = tagger.stretches(melodies(1))
    assert stretches.shape == (2, 3, 16)
    assert (stretches[:, 0] - stretches[:, 2]).abs().max() > 1e-4
    whole = tagger(melodies(1))
    torch.testing.assert_close(whole[:, :7], tagger.classifier(stretches).sigmoid().amax(1))
    torch.testing.assert_close(whole[:, 7:], stretches.mean(1))


@pytest.mark.parametrize("spoken", [True, False])
def test_the_gate_hands_a_clip_to_one_of_both(spoken: bool) -> None:
    network, x = hearing(), melodies(2)
    with torch.no_grad():
        network.gate.weight.zero_()
        network.gate.bias.fill_(50.0 if spoken else -50.0)
    words, sounds, rest = network(x).split([network.words.width, network.sounds.width, 1], 1)
    assert network.width == network.words.width + network.sounds.width + 1
    torch.testing.assert_close(words, network.words(x) if spoken else torch.zeros_like(words))
    torch.testing.assert_close(sounds, torch.zeros_like(sounds) if spoken else network.sounds(x))
    torch.testing.assert_close(rest, torch.full_like(rest, 0.0 if spoken else 1.0))


def test_tagger_learns_to_tell_a_tone_from_another() -> None:
    """High from low tones, on sounds that it was not trained with, normalised by their own statistics."""
    torch.manual_seed(0)
    tagger = TaggingEncoder(SHAPE, classes=2, embedding=16, multiplier=0.34)
    x = torch.rand(96, *SHAPE) * 2 - 14
    labels = torch.arange(96) % 2
    for row in range(96):
        first = int(torch.randint(0, 60, ()))
        x[row, 0, (5 if row % 2 else 22) + int(torch.randint(0, 5, ())), first : first + 30] = 0.0
    optimizer = torch.optim.AdamW(tagger.parameters(), 3e-3)
    for step in range(24):
        rows = torch.arange(32) + 32 * (step % 2)
        loss = F.cross_entropy(tagger.classifier(tagger.stretches(x[rows]).mean(1)), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert (tagger(x[64:])[:, :2].argmax(1) == labels[64:]).float().mean() > 0.9


def test_wrong_arguments_of_both_are_named() -> None:
    with pytest.raises(ValueError, match=r"bins a multiple of 32"):
        TaggingEncoder((1, 48, 96))
    with pytest.raises(ValueError, match=r"unknown keys \['wide'\]"):
        hearing(wide=2)
    with pytest.raises(ValueError, match=r"expected \(B, 1, 32, 96\)"):
        hearing()(torch.zeros(1, 1, 32, 95))
