"""PE-AV against transformers' own forward pass, with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import bind
from bind.encoders import pe_av
from preprocess.source import Hints, Source
from tests.bind.encoders import tiny_models

ENOUGH = 0.99999
TEXTS = ["a dog barks", "rain on a roof"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.pe_av(tmp_path_factory.mktemp("models") / "pe-av")


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return (a * b).sum(1)


def waves() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, 30_000 + 9_000 * number).astype(np.float32) for number in range(8)]


def films() -> list[np.ndarray]:
    return [np.random.default_rng(n).integers(0, 256, (8 + 4 * n, 40, 50, 3), dtype=np.uint8) for n in range(4)]


def own(folder: Path, wave: np.ndarray, film: np.ndarray, text: str) -> dict[str, np.ndarray]:
    """What `PeAudioVideoModel.forward` gives for one item of each modality."""
    pe = pe_av.opened(folder)
    words = pe.processor.tokenizer([text], return_tensors="pt")
    sound = pe.processor.feature_extractor([wave], sampling_rate=48_000, return_tensors="pt")
    frames = torch.from_numpy(film[::4]).permute(0, 3, 1, 2)
    seen = pe.processor.video_processor([frames], do_sample_frames=False, return_tensors="pt")
    with torch.inference_mode():
        out = pe.model(
            input_ids=words["input_ids"],
            attention_mask=words["attention_mask"],
            input_values=sound["input_values"],
            pixel_values_videos=seen["pixel_values_videos"],
        )
    names = ("audio_embeds", "video_embeds", "text_audio_embeds", "text_video_embeds", "text_audio_video_embeds")
    return {name: getattr(out, name).numpy() for name in names}


def test_sound_and_films_equal_transformers_own(folder: Path) -> None:
    model = bind.load(f"pe-av:{folder}")
    assert model.modalities == ("audio", "video", "text") and model.dim == 32
    sounds = model.embed([Source(wave, "wave") for wave in waves()], modality="audio").vectors
    seen = model.embed([Source(film, "film", Hints(rate_hz=4.0)) for film in films()], modality="video").vectors
    for number, film in enumerate(films()):
        expected = own(folder, waves()[number], film, "x")
        assert cosines(sounds[number : number + 1], expected["audio_embeds"]).min() >= ENOUGH
        assert cosines(seen[number : number + 1], expected["video_embeds"]).min() >= ENOUGH
        other = (number + 1) % 4  # negative control
        assert cosines(sounds[other : other + 1], expected["audio_embeds"]).max() < ENOUGH
    alone = np.concatenate([model.embed([Source(wave, "wave")], modality="audio").vectors for wave in waves()])
    assert cosines(sounds, alone).min() >= ENOUGH  # a batch pads nothing


@pytest.mark.parametrize("text", pe_av.TEXTS)
def test_each_head_of_the_texts_equals_transformers_own(folder: Path, text: str) -> None:
    model = bind.load(f"pe-av:{folder}#{text}")
    found = model.embed([f"text:{words}" for words in TEXTS]).vectors
    expected = [own(folder, waves()[0], films()[0], words) for words in TEXTS]
    for head in pe_av.TEXTS:
        vectors = np.concatenate([one[f"text_{head}_embeds"] for one in expected])
        assert (cosines(found, vectors).min() >= ENOUGH) == (head == text)
    assert model.space != bind.load(f"pe-av:{folder}#{'video' if text != 'video' else 'audio'}").space


def test_without_a_choice_texts_are_those_of_films_with_sound(folder: Path) -> None:
    both = bind.load(f"pe-av:{folder}#audio_video")
    one = bind.load(f"pe-av:{folder}")
    assert cosines(one.embed(["text:a"]).vectors, both.embed(["text:a"]).vectors).min() >= ENOUGH


def test_what_is_no_pe_av_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tiny_models.bert(tmp_path / "bert")
    with pytest.raises(ValueError, match=r"the folder of a PE-AV of transformers, its config\.json is of 'bert'"):
        bind.load(f"pe-av:{other}")
    with pytest.raises(ValueError, match="text is 'smell', expected one of audio, video, audio_video"):
        bind.load(f"pe-av:{folder}#smell")
    with pytest.raises(ValueError, match="no random weights"):
        pe_av.build({})
