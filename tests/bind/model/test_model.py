"""Embedding of mixed batches: order, recognition, bad items, segments."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bind
from bind import modalities
from bind.model.model import BatchError, BindModel, source_of
from bind.model.pipeline import Embedded, Failed
from bind.space import concatenate
from preprocess.source import Limits, MediaError, Source
from serve.demo.samples import CLIPS, EVERYDAY


@pytest.fixture(scope="module")
def small() -> BindModel:
    return bind.load("small", modalities=["image", "video", "text"])


def png(seed: int, size: int = 64) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_every_way_to_name_a_picture_gives_one_vector(small: BindModel, tmp_path: Path) -> None:
    content = png(0)
    file = tmp_path / "a.png"
    file.write_bytes(content)
    picture = Image.open(io.BytesIO(content))
    items = [str(file), file, f"image:{file}", content, bytearray(content), picture, Source(content, "x")]
    vectors = small.embed(items).vectors
    array = small.embed([np.asarray(picture)], modality="image").vectors
    np.testing.assert_allclose(np.concatenate([vectors, array]), np.repeat(vectors[:1], 8, 0), atol=1e-6)


def test_relative_paths_follow_the_caller(small: BindModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decode workers were started in another folder."""
    small.embed([png(0)])
    (tmp_path / "here.png").write_bytes(png(5))
    monkeypatch.chdir(tmp_path)
    found = small.embed(["here.png"]).vectors
    np.testing.assert_allclose(found, small.embed([png(5)]).vectors, atol=1e-6)
    with pytest.raises(BatchError) as caught:
        small.embed(["not-here.png"])
    assert caught.value.path == "not-here.png"


def test_order_is_kept_over_modalities_and_batches(small: BindModel) -> None:
    items: list[object] = ["text:one", png(1), "text:two", CLIPS[0].path, png(2), "text:three"]
    together = small.embed(items, batch_size=2)
    alone = concatenate([small.embed([item]) for item in items])
    assert together.space == alone.space
    np.testing.assert_allclose(together.vectors, alone.vectors, atol=1e-5)


def test_bad_items_leave_the_good_ones(small: BindModel, tmp_path: Path) -> None:
    missing = tmp_path / "missing.png"
    broken_sidecar = tmp_path / "b.png"
    broken_sidecar.write_bytes(png(3))
    broken_sidecar.with_name("b.png.json").write_text("{")
    items = [
        png(1),
        missing,
        "text:words",
        b"",
        tmp_path,
        broken_sidecar,
        png(1)[:100],
        png(2),
        "thermal:x.png",
        np.ones(3),
    ]
    with pytest.raises(BatchError) as caught:
        small.embed(items)
    error = caught.value
    assert isinstance(error, MediaError)
    assert error.rows.tolist() == [0, 2, 5, 7]
    np.testing.assert_allclose(
        error.embeddings.vectors, small.embed([items[i] for i in (0, 2, 5, 7)]).vectors, atol=1e-5
    )
    reasons = [e.reason for e in error.errors]
    for reason, part in zip(
        reasons,
        ["does not exist", "empty", "directory", "truncated", "thermal was left out", "modality=..."],
        strict=True,
    ):
        assert part in reason, reasons


def test_nothing_gives_nothing(small: BindModel) -> None:
    assert small.embed([]).vectors.shape == (0, small.dim)


def test_stream_gives_segments_with_times(small: BindModel) -> None:
    results = list(small.stream([CLIPS[1].path, "text:a"], plan="segments"))
    assert all(isinstance(result, Embedded) for result in results)
    clip = [r for r in results if isinstance(r, Embedded) and r.position == 0]
    assert [r.last for r in clip] == [False] * (len(clip) - 1) + [True]
    assert clip[0].start_s == 0
    words = next(r for r in results if r.position == 1)
    assert isinstance(words, Embedded)
    assert (words.start_s, words.last) == (None, True)


def test_stream_does_not_run_ahead(small: BindModel) -> None:
    """However many items there are, only a few are taken before the first result comes."""
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield png(taken, 16)

    results = small.stream(endless(), batch_size=4)
    for _ in range(8):
        assert isinstance(next(results), Embedded)
    assert taken < 8 + 4 + 2 * (os.cpu_count() or 1) + 8


def test_limits_reach_the_decoder(small: BindModel) -> None:
    (failed,) = small.stream([png(0)], limits=Limits(max_pixels=100))
    assert isinstance(failed, Failed)
    assert "pixels" in failed.error.reason


