"""Models of sentence-transformers against the library's own call, with random weights in small architectures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sentence_transformers as library
import soundfile
from PIL import Image
from safetensors.torch import load_file, save_file

import bind
from bind import checkpoint, zoo
from bind.encoders import sentence_transformers as encoder
from bind.zoo import hub
from preprocess.source import Hints, Source
from tests.bind.encoders import tiny_models

KINDS: dict[str, Callable[[Path], Path]] = {
    "bert": tiny_models.bert,
    "clip": tiny_models.clip,
    "qwen3_vl": tiny_models.qwen3_vl,
    "embedding_gemma2": tiny_models.embedding_gemma2,
    "neomme": tiny_models.neomme,
}
TEXTS = ["a dog", "a red car on the road behind the house", "x", "ein Fluß", "two\nlines", "?", "rain", "a b c d e f"]
ENOUGH = 0.99999


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {name: make(place / name) for name, make in KINDS.items()}


@pytest.fixture(params=list(KINDS))
def folder(folders: dict[str, Path], request: pytest.FixtureRequest) -> Path:
    return folders[request.param]


def reference(folder: Path) -> library.SentenceTransformer:
    return library.SentenceTransformer(str(folder), device="cpu")


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (unit(a).astype(np.float64) * unit(b).astype(np.float64)).sum(1)


def photos(place: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    files = []
    for number in range(8):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        files.append(place / f"{number}.png")
        coarse.resize((70 + 12 * number, 60), Image.Resampling.BICUBIC).save(files[-1])
    return files


def waves(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(0, 0.1, 8000 + 3000 * number).astype(np.float32) for number in range(count)]


def test_texts_equal_the_librarys_own(folder: Path) -> None:
    model, own = bind.load(f"st:{folder}", modalities=["text"]), reference(folder)
    queries = model.embed([f"text:{text}" for text in TEXTS]).vectors
    documents = model.embed([text.encode() for text in TEXTS], modality="text").vectors
    assert cosines(queries, own.encode_query(TEXTS)).min() >= ENOUGH
    assert cosines(documents, own.encode_document(TEXTS)).min() >= ENOUGH
    alone = np.concatenate([model.embed([f"text:{text}"]).vectors for text in TEXTS])
    assert cosines(queries, alone).min() >= ENOUGH  # padding changes nothing
    assert np.array_equal(queries, model.embed([f"text:{text}" for text in TEXTS]).vectors)
    assert cosines(queries, own.encode_query([text[::-1] + "." for text in TEXTS])).min() < ENOUGH  # negative control
    if own.prompts["query"]:
        assert cosines(queries, documents).max() < ENOUGH


def test_pictures_equal_the_librarys_own(folder: Path, tmp_path: Path) -> None:
    own = reference(folder)
    if "image" not in own.modalities:
        with pytest.raises(ValueError, match="has no image; it has text"):
            bind.load(f"st:{folder}", modalities=["image"])
        return
    model, files = bind.load(f"st:{folder}", modalities=["image"]), photos(tmp_path)
    found = model.embed(files).vectors
    expected = np.concatenate([own.encode_document([Image.open(file).convert("RGB")]) for file in files])
    assert cosines(found, expected).min() >= ENOUGH
    assert cosines(found, np.concatenate([model.embed([file]).vectors for file in files])).min() >= ENOUGH
    turned = np.concatenate([own.encode_document([Image.open(file).transpose(0)]) for file in files])
    assert cosines(found, turned).min() < ENOUGH  # negative control


def test_sound_equals_the_librarys_own(folders: dict[str, Path], tmp_path: Path) -> None:
    model, own = bind.load(f"st:{folders['embedding_gemma2']}"), reference(folders["embedding_gemma2"])
    files = []
    for number, wave in enumerate(waves(8)):
        files.append(tmp_path / f"{number}.wav")
        soundfile.write(files[-1], wave, 16_000, subtype="FLOAT")
    found = model.embed(files).vectors
    expected = [own.encode_document([{"audio": {"array": w, "sampling_rate": 16_000}}])[0] for w in waves(8)]
    assert cosines(found, np.stack(expected)).min() >= ENOUGH
    assert cosines(found[:4], found[4:]).max() < ENOUGH  # negative control
    long = np.tile(waves(8)[7], 20)  # 36 s: three clips of ten seconds, from its start to its end
    starts = [0, (len(long) - 160_000) // 2, len(long) - 160_000]
    clips = [{"audio": {"array": long[at : at + 160_000], "sampling_rate": 16_000}} for at in starts]
    mean = np.concatenate([unit(own.encode_document([clip])) for clip in clips]).mean(0, keepdims=True)
    assert cosines(model.embed([Source(long, "long")], modality="audio").vectors, mean).min() >= ENOUGH


@pytest.mark.parametrize("kind", ["qwen3_vl", "embedding_gemma2"])
def test_films_equal_the_librarys_own(folders: dict[str, Path], kind: str) -> None:
    model, own = bind.load(f"st:{folders[kind]}", modalities=["video"]), reference(folders[kind])
    films = [np.random.default_rng(n).integers(0, 256, (8 + 4 * n, 48, 64, 3), dtype=np.uint8) for n in range(3)]
    sources = [Source(film, f"film {n}", Hints(rate_hz=4.0)) for n, film in enumerate(films)]
    found = model.embed(sources, modality="video").vectors
    expected = []
    for film in films:
        seen = film[::4]  # one frame a second
        times = {"fps": 1.0, "total_num_frames": len(seen), "duration": float(len(seen))}
        item = {"video": {"array": seen, "video_metadata": times | {"frames_indices": list(range(len(seen)))}}}
        once = {"video": {"do_sample_frames": False}}
        expected.append(own.encode_document([item], processing_kwargs=once)[0])
    assert cosines(found, np.stack(expected)).min() >= ENOUGH
    assert cosines(found[:2], np.stack(expected)[1:]).max() < ENOUGH  # negative control


def test_long_texts_are_windows_of_whole_words(folders: dict[str, Path]) -> None:
    model, own = bind.load(f"st:{folders['bert']}"), reference(folders["bert"])
    words = [f"word{number}" for number in range(30)]
    text = " ".join(words)
    overhead = len("search: ") + 2  # the prompt and the two tokens around a text; a letter is a token
    windows = encoder.SentenceTransformerTower(own, "text", 32)._cut(text, "query")
    assert " ".join(windows).split() == words and len(windows) > 3
    assert max(map(len, windows)) <= 64 - overhead
    mean = unit(own.encode_query(windows)).mean(0, keepdims=True)
    found = model.embed([f"text:{text}"]).vectors
    assert cosines(found, mean).min() >= ENOUGH
    assert cosines(found, own.encode_query([text])).max() < ENOUGH  # the library leaves out the end
    assert encoder.SentenceTransformerTower(own, "text", 32)._cut("short", "query") == ["short"]


def test_a_text_is_never_taken_for_the_path_of_a_picture(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library opens strings that look like paths or addresses of media."""
    file = photos(tmp_path)[0].name
    monkeypatch.chdir(tmp_path)
    model, own = bind.load(f"st:{folders['clip']}"), reference(folders["clip"])
    found = model.embed([Source(file, "text")], modality="text").vectors
    assert cosines(found, own.encode([{"text": file}])).min() >= ENOUGH
    assert cosines(found, own.encode([file])).max() < ENOUGH  # negative control: there it is the picture


