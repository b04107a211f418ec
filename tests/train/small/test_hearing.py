"""The table of what a model hears: hits, chance and intervals are what they say; a deaf one is at chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile
from PIL import Image

import bind
from bind.model.model import BindModel
from bind.model.pipeline import Embedded, Failed
from bind.space import Embeddings, unit
from preprocess import manifest
from preprocess.source import MediaError, Source
from train.small import hearing
from train.small.hearing import Row, score

THINGS = 60


class Listener:
    """A space in which all lies at a place of its name; a deaf one puts each sound where nothing else lies."""

    dim = 64

    def __init__(self, deaf: bool = False) -> None:
        self._deaf = deaf

    def place(self, name: str, modality: str) -> np.ndarray:
        seed = [ord(letter) for letter in (name + modality if self._deaf and modality == "audio" else name)]
        vectors: np.ndarray = unit(np.random.default_rng(seed).standard_normal((1, self.dim)).astype(np.float32))
        return cast(np.ndarray, vectors[0])

    def embed(self, items: Sequence[str], modality: str) -> Embeddings:
        return Embeddings(np.stack([self.place(item, modality) for item in items]), "listener")

    def stream(self, sources: Sequence[Source], modality: str, *_: Any) -> Iterator[Embedded | Failed]:
        for position, source in reversed(list(enumerate(sources))):  # a real model's results have no order either
            stem = Path(str(source.content)).stem
            if stem == "damaged":
                yield Failed(position, MediaError(source.name, "damaged"))
            else:
                yield Embedded(position, modality, self.place(stem.split("_")[0], modality), None, None, (), True)


def listener(deaf: bool = False) -> BindModel:
    return cast(BindModel, Listener(deaf))


def write(folder: Path, things: int, spoken_in: Sequence[str], heard: Sequence[str] = ()) -> Path:
    """Manifests of things, each third one with an effect, all spoken in some languages; `heard`: words of training."""
    codes = {"en": "", **{each: f"_{each}" for each in spoken_in if each != "en"}}
    stamps = [{"id": f"{n}", "group": f"thing{n}", "image": {"path": f"thing{n}.png"}} for n in range(things)]
    for event in stamps[::3]:
        event["audio"] = {"path": f"{event['group']}.wav"}
    spoken = [
        {
            "id": f"{n}-{language}",
            "group": f"thing{n}",
            "audio": {"path": f"thing{n}_desc{codes[language]}.wav"},
            "text": f"Un mot{n}.",
        }
        for n in range(things)
        for language in spoken_in
    ]
    unseen = {"id": "unseen", "group": "no picture", "audio": {"path": "x_desc.wav"}, "text": "x"}
    train = [{"id": w, "audio": {"path": f"{w}_desc_fr.wav"}, "text": f"Le {w} !", "group": w} for w in heard]
    sets = {"stamps-test": stamps, "stamps-spoken-test": [*spoken, unseen], "stamps-spoken-train": train}
    for name, events in sets.items():
        manifest.write(folder / f"{name}.jsonl", {"name": name, "license": "CC0-1.0"}, events)
    return folder


def table(model: BindModel, folder: Path) -> dict[tuple[str, str], Row]:
    return {(row.sounds, row.targets): row for row in hearing.rows(model, folder)}


def test_one_that_understands_and_one_that_is_deaf(tmp_path: Path) -> None:
    write(tmp_path, THINGS, ("fr", "ca", "en"), heard=("mot3", "mot4"))
    good, deaf = table(listener(), tmp_path), table(listener(deaf=True), tmp_path)
    control = {("speech, names shuffled", target) for target in ("pictures", "captions")}
    assert good.keys() == deaf.keys() >= control
    for key, row in good.items():
        assert row.chance == pytest.approx(hearing.K / THINGS)
        assert row.low <= row.recall <= row.high
        if key in control:
            assert row.recall < 2 * row.chance
        else:
            assert row.recall == row.low == row.high == 1
    for target in ("pictures", "captions"):
        assert deaf["speech", target].recall < 2 * hearing.K / THINGS
        assert deaf["speech", target].low < hearing.K / THINGS < deaf["speech", target].high
    assert (good["sound effects", "pictures"].n, good["speech", "pictures"].n) == (THINGS // 3, 3 * THINGS)
    assert good["speech, fr", "captions"].n == good["speech, en", "captions"].things == THINGS
    # The articles "un" and "le" are no part of a word; the same word in another language is another.
    assert good["speech, word heard from people", "pictures"].n == 2
    assert good["speech, word not heard in training", "pictures"].n == 3 * THINGS - 2


def test_small_languages_have_no_row_but_english_has(tmp_path: Path) -> None:
    """And without a manifest of what was heard, none is told apart."""
    write(tmp_path, 12, ("fr", "en"))
    (tmp_path / "stamps-spoken-train.jsonl").unlink()
    titles = {sounds for sounds, _ in table(listener(), tmp_path)}
    assert "speech, en" in titles and "speech, fr" not in titles
    assert not any("heard from people" in title or "synthesised" in title for title in titles)


def test_letters_are_left_out_of_a_row_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, 12, ("fr",))
    for file in tmp_path.glob("*.jsonl"):
        file.write_text(file.read_text().replace('"thing7"', '"The letter h."').replace('"thing8"', '"Four."'))
    found = table(listener(), tmp_path)
    assert (found["speech", "captions"].n, found["speech, no letters and digits", "captions"].n) == (12, 10)


def test_words_of_a_synthesiser_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, 12, ("fr",))
    said = {"id": "0", "audio": {"path": "made/fr/fr-0123.flac"}, "text": "mot5", "group": "mot"}
    manifest.write(tmp_path / "spoken-train.jsonl", {"name": "spoken-train", "license": "CC0-1.0"}, [said])
    assert table(listener(), tmp_path)["speech, word heard synthesised", "pictures"].n == 1


def test_chance_is_that_of_random_orders_and_ties_do_not_count() -> None:
    rng = np.random.default_rng(0)
    labels, names = np.array([f"{n // 3}" for n in range(45)]), np.array([f"{n % 15}" for n in range(6000)])
    queries, gallery = (unit(rng.standard_normal((n, 32)).astype(np.float32)) for n in (len(names), len(labels)))
    row = score("noise", "pictures", queries, names, gallery, labels)
    drawn = [np.isin("0", labels[rng.permutation(45)[: hearing.K]]) for _ in range(4000)]
    assert row.chance == pytest.approx(np.mean(drawn), abs=0.025)
    assert row.recall == pytest.approx(row.chance, abs=0.05)
    alike = np.eye(1, 32, dtype=np.float32)
    same = score("all alike", "pictures", alike.repeat(15, 0), names[:15], alike.repeat(45, 0), labels)
    assert same.recall == 0
    few = score("fewer than ten", "pictures", queries[:2], names[:2], gallery[:6], labels[:6])
    assert few.recall == few.chance == 1


def test_intervals_draw_names_and_not_recordings() -> None:
    """Ten recordings of each name that are all found or all missed say no more than one of each."""
    vectors = np.eye(40, dtype=np.float32)
    labels = np.array([f"{n}" for n in range(40)])
    heard = np.where(np.arange(20) % 2, np.arange(20), 39 - np.arange(20))
    once = score("x", "y", vectors[heard], labels[:20], vectors, labels)
    often = score("x", "y", vectors[heard].repeat(10, 0), labels[:20].repeat(10), vectors, labels)
    assert (often.n, often.things) == (200, once.things) == (200, 20)
    assert (often.recall, often.low, often.high) == (once.recall, once.low, once.high)
    assert once.recall == 0.5 and once.high - once.low > 0.3


def test_a_damaged_recording_stops_it(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"damaged.wav"):
        hearing.embed(listener(), "audio", [Source.from_path(tmp_path / name) for name in ("a.wav", "damaged.wav")])


def test_files_through_the_real_model(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    write(tmp_path, 3, ("en",))
    for number in range(3):
        Image.new("RGB", (32, 32), (80 * number, 40, 40)).save(tmp_path / f"thing{number}.png")
        tone = 0.1 * np.sin(np.arange(8000) * 0.05 * (1 + number))
        for name in (f"thing{number}.wav", f"thing{number}_desc.wav"):
            soundfile.write(tmp_path / name, tone, 16_000)
    model = bind.load("small", modalities=["image", "text", "audio"])
    monkeypatch.setattr("bind.load", lambda name: model)
    monkeypatch.setattr("sys.argv", ["hearing", "small", str(tmp_path)])
    hearing.main()
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("sounds") and len(lines) == 2 * (1 + 3 + 1 + 1)
    assert all("1.000  1.000 .. 1.000  1.000   1.0 x" in line for line in lines)  # ten hold all of three pictures
    found = hearing.embed(model, "audio", [Source.from_path(tmp_path / f"thing{n}.wav") for n in (0, 0, 2)])
    assert found[0] @ found[1] == pytest.approx(1) and found[0] @ found[2] < 0.99
