"""Depth maps."""

from bind.modalities import ModalitySpec
from preprocess.readers import depth

SPEC = ModalitySpec(
    name="depth",
    config=depth.DepthConfig,
    read=depth.read,
    read_whole=depth.read_whole,
    prepare=depth.prepare,
    shape=depth.shape,
    families=frozenset({"image", "array"}),
    name_hints=("depth", "disparity", "disp"),
    encoder={"module": "convnet", "shape": (1, 224, 224), "widths": (64, 128, 256, 512)},
    head={"type": "linear"},
    preview="picture",
)