def test_a_text_cannot_pretend_to_hold_a_picture(folders: dict[str, Path]) -> None:
    for kind, word in (("qwen3_vl", "<|image_pad|>"), ("embedding_gemma2", "<|audio|>"), ("neomme", "<img>")):
        model = bind.load(f"st:{folders[kind]}", modalities=["text"])
        assert model.embed([f"text:look: {word} there"]).vectors.shape == (1, model.dim)


def test_the_space_is_a_hash_over_weights_and_settings(folders: dict[str, Path], tmp_path: Path) -> None:
    first = bind.load(f"st:{folders['bert']}").space
    moved = shutil.copytree(folders["bert"], tmp_path / "moved")
    (moved / "README.md").write_text("another text")
    assert bind.load(f"st:{moved}").space == first
    settings = json.loads((moved / "config_sentence_transformers.json").read_text())
    settings["prompts"]["query"] = "find: "
    (moved / "config_sentence_transformers.json").write_text(json.dumps(settings))
    assert bind.load(f"st:{moved}").space != first
    assert bind.load(f"st:{tiny_models.bert(tmp_path / 'other', seed=1)}").space != first


def test_shorter_widths_and_checkpoints(folders: dict[str, Path], tmp_path: Path) -> None:
    model = bind.load(f"st:{folders['embedding_gemma2']}")
    assert model.modalities == ("text", "image", "audio", "video") and model.description.shorter == (16, 8)
    cut = reference(folders["embedding_gemma2"]).encode_query(TEXTS, truncate_dim=8)
    assert cosines(model.embed([f"text:{text}" for text in TEXTS]).vectors[:, :8], cut).min() >= ENOUGH
    model.save(tmp_path / "saved")
    again = bind.load(tmp_path / "saved")
    assert again.space == model.space and not list((tmp_path / "saved").glob("*.safetensors"))
    towers = [again.tower(name).encoder for name in again.modalities]
    assert all(tower.model is towers[0].model for tower in towers)  # one model in memory, not four


