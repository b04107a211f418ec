"""Our ImageBind towers against golden outputs of the reference at small width (see make_imagebind_golden.py)."""

from __future__ import annotations

import json
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from bind.encoders import imagebind, transformer
from tests.bind.make_imagebind_golden import TOWER_OF, draw, inputs

GOLDEN = Path(__file__).parents[1] / "golden" / "imagebind_small.safetensors"
SMALL = {name: {**options, "width": 32, "depth": 2, "heads": 4} for name, options in imagebind.HUGE.items()}
TOLERANCE = 1e-5
EXAMPLES = inputs(batch=2, clips=3)
EXAMPLE_OF = {**{modality: modality for modality in imagebind.HUGE}, "vision": "image"}


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    with safe_open(GOLDEN, "pt") as file:
        shapes = json.loads(file.metadata()["official_shapes"])
    return {name: draw(name, tuple(shape)) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN)


def tower(modality: str, official: dict[str, Tensor]) -> tuple[Any, Tensor]:
    """The encoder, in eval mode, and the weight of its head."""
    weights = imagebind.from_official(modality, official, depth=2)
    head = weights.pop("head.weight")
    encoder = imagebind.build(SMALL[modality]).eval()
    encoder.load_state_dict({name.removeprefix("encoder."): weight for name, weight in weights.items()})
    return encoder, head


@torch.inference_mode()
def embed(encoder: nn.Module, head: Tensor, name: str) -> Tensor:
    """(B, D) unit rows for an example; the unit vectors of clips are averaged and normalised again."""
    value = EXAMPLES[name]
    views = value.flatten(0, 1) if name in ("audio", "video") else value
    vectors = F.normalize(encoder(views) @ head.T, dim=-1)
    return F.normalize(vectors.view(len(value), -1, len(head)).mean(1), dim=-1)


@pytest.mark.parametrize("name", EXAMPLES)
def test_outputs_equal_the_reference(name: str, official: dict[str, Tensor], golden: dict[str, Tensor]) -> None:
    vectors = embed(*tower(TOWER_OF.get(name, name), official), name)
    assert vectors.shape == golden[name].shape
    assert (vectors - golden[name]).abs().max() <= TOLERANCE
    assert F.cosine_similarity(vectors, golden[name]).min() >= 0.99999


def drop_bias_key(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder.trunk.blocks[0].attention.bias_k = None


def approximate_gelu(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "gelu", partial(F.gelu, approximate="tanh"))


def other_epsilon(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder.stem.norm.eps = transformer.NORM_EPSILON


def no_mask(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder.trunk.blocks[1].attention.causal = False


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, drop_bias_key) for name in ("audio", "depth", "thermal", "imu")),
        *((name, other_epsilon) for name in ("audio", "depth", "thermal", "imu")),
        *((name, approximate_gelu) for name in ("image", "text", "audio")),
        ("text", no_mask),
    ],
)
def test_the_comparison_notices_a_small_change(
    name: str, change: Any, official: dict[str, Tensor], golden: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, head = tower(TOWER_OF.get(name, name), official)
    change(encoder, monkeypatch)
    assert (embed(encoder, head, name) - golden[name]).abs().max() > 2 * TOLERANCE


def test_a_picture_is_a_clip_of_two_equal_frames(official: dict[str, Tensor]) -> None:
    encoder, _ = tower("vision", official)
    pictures = EXAMPLES["image"]
    with torch.inference_mode():
        clips = encoder(pictures[:, :, None].expand(-1, -1, 2, -1, -1))
        torch.testing.assert_close(encoder(pictures), clips, rtol=0, atol=TOLERANCE)
        first_frame_only = encoder(torch.stack([pictures, torch.zeros_like(pictures)], 2))
    assert (first_frame_only - clips).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["depth", "thermal"])
def test_other_square_sizes(name: str, official: dict[str, Tensor]) -> None:
    encoder, _ = tower(name, official)
    with torch.inference_mode():
        native, smaller = encoder(EXAMPLES[name][:1]), encoder(EXAMPLES[name][:1, :, 32:-32, 32:-32])
    assert smaller.shape == (1, 32)
    assert smaller.isfinite().all()
    assert not torch.equal(native, smaller)


