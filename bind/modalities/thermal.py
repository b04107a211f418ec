"""Thermal (infrared) pictures and temperature maps."""

from bind.modalities import ModalitySpec
from preprocess.readers import thermal

SPEC = ModalitySpec(
    name="thermal",
    config=thermal.ThermalConfig,
    read=thermal.read,
    read_whole=thermal.read_whole,
    prepare=thermal.prepare,
    shape=thermal.shape,
    families=frozenset({"image", "array"}),
    name_hints=("thermal", "infrared", "ir", "lwir", "flir"),
    encoder={"module": "convnet", "shape": (1, 224, 224), "widths": (64, 128, 256, 512)},
    head={"type": "linear"},
    preview="picture",
)
