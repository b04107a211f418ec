from __future__ import annotations

import torch

from bind.encoders import convnet


def test_parts_equal_the_whole_batch() -> None:
    torch.manual_seed(0)
    encoder = convnet.build({"shape": (1, 32, 40), "widths": (8, 16)}).eval()
    x = torch.randn(2 * convnet._CPU_BATCH + 5, 1, 32, 40)
    whole = encoder(x).detach()  # with gradients a batch is never cut
    with torch.inference_mode():
        parts = encoder(x)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)
    assert (whole[0] - whole[-1]).abs().max() > 1e-3