@pytest.mark.parametrize(
    ("modality", "shape", "expected"),
    [
        ("vision", (1, 3, 224, 223), r"\(B, 3, 224, 224\) or another square of at least 14"),
        ("vision", (1, 3, 7, 7), r"\(B, 3, 224, 224\) or another square of at least 14"),
        ("vision", (1, 3, 3, 224, 224), r"\(B, 3, 2, 224, 224\) or another"),
        ("audio", (1, 128, 204), r"\(B, 1, 128, 204\), got \(1, 128, 204\)"),
        ("audio", (1, 1, 128, 128), r"\(B, 1, 128, 204\), got"),
        ("depth", (1, 3, 224, 224), r"\(B, 1, 224, 224\) or another"),
        ("imu", (1, 6, 1999), r"\(B, 6, 2000\), got"),
        ("text", (1, 76), r"\(B, 77\) int64 tokens, got \(1, 76\)"),
    ],
)
def test_wrong_shapes_say_what_was_expected(modality: str, shape: tuple[int, ...], expected: str) -> None:
    value = torch.zeros(shape, dtype=torch.int64 if modality == "text" else torch.float32)
    with pytest.raises(ValueError, match=expected):
        imagebind.build(SMALL[modality])(value)


def test_from_official_takes_every_weight_and_nothing_of_the_others(official: dict[str, Tensor]) -> None:
    class Watched(dict[str, Tensor]):
        touched: set[str] = set()  # noqa: RUF012

        def __getitem__(self, name: str) -> Tensor:
            self.touched.add(name)
            return super().__getitem__(name)

    state = Watched(official)
    for modality in imagebind.HUGE:
        state.touched.clear()
        weights = imagebind.from_official(modality, state, depth=2)
        own = {name for name in official if f".{modality}." in name and not name.endswith(("mask", "log_logit_scale"))}
        assert state.touched == own
        assert {f"encoder.{name}" for name in imagebind.build(SMALL[modality]).state_dict()} == weights.keys() - {
            "head.weight"
        }


def test_from_official_lists_missing_and_unexpected_names(official: dict[str, Tensor]) -> None:
    state = dict(official)
    state["modality_trunks.imu.extra"] = state.pop("modality_trunks.imu.blocks.1.attn.bias_k")
    with pytest.raises(ValueError) as caught:
        imagebind.from_official("imu", state, depth=2)
    assert "1 names are missing: modality_trunks.imu.blocks.1.attn.bias_k" in str(caught.value)
    assert "1 are unexpected: modality_trunks.imu.extra" in str(caught.value)
    with pytest.raises(ValueError, match=r"293 names are missing: .*blocks.* and 273 more"):
        imagebind.from_official("text", {}, depth=24)
    with pytest.raises(ValueError, match="56 names are missing"):
        imagebind.from_official("imu", official)  # the official depth is 6


def test_full_size_towers_have_the_reference_s_parameter_counts() -> None:
    """Of facts §2; text's count has the logit scale besides, which is no weight of ours."""
    counts = {}
    with torch.device("meta"):
        for modality, options in imagebind.HUGE.items():
            encoder = imagebind.build(options)
            counts[modality] = sum(weight.numel() for weight in encoder.parameters()) + 1024 * encoder.width
    assert counts == {
        "vision": 632_829_440,
        "text": 354_032_641 - 1,
        "audio": 86_235_648,
        "depth": 21_871_872,
        "thermal": 86_211_072,
        "imu": 19_600_384,
    }


@pytest.mark.parametrize("modality", imagebind.HUGE)
def test_training_gradients_with_and_without_checkpointing(modality: str, official: dict[str, Tensor]) -> None:
    encoder, _ = tower(modality, official)
    value = EXAMPLES[EXAMPLE_OF[modality]]
    value = value.flatten(0, 1) if modality == "audio" else value
    gradients = []
    for on in (False, True):
        encoder.zero_grad()
        encoder.set_checkpointing(on)
        encoder(value).square().sum().backward()
        gradients.append([weight.grad.clone() for weight in encoder.parameters()])
    assert all(gradient.abs().max() > 0 for gradient in gradients[0])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_drop_path_and_dropout_act_in_training_only() -> None:
    torch.manual_seed(0)
    encoder = imagebind.build({**SMALL["imu"], "dropout": 0.0})
    value = torch.randn(1, 6, 2000).expand(64, -1, -1)
    with torch.no_grad():
        assert encoder.eval()(value).std(0).max() < 1e-5
        assert encoder.train()(value).std(0).min() > 0
        kept = imagebind.build(SMALL["imu"]).train()(value) != 0
    assert 0.4 < kept.float().mean() < 0.6
    rates = [block.drop_path for block in imagebind.build({**SMALL["imu"], "depth": 8}).trunk.blocks]  # type: ignore[union-attr]
    torch.testing.assert_close(rates, torch.linspace(0, 0.7, 8).tolist())


