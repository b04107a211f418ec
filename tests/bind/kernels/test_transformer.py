"""The fused transformer of `bind.kernels` against the plain one, its kernels interpreted on the CPU in float32.

The kernels run in a process of their own, since Triton decides on import whether it interprets. On a GPU,
tests/bench/bench_encode_gpu.py compares them at full size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import bind
from bind.encoders import imagebind, transformer

TOLERANCE = 2e-6
# Width, heads, tokens, appended key, causal: head widths of one and two powers of 2, tiles of keys full and begun.
CASES = [
    (160, 2, 65, False, False),
    (96, 2, 70, True, False),
    (128, 2, 64, True, False),
    (64, 2, 20, True, False),
    (128, 2, 77, False, True),
    (128, 2, 130, False, True),
]


def difference(value: Tensor, expected: Tensor) -> float:
    """Of norms, relative."""
    return float((value - expected).norm() / expected.norm())


@torch.no_grad()
def compare() -> dict[str, float]:
    """In the child: relative differences by name."""
    from bind.kernels.transformer import Fused

    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = {}
    for width, heads, tokens, bias_kv, causal in CASES:
        trunk = transformer.Transformer(width, 3, heads, bias_kv=bias_kv, causal=causal).eval()
        for parameter in trunk.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        x, at = torch.randn(2, tokens, width), torch.tensor([3, tokens - 2])
        expected = trunk(x, at)
        name = f"trunk {width} {heads} {tokens} {bias_kv} {causal}"
        found[name] = difference(Fused(trunk.blocks)(x, at), expected)
        found[f"{name}, other position"] = difference(Fused(trunk.blocks)(x, at - 1), expected)
        trunk.blocks[0].norm_1.eps = 1e-3  # type: ignore[union-attr]
        found[f"{name}, other epsilon"] = difference(Fused(trunk.blocks)(x, at), expected)
    for modality in ("vision", "imu", "audio"):
        encoder = imagebind.build({**imagebind.HUGE[modality], "width": 32, "depth": 2, "heads": 2}).eval()
        assert isinstance(encoder, transformer.PatchEncoder)
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        given: list[Tensor] = []
        encoder.trunk.register_forward_pre_hook(lambda _, inputs, given=given: given.append(inputs[0]))
        x = torch.randn(2, *((3, 224, 224) if modality == "vision" else encoder.stem.shape))
        encoder(x)
        fused = Fused(encoder.trunk.blocks)
        found[f"tokens {modality}"] = difference(fused.tokens(encoder, x), given[0])
        encoder.cls.mul_(2)
        found[f"tokens {modality}, other class token"] = difference(fused.tokens(encoder, x), given[0])
    return found


def test_fused_equals_plain() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    root = Path(__file__).parents[3]
    child = [sys.executable, "-m", "tests.bind.kernels.test_transformer"]
    done = subprocess.run(child, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 3 * len(CASES) + 2 * 3
    for name, value in found.items():
        assert (value > 10 * TOLERANCE) if "other" in name else (value <= TOLERANCE), (name, value)


def test_plain_towers_take_only_what_the_last_state_needs() -> None:
    """The short way through the last block, and texts cut at their last end, against all states of all blocks."""
    torch.manual_seed(0)
    encoder = imagebind.build({**imagebind.HUGE["text"], "width": 32, "depth": 2, "heads": 2}).eval()
    assert isinstance(encoder, imagebind.TextEncoder)
    tokens = torch.randint(1, 49_000, (3, imagebind.CONTEXT))
    ends = torch.tensor([5, 30, 12])
    tokens[torch.arange(3), ends] = imagebind.VOCABULARY - 1
    with torch.no_grad():
        states = encoder.tokens(tokens) + encoder.positions
        for block in encoder.trunk.blocks:
            states = block(states)
        expected = encoder.norm(states[torch.arange(3), ends])
        torch.testing.assert_close(encoder(tokens), expected, rtol=0, atol=1e-5)
        assert (encoder.norm(states[torch.arange(3), ends - 1]) - expected).abs().max() > 1e-2
        torch.testing.assert_close(encoder(tokens[:1]), encoder(tokens)[:1], rtol=0, atol=1e-5)


def test_other_head_widths_are_refused() -> None:
    from bind.kernels.transformer import Fused

    with pytest.raises(ValueError, match="got 40"):
        Fused(transformer.Transformer(80, 1, 2).blocks)


def test_accelerate_wants_a_gpu() -> None:
    model = bind.load("small", modalities=["text"])
    with pytest.raises(ValueError, match=r"expected bfloat16 on a GPU, got torch\.float32 on cpu"):
        model.accelerate()


if __name__ == "__main__":
    print(json.dumps(compare()))