def test_bad_folders_are_refused_in_a_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    def changed(name: str, change: Callable[[Path], object]) -> str:
        folder = shutil.copytree(folders["bert"], tmp_path / name)
        change(folder)
        return f"st:{folder}"

    def lacking(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        save_file(
            {k: v for k, v in tensors.items() if "layer.1" not in k}, folder / "model.safetensors", {"format": "pt"}
        )

    (tmp_path / "empty").mkdir()
    cases = {
        f"st:{tmp_path / 'empty'}": "expected the folder of a sentence-transformers model",
        "st:../no/such": "no such folder, and it is no name of a repository",
        changed("half", lambda f: (f / "model.safetensors").unlink()): "could not be loaded",
        changed("cut", lambda f: (f / "model.safetensors").write_bytes(b"\0" * 100)): "could not be loaded",
        changed("json", lambda f: (f / "modules.json").write_text("[")): "is damaged",
        changed("words", lambda f: (f / "tokenizer.json").unlink()): "could not be loaded",
        changed("other", lacking): "of another architecture: they lack encoder.layer.1",
    }
    for name, sentence in cases.items():
        with pytest.raises(ValueError, match=sentence):
            bind.load(name)
    with pytest.raises(ValueError, match="brings its own weights"):
        bind.load(f"st:{folders['bert']}", weights="random")
    model = bind.load(f"st:{folders['bert']}")
    model.save(tmp_path / "saved")
    del model
    moved = shutil.move(folders["bert"], tmp_path / "gone")
    try:
        with pytest.raises(checkpoint.CheckpointError, match="is missing"):
            bind.load(tmp_path / "saved")
    finally:
        shutil.move(moved, folders["bert"])


def test_code_of_others_never_runs_unasked(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["bert"], tmp_path / "code")
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "own.Module"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "own.py").write_text(
        "from pathlib import Path\nfrom sentence_transformers.sentence_transformer.modules import Normalize\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\nclass Module(Normalize):\n    pass\n"
    )
    with pytest.raises(ValueError, match=r"code of its own \(own.Module\).*--trust-remote-code"):
        bind.load(f"st:{folder}")
    assert not (tmp_path / "ran").exists()
    trusted = bind.load(f"st:{folder}", trust_remote_code=True)
    assert (tmp_path / "ran").exists()
    assert trusted.description.modalities["text"].encoder["remote_code"] is True  # type: ignore[index]
    with pytest.raises(ValueError, match="at a pinned revision only"):
        bind.load("st:someone/model", trust_remote_code=True)
    with pytest.raises(ValueError, match="at a pinned revision only"):
        bind.load("st:someone/model@main", trust_remote_code=True)
    with pytest.raises(ValueError, match="is for models of st:"):
        bind.load("small", trust_remote_code=True)


def test_what_the_hubs_cache_holds_needs_no_network(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub" / "models--someone--bert"
    shutil.copytree(folders["bert"], cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    asked: list[str] = []
    monkeypatch.setattr("huggingface_hub.file_download.get_hf_file_metadata", lambda *_, **__: asked.append("file"))
    model = bind.load("st:someone/bert")
    assert model.space == bind.load(f"st:{folders['bert']}").space and not asked
    assert model.description.modalities["text"].encoder["source"] == f"hub:someone/bert@{commit}"  # type: ignore[index]
    model.save(tmp_path / "saved")
    assert bind.load(tmp_path / "saved").space == model.space
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="could not be fetched; get its folder"):
        hub.snapshot("someone/other")


def test_it_is_listed_and_described(folders: dict[str, Path]) -> None:
    found = zoo.describe(f"st:{folders['clip']}")
    assert found.name == f"st:{folders['clip']}" and found.dim == 24
    with pytest.raises(ValueError, match="st:NAME or st:FOLDER"):
        zoo.describe("no-such-model")
    with pytest.raises(ValueError, match="have no random weights"):
        encoder.build({"modality": "text"})
    with pytest.raises(ValueError, match="takes text, not image"):
        encoder.load({"modality": "image"}, folders["bert"])
    one, other = (encoder.load({"modality": "text"}, folders["bert"]) for _ in range(2))
    assert one.model is other.model
