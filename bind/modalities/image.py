"""Pictures, and the pages of documents."""

from bind.modalities import ModalitySpec
from preprocess.readers import image, image_gpu

SPEC = ModalitySpec(
    name="image",
    config=image.ImageConfig,
    read=image.read,
    read_whole=image.read_whole,
    prepare=image.prepare,
    prepare_tensor=image.prepare_tensor,
    read_on_gpu=image_gpu.read_many,
    shape=image.shape,
    families=frozenset({"image", "document"}),
    default_for=frozenset({"image", "document"}),
    anchor=None,
    preview="picture",
)