@pytest.mark.parametrize("name", ["image", "text", "audio", "imu"])
def test_compiles_without_a_break_and_runs_in_bfloat16(name: str, official: dict[str, Tensor]) -> None:
    encoder, _ = tower(TOWER_OF.get(name, name), official)
    value = EXAMPLES[name].flatten(0, 1) if name == "audio" else EXAMPLES[name]
    with torch.no_grad():
        plain = encoder(value)
        compiled = torch.compile(encoder, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(value), plain)
        torch._dynamo.reset()
        half = value.bfloat16() if value.is_floating_point() else value
        coarse = encoder.bfloat16()(half)
    assert coarse.dtype == torch.bfloat16
    assert F.cosine_similarity(coarse.float(), plain).min() > 0.995


def test_build_lists_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"unknown keys \['colour', 'size'\]"):
        imagebind.build({**SMALL["imu"], "size": 1, "colour": 2})
    with pytest.raises(ValueError, match=r"missing keys \['depth', 'heads'\]"):
        imagebind.build({"modality": "imu", "width": 32})
    with pytest.raises(ValueError, match="modality is 'smell', expected one of vision, text"):
        imagebind.build({**SMALL["imu"], "modality": "smell"})
    with pytest.raises(ValueError, match="expected a width that 5 heads divide, got 32"):
        imagebind.build({**SMALL["imu"], "heads": 5})


@pytest.mark.parametrize(("shape", "kernel"), [((2, 40), (8,)), ((1, 16, 24), (8, 8)), ((3, 4, 16, 16), (2, 8, 8))])
def test_the_general_encoder_takes_one_to_three_dimensions(shape: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    options = {
        "shape": list(shape),
        "kernel": list(kernel),
        "stride": list(kernel),
        "width": 16,
        "depth": 2,
        "heads": 2,
    }
    encoder = transformer.build({**options, "bias_kv": True}).eval()
    assert encoder(torch.randn(2, *shape)).shape == (2, encoder.width)
    with pytest.raises(ValueError, match="encoder: expected"):
        encoder(torch.randn(2, *shape[:-1], shape[-1] + 1))
    if len(shape) == 4:
        assert encoder(torch.randn(2, 3, 4, 32, 32)).shape == (2, 16)
    with pytest.raises(ValueError, match=r"missing keys \['width'\]"):
        transformer.build({key: value for key, value in options.items() if key != "width"})
    with pytest.raises(ValueError, match="a kernel no larger than these"):
        transformer.build({**options, "kernel": [99] * len(kernel)})


def test_attention_equals_torch_s_own_with_bias_key_and_value() -> None:
    torch.manual_seed(0)
    ours = transformer.Attention(16, 4, bias_kv=True)
    theirs = nn.MultiheadAttention(16, 4, add_bias_kv=True, batch_first=True)
    theirs.load_state_dict({name.replace("in_proj.", "in_proj_"): weight for name, weight in ours.state_dict().items()})
    x = torch.randn(3, 7, 16)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="expected bias_kv or causal, got both"):
        transformer.Attention(16, 4, bias_kv=True, causal=True)


def test_convert_writes_each_tower_to_its_file(tmp_path: Path, official: dict[str, Tensor]) -> None:
    pth = tmp_path / "official.pth"
    torch.save(official, pth)
    files = {modality: tmp_path / f"{modality}-tower.safetensors" for modality in imagebind.HUGE}
    imagebind.convert(pth, files, SMALL)
    for modality, file in files.items():
        expected = imagebind.from_official(modality, official, depth=2)
        written = load_file(file)
        assert written.keys() == expected.keys()
        assert all(torch.equal(written[name], expected[name]) for name in written)
    assert {path.name for path in tmp_path.iterdir()} == {pth.name, *(file.name for file in files.values())}


def test_convert_refuses_what_is_no_official_checkpoint(tmp_path: Path, official: dict[str, Tensor]) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "harm",)

    good = {name: value for name, value in official.items() if ".imu." in name}
    torch.save(good, tmp_path / "good.pth")
    whole = (tmp_path / "good.pth").read_bytes()
    torch.save({**good, "modality_heads.imu.0.bias": Harmful()}, tmp_path / "harmful.pth")
    torch.save({"state_dict": good}, tmp_path / "nested.pth")
    torch.save({}, tmp_path / "void.pth")
    torch.save(good, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "empty.pth").touch()
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Harmful()))
    for tenth in range(1, 10):
        (tmp_path / f"cut{tenth}.pth").write_bytes(whole[: len(whole) * tenth // 10])
    before = set(tmp_path.iterdir())
    for pth in sorted(before - {tmp_path / "good.pth"}):
        with pytest.raises(ValueError, match=r"expected the official ImageBind checkpoint|not the official state dict"):
            imagebind.convert(pth, {"imu": tmp_path / "imu.safetensors"}, SMALL)
    with pytest.raises(FileNotFoundError):
        imagebind.convert(tmp_path / "none.pth", {"imu": tmp_path / "imu.safetensors"}, SMALL)
    assert set(tmp_path.iterdir()) == before
