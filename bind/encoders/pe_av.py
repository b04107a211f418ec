"""PE-AV, the audiovisual Perception Encoder: video, sound and texts in one space, in the form of transformers.

A text has three vectors, by three heads: one for sounds, one for films without their sound, one for films with it. The
option `text` chooses, as a search has one vector; `audio_video` is for libraries of both. See `transformers.
PeAudioVideoModel`, several of whose `get_*` methods cannot be called; the inner towers and heads are used here.
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

MODALITIES = ("audio", "video", "text")
"""What a PE-AV takes."""
TEXTS = ("audio", "video", "audio_video")
"""What `text` may be: the media whose texts a text's vector is for."""
_POSITIONS, _BUFFERS = r".*\.rope\.pos_embed", r".*\.rope\."
"""What transformers leaves out of its tied weights, and what it should: all buffers of timm's rotary positions."""


class PeAudioVideo(nn.Module):
    """A `transformers.PeAudioVideoModel` with its processor."""

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__()
        self.model = model
        self.processor = processor


class PeAudioVideoTower(nn.Module):
    """One modality: waves (B, samples) at the model's rate, films (B, T, H, W, 3) uint8, or rows of `roles` and
    `characters` -> (B, width).

    Waves and films are encoded one by one, as the padding of a batch would change them.
    """

    def __init__(self, pe: PeAudioVideo, modality: str, text: str) -> None:
        super().__init__()
        self.pe = pe
        self.modality = modality
        self.text = text
        self.width = width(pe)

    def forward(self, x: Tensor) -> Tensor:
        """(B, samples), (B, T, H, W, 3) or (B, 1 + L) -> (B, width)."""
        with published.quiet():
            if self.modality == "text":
                return published.texts(x, self.width, self._cut, self._texts)
            encode = self._wave if self.modality == "audio" else self._film
            return published.each_once(x, lambda views: published.unpadded(views, lambda one: encode(one[0])))

    def _wave(self, view: np.ndarray) -> Tensor:
        extractor, inner = self.pe.processor.feature_extractor, self.pe.model.audio_model
        found = extractor(
            [view.astype(np.float32)], sampling_rate=extractor.sampling_rate, padding=True, return_tensors="pt"
        )
        outputs = inner.audio_encoder(input_values=self._given(found["input_values"]))
        vector: Tensor = inner.audio_head(outputs.pooler_output)
        return vector

    def _film(self, view: np.ndarray) -> Tensor:
        inner = self.pe.model.video_model
        found = self.pe.processor.video_processor(
            [torch.from_numpy(view).permute(0, 3, 1, 2)], do_sample_frames=False, return_tensors="pt"
        )
        outputs = inner.video_encoder(pixel_values_videos=self._given(found["pixel_values_videos"]))
        vector: Tensor = inner.video_head(outputs.pooler_output)
        return vector

    def _cut(self, content: str, role: str) -> list[str]:
        tokenizer = self.pe.processor.tokenizer
        return published.windows(tokenizer, published.plain(tokenizer, content), context(self.pe) - 2)

    def _texts(self, windows: list[str], role: str) -> Tensor:
        model = self.pe.model
        tokens = self.pe.processor.tokenizer(windows, padding=True, truncation=True, return_tensors="pt")
        device = next(model.parameters()).device
        outputs = model.text_model(
            input_ids=tokens["input_ids"].to(device),
            attention_mask=tokens["attention_mask"].to(device),
            output_hidden_states=True,
        )
        first = outputs.hidden_states[-1][:, 0]
        heads = {
            "audio": model.audio_model.text_audio_head,
            "video": model.video_model.text_video_head,
            "audio_video": model.text_audio_video_head,
        }
        vector: Tensor = heads[self.text](first)
        return vector

    def _given(self, values: Tensor) -> Tensor:
        parameter = next(self.pe.model.parameters())
        return values.to(parameter.device, parameter.dtype)


def build(options: Mapping[str, Any]) -> nn.Module:
    """Raises ValueError: a PE-AV is the files of a folder, with its tokenizer."""
    raise ValueError("encoder: a PE-AV has no random weights; name the folder of a model")


def load(options: Mapping[str, Any], folder: Path) -> PeAudioVideoTower:
    """`{"modality": one of MODALITIES, "text": one of TEXTS}` and the folder of a `PeAudioVideoModel` -> its tower.

    Raises ValueError for other options and other folders.
    """
    check_options(options, {"modality", "text"})
    modality, text = options.get("modality"), options.get("text", "audio_video")
    if modality not in MODALITIES or text not in TEXTS:
        raise ValueError(
            f"encoder: modality is {modality!r}, expected one of {', '.join(MODALITIES)}; text is {text!r}, "
            f"expected one of {', '.join(TEXTS)}"
        )
    return PeAudioVideoTower(opened(folder), str(modality), str(text))


def opened(folder: Path, remote_code: bool = False) -> PeAudioVideo:
    """A folder -> its model, on the CPU, the same one as long as it is in use."""
    published.check_architecture(folder, "pe_audio_video", "a PE-AV of transformers")

    def load_both() -> PeAudioVideo:
        import transformers

        # transformers 5.23 takes the buffers of timm's rotary positions for tied weights, and then finds no parameters.
        tied = transformers.PeAudioVideoModel._tied_weights_keys
        mended = {key.replace(_POSITIONS, _BUFFERS): to.replace(_POSITIONS, _BUFFERS) for key, to in tied.items()}
        kind = type("PeAudioVideoModel", (transformers.PeAudioVideoModel,), {"_tied_weights_keys": mended})
        model = kind.from_pretrained(folder, local_files_only=True)  # type: ignore[attr-defined]
        processor = transformers.PeAudioVideoProcessor.from_pretrained(folder, local_files_only=True)
        return PeAudioVideo(model.eval(), processor)

    found: PeAudioVideo = published.shared("pe_av", folder, False, lambda: published.loaded(folder, load_both))
    return found


def modalities(pe: PeAudioVideo) -> list[str]:
    """All three."""
    return list(MODALITIES)


def preprocess(pe: PeAudioVideo, modality: str) -> dict[str, Any]:
    """The constants of a modality, for a description."""
    rate_hz = int(pe.processor.feature_extractor.sampling_rate)
    return published.constants(modality, context=context(pe), rate_hz=rate_hz)


def width(pe: PeAudioVideo) -> int:
    """The length of a vector, which is that of the texts' features."""
    return int(pe.model.config.text_config.hidden_size)


def shorter(pe: PeAudioVideo) -> list[int]:
    """None: a PE-AV is no Matryoshka model."""
    return []


def context(pe: PeAudioVideo) -> int:
    """The most tokens of a text."""
    positions = int(pe.model.config.text_config.max_position_embeddings)
    return min(int(pe.processor.tokenizer.model_max_length), positions)
