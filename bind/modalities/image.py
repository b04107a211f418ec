"""Pictures."""

from bind.modalities import ModalitySpec
from preprocess import image

SPEC = ModalitySpec(
    name="image",
    config=image.ImageConfig,
    read=image.read,
    prepare=image.prepare,
    shape=image.shape,
    families=frozenset({"image"}),
    default_for=frozenset({"image"}),
    anchor=None,
)
