from __future__ import annotations

import copy
import logging

import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bind.encoders import openclip, transformer
from bind.kernels import onednn

CLIP = {"embed_dim": 32, "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16}}
CLIP["text_cfg"] = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2}


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    outer=st.lists(st.integers(0, 5), min_size=1, max_size=3),
    into=st.integers(1, 70),
    out=st.integers(1, 70),
    bias=st.booleans(),
    strided=st.booleans(),
)
def test_product_equals_torch(outer: list[int], into: int, out: int, bias: bool, strided: bool) -> None:
    generator = torch.Generator().manual_seed(into * 71 + out)
    x = torch.randn(*outer, 2 * into, generator=generator)[..., ::2] if strided else torch.randn(*outer, into)
    weight, added = torch.randn(out, into, generator=generator), torch.randn(out, generator=generator) if bias else None
    with torch.inference_mode():
        got = onednn.linear(x, weight, added)
        expected = F.linear(x.double(), weight.double(), None if added is None else added.double())
    assert got.shape == (*outer, out)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-4)


def test_takes_the_fast_way_without_gradients_and_the_plain_one_with() -> None:
    weight, x = torch.randn(8, 8, requires_grad=True), torch.randn(3, 8)

    def operators() -> set[str]:
        with torch.profiler.profile() as profile:
            onednn.linear(x, weight)
        return {event.key for event in profile.key_averages()}

    fast = "mkldnn::_linear_pointwise"
    with torch.no_grad():
        assert (fast in operators()) == onednn._is_there()
    assert fast not in operators()
    onednn.linear(x, weight).sum().backward()
    assert weight.grad is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert onednn.linear(x, weight).dtype == torch.bfloat16


@pytest.fixture(scope="module")
def clips() -> tuple[nn.Module, nn.Module]:
    """A small CLIP of open_clip as it comes, and the same one with our products."""
    logging.getLogger().setLevel(logging.ERROR)
    torch.manual_seed(0)
    plain = open_clip.CLIP(
        CLIP["embed_dim"], open_clip.CLIPVisionCfg(**CLIP["vision_cfg"]), open_clip.CLIPTextCfg(**CLIP["text_cfg"])
    ).eval()
    with torch.no_grad():
        for p in plain.parameters():  # its biases and projections start at zero or next to it
            p.add_(0.05 * torch.randn_like(p))
    ours = copy.deepcopy(plain)
    onednn.adopt(ours)
    return plain, ours


def test_an_adopted_clip_gives_the_same(clips: tuple[nn.Module, nn.Module]) -> None:
    plain, ours = clips
    assert ours.state_dict().keys() == plain.state_dict().keys()
    pictures, words = torch.randn(3, 3, 32, 32), open_clip.tokenize(["a dog", "two cats in the snow", "boats"])
    for got, expected in (
        (lambda: ours.encode_image(pictures), lambda: plain.encode_image(pictures)),
        (lambda: ours.encode_text(words), lambda: plain.encode_text(words)),
    ):
        with torch.inference_mode():
            fast, wanted = got(), expected()
            torch.testing.assert_close(fast, wanted, rtol=1e-5, atol=2e-6)
            assert (fast[0] - fast[1]).abs().max() > 1e-3  # two inputs do differ
        torch.testing.assert_close(got(), wanted, rtol=1e-5, atol=2e-6)  # with gradients


def test_parity_can_fail(clips: tuple[nn.Module, nn.Module]) -> None:
    """Negative control: without the causal mask the words come out otherwise."""
    plain, ours = clips
    words = open_clip.tokenize(["two cats in the snow"])
    with torch.inference_mode():
        expected = plain.encode_text(words)
        mask, ours.attn_mask = ours.attn_mask, None
        assert (ours.encode_text(words) - expected).abs().max() > 1e-3
        ours.attn_mask = mask


@pytest.mark.parametrize("masked", [None, "bool", "float"])
@pytest.mark.parametrize("weights", [False, True])
def test_attention_equals_torch(masked: str | None, weights: bool) -> None:
    plain = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    ours = copy.deepcopy(plain)
    onednn.adopt(ours)
    x = torch.randn(2, 5, 32)
    mask = None if masked is None else torch.ones(5, 5, dtype=torch.bool).triu(1)
    if masked == "float":
        mask = torch.zeros(5, 5).masked_fill_(mask, -torch.inf)
    with torch.inference_mode():
        expected, expected_weights = plain(x, x, x, need_weights=weights, attn_mask=mask)
        got, got_weights = ours(x, x, x, need_weights=weights, attn_mask=mask)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-6)
    assert (got_weights is None) == (expected_weights is None)


def test_our_encoders_and_open_clips_use_it() -> None:
    ours = transformer.build(
        {"shape": (1, 32, 32), "kernel": (8, 8), "stride": (8, 8), "width": 32, "depth": 1, "heads": 2}
    )
    theirs = openclip.build({"model": "ViT-B-32", "tower": "text"})
    for module in (ours, theirs):
        assert not [part for part in module.modules() if type(part) in (nn.Linear, nn.MultiheadAttention)]
