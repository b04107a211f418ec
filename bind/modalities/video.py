"""Video: clips of frames, for the image encoder or one of its own."""

from __future__ import annotations

from bind.modalities import ModalitySpec
from preprocess.readers import video

SPEC = ModalitySpec(
    name="video",
    config=video.VideoConfig,
    read=video.read,
    prepare=video.prepare,
    shape=video.shape,
    families=frozenset({"video"}),
    default_for=frozenset({"video"}),
    anchor=None,
    revision=2,  # square pixels; PQ and HLG tone-mapped
    preview="picture",
)