def test_prefixes() -> None:
    assert source_of("text:a: b")[0].content == "a: b"
    assert source_of("depth:x/y.png") == (Source.from_path("x/y.png"), "depth")
    assert source_of("C:x.png")[0].name == "C:x.png"
    assert source_of("a red car", "text")[0].content == "a red car"


def test_names_choose_the_modality(tmp_path: Path) -> None:
    for name, expected in {
        "a.png": "image",
        "a.depth.png": "depth",
        "room_disparity.png": "depth",
        "thermal/a.png": "thermal",
        "depth/17.thermal.png": "thermal",
        "indepth.png": "image",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(png(0))
        assert modalities.detect(Source.from_path(file), Limits()) == expected
    table = tmp_path / "walk.csv"
    table.write_text("t,ax,ay,az,gx,gy,gz\n")
    assert modalities.detect(Source.from_path(table), Limits()) == "imu"
    array = tmp_path / "x.npy"
    np.save(array, np.zeros((4, 4)))
    with pytest.raises(MediaError, match=r"name it like NAME.depth.npy"):
        modalities.detect(Source.from_path(array), Limits())


@pytest.mark.slow
def test_large_batch_of_photographs(small: BindModel) -> None:
    paths = [sample.path for sample in EVERYDAY] * 20
    assert len(small.embed(paths)) == len(paths)


def test_odd_arguments_say_what_is_known(small: BindModel) -> None:
    for ask in (lambda: small.embed(["x.jpg"], modality="imge"), lambda: bind.load("small", modalities=["imge"])):
        with pytest.raises(ValueError, match="no modality 'imge'; known: audio, depth, image"):
            ask()
    with pytest.raises(ValueError, match=r"expected a collection of names, such as \['image'\], got one text"):
        bind.load("small", modalities="image")
    for one in ("dog.jpg", b"bytes", Path("dog.jpg")):
        with pytest.raises(ValueError, match="items: expected several"):
            small.embed(one)


def test_a_batch_error_can_be_pickled(small: BindModel, tmp_path: Path) -> None:
    with pytest.raises(BatchError) as caught:
        small.embed(["text:a dog", tmp_path / "missing.jpg", tmp_path / "gone.jpg"])
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert [error.reason for error in again.errors] == ["does not exist"] * 2
    assert again.rows.tolist() == [0]
    assert (again.embeddings.vectors == caught.value.embeddings.vectors).all()


def test_a_reader_that_returns_nothing_is_reported(small: BindModel, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(modalities.spec("image"), read=lambda *_: [], isolated=False)
    monkeypatch.setitem(modalities.specs(), "image", spec)
    with pytest.raises(BatchError, match="nothing in it can be embedded") as caught:
        small.embed(["text:a dog", b"\x89PNG\r\n\x1a\n"])
    assert caught.value.rows.tolist() == [0]


SENSOR = """
import dataclasses
import numpy as np
from bind.modalities import ModalitySpec
from bind.modalities.shared_maths import doubled
from preprocess.source import MediaError, Segment

@dataclasses.dataclass(frozen=True)
class Config:
    size: int = 4

def read(source, config, limits, plan):
    with source.open(limits) as file:
        return [Segment(doubled(np.frombuffer(file.read(config.size), np.uint8))[None])]

SPEC = ModalitySpec(name="smell", config=Config, read=read, prepare=None, shape=None, families=frozenset())
"""


def test_a_folder_of_modalities_may_hold_helpers(tmp_path: Path) -> None:
    folder = tmp_path / "sensors"
    folder.mkdir()
    (folder / "shared_maths.py").write_text("def doubled(x):\n    return 2 * x\n")
    (folder / "smell.py").write_text(SENSOR)
    (tmp_path / "x.bin").write_bytes(b"\1\2\3\4")
    program = (
        "from bind import modalities; from preprocess.decoding.pool import DecodePool\n"
        "from preprocess.source import Limits, Source\n"
        "s = modalities.spec('smell')\n"
        "with DecodePool(1) as pool:\n"
        "    task = pool.submit(s.read, Source.from_path('x.bin'), s.config(), Limits(), 'whole')\n"
        "    print(task.result()[0].views.tolist(), 'shared_maths' in modalities.specs())"
    )
    environment = dict(os.environ, CROSSBIND_MODALITIES="sensors", PYTHONPATH=str(Path(bind.__file__).parents[2]))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[[2, 4, 6, 8]] False\n", done.stderr
