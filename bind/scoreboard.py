"""A model in the form of mteb (https://github.com/embeddings-benchmark/mteb): `mteb.evaluate(Encoder(model), tasks)`.

mteb knows text, image, audio and video. A row may also carry a medium of any modality of ours, as its file, in the
columns `OWN_COLUMNS`; these come first, so that depth maps, thermal images and motion are measured by mteb too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bind.model.model import BindModel
from bind.space import unit
from preprocess.source import Hints, Source

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta

MODALITY, MEDIUM, NAME, HINTS = OWN_COLUMNS = ("sensor", "medium", "medium_name", "medium_hints")
"""The name of a modality of ours, the bytes of the file, its name, and its hints as a JSON object."""
_THEIRS = ("text", "image", "audio", "video")
"""The modalities of mteb, which are columns of its tables."""
_FRAMES_HZ = 1.0
"""The rate of mteb's films, which come as frames without times."""


class Encoder:
    """mteb's `EncoderProtocol` of a `BindModel`: queries and documents, of one modality or of several at once.

    The vectors of several modalities of one row are added and normalised, as `bind.combine` does it.
    """

    def __init__(self, model: BindModel) -> None:
        self.model = model

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What mteb writes beside the scores: the model's name, and its space as the revision."""
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        name = self.model.description.name.replace("/", "--").replace(":", "--")
        known: list[Any] = [name for name in _THEIRS if name in self.model.modalities]
        count = sum(parameter.numel() for parameter in self.model.parameters())
        return ModelMeta(
            loader=None,
            name=f"crossbind/{name}",
            revision=self.model.space,
            release_date=None,
            languages=None,
            n_parameters=count,
            memory_usage_mb=count * 4 / 2**20,
            max_tokens=None,
            embed_dim=self.model.dim,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name=ScoringFunction.COSINE,
            use_instructions=False,
            training_datasets=None,
            modalities=known or ["text"],
        )

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Batches of rows -> (N, D) float32 unit rows.

        Raises ValueError where the model lacks a modality of the task, MediaError for a medium that cannot be read.
        """
        is_query = str(getattr(prompt_type, "value", prompt_type)) == "query"
        found = [self._encoded(batch, is_query) for batch in inputs]
        return np.concatenate(found) if found else np.zeros((0, self.model.dim), np.float32)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """(N, D) and (M, D) -> their cosines (N, M), as mteb's tensors."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """(N, D) twice -> the cosine of each pair (N,), as mteb's tensor."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)

    def _encoded(self, batch: Mapping[str, Any], is_query: bool) -> np.ndarray:
        if MEDIUM in batch:
            rows = zip(*(batch[column] for column in OWN_COLUMNS), strict=True)
            vectors = np.zeros((len(batch[MEDIUM]), self.model.dim), np.float32)
            groups: dict[str, list[tuple[int, Source]]] = {}
            for number, (modality, medium, name, hints) in enumerate(rows):
                source = Source(bytes(medium), name, Hints.from_mapping(json.loads(hints), name))
                groups.setdefault(modality, []).append((number, source))
            for modality, members in groups.items():
                found = self.model.embed([source for _, source in members], modality)
                vectors[[number for number, _ in members]] = found.vectors
            return vectors
        parts = [self._of(name, batch[name], is_query) for name in _THEIRS if name in batch]
        if not parts:
            raise ValueError(f"expected rows with {', '.join(_THEIRS)} or {MEDIUM}, got {', '.join(batch)}")
        return parts[0] if len(parts) == 1 else unit(np.sum(parts, 0))

    def _of(self, modality: str, values: Iterable[Any], is_query: bool) -> np.ndarray:
        sources = [_source(modality, value, is_query) for value in values]
        vectors: np.ndarray = self.model.embed(sources, modality).vectors
        return vectors


def _source(modality: str, value: Any, is_query: bool) -> Source:
    """A value of mteb -> a source. The text of a document is a file, so that models with prompts know its role."""
    if modality == "text":
        return Source(value if is_query else value.encode(), f"text:{value[:60]}")
    if modality == "image":
        return Source(value, "image")
    if modality == "audio":
        if hasattr(value, "get_all_samples"):  # a decoder of torchcodec, as data sets of the hub have it
            samples = value.get_all_samples()
            return Source(samples.data.numpy(), "audio", Hints(rate_hz=float(samples.sample_rate)))
        wave = np.asarray(value["array"], np.float32)
        return Source(wave, "audio", Hints(rate_hz=float(value["sampling_rate"])))
    frames = np.asarray(value)
    if frames.ndim == 4 and frames.shape[1] == 3 and frames.shape[-1] != 3:  # (T, 3, H, W)
        frames = frames.transpose(0, 2, 3, 1)
    return Source(np.ascontiguousarray(frames, np.uint8), "video", Hints(rate_hz=_FRAMES_HZ))
