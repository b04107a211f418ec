"""What reading the words in a picture costs on one core: `python -m tests.bench.bench_words`."""

from __future__ import annotations

import io
import time

import skimage.data
from PIL import Image

from preprocess.decoding.protocol import read_here
from preprocess.readers import ocr
from preprocess.readers.lines import unpacked
from preprocess.source import Limits, Source


def main() -> None:
    """Prints the lines of scikit-image's `page.png` and the processor's time for them, the least of three."""
    file = io.BytesIO()
    Image.fromarray(skimage.data.page()).save(file, "PNG")
    source = Source(file.getvalue(), "page.png")
    costs = []
    for _ in range(4):
        started = time.process_time()
        found = unpacked(read_here(ocr.read, source, ocr.OcrConfig(), Limits(), "whole"))
        costs.append(1000 * (time.process_time() - started))
    for line in found:
        print(f"{line.text} ({line.place})")
    print(f"{min(costs[1:]):.0f} ms a picture, {costs[0]:.0f} ms the first with its models")


if __name__ == "__main__":
    main()
