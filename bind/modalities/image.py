"""Pictures."""

from bind.modalities import ModalitySpec
from preprocess import image

SPEC = ModalitySpec(
    name="image",
    config=image.ImageConfig,
    read=image.read,
    prepare=image.prepare,
    prepare_tensor=image.prepare_tensor,
    shape=image.shape,
    families=frozenset({"image"}),
    default_for=frozenset({"image"}),
    anchor=None,
)
