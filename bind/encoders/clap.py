"""CLAP, sound and texts in one space, in the form of transformers (arXiv 2211.06687).

CLAP's own preprocessing cuts a random part out of a sound beyond ten seconds. Here a long sound is heard in windows of
ten seconds whose vectors are averaged, so that a sound has one vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bind import published
from bind.encoders import check_options

MODALITIES = ("audio", "text")
"""What a CLAP takes."""


class Clap(nn.Module):
    """A `transformers.ClapModel` with its processor."""

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__()
        self.model = model
        self.processor = processor


class ClapTower(nn.Module):
    """One modality: waves (B, samples) at the model's rate, or rows of `roles` and `characters` -> (B, width).

    A wave has ten seconds at most; a shorter one is repeated, as the model was trained. The fusion of several windows,
    which a part of the published weights have, is left out, as each window stands for itself.
    """

    def __init__(self, clap: Clap, modality: str) -> None:
        super().__init__()
        self.clap = clap
        self.modality = modality
        self.width = width(clap)

    def forward(self, x: Tensor) -> Tensor:
        """(B, samples) or (B, 1 + L) -> (B, width)."""
        with published.quiet():
            if self.modality == "text":
                return published.texts(x, self.width, self._cut, self._texts)
            return published.each_once(x, self._waves)

    def _waves(self, views: list[np.ndarray]) -> Tensor:
        extractor, model = self.clap.processor.feature_extractor, self.clap.model
        found = extractor(
            [view.astype(np.float64) for view in views], sampling_rate=extractor.sampling_rate, return_tensors="pt"
        )
        parameter = next(model.parameters())
        pictures = found["input_features"].to(parameter.device, parameter.dtype)
        # The extractor calls one of the short sounds long, drawn at random, which would send it through the fusion.
        longer = torch.zeros(len(views), 1, dtype=torch.bool, device=parameter.device)
        features: Tensor = model.get_audio_features(input_features=pictures, is_longer=longer).pooler_output
        return features

    def _cut(self, content: str, role: str) -> list[str]:
        tokenizer = self.clap.processor.tokenizer
        return published.windows(tokenizer, published.plain(tokenizer, content), context(self.clap) - 2)

    def _texts(self, windows: list[str], role: str) -> Tensor:
        tokens = self.clap.processor.tokenizer(windows, padding=True, truncation=True, return_tensors="pt")
        tokens = tokens.to(next(self.clap.model.parameters()).device)
        features: Tensor = self.clap.model.get_text_features(**tokens).pooler_output
        return features


def build(options: Mapping[str, Any]) -> nn.Module:
    """Raises ValueError: a CLAP is the files of a folder, with its tokenizer."""
    raise ValueError("encoder: a CLAP has no random weights; name the folder of a model")


def load(options: Mapping[str, Any], folder: Path) -> ClapTower:
    """`{"modality": "audio" | "text"}` and the folder of a `ClapModel` -> its tower. Raises ValueError for another."""
    check_options(options, {"modality"})
    if options.get("modality") not in MODALITIES:
        raise ValueError(f"encoder: modality is {options.get('modality')!r}, expected one of {', '.join(MODALITIES)}")
    return ClapTower(opened(folder), str(options["modality"]))


def opened(folder: Path, remote_code: bool = False) -> Clap:
    """A folder -> its model, on the CPU, the same one as long as it is in use."""
    published.check_architecture(folder, "clap", "a CLAP of transformers")

    def load_both() -> Clap:
        import transformers

        model = transformers.ClapModel.from_pretrained(folder, local_files_only=True)
        return Clap(model.eval(), transformers.ClapProcessor.from_pretrained(folder, local_files_only=True))

    found: Clap = published.shared("clap", folder, False, lambda: published.loaded(folder, load_both))
    return found


def modalities(clap: Clap) -> list[str]:
    """Both."""
    return list(MODALITIES)


def preprocess(clap: Clap, modality: str) -> dict[str, Any]:
    """The constants of a modality, for a description."""
    rate_hz = int(clap.processor.feature_extractor.sampling_rate)
    table = published.constants(modality, context=context(clap), rate_hz=rate_hz)
    if modality == "audio":
        seconds = clap.processor.feature_extractor.nb_max_samples / rate_hz
        table |= {"clip_s": seconds, "segment_s": seconds}
    return table


def width(clap: Clap) -> int:
    """The length of a vector."""
    return int(clap.model.config.projection_dim)


def shorter(clap: Clap) -> list[int]:
    """None: a CLAP is no Matryoshka model."""
    return []


def context(clap: Clap) -> int:
    """The most tokens of a text; RoBERTa counts its positions from two on."""
    positions = int(clap.model.config.text_config.max_position_embeddings) - 2
    return min(int(clap.processor.tokenizer.model_max_length), positions)
