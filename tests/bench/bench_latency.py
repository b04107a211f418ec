"""What one person waits for, on a CPU: one item through `model.embed`, beside open_clip's ViT-B/32; the first answer.

`python -m tests.bench latency` prints a table. Items come from files, in turns with the peer, the median of many. The
peer, with random weights, opens, transforms and encodes a picture, or tokenizes and encodes a text. "Raw" is the text
encoder alone on tokens that are ready.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import soundfile
import torch
from PIL import Image

import bind
from bind.modalities import spec
from serve.library.library import Library
from tests.bench.bench_peers import photographs
from tests.bench.cpu import medians_ms, result

QUERY = "a red car on a bridge"
ROUNDS = 40
STARTS = 5


def item_rows(scratch: Path) -> list[dict[str, Any]]:
    """One text, picture and 2 s of sound from a file to its vector."""
    model = bind.load("small")
    clip, _, transform = open_clip.create_model_and_transforms("ViT-B-32")
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    clip.eval()
    picture, sound = scratch / "picture.jpg", scratch / "sound.wav"
    photographs()[2].save(picture, quality=90)
    soundfile.write(sound, 0.1 * np.random.default_rng(0).standard_normal(32_000), 16_000)
    tokens = spec("text").prepare(np.array([QUERY]), model.config("text"))
    encoder = model.tower("text").encoder

    @torch.inference_mode()
    def raw() -> object:
        return encoder(tokens)

    @torch.inference_mode()
    def clip_text() -> object:
        return clip.encode_text(tokenizer([QUERY]))

    @torch.inference_mode()
    def clip_image() -> object:
        return clip.encode_image(transform(Image.open(picture))[None])

    actions: dict[str, Callable[[], object]] = {
        "text": lambda: model.embed([f"text:{QUERY}"]),
        "clip text": clip_text,
        "image": lambda: model.embed([picture]),
        "clip image": clip_image,
    }
    has_sound = "audio" in model.modalities
    if has_sound:
        actions["audio"] = lambda: model.embed([sound])
    ms = medians_ms(actions, ROUNDS)
    # By themselves: after one of the others, the first of the two would find the weights out of the processor's cache.
    pair = medians_ms({"text": actions["text"], "raw": raw}, 2 * ROUNDS)
    times = pair["text"] / pair["raw"]
    size = "x".join(map(str, Image.open(picture).size))
    rows = [
        _row("a text query", pair["text"], pair["raw"], "its raw encoder call", times, "<= 1.3 x", times <= 1.3),
        _row("one text", ms["text"], ms["clip text"], "open_clip ViT-B/32", None, "<= 30 ms", ms["text"] <= 30),
        _row(
            f"one JPEG of {size}",
            ms["image"],
            ms["clip image"],
            "open_clip ViT-B/32",
            None,
            "<= 25 ms",
            ms["image"] <= 25,
        ),
    ]
    if has_sound:
        rows.append(_row("2 s of sound", ms["audio"], None, "", None, "<= 60 ms", ms["audio"] <= 60))
    else:
        rows.append(
            result("2 s of sound", "ms", float("nan"), goal="<= 60 ms", met=False, note="`small` has no audio encoder")
        )
    return rows


def start_rows(scratch: Path) -> list[dict[str, Any]]:
    """`crossbind search WORDS` as a new process, everything in the disk cache."""
    media = scratch / "media"
    media.mkdir()
    for number, picture in enumerate(photographs()):
        picture.save(media / f"{number}.jpg")
    library = scratch / "library"
    with Library.open(library, "small") as opened:
        opened.index(media)
    command = [sys.executable, "-m", "serve.cli.commands", "search", QUERY, "--library", str(library)]
    bare = [sys.executable, "-c", "import torch"]
    seconds: dict[str, list[float]] = {"search": [], "torch": []}
    for _ in range(STARTS + 1):
        for name, line in (("search", command), ("torch", bare)):
            started = time.perf_counter()
            subprocess.run(line, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - started)
    search_s, torch_s = (sorted(times[1:])[STARTS // 2] for times in seconds.values())
    row = result(
        "start-up of `crossbind search` to its answer",
        "s",
        search_s,
        peer=torch_s,
        peer_is="`import torch` alone",
        ratio=search_s / torch_s,
        goal="<= 4 s",
        met=search_s <= 4,
    )
    return [row]


def _row(
    what: str, ms: float, peer_ms: float | None, peer_is: str, times: float | None, goal: str, met: bool
) -> dict[str, Any]:
    shown = times if times is not None or peer_ms is None else ms / peer_ms
    return result(what, "ms", ms, peer=peer_ms, peer_is=peer_is, ratio=shown, goal=goal, met=met)


def run() -> list[dict[str, Any]]:
    """All rows."""
    with tempfile.TemporaryDirectory() as folder:
        return [*item_rows(Path(folder)), *start_rows(Path(folder))]


if __name__ == "__main__":
    for row in run():
        print(row)
