"""Encoding on one GPU in bfloat16: the fused towers beside the same towers in plain eager torch, and the GEMM rate.

`python -m tests.bench encode_gpu`. Weights are random, data lies on the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bind.encoders import imagebind, transformer
from bind.kernels.transformer import Fused
from tests.bench.gpu import matrix_rate, milliseconds, result

DIM = 1024
CHECKED = 256
"""Items compared with float32."""
COSINE, COSINE_8 = 0.999, 0.995


@dataclass(frozen=True)
class Case:
    """A tower, the batch sizes to try, and the goals: share of the GEMM rate, items/s. An item has `views` views."""

    options: dict[str, Any]
    batches: tuple[int, ...]
    goal: float | None
    views: int = 1
    longest: int = imagebind.CONTEXT
    """Of texts, in tokens; the shortest has 8, or as many where that is the context."""
    eight_bit: bool = False
    goal_per_s: int = 0


VIT_B32: dict[str, Any] = {
    "shape": [3, 224, 224],
    "kernel": [32, 32],
    "stride": [32, 32],
    "width": 768,
    "depth": 12,
    "heads": 12,
}
CASES = {
    "image, ViT-H/14": Case(imagebind.HUGE["vision"], (64, 128, 256), 0.71),
    "image, ViT-H/14, float8": Case(imagebind.HUGE["vision"], (64, 128, 256), None, eight_bit=True, goal_per_s=2_200),
    "image, ViT-B/32": Case(VIT_B32, (1024, 2048), None, goal_per_s=35_000),
    "text, 77 tokens": Case(imagebind.HUGE["text"], (512, 1024, 2048), 0.75),
    "text, 8 to 24 tokens": Case(imagebind.HUGE["text"], (1024, 4096), None, longest=24),
    "audio, 3 clips": Case(imagebind.HUGE["audio"], (256, 512), 0.68, views=3),
    "depth": Case(imagebind.HUGE["depth"], (1024, 2048), 0.54),
    "thermal": Case(imagebind.HUGE["thermal"], (256, 512), 0.69),
    "imu": Case(imagebind.HUGE["imu"], (512, 1024), 0.68),
}


class Encoder(nn.Module):
    """(B * views, *shape) -> (B, D) float32 unit rows, as `BindModel.encode` makes them."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        module = imagebind if "modality" in case.options else transformer
        self.encoder: Any = module.build(case.options)
        self.head = nn.Linear(self.encoder.width, DIM, bias=False)
        self.views = case.views

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        """(B * views, *shape) -> (B, D)."""
        vectors = functional.normalize(self.head(self.encoder(x)).float(), dim=1)
        return functional.normalize(vectors.unflatten(0, (-1, self.views)).mean(1), dim=1)


def examples(case: Case, items: int, device: str) -> Tensor:
    """(items * views, *shape) random inputs, float32 or int64 tokens."""
    generator = torch.Generator(device).manual_seed(items)
    if case.options.get("modality") == "text":
        tokens = torch.randint(1, 49_000, (items, imagebind.CONTEXT), generator=generator, device=device)
        shortest = 8 if case.longest < imagebind.CONTEXT else case.longest
        ends = torch.randint(shortest - 1, case.longest, (items,), generator=generator, device=device)
        places = torch.arange(imagebind.CONTEXT, device=device)
        tokens[places >= ends[:, None]] = 0
        tokens[torch.arange(items, device=device), ends] = imagebind.VOCABULARY - 1
        return tokens
    with torch.device("meta"):
        shape = Encoder(case).encoder.stem.shape
    if case.options.get("modality") == "vision":
        shape = (shape[0], *shape[2:])
    return torch.randn(items * case.views, *shape, generator=generator, device=device)


def operations(case: Case) -> float:
    """Floating-point operations of an item in the whole tower: products, stem and attention, in every block.

    Of a text, those of `longest` tokens.
    """
    with torch.device("meta"):
        encoder = Encoder(case).encoder
    width, depth = case.options["width"], case.options["depth"]
    tokens = encoder.positions.shape[1]
    if case.options.get("modality") == "text":
        tokens = case.longest
    stem = 0 if case.options.get("modality") == "text" else 2 * encoder.stem.projection.weight.numel() * (tokens - 1)
    if case.options.get("modality") == "vision":
        stem //= 2  # two equal frames
    return float(case.views * (depth * (24 * tokens * width**2 + 4 * tokens**2 * width) + stem))


def measure(name: str, case: Case, rate: float, device: str = "cuda") -> dict[str, Any]:
    """Items/s and accuracy of both forms, each at its best batch size; `rate` is that of products in TFLOP/s."""
    torch.manual_seed(0)
    with torch.device(device):
        model = Encoder(case).eval()
    few = examples(case, min(CHECKED, *case.batches), device)
    exact = torch.cat([model(part) for part in few.split(32 * case.views)])
    model.bfloat16()
    few = few.bfloat16() if few.is_floating_point() else few
    trunk = model.encoder.trunk
    forms = {"peer": None, "ours": Fused(trunk.blocks, case.eight_bit)}
    cosines, speeds = {}, {}
    for form, trunk.fused in forms.items():
        cosines[form] = float(functional.cosine_similarity(model(few), exact).min())
    for items in case.batches:
        batch = examples(case, items, device)
        batch = batch.bfloat16() if batch.is_floating_point() else batch
        for form, trunk.fused in forms.items():
            speeds[form, items] = 1000 * items / milliseconds(lambda batch=batch: model(batch), least_s=0.3)  # type: ignore[misc]
    best = {form: max((speed, items) for (its, items), speed in speeds.items() if its == form) for form in cosines}
    ceiling = rate * 1e12 / operations(case)
    share = best["ours"][0] / ceiling
    mixed = exact @ exact.T
    between = float((mixed.sum() - mixed.trace()) / (mixed.numel() - len(mixed)))
    least = COSINE_8 if case.eight_bit else COSINE
    goals = [f">= {case.goal:.0%}"] if case.goal and not case.eight_bit else []
    goals += [f">= {case.goal_per_s:,}/s"] if case.goal_per_s else []
    met = cosines["ours"] >= least and share >= (0 if case.eight_bit else case.goal or 0)
    return result(
        name,
        "items/s",
        best["ours"][0],
        peer=best["peer"][0],
        peer_is="the same tower, bfloat16, eager",
        ceiling=ceiling,
        ceiling_is=f"{operations(case) / 1e9:.1f} GFLOP an item at {rate:.0f} TFLOP/s",
        goal=", ".join([*goals, f"cosine >= {least}"]),
        met=met and (not case.goal_per_s or best["ours"][0] >= case.goal_per_s),
        note=f"share {share:.3f}; worst cosine to float32 {cosines['ours']:.5f} (peer {cosines['peer']:.5f}), "
        f"mean between items {between:.3f}; batch {best['ours'][1]}",
    )


def run() -> list[dict[str, Any]]:
    """A row a case. `share` counts every operation of the whole tower, also those that the last block leaves out."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # for the float32 reference
    rows = []
    for name, case in CASES.items():
        rows.append(measure(name, case, matrix_rate()))
        torch.cuda.empty_cache()
    return rows
