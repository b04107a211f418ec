"""CLAP against transformers' own call, with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import bind
from bind.encoders import clap
from preprocess.source import Source
from tests.bind.encoders import tiny_models

ENOUGH = 0.99999


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.clap(tmp_path_factory.mktemp("models") / "clap", fusion=request.param)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return (a * b).sum(1)


def noise(seconds: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(48_000 * seconds)).astype(np.float32)


def own(folder: Path, waves: list[np.ndarray]) -> np.ndarray:
    model = transformers.ClapModel.from_pretrained(folder).eval()
    processor = transformers.ClapProcessor.from_pretrained(folder)
    given = processor(audio=[wave.astype(np.float64) for wave in waves], sampling_rate=48_000, return_tensors="pt")
    given["is_longer"][:] = False  # transformers calls one of the short sounds long, drawn at random
    with torch.inference_mode():
        return model.get_audio_features(**given).pooler_output.numpy()


def test_sound_equals_transformers_own(folder: Path) -> None:
    model = bind.load(f"clap:{folder}")
    waves = [noise(0.5 + 0.7 * number, number) for number in range(8)]
    found = model.embed([Source(wave, "wave") for wave in waves], modality="audio").vectors
    assert cosines(found, own(folder, waves)).min() >= ENOUGH
    alone = np.concatenate([model.embed([Source(wave, "wave")], modality="audio").vectors for wave in waves])
    assert cosines(found, alone).min() >= ENOUGH
    rising = [wave * np.linspace(0, 1, len(wave), dtype=np.float32) for wave in waves]
    assert cosines(found, own(folder, rising)).min() < ENOUGH  # negative control


def test_a_long_sound_is_the_mean_of_windows_and_never_drawn(folder: Path) -> None:
    model, wave = bind.load(f"clap:{folder}", modalities=["audio"]), noise(25, 9)
    found = model.embed([Source(wave, "wave")], modality="audio").vectors
    windows = [wave[at : at + 480_000] for at in (0, 360_000, 720_000)]
    each = own(folder, windows)
    mean = (each / np.linalg.norm(each, axis=1, keepdims=True)).mean(0, keepdims=True)
    assert cosines(found, mean).min() >= ENOUGH
    again = model.embed([Source(wave, "wave")], modality="audio").vectors
    assert np.array_equal(found, again)
    segments = list(model.stream([Source(wave, "wave")], modality="audio", plan="segments"))
    assert [(round(one.start_s), round(one.end_s)) for one in segments] == [(0, 10), (10, 25)]


def test_texts_equal_transformers_own(folder: Path) -> None:
    model = bind.load(f"clap:{folder}")
    texts = ["a dog barks", "rain on a roof", "x", "wind"]
    library = transformers.ClapModel.from_pretrained(folder).eval()
    words = transformers.ClapProcessor.from_pretrained(folder).tokenizer
    with torch.inference_mode():
        expected = [library.get_text_features(**words([text], return_tensors="pt")).pooler_output for text in texts]
    found = model.embed([f"text:{text}" for text in texts]).vectors
    assert cosines(found, torch.cat(expected).numpy()).min() >= ENOUGH
    assert cosines(found[1:], torch.cat(expected).numpy()[:-1]).max() < ENOUGH  # negative control
    long = " ".join(["thunder"] * 30)
    assert len(clap.load({"modality": "text"}, folder)._cut(long, "query")) > 2
    assert model.embed([f"text:{long}"]).vectors.shape == (1, 24)


def test_what_is_no_clap_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tiny_models.bert(tmp_path / "bert")
    for name, sentence in ((f"clap:{other}", "is of 'bert'"), (f"clap:{tmp_path}", "with config.json")):
        with pytest.raises(ValueError, match=sentence):
            bind.load(name)
    with pytest.raises(ValueError, match="modality is 'image', expected one of audio, text"):
        clap.load({"modality": "image"}, folder)
    with pytest.raises(ValueError, match="no random weights"):
        clap.build({})
    with pytest.raises(ValueError, match="is for models of st:"):
        bind.load(f"clap:{folder}", trust_remote_code=True)


def test_it_is_saved_with_its_digest(folder: Path, tmp_path: Path) -> None:
    model = bind.load(f"clap:{folder}")
    model.save(tmp_path / "saved")
    assert bind.load(tmp_path / "saved").space == model.space
    config = model.config("audio")
    assert (config.raw, config.rate_hz, config.clip_s, config.segment_s) == (True, 48_000, 10.0, 10.0)
