"""Sound, and the sound track of a video."""

from bind.modalities import ModalitySpec
from preprocess.readers import audio

SPEC = ModalitySpec(
    name="audio",
    config=audio.AudioConfig,
    read=audio.read,
    prepare=audio.prepare,
    prepare_tensor=audio.prepare_tensor,
    shape=audio.shape,
    families=frozenset({"audio", "video"}),
    default_for=frozenset({"audio"}),
    encoder={"module": "convnet", "shape": (1, 128, 204), "widths": (64, 128, 256, 512)},
    head={"type": "linear"},
    revision=2,  # channels that cancel each other out; MP3s without a length
    preview="plot",
)
