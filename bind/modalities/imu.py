"""Inertial measurements: accelerometer and gyroscope."""

from bind.modalities import ModalitySpec
from preprocess.readers import imu

SPEC = ModalitySpec(
    name="imu",
    config=imu.ImuConfig,
    read=imu.read,
    prepare=imu.prepare,
    shape=imu.shape,
    families=frozenset({"table", "array"}),
    default_for=frozenset({"table"}),
    name_hints=("imu", "accelerometer", "gyroscope", "motion"),
    anchor="video",
    encoder={"module": "convnet", "shape": (6, 2000), "widths": (64, 128, 256, 512)},
    head={"type": "linear"},
    revision=2,  # units by magnitude; gravity that was removed
    preview="plot",
)
